//! The memtable: what was changed since the last flush, typed and by inode.

use super::inode::InodeRecord;
use super::value::DirEntry;
use crate::base::{BlockNumber, Id, Inode, Place};
use crate::image::Image;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A sealed chunk: what it must open to, and where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pointer {
    pub(super) id: Id,
    pub(super) place: Place,
}

/// A chunk as a layer has it.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Zeros.
    Hole,
    /// Plaintext that is to be sealed; bytes behind its end are zero. Shared with whoever reads or seals it.
    Dirty(Arc<Vec<u8>>),
    /// Sealed into the draft, not in the map yet; alive in the draft's counts.
    Sealed(Pointer),
    /// In an older image, for files that are unlinked and open only.
    Kept(Pointer, Image),
}

/// Bytes that a slot holds in memory.
pub(super) fn dirty_bytes(slot: &Slot) -> u64 {
    match slot {
        Slot::Dirty(bytes) => bytes.len() as u64,
        Slot::Hole | Slot::Sealed(_) | Slot::Kept(..) => 0,
    }
}

/// What a layer changes of one inode. `None` in a map of changes removes the key.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The block in which the inode lies.
    pub(super) block: BlockNumber,
    /// Nothing below this layer belongs to the inode.
    pub(super) fresh: bool,
    /// The inode is gone, and so is all that lies below; nothing else in the node counts.
    pub(super) removed: bool,
    /// The record, if it was changed.
    pub(super) record: Option<InodeRecord>,
    /// Changed directory entries.
    pub(super) names: BTreeMap<Box<[u8]>, Option<DirEntry>>,
    /// Changed chunks, by index in the record's size; in units of the largest while that is undecided.
    pub(super) chunks: BTreeMap<u64, Slot>,
    /// Chunks of lower layers are gone from this index on.
    pub(super) cut: Option<u64>,
    /// Where the last write ended: the next one goes on there if the file is written from front to back.
    pub(super) written_to: u64,
    /// Changed extended attributes.
    pub(super) xattrs: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    /// The target of a new symbolic link.
    pub(super) link: Option<Box<[u8]>>,
}

impl Node {
    /// No change of an inode in `block`.
    pub(super) fn unchanged(block: BlockNumber) -> Node {
        Node {
            block,
            fresh: false,
            removed: false,
            record: None,
            names: BTreeMap::new(),
            chunks: BTreeMap::new(),
            cut: None,
            written_to: 0,
            xattrs: BTreeMap::new(),
            link: None,
        }
    }

    /// A new inode.
    pub(super) fn fresh(block: BlockNumber, record: InodeRecord) -> Node {
        Node { fresh: true, record: Some(record), ..Node::unchanged(block) }
    }

    /// An inode that is gone.
    pub(super) fn removed(block: BlockNumber) -> Node {
        Node { removed: true, ..Node::unchanged(block) }
    }

    /// A chunk, if this layer decides what it is.
    pub(super) fn slot(&self, index: u64) -> Option<Slot> {
        match self.chunks.get(&index) {
            Some(slot) => Some(slot.clone()),
            None if self.cut.is_some_and(|cut| index >= cut) => Some(Slot::Hole),
            None => None,
        }
    }

    /// This layer's changes on top of an older one's.
    pub(super) fn over(self, older: &Node) -> Node {
        if self.fresh || self.removed || older.removed {
            return self;
        }
        let mut merged = older.clone();
        if let Some(cut) = self.cut {
            merged.chunks.retain(|index, _| *index < cut);
            merged.cut = Some(merged.cut.map_or(cut, |older| older.min(cut)));
        }
        merged.record = self.record.or(merged.record);
        merged.link = self.link.or(merged.link);
        merged.names.extend(self.names);
        merged.chunks.extend(self.chunks);
        merged.xattrs.extend(self.xattrs);
        merged
    }

    /// Bytes of plaintext that wait here.
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.chunks.values().map(dirty_bytes).sum()
    }
}

/// All changed inodes.
pub(super) type Layer = HashMap<Inode, Node>;
