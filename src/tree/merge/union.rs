//! What two states of an append block have under one inode.

use super::delta::{Location, entry_of};
use super::join::record_in;
use super::{MergeError, Version};
use crate::base::{BlockNumber, Inode};
use crate::map::Entry;
use crate::tree::inode::{InodeRecord, Timestamp};
use crate::tree::key::Key;
use crate::tree::value::DirEntry;
use std::collections::BTreeMap;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Side {
    /// This device's state.
    Here,
    /// The one that came.
    There,
}

impl Side {
    /// The other one.
    pub(super) fn other(self) -> Side {
        match self {
            Side::Here => Side::There,
            Side::There => Side::Here,
        }
    }
}

/// A key's entries here and there.
pub(super) type Both = [Option<Entry>; 2];
/// All keys but directory entries that differ, by inode.
pub(super) type Values = BTreeMap<Inode, BTreeMap<Box<[u8]>, Both>>;

/// Reads what the two have.
pub(super) struct Contents<'a> {
    here: &'a Version<'a>,
    there: &'a Version<'a>,
    values: Values,
}

impl<'a> Contents<'a> {
    /// `values` are the differences.
    pub(super) fn new(here: &'a Version<'a>, there: &'a Version<'a>, values: Values) -> Contents<'a> {
        Contents { here, there, values }
    }

    /// The inodes of which something differs.
    pub(super) fn touched(&self) -> impl Iterator<Item = Inode> {
        self.values.keys().copied()
    }

    /// What differs of an inode.
    pub(super) fn values(&self, inode: Inode) -> impl Iterator<Item = (&Box<[u8]>, &Both)> {
        self.values.get(&inode).into_iter().flatten()
    }

    fn get(&self, side: Side, key: &Key<'_>) -> Result<Option<Entry>, MergeError> {
        let version = if side == Side::Here { self.here } else { self.there };
        Ok(version.map.get(version.root.as_ref(), &key.encode())?)
    }

    /// An inode's record in one of the two.
    pub(super) fn record(&self, side: Side, inode: Inode) -> Result<Option<InodeRecord>, MergeError> {
        let key = Key::Inode(inode);
        match self.values.get(&inode).and_then(|values| values.get(&key.encode())) {
            Some(both) => record_in(both[side as usize].as_ref()),
            None => record_in(self.get(side, &key)?.as_ref()),
        }
    }

    /// Whether one of the two has an inode.
    pub(super) fn has(&self, side: Side, inode: Inode) -> Result<bool, MergeError> {
        Ok(self.record(side, inode)?.is_some())
    }

    /// What bears a name in one of the two.
    pub(super) fn entry(
        &self,
        side: Side,
        (directory, name): &Location,
    ) -> Result<Option<DirEntry>, MergeError> {
        self.get(side, &Key::Entry(*directory, name))?.as_ref().map(entry_of).transpose()
    }

    /// Whether one has something else under an inode that both have than the other; a directory's times and counts, and
    /// where it lies, aside.
    pub(super) fn differ(
        &self,
        inode: Inode,
        here: &Option<InodeRecord>,
        there: &Option<InodeRecord>,
    ) -> bool {
        let record_key = Key::Inode(inode).encode();
        let others = self.values(inode).any(|(key, _)| *key != record_key);
        let fixed = |record: &InodeRecord| InodeRecord {
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            nlink: 0,
            parent: Inode(0),
            ..record.clone()
        };
        match (here, there) {
            (Some(here), Some(there)) if here.is_directory() && there.is_directory() => {
                let owners = |record: &InodeRecord| InodeRecord { uid: 0, gid: 0, ..fixed(record) };
                let unclaimed = is_unborn(here) && is_unborn(there);
                let same =
                    if unclaimed { owners(here) == owners(there) } else { fixed(here) == fixed(there) };
                others || !same
            }
            _ => others || here != there,
        }
    }

    /// Whether a directory is the root of a block that was not made by anybody: two devices that write there first give
    /// it the owners that each of them has.
    pub(super) fn is_unclaimed(
        block: BlockNumber,
        inode: Inode,
        here: &InodeRecord,
        there: &InodeRecord,
    ) -> bool {
        inode == block.root_inode() && is_unborn(here) && is_unborn(there)
    }
}

fn is_unborn(record: &InodeRecord) -> bool {
    record.crtime == Timestamp::default()
}
