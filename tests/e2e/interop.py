#!/usr/bin/env python3
"""What libtorrent makes of kilofs: a helper for the tests in interop.rs.

  interop.py nodes PORT COUNT                     a DHT of libtorrent nodes on loopback; one line when it is usable
  interop.py get HOST:PORT KEY                    the mutable item (BEP 44) under a hexadecimal key, as JSON
  interop.py download INFOHASH HOST:PORT DIR      downloads a torrent from one peer and checks every piece, as JSON
  interop.py seed INFOHASH HOST:PORT DIR          the same, then serves it; one line, the address, when it does
"""

import hashlib
import json
import os
import sys
import time

import libtorrent as lt

PATIENCE_SECONDS = 60
RECONNECT_SECONDS = 15


def session(port=0, dht=True):
    """A session that stays on loopback and trusts nodes that all have one address. It is told of nodes one by one: a
    bootstrap node would only be asked for others, and never store or answer anything itself."""
    return lt.session({
        "listen_interfaces": f"127.0.0.1:{port}",
        "enable_dht": dht,
        "dht_bootstrap_nodes": "",
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_enforce_node_id": False,
        "dht_ignore_dark_internet": False,
        "dht_prefer_verified_node_ids": False,
        "dht_max_peers_reply": 100,
        "dht_item_lifetime": 0,
        "dht_block_ratelimit": 100000,
        "dht_block_timeout": 1,
        "dht_upload_rate_limit": 10_000_000,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "alert_mask": lt.alert.category_t.all_categories,
    })


def wait_for(ses, what, is_it):
    """The first alert for which `is_it` holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        ses.wait_for_alert(200)
        for alert in ses.pop_alerts():
            if is_it(alert):
                return alert
    sys.exit(f"no {what} within {PATIENCE_SECONDS} s")


def nodes(port, count):
    port, count = int(port), int(count)
    sessions = [session(port + index) for index in range(count)]
    known = [set() for _ in sessions]
    end = time.monotonic() + PATIENCE_SECONDS
    # Each must have heard from a few others before it answers lookups well.
    while any(len(each) < min(count - 1, 4) for each in known):
        if time.monotonic() > end:
            sys.exit("the nodes did not find each other")
        for index, each in enumerate(sessions):
            for other in range(count):
                if other != index:
                    each.add_dht_node(("127.0.0.1", port + other))
            for alert in each.pop_alerts():
                if isinstance(alert, lt.dht_pkt_alert) and alert.message().startswith("<=="):
                    known[index].add(alert.message().split("]")[0])
        time.sleep(0.2)
    print(f"127.0.0.1:{port}", flush=True)
    while True:
        time.sleep(1)
        for each in sessions:
            each.pop_alerts()


def get(bootstrap, key):
    ses = session()
    host, port = bootstrap.rsplit(":", 1)
    raw = bytes.fromhex(key)
    alert = None
    end = time.monotonic() + PATIENCE_SECONDS
    while alert is None:
        if time.monotonic() > end:
            sys.exit("the item was not found")
        ses.add_dht_node((host, int(port)))
        time.sleep(0.5)
        ses.dht_get_mutable_item(raw, b"")
        done = wait_for(ses, "answer", lambda alert: isinstance(alert, lt.dht_mutable_item_alert) and alert.authoritative)
        alert = done if done.seq > 0 else None
    value = alert.item if isinstance(alert.item, bytes) else alert.item["value"]
    # libtorrent drops items whose signature does not verify before anybody sees them; the key is checked all the same.
    verified = bytes(alert.key) == raw and len(bytes(alert.signature)) == 64
    print(json.dumps({"seq": alert.seq, "value": value.hex(), "verified": verified}))


def fetched(ses, infohash, peer, directory):
    """A handle of the torrent, complete and checked again."""
    parameters = lt.parse_magnet_uri(f"magnet:?xt=urn:btih:{infohash}")
    parameters.save_path = directory
    handle = ses.add_torrent(parameters)
    host, port = peer.rsplit(":", 1)
    end = time.monotonic() + PATIENCE_SECONDS
    again = 0
    while not handle.status().is_seeding:
        if time.monotonic() > end:
            sys.exit(f"not downloaded: {handle.status().state} {handle.status().progress}")
        # Asked for again while it tries one transport, libtorrent would never come to the other.
        if time.monotonic() > again:
            handle.connect_peer((host, int(port)))
            again = time.monotonic() + RECONNECT_SECONDS
        time.sleep(0.2)
    return handle


def pieces_match(info, path):
    """Every piece of the file against its hash, by means of our own."""
    with open(path, "rb") as file:
        for index in range(info.num_pieces()):
            if hashlib.sha1(file.read(info.piece_length())).digest() != info.hash_for_piece(index):
                return False
        return file.read(1) == b""


def download(infohash, peer, directory):
    ses = session(dht=False)
    handle = fetched(ses, infohash, peer, directory)
    info = handle.torrent_file()
    handle.pause()
    handle.flush_cache()
    wait_for(ses, "flush", lambda alert: isinstance(alert, lt.cache_flushed_alert))
    print(json.dumps({
        "name": info.name(),
        "files": info.num_files(),
        "size": info.total_size(),
        "complete": pieces_match(info, os.path.join(directory, "database")),
    }))


def seed(infohash, peer, directory):
    ses = session(dht=False)
    fetched(ses, infohash, peer, directory)
    print(f"127.0.0.1:{ses.listen_port()}", flush=True)
    while True:
        time.sleep(1)
        ses.pop_alerts()


if __name__ == "__main__":
    commands = {"nodes": nodes, "get": get, "download": download, "seed": seed}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
