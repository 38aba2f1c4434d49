//! Blocks as the tree has them, and the state that the layers of changes lie on.

use super::attr::Owner;
use super::chunk_cache::ChunkCache;
use super::error::TreeError;
use super::pins::Pins;
use super::source::ImageSource;
use super::veil::{Front, Veil};
use crate::base::{BlockNumber, Inode};
use crate::crypt::SealKeys;
use crate::image::Store;
use crate::map::{Map, MapError, NodeCache, Root};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A block as whoever opens a tree knows it.
#[derive(Clone)]
pub struct BlockView {
    /// Its number.
    pub number: BlockNumber,
    /// Where it hangs, from the database's root: components with `/` between them, empty for block 0.
    pub path: Vec<u8>,
    /// Its keys.
    pub keys: SealKeys,
    /// The root of its map; `None` while it was never written to.
    pub root: Option<Root>,
    /// Whether the policy lets this device write in it.
    pub writable: bool,
    /// The keys of what is inside, if it is a private block that this device can open.
    pub private: Option<SealKeys>,
    /// Whether what is whole in it stays as it is.
    pub append: bool,
}

/// A block whose key is not here: it shows where it hangs, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClosedBlock {
    /// Its number.
    pub number: BlockNumber,
    /// Where it hangs, as in [`BlockView`].
    pub path: Vec<u8>,
}

/// All blocks of a charter. Block 0 is among them.
#[derive(Clone, Default)]
pub struct Blocks {
    /// Those that can be opened.
    pub open: Vec<BlockView>,
    /// Those that are shown as closed, and whose map is kept all the same: private blocks of others.
    pub veiled: Vec<BlockView>,
    /// The others.
    pub closed: Vec<ClosedBlock>,
}

impl From<Vec<BlockView>> for Blocks {
    fn from(open: Vec<BlockView>) -> Blocks {
        Blocks { open, ..Blocks::default() }
    }
}

/// All blocks as of one flushed state, in the image that it lies in. Immutable.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) source: ImageSource,
    /// What can be shown. Of a private block keys and root are those of what is inside.
    pub(super) blocks: BTreeMap<BlockNumber, BlockView>,
    /// Private blocks as everybody sees them, opened here or not.
    pub(super) veiled: BTreeMap<BlockNumber, BlockView>,
    /// What is inside those that are opened here.
    pub(super) insides: BTreeMap<BlockNumber, Opened>,
    pub(super) pins: Arc<Pins>,
}

/// A private block that was opened.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) veil: Arc<Veil>,
    pub(super) front: Front,
    /// Reads what is inside.
    pub(super) source: ImageSource,
}

impl Base {
    /// A block; an inode that names another one is as good as gone.
    pub(super) fn block(&self, number: BlockNumber) -> Result<&BlockView, TreeError> {
        self.blocks.get(&number).ok_or(TreeError::NotFound)
    }

    /// Refuses blocks in which this device may not write.
    pub(super) fn writable(&self, number: BlockNumber) -> Result<&BlockView, TreeError> {
        let block = self.block(number)?;
        if block.writable { Ok(block) } else { Err(TreeError::ReadOnlyBlock(number)) }
    }

    /// The map of one of the blocks.
    pub(super) fn map<'a>(&'a self, block: &'a BlockView, shared: &'a Shared) -> Map<'a> {
        Map::new(&block.keys, self.source_of(block.number), &shared.nodes)
    }

    /// Reads what a block's map names.
    pub(super) fn source_of(&self, number: BlockNumber) -> &ImageSource {
        self.insides.get(&number).map_or(&self.source, |opened| &opened.source)
    }

    /// All blocks as everybody sees them: with the maps that lie in the image itself.
    pub(super) fn outer(&self) -> impl Iterator<Item = &BlockView> {
        let plain = self.blocks.values().filter(|block| !self.veiled.contains_key(&block.number));
        plain.chain(self.veiled.values())
    }

    /// Goes on with an opened block whose map may lie elsewhere now, and begin elsewhere.
    pub(super) fn renew(
        &mut self,
        number: BlockNumber,
        before: &Opened,
        front: Option<Front>,
        shared: &Shared,
    ) {
        let (Some(outer), Some(block)) = (self.veiled.get(&number), self.blocks.get_mut(&number)) else {
            return;
        };
        let seen = (&outer.keys, outer.root);
        let veil = Arc::new(Veil::new(number, seen, &self.source, &shared.nodes, &shared.chunks));
        let front = front.unwrap_or(before.front);
        block.root = front.root;
        // A place of the inner space shows the same bytes as before.
        let heads = before.source.heads().cloned().unwrap_or_default();
        let source = self.source.behind(veil.clone(), heads);
        self.insides.insert(number, Opened { veil, front, source });
    }

    /// Opens a private block; it is among the veiled already.
    pub(super) fn lift(&mut self, number: BlockNumber, shared: &Shared) -> Result<(), MapError> {
        let Some(outer) = self.veiled.get(&number).cloned() else { return Ok(()) };
        let Some(inner) = outer.private.clone() else { return Ok(()) };
        let seen = (&outer.keys, outer.root);
        let veil = Arc::new(Veil::new(number, seen, &self.source, &shared.nodes, &shared.chunks));
        let front = veil.front(&inner)?;
        let opened = Opened { source: self.source.behind(veil.clone(), Arc::default()), veil, front };
        self.insides.insert(number, opened);
        self.blocks.insert(number, BlockView { keys: inner, root: front.root, ..outer });
        Ok(())
    }
}

/// What all states of a tree and its snapshots have in common.
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) nodes: Arc<NodeCache>,
    pub(super) chunks: Arc<ChunkCache>,
    pub(super) homes: Homes,
    /// To whom the root of a block belongs that was never written to.
    pub(super) owner: Owner,
}

impl Shared {
    /// The same store and caches for another state, in which inodes may lie elsewhere.
    pub(super) fn with_own_homes(&self) -> Shared {
        let (store, nodes, chunks) = (self.store.clone(), self.nodes.clone(), self.chunks.clone());
        Shared { store, nodes, chunks, homes: Homes::default(), owner: self.owner }
    }
}

/// In which block an inode lies: known once a name led to it.
///
/// A block is verified by itself, so a device that may write in one could use an inode number of another there. The
/// first to be seen has it; what comes second is refused, so that neither shows under the other's number.
#[derive(Default)]
pub(super) struct Homes(Mutex<HashMap<Inode, BlockNumber>>);

impl Homes {
    /// The block of an inode, if a name led to it before.
    pub(super) fn get(&self, inode: Inode) -> Option<BlockNumber> {
        self.0.lock().get(&inode).copied()
    }

    /// Forgets everything: there are other blocks now.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Says that `inode` lies in `block`.
    pub(super) fn claim(&self, inode: Inode, block: BlockNumber) -> Result<(), TreeError> {
        let home = *self.0.lock().entry(inode).or_insert(block);
        if home == block { Ok(()) } else { Err(TreeError::ForeignInode { block, inode }) }
    }
}
