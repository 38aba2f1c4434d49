//! Blocks as the tree has them, and the state that the layers of changes lie on.

use super::attr::Owner;
use super::chunk_cache::ChunkCache;
use super::error::TreeError;
use super::pins::Pins;
use super::source::ImageSource;
use crate::base::{BlockNumber, Inode};
use crate::crypt::SealKeys;
use crate::image::Store;
use crate::map::{Map, NodeCache, Root};
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
    /// The others.
    pub closed: Vec<ClosedBlock>,
}

impl From<Vec<BlockView>> for Blocks {
    fn from(open: Vec<BlockView>) -> Blocks {
        Blocks { open, closed: Vec::new() }
    }
}

/// All blocks as of one flushed state, in the image that it lies in. Immutable.
pub(super) struct Base {
    pub(super) source: ImageSource,
    pub(super) blocks: BTreeMap<BlockNumber, BlockView>,
    pub(super) pins: Arc<Pins>,
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
        Map::new(&block.keys, &self.source, &shared.nodes)
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
