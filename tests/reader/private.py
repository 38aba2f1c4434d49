"""What is inside a private block, for who has a device key: "Envelope" and "Private blocks" of kilofs(5)."""

import hashlib
import hmac

import nacl.bindings as sodium
import nacl.exceptions
from block import Block
from fields import Refused, kdf, need, number
from tree import Tree

VEIL, SEGMENT = 5, 1 << 20


class Device:
    """Opens what was sealed to the device of an ed25519 seed: HPKE in base mode (RFC 9180)."""

    def __init__(self, seed):
        self.id = sodium.crypto_sign_seed_keypair(seed)[0]
        self.scalar = hashlib.sha512(seed).digest()[:32]
        self.public = sodium.crypto_sign_ed25519_pk_to_curve25519(self.id)

    def open(self, sealed, purpose, associated, what):
        def extract(suite, salt, label, secret):
            return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")

        def expand(suite, secret, label, info, length):
            info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
            return hmac.digest(secret, info + b"\1", "sha256")[:length]

        kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\3"
        try:
            shared = extract(kem, b"", b"eae_prk", sodium.crypto_scalarmult(self.scalar, sealed[:32]))
            shared = expand(kem, shared, b"shared_secret", sealed[:32] + self.public, 32)
            context = b"\0" + extract(suite, b"", b"psk_id_hash", b"")
            context += extract(suite, b"", b"info_hash", b"kilofs envelope 1" + bytes([purpose]))
            secret = extract(suite, shared, b"secret", b"")
            key, nonce = (expand(suite, secret, label, context, n) for label, n in ((b"key", 32), (b"base_nonce", 12)))
            return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(sealed[32:], associated, nonce, key)
        except (nacl.exceptions.CryptoError, RuntimeError, ValueError):
            raise Refused(f"{what}: its key is not for this device") from None


def keys_of(device, link, block, fixed):
    """The keys of a private block, the first epoch's first; none where it is not for the device."""
    private, what = fixed.private, f"block {block}"
    if device is None or device.id not in private.readers:
        return None
    life, epoch = link.database + number(block, 2) + fixed.birth, len(private.links)
    keys = [device.open(private.readers[device.id], 1, life + number(epoch, 4), what)]
    for link_of in reversed(private.links):
        key = kdf(keys[0], "private link", life + number(epoch, 4))
        try:
            older = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(link_of, None, bytes(24), key)
        except nacl.exceptions.CryptoError:
            raise Refused(f"{what}: an earlier key does not open") from None
        keys, epoch = [older, *keys], epoch - 1
    return keys


class Space:
    """The inner space, as an image that objects are read from."""

    def __init__(self, tree, file):
        self.tree, self.file, self.chunks = tree, file, tree.chunks.get(file, {})

    def read(self, place, what):
        start, end = place.offset, place.offset + place.length
        need(start // SEGMENT == (end - 1) // SEGMENT, f"{what}: it crosses a segment")
        found = b""
        for index in range(start >> 14, (end - 1 >> 14) + 1):
            need(index in self.chunks, f"{what}: it lies where nothing is")
            value, at = self.chunks[index]
            found += self.tree.keys.chunk(at, value, self.file, index, what)
        return found[start - (start >> 14 << 14) :][: place.length]


def look_inside(outer, link, block, fixed, keys):
    """The tree inside of a private block, of which `outer` is the one that everybody sees."""
    what = f"block {block}: what is inside"
    file = (1 << 64) - (1 << 32) + block
    if file not in outer.inodes:
        return Tree(fixed.path, epochs(outer.keys.image, link, block, fixed, keys), None, None)
    need(outer.names[block + 1] == {b"veil": (file, 1)} and len(outer.inodes) == 2, f"{what}: beside it is something else")
    value = outer.xattrs[file][b"user.kilofs.front"]
    space = Space(outer, file)
    inside = epochs(space, link, block, fixed, keys)
    front = inside.blob(VEIL, value[32:], value[:32], what)
    front.format()
    there, level, top, place = front.int(1), front.int(1), front.id(), front.place()
    tail, end, live, holes = (front.int(8) for _ in range(4))
    front.done()
    need(there < 2 and live + holes <= tail <= end == outer.inodes[file].size, f"{what}: a front that cannot be")
    return Tree(fixed.path, inside, (level, top) if there else None, place)


def epochs(image, link, block, fixed, keys):
    made = []
    for epoch, key in enumerate(keys):
        key = kdf(key, "private", link.database, number(block, 2), fixed.birth, number(epoch, 4))
        made.insert(0, Block(image, link, block, fixed.birth, epoch, key))
    made[0].boundary, made[0].older = made[-1].boundary, made[1:]
    return made[0]
