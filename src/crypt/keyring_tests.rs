//! Keyrings survive; a wrong passphrase is told from a damaged file.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::base::{Birth, BlockNumber};
use crate::crypt::{AdminKey, DatabaseKey};

const NOTHING: Needs = Needs { passphrase: false, key_file: false };

fn with(passphrase: &str) -> Factors {
    Factors::of_passphrase(passphrase)
}

fn keyring(kind: Kind) -> Keyring {
    let capability = Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
    let weaker = match kind {
        Kind::Block => capability.of_block(BlockNumber(2), &Birth([5; 16]), 1),
        kind => capability.weakened(kind),
    };
    Keyring::new(weaker.unwrap(), "notes")
}

/// The bytes with `change` made, under a checksum that is right.
fn resummed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
    change(&mut bytes);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

#[test]
fn keyrings_survive() {
    for kind in Kind::ALL {
        let keyring = keyring(kind);
        let bytes = seal_at(&keyring, &with(""), Argon2Cost::MINIMAL);
        assert_eq!(needs(&bytes), Ok(NOTHING));
        assert_eq!(open(&bytes, &with("")), Ok(keyring));
    }
    let keyring = Keyring { name: "n".repeat(NAME_BYTES_MAX), ..keyring(Kind::Admin) };
    let bytes = seal_at(&keyring, &with("secret"), Argon2Cost::STANDARD);
    assert!(bytes.len() <= KEYRING_BYTES_MAX);
    assert_eq!(needs(&bytes), Ok(Needs { passphrase: true, key_file: false }));
    assert_eq!(open(&bytes, &with("secret")), Ok(keyring));
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let bytes = seal_at(&keyring(Kind::Write), &with("secret"), Argon2Cost::MINIMAL);
    assert_eq!(open(&bytes, &with("other")), Err(KeyringError::WrongPassphrase));
    assert_eq!(open(&bytes, &with("")), Err(KeyringError::WrongPassphrase));
    for byte in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 0x40;
        assert!(matches!(open(&damaged, &with("secret")), Err(KeyringError::Damaged(_))), "byte {byte}");
    }
    for length in 0..bytes.len() {
        assert!(
            matches!(open(&bytes[..length], &with("secret")), Err(KeyringError::Damaged(_))),
            "length {length}"
        );
    }
    assert!(open(&[&bytes[..], &[0]].concat(), &with("secret")).is_err());
}

#[test]
fn nothing_of_the_file_can_be_exchanged() {
    let bytes = seal_at(&keyring(Kind::Write), &with("secret"), Argon2Cost::MINIMAL);
    for byte in MAGIC.len() + 1..bytes.len() - CHECKSUM_BYTES {
        let exchanged = resummed(&bytes, |bytes| bytes[byte] ^= 1);
        assert!(open(&exchanged, &with("secret")).is_err(), "byte {byte}");
    }
}

#[test]
fn a_cost_beyond_bearing_is_refused_before_it_is_paid() {
    let bytes = seal_at(&keyring(Kind::Write), &with("secret"), Argon2Cost::MINIMAL);
    let at = MAGIC.len() + 2;
    for field in 0..3 {
        let dear = resummed(&bytes, |bytes| bytes[at + field * 4..][..4].fill(0xff));
        assert_eq!(needs(&dear), Err(KeyringError::Damaged("its header is malformed")));
    }
}

#[test]
fn the_certificate_binds_both_keys_and_the_database() {
    let keyring = keyring(Kind::Read);
    let message = certified(&keyring.capability.database_id(), &keyring.x25519_public());
    assert!(verify(&keyring.device.public().0, &message, &keyring.certificate));
    let other = Keyring { x25519: Secret::random(), ..keyring };
    let bytes = seal_at(&other, &with(""), Argon2Cost::MINIMAL);
    assert_eq!(open(&bytes, &with("")), Err(KeyringError::Damaged("its content is malformed")));
}

#[test]
fn a_key_file_opens_instead_of_a_passphrase_or_beside_it() {
    let keyring = keyring(Kind::Write);
    let file = |fill: u8| KeyFile::of(&[fill; 32]);
    for passphrase in ["", "secret"] {
        let factors = |passphrase, key_file| Factors { key_file, ..with(passphrase) };
        let bytes = seal_at(&keyring, &factors(passphrase, file(1)), Argon2Cost::MINIMAL);
        assert_eq!(needs(&bytes), Ok(Needs { passphrase: !passphrase.is_empty(), key_file: true }));
        assert_eq!(open(&bytes, &factors(passphrase, file(1))).as_ref(), Ok(&keyring));
        assert_eq!(open(&bytes, &factors(passphrase, file(2))), Err(KeyringError::WrongPassphrase));
        assert_eq!(open(&bytes, &factors("other", file(1))), Err(KeyringError::WrongPassphrase));
        assert_eq!(open(&bytes, &factors(passphrase, None)), Err(KeyringError::NoKeyFile));
        for (byte, value) in [(MAGIC.len(), FORMAT), (MAGIC.len() + 1, 1), (MAGIC.len() + 1, 4)] {
            let exchanged = resummed(&bytes, |bytes| bytes[byte] = value);
            assert_eq!(needs(&exchanged), Err(KeyringError::Damaged("its header is malformed")));
        }
    }
    let without = seal_at(&keyring, &with("secret"), Argon2Cost::MINIMAL);
    let unasked = Factors { key_file: file(1), ..with("secret") };
    assert_eq!(open(&without, &unasked), Ok(keyring), "one that is not needed does no harm");
}

#[test]
fn a_key_file_has_a_sensible_length() {
    assert!(KeyFile::of(&[0; 31]).is_none() && KeyFile::of(&vec![0; (1 << 20) + 1]).is_none());
    assert_ne!(KeyFile::of(&[0; 32]).unwrap(), KeyFile::of(&[0; 33]).unwrap());
}

#[test]
fn a_ring_key_opens_what_it_was_told_for_and_nothing_sealed_later() {
    let keyring = keyring(Kind::Read);
    let bytes = seal_at(&keyring, &with("secret"), Argon2Cost::MINIMAL);
    let (opened, key) = unlock(&bytes, &with("secret")).unwrap();
    assert_eq!(opened, keyring);
    let key = RingKey::decode(&key.encode()[..]).unwrap();
    assert_eq!(open_with(&bytes, &key).as_ref(), Ok(&keyring));
    let again = seal_at(&keyring, &with("secret"), Argon2Cost::MINIMAL);
    assert_eq!(open_with(&again, &key), Err(KeyringError::WrongPassphrase));
    assert_eq!(RingKey::decode(&[0; 47]), None);
    assert!(!format!("{key:?}").contains("key: ["));
}
