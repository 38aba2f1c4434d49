"""How bytes are read, keys derived and signatures checked: "Notation" and "Keys" of kilofs(5)."""

from collections import namedtuple

import nacl.bindings as sodium
import nacl.exceptions
from blake3 import blake3

REGION = 1 << 20
Place = namedtuple("Place", "offset length")


class Refused(Exception):
    pass


def need(holds, message):
    if not holds:
        raise Refused(message)


def number(value, length):
    return value.to_bytes(length, "little")


def derive(context, *parts):
    return blake3(b"".join(parts), derive_key_context=f"kilofs 1 2026 {context}").digest()


def kdf(key, use, *parts):
    return derive(use, key, *(number(len(part), 8) + part for part in parts))


def verify(key, signature, message, what):
    try:
        sodium.crypto_sign_open(signature + message, key)
    except (nacl.exceptions.CryptoError, ValueError):
        raise Refused(f"{what}: the signature is not right") from None


def unseal(key, sealed, associated, what):
    try:
        return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], associated, sealed[:24], key)
    except (nacl.exceptions.CryptoError, ValueError):
        raise Refused(f"{what}: does not open") from None


class Cursor:
    """Fields one after the other; `what` is what an error names."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, length):
        self.at += length
        need(self.at <= len(self.data), f"{self.what}: too short")
        return self.data[self.at - length : self.at]

    def int(self, length):
        return int.from_bytes(self.take(length), "little")

    def varint(self):
        value, shift, byte = 0, 0, 128
        while byte > 127:
            byte = self.int(1)
            value, shift = value | (byte & 127) << shift, shift + 7
        need(value < 1 << 64 and (byte or shift == 7), f"{self.what}: a varint that is not the shortest")
        return value

    def bytes(self):
        return self.take(self.varint())

    def option(self, read):
        flag = self.int(1)
        need(flag < 2, f"{self.what}: an option that is neither 0 nor 1")
        return read() if flag else None

    def id(self):
        return self.take(32)

    def place(self):
        return Place(self.int(6), self.int(3))

    def root(self):
        return self.int(1), self.id()

    def parents(self):
        found = [self.id() for _ in range(self.int(1))]
        need(len(found) < 3 and len(set(found)) == len(found), f"{self.what}: parents that cannot be")
        return found

    def maker(self):
        """Device and session."""
        return self.id(), self.take(16)

    def ascending(self, read, most=None):
        """A list behind its length, in the order of the first field of what is in it."""
        length = self.varint()
        need(most is None or length <= most, f"{self.what}: a list that is too long")
        found = [read() for _ in range(length)]
        keys = [each[0] if isinstance(each, tuple) else each for each in found]
        need(keys == sorted(set(keys)), f"{self.what}: a list that does not ascend")
        return found

    def format(self, known=1):
        need(self.int(1) == known, f"{self.what}: another format")

    def signed(self, key, context, database):
        """The signature of all that was read so far."""
        verify(key, self.take(64), context + database + self.data[: self.at - 64], self.what)
        self.done()

    def done(self):
        need(self.at == len(self.data), f"{self.what}: bytes left over")


def is_name(name):
    return 0 < len(name) < 256 and name not in (b".", b"..") and not set(name) & set(b"/\0")
