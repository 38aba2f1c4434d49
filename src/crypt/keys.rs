//! Signing keys, a type each, so that a device never signs where the admin is meant. Ed25519 (RFC 8032), verified
//! strictly: devices must not disagree about a signature.

use super::secret::Secret;
use crate::base::{DatabaseId, DeviceId, PublicKey, Signature};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use std::fmt;

macro_rules! signing_key {
    ($(#[$meta:meta])* $name:ident, $public:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(SigningKey);

        impl $name {
            /// A fresh key.
            pub fn generate() -> $name {
                Self::from_seed(Secret::random().expose())
            }

            /// The key of a seed (RFC 8032's private key).
            pub fn from_seed(seed: &[u8; 32]) -> $name {
                $name(SigningKey::from_bytes(seed))
            }

            /// The seed.
            pub fn seed(&self) -> Secret {
                Secret::new(self.0.to_bytes())
            }

            /// The public key.
            pub fn public(&self) -> $public {
                $public(self.0.verifying_key().to_bytes())
            }

            /// Signs a message.
            pub fn sign(&self, message: &[u8]) -> Signature {
                Signature(self.0.sign(message).to_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.public())
            }
        }
    };
}

signing_key!(
    /// Signs policy, charter and moves of one database.
    AdminKey, PublicKey
);
signing_key!(
    /// Signs the BEP 44 item in which the record lies.
    DatabaseKey, PublicKey
);
signing_key!(
    /// Signs what one device writes into one database.
    DeviceKey, DeviceId
);

impl DatabaseKey {
    /// The key as DHT libraries want it.
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }
}

impl DeviceKey {
    /// The key itself, for what is sealed to the device.
    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.0
    }
}

impl AdminKey {
    /// The key itself, for what is sealed to whoever holds it.
    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.0
    }
}

/// Whether `signature` is `public`'s over `message`. Strict: no small-order keys, no malleable signatures.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// Whether some signature could be valid under this key.
pub(super) fn is_usable(public: &PublicKey) -> bool {
    VerifyingKey::from_bytes(&public.0).is_ok_and(|key| !key.is_weak())
}

/// The id of the database whose first admin key this is.
pub fn database_id(admin: &PublicKey) -> DatabaseId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"kilofs database 1").update(&admin.0);
    DatabaseId(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use data_encoding::HEXLOWER;

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // Section 7.1, test 2.
        let seed =
            HEXLOWER.decode(b"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = DeviceKey::from_seed(&seed.try_into().unwrap());
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.public().to_string(), public);
        let signature = concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(key.sign(&[0x72]).to_string(), signature);
    }

    #[test]
    fn only_the_signed_message_verifies() {
        let key = AdminKey::generate();
        let signature = key.sign(b"yes");
        assert!(verify(&key.public().0, b"yes", &signature));
        assert!(!verify(&key.public().0, b"no", &signature));
        assert!(!verify(&AdminKey::generate().public().0, b"yes", &signature));
        assert_eq!(AdminKey::from_seed(key.seed().expose()).public(), key.public());
    }

    #[test]
    fn weak_keys_and_malleable_signatures_are_refused() {
        // The neutral element signs everything under the lax rule: R = A, s = 0.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&neutral);
        assert!(!verify(&neutral, b"anything", &Signature(signature)));
        assert!(!is_usable(&PublicKey(neutral)));

        // s + L is the same scalar in a form that RFC 8032 forbids.
        const L: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = DeviceKey::generate();
        let mut signature = key.sign(b"m");
        let mut carry = 0;
        for (byte, add) in signature.0[32..].iter_mut().zip(L) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert!(!verify(&key.public().0, b"m", &signature));
    }
}
