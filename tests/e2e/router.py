"""A router that speaks just enough UPnP to be asked for ports: router.py ADDRESS FILE READY. Each port that it is asked
to open becomes a line of FILE: protocol, port, host. READY is made once it listens."""

import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

ADDRESS, FILE, READY = sys.argv[1:]
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0">
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>router</friendlyName>
<serviceList><service><serviceType>{SERVICE}</serviceType><controlURL>/control</controlURL><SCPDURL>/scpd</SCPDURL>
</service></serviceList></device></root>"""


class Router(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(DESCRIPTION.encode())

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        field = lambda name: re.search(f"<{name}>(.*?)</{name}>", text).group(1)
        if "AddPortMapping" in self.headers["SOAPAction"] and field("NewExternalPort") == field("NewInternalPort"):
            with open(FILE, "a") as file:
                print(field("NewProtocol"), field("NewInternalPort"), field("NewInternalClient"), file=file)
        self.answer(b"<ok/>")

    def log_message(self, *_):
        pass


# An HTTPServer would look its own name up, and wait for a resolver that is not there.
server = ThreadingTCPServer((ADDRESS, 0), Router)
threading.Thread(target=server.serve_forever, daemon=True).start()
ears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
ears.bind(("239.255.255.250", 1900))
group = socket.inet_aton("239.255.255.250")
ears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton(ADDRESS))
mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mouth.bind((ADDRESS, 0))
open(READY, "w").close()
while True:
    asked, who = ears.recvfrom(2048)
    if asked.startswith(b"M-SEARCH") and SERVICE.encode() in asked:
        location = f"http://{ADDRESS}:{server.server_address[1]}/"
        mouth.sendto(f"HTTP/1.1 200 OK\r\nST: {SERVICE}\r\nLOCATION: {location}\r\n\r\n".encode(), who)
