//! The announcement of a rotation: the new keys, sealed to each of those who remain, and the policy and charter that go with
//! them, sealed to those who read. The lifeline names it; whoever has it can pass it on.

use super::charter::{CHARTER_BYTES_MAX, Charter, MEMBERS_MAX};
use super::error::RecordError;
use super::policy::Policy;
use crate::base::{DatabaseId, DeviceId, Id, Malformed, Reader, Writer};
use crate::crypt::envelope::NoDevice;
use crate::crypt::successor::{SUCCESSOR_BYTES_MAX, open_successor, open_terms, seal_successor, seal_terms};
use crate::crypt::{AdminKey, Capability, DeviceKey, Kind, Secret};

/// The longest announcement, in bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 3 << 20;

const FORMAT: u8 = 1;
const ENVELOPES_MAX: usize = MEMBERS_MAX + ENVELOPES_STEP;
/// There is always a multiple of so many envelopes: how many devices remain shows only roughly.
const ENVELOPES_STEP: usize = 8;
const POLICY_BYTES_MAX: usize = 1 << 12;

/// An announcement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// Of which database.
    pub database: DatabaseId,
    /// How many rotations there were with this one.
    pub generation: u32,
    envelopes: Vec<Vec<u8>>,
    terms: Vec<u8>,
}

impl Announcement {
    /// Announces `successor` to devices, to each as much as it may have, and to whoever holds the admin key.
    pub fn new(
        successor: &Capability,
        recipients: &[(DeviceId, Kind)],
        policy: &Policy,
        charter: &Charter,
    ) -> Result<Announcement, NoDevice> {
        let mut envelopes =
            vec![seal_successor(&DeviceId(successor.admin_public.0), Kind::Write, successor)?];
        for (device, kind) in recipients {
            envelopes.push(seal_successor(device, *kind, successor)?);
        }
        while envelopes.len() % ENVELOPES_STEP != 0 {
            envelopes.push(seal_successor(&DeviceKey::generate().public(), Kind::Mirror, successor)?);
        }
        // They begin with a random key each: sorted, their order says nothing.
        envelopes.sort();
        let mut terms = Writer::new();
        terms.bytes(&policy.encode()).bytes(&charter.encode());
        let read_secret = successor.read_secret.as_ref().ok_or(NoDevice)?;
        Ok(Announcement {
            database: successor.database_id(),
            generation: successor.generation(),
            envelopes,
            terms: seal_terms(read_secret, &terms.0),
        })
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).raw(&self.database.0).u32(self.generation).varint(self.envelopes.len() as u64);
        self.envelopes.iter().for_each(|envelope| _ = writer.bytes(envelope));
        writer.bytes(&self.terms);
        writer.0
    }

    /// Reads what [`Announcement::encode`] wrote. Whether the admin made it, the lifeline says, which names its digest.
    pub fn decode(bytes: &[u8]) -> Result<Announcement, RecordError> {
        let malformed = RecordError::in_a("announcement");
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(malformed(Malformed));
        }
        let mut reader = Reader::new(bytes);
        let format = reader.u8().map_err(&malformed)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        let announcement = read(&mut reader).map_err(&malformed)?;
        reader.end().map_err(&malformed)?;
        Ok(announcement)
    }

    /// What the lifeline calls it.
    pub fn digest(bytes: &[u8]) -> Id {
        Id(blake3::derive_key("kilofs 1 2026 announcement", bytes))
    }

    /// The keys that are meant for this device, or for the holder of the admin key; none if there are none.
    pub fn open(&self, device: &DeviceKey, admin: Option<&AdminKey>) -> Option<Capability> {
        let open = |sealed: &Vec<u8>| open_successor(device, admin, &self.database, self.generation, sealed);
        let mut opened: Vec<Capability> = self.envelopes.iter().filter_map(open).collect();
        // What is sealed to the admin key is never less than what the device has.
        opened.sort_by_key(Capability::kind);
        opened.pop()
    }

    /// The policy and charter that go with the new keys.
    pub fn terms(&self, read_secret: &Secret) -> Option<(Policy, Charter)> {
        let plain = open_terms(read_secret, &self.terms)?;
        let mut reader = Reader::new(&plain);
        let policy = Policy::decode(reader.bytes(POLICY_BYTES_MAX).ok()?).ok()?;
        let charter = Charter::decode(reader.bytes(CHARTER_BYTES_MAX).ok()?).ok()?;
        reader.end().ok()?;
        Some((policy, charter))
    }
}

fn read(reader: &mut Reader) -> Result<Announcement, Malformed> {
    let (database, generation) = (DatabaseId(reader.array()?), reader.u32()?);
    let count = reader.bounded(ENVELOPES_MAX)?;
    let envelopes = (0..count).map(|_| Ok(reader.bytes(SUCCESSOR_BYTES_MAX)?.to_vec()));
    let envelopes = envelopes.collect::<Result<Vec<_>, Malformed>>()?;
    let terms = reader.bytes(ANNOUNCEMENT_BYTES_MAX)?.to_vec();
    Ok(Announcement { database, generation, envelopes, terms })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::{DatabaseKey, database_id};
    use crate::record::{Mode, genesis_charter};

    #[test]
    fn those_who_remain_find_their_keys_and_nobody_else() {
        let admin = AdminKey::generate();
        let first = Capability::create(&admin, &DatabaseKey::generate(), Secret::random());
        let next = first.rotated(&DatabaseKey::generate(), Secret::random(), 2).unwrap();
        let database = database_id(&admin.public());
        let charter = genesis_charter(&database);
        let policy = Policy::sign(&admin, &database, 2, Id([3; 32]), vec![Mode::ReadWrite]);
        let devices: Vec<DeviceKey> = (0..5).map(|_| DeviceKey::generate()).collect();
        let kinds = [Kind::Write, Kind::Write, Kind::Read, Kind::Mirror];
        let recipients: Vec<_> = devices.iter().map(DeviceKey::public).zip(kinds).collect();
        let made = Announcement::new(&next, &recipients, &policy, &charter).unwrap();
        assert_eq!(made.envelopes.len(), 8);
        let bytes = made.encode();
        assert_eq!(Announcement::decode(&bytes).as_ref(), Ok(&made));
        for (device, kind) in devices.iter().zip(kinds) {
            assert_eq!(made.open(device, None), next.weakened(kind), "{kind}");
        }
        assert_eq!(made.open(&devices[4], None), None);
        assert_eq!(made.open(&devices[4], Some(&admin)), next.weakened(Kind::Write));
        assert_eq!(made.open(&devices[3], Some(&admin)), next.weakened(Kind::Write), "the admin has more");
        assert_eq!(made.terms(next.read_secret.as_ref().unwrap()), Some((policy, charter)));
        assert_eq!(made.terms(first.read_secret.as_ref().unwrap()), None);
        for length in 0..bytes.len() {
            assert!(Announcement::decode(&bytes[..length]).is_err(), "length {length}");
        }
        let read_secret = next.read_secret.as_ref().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Announcement::digest(&changed), Announcement::digest(&bytes));
            let Ok(decoded) = Announcement::decode(&changed) else { continue };
            assert_eq!(decoded.encode(), changed, "bit {bit}");
            if bit % 211 != 0 {
                continue;
            }
            // Each bit is of one envelope, of the terms, or of what all envelopes are bound to.
            let opened =
                recipients.len() - devices[..4].iter().filter(|d| decoded.open(d, None).is_some()).count();
            let terms = decoded.terms(read_secret).is_none();
            assert!(opened <= 1 || !terms, "bit {bit}");
        }
    }

    #[test]
    fn a_recipient_that_is_no_device_is_refused() {
        let first = Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
        let next = first.rotated(&DatabaseKey::generate(), Secret::random(), 2).unwrap();
        let database = next.database_id();
        let policy = Policy::sign(&AdminKey::generate(), &database, 2, Id([3; 32]), vec![Mode::ReadWrite]);
        let to = [(DeviceId([0; 32]), Kind::Write)];
        assert_eq!(Announcement::new(&next, &to, &policy, &genesis_charter(&database)), Err(NoDevice));
    }
}
