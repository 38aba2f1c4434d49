"""What leads to the keys of a generation: announcements, and the envelopes in them (HPKE, RFC 9180, base mode)."""

import hashlib
import hmac

import nacl.bindings as sodium
import nacl.exceptions
from fields import Cursor, Refused, derive, kdf, need, number, unseal
from signed import read_charter

KEM, SUITE = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\3"


def extract(suite, salt, label, secret):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, hashlib.sha256)


def expand(suite, key, label, info, length):
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\1", hashlib.sha256)[:length]


def hpke(shared, encapsulated, public, info):
    """Key and nonce of the one message of an envelope."""
    secret = extract(KEM, b"", b"eae_prk", shared)
    secret = expand(KEM, secret, b"shared_secret", encapsulated + public, 32)
    context = b"\0" + extract(SUITE, b"", b"psk_id_hash", b"") + extract(SUITE, b"", b"info_hash", info)
    secret = extract(SUITE, secret, b"secret", b"")
    return expand(SUITE, secret, b"key", context, 32), expand(SUITE, secret, b"base_nonce", context, 12)


def open_envelope(seed, purpose, associated, sealed):
    """What is sealed to the ed25519 key of a seed; none if it is to another."""
    ed_public, ed_secret = sodium.crypto_sign_seed_keypair(seed)
    public = sodium.crypto_sign_ed25519_pk_to_curve25519(ed_public)
    shared = sodium.crypto_scalarmult(sodium.crypto_sign_ed25519_sk_to_curve25519(ed_secret), sealed[:32])
    key, nonce = hpke(shared, sealed[:32], public, b"kilofs envelope 1" + bytes([purpose]))
    try:
        return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(sealed[32:], associated, nonce, key)
    except nacl.exceptions.CryptoError:
        return None


class Announcement:
    def __init__(self, data):
        what = "the announcement"
        fields = Cursor(data, what)
        need(len(data) <= 3 << 20, f"{what}: too long")
        fields.format()
        self.database, self.generation = fields.id(), fields.int(4)
        count = fields.varint()
        need(count <= 16392, f"{what}: too many envelopes")
        self.envelopes = [fields.bytes() for _ in range(count)]
        self.sealed_terms = fields.bytes()
        fields.done()
        self.digest = derive("announcement", data)

    def keys(self, seed):
        """Kind and payload of what is sealed to a device."""
        associated = self.database + number(self.generation, 4)
        for sealed in self.envelopes:
            plain = open_envelope(seed, 2, associated, sealed)
            if plain:
                fields = Cursor(plain, "the new keys")
                kind, payload = fields.int(1), fields.bytes()
                need(kind < 3 and not any(fields.take(len(plain) - fields.at)), "the new keys: malformed")
                return ("mirror", "read", "write")[kind], payload
        raise Refused("the announcement: nothing in it is for this device")

    def terms(self, read_secret):
        """Policy, as bytes, and charter."""
        plain = unseal(kdf(read_secret, "terms"), self.sealed_terms, b"kilofs terms 1", "the terms")
        fields = Cursor(plain, "the terms")
        policy, charter = fields.bytes(), fields.bytes()
        fields.done()
        return policy, read_charter(Cursor(charter, "the charter"))
