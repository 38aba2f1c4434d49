//! The lowest layer of sealing: XChaCha20-Poly1305 with the nonce in front, or with one that the caller knows; and its
//! encryption alone, for content that a keyed hash of its own authenticates.

use super::secret::Secret;
use chacha20::XChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// A nonce.
pub type Nonce = [u8; NONCE_BYTES];

/// Where the encryption begins in the keystream: the block before keys the tag (RFC 8439, 2.8).
const TEXT_STARTS_AT: u64 = 64;

/// A cipher under one key.
pub struct Cipher {
    whole: XChaCha20Poly1305,
    key: Secret,
}

impl Cipher {
    /// The cipher of a key.
    pub fn new(key: &Secret) -> Cipher {
        Cipher { whole: XChaCha20Poly1305::new(key.expose().into()), key: key.clone() }
    }

    /// Encrypts or decrypts in place, without a tag: only for a nonce that is a keyed hash of the plaintext, which whoever
    /// decrypts compares (SIV; Rogaway and Shrimpton, 2006). The ciphertext is that of [`Cipher::seal_tail`].
    pub fn mask(&self, nonce: &Nonce, text: &mut [u8]) {
        let mut stream = XChaCha20::new(self.key.expose().into(), &(*nonce).into());
        stream.seek(TEXT_STARTS_AT);
        stream.apply_keystream(text);
    }

    /// Encrypts what stands in `out` from `start` on, in place, and appends the tag.
    pub fn seal_tail(&self, nonce: &Nonce, associated: &[u8], out: &mut Vec<u8>, start: usize) {
        let tag = self
            .whole
            .encrypt_inout_detached(&XNonce::from(*nonce), associated, (&mut out[start..]).into())
            .expect("an object is far below the cipher's 256 GiB");
        out.extend_from_slice(&tag);
    }

    /// Opens ciphertext ‖ tag into a vector of its own. None if it was not sealed with this key, nonce and data.
    pub fn open(&self, nonce: &Nonce, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_in_place(nonce, associated, sealed.to_vec())
    }

    /// The same in the vector that it came in.
    pub fn open_in_place(&self, nonce: &Nonce, associated: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>()?;
        let tag = Tag::from(*tag);
        self.whole.decrypt_inout_detached(&XNonce::from(*nonce), associated, text.into(), &tag).ok()?;
        sealed.truncate(sealed.len() - TAG_BYTES);
        Some(sealed)
    }

    /// Appends nonce ‖ ciphertext ‖ tag.
    pub fn seal_with_nonce(&self, nonce: &Nonce, associated: &[u8], plain: &[&[u8]], out: &mut Vec<u8>) {
        let length = plain.iter().map(|part| part.len()).sum::<usize>();
        out.reserve(NONCE_BYTES + length + TAG_BYTES);
        out.extend_from_slice(nonce);
        let start = out.len();
        for part in plain {
            out.extend_from_slice(part);
        }
        self.seal_tail(nonce, associated, out, start);
    }

    /// Opens what [`Cipher::seal_with_nonce`] wrote.
    pub fn open_with_nonce(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.open(nonce, associated, sealed)
    }
}
