"""What this reader makes of the vectors, against what is written in them."""

import os
from collections import Counter
from types import SimpleNamespace

from block import CHARTER, COMMIT, NODE, Block
from blake3 import blake3
from fields import Cursor, Place, Refused, need
from rotation import Announcement
from signed import Link, Record, item_value, open_lifeline, read_charter, read_commit, read_entry

MODES = {"rw": 0, "ro": 1, "owner": 2, "append": 3}


def parse(path):
    """What goes in, and what must come out."""
    with open(path) as file:
        parts = file.read().split("---\n")
    return [dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith("#")) for part in parts]


def raw(inputs, name):
    return bytes.fromhex(inputs.get(name, "").strip())


def link_of(inputs):
    admin = raw(inputs, "admin")
    # Of several, the number of each is the epoch that it seals.
    secrets = list(enumerate(raw(inputs, name) for name in inputs if name.startswith("read secret")))
    return SimpleNamespace(
        admin=admin,
        database=blake3(b"kilofs database 1" + admin).digest() if admin else raw(inputs, "database"),
        record_key=raw(inputs, "record key"),
        record_keys=[raw(inputs, name) for name in inputs if name.startswith("record key")],
        secrets=lambda epoch: secrets[epoch::-1] if len(secrets) > 1 else [(epoch, secrets[0][1])],
    )


def item_of(inputs):
    return {name: inputs[name] for name in ("value", "signature")} | {"seq": int(inputs["seq"])}


def link(inputs, out):
    if out["expect"] == "accepted" and "passphrase" in inputs:
        return  # This reader opens no locked links.
    read = Link(inputs["text"].replace("\\n", "\n").replace("\\t", "\t"))
    if out["expect"] != "accepted":
        return  # That it was taken is said elsewhere.
    found = (read.database, read.admin, read.key, read.record_key, read.secret)
    names = ("database", "admin public", "database public", "record key", "read secret")
    older = [each.hex() for each in read.generations[:-1]]
    need(older == out.get("older", "").split(), "keys of earlier generations")
    need([each.hex() if each else "none" for each in found] == [out.get(name) for name in names], "keys")
    need((str(read.counter), str(read.seq)) == (out["policy counter"], out["seq"]), "counters")


def record(inputs, out):
    try:
        Record(link_of(inputs), raw(inputs, "sealed"), "the record")
    except Refused as refusal:
        # The vectors tell a record that opens from the policy in it.
        need(out.get("signed by the admin") == "no" and "policy" in str(refusal), str(refusal))


def lifeline(inputs, out):
    link = link_of(inputs)
    need(raw(inputs, "key") == link.admin, "the lifeline: under another key")
    found = open_lifeline(link, item_of(inputs))
    need(str(found.generation) == out.get("generation", "0"), "the generation")
    need(found.known == ("policy" in out), "the policy")


def item(inputs, out):
    item_value(raw(inputs, "key"), item_of(inputs), "the item")


def charter(inputs, out):
    read_charter(Cursor(raw(inputs, "bytes"), "the charter"))


def commit(inputs, out):
    read_commit(Cursor(raw(inputs, "bytes"), "the commit"), link_of(inputs).database)


def entry(inputs, out):
    fixed = read_charter(Cursor(raw(inputs, "charter"), "the charter"))
    fields = Cursor(raw(inputs, "bytes"), "the entry")
    block = int.from_bytes(fields.data[1:3], "little")
    need(block in fixed.blocks, "the entry: of no block")
    read_entry(fields, link_of(inputs), block, fixed, MODES[inputs["mode"]])


def seal(inputs, out):
    sealed = raw(out, "sealed")
    image = SimpleNamespace(read=lambda place, what: sealed)
    keys = Block(image, link_of(inputs), int(inputs["block"]), raw(inputs, "birth"), int(inputs["epoch"]))
    need(keys.commitment.hex() == out["commitment"], "the commitment")
    need(keys.boundary.hex() == out["boundary key"], "the boundary key")
    place, expected, kind = Place(0, len(sealed)), raw(out, "id"), inputs["kind"]
    if kind == "chunk":
        found = keys.chunk(place, expected, int(inputs["data id"]), int(inputs["index"]), "the chunk")
        need(found == raw(inputs, "plain"), "the chunk")
    else:
        level = int(inputs.get("level", 0))
        kind = {"node": NODE, "commit": COMMIT, "charter": CHARTER}[kind]
        content, places = keys.open(kind, place, expected, "the object", level)
        need((content.data, places.data) == (raw(inputs, "plain"), raw(inputs, "placements")), "the object")


def opened(inputs, out):
    sealed = raw(inputs, "sealed")
    image = SimpleNamespace(read=lambda place, what: sealed)
    keys = Block(image, link_of(inputs), int(inputs["block"]), raw(inputs, "birth"), int(inputs["epoch"]))
    place, expected, level = Place(0, len(sealed)), raw(inputs, "id"), int(inputs["level"])
    if inputs["kind"] == "chunk":
        found = keys.chunk(place, expected, int(inputs["data id"]), int(inputs["index"]), "the chunk"), b""
    else:
        kind = {"node": NODE, "commit": COMMIT, "charter": CHARTER}[inputs["kind"]]
        found = tuple(part.data for part in keys.open(kind, place, expected, "the object", level))
    wanted = (raw(out, "plain"), raw(out, "placements"))
    need(out["expect"] != "accepted" or found == wanted, "another content")


def announcement(inputs, out):
    found = Announcement(raw(inputs, "bytes"))
    kind, keys = found.keys(raw(inputs, "device"))
    keys = Link.of(kind, keys)
    need((kind, keys.database) == (out["kind"], found.database), "the new keys: another database's")
    need(len(keys.generations) - 1 == found.generation == int(out["generation"]), "the generation")
    need(found.digest.hex() == out["digest"], "the digest")
    need([each.hex() for each in keys.generations[:-1]] == out["older"].split(), "keys of earlier generations")
    need(keys.record_key.hex() == out["record key"], "the record key")
    if keys.secret:
        policy, charter = found.terms(keys.secret)
        need((policy.hex(), 0 in charter.blocks) == (out["policy"], True), "the terms")


KINDS = {each.__name__: each for each in (announcement, link, record, lifeline, item, charter, commit, entry, seal)}
KINDS["open"] = opened


def check(folder):
    """How many vectors of each kind come out as written; the first that does not ends it."""
    count = Counter()
    for kind, reads in KINDS.items():
        for name in sorted(os.listdir(os.path.join(folder, kind))):
            inputs, out = parse(os.path.join(folder, kind, name))
            try:
                reads(inputs, out)
                refusal = None
            except Refused as found:
                refusal = found
            good = out["expect"] == "accepted"
            need(good == (refusal is None), f"{kind}/{name}: {refusal or 'taken, and must not be'}")
            count[kind] += 1
    return count
