//! A commit: the root of a version, and what its maker knew.

use super::entry::{RootRef, get_parents, put_parents};
use super::error::RecordError;
use crate::base::{
    DatabaseId, DeviceId, Id, Locator, Malformed, Place, Reader, SessionId, Signature, Writer,
};
use crate::crypt::{DeviceKey, verify};
use std::collections::BTreeMap;

/// The longest commit, in bytes.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Sessions that a version vector can name.
pub const VECTOR_SESSIONS_MAX: usize = 1 << 14;

const FORMAT: u8 = 1;
const VECTOR_ITEM_BYTES: usize = SessionId::BYTES + 8 + Id::BYTES;
const FIXED_BYTES_MAX: usize = 1024;
const _: () = assert!(VECTOR_SESSIONS_MAX * VECTOR_ITEM_BYTES + FIXED_BYTES_MAX <= COMMIT_BYTES_MAX);

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
    /// What it stands on: of each session the highest counter, and the id of the commit that had it.
    pub vector: BTreeMap<SessionId, (u64, Id)>,
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
    /// The device's, over all of it and the database id.
    pub signature: Signature,
}

impl Commit {
    /// The commit signed by its device.
    pub fn signed(mut self, database: &DatabaseId, device: &DeviceKey) -> Commit {
        self.device = device.public();
        self.signature = device.sign(&self.signed_bytes(database));
        self
    }

    /// Whether the signature is the device's.
    pub fn verify(&self, database: &DatabaseId) -> bool {
        verify(&self.device.0, &self.signed_bytes(database), &self.signature)
    }

    /// Whether it stands on the commit that has this session, counter and id. No commit stands on itself.
    pub fn covers(&self, session: SessionId, counter: u64, id: &Id) -> bool {
        match self.vector.get(&session) {
            Some((known, known_id)) => *known > counter || *known == counter && known_id == id,
            None => false,
        }
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

    /// A commit cannot stand on a later one of its own session, nor on itself.
    fn covers_later_self(&self) -> bool {
        self.vector.get(&self.session).is_some_and(|(known, _)| *known >= self.counter)
    }

    fn write_unsigned(&self, writer: &mut Writer) {
        writer.u8(FORMAT);
        match &self.catalogue {
            None => _ = writer.u8(0),
            Some((root, place)) => _ = writer.u8(1).u8(root.level).raw(&root.id.0).place(*place),
        }
        writer.locator(&self.charter).u32(self.policy_counter);
        put_parents(writer, &self.parents);
        writer.varint(self.vector.len() as u64);
        for (session, (counter, id)) in &self.vector {
            writer.raw(&session.0).u64(*counter).raw(&id.0);
        }
        writer.u64(self.lamport).u64(self.time as u64);
        writer.raw(&self.device.0).raw(&self.session.0).u64(self.counter);
    }

    fn signed_bytes(&self, database: &DatabaseId) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(b"kilofs commit 1").raw(&database.0);
        self.write_unsigned(&mut writer);
        writer.0
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
        vector: read_vector(reader)?,
        lamport: reader.u64()?,
        time: reader.u64()? as i64,
        device: DeviceId(reader.array()?),
        session: SessionId(reader.array()?),
        counter: reader.u64()?,
        signature: Signature(reader.array()?),
    })
}

fn read_vector(reader: &mut Reader) -> Result<BTreeMap<SessionId, (u64, Id)>, Malformed> {
    let mut vector: BTreeMap<SessionId, (u64, Id)> = BTreeMap::new();
    for _ in 0..reader.bounded(VECTOR_SESSIONS_MAX)? {
        let session = SessionId(reader.array()?);
        if vector.last_key_value().is_some_and(|(last, _)| *last >= session) {
            return Err(Malformed);
        }
        vector.insert(session, (reader.u64()?, Id(reader.array()?)));
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DATABASE: DatabaseId = DatabaseId([9; 32]);

    fn commit() -> Commit {
        let place = Place { offset: 77 << 20, length: 600 };
        let commit = Commit {
            catalogue: Some((RootRef { level: 1, id: Id([1; 32]) }, place)),
            charter: Locator { place, id: Id([2; 32]) },
            policy_counter: 3,
            parents: vec![Id([4; 32]), Id([5; 32])],
            vector: BTreeMap::from([
                (SessionId([1; 16]), (7, Id([4; 32]))),
                (SessionId([2; 16]), (9, Id([5; 32]))),
            ]),
            lamport: 10,
            time: -11,
            device: DeviceId([0; 32]),
            session: SessionId([2; 16]),
            counter: 12,
            signature: Signature([0; 64]),
        };
        commit.signed(&DATABASE, &DeviceKey::from_seed(&[7; 32]))
    }

    #[test]
    fn commits_survive_and_every_bit_is_signed() {
        let first = Commit { catalogue: None, parents: Vec::new(), vector: BTreeMap::new(), ..commit() };
        let first = first.signed(&DATABASE, &DeviceKey::from_seed(&[8; 32]));
        for commit in [commit(), first] {
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
    fn a_vector_covers_what_came_before() {
        let commit = commit();
        let covers =
            |session: u8, counter, id: u8| commit.covers(SessionId([session; 16]), counter, &Id([id; 32]));
        assert!(covers(1, 7, 4) && covers(1, 6, 99) && covers(2, 9, 5));
        assert!(!covers(1, 8, 4) && !covers(3, 0, 4), "not yet known");
        assert!(!covers(1, 7, 99), "another commit that took the same number");
        assert!(!covers(2, 12, 0), "itself");
    }

    #[test]
    fn no_commit_stands_on_itself_or_on_its_own_future() {
        for counter in [12, 13, u64::MAX] {
            let mut commit = commit();
            commit.vector.insert(commit.session, (counter, Id([6; 32])));
            assert_eq!(Commit::decode(&commit.encode()), Err(RecordError::Malformed("commit")));
        }
    }
}
