//! The parts of the format that need keys, written a second time from its description, with nothing of the program.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use data_encoding::BASE32_NOPAD;

pub const NONCE: [u8; 24] = [0x24; 24];

/// BLAKE3 derive_key over the key and length-prefixed parts.
pub fn derive(context: &str, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(key);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Ciphertext ‖ tag.
pub fn encrypt(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = plain.to_vec();
    let cipher = XChaCha20Poly1305::new(key.into());
    let tag =
        cipher.encrypt_inout_detached(&XNonce::from(*nonce), associated, (&mut out[..]).into()).unwrap();
    out.extend_from_slice(&tag);
    out
}

/// The plaintext of ciphertext ‖ tag.
pub fn decrypt(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (ciphertext, tag) = sealed.split_last_chunk::<16>()?;
    let mut out = ciphertext.to_vec();
    let cipher = XChaCha20Poly1305::new(key.into());
    let tag = Tag::from(*tag);
    cipher.decrypt_inout_detached(&XNonce::from(*nonce), associated, (&mut out[..]).into(), &tag).ok()?;
    Some(out)
}

/// A sealed record.
pub fn seal_record(record_key: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let key = derive("kilofs 1 2026 record seal", record_key, &[]);
    [&NONCE[..], &encrypt(&key, &NONCE, b"kilofs record 1", plain)].concat()
}

/// A record's plaintext.
pub fn open_record(record_key: &[u8; 32], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = derive("kilofs 1 2026 record seal", record_key, &[]);
    let (nonce, sealed) = sealed.split_first_chunk()?;
    decrypt(&key, nonce, b"kilofs record 1", sealed)
}

/// The keys of a block.
pub struct Block {
    pub encryption: [u8; 32],
    pub nonce: [u8; 32],
    pub id: [u8; 32],
    pub boundary: [u8; 32],
    pub commitment: [u8; 32],
    scope: Vec<u8>,
}

impl Block {
    pub fn new(
        read_secret: &[u8; 32],
        database: &[u8; 32],
        number: u16,
        birth: &[u8; 16],
        epoch: u32,
    ) -> Block {
        let (number, epoch) = (number.to_le_bytes(), epoch.to_le_bytes());
        let key = derive("kilofs 1 2026 block", read_secret, &[database, &number, birth, &epoch]);
        Block {
            encryption: derive("kilofs 1 2026 block encryption", &key, &[]),
            nonce: derive("kilofs 1 2026 block nonce", &key, &[]),
            id: derive("kilofs 1 2026 block id", &key, &[]),
            boundary: derive("kilofs 1 2026 block boundary", &key, &[]),
            commitment: derive("kilofs 1 2026 block commitment", &key, &[database, &number, &epoch]),
            scope: [&database[..], &number, &epoch].concat(),
        }
    }

    fn associated(&self, kind: u8) -> Vec<u8> {
        [&[1], &self.scope[..], &[kind]].concat()
    }

    fn hash(
        &self,
        key: &[u8; 32],
        kind: u8,
        level: u8,
        context: [u64; 2],
        length: usize,
        content: &[u8],
    ) -> [u8; 32] {
        let mut all = [content, &self.associated(kind), &[level]].concat();
        for number in [context[0], context[1], length as u64] {
            all.extend_from_slice(&number.to_le_bytes());
        }
        *blake3::keyed_hash(key, &all).as_bytes()
    }

    /// Id and sealed bytes of a chunk.
    pub fn chunk(&self, data_id: u64, index: u64, plain: &[u8]) -> ([u8; 32], Vec<u8>) {
        let id = self.hash(&self.id, 1, 0, [data_id, index], plain.len(), plain);
        let mut sealed = encrypt(&self.encryption, id.first_chunk().unwrap(), &self.associated(1), plain);
        sealed.truncate(plain.len());
        (id, sealed)
    }

    /// Id and sealed bytes of a node.
    pub fn node(&self, level: u8, logical: &[u8], placements: &[u8]) -> ([u8; 32], Vec<u8>) {
        let id = self.hash(&self.id, 2, level, [0, 0], logical.len(), logical);
        let both = [logical, placements].concat();
        let nonce = self.hash(&self.nonce, 2, level, [0, 0], logical.len(), &both);
        let plain = [&(logical.len() as u32).to_le_bytes(), &both[..]].concat();
        (id, self.behind_nonce(&nonce, 2, &plain))
    }

    /// Id and sealed bytes of a commit (3) or charter (4).
    pub fn blob(&self, kind: u8, plain: &[u8]) -> ([u8; 32], Vec<u8>) {
        let id = self.hash(&self.id, kind, 0, [0, 0], plain.len(), plain);
        let nonce = self.hash(&self.nonce, kind, 0, [0, 0], plain.len(), plain);
        (id, self.behind_nonce(&nonce, kind, plain))
    }

    /// A sealed plaintext under a nonce that is not its own.
    pub fn under(&self, nonce: &[u8; 24], kind: u8, plain: &[u8]) -> Vec<u8> {
        [&nonce[..], &encrypt(&self.encryption, nonce, &self.associated(kind), plain)].concat()
    }

    /// The same under its own.
    fn behind_nonce(&self, nonce: &[u8; 32], kind: u8, plain: &[u8]) -> Vec<u8> {
        self.under(nonce.first_chunk().unwrap(), kind, plain)
    }
}

fn argon2id(memory_kib: u32, passes: u32, lanes: u32, passphrase: &[u8], salt: &[u8; 16]) -> [u8; 32] {
    let params = Params::new(memory_kib, passes, lanes, Some(32)).unwrap();
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut key)
        .unwrap();
    key
}

/// The text of a link; `kind` with `-locked` where the payload is.
pub fn link(kind: &str, format: u8, payload: &[u8]) -> String {
    let bytes = [&[format], payload].concat();
    let covered = [kind.as_bytes(), b":", &bytes].concat();
    let sum = blake3::derive_key("kilofs 1 2026 link checksum", &covered);
    let body = BASE32_NOPAD.encode(&[&bytes, &sum[..4]].concat()).to_lowercase();
    format!("kilofs:{kind}:{body}")
}

/// The payload of a locked link.
pub fn lock(kind: &str, passphrase: &str, salt: &[u8; 16], payload: &[u8]) -> Vec<u8> {
    let key = argon2id(65536, 3, 4, passphrase.as_bytes(), salt);
    let associated = [b"kilofs locked link 1", kind.as_bytes()].concat();
    [&salt[..], &encrypt(&key, &[0; 24], &associated, payload)].concat()
}

/// The payload of an invitation.
pub fn invite(kind: &str, words: &str, expires: u64, salt: &[u8; 16], payload: &[u8]) -> Vec<u8> {
    let key = argon2id(65536, 3, 4, words.as_bytes(), salt);
    let end = expires.to_le_bytes();
    let associated = [b"kilofs invite 1", kind.as_bytes(), &end].concat();
    [&end[..], &salt[..], &encrypt(&key, &[0; 24], &associated, payload)].concat()
}

/// A keyring file under 8 KiB, one pass, one lane.
pub fn keyring(passphrase: &[u8], salt: &[u8; 16], plain: &[u8]) -> Vec<u8> {
    let key = argon2id(8, 1, 1, passphrase, salt);
    ring([1, u8::from(!passphrase.is_empty())], &key, salt, plain)
}

/// The same with a key file.
pub fn keyring_with_file(passphrase: &[u8], key_file: &[u8], salt: &[u8; 16], plain: &[u8]) -> Vec<u8> {
    let file = blake3::derive_key("kilofs 1 2026 key file", key_file);
    let stretched = argon2id(8, 1, 1, passphrase, salt);
    let key = derive("kilofs 1 2026 keyring key file", &stretched, &[&file]);
    ring([2, 2 | u8::from(!passphrase.is_empty())], &key, salt, plain)
}

fn ring(format_and_flags: [u8; 2], key: &[u8; 32], salt: &[u8; 16], plain: &[u8]) -> Vec<u8> {
    let mut file = [&b"kilofsKR"[..], &format_and_flags].concat();
    for cost in [8u32, 1, 1] {
        file.extend_from_slice(&cost.to_le_bytes());
    }
    file.extend_from_slice(salt);
    let sealed = encrypt(key, &NONCE, &file, plain);
    file.extend_from_slice(&NONCE);
    file.extend_from_slice(&sealed);
    summed(file)
}

/// A keyring file behind which its checksum is put.
pub fn summed(mut file: Vec<u8>) -> Vec<u8> {
    let sum = blake3::derive_key("kilofs 1 2026 keyring checksum", &file);
    file.extend_from_slice(&sum[..16]);
    file
}

/// What two neighbours with these private keys send to open a channel, and the session keys of who dials and who answers.
pub fn channel(record_key: &[u8; 32], private: [[u8; 32]; 2]) -> ([[u8; 64]; 2], [[u8; 32]; 2]) {
    let secret = derive("kilofs 1 2026 gossip", record_key, &[]);
    let [dials, answers] = private.map(x25519_dalek::StaticSecret::from);
    let public = [&dials, &answers].map(|key| x25519_dalek::PublicKey::from(key).to_bytes());
    let greeting = |role: &[u8], own: &[u8; 32], other: &[u8]| {
        let proof = derive("kilofs 1 2026 channel proof", &secret, &[role, own, other]);
        <[u8; 64]>::try_from([&own[..], &proof].concat()).unwrap()
    };
    let agreed = dials.diffie_hellman(&x25519_dalek::PublicKey::from(&answers)).to_bytes();
    let session = |role: &[u8]| {
        derive("kilofs 1 2026 channel session", &secret, &[role, &agreed, &public[0], &public[1]])
    };
    let greetings = [greeting(b"dial", &public[0], &[]), greeting(b"answer", &public[1], &public[0])];
    (greetings, [session(b"dial"), session(b"answer")])
}

/// One frame on a channel, with its length.
pub fn frame(session: &[u8; 32], number: u64, message: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let sealed = encrypt(session, &nonce, b"", message);
    [&(sealed.len() as u32).to_le_bytes(), &sealed[..]].concat()
}

/// What a device seals for itself: its state, or a batch of its intent log.
pub fn seal_own(use_of: &str, read_secret: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let (key, associated): (_, &[u8]) = match use_of {
        "local state" => {
            let record_key = derive("kilofs 1 2026 record", read_secret, &[]);
            (derive("kilofs 1 2026 local state", &record_key, &[&[1]]), b"kilofs local 1")
        }
        _ => (derive("kilofs 1 2026 intent log", read_secret, &[]), b"kilofs intent log 1"),
    };
    [&NONCE[..], &encrypt(&key, &NONCE, associated, plain)].concat()
}
