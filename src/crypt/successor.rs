//! The keys that follow a rotation, sealed to one of those who remain; and what only they read of why.

use super::capability::{Capability, GENERATIONS_MAX, Kind};
use super::cipher::Cipher;
use super::envelope::{self, ENVELOPE_OVERHEAD, Letter, NoDevice};
use super::keys::{AdminKey, DeviceKey};
use super::secret::{Context, Secret, random};
use crate::base::{DatabaseId, DeviceId, Malformed, Reader, Writer};
use zeroize::Zeroizing;

/// What a rotation gives.
const GIVEN: [Kind; 3] = [Kind::Mirror, Kind::Read, Kind::Write];
const TERMS_ASSOCIATED: &[u8] = b"kilofs terms 1";
/// What a capability takes but for the keys of earlier generations, with its kind and length before it.
const HEAD_BYTES: usize = 128;

/// The longest envelope with a capability, in bytes.
pub const SUCCESSOR_BYTES_MAX: usize = envelope_bytes(GENERATIONS_MAX);

/// All envelopes of one rotation have one length: it does not tell who may write.
const fn envelope_bytes(generation: usize) -> usize {
    HEAD_BYTES + 32 * generation + ENVELOPE_OVERHEAD
}

/// Seals a capability to a device, or to whoever holds the admin key. What the admin alone has is never in it.
pub fn seal_successor(to: &DeviceId, kind: Kind, successor: &Capability) -> Result<Vec<u8>, NoDevice> {
    let capability = successor.weakened(kind.min(Kind::Write)).ok_or(NoDevice)?;
    let length = envelope_bytes(capability.older.len()) - ENVELOPE_OVERHEAD;
    // Sized ahead: a vector that grows would leave a copy of the secrets behind.
    let mut writer = Writer(Vec::with_capacity(length));
    writer.u8(capability.kind() as u8).bytes(&capability.encode());
    assert!(writer.0.len() <= length, "a capability has a longest form");
    writer.0.resize(length, 0);
    let plain = Zeroizing::new(writer.0);
    let associated = associated(&capability.database_id(), capability.generation());
    envelope::seal(to, Letter::Rotation, &associated, &plain)
}

/// Opens what is sealed to this device, or to the admin key where this device has it.
pub fn open_successor(
    device: &DeviceKey,
    admin: Option<&AdminKey>,
    database: &DatabaseId,
    generation: u32,
    sealed: &[u8],
) -> Option<Capability> {
    let associated = associated(database, generation);
    let opened = envelope::open(device, Letter::Rotation, &associated, sealed);
    let by_admin = |_| admin.map(|key| envelope::open_as_admin(key, Letter::Rotation, &associated, sealed));
    let plain = match opened.map_err(by_admin) {
        Ok(plain) => plain,
        Err(other) => other?.ok()?,
    };
    let capability = read(&plain).ok()?;
    let fits = capability.database_id() == *database && capability.generation() == generation;
    fits.then_some(capability)
}

fn read(plain: &[u8]) -> Result<Capability, Malformed> {
    let mut reader = Reader::new(plain);
    let kind = Kind::of_code(reader.u8()?).filter(|kind| GIVEN.contains(kind)).ok_or(Malformed)?;
    let capability = Capability::decode(kind, reader.bytes(Capability::BYTES_MAX)?)?;
    let padding = reader.raw(reader.remaining())?;
    if padding.iter().all(|byte| *byte == 0) { Ok(capability) } else { Err(Malformed) }
}

fn associated(database: &DatabaseId, generation: u32) -> Vec<u8> {
    [&database.0[..], &generation.to_le_bytes()].concat()
}

/// Seals what those who can read learn with new keys, under a random nonce.
pub fn seal_terms(read_secret: &Secret, plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    let key = read_secret.derive(Context::Terms, &[]);
    Cipher::new(&key).seal_with_nonce(&random(), TERMS_ASSOCIATED, &[plain], &mut sealed);
    sealed
}

/// Opens what [`seal_terms`] sealed.
pub fn open_terms(read_secret: &Secret, sealed: &[u8]) -> Option<Vec<u8>> {
    Cipher::new(&read_secret.derive(Context::Terms, &[])).open_with_nonce(TERMS_ASSOCIATED, sealed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::DatabaseKey;

    #[test]
    fn each_gets_what_is_meant_for_it_and_no_more() {
        let admin = AdminKey::generate();
        let first = Capability::create(&admin, &DatabaseKey::generate(), Secret::random());
        let next = first.rotated(&DatabaseKey::generate(), Secret::random(), 3).unwrap();
        let database = next.database_id();
        let (device, other) = (DeviceKey::generate(), DeviceKey::generate());
        let mut lengths = Vec::new();
        for kind in [Kind::Mirror, Kind::Read, Kind::Write, Kind::Admin] {
            let sealed = seal_successor(&device.public(), kind, &next).unwrap();
            let opened = open_successor(&device, None, &database, 1, &sealed).unwrap();
            assert_eq!(opened, next.weakened(kind.min(Kind::Write)).unwrap());
            assert_eq!(open_successor(&other, None, &database, 1, &sealed), None);
            assert_eq!(open_successor(&other, Some(&admin), &database, 1, &sealed), None);
            assert_eq!(open_successor(&device, None, &database, 2, &sealed), None);
            assert_eq!(open_successor(&device, None, &DatabaseId([1; 32]), 1, &sealed), None);
            lengths.push(sealed.len());
        }
        assert!(lengths.iter().all(|length| *length == lengths[0]), "the kind does not show");
        let sealed = seal_successor(&DeviceId(admin.public().0), Kind::Write, &next).unwrap();
        assert!(open_successor(&other, Some(&admin), &database, 1, &sealed).is_some());
        assert!(open_successor(&other, Some(&AdminKey::generate()), &database, 1, &sealed).is_none());
        // The keys of another database under the number of this one.
        let elsewhere = Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
        let elsewhere = elsewhere.rotated(&DatabaseKey::generate(), Secret::random(), 1).unwrap();
        let sealed = seal_successor(&device.public(), Kind::Write, &elsewhere).unwrap();
        assert_eq!(open_successor(&device, None, &database, 1, &sealed), None);
    }

    #[test]
    fn the_longest_has_its_length() {
        let older = vec![Secret::new([1; 32]); GENERATIONS_MAX];
        let capability =
            Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
        let capability = Capability { older, policy_counter: u32::MAX, seq: i64::MAX, ..capability };
        let device = DeviceKey::generate();
        for kind in [Kind::Mirror, Kind::Read, Kind::Write, Kind::Admin] {
            let sealed = seal_successor(&device.public(), kind, &capability).unwrap();
            assert_eq!(sealed.len(), SUCCESSOR_BYTES_MAX);
        }
    }

    #[test]
    fn terms_open_with_their_own_secret() {
        let secret = Secret::random();
        let sealed = seal_terms(&secret, b"terms");
        assert_eq!(open_terms(&secret, &sealed).unwrap(), b"terms");
        assert_eq!(open_terms(&Secret::random(), &sealed), None);
    }
}
