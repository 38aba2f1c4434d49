"""A second reader of kilofs databases, written from kilofs(5) alone: it shares no code with the first one.

  reader items LINK HOST:PORT             record and lifeline as the DHT behind a node has them, as JSON
  reader versions LINK ITEMS              what the record names, the newest first: infohash, offset and length of the commit
  reader list LINK ITEMS DATABASE         what is in a version: of each path a line of JSON
  reader extract LINK ITEMS DATABASE DIR  makes all of it in the empty directory DIR
  reader private LINK ITEMS DATABASE DIR SEED  the same with what is inside private blocks that are for the device of this seed
  reader vectors FOLDER                   takes and refuses what the vectors say, or says what it does not

LINK is a file that holds a link, of which reading suffices, ITEMS one that `items` printed, DATABASE what the torrent of a version holds, or
the store of a device. What is not exactly as the page has it ends this with a message and status 1: half a version is
never shown. Needs PyNaCl and blake3.
"""

import json
import os
import socket
import sys

from dht import dht_get
from fields import Refused, need
from image import Image
from private import Device, keys_of, look_inside
from signed import Link, Version, in_force
from tree import DIRECTORY, FIFO, FILE, SYMLINK, everything
from vectors import check


def show(path, tree, inode, found):
    line = {"path": os.fsdecode(path), "block": tree and tree.keys.number, "inode": inode, **found._asdict()}
    line["mode"] = oct(found.mode)
    del line["data"], line["data_id"], line["log"], line["parent"]
    if tree:
        line["xattrs"] = {os.fsdecode(name): value.hex() for name, value in tree.xattrs.get(inode, {}).items()}
    if found.type == SYMLINK:
        line["target"] = os.fsdecode(tree.targets[inode])
    print(json.dumps(line))


def make(path, tree, inode, found, made):
    """Makes one thing; `made` has what bears other names of it."""
    if inode in made:
        os.link(made[inode], path, follow_symlinks=False)
    elif found.type == DIRECTORY:
        os.mkdir(path, 0o700)
    elif found.type == FILE:
        with open(path, "xb") as file:
            for offset, data in tree.content(inode):
                file.seek(offset)
                file.write(data)
            file.truncate(found.size)
    elif found.type == SYMLINK:
        os.symlink(tree.targets[inode], path)
    elif found.type == FIFO:
        os.mkfifo(path)
    else:
        return print(f"left out, a device or socket: {os.fsdecode(path)}", file=sys.stderr)
    if found.type != DIRECTORY:
        made.setdefault(inode, path)


def extract(entries, directory):
    made, places = {}, [(os.path.join(os.fsencode(directory), path), *rest) for path, *rest in entries]
    need(not os.path.exists(directory) or not os.listdir(directory), f"{directory}: not empty")
    if os.path.exists(directory):
        os.rmdir(directory)
    for path, *rest in places:
        make(path, *rest, made)
    # What is inside changes the times of a directory, and its mode may keep us from it.
    for path, _, _, found in reversed(places):
        if os.path.lexists(path):
            if found.type != SYMLINK:
                os.chmod(path, found.mode)
            os.utime(path, ns=(found.mtime, found.mtime), follow_symlinks=False)


def main(command, link_file, *rest):
    if command == "vectors":
        return print(json.dumps(check(link_file)))
    where, *rest = rest
    with open(link_file) as file:
        link = Link(file.read())
    if command == "items":
        host, port = where.rsplit(":", 1)
        found = [dht_get(key, (socket.gethostbyname(host), int(port))) for key in (link.key, link.admin)]
        items = [item and {"seq": item[0], "signature": item[1].hex(), "value": item[2].hex()} for item in found]
        return print(json.dumps(dict(zip(("record", "lifeline"), items))))
    with open(where) as file:
        record = in_force(link, json.load(file))
    if command == "versions":
        lines = (f"{infohash.hex()} {place.offset} {place.length}" for infohash, place, _ in record.versions)
        return print("\n".join(lines))
    need(link.secret or link.one, "the link: one for mirrors opens no version")
    need(link.secret, "the link: this reader opens no single block")
    version = Version(Image(rest[0], link, record), link, record)
    device = None
    if command == "private":
        with open(rest[2]) as file:
            device = Device(bytes.fromhex(file.read()))

    def open_private(tree, private):
        keys = keys_of(device, link, *private)
        return keys and look_inside(tree, link, *private, keys)

    entries = everything(version, open_private)
    if command in ("extract", "private"):
        return extract(entries, rest[1])
    for entry in entries:
        show(*entry)


if __name__ == "__main__":
    arguments = {"items": 2, "versions": 2, "list": 3, "extract": 4, "private": 5, "vectors": 1}
    if len(sys.argv) < 2 or arguments.get(sys.argv[1]) != len(sys.argv) - 2:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except Refused as refusal:
        sys.exit(f"reader: {refusal}")
