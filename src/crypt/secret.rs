//! Thirty-two secret bytes, and the one function that derives others from them.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a derived key is for; no key serves two uses. Each is one context string of BLAKE3's `derive_key` mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// The record key, from the read secret.
    Record,
    /// Seals the record, from the record key.
    RecordSeal,
    /// Seals a device's own state inside its store, from the record key.
    LocalState,
    /// Seals a device's intent log, from the read secret.
    IntentLog,
    /// Names the place where peers meet, from the record key.
    Rendezvous,
    /// What neighbours prove to each other that they hold, from the record key.
    Gossip,
    /// Proves a greeting, from the gossip secret.
    ChannelProof,
    /// The keys of one connection, from the gossip secret.
    ChannelSession,
    /// A block's key, from the read secret.
    Block,
    /// Encrypts a block's objects, from the block key.
    BlockEncryption,
    /// Makes the nonces of a block's nodes and blobs, from the block key.
    BlockNonce,
    /// Makes the ids of a block's objects, from the block key.
    BlockId,
    /// Decides where a map's nodes end, from the block key.
    BlockBoundary,
    /// Commits to the block key without revealing it, from the block key.
    BlockCommitment,
    /// The key of a keyring that wants a key file too, from what Argon2 made of the passphrase.
    KeyringFile,
    /// The admin seed of a new database, from its root.
    RecoveryAdmin,
    /// The database seed of a new database, from its root.
    RecoveryDatabase,
    /// The read secret of a new database, from its root.
    RecoveryRead,
    /// Seals the policy and charter of an announcement, from the read secret.
    Terms,
    /// A private block's key of one epoch as its objects know it, from that key.
    Private,
    /// Seals the key of the epoch before, from a private block's key.
    PrivateLink,
}

impl Context {
    fn text(self) -> &'static str {
        match self {
            Context::Record => "kilofs 1 2026 record",
            Context::RecordSeal => "kilofs 1 2026 record seal",
            Context::LocalState => "kilofs 1 2026 local state",
            Context::IntentLog => "kilofs 1 2026 intent log",
            Context::Rendezvous => "kilofs 1 2026 rendezvous",
            Context::Gossip => "kilofs 1 2026 gossip",
            Context::ChannelProof => "kilofs 1 2026 channel proof",
            Context::ChannelSession => "kilofs 1 2026 channel session",
            Context::Block => "kilofs 1 2026 block",
            Context::BlockEncryption => "kilofs 1 2026 block encryption",
            Context::BlockNonce => "kilofs 1 2026 block nonce",
            Context::BlockId => "kilofs 1 2026 block id",
            Context::BlockBoundary => "kilofs 1 2026 block boundary",
            Context::BlockCommitment => "kilofs 1 2026 block commitment",
            Context::KeyringFile => "kilofs 1 2026 keyring key file",
            Context::RecoveryAdmin => "kilofs 1 2026 recovery admin",
            Context::RecoveryDatabase => "kilofs 1 2026 recovery database",
            Context::RecoveryRead => "kilofs 1 2026 recovery read",
            Context::Terms => "kilofs 1 2026 terms",
            Context::Private => "kilofs 1 2026 private",
            Context::PrivateLink => "kilofs 1 2026 private link",
        }
    }
}

/// Thirty-two secret bytes: wiped when dropped, never shown, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    /// A secret of known bytes.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    /// A fresh secret from the operating system.
    pub fn random() -> Secret {
        Secret(random())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes, to be filled in.
    pub(super) fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }

    /// The key for `context`: BLAKE3 `derive_key` over this secret and the parts, each behind its length (8 bytes).
    pub fn derive(&self, context: Context, parts: &[&[u8]]) -> Secret {
        let length = Self::BYTES + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
        // Sized ahead: a vector that grows would leave a copy of the secret behind.
        let mut material = Zeroizing::new(Vec::with_capacity(length));
        material.extend_from_slice(&self.0);
        for part in parts {
            material.extend_from_slice(&(part.len() as u64).to_le_bytes());
            material.extend_from_slice(part);
        }
        Secret(blake3::derive_key(context.text(), &material))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        // `blake3::Hash` compares in constant time.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Fresh bytes from the operating system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_differ_by_context_and_by_where_parts_end() {
        let secret = Secret::new([7; 32]);
        let keys = [
            secret.derive(Context::Record, &[]),
            secret.derive(Context::Block, &[]),
            secret.derive(Context::Block, &[b""]),
            secret.derive(Context::Block, &[b"ab", b"c"]),
            secret.derive(Context::Block, &[b"a", b"bc"]),
            Secret::new([8; 32]).derive(Context::Record, &[]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys[index + 1..].iter().all(|other| key != other), "{index}");
        }
    }

    #[test]
    fn contexts_are_distinct() {
        use Context::*;
        let all = [
            Record,
            RecordSeal,
            LocalState,
            Rendezvous,
            Block,
            BlockEncryption,
            BlockNonce,
            BlockId,
            BlockBoundary,
            BlockCommitment,
            KeyringFile,
            RecoveryAdmin,
            RecoveryDatabase,
            RecoveryRead,
            Terms,
        ];
        let texts: std::collections::BTreeSet<_> = all.iter().map(|context| context.text()).collect();
        assert_eq!(texts.len(), all.len());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new([0xab; 32])), "Secret(…)");
    }
}
