//! Flushing: everything that was changed is sealed, appended to the draft and put into the maps, while writers go on.
//!
//! 1. Under the lock, the active layer becomes the frozen one, and a new one takes its place.
//! 2. Without the lock, the frozen layer is sealed and applied to the maps ([`super::commit`]).
//! 3. Under the lock, the new roots take the place of the old ones and of the frozen layer.
//!
//! What fails stays frozen, readable, and is tried again at the next flush.

use super::block::{Base, BlockView};
use super::commit::{Committed, Written, commit};
use super::error::TreeError;
use super::growing::Unfinished;
use super::inode::{INLINE_BYTES_MAX, InodeRecord, RecordSize};
use super::journal::Mark;
use super::layer::{Layer, Node, Slot};
use super::live::Tree;
use super::read::STAGING;
use super::source::{Heads, ImageSource};
use super::state::State;
use super::write::resplit;
use crate::base::{BlockNumber, Inode, RegionIndex};
use crate::image::{Draft, Image};
use crate::map::Root;
use parking_lot::MutexGuard;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// A flushed state.
#[derive(Clone, Debug)]
pub struct Head {
    /// The bytes in which the roots lie.
    pub image: Image,
    /// The root of each block's map; `None` while it was never written to.
    pub roots: BTreeMap<BlockNumber, Option<Root>>,
    /// All changes up to this generation are in it.
    pub generation: u64,
    /// Blocks whose root the flush that made it changed.
    pub changed: BTreeSet<BlockNumber>,
    /// The last change that is in it.
    pub mark: Mark,
}

/// What a flush leaves to the next one.
#[derive(Default)]
pub(super) struct Flushing {
    /// Committed to the draft, whose bytes could not be written yet.
    committed: Option<Committed>,
    /// Bytes that died since the image was last looked at for cleaning.
    pub(super) freed_bytes: u64,
    /// The last step of cleaning left something to do: the next flush is worth it even if nothing was changed.
    pub(super) behind: bool,
    /// Regions that cleaning could not empty, with what lived in them then.
    pub(super) stubborn: BTreeMap<RegionIndex, u32>,
    /// What is whole by then is fixed when the next state is taken.
    pub(super) settle: Option<Instant>,
    /// What was not whole when that was done.
    pub(super) unfinished: Unfinished,
}

/// A layer that is being flushed, and what it is applied to.
pub(super) struct Frozen {
    pub(super) layer: Arc<Layer>,
    pub(super) base: Arc<Base>,
    pub(super) draft: Arc<Draft>,
}

/// What there is to flush.
enum Freeze {
    /// This, and whether it is what an earlier flush could not finish.
    Taken(Frozen, bool),
    Nothing,
    /// The state must not be taken as it is now.
    NotNow,
}

/// While it lives, nobody else flushes or adopts: what a head shows stays in the draft, so that a version can be made
/// of both.
pub struct Held<'a> {
    pub(super) tree: &'a Tree,
    pub(super) flushing: MutexGuard<'a, Flushing>,
}

impl Held<'_> {
    /// [`Tree::flush`].
    pub fn flush(&mut self) -> Result<Head, TreeError> {
        self.tree.flush_all(&mut self.flushing)
    }

    /// The same, unless a file is empty at `now` because it is about to be written: then none.
    pub fn flush_written(&mut self, now: Instant) -> Result<Option<Head>, TreeError> {
        let tree = self.tree;
        tree.flush_if(&mut self.flushing, &|| !tree.unwritten().awaits(now))
    }

    /// The draft that the head lies in, to append to.
    pub fn draft(&self) -> Arc<Draft> {
        self.tree.draft()
    }

    /// The draft as it stands. What was sealed early for the next flush does not count as alive.
    pub fn snapshot(&self) -> Result<Image, TreeError> {
        self.tree.bench.snapshot(&self.tree.draft())
    }
}

impl Tree {
    /// Keeps others from flushing and adopting. Readers and writers go on, up to the limit of what may wait.
    pub fn hold(&self) -> Held<'_> {
        Held { tree: self, flushing: self.flushing.lock() }
    }

    /// Seals and appends everything that was changed before the call. Cheap when nothing was.
    pub fn flush(&self) -> Result<Head, TreeError> {
        let mut flushing = self.flushing.lock();
        self.flush_all(&mut flushing)
    }

    /// Seals some of what was written; false if there was nothing to seal. The tree's own threads do this already.
    pub fn seal_some(&self) -> bool {
        self.bench.seal_some()
    }

    pub(super) fn flush_all(&self, flushing: &mut Flushing) -> Result<Head, TreeError> {
        let head = self.flush_if(flushing, &|| true)?;
        Ok(head.expect("nothing is against it"))
    }

    /// None if `may` is not so in the moment in which the state to be flushed is taken.
    fn flush_if(&self, flushing: &mut Flushing, may: &dyn Fn() -> bool) -> Result<Option<Head>, TreeError> {
        loop {
            let (frozen, again) = match self.freeze(flushing, may)? {
                Freeze::Taken(frozen, again) => (frozen, again),
                Freeze::Nothing => return Ok(Some(self.bench.state.read().head.clone())),
                Freeze::NotNow => return Ok(None),
            };
            let committed = match flushing.committed.take() {
                Some(committed) => committed,
                None => commit(&frozen, &self.bench.shared, flushing)?,
            };
            match committed.write(&frozen, &self.bench, flushing) {
                Ok(written) => self.install(&frozen, written),
                Err((committed, error)) => {
                    flushing.committed = Some(committed);
                    return Err(error);
                }
            }
            self.bench.announce_install();
            if !again {
                return Ok(Some(self.bench.state.read().head.clone()));
            }
        }
    }

    /// Takes what is to be flushed.
    fn freeze(&self, flushing: &mut Flushing, may: &dyn Fn() -> bool) -> Result<Freeze, TreeError> {
        // What is being sealed early is waited for: sealed a second time here, it would be fetched twice by everybody.
        let _nothing_under_way = self.bench.sealing.write();
        let mut state = self.bench.state.write();
        flushing.freed_bytes += std::mem::take(&mut state.freed_bytes);
        let again = state.frozen.is_some();
        if !again {
            if !may() {
                return Ok(Freeze::NotNow);
            }
            if let Some(now) = flushing.settle {
                let base = state.base.clone();
                flushing.unfinished = state.growing.settle(now, &base);
            }
            if state.active.is_empty() && !flushing.behind {
                state.head.generation = state.generation;
                state.head.mark = state.journal.mark();
                return Ok(Freeze::Nothing);
            }
            self.complete_records(&mut state)?;
            let mut layer = std::mem::take(&mut state.active);
            layer.values_mut().for_each(settle_node);
            state.frozen_bytes = layer.values().map(Node::dirty_bytes).sum();
            state.dirty_bytes = state.orphans.values().map(|orphan| orphan.node.dirty_bytes()).sum();
            (state.frozen_generation, state.frozen_mark) = (state.generation, state.journal.mark());
            state.journal.divide();
            state.frozen = Some(Arc::new(layer));
            let State { full, partial, orphans, .. } = &mut *state;
            full.retain(|(inode, _)| orphans.contains_key(inode));
            partial.retain(|(inode, _)| orphans.contains_key(inode));
        }
        let layer = state.frozen.clone().unwrap_or_default();
        Ok(Freeze::Taken(Frozen { layer, base: state.base.clone(), draft: state.draft.clone() }, again))
    }

    /// A node whose chunks were opened for a write that then failed has no record of its own yet.
    fn complete_records(&self, state: &mut State) -> Result<(), TreeError> {
        let bare = |node: &Node| node.record.is_none() && !node.chunks.is_empty();
        let inodes: Vec<Inode> =
            state.active.iter().filter(|(_, node)| bare(node)).map(|(inode, _)| *inode).collect();
        for inode in inodes {
            let record = state.view(&self.bench.shared).record(inode)?;
            if let Some(node) = state.active.get_mut(&inode) {
                node.record = Some(record);
            }
        }
        Ok(())
    }

    fn install(&self, frozen: &Frozen, written: Written) {
        let Written { image, emptied, roots, fronts } = written;
        let old = &frozen.base;
        let heads: Arc<Heads> = match old.source.heads() {
            Some(heads) if emptied.is_empty() => heads.clone(),
            Some(heads) => Arc::new(heads.without(&emptied)),
            None => Arc::default(),
        };
        let source = ImageSource::remembering(&self.bench.shared.store, &image, heads);
        let mut state = self.bench.state.write();
        // The policy may have changed meanwhile; roots come from here, everything else from there.
        let renewed = |block: &BlockView| {
            let root = roots.get(&block.number).copied().unwrap_or(block.root);
            (block.number, BlockView { root, ..block.clone() })
        };
        let changed =
            old.outer().filter(|block| roots.get(&block.number).is_some_and(|root| *root != block.root));
        let changed = changed.map(|block| block.number).collect();
        let now = &state.base;
        let mut base = Base {
            source,
            blocks: now.blocks.values().map(renewed).collect(),
            veiled: now.veiled.values().map(renewed).collect(),
            insides: BTreeMap::new(),
            pins: now.pins.clone(),
        };
        for (number, opened) in &now.insides {
            base.renew(*number, opened, fronts.get(number).copied(), &self.bench.shared);
        }
        state.head =
            Head { image, roots, generation: state.frozen_generation, changed, mark: state.frozen_mark };
        state.base = Arc::new(base);
        state.frozen = None;
        state.frozen_bytes = 0;
    }
}

/// Brings a file into the form that its record promises: small ones inline, others cut into chunks.
fn settle_node(node: &mut Node) {
    let Some(record) = node.record.as_mut().filter(|record| record.is_file()) else { return };
    if record.size <= INLINE_BYTES_MAX as u64 {
        if record.inline.is_none() && record.size > 0 {
            record.inline = Some(staged(record, node.chunks.get(&0)));
        }
        record.record_size = RecordSize::UNDECIDED;
        node.chunks.clear();
        if !node.fresh {
            node.cut = Some(0);
        }
    } else if !record.record_size.is_decided() && !node.chunks.is_empty() {
        record.record_size = RecordSize::for_file(record.size);
        if record.record_size != STAGING {
            resplit(&mut node.chunks, record.record_size);
        }
    }
}

fn staged(record: &InodeRecord, first: Option<&Slot>) -> Box<[u8]> {
    let mut bytes = match first {
        Some(Slot::Dirty(bytes)) => bytes.to_vec(),
        Some(Slot::Hole | Slot::Sealed(_) | Slot::Kept(..)) | None => Vec::new(),
    };
    bytes.resize(record.size as usize, 0);
    bytes.into_boxed_slice()
}
