//! A commit: the root of a version, and what its maker knew.

use super::entry::{RootRef, get_parents, put_parents};
use super::error::RecordError;
use super::vector::{ITEM_BYTES, Maker, Seen, Stamp, VECTOR_MAKERS_MAX, Vector};
use crate::base::{
    DatabaseId, DeviceId, Id, Locator, Malformed, Place, Reader, SessionId, Signature, Writer,
};
use crate::crypt::DeviceKey;

/// The longest commit, in bytes.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;

/// In format 1 what a commit stood on was claimed and not signed.
const FORMAT: u8 = 2;
const FIXED_BYTES_MAX: usize = 1024;
const _: () = assert!(VECTOR_MAKERS_MAX * ITEM_BYTES + FIXED_BYTES_MAX <= COMMIT_BYTES_MAX);

/// One version as its maker signed it. Its id is that of its blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// The catalogue's root and where it lies; none while no block was ever written.
    pub catalogue: Option<(RootRef, Place)>,
    /// The charter that its maker followed.
    pub charter: Locator,
    /// The policy that its maker followed.
    pub policy_counter: u32,
    /// At most two commits that it was made from.
    pub parents: Vec<Id>,
    /// What it stands on.
    pub vector: Vector,
    /// Above that of all it stands on.
    pub lamport: u64,
    /// When it was made, in seconds since 1970; informs people, decides nothing.
    pub time: i64,
    /// Who made it.
    pub device: DeviceId,
    /// In which incarnation of its store.
    pub session: SessionId,
    /// Its number there; no two commits of a session share one.
    pub counter: u64,
    /// The device's, in the [`Stamp`].
    pub signature: Signature,
}

impl Commit {
    /// The commit signed by its device.
    pub fn signed(mut self, database: &DatabaseId, device: &DeviceKey) -> Commit {
        self.device = device.public();
        let stamp = Stamp::sign(database, device, self.session, self.counter, self.digest());
        self.signature = stamp.signature;
        self
    }

    /// Whether the signature is the device's, and each in the vector that of its maker.
    pub fn verify(&self, database: &DatabaseId) -> bool {
        self.verify_with(database, &mut Seen::default())
    }

    /// The same, without verifying again what was seen.
    pub fn verify_with(&self, database: &DatabaseId, seen: &mut Seen) -> bool {
        seen.verify(database, &self.maker(), &self.stamp())
            && self.vector.iter().all(|(maker, stamp)| seen.verify(database, maker, stamp))
    }

    /// Who numbers it.
    pub fn maker(&self) -> Maker {
        Maker { device: self.device, session: self.session }
    }

    /// What later commits say of it.
    pub fn stamp(&self) -> Stamp {
        Stamp { counter: self.counter, digest: self.digest(), signature: self.signature }
    }

    /// Whether it stands on another one. No commit stands on itself, and of two that claim to stand on each other neither
    /// does.
    pub fn covers(&self, other: &Commit) -> bool {
        self.reaches(other) && !other.reaches(self)
    }

    fn reaches(&self, other: &Commit) -> bool {
        // Of most pairs the numbers tell enough, and nothing is hashed.
        let known = self.vector.get(&other.maker()).is_some_and(|known| known.counter >= other.counter);
        known && self.vector.reaches(&other.maker(), &other.stamp(), &other.vector)
    }

    /// The vector of a commit that is made from these.
    pub fn vector_above<'a>(parents: impl Iterator<Item = &'a Commit>) -> Vector {
        Vector::above(parents.map(|commit| (commit.maker(), commit.stamp(), &commit.vector)))
    }

    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write_unsigned(&mut writer);
        writer.raw(&self.signature.0);
        writer.0
    }

    /// Reads what [`Commit::encode`] wrote. The signature is still to be verified.
    pub fn decode(bytes: &[u8]) -> Result<Commit, RecordError> {
        if bytes.len() > COMMIT_BYTES_MAX {
            let count = bytes.len();
            return Err(RecordError::TooMany { what: "bytes of the commit", count, max: COMMIT_BYTES_MAX });
        }
        let malformed = RecordError::in_a("commit");
        let mut reader = Reader::new(bytes);
        let format = reader.u8().map_err(&malformed)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        let commit = read(&mut reader).map_err(&malformed)?;
        reader.end().map_err(&malformed)?;
        if commit.covers_later_self() {
            return Err(RecordError::Malformed("commit"));
        }
        Ok(commit)
    }

    /// A commit cannot stand on a later one of its own maker, nor on itself.
    fn covers_later_self(&self) -> bool {
        self.vector.get(&self.maker()).is_some_and(|known| known.counter >= self.counter)
    }

    fn write_unsigned(&self, writer: &mut Writer) {
        writer.u8(FORMAT);
        match &self.catalogue {
            None => _ = writer.u8(0),
            Some((root, place)) => _ = writer.u8(1).u8(root.level).raw(&root.id.0).place(*place),
        }
        writer.locator(&self.charter).u32(self.policy_counter);
        put_parents(writer, &self.parents);
        self.vector.write(writer);
        writer.u64(self.lamport).u64(self.time as u64);
        writer.raw(&self.device.0).raw(&self.session.0).u64(self.counter);
    }

    fn digest(&self) -> Id {
        let mut writer = Writer::new();
        self.write_unsigned(&mut writer);
        Id(*blake3::hash(&writer.0).as_bytes())
    }
}

fn read(reader: &mut Reader) -> Result<Commit, Malformed> {
    Ok(Commit {
        catalogue: match reader.u8()? {
            0 => None,
            1 => Some((RootRef { level: reader.u8()?, id: Id(reader.array()?) }, reader.place()?)),
            _ => return Err(Malformed),
        },
        charter: reader.locator()?,
        policy_counter: reader.u32()?,
        parents: get_parents(reader)?,
        vector: Vector::read(reader)?,
        lamport: reader.u64()?,
        time: reader.u64()? as i64,
        device: DeviceId(reader.array()?),
        session: SessionId(reader.array()?),
        counter: reader.u64()?,
        signature: Signature(reader.array()?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DATABASE: DatabaseId = DatabaseId([9; 32]);

    fn key(n: u8) -> DeviceKey {
        DeviceKey::from_seed(&[n; 32])
    }

    fn stamp(n: u8, counter: u64) -> (Maker, Stamp) {
        let session = SessionId([n; 16]);
        let maker = Maker { device: key(n).public(), session };
        (maker, Stamp::sign(&DATABASE, &key(n), session, counter, Id([n; 32])))
    }

    fn vector(stamps: &[(Maker, Stamp)]) -> Vector {
        let mut vector = Vector::default();
        stamps.iter().for_each(|(maker, stamp)| vector.insert(*maker, *stamp));
        vector
    }

    fn unsigned() -> Commit {
        let place = Place { offset: 77 << 20, length: 600 };
        Commit {
            catalogue: Some((RootRef { level: 1, id: Id([1; 32]) }, place)),
            charter: Locator { place, id: Id([2; 32]) },
            policy_counter: 3,
            parents: vec![Id([4; 32]), Id([5; 32])],
            vector: vector(&[stamp(1, 7), stamp(2, 9)]),
            lamport: 10,
            time: -11,
            device: DeviceId([0; 32]),
            session: SessionId([2; 16]),
            counter: 12,
            signature: Signature([0; 64]),
        }
    }

    fn commit() -> Commit {
        unsigned().signed(&DATABASE, &key(2))
    }

    #[test]
    fn commits_survive_and_every_bit_is_signed() {
        let first = Commit { catalogue: None, parents: Vec::new(), vector: Vector::default(), ..unsigned() };
        for commit in [commit(), first.signed(&DATABASE, &key(8))] {
            assert!(commit.verify(&DATABASE) && !commit.verify(&DatabaseId([8; 32])));
            let bytes = commit.encode();
            assert_eq!(Commit::decode(&bytes).as_ref(), Ok(&commit));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(decoded) = Commit::decode(&changed) {
                    assert_eq!(decoded.encode(), changed, "bit {bit}");
                    assert!(!decoded.verify(&DATABASE), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn what_others_never_signed_is_no_claim() {
        let (maker, honest) = stamp(1, 7);
        let claims = [
            Stamp { counter: u64::MAX, ..honest },
            Stamp { counter: 8, ..honest },
            Stamp { digest: Id([6; 32]), ..honest },
            Stamp::sign(&DATABASE, &key(2), maker.session, 8, Id([6; 32])),
            Stamp::sign(&DatabaseId([8; 32]), &key(1), maker.session, 8, Id([6; 32])),
            Stamp::sign(&DATABASE, &key(1), SessionId([3; 16]), 8, Id([6; 32])),
        ];
        for claim in claims {
            let vector = vector(&[(maker, claim)]);
            let commit = Commit { vector, ..unsigned() }.signed(&DATABASE, &key(2));
            assert!(!commit.verify(&DATABASE), "{claim:?}");
            let mut seen = Seen::default();
            assert!(seen.verify(&DATABASE, &maker, &honest));
            assert!(!commit.verify_with(&DATABASE, &mut seen), "{claim:?}");
        }
    }

    #[test]
    fn what_was_made_from_a_commit_stands_on_it() {
        let one = commit();
        let vector = Commit::vector_above([&one].into_iter());
        let two = Commit { vector, counter: 13, ..unsigned() }.signed(&DATABASE, &key(2));
        assert!(two.verify(&DATABASE));
        assert!(two.covers(&one) && !one.covers(&two) && !one.covers(&one));
    }

    #[test]
    fn of_two_that_claim_each_other_neither_stands_on_the_other() {
        // A thief with two devices signs numbers ahead.
        let one =
            Commit { vector: vector(&[stamp(3, 9)]), session: SessionId([1; 16]), counter: 4, ..unsigned() };
        let one = one.signed(&DATABASE, &key(1));
        let two =
            Commit { vector: vector(&[stamp(1, 5)]), session: SessionId([3; 16]), counter: 8, ..unsigned() };
        let two = two.signed(&DATABASE, &key(3));
        assert!(one.verify(&DATABASE) && two.verify(&DATABASE));
        assert!(!one.covers(&two) && !two.covers(&one));
    }

    #[test]
    fn no_commit_stands_on_itself_or_on_its_own_future() {
        for counter in [12, 13, u64::MAX] {
            let commit = Commit { vector: vector(&[stamp(2, counter)]), ..unsigned() };
            let commit = commit.signed(&DATABASE, &key(2));
            assert!(commit.verify(&DATABASE));
            assert_eq!(Commit::decode(&commit.encode()), Err(RecordError::Malformed("commit")));
        }
    }
}
