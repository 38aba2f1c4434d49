//! Sealing a frozen layer: chunks, then the maps' nodes, then, where much has died, what is worth moving.

use super::block::{BlockView, Opened, Shared};
use super::error::TreeError;
use super::flush::{Flushing, Frozen};
use super::key::{self, Key};
use super::layer::{Node, Pointer, Slot};
use super::ledger::Ledger;
use super::reclaim::tidy;
use super::sealer::{Bench, seal_chunk};
use super::value::chunk_value;
use super::veil::Front;
use super::veil_writer::{self, VeilWriter};
use super::view::pointer_of;
use crate::base::{BlockNumber, Inode, Place, RegionIndex};
use crate::crypt::SealKeys;
use crate::image::{Draft, Image, Stream};
use crate::map::{Edit, Emit, Entry, Map, MapError, Root};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Fewer chunks are sealed by the caller alone.
const PARALLEL_FROM_CHUNKS: usize = 8;
/// Threads that seal one flush.
const THREADS_MAX: usize = 4;

/// New roots in a draft.
pub(super) struct Committed {
    roots: Roots,
    /// How opened private blocks begin that were changed.
    fronts: BTreeMap<BlockNumber, Front>,
    /// Regions that were emptied since the last flush.
    emptied: Vec<RegionIndex>,
}

/// A draft that was brought to the disk.
pub(super) struct Written {
    pub(super) image: Image,
    pub(super) emptied: Vec<RegionIndex>,
    pub(super) roots: Roots,
    pub(super) fronts: BTreeMap<BlockNumber, Front>,
}

/// The root of each block's map.
pub(super) type Roots = BTreeMap<BlockNumber, Option<Root>>;
/// A chunk by inode and index.
type ChunkKey = (Inode, u64);
/// What chunks were sealed to; `None` for zeros.
type SealedChunks = HashMap<ChunkKey, Option<Pointer>>;

/// Seals a layer into the draft. If that fails, the draft is as before but for dead bytes.
pub(super) fn commit(
    frozen: &Frozen,
    shared: &Shared,
    flushing: &mut Flushing,
) -> Result<Committed, TreeError> {
    let mut by_block: BTreeMap<BlockNumber, Vec<(Inode, &Node)>> = BTreeMap::new();
    for (inode, node) in frozen.layer.iter() {
        by_block.entry(node.block).or_default().push((*inode, node));
    }
    let mut roots: Roots = frozen.base.outer().map(|block| (block.number, block.root)).collect();
    let mut fronts = BTreeMap::new();
    let mut ledger = Ledger::new(frozen.draft.clone(), Stream::Fresh);
    for (number, mut nodes) in by_block {
        let Some(block) = frozen.base.blocks.get(&number) else { continue };
        nodes.sort_unstable_by_key(|(inode, _)| *inode);
        let opened = frozen.base.veiled.get(&number).zip(frozen.base.insides.get(&number));
        let done = match opened {
            None => commit_block(frozen, block, &nodes, shared, &mut ledger),
            Some((outer, opened)) => {
                let done = commit_private(frozen, block, (outer, opened), &nodes, shared, &mut ledger);
                done.map(|(root, front)| {
                    fronts.insert(number, front);
                    root
                })
            }
        };
        match done {
            Ok(root) => _ = roots.insert(number, root),
            Err(error) => {
                ledger.undo();
                return Err(error);
            }
        }
    }
    flushing.freed_bytes += ledger.settle();
    Ok(Committed { roots, fronts, emptied: Vec::new() })
}

fn commit_block(
    frozen: &Frozen,
    block: &BlockView,
    nodes: &[(Inode, &Node)],
    shared: &Shared,
    ledger: &mut Ledger,
) -> Result<Option<Root>, TreeError> {
    let sealed = seal_chunks(nodes, &block.keys, &frozen.draft, ledger)?;
    let map = frozen.base.map(block, shared);
    let (edits, dead) = edits_of(map, block, nodes, &sealed)?;
    dead.into_iter().for_each(|place| ledger.dead(place));
    map.apply(block.root, &edits, ledger).map_err(|error| TreeError::in_block(block.number, error))
}

/// The same for a private block: what is inside goes into the inner space, whose changed chunks go into the draft.
fn commit_private(
    frozen: &Frozen,
    block: &BlockView,
    (outer, opened): (&BlockView, &Opened),
    nodes: &[(Inode, &Node)],
    shared: &Shared,
    ledger: &mut Ledger,
) -> Result<(Option<Root>, Front), TreeError> {
    let in_block = |error| TreeError::in_block(block.number, error);
    let mut writer = VeilWriter::new(outer, opened, &frozen.draft, ledger);
    let mut sealed = SealedChunks::new();
    for (inode, node) in nodes.iter().filter(|(_, node)| !node.removed) {
        let data_id = node.record.as_ref().map_or(0, |record| record.data_id);
        for (index, slot) in &node.chunks {
            let pointer = match slot {
                Slot::Dirty(plain) => writer.seal(&block.keys, data_id, *index, plain)?,
                Slot::Sealed(pointer) => Some(writer.take_in(*pointer)?),
                Slot::Hole | Slot::Kept(..) => continue,
            };
            sealed.insert((*inode, *index), pointer);
        }
    }
    let map = frozen.base.map(block, shared);
    let (edits, dead) = edits_of(map, block, nodes, &sealed)?;
    dead.into_iter().for_each(|place| writer.free(place));
    let root = map.apply(block.root, &edits, &mut writer).map_err(in_block)?;
    writer.finish(&block.keys, root, shared).map_err(in_block)
}

/// What changes in a block's map, in the order of keys, and which chunks die by it.
fn edits_of(
    map: Map<'_>,
    block: &BlockView,
    nodes: &[(Inode, &Node)],
    sealed: &SealedChunks,
) -> Result<(Vec<Edit>, Vec<Place>), TreeError> {
    let (mut edits, mut dead) = (Vec::new(), Vec::new());
    for (inode, node) in nodes {
        let (edits, dead) = (&mut edits, &mut dead);
        let mut maker = EditMaker { inode: *inode, node, map, root: block.root, dead, edits };
        let done = if node.removed { maker.remove_all() } else { maker.change(sealed) };
        done.map_err(|error| TreeError::in_block(block.number, error))?;
    }
    Ok((edits, dead))
}

/// Seals all dirty chunks of these nodes, on several threads if there are many.
fn seal_chunks(
    nodes: &[(Inode, &Node)],
    keys: &SealKeys,
    draft: &Draft,
    ledger: &mut Ledger,
) -> Result<SealedChunks, TreeError> {
    let mut jobs: Vec<(ChunkKey, u64, &Arc<Vec<u8>>)> = Vec::new();
    for (inode, node) in nodes.iter().filter(|(_, node)| !node.removed) {
        let data_id = node.record.as_ref().map_or(0, |record| record.data_id);
        for (index, slot) in &node.chunks {
            if let Slot::Dirty(plain) = slot {
                jobs.push(((*inode, *index), data_id, plain));
            }
        }
    }
    let seal =
        |jobs: &[(ChunkKey, u64, &Arc<Vec<u8>>)]| -> Vec<(ChunkKey, Result<Option<Pointer>, TreeError>)> {
            let seal = |(key, data_id, plain): &(ChunkKey, u64, &Arc<Vec<u8>>)| {
                (*key, seal_chunk(keys, *data_id, key.1, plain, draft))
            };
            jobs.iter().map(seal).collect()
        };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    let results = if jobs.len() < PARALLEL_FROM_CHUNKS || threads < 2 {
        seal(&jobs)
    } else {
        std::thread::scope(|scope| {
            let shares = jobs.chunks(jobs.len().div_ceil(threads));
            let running: Vec<_> = shares.map(|share| scope.spawn(|| seal(share))).collect();
            let joined = running.into_iter().map(|thread| thread.join().expect("sealing does not panic"));
            joined.flatten().collect()
        })
    };
    let mut sealed = SealedChunks::with_capacity(results.len());
    let mut failure = None;
    for (key, result) in results {
        match result {
            Ok(pointer) => {
                pointer.iter().for_each(|pointer| ledger.appended(pointer.place));
                sealed.insert(key, pointer);
            }
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(sealed), Err)
}

/// Turns the changes of one inode into edits of the map, in the order of keys.
struct EditMaker<'a> {
    inode: Inode,
    node: &'a Node,
    map: Map<'a>,
    root: Option<Root>,
    dead: &'a mut Vec<Place>,
    edits: &'a mut Vec<Edit>,
}

impl EditMaker<'_> {
    fn put(&mut self, key: Key<'_>, change: Option<(Box<[u8]>, Option<Place>)>) {
        self.edits.push(Edit { key: key.encode(), change });
    }

    /// Visits the inode's entries in the map from `from` on.
    fn each_below(&self, from: &[u8], mut visit: impl FnMut(Entry) -> bool) -> Result<(), MapError> {
        if self.node.fresh {
            return Ok(());
        }
        let mut cursor = self.map.range(self.root.as_ref(), from);
        let own = key::start_of(self.inode);
        while let Some(entry) = cursor.next()? {
            if !entry.key.starts_with(&own) || !visit(entry) {
                break;
            }
        }
        Ok(())
    }

    fn remove_all(&mut self) -> Result<(), MapError> {
        let mut gone = Vec::new();
        self.each_below(&key::start_of(self.inode), |entry| {
            gone.push(entry);
            true
        })?;
        for entry in gone {
            self.dead.extend(entry.place);
            self.edits.push(Edit { key: entry.key, change: None });
        }
        Ok(())
    }

    fn change(&mut self, sealed: &SealedChunks) -> Result<(), MapError> {
        let node = self.node;
        if let Some(record) = &node.record {
            self.put(Key::Inode(self.inode), Some((record.encode(), None)));
        }
        for (name, entry) in &node.names {
            let change = entry.map(|entry| (entry.encode(), None));
            self.put(Key::Entry(self.inode, name), change);
        }
        self.change_chunks(sealed)?;
        for (name, value) in &node.xattrs {
            let change = value.clone().map(|value| (value, None));
            self.put(Key::Xattr(self.inode, name), change);
        }
        if let Some(target) = &node.link {
            self.put(Key::Link(self.inode), Some((target.clone(), None)));
        }
        Ok(())
    }

    fn change_chunks(&mut self, sealed: &SealedChunks) -> Result<(), MapError> {
        let node = self.node;
        let mut changes: BTreeMap<u64, Option<Pointer>> = BTreeMap::new();
        if let Some(cut) = node.cut {
            let mut gone = Vec::new();
            self.each_below(&Key::Chunk(self.inode, cut).encode(), |entry| match Key::decode(&entry.key) {
                Ok(Key::Chunk(_, index)) => {
                    gone.push((index, entry.place));
                    true
                }
                _ => false,
            })?;
            for (index, place) in gone {
                self.dead.extend(place);
                changes.insert(index, None);
            }
        }
        for (index, slot) in &node.chunks {
            let pointer = match slot {
                Slot::Hole | Slot::Kept(..) => None,
                // In a private block it has another place by now.
                Slot::Sealed(pointer) => {
                    sealed.get(&(self.inode, *index)).copied().flatten().or(Some(*pointer))
                }
                Slot::Dirty(_) => sealed.get(&(self.inode, *index)).copied().flatten(),
            };
            if !node.fresh && node.cut.is_none_or(|cut| *index < cut) {
                let key = Key::Chunk(self.inode, *index).encode();
                let old = self.map.get(self.root.as_ref(), &key)?;
                let old = old.as_ref().and_then(pointer_of);
                self.dead.extend(old.map(|old| old.place));
                if old.is_none() && pointer.is_none() {
                    continue;
                }
            } else if pointer.is_none() && !changes.contains_key(index) {
                continue;
            }
            changes.insert(*index, pointer);
        }
        for (index, pointer) in changes {
            let change = pointer.map(|pointer| (chunk_value(&pointer.id), Some(pointer.place)));
            self.put(Key::Chunk(self.inode, index), change);
        }
        Ok(())
    }
}

impl Committed {
    /// Brings the draft to the disk, and cleans it if that is due. On an error it may be repeated.
    #[allow(clippy::result_large_err)]
    pub(super) fn write(
        mut self,
        frozen: &Frozen,
        bench: &Bench,
        flushing: &mut Flushing,
    ) -> Result<Written, (Committed, TreeError)> {
        veil_writer::tidy(&mut self.roots, &mut self.fronts, frozen, &bench.shared);
        let emptied = tidy(&mut self.roots, frozen, &bench.shared, flushing);
        self.emptied.extend(emptied);
        self.emptied.extend(frozen.draft.truncate_empty());
        match bench.snapshot(&frozen.draft) {
            Ok(image) => {
                let Committed { roots, fronts, emptied } = self;
                Ok(Written { image, emptied, roots, fronts })
            }
            Err(error) => Err((self, error)),
        }
    }
}
