"""The bytes of a version."""

import hashlib
import math
import os

from blake3 import blake3
from dht import bencode
from fields import REGION, Cursor, Refused, need

PAGE = 4096


class Image:
    """The bytes of a version: of its torrent, or of a store by its table. `regions` has where each lies, and its fill."""

    def __init__(self, path, link, record):
        self.file = open(path, "rb")
        if self.at(0, 8) == b"kilofsdb":
            self.version, self.regions = self.store(link, record)
        else:
            size = os.path.getsize(path)
            self.version, self.regions = self.torrent(size, record), [(at, REGION) for at in range(0, size, REGION)]

    def at(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

    def torrent(self, size, record):
        need(size and size % REGION == 0, "the image: not a multiple of 1 MiB")
        least = 16 if size >= 64 << 20 else 14
        nearest = max(least, min(24, round(math.log2(20 * size) / 2)))
        for length in (1 << log for log in (nearest, nearest - 1, nearest + 1) if 14 <= log <= 24):
            pieces = b"".join(hashlib.sha1(self.at(at, length)).digest() for at in range(0, size, length))
            info = {b"length": size, b"name": b"database", b"piece length": length, b"pieces": pieces}
            for version in record.versions:
                if version[0] == hashlib.sha1(bencode(info)).digest():
                    return version
        raise Refused("the image: no version of the record has these bytes")

    def store(self, link, record):
        heads = []
        for block in (self.at(0, PAGE), self.at(REGION // 2, PAGE)):
            if block[:8] == b"kilofsdb" and blake3(block[:-32]).digest() == block[-32:]:
                head = Cursor(block[8:-32], "the store")
                need(head.int(4) == 2, "the store: another format")
                heads.append((head.int(8), head.id(), self.run(head)))
        need(heads, "the store: neither superblock is whole")
        _, database, manifest = max(heads)
        need(database == link.database, "the store: another database's")
        manifest = Cursor(manifest, "the manifest")
        self.run(manifest)
        labels = [(manifest.bytes(), manifest.int(4), self.run(manifest)) for _ in range(manifest.varint())]
        kept = {label[1:21]: found for label, *found in labels if label[0] == 1}
        for version in record.versions:
            if version[0] in kept:
                regions, index = kept[version[0]]
                return version, self.table(regions, Cursor(index, "the index"))
        raise Refused("the store: keeps no version of the record")

    def run(self, fields):
        page, length, digest = fields.int(4), fields.int(4), fields.id()
        content = self.at(page * PAGE, length)
        need((page, length) == (0, 0) or blake3(content).digest() == digest, f"{fields.what}: a run is damaged")
        return content

    def table(self, count, index):
        regions = []
        while len(regions) < count:
            page, digest = index.int(4), index.id()
            leaf = self.at(page * PAGE, PAGE)
            need(blake3(leaf).digest() == digest, "the store: a leaf is damaged")
            words = (int.from_bytes(leaf[at : at + 8], "little") for at in range(0, PAGE, 8))
            regions += [((word >> 42) * REGION, word >> 21 & (1 << 21) - 1) for word in words]
        index.done()
        return regions[:count]

    def read(self, place, what):
        region, within = divmod(place.offset, REGION)
        need(region < len(self.regions), f"{what}: outside the image")
        need(within + place.length <= REGION, f"{what}: in two regions")
        start, fill = self.regions[region]
        found = self.at(start + within, place.length)[: max(0, fill - within)] if start or fill == REGION else b""
        return found + bytes(place.length - len(found))
