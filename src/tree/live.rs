//! The tree that a mount shows and changes.

use super::attr::{Attr, Owner};
use super::block::{Base, BlockView, Blocks, Shared};
use super::chunk_cache::ChunkCache;
use super::error::TreeError;
use super::flush::{Flushing, Head};
use super::headroom::Headroom;
use super::inode::Timestamp;
use super::journal::{Journal, Mark};
use super::key;
use super::listing::Listings;
use super::pins::{Hung, Pins};
use super::sealer::{Bench, Sealers};
use super::source::ImageSource;
use super::state::State;
use super::unwritten::Unwritten;
use super::view::View;
use crate::base::{BlockNumber, Inode};
use crate::image::{Draft, Image, Store};
use crate::map::NodeCache;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// How a tree is opened.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// First half of new inode numbers: at least 1, used by no other device or session.
    pub inode_prefix: u32,
    /// Memory for what was read: half for map nodes, half for opened chunks.
    pub cache_bytes: u64,
    /// Plaintext that may wait to be sealed before writers have to help.
    pub dirty_bytes_max: u64,
    /// To whom the root of a block belongs that was never written to.
    pub owner: Owner,
    /// The last change that the state holds.
    pub mark: Mark,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

/// A POSIX tree over the maps of all blocks. All methods may be called from many threads at once; none waits for the
/// network.
///
/// Changes lie in memory until [`Tree::flush`]; big writes are sealed earlier, by threads of the tree's own and by the
/// writers themselves when too much waits.
pub struct Tree {
    pub(super) bench: Arc<Bench>,
    pub(super) listings: Listings,
    pub(super) headroom: Headroom,
    /// One flush or adoption at a time.
    pub(super) flushing: Mutex<Flushing>,
    pub(super) options: TreeOptions,
    unwritten: Unwritten,
    _sealers: Sealers,
}

impl Tree {
    /// Opens the blocks of a state that lies in `image`.
    pub fn load(
        store: Arc<Store>,
        image: Image,
        blocks: impl Into<Blocks>,
        options: TreeOptions,
    ) -> Result<Tree, TreeError> {
        let half = usize::try_from(options.cache_bytes / 2).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            store,
            nodes: Arc::new(NodeCache::new(half)),
            chunks: Arc::new(ChunkCache::new(half)),
            homes: Default::default(),
            owner: options.owner,
        });
        let draft = Arc::new(shared.store.draft(&image)?);
        let source = ImageSource::remembering(&shared.store, &image, Arc::default());
        let base = make_base(source, blocks.into(), &shared)?;
        let roots = base.outer().map(|block| (block.number, block.root)).collect();
        let state = State {
            base: Arc::new(base),
            frozen: None,
            active: HashMap::new(),
            orphans: HashMap::new(),
            open: HashMap::new(),
            generation: 0,
            frozen_generation: 0,
            frozen_mark: options.mark,
            dirty_bytes: 0,
            frozen_bytes: 0,
            freed_bytes: 0,
            full: VecDeque::new(),
            partial: VecDeque::new(),
            draft,
            head: Head { image, roots, generation: 0, changed: BTreeSet::new(), mark: options.mark },
            journal: Journal::new(options.mark),
            replaying: false,
            drawn: 0,
            meters: HashMap::new(),
            growing: Default::default(),
            restamped: HashMap::new(),
        };
        let bench = Arc::new(Bench::new(shared, state, options.dirty_bytes_max));
        let sealers = Sealers::start(&bench);
        Ok(Tree {
            bench,
            listings: Listings::new(),
            flushing: Mutex::default(),
            options,
            unwritten: Unwritten::default(),
            headroom: Headroom::default(),
            _sealers: sealers,
        })
    }

    /// The store that it lies in.
    pub fn store(&self) -> &Arc<Store> {
        &self.bench.shared.store
    }

    /// Files that were made or emptied to be written.
    pub fn unwritten(&self) -> &Unwritten {
        &self.unwritten
    }

    /// Raised by every change of content, and by adoption.
    pub fn generation(&self) -> u64 {
        self.bench.state.read().generation
    }

    /// Plaintext that waits to be sealed, in bytes.
    pub fn dirty_bytes(&self) -> u64 {
        let state = self.bench.state.read();
        state.dirty_bytes + state.frozen_bytes
    }

    /// First half of the inode numbers that this session gives out.
    pub fn inode_prefix(&self) -> u32 {
        self.options.inode_prefix
    }

    /// Opened map nodes, to be shared by whoever else reads the same store.
    pub fn node_cache(&self) -> &NodeCache {
        &self.bench.shared.nodes
    }

    /// The draft that flushes append to, until the next adoption.
    pub fn draft(&self) -> Arc<Draft> {
        self.bench.state.read().draft.clone()
    }

    /// The block in which an inode lies.
    pub fn block_of(&self, inode: Inode) -> Option<BlockNumber> {
        self.read_view(|view| view.record(inode).and_then(|_| view.block_of(inode))).ok()
    }

    /// What a path from the root leads to; empty components are skipped, symbolic links not followed.
    pub fn resolve(&self, path: &[u8]) -> Result<Attr, TreeError> {
        self.read_view(|view| view.resolve(path))
    }

    /// The path of a directory, or one of a file, from the root, with a leading `/`; `None` where it has none.
    pub fn path_of(&self, inode: Inode) -> Option<Vec<u8>> {
        self.read_view(|view| view.path_of(inode)).ok()
    }

    /// Reads from a consistent state. What is read must not block on anything but the disk.
    pub(super) fn read_view<T>(
        &self,
        read: impl FnOnce(View<'_>) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let state = self.bench.state.read();
        read(state.view(&self.bench.shared))
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.options.clock)()
    }
}

/// Puts blocks on an image and finds out what their mountpoints are.
pub(super) fn make_base(source: ImageSource, blocks: Blocks, shared: &Shared) -> Result<Base, TreeError> {
    let by_number = |block: BlockView| (block.number, block);
    let (private, plain): (Vec<_>, Vec<_>) =
        blocks.open.into_iter().partition(|block| block.private.is_some());
    let mut base = Base {
        source,
        blocks: plain.into_iter().map(by_number).collect(),
        veiled: private.into_iter().chain(blocks.veiled).map(by_number).collect(),
        insides: BTreeMap::new(),
        pins: Arc::default(),
    };
    for number in base.veiled.keys().copied().collect::<Vec<_>>() {
        if let Err(error) = base.lift(number, shared) {
            tracing::warn!(block = number.0, %error, "a private block does not open with its key");
        }
    }
    let open = base.blocks.values().map(|block| (block.number, block.path.clone(), true));
    let shut = base.veiled.values().filter(|block| !base.blocks.contains_key(&block.number));
    let shut = shut.map(|block| (block.number, block.path.clone(), false));
    let closed = blocks.closed.into_iter().map(|block| (block.number, block.path, false));
    let mut hung: Vec<(BlockNumber, Vec<u8>, bool)> = open.chain(shut).chain(closed).collect();
    hung.sort_unstable();
    if hung.first().is_none_or(|(number, ..)| *number != BlockNumber::ROOT) {
        return Err(TreeError::Invalid);
    }
    let hung = hung.iter().map(|(number, path, open)| Hung { number: *number, path, open: *open });
    let pins = Pins::resolve(hung, |directory, name| base.view(shared).stack(directory)?.entry(name));
    base.pins = Arc::new(pins);
    Ok(base)
}

impl Base {
    /// The state itself, without any change on top.
    pub(super) fn view<'a>(&'a self, shared: &'a Shared) -> View<'a> {
        View { layers: [None, None], orphans: None, base: self, draft: None, restamped: None, shared }
    }
}

impl View<'_> {
    /// What a path leads to.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Attr, TreeError> {
        let mut inode = BlockNumber::ROOT.root_inode();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            inode = self.lookup(inode, name)?.inode;
        }
        self.attr(inode)
    }

    /// The path of an inode.
    pub(super) fn path_of(&self, inode: Inode) -> Result<Vec<u8>, TreeError> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = inode;
        while at != BlockNumber::ROOT.root_inode() {
            if names.len() > PATH_DEPTH_MAX {
                return Err(TreeError::Invalid);
            }
            let (above, name) = match self.base.pins.above(at) {
                Some((above, name)) => (above, Some(name.to_vec())),
                None => {
                    let above = self.record(at)?.parent;
                    let mut found = None;
                    self.stack(above)?.each_entry(|name, entry| {
                        found = (entry.inode == at).then(|| name.to_vec());
                        found.is_none()
                    })?;
                    (above, found)
                }
            };
            names.push(name.ok_or(TreeError::NotFound)?);
            at = above;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(if path.is_empty() { b"/".to_vec() } else { path })
    }
}

/// Directories deeper than that have no path.
const PATH_DEPTH_MAX: usize = 4096;

/// Refuses names that cannot be given.
pub(super) fn check_name(name: &[u8]) -> Result<(), TreeError> {
    if name.len() > key::NAME_BYTES_MAX {
        Err(TreeError::NameTooLong)
    } else if matches!(name, b"." | b"..") {
        Err(TreeError::Exists)
    } else if key::is_legal_name(name) {
        Ok(())
    } else {
        Err(TreeError::Invalid)
    }
}
