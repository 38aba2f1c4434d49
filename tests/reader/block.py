"""Sealed objects, and maps made of them."""

import nacl.bindings as sodium
from blake3 import blake3
from fields import Cursor, Refused, kdf, need, number, unseal

CHUNK, NODE, COMMIT, CHARTER = 1, 2, 3, 4


class Block:
    """The keys of a block, and what they open; `older` are those of earlier epochs."""

    def __init__(self, image, link, block, birth=bytes(16), epoch=None, key=None):
        (epoch, secret), *before = link.secrets(epoch) if key is None else [(epoch or 0, None)]
        of = lambda epoch, secret: kdf(secret, "block", link.database, number(block, 2), birth, number(epoch, 4))
        self.image, self.number = image, block
        self.older = [Block(image, link, block, birth, each[0], of(*each)) for each in before]
        place = link.database + number(block, 2)
        self.header = b"\1" + place + number(epoch, 4)
        key = key or of(epoch, secret)
        self.cipher, self.nonce, self.id, boundary = (
            kdf(key, f"block {use}") for use in ("encryption", "nonce", "id", "boundary")
        )
        # Where nodes end is for ever as it was at first.
        self.boundary = self.older[-1].boundary if self.older else boundary[:16]
        self.commitment = kdf(key, "block commitment", link.database, number(block, 2), number(epoch, 4))

    def keyed(self, key, content, kind, level=0, data_id=0, index=0, places=b""):
        header = self.header + bytes([kind, level]) + number(data_id, 8) + number(index, 8) + number(len(content), 8)
        return blake3(content + places + header, key=key).digest()

    def open(self, kind, place, expected, what, level=0):
        """A node or a blob as fields; those of a node are its logical section and its places."""
        return self.sealed(kind, self.image.read(place, what), expected, what, level)

    def blob(self, kind, sealed, expected, what):
        return self.sealed(kind, sealed, expected, what)[0]

    def sealed(self, kind, sealed, expected, what, level=0):
        for keys in self.older:
            try:
                return keys.sealed(kind, sealed, expected, what, level)
            except Refused:
                pass
        plain = unseal(self.cipher, sealed, self.header + bytes([kind]), what)
        fields = Cursor(plain, what)
        content, places = (fields.take(fields.int(4)), plain[fields.at :]) if kind == NODE else (plain, b"")
        need(self.keyed(self.id, content, kind, level) == expected, f"{what}: its id is another")
        nonce = self.keyed(self.nonce, content, kind, level, places=places)[:24]
        need(nonce == sealed[:24], f"{what}: its nonce is another")
        return Cursor(content, what), Cursor(places, what)

    def chunk(self, place, expected, data_id, index, what):
        # What encrypts also decrypts: it is a stream cipher. The tag that comes along means nothing.
        sealed = self.image.read(place, what)
        for keys in self.older:
            try:
                return keys.chunk(place, expected, data_id, index, what)
            except Refused:
                pass
        plain = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(sealed, None, expected[:24], self.cipher)[:-16]
        need(self.keyed(self.id, plain, CHUNK, 0, data_id, index) == expected, f"{what}: its id is another")
        return plain

    def map(self, root, place, what):
        """All entries of a map: key, value, and place or None. Its shape must be the one that its keys ask for."""
        (level, expected), nodes = root, [(place, root[1], None)]
        while True:
            entries, ends, last = [], [], b""
            for at, expected, announced in nodes:
                logical, places = self.open(NODE, at, expected, what, level)
                key = b""
                while logical.at < len(logical.data):
                    shared, rest = logical.varint(), logical.bytes()
                    # Where the rest begins with what the key before goes on with, more is shared than was said.
                    need(rest and shared <= len(key) and rest[:1] != key[shared:][:1], f"{what}: a key of another form")
                    key = key[:shared] + rest
                    need(key > last, f"{what}: keys out of order")
                    length = logical.varint() if level == 0 else 65
                    entries.append((last := key, logical.take(length >> 1), places.place() if length & 1 else None))
                places.done()
                need(announced in (None, last), f"{what}: a node ends with another key than announced")
                ends.append(len(entries))
            need(ends == list(self.node_ends(entries, level)), f"{what}: a node ends in a wrong place")
            if level == 0:
                return entries
            need(len(entries) > 1, f"{what}: a root with one child")
            level, nodes = level - 1, [(place, child, key) for key, child, place in entries]

    def node_ends(self, entries, level):
        """Behind which entries of a level a node must end."""

        def split(start, end):
            weight = sum(len(key) + len(value) + 20 for key, value, _ in entries[start:end])
            if end - start == 1 or end - start <= 32 and weight <= 16384:
                yield end
            else:
                cut = hashes.index(min(hashes[start : end - 1]), start, end - 1) + 1
                yield from split(start, cut)
                yield from split(cut, end)

        sip = sodium.crypto_shorthash_siphash24
        hashes = [int.from_bytes(sip(key + bytes([level]), self.boundary), "little") for key, *_ in entries]
        start = 0
        for end, least in enumerate(hashes, 1):
            if least < (2**64 - 1) // 64 or end == len(hashes):
                yield from split(start, end)
                start = end
