"""Two machines with a cable between them, and the systems that keep a directory equal on both.

Each node is a network namespace of its own with one veth and no default route: nothing outside is reachable. The mount
namespace is shared, so that the measuring process sees both directories. Needs root, iproute2 and util-linux.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

PREFIX = os.environ.get("SYNC_NAMESPACES", "kfs")
NODES = "AB"
NAMESPACE = {node: PREFIX + node for node in NODES}
ADDRESS = {"A": "10.77.0.1", "B": "10.77.0.2"}
QUIET_BYTES = 4096  # less than that in a second is a quiet wire
QUIET_SECONDS_MAX = 20
clock = time.perf_counter


def other(node):
    return "B" if node == "A" else "A"


def run(*command, check=True, **options):
    """Runs a command to its end: its standard output. A failure shows all that it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def within(seconds, what, ready):
    """Waits until `ready()` holds."""
    end = clock() + seconds
    while not ready():
        if clock() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def seconds_of(pid):
    """What a process has computed so far, its ended threads too."""
    with open(f"/proc/{pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Cable:
    """The namespaces and the veth pair between them."""

    def up(self):
        self.down()
        for node in NODES:
            run("ip", "netns", "add", NAMESPACE[node])
        self.connect()
        for node in NODES:
            inside = ("ip", "-n", NAMESPACE[node])
            run(*inside, "link", "set", "lo", "up")
            run(*inside, "addr", "add", ADDRESS[node] + "/24", "dev", "veth0")
            run(*inside, "link", "set", "veth0", "up")

    def connect(self):
        run("ip", "link", "add", "veth0", "netns", NAMESPACE["A"],
            "type", "veth", "peer", "name", "veth0", "netns", NAMESPACE["B"])

    def down(self):
        for node in NODES:
            run("ip", "netns", "del", NAMESPACE[node], check=False)

    def plug(self, on):
        for node in NODES:
            run("ip", "-n", NAMESPACE[node], "link", "set", "veth0", "up" if on else "down")

    def bytes(self):
        """Bytes from A to B and from B to A, with what IP, TCP and Ethernet add."""
        shown = json.loads(run("ip", "-n", NAMESPACE["A"], "-s", "-j", "link", "show", "veth0"))
        counters = shown[0]["stats64"]
        return counters["tx"]["bytes"], counters["rx"]["bytes"]

    def settle(self):
        """Waits until the wire is quiet, at most QUIET_SECONDS_MAX."""
        end = clock() + QUIET_SECONDS_MAX
        last = sum(self.bytes())
        while clock() < end:
            time.sleep(1)
            now = sum(self.bytes())
            if now - last < QUIET_BYTES:
                return
            last = now


class Line(Cable):
    """The same with a relay instead of the veth pair: a packet takes so long in each direction, and some are lost."""

    def __init__(self, delay_ms, loss_percent):
        self.delay_ms, self.loss_percent = delay_ms, loss_percent
        self.relay = None

    def connect(self):
        here = os.path.dirname(os.path.abspath(__file__))
        command = (sys.executable, f"{here}/relay.py", *NAMESPACE.values(), "veth0", str(self.delay_ms), str(self.loss_percent))
        self.relay = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if self.relay.stdout.readline() != b"ready\n":
            raise RuntimeError("the relay does not run: is there a /dev/net/tun?")

    def down(self):
        if self.relay:
            self.relay.kill()
            self.relay.wait()
            self.relay = None
        super().down()


class System:
    """One system: `start` brings up both nodes, connected, with `path` of each usable; `stop` ends and unmounts them."""

    name = "?"
    watch_seconds = 0  # how long it looks at nothing after a change

    def __init__(self, work):
        self.work = work
        self.processes = []
        self.path = {}

    def start(self):
        raise NotImplementedError

    def cpu_seconds(self, node):
        """What the node's processes have computed so far, if that can be told."""
        return None

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def inside(self, node, *command):
        return ("nsenter", f"--net=/run/netns/{NAMESPACE[node]}", *command)

    def run(self, node, *command, **options):
        return run(*self.inside(node, *command), **options)

    def spawn(self, node, *command, environment=None, stdout=None):
        with open(f"{self.work}/{node}.log", "ab") as log:
            process = subprocess.Popen(
                self.inside(node, *command), stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log,
                env=dict(os.environ, **(environment or {})), start_new_session=True)
        self.processes.append(process)

    def directory(self, node, name):
        path = f"{self.work}/{node}/{name}"
        os.makedirs(path, exist_ok=True)
        return path


class Kilofs(System):
    """A makes the database and B joins with a write link; a private DHT runs beside A; each is the other's --peer."""

    name = "kilofs"
    here = os.path.dirname(os.path.abspath(__file__))
    binary = os.environ.get("KILOFS", f"{here}/../../target/release/kilofs")
    port = 16881
    poll_seconds = os.environ.get("KILOFS_POLL", "30")

    def start(self):
        heard = f"{self.work}/testnet"
        with open(heard, "wb") as stdout:
            self.spawn("A", self.binary, "testnet", "--bind", ADDRESS["A"], "--port", "0", stdout=stdout)
        within(30, "the private DHT is usable", lambda: os.path.getsize(heard) > 0)
        with open(heard) as file:
            bootstrap = file.readline().strip()
        for node in NODES:
            network = ("--bootstrap", bootstrap, "--listen", f"{ADDRESS[node]}:{self.port}",
                       "--peer", f"{ADDRESS[other(node)]}:{self.port}", "--poll-interval", self.poll_seconds)
            if node == "A":
                self.kilofs(node, "create", "bench", *network)
            else:
                link = self.kilofs("A", "link", "bench", "--write")
                self.kilofs(node, "join", "bench", *network, input=link)
            self.path[node] = self.directory(node, "mount")
            # The engine lives on with the pipes that it was given, so these lead to the log.
            with open(f"{self.work}/{node}.log", "ab") as log:
                command = self.inside(node, self.binary, *self.device(node), "mount", "bench", self.path[node])
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60)

    def stop(self):
        for node in NODES:
            if os.path.ismount(self.path.get(node, "")):
                run(self.binary, "umount", self.path[node], check=False, timeout=60)
                run("umount", "-l", self.path[node], check=False)
        super().stop()

    def cpu_seconds(self, node):
        return seconds_of(json.loads(self.kilofs(node, "status", "bench", "--json"))["pid"])

    def device(self, node):
        return ("--home", self.directory(node, "home"), "--no-passphrase")

    def kilofs(self, node, *arguments, **options):
        return self.run(node, self.binary, *self.device(node), *arguments, timeout=60, **options)


class Syncthing(System):
    """With a watcher that waits for one second instead of ten."""

    name = "syncthing-1s"
    watch_seconds = 1
    options = dict(
        globalAnnounceEnabled="false", localAnnounceEnabled="false", relaysEnabled="false", natEnabled="false",
        urAccepted="-1", urSeen="3", crashReportingEnabled="false", autoUpgradeIntervalH="0", startBrowser="false",
        reconnectionIntervalS="5", stunKeepaliveStartS="0")

    def start(self):
        identity = {}
        for node in NODES:
            home = self.directory(node, "home")
            self.path[node] = self.directory(node, "data")
            self.run(node, "syncthing", "generate", "--home", home, "--no-default-folder")
            identity[node] = self.run(node, "syncthing", "--home", home, "--device-id")
        for node in NODES:
            home = self.directory(node, "home")
            with open(f"{home}/config.xml") as file:
                configuration = self.configure(file.read(), node, identity[other(node)])
            with open(f"{home}/config.xml", "w") as file:
                file.write(configuration)
            self.spawn(node, "syncthing", "serve", "--no-browser", "--no-restart", "--no-upgrade", "--home", home,
                       environment=dict(HOME=f"{self.work}/{node}", STNOUPGRADE="1"))
        marked = [f"{self.path[node]}/.stfolder" for node in NODES]
        within(60, "Syncthing has its folders", lambda: all(map(os.path.isdir, marked)))
        time.sleep(3)  # the two have found each other by then

    def configure(self, xml, node, peer):
        for key, value in dict(self.options, listenAddress=f"tcp://{ADDRESS[node]}:22000").items():
            wanted = f"<{key}>{value}</{key}>"
            xml, count = re.subn(f"<{key}>[^<]*</{key}>", wanted, xml)
            if count == 0:
                xml = xml.replace("</options>", wanted + "</options>")
        xml = re.sub(r"<address>127.0.0.1:\d+</address>", "<address>127.0.0.1:8384</address>", xml)
        device = (f'<device id="{peer}" name="{other(node)}" compression="metadata">'
                  f"<address>tcp://{ADDRESS[other(node)]}:22000</address></device>")
        # From the defaults, because a missing <maxConflicts> would mean that there are no conflict copies.
        folder = re.search(r"<defaults>.*?(<folder .*?</folder>)", xml, re.S)[1]
        opening = (f'<folder id="f" label="f" path="{self.path[node]}" type="sendreceive" rescanIntervalS="3600" '
                   f'fsWatcherEnabled="true" fsWatcherDelayS="{self.watch_seconds}" ignorePerms="false" '
                   f'autoNormalize="true"><device id="{peer}"></device>')
        folder = re.sub(r"<folder [^>]*>", opening, folder, count=1)
        return xml.replace("</configuration>", device + folder + "</configuration>")


class SyncthingDefault(Syncthing):
    """As it comes."""

    name = "syncthing-10s"
    watch_seconds = 10


SYSTEMS = {system.name: system for system in (Kilofs, Syncthing, SyncthingDefault)}
