//! What a commit stands on, in a form in which nobody can claim more than there is: of each maker the number of the
//! latest commit, with the maker's own signature. A number that was never given out cannot be claimed, so no commit that
//! is yet to be made is ever taken for an old one.

use crate::base::{DatabaseId, DeviceId, Id, Malformed, Reader, SessionId, Signature, Writer};
use crate::crypt::{DeviceKey, verify};
use std::collections::{BTreeMap, HashMap};

/// Makers that a vector can name.
pub const VECTOR_MAKERS_MAX: usize = 1 << 12;
/// Of these so many places are kept for the commits that a new one is made from.
const PLACES_FOR_PARENTS: usize = 16;
pub(super) const ITEM_BYTES: usize = DeviceId::BYTES + SessionId::BYTES + 8 + Id::BYTES + Signature::BYTES;
/// Stamps that are remembered as valid.
const SEEN_MAX: usize = 4 * VECTOR_MAKERS_MAX;

/// Who makes commits one after the other: an incarnation of a store at a device. Nobody else can sign in its name,
/// whatever session he calls his own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Maker {
    /// Whose signature counts.
    pub device: DeviceId,
    /// In which incarnation of its store.
    pub session: SessionId,
}

/// What can be checked of a commit without having it: that its maker gave it this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Its number among those of its maker.
    pub counter: u64,
    /// BLAKE3 of all of it but the signature.
    pub digest: Id,
    /// The maker's, over database id, session and the above.
    pub signature: Signature,
}

impl Stamp {
    /// A stamp by a device.
    pub fn sign(
        database: &DatabaseId,
        device: &DeviceKey,
        session: SessionId,
        counter: u64,
        digest: Id,
    ) -> Stamp {
        Stamp { counter, digest, signature: device.sign(&message(database, &session, counter, &digest)) }
    }

    /// Whether the maker signed it.
    pub fn verify(&self, database: &DatabaseId, maker: &Maker) -> bool {
        let message = message(database, &maker.session, self.counter, &self.digest);
        verify(&maker.device.0, &message, &self.signature)
    }
}

fn message(database: &DatabaseId, session: &SessionId, counter: u64, digest: &Id) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.raw(b"kilofs commit 2").raw(&database.0).raw(&session.0).u64(counter).raw(&digest.0);
    writer.0
}

/// Stamps that were found valid, so that what most vectors share is verified once.
#[derive(Default)]
pub struct Seen(HashMap<Maker, Stamp>);

impl Seen {
    /// Whether the maker signed the stamp.
    pub fn verify(&mut self, database: &DatabaseId, maker: &Maker, stamp: &Stamp) -> bool {
        if self.0.get(maker) == Some(stamp) {
            return true;
        }
        let valid = stamp.verify(database, maker);
        if valid {
            if self.0.len() >= SEEN_MAX {
                self.0.clear();
            }
            self.0.insert(*maker, *stamp);
        }
        valid
    }
}

/// Of each maker the latest commit that is stood on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Vector(BTreeMap<Maker, Stamp>);

impl Vector {
    /// The vector of a commit that is made from `parents`: each a commit's maker and stamp, and what that one stands
    /// on. The first come first: where more makers are known than fit, those of the last are left out, which costs
    /// needless merges and hides nothing.
    pub fn above<'a>(parents: impl Iterator<Item = (Maker, Stamp, &'a Vector)>) -> Vector {
        let mut all = Vector::default();
        let mut direct = Vec::new();
        for (maker, stamp, below) in parents {
            below
                .iter()
                .for_each(|(maker, stamp)| all.raise(maker, stamp, VECTOR_MAKERS_MAX - PLACES_FOR_PARENTS));
            direct.push((maker, stamp));
        }
        // Of two commits under one number the one that is here counts.
        direct.iter().for_each(|(maker, stamp)| all.raise(maker, stamp, VECTOR_MAKERS_MAX));
        all
    }

    fn raise(&mut self, maker: &Maker, stamp: &Stamp, max: usize) {
        let takes = match self.0.get(maker) {
            Some(known) => stamp.counter >= known.counter,
            None => self.0.len() < max,
        };
        if takes {
            self.0.insert(*maker, *stamp);
        }
    }

    /// Whether who has this vector has come as far as a commit: he stands on that very one, or on a later one of its
    /// maker and on all that it stands on. The second half is for makers that give one number twice: what is only below
    /// the other one of the two is not stood on.
    pub fn reaches(&self, maker: &Maker, stamp: &Stamp, below: &Vector) -> bool {
        match self.0.get(maker) {
            Some(known) if known.counter == stamp.counter => known.digest == stamp.digest,
            Some(known) => known.counter > stamp.counter && self.is_above(below),
            None => false,
        }
    }

    fn is_above(&self, below: &Vector) -> bool {
        below.iter().all(|(maker, stamp)| self.get(maker).is_some_and(|known| known.counter >= stamp.counter))
    }

    /// The latest commit of a maker.
    pub fn get(&self, maker: &Maker) -> Option<&Stamp> {
        self.0.get(maker)
    }

    /// All, by maker.
    pub fn iter(&self) -> impl Iterator<Item = (&Maker, &Stamp)> {
        self.0.iter()
    }

    /// Takes one in, whatever is known of its maker.
    pub fn insert(&mut self, maker: Maker, stamp: Stamp) {
        self.0.insert(maker, stamp);
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.varint(self.0.len() as u64);
        for (maker, stamp) in &self.0 {
            writer.raw(&maker.device.0).raw(&maker.session.0).u64(stamp.counter);
            writer.raw(&stamp.digest.0).raw(&stamp.signature.0);
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Vector, Malformed> {
        let mut all: BTreeMap<Maker, Stamp> = BTreeMap::new();
        for _ in 0..reader.bounded(VECTOR_MAKERS_MAX)? {
            let maker = Maker { device: DeviceId(reader.array()?), session: SessionId(reader.array()?) };
            if all.last_key_value().is_some_and(|(last, _)| *last >= maker) {
                return Err(Malformed);
            }
            let counter = reader.u64()?;
            let (digest, signature) = (Id(reader.array()?), Signature(reader.array()?));
            all.insert(maker, Stamp { counter, digest, signature });
        }
        Ok(Vector(all))
    }
}

#[cfg(test)]
#[path = "vector_tests.rs"]
mod tests;
