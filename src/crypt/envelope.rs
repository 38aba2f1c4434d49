//! What is sealed to one device and to nobody else: HPKE (RFC 9180) in base mode, with DHKEM(X25519, HKDF-SHA256),
//! HKDF-SHA256 and ChaCha20-Poly1305, to the device's id itself.
//!
//! The id is an ed25519 public key. Its X25519 key is the same point in Montgomery form (RFC 7748, 4.1), and its secret the
//! scalar that signs, so whoever knows the id of a device can write to it and nothing has to be fetched or certified before.
//! One key for both uses is sound for ed25519 with this KEM (Thormarker, 2021).

use super::keys::{AdminKey, DeviceKey};
use super::seal::Tampered;
use crate::base::DeviceId;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

/// How much longer an envelope is than what it holds, in bytes: encapsulated key and tag.
pub const ENVELOPE_OVERHEAD: usize = KEY_BYTES + 16;

const KEY_BYTES: usize = 32;
const CONTEXT: &[u8] = b"kilofs envelope 1";

type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// What an envelope is for: it opens for nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Letter {
    /// The key of a private block.
    Block = 1,
    /// The keys that follow a rotation.
    Rotation = 2,
}

/// An id that names no device: nobody could open what is sealed to it, or too many could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is no device's id")]
pub struct NoDevice;

/// Seals to a device: encapsulated key 32, ciphertext, tag 16. `associated` is not in it and has to be the same when it is
/// opened.
pub fn seal(to: &DeviceId, letter: Letter, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoDevice> {
    let public = public(to).ok_or(NoDevice)?;
    let sealed = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &info(letter),
        plain,
        associated,
    );
    let (key, mut sealed) = sealed.map_err(|_| NoDevice)?;
    sealed.splice(..0, key.to_bytes());
    Ok(sealed)
}

/// Opens what was sealed to a device.
pub fn open(
    device: &DeviceKey,
    letter: Letter,
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Tampered> {
    open_as(device.signing_key(), letter, associated, sealed)
}

/// Opens what was sealed to whoever holds the admin key, under its public key.
pub fn open_as_admin(
    admin: &AdminKey,
    letter: Letter,
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Tampered> {
    open_as(admin.signing_key(), letter, associated, sealed)
}

fn open_as(
    key: &SigningKey,
    letter: Letter,
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Tampered> {
    let scalar = Zeroizing::new(key.to_scalar_bytes());
    let private = Private::from_bytes(&scalar[..]).map_err(|_| Tampered)?;
    open_with(&private, &info(letter), associated, sealed).map(Zeroizing::new)
}

fn open_with(private: &Private, info: &[u8], associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
    let (key, sealed) = sealed.split_at_checked(KEY_BYTES).ok_or(Tampered)?;
    let key = Encapsulated::from_bytes(key).map_err(|_| Tampered)?;
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        private,
        &key,
        info,
        sealed,
        associated,
    )
    .map_err(|_| Tampered)
}

/// The X25519 key of an id. Only points of the prime-order group have one: with any other, several ids would share it.
fn public(device: &DeviceId) -> Option<Public> {
    let key = VerifyingKey::from_bytes(&device.0).ok()?;
    let point = key.to_edwards();
    // The neutral element is of no order that counts, and passes the second check.
    if point.is_small_order() || !point.is_torsion_free() || point.compress().0 != device.0 {
        return None;
    }
    Public::from_bytes(&key.to_montgomery().0).ok()
}

fn info(letter: Letter) -> Vec<u8> {
    [CONTEXT, &[letter as u8]].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use data_encoding::HEXLOWER;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_vector_of_the_rfc_opens() {
        // RFC 9180, A.2.1.1, sequence number 0.
        let private = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let sealed = [
            hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"),
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"),
        ];
        let private = Private::from_bytes(&private).unwrap();
        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let plain = open_with(&private, &info, b"Count-0", &sealed.concat());
        assert_eq!(plain.unwrap(), b"Beauty is truth, truth beauty");
        let public = X25519HkdfSha256::sk_to_pk(&private).to_bytes();
        assert_eq!(public[..], hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"));
    }

    #[test]
    fn an_id_has_the_x25519_key_that_libsodium_gives_it() {
        // libsodium, test/default/ed25519_convert.
        let seed = hex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee");
        let device = DeviceKey::from_seed(seed.as_slice().try_into().unwrap());
        let public = public(&device.public()).unwrap().to_bytes();
        assert_eq!(public[..], hex("f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"));
        let private = Private::from_bytes(&device.signing_key().to_scalar_bytes()).unwrap();
        assert_eq!(
            private.to_bytes()[..],
            hex("8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166")
        );
    }

    #[test]
    fn only_the_device_opens_its_envelope_and_only_for_what_it_is() {
        let (device, other) = (DeviceKey::generate(), DeviceKey::generate());
        let sealed = seal(&device.public(), Letter::Rotation, b"about", b"keys").unwrap();
        assert_eq!(sealed.len(), 4 + ENVELOPE_OVERHEAD);
        assert_eq!(&open(&device, Letter::Rotation, b"about", &sealed).unwrap()[..], b"keys");
        assert!(open(&other, Letter::Rotation, b"about", &sealed).is_err());
        assert!(open(&device, Letter::Block, b"about", &sealed).is_err());
        assert!(open(&device, Letter::Rotation, b"abou", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = open(&device, Letter::Rotation, b"about", &changed);
            // The highest bit of an X25519 key is not used (RFC 7748, 5), and the encapsulated key is hashed whole.
            assert!(opened.is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&device, Letter::Rotation, b"about", &sealed[..length]).is_err(), "{length}");
        }
        let again = seal(&device.public(), Letter::Rotation, b"about", b"keys").unwrap();
        assert_ne!(again, sealed, "each has a key of its own");
    }

    #[test]
    fn points_outside_the_group_are_no_devices() {
        // Of order 1, 2, 4 and 8; not on the curve; not reduced; a device's key plus the point of order two.
        let neutral = hex("0100000000000000000000000000000000000000000000000000000000000000");
        let two = hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        let four = hex("0000000000000000000000000000000000000000000000000000000000000000");
        let eight = hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a");
        let none = hex("0200000000000000000000000000000000000000000000000000000000000000");
        let unreduced = hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        // Adding the point of order two negates both coordinates.
        let mixed = {
            let device = DeviceKey::from_seed(&[1; 32]).public().0;
            let mut negated = [0u8; 32];
            let prime = {
                let mut prime = [0xffu8; 32];
                (prime[0], prime[31]) = (0xed, 0x7f);
                prime
            };
            let mut y = device;
            y[31] &= 0x7f;
            let mut borrow = 0i16;
            for index in 0..32 {
                let digit = i16::from(prime[index]) - i16::from(y[index]) - borrow;
                borrow = i16::from(digit < 0);
                negated[index] = digit.rem_euclid(256) as u8;
            }
            negated[31] |= !device[31] & 0x80;
            negated.to_vec()
        };
        for id in [neutral, two, four, eight, none, unreduced, mixed] {
            let id = DeviceId(id.try_into().unwrap());
            assert_eq!(seal(&id, Letter::Block, b"", b"key"), Err(NoDevice), "{id:?}");
        }
    }

    #[test]
    fn an_encapsulated_key_without_order_is_refused() {
        let device = DeviceKey::generate();
        for key in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            let sealed = [&key[..], &[0; 40]].concat();
            assert!(open(&device, Letter::Block, b"", &sealed).is_err());
        }
    }
}
