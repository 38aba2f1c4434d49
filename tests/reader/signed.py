"""What is signed: record, policy and lifeline, commit, charter and entries."""

import base64
from collections import namedtuple
from types import SimpleNamespace

import nacl.bindings as sodium
from block import CHARTER, COMMIT, Block
from blake3 import blake3
from dht import bencode
from fields import Cursor, Place, Refused, derive, is_name, kdf, need, number, unseal, verify

Commit = namedtuple("Commit", "catalogue place charter")
Charter = namedtuple("Charter", "members blocks")
# What a charter fixes about a block; the floor is counter and root.
Fixed = namedtuple("Fixed", "path owner birth epoch floor private")
# The keys of a private block, sealed: `readers` by device.
Private = namedtuple("Private", "links admin readers")
RW, RO, OWNER, APPEND = range(4)


class Link:
    """A link of any kind that is not locked. `secret` is None in one for mirrors or of one block."""

    def __init__(self, text):
        need(len(text) <= 16384, "the link: too long")
        scheme, kind, body = ("".join(text.split()).lower().split(":", 2) + ["", ""])[:3]
        need(scheme == "kilofs" and kind in ("mirror", "block", "read", "write", "admin"), "the link: none, or a locked one")
        try:
            raw = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
        except ValueError:
            raise Refused("the link: mistyped") from None
        need(base64.b32encode(raw).decode().rstrip("=").lower() == body, "the link: mistyped")
        need(derive("link checksum", kind.encode() + b":", raw[:-4])[:4] == raw[-4:], "the link: mistyped")
        need(raw[:1] == b"\1", "the link: another format")
        self.read(kind, raw[1:-4])

    @classmethod
    def of(cls, kind, payload):
        """What a link of a kind carries."""
        link = cls.__new__(cls)
        link.read(kind, payload)
        return link

    def read(self, kind, payload):
        fields = Cursor(payload, "the link")
        public = lambda: sodium.crypto_sign_seed_keypair(fields.id())[0]
        self.admin = fields.id() if kind != "admin" else None
        self.key = fields.id() if kind in ("mirror", "block", "read") else None
        secret = fields.id()
        self.key = self.key or public()
        self.admin = self.admin or public()
        # Catalogue key, number, birth, epoch, block key.
        self.one = (fields.id(), fields.int(2), fields.take(16), fields.int(4), fields.id()) if kind == "block" else None
        need(not self.one or self.one[1] != 0xFFFF, "the link: of no block")
        self.counter, self.seq = fields.varint(), fields.varint()
        rotated = fields.at < len(fields.data)
        older = [fields.id() for _ in range(fields.varint())] if rotated else []
        need(not rotated or 0 < len(older) <= 64, "the link: an impossible number of rotations")
        fields.done()
        need(self.counter < 1 << 32 and self.seq < 1 << 63, "the link: numbers that are too large")
        usable = sodium.crypto_core_ed25519_is_valid_point
        need(usable(self.admin) and usable(self.key), "the link: a key under which anybody signs")
        self.secret = None if kind in ("mirror", "block") else secret
        # Of all generations, the first one first.
        self.generations = [*older, secret]
        self.record_keys = [kdf(each, "record") if self.secret else each for each in self.generations]
        self.record_key = self.record_keys[-1]
        self.database = blake3(b"kilofs database 1" + self.admin).digest()


    def secrets(self, epoch):
        """Epochs with their read secrets, the latest first; of block 65535 all."""
        epoch = len(self.generations) - 1 if epoch is None else epoch
        need(epoch < len(self.generations), f"epoch {epoch}: the link has no keys of it")
        return list(enumerate(self.generations))[epoch::-1]


def item_value(key, item, what):
    """The value of a mutable item of which the signature is right."""
    need(item, f"{what}: not found")
    value = bytes.fromhex(item["value"])
    verify(key, bytes.fromhex(item["signature"]), b"3:seqi%de1:v" % item["seq"] + bencode(value), what)
    return value


class Record:
    """What a record or a lifeline says, if its policy is the admin's."""

    def __init__(self, link, value, what):
        need(len(value) == 995, f"{what}: not 995 bytes")
        fields = Cursor(unseal(kdf(link.record_key, "record seal"), value, b"kilofs record 1", what), what)
        fields.format()
        need(fields.int(1) == 0, f"{what}: unknown flags")
        fields.int(4)
        blocks = fields.int(2)
        need(1 <= blocks <= 2168, f"{what}: an impossible number of blocks")
        slots = [(fields.take(20), fields.place(), fields.id()) for _ in range(5)]
        self.versions = [slot for slot in slots if slot != (bytes(20), Place(0, 0), bytes(32))]
        need(slots[: len(self.versions)] == self.versions, f"{what}: a gap between versions")
        need(len({infohash for infohash, *_ in self.versions}) == len(self.versions), f"{what}: a version twice")
        policy = fields.int(4), fields.id(), fields.take(64)
        self.policy(link, fields, blocks, *policy)

    def policy(self, link, fields, blocks, counter, charter, signature):
        """What comes last, in a record and in a lifeline that moved: modes, and zeros."""
        what, self.counter, self.charter = fields.what, counter, charter
        modes = fields.take((blocks + 3) // 4)
        self.modes = [modes[block // 4] >> block % 4 * 2 & 3 for block in range(4 * len(modes))]
        padding = self.modes[blocks:] + list(fields.take(len(fields.data) - fields.at))
        need(not any(padding), f"{what}: something in its padding")
        policy = number(self.counter, 4) + self.charter + number(blocks, 2) + modes
        verify(link.admin, signature, b"kilofs policy 1" + link.database + policy, f"the policy of {what}")
        self.rank = self.counter, bytes(255 - byte for byte in derive("policy hash", policy))


class Moved(Record):
    """A lifeline from after a rotation; `policy` is that in force where the link has the keys since, else none."""

    def __init__(self, link, fields):
        self.versions, self.generation, what = [], fields.int(4), fields.what
        fields.take(20 + 32)
        need(0 < self.generation <= 64, f"{what}: an impossible number of rotations")
        sealed = fields.take(len(fields.data) - fields.at)
        self.known = self.generation < len(link.record_keys)
        if self.known:
            key = kdf(link.record_keys[self.generation], "record seal")
            inner = Cursor(unseal(key, sealed, b"kilofs record 1", f"the policy of {what}"), what)
            policy = inner.int(4), inner.id(), inner.take(64)
            blocks = inner.int(2)
            need(1 <= blocks <= 2168, f"{what}: an impossible number of blocks")
            self.policy(link, inner, blocks, *policy)


def open_lifeline(link, item):
    what = "the lifeline"
    value = item_value(link.admin, item, what)
    need(len(value) == 995, f"{what}: not 995 bytes")
    # Under the first record key for ever: who has any link reads whether the database moved.
    first = SimpleNamespace(**{**vars(link), "record_key": link.record_keys[0]})
    fields = Cursor(unseal(kdf(first.record_key, "record seal"), value, b"kilofs record 1", what), what)
    if fields.data[:1] == b"\2":
        fields.take(1)
        lifeline = Moved(link, fields)
    else:
        lifeline = Record(first, value, what)
        lifeline.generation, lifeline.known = 0, True
    right = not lifeline.known or item["seq"] == lifeline.counter
    need(right and not lifeline.versions, f"{what}: not as an admin makes it")
    return lifeline


def in_force(link, items):
    """The record, with the policy in force: its own, or that of the lifeline."""
    value = items["record"] and item_value(link.key, items["record"], "the record")
    lifeline = items["lifeline"] and open_lifeline(link, items["lifeline"])
    moved = lifeline.generation - len(link.generations) + 1 if lifeline else 0
    need(moved <= 0, "the link: the database has moved to new keys since it was made; ask for a new link")
    need(value, "the record: not found")
    record = Record(link, value, "the record")
    seq = items["record"]["seq"]
    need(seq >= link.seq, f"the record: number {seq} is older than the link")
    if lifeline:
        need(moved == 0, "the lifeline: from before the last change of keys that the link knows of")
        if lifeline.rank > record.rank:
            record.counter, record.charter, record.modes = lifeline.counter, lifeline.charter, lifeline.modes
    need(record.counter >= link.counter, f"the policy: number {record.counter} is older than the link")
    return record


def read_commit(fields, database):
    fields.format(2)
    catalogue = fields.option(lambda: (fields.root(), fields.place()))
    place, charter = fields.place(), fields.id()
    fields.int(4)
    fields.parents()
    stamps = fields.ascending(lambda: (fields.maker(), fields.int(8), fields.id(), fields.take(64)), 4096)
    fields.take(16)
    maker, counter = fields.maker(), fields.int(8)
    digest = blake3(fields.data[: fields.at]).digest()
    for (device, session), known, of, signature in [*stamps, (maker, counter, digest, fields.take(64))]:
        message = b"kilofs commit 2" + database + session + number(known, 8) + of
        verify(device, signature, message, fields.what)
    fields.done()
    need(all(known < counter for by, known, *_ in stamps if by == maker), f"{fields.what}: stands on itself")
    return Commit(catalogue, place, charter)


def read_charter(fields):
    form = fields.int(1)
    need(form in (1, 2, 3), f"{fields.what}: of a format that is not known")
    quotas = int(form > 1)
    listed = fields.int(1)
    need(listed < 2, f"{fields.what}: members of an unknown kind")
    members, limits, veiled = set(fields.ascending(fields.id)) if listed else None, [], []

    def hidden():
        count = fields.varint()
        need(count <= 1024, f"{fields.what}: too many links")
        links, admin = [fields.take(48) for _ in range(count)], fields.take(80)
        return Private(links, admin, dict(fields.ascending(lambda: (fields.id(), fields.take(80)), 1024)))

    def fixed():
        path, owner, birth, epoch = fields.bytes(), fields.option(fields.id), fields.take(16), fields.int(4)
        floor = fields.int(8), fields.option(fields.id)
        limits.extend(fields.option(lambda: fields.int(8)) for _ in range(2 * quotas))
        private = None
        if form == 3:
            private = fields.option(hidden)
            veiled.extend(private or [])
        return Fixed(path, owner, birth, epoch, floor, private)

    blocks = dict(fields.ascending(lambda: (fields.int(2), fixed())))
    fields.done()
    need(form != 2 or any(limit is not None for limit in limits), f"{fields.what}: no quota at all")
    need(form != 3 or veiled, f"{fields.what}: no private block at all")
    need(0 in blocks and max(blocks) < 2168, f"{fields.what}: impossible numbers of blocks")
    paths = [block.path for block in blocks.values()]
    need(len(set(paths)) == len(paths), f"{fields.what}: a path twice")
    for block, path in zip(blocks, paths):
        parts = path.split(b"/")
        usable = all(map(is_name, parts)) and parts[0] != b".kilofs" and len(path) < 4096
        need(usable if block else path == b"", f"{fields.what}: a path that no block can have")
    return Charter(members, blocks)


def read_entry(fields, link, block, charter, mode):
    """Root and key commitment of an entry that counts."""
    what, fixed = fields.what, charter.blocks[block]
    fields.format()
    need(fields.int(2) == block, f"{what}: another block's")
    need((fields.take(16), fields.int(4)) == (fixed.birth, fixed.epoch), f"{what}: another birth or epoch")
    counter = fields.int(8)
    fields.parents()
    root, commitment = fields.option(fields.root), fields.id()
    fields.int(4)
    signer = fields.id()
    if (counter, root and root[1]) == fixed.floor:
        # The admin vouches for this state, whoever made it.
        fields.take(64)
        fields.done()
        return root, commitment
    need(0 < counter - fixed.floor[0] <= 1 << 48, f"{what}: below the floor, or far above it")
    fields.signed(signer, b"kilofs entry 1", link.database)
    member = charter.members is None or signer in charter.members
    allowed = {RW: member, RO: False, OWNER: signer == fixed.owner, APPEND: member}[mode]
    need(allowed or signer == link.admin, f"{what}: the policy does not let its signer write here")
    return root, commitment


class Version:
    """A version of which all that is signed was checked: its blocks as path, keys, root and place."""

    def __init__(self, image, link, record):
        sealed = Block(image, link, 65535)
        _, place, commit = image.version
        commit = read_commit(sealed.open(COMMIT, place, commit, "the commit")[0], link.database)
        need(commit.charter == record.charter, "the commit: its charter is not that of the policy in force")
        charter = read_charter(sealed.open(CHARTER, commit.place, commit.charter, "the charter")[0])
        catalogue = sealed.map(*commit.catalogue, "the catalogue") if commit.catalogue else []
        entries = {int.from_bytes(key, "big"): (value, place) for key, value, place in catalogue}
        self.blocks, self.private = [], {}
        for block, fixed in charter.blocks.items():
            what = f"the entry of block {block}"
            keys, root, place = Block(image, link, block, fixed.birth, fixed.epoch), None, None
            if block in entries:
                value, place = entries[block]
                mode = record.modes[block] if block < len(record.modes) else RW
                root, commitment = read_entry(Cursor(value, what), link, block, charter, mode)
                need(commitment == keys.commitment, f"{what}: the commitment is to another key")
                need((root is None) == (place is None), f"{what}: a root without a place, or a place without")
            else:
                need(fixed.floor[1] is None, f"{what}: missing")
            self.blocks.append((fixed.path, keys, root, place))
            if fixed.private:
                self.private[fixed.path] = block, fixed
