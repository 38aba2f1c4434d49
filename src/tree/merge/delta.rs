//! What the two sides changed: every touched key with its three values, grouped by inode and by name.

use super::{MergeError, Version};
use crate::base::{Id, Inode};
use crate::map::Entry;
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;
use crate::tree::value::{self, DirEntry};
use std::collections::BTreeMap;

/// A place for a name: directory and name.
pub(super) type Location = (Inode, Vec<u8>);

/// One of the two sides, by who keeps what both want.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// The earlier commit.
    Loser,
    /// The later commit.
    Winner,
}

impl Rank {
    /// Both, the winner first.
    pub(super) const BOTH: [Rank; 2] = [Rank::Winner, Rank::Loser];

    /// The other one.
    pub(super) fn other(self) -> Rank {
        match self {
            Rank::Winner => Rank::Loser,
            Rank::Loser => Rank::Winner,
        }
    }
}

/// One value in the base and in both sides.
#[derive(Clone, Debug)]
pub(super) struct Triple<T> {
    /// What both started from.
    pub(super) base: Option<T>,
    /// In the later commit.
    pub(super) winner: Option<T>,
    /// In the earlier commit.
    pub(super) loser: Option<T>,
}

impl<T> Default for Triple<T> {
    fn default() -> Triple<T> {
        Triple { base: None, winner: None, loser: None }
    }
}

impl<T: Clone + PartialEq> Triple<T> {
    /// The same value everywhere.
    pub(super) fn same(value: Option<T>) -> Triple<T> {
        Triple { base: value.clone(), winner: value.clone(), loser: value }
    }

    /// The value of one side.
    pub(super) fn of(&self, rank: Rank) -> &Option<T> {
        match rank {
            Rank::Winner => &self.winner,
            Rank::Loser => &self.loser,
        }
    }

    /// The value of one side, to be changed.
    pub(super) fn of_mut(&mut self, rank: Rank) -> &mut Option<T> {
        match rank {
            Rank::Winner => &mut self.winner,
            Rank::Loser => &mut self.loser,
        }
    }

    /// Whether a side differs from the base.
    pub(super) fn changed(&self, rank: Rank) -> bool {
        *self.of(rank) != self.base
    }

    /// Three-way: who changed it prevails; an edit beats a deletion; of two edits the winner's.
    pub(super) fn merged(&self) -> &Option<T> {
        let winner_is_silent = !self.changed(Rank::Winner);
        let edit_against_deletion = self.winner.is_none() && self.changed(Rank::Loser);
        if winner_is_silent || edit_against_deletion { &self.loser } else { &self.winner }
    }
}

/// All touched keys of one inode but its names. The record is always there, touched or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The inode record.
    pub(super) record: Triple<InodeRecord>,
    /// Whether either side touched the record.
    pub(super) touched: bool,
    /// Touched chunks by index.
    pub(super) chunks: BTreeMap<u64, Triple<Id>>,
    /// Touched extended attributes by name.
    pub(super) xattrs: BTreeMap<Vec<u8>, Triple<Vec<u8>>>,
    /// A symbolic link's target, if touched.
    pub(super) link: Option<Triple<Vec<u8>>>,
}

impl Group {
    /// Whether a side has the inode.
    pub(super) fn exists(&self, rank: Rank) -> bool {
        self.record.of(rank).is_some()
    }

    /// The only side that has it, if one only has.
    pub(super) fn only_side(&self) -> Option<Rank> {
        match (self.exists(Rank::Winner), self.exists(Rank::Loser)) {
            (true, false) => Some(Rank::Winner),
            (false, true) => Some(Rank::Loser),
            _ => None,
        }
    }

    /// Whether a side changed it after the other one, of those that the base does not know.
    pub(super) fn is_later(&self, rank: Rank) -> bool {
        let changed = |rank| self.record.of(rank).as_ref().map(|record: &InodeRecord| record.ctime);
        self.record.base.is_none() && changed(rank) > changed(rank.other())
    }

    /// The record of the winner, or of the loser where the winner has none.
    pub(super) fn leading_record(&self) -> Option<&InodeRecord> {
        self.record.winner.as_ref().or(self.record.loser.as_ref())
    }
}

/// Every key that either side touched.
#[derive(Default)]
pub(super) struct Delta {
    /// By inode.
    pub(super) groups: BTreeMap<Inode, Group>,
    /// By name.
    pub(super) entries: BTreeMap<Location, Triple<DirEntry>>,
}

impl Delta {
    /// Takes the differences of both sides from the base, or of the sides from each other where there is no base.
    pub(super) fn load(
        base: Option<&Version<'_>>,
        winner: &Version<'_>,
        loser: &Version<'_>,
    ) -> Result<Delta, MergeError> {
        let mut delta = Delta::default();
        match base {
            None => differences(loser, winner, &mut |key, in_loser, in_winner| {
                delta.touch(key, None, in_loser, Rank::Loser)?;
                delta.touch(key, None, in_winner, Rank::Winner)
            })?,
            Some(base) => {
                for (rank, version) in [(Rank::Winner, winner), (Rank::Loser, loser)] {
                    differences(base, version, &mut |key, in_base, in_side| {
                        delta.touch(key, in_base, in_side, rank)
                    })?;
                }
            }
        }
        Ok(delta)
    }

    /// A side touches a key. Until the other side does too, that one has the base's value.
    fn touch(
        &mut self,
        bytes: &[u8],
        in_base: Option<&Entry>,
        in_side: Option<&Entry>,
        rank: Rank,
    ) -> Result<(), MergeError> {
        let key = Key::decode(bytes).map_err(|_| MergeError::Malformed)?;
        match key {
            Key::Inode(inode) => {
                let (old, new) = (read(in_base, record_of)?, read(in_side, record_of)?);
                let group = self.groups.entry(inode).or_default();
                if !group.touched {
                    group.record = Triple::same(old);
                    group.touched = true;
                }
                *group.record.of_mut(rank) = new;
            }
            Key::Entry(directory, name) => {
                let (old, new) = (read(in_base, entry_of)?, read(in_side, entry_of)?);
                let location = (directory, name.to_vec());
                *self.entries.entry(location).or_insert_with(|| Triple::same(old)).of_mut(rank) = new;
            }
            Key::Chunk(inode, index) => {
                let (old, new) = (read(in_base, chunk_of)?, read(in_side, chunk_of)?);
                let chunks = &mut self.groups.entry(inode).or_default().chunks;
                *chunks.entry(index).or_insert_with(|| Triple::same(old)).of_mut(rank) = new;
            }
            Key::Xattr(inode, name) => {
                let (old, new) = (in_base.map(bytes_of), in_side.map(bytes_of));
                let xattrs = &mut self.groups.entry(inode).or_default().xattrs;
                *xattrs.entry(name.to_vec()).or_insert_with(|| Triple::same(old)).of_mut(rank) = new;
            }
            Key::Link(inode) => {
                let (old, new) = (in_base.map(bytes_of), in_side.map(bytes_of));
                let link = &mut self.groups.entry(inode).or_default().link;
                *link.get_or_insert_with(|| Triple::same(old)).of_mut(rank) = new;
            }
        }
        Ok(())
    }
}

/// Decodes what is there.
fn read<T>(
    entry: Option<&Entry>,
    decode: impl Fn(&Entry) -> Result<T, MergeError>,
) -> Result<Option<T>, MergeError> {
    entry.map(decode).transpose()
}

/// The inode record that a map entry holds.
pub(super) fn record_of(entry: &Entry) -> Result<InodeRecord, MergeError> {
    InodeRecord::decode(&entry.value).map_err(|_| MergeError::Malformed)
}

/// The directory entry that a map entry holds.
pub(super) fn entry_of(entry: &Entry) -> Result<DirEntry, MergeError> {
    DirEntry::decode(&entry.value).map_err(|_| MergeError::Malformed)
}

/// The id of the chunk to which a map entry points.
pub(super) fn chunk_of(entry: &Entry) -> Result<Id, MergeError> {
    value::chunk_id(&entry.value).map_err(|_| MergeError::Malformed)
}

/// The bytes that a map entry holds.
pub(super) fn bytes_of(entry: &Entry) -> Vec<u8> {
    entry.value.to_vec()
}

/// Is shown a key with its entries in an old and a new version.
type Visitor<'v> = dyn FnMut(&[u8], Option<&Entry>, Option<&Entry>) -> Result<(), MergeError> + 'v;

/// Visits every key whose value differs between two versions, which may lie in different images.
pub(super) fn differences(
    old: &Version<'_>,
    new: &Version<'_>,
    visit: &mut Visitor<'_>,
) -> Result<(), MergeError> {
    old.map.diff_with(old.root.as_ref(), new.map, new.root.as_ref(), visit)
}
