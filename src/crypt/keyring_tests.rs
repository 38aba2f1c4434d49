//! Keyrings survive; a wrong passphrase is told from a damaged file.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::crypt::{AdminKey, DatabaseKey};

fn keyring(kind: Kind) -> Keyring {
    let capability = Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
    Keyring::new(capability.weakened(kind).unwrap(), "notes")
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
        let bytes = seal(&keyring, b"", Argon2Cost::MINIMAL);
        assert_eq!(needs_passphrase(&bytes), Ok(false));
        assert_eq!(open(&bytes, b""), Ok(keyring));
    }
    let keyring = Keyring { name: "n".repeat(NAME_BYTES_MAX), ..keyring(Kind::Admin) };
    let bytes = seal(&keyring, b"secret", Argon2Cost::STANDARD);
    assert!(bytes.len() <= KEYRING_BYTES_MAX);
    assert_eq!(needs_passphrase(&bytes), Ok(true));
    assert_eq!(open(&bytes, b"secret"), Ok(keyring));
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let bytes = seal(&keyring(Kind::Write), b"secret", Argon2Cost::MINIMAL);
    assert_eq!(open(&bytes, b"other"), Err(KeyringError::WrongPassphrase));
    assert_eq!(open(&bytes, b""), Err(KeyringError::WrongPassphrase));
    for byte in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[byte] ^= 0x40;
        assert!(matches!(open(&damaged, b"secret"), Err(KeyringError::Damaged(_))), "byte {byte}");
    }
    for length in 0..bytes.len() {
        assert!(
            matches!(open(&bytes[..length], b"secret"), Err(KeyringError::Damaged(_))),
            "length {length}"
        );
    }
    assert!(open(&[&bytes[..], &[0]].concat(), b"secret").is_err());
}

#[test]
fn nothing_of_the_file_can_be_exchanged() {
    let bytes = seal(&keyring(Kind::Write), b"secret", Argon2Cost::MINIMAL);
    for byte in MAGIC.len() + 1..bytes.len() - CHECKSUM_BYTES {
        let exchanged = resummed(&bytes, |bytes| bytes[byte] ^= 1);
        assert!(open(&exchanged, b"secret").is_err(), "byte {byte}");
    }
}

#[test]
fn a_cost_beyond_bearing_is_refused_before_it_is_paid() {
    let bytes = seal(&keyring(Kind::Write), b"secret", Argon2Cost::MINIMAL);
    let at = MAGIC.len() + 2;
    for field in 0..3 {
        let dear = resummed(&bytes, |bytes| bytes[at + field * 4..][..4].fill(0xff));
        assert_eq!(needs_passphrase(&dear), Err(KeyringError::Damaged("its header is malformed")));
    }
}

#[test]
fn the_certificate_binds_both_keys_and_the_database() {
    let keyring = keyring(Kind::Read);
    let message = certified(&keyring.capability.database_id(), &keyring.x25519_public());
    assert!(verify(&keyring.device.public().0, &message, &keyring.certificate));
    let other = Keyring { x25519: Secret::random(), ..keyring };
    let bytes = seal(&other, b"", Argon2Cost::MINIMAL);
    assert_eq!(open(&bytes, b""), Err(KeyringError::Damaged("its content is malformed")));
}
