//! Making a sound filesystem of what is left of a damaged block.
//!
//! Nothing is shown as it never was: a file that has lost data leaves its name and goes, with holes where the data
//! was, to `lost+found` under a name that says so. It gets a number of its own there, so that the whole file comes back
//! beside it when a device is met that still has it. What has lost its name goes there as it is.

mod planner;
mod remnants;
#[cfg(test)]
mod tests;

use super::inode::{InodeRecord, Timestamp};
use super::key::Key;
use super::value::DirEntry;
use super::version::Version;
use crate::base::{BlockNumber, Inode, Place};
use crate::map::{Edit, Emit, Entry, MapError, Remains, Root};
use remnants::{Location, Remnants};
use std::collections::{BTreeMap, BTreeSet};

/// The directory in a block's root for what has no other place.
pub const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A value with its place, or none; as in [`Edit`].
type Change = Option<(Box<[u8]>, Option<Place>)>;

/// One thing that a repair does, or would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measure {
    /// To what: a path from the block's root.
    pub path: Vec<u8>,
    /// What becomes of it.
    pub what: String,
}

/// What a repair makes of a block.
pub struct Repair {
    /// What it does, to whom.
    pub measures: Vec<Measure>,
    /// The filesystem as it is to be.
    records: BTreeMap<Inode, InodeRecord>,
    names: BTreeMap<Location, DirEntry>,
    /// Files that go on under another number.
    moved: BTreeMap<Inode, Inode>,
    /// Inodes of which nothing stays.
    dropped: BTreeSet<Inode>,
    remnants: Remnants,
    root: Inode,
}

impl Repair {
    /// Says what is to be done. `now` is the time of what has lost its own.
    pub fn plan(block: BlockNumber, version: &Version<'_>, now: Timestamp) -> Repair {
        planner::plan(block, version, now)
    }

    /// The path of something in the damaged block, as far as it can still be told.
    pub fn path_of(&self, inode: Inode) -> Option<Vec<u8>> {
        planner::path_in(&self.remnants.names, self.root, inode)
    }

    /// Writes the repaired map into `sink`. Chunks stay where they are.
    pub fn apply(&self, version: &Version<'_>, sink: &mut dyn Emit) -> Result<Option<Root>, MapError> {
        let anew = self.remnants.broken;
        let mut edits: BTreeMap<Box<[u8]>, Change> = BTreeMap::new();
        version.map.remains(version.root.as_ref(), &mut |remains| {
            let Remains::Entry(entry) = remains else { return };
            let kept = self.rewritten(entry);
            let same = kept.as_ref() == Some(entry);
            if !anew && !same {
                edits.entry(entry.key.clone()).or_insert(None);
            }
            if let Some(kept) = kept
                && (anew || !same)
            {
                edits.insert(kept.key, Some((kept.value, kept.place)));
            }
        });
        for (inode, record) in &self.records {
            if self.remnants.rescued.contains(inode) || self.remnants.records.get(inode) != Some(record) {
                edits.insert(Key::Inode(*inode).encode(), Some((record.encode(), None)));
            }
        }
        for ((directory, name), entry) in &self.names {
            if !self.remnants.names.contains_key(&(*directory, name.clone())) {
                let key = Key::Entry(*directory, name).encode();
                edits.insert(key, Some((entry.encode(), None)));
            }
        }
        let edits: Vec<Edit> = edits.into_iter().map(|(key, change)| Edit { key, change }).collect();
        version.map.apply(if anew { None } else { version.root }, &edits, sink)
    }

    /// What an entry becomes.
    fn rewritten(&self, entry: &Entry) -> Option<Entry> {
        let key = Key::decode(&entry.key).ok()?;
        let inode = key.inode();
        if self.dropped.contains(&inode) {
            return None;
        }
        let to = self.moved.get(&inode).copied().unwrap_or(inode);
        let with = |key: Key<'_>, value| Some(Entry { key: key.encode(), value, place: entry.place });
        match key {
            Key::Inode(_) => with(Key::Inode(to), self.records.get(&to)?.encode()),
            Key::Entry(_, name) => with(key, self.names.get(&(inode, name.into()))?.encode()),
            Key::Chunk(_, index) => {
                let bad = self.remnants.bad.get(&inode).is_some_and(|bad| bad.contains(&index));
                if bad { None } else { with(Key::Chunk(to, index), entry.value.clone()) }
            }
            Key::Xattr(_, name) => with(Key::Xattr(to, name), entry.value.clone()),
            Key::Link(_) => with(Key::Link(to), entry.value.clone()),
        }
    }
}
