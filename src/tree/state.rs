//! What a tree changes: the layers above the last flushed state, orphans, open files.

use super::attr::{Owner, SET_GID, stripped};
use super::block::{Base, Shared};
use super::error::TreeError;
use super::flush::Head;
use super::growing::Growing;
use super::inode::{FileType, InodeRecord, Timestamp};
use super::journal::{Journal, Mark};
use super::layer::{Layer, Node, Slot, dirty_bytes};
use super::meter::Meters;
use super::value::DirEntry;
use super::view::{Orphan, View};
use crate::base::{BlockNumber, Inode, RegionIndex};
use crate::image::Draft;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Everything below one lock. All its methods are quick unless a map's node must be read.
pub(super) struct State {
    pub(super) base: Arc<Base>,
    /// What a flush is sealing; readable until it is installed.
    pub(super) frozen: Option<Arc<Layer>>,
    /// What changed since.
    pub(super) active: Layer,
    /// Unlinked but open.
    pub(super) orphans: HashMap<Inode, Orphan>,
    /// How often each inode is open.
    pub(super) open: HashMap<Inode, u32>,
    /// Raised by every change of content.
    pub(super) generation: u64,
    /// The generation that the frozen layer has.
    pub(super) frozen_generation: u64,
    /// The last change in the frozen layer.
    pub(super) frozen_mark: Mark,
    /// Plaintext that waits in the active layer and in orphans, in bytes.
    pub(super) dirty_bytes: u64,
    /// The same in the frozen layer.
    pub(super) frozen_bytes: u64,
    /// Bytes that were sealed early and died before a flush, since the last one.
    pub(super) freed_bytes: u64,
    /// Chunks written to their end: first to be sealed.
    pub(super) full: VecDeque<(Inode, u64)>,
    /// Other chunks in the order in which they became dirty: sealed when memory runs short.
    pub(super) partial: VecDeque<(Inode, u64)>,
    /// Where new objects go.
    pub(super) draft: Arc<Draft>,
    /// The last flushed state.
    pub(super) head: Head,
    /// What was changed since the last commit of the store.
    pub(super) journal: Journal,
    /// What is being done again was allowed when it was done first.
    pub(super) replaying: bool,
    /// Inode numbers given out so far in this session.
    pub(super) drawn: u32,
    /// What blocks with a quota hold.
    pub(super) meters: Meters,
    /// What is not whole yet in append blocks.
    pub(super) growing: Growing,
    /// Change times that no record carries: of inodes to which somebody gave what they had already. SQLite, run by root,
    /// gives a journal that it only looks at the owner that it has; were that a change, who reads here would publish
    /// against who writes elsewhere.
    pub(super) restamped: HashMap<Inode, Timestamp>,
}

/// So many change times are kept that no record carries.
const RESTAMPED_MAX: usize = 1 << 16;

impl State {
    /// The state to read from.
    pub(super) fn view<'a>(&'a self, shared: &'a Shared) -> View<'a> {
        View {
            layers: [Some(&self.active), self.frozen.as_deref()],
            orphans: Some(&self.orphans),
            base: &self.base,
            draft: Some(&self.draft),
            restamped: Some(&self.restamped),
            shared,
        }
    }

    /// Shows a change time that no record carries, for as long as this process lives.
    pub(super) fn restamp(&mut self, inode: Inode, now: Timestamp) {
        if self.restamped.len() >= RESTAMPED_MAX {
            self.restamped.clear();
        }
        self.restamped.insert(inode, now);
    }

    /// Refuses where this device may not write.
    pub(super) fn check_writable(&self, block: BlockNumber) -> Result<(), TreeError> {
        if self.replaying { self.base.block(block).map(drop) } else { self.base.writable(block).map(drop) }
    }

    /// What this layer changes of an inode.
    pub(super) fn node_mut(&mut self, inode: Inode, block: BlockNumber) -> &mut Node {
        match self.orphans.get_mut(&inode) {
            Some(orphan) => &mut orphan.node,
            None => self.active.entry(inode).or_insert_with(|| Node::unchanged(block)),
        }
    }

    /// Replaces a record.
    pub(super) fn put_record(&mut self, inode: Inode, block: BlockNumber, record: InodeRecord) {
        self.growing.touch(inode, Instant::now());
        self.node_mut(inode, block).record = Some(record);
        if !self.orphans.contains_key(&inode) {
            self.generation += 1;
        }
    }

    /// Sets or removes a directory's entry.
    pub(super) fn put_entry(
        &mut self,
        directory: Inode,
        block: BlockNumber,
        name: &[u8],
        entry: Option<DirEntry>,
    ) {
        self.growing.named(directory, name, entry.map(|entry| entry.inode));
        let node = self.node_mut(directory, block);
        if node.fresh && entry.is_none() {
            node.names.remove(name);
        } else {
            node.names.insert(name.into(), entry);
        }
    }

    /// Changes a directory's times and, by so many subdirectories, its link count.
    pub(super) fn touch_directory(
        &mut self,
        inode: Inode,
        block: BlockNumber,
        mut record: InodeRecord,
        subdirectories: i32,
        now: Timestamp,
    ) {
        record.nlink = record.nlink.saturating_add_signed(subdirectories).max(2);
        let appends = self.base.block(block).is_ok_and(|block| block.append);
        // Clocks differ, and of the times that an append block's directory had the latest stays.
        let at = |known| if appends { now.max(known) } else { now };
        (record.mtime, record.ctime) = (at(record.mtime), at(record.ctime));
        self.put_record(inode, block, record);
    }

    /// Replaces a chunk; `None` forgets the change. What was sealed and is replaced dies in the draft.
    pub(super) fn put_slot(&mut self, inode: Inode, block: BlockNumber, index: u64, slot: Option<Slot>) {
        let added = slot.as_ref().map_or(0, dirty_bytes);
        let chunks = &mut self.node_mut(inode, block).chunks;
        let old = match slot {
            Some(slot) => chunks.insert(index, slot),
            None => chunks.remove(&index),
        };
        self.dirty_bytes += added;
        self.forget_slots(old);
    }

    /// Drops every chunk from `index` on, in this layer and below.
    pub(super) fn cut_chunks(&mut self, inode: Inode, block: BlockNumber, index: u64) {
        let node = self.node_mut(inode, block);
        let gone = node.chunks.split_off(&index);
        if !node.fresh {
            node.cut = Some(node.cut.map_or(index, |cut| cut.min(index)));
        }
        self.forget_slots(gone.into_values());
    }

    /// Takes slots that are no longer part of any node out of the counts.
    pub(super) fn forget_slots(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            match slot {
                Slot::Dirty(bytes) => self.dirty_bytes -= bytes.len() as u64,
                Slot::Sealed(pointer) => {
                    self.freed_bytes += u64::from(pointer.place.length);
                    self.draft.free(pointer.place);
                }
                Slot::Hole | Slot::Kept(..) => {}
            }
        }
    }

    /// A number for a new inode.
    pub(super) fn draw_inode(&mut self, prefix: u32) -> Result<Inode, TreeError> {
        self.drawn = self.drawn.checked_add(1).ok_or(TreeError::NoSpace)?;
        Ok(Inode(u64::from(prefix) << 32 | u64::from(self.drawn)))
    }

    /// Takes one name from an inode whose record is `record`; with the last one it is gone, or an orphan.
    pub(super) fn drop_name(
        &mut self,
        inode: Inode,
        block: BlockNumber,
        mut record: InodeRecord,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        record.ctime = now;
        let last = record.is_directory() || record.nlink <= 1;
        record.nlink = if last { 0 } else { record.nlink - 1 };
        if last {
            self.growing.end(inode);
            self.counted(inode, block, &record, false);
        }
        if !last {
            self.put_record(inode, block, record);
        } else if self.open.contains_key(&inode) {
            self.make_orphan(inode, block, record)?;
        } else {
            self.remove_inode(inode, block);
        }
        self.generation += 1;
        Ok(())
    }

    /// Removes an inode with all that belongs to it.
    fn remove_inode(&mut self, inode: Inode, block: BlockNumber) {
        let below = self.frozen.as_ref().is_some_and(|frozen| frozen.contains_key(&inode));
        let node = self.active.remove(&inode);
        if below || node.as_ref().is_none_or(|node| !node.fresh) {
            self.active.insert(inode, Node::removed(block));
        }
        self.forget_slots(node.into_iter().flat_map(|node| node.chunks.into_values()));
    }

    /// Keeps what an open inode holds when its last name goes. What is sealed stays readable in an image of now.
    fn make_orphan(
        &mut self,
        inode: Inode,
        block: BlockNumber,
        record: InodeRecord,
    ) -> Result<(), TreeError> {
        let keys = self.base.block(block)?.keys.clone();
        let mut node = self.active.get(&inode).cloned().unwrap_or_else(|| Node::unchanged(block));
        if let Some(older) = self.frozen.as_ref().and_then(|frozen| frozen.get(&inode)) {
            node = node.over(older);
        }
        if node.chunks.values().any(|slot| matches!(slot, Slot::Sealed(_))) {
            let image = self.draft.snapshot()?;
            keep_in(&mut node, &image);
        }
        let below = match self.base.block(block)?.root {
            Some(root) if !node.fresh => Some((root, self.base.source_of(block).clone())),
            _ => None,
        };
        node.record = Some(record);
        self.remove_inode(inode, block);
        self.dirty_bytes += node.dirty_bytes();
        let dirty = node.chunks.iter().filter(|(_, slot)| matches!(slot, Slot::Dirty(_)));
        self.partial.extend(dirty.map(|(index, _)| (inode, *index)));
        self.orphans.insert(inode, Orphan { node, keys, below });
        Ok(())
    }

    /// The last handle of an orphan was closed.
    pub(super) fn drop_orphan(&mut self, inode: Inode) {
        if let Some(orphan) = self.orphans.remove(&inode) {
            self.forget_slots(orphan.node.chunks.into_values());
        }
    }

    /// Bytes by region that were sealed since the frozen layer: alive in the draft, in no map.
    pub(super) fn sealed_bytes(&self) -> BTreeMap<RegionIndex, u32> {
        let mut counts = BTreeMap::new();
        let orphans = self.orphans.values().map(|orphan| &orphan.node);
        for slot in self.active.values().chain(orphans).flat_map(|node| node.chunks.values()) {
            if let Slot::Sealed(pointer) = slot {
                *counts.entry(RegionIndex::of(pointer.place.offset)).or_default() += pointer.place.length;
            }
        }
        counts
    }

    /// The draft is given up for another one: orphans keep what they have in it.
    pub(super) fn keep_orphans(&mut self) -> Result<(), TreeError> {
        let sealed =
            |orphan: &Orphan| orphan.node.chunks.values().any(|slot| matches!(slot, Slot::Sealed(_)));
        if self.orphans.values().any(sealed) {
            let image = self.draft.snapshot()?;
            for orphan in self.orphans.values_mut() {
                keep_in(&mut orphan.node, &image);
            }
        }
        Ok(())
    }

    /// An inode that is open and has no place in the state that comes: it stays as it is for who has it open.
    pub(super) fn orphan_from(&self, inode: Inode, shared: &Shared) -> Result<Orphan, TreeError> {
        let view = self.view(shared);
        let stack = view.stack(inode)?;
        let (block, keys) = (stack.block, stack.keys.clone());
        let record = InodeRecord { nlink: 0, ..stack.record()? };
        let source = self.base.source_of(block);
        let below = self.base.block(block)?.root.map(|root| (root, source.clone()));
        let node = Node { record: Some(record), ..Node::unchanged(block) };
        Ok(Orphan { node, keys, below })
    }
}

fn keep_in(node: &mut Node, image: &crate::image::Image) {
    for slot in node.chunks.values_mut() {
        if let Slot::Sealed(pointer) = slot {
            *slot = Slot::Kept(*pointer, image.clone());
        }
    }
}

/// The record of something new in a directory: a set-group-id directory hands its group down.
pub(super) fn born_in(
    directory: Inode,
    above: &InodeRecord,
    file_type: FileType,
    (mode, owner): (u16, Owner),
    now: Timestamp,
) -> InodeRecord {
    let inherits = above.mode & SET_GID != 0;
    let mode = if inherits && file_type == FileType::Directory { mode | SET_GID } else { mode };
    let gid = if inherits { above.gid } else { owner.gid };
    InodeRecord { uid: owner.uid, gid, ..InodeRecord::new(file_type, mode, directory, now) }
}

/// Takes set-user-id and set-group-id from a record that somebody writes to; says whether there was something.
pub(super) fn strip(record: &mut InodeRecord) -> bool {
    let mode = stripped(record.mode);
    let changed = mode != record.mode && !record.is_directory();
    if changed {
        record.mode = mode;
    }
    changed
}
