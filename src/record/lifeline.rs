//! The lifeline: a second BEP 44 item, under the admin key, that holds the policy in force and says whether the database has
//! moved to new keys. Whoever stole the database key can replay old policies in records, but not here; and where a record
//! lies that this says, no `seq` at the old place matters. Its seq is the policy's counter.
//!
//! It is sealed under the first record key, so that all who ever had a link can read whether it moved; the policy inside a
//! lifeline that moved is sealed once more, under the present record key. Until the first rotation it is a record that names
//! no version. Both have one length: DHT nodes learn nothing from it.

use super::SignedItem;
use super::policy::{POLICY_FIXED_BYTES, Policy};
use super::value::{RECORD_BYTES, Record};
use crate::base::{DatabaseId, Id, InfoHash, Malformed, PublicKey, Reader, Writer};
use crate::crypt::record_key::RECORD_SEAL_BYTES;
use crate::crypt::{AdminKey, DatabaseKey, GENERATIONS_MAX, RecordKey};

const FORMAT_MOVED: u8 = 2;
const PLAIN_BYTES: usize = RECORD_BYTES - RECORD_SEAL_BYTES;
const HEAD_BYTES: usize = 1 + 4 + InfoHash::BYTES + Id::BYTES;
/// What is left for the policy, under a seal of its own.
const POLICY_BYTES: usize = PLAIN_BYTES - HEAD_BYTES - RECORD_SEAL_BYTES;

const _: () = assert!(
    POLICY_FIXED_BYTES + 2 + super::policy::mode_bytes(super::value::BLOCKS_MAX) <= POLICY_BYTES,
    "the largest policy fits"
);

/// Where the keys are that follow the last rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// How many rotations there were.
    pub generation: u32,
    /// The torrent that carries the announcement.
    pub infohash: InfoHash,
    /// BLAKE3 of the announcement's bytes: SHA-1 alone is not trusted with keys.
    pub digest: Id,
}

/// What a lifeline says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lifeline {
    /// The number of the item.
    pub seq: i64,
    /// The last rotation, if there was one.
    pub moved: Option<Moved>,
    /// The policy in force; none where this device has not got the keys since.
    pub policy: Option<Policy>,
}

impl Lifeline {
    /// How many rotations there were.
    pub fn generation(&self) -> u32 {
        self.moved.map_or(0, |moved| moved.generation)
    }

    /// Whether it replaces `other`: more rotations, whatever the numbers of the items; of two rotations that two admin devices
    /// made at once the one with the smaller digest; else the policy in force.
    pub fn supersedes(&self, other: &Lifeline) -> bool {
        if self.generation() != other.generation() {
            return self.generation() > other.generation();
        }
        match (&self.moved, &other.moved) {
            (Some(one), Some(two)) if one != two => {
                (one.digest.0, one.infohash.0) < (two.digest.0, two.infohash.0)
            }
            _ => match (&self.policy, &other.policy) {
                (Some(one), Some(two)) => one.supersedes(two),
                _ => self.seq > other.seq,
            },
        }
    }
}

/// Signs the lifeline of a policy. `keys` are the record keys of all generations, the first one first; `time` is in seconds since
/// 1970 and decides nothing.
pub fn sign_lifeline(
    admin: &AdminKey,
    keys: &[RecordKey],
    moved: Option<&Moved>,
    policy: &Policy,
    time: u32,
) -> SignedItem {
    let (first, last) = (keys.first().zip(keys.last())).expect("there is always a record key");
    let value = match moved {
        None => {
            let record = Record { time, flags: 0, versions: Vec::new(), policy: policy.clone() };
            record.encode_sealed(first)
        }
        Some(moved) => {
            let mut inner = Writer::new();
            inner.raw(&policy.encode());
            inner.0.resize(POLICY_BYTES, 0);
            let mut plain = Writer::new();
            plain.u8(FORMAT_MOVED).u32(moved.generation).raw(&moved.infohash.0).raw(&moved.digest.0);
            plain.raw(&last.seal(&inner.0));
            first.seal(&plain.0)
        }
    };
    // The signature of an item is made the same way whatever the key is for; what it signs is told apart by its form.
    let signer = DatabaseKey::from_seed(admin.seed().expose());
    SignedItem::sign(&signer, i64::from(policy.counter), value)
}

/// What a lifeline says; none where anything about it is not as an admin makes it. `keys` are the record keys of all generations
/// that this device has, the first one first.
pub fn open_lifeline(
    item: &SignedItem,
    admin: &PublicKey,
    keys: &[RecordKey],
    database: &DatabaseId,
) -> Option<Lifeline> {
    if item.key != *admin || item.value.len() != RECORD_BYTES || !item.verify() {
        return None;
    }
    let plain = keys.first()?.open(&item.value).ok()?;
    let (moved, policy) = if plain.first() == Some(&FORMAT_MOVED) {
        let (moved, sealed) = read_moved(&plain).ok()?;
        let policy = match keys.get(usize::try_from(moved.generation).ok()?) {
            Some(key) => Some(read_policy(&key.open(sealed).ok()?)?),
            None => None,
        };
        (Some(moved), policy)
    } else {
        let record = Record::decode(keys.first()?, &item.value).ok()?;
        if !record.versions.is_empty() {
            return None;
        }
        (None, Some(record.policy))
    };
    let sound = |policy: &Policy| item.seq == i64::from(policy.counter) && policy.verify(database, admin);
    policy.as_ref().is_none_or(sound).then_some(Lifeline { seq: item.seq, moved, policy })
}

fn read_moved(plain: &[u8]) -> Result<(Moved, &[u8]), Malformed> {
    let mut reader = Reader::new(plain);
    reader.u8()?;
    let generation = reader.u32()?;
    let (infohash, digest) = (InfoHash(reader.array()?), Id(reader.array()?));
    if generation == 0 || generation as usize > GENERATIONS_MAX {
        return Err(Malformed);
    }
    let sealed = reader.raw(reader.remaining())?;
    Ok((Moved { generation, infohash, digest }, sealed))
}

fn read_policy(plain: &[u8]) -> Option<Policy> {
    let blocks = plain.get(POLICY_FIXED_BYTES..POLICY_FIXED_BYTES + 2)?;
    let blocks = usize::from(u16::from_le_bytes(blocks.try_into().ok()?));
    let (policy, padding) =
        plain.split_at_checked(POLICY_FIXED_BYTES + 2 + super::policy::mode_bytes(blocks))?;
    let clean = padding.iter().all(|byte| *byte == 0);
    Policy::decode(policy).ok().filter(|_| clean)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::{Secret, database_id};
    use crate::record::{BLOCKS_MAX, Mode};

    fn policy(admin: &AdminKey, counter: u32) -> Policy {
        Policy::sign(admin, &database_id(&admin.public()), counter, Id([1; 32]), vec![Mode::ReadOnly])
    }

    #[test]
    fn only_the_admins_own_lifeline_opens() {
        let (admin, thief) = (AdminKey::generate(), AdminKey::generate());
        let keys = [RecordKey::of(&Secret::random())];
        let database = database_id(&admin.public());
        let policy = policy(&admin, 7);
        let item = sign_lifeline(&admin, &keys, None, &policy, 1);
        let open = |item: &SignedItem| open_lifeline(item, &admin.public(), &keys, &database);
        assert_eq!(item.value.len(), RECORD_BYTES);
        assert_eq!(open(&item), Some(Lifeline { seq: 7, moved: None, policy: Some(policy.clone()) }));
        assert_eq!(open(&SignedItem { seq: 8, ..item.clone() }), None);
        assert_eq!(open(&sign_lifeline(&thief, &keys, None, &policy, 1)), None);
        let forged = Policy::sign(&thief, &database, 9, Id([1; 32]), vec![Mode::ReadWrite]);
        assert_eq!(open(&sign_lifeline(&admin, &keys, None, &forged, 1)), None);
        let others = [RecordKey::of(&Secret::random())];
        assert_eq!(open_lifeline(&item, &admin.public(), &others, &database), None);
    }

    #[test]
    fn who_was_left_behind_reads_where_to_and_nothing_more() {
        let admin = AdminKey::generate();
        let keys: Vec<_> = (1..4).map(|n| RecordKey::of(&Secret::new([n; 32]))).collect();
        let database = database_id(&admin.public());
        let open =
            |item: &SignedItem, keys: &[RecordKey]| open_lifeline(item, &admin.public(), keys, &database);
        let moved = Moved { generation: 2, infohash: InfoHash([4; 20]), digest: Id([5; 32]) };
        for modes in [1, BLOCKS_MAX] {
            let policy = Policy::sign(&admin, &database, 8, Id([6; 32]), vec![Mode::Append; modes]);
            let item = sign_lifeline(&admin, &keys, Some(&moved), &policy, 1);
            assert_eq!(item.value.len(), RECORD_BYTES);
            let whole = Lifeline { seq: 8, moved: Some(moved), policy: Some(policy) };
            assert_eq!(open(&item, &keys), Some(whole.clone()));
            for left in 1..3 {
                let seen = open(&item, &keys[..left]).unwrap();
                assert_eq!(seen, Lifeline { policy: None, ..whole.clone() });
            }
            assert_eq!(open(&item, &keys[1..]), None, "it takes the first key");
            assert_eq!(open(&SignedItem { seq: 9, ..item.clone() }, &keys[..1]), None);
            let mut wrong = keys.clone();
            wrong[2] = RecordKey::of(&Secret::random());
            assert_eq!(open(&item, &wrong), None);
        }
        let none = Moved { generation: 0, ..moved };
        assert_eq!(open(&sign_lifeline(&admin, &keys, Some(&none), &policy(&admin, 1), 1), &keys), None);
    }

    #[test]
    fn a_rotation_is_final_whatever_the_numbers_say() {
        let admin = AdminKey::generate();
        let moved =
            |generation, digest| Moved { generation, infohash: InfoHash([0; 20]), digest: Id([digest; 32]) };
        let lifeline = |counter: u32, moved: Option<Moved>| Lifeline {
            seq: i64::from(counter),
            moved,
            policy: Some(policy(&admin, counter)),
        };
        let order = [
            lifeline(900, None),
            lifeline(7, Some(moved(1, 9))),
            lifeline(5, Some(moved(1, 8))),
            lifeline(6, Some(moved(1, 8))),
            lifeline(2, Some(moved(2, 9))),
        ];
        for (index, later) in order.iter().enumerate() {
            assert!(!later.supersedes(later));
            for earlier in &order[..index] {
                assert!(later.supersedes(earlier) && !earlier.supersedes(later), "{later:?} {earlier:?}");
            }
        }
        let unread = |seq| Lifeline { seq, moved: Some(moved(3, 1)), policy: None };
        assert!(unread(4).supersedes(&unread(3)) && !unread(3).supersedes(&unread(4)));
    }
}
