//! The live tree over a store in memory: against a plain model, and situation by situation.

#![allow(clippy::unwrap_used)]

mod adopting;
mod append;
mod blocks;
mod crash;
mod data;
mod dead_space;
mod listing;
mod meter;
mod model;
mod names;
mod orphans;
mod random;
mod room;
mod slow;
mod threads;
mod veiled;

use super::attr::{Attr, NodeKind, Owner};
use super::block::BlockView;
use super::check::check_block;
use super::flush::Head;
use super::inode::Timestamp;
use super::journal::{Batch, Mark};
use super::live::{Tree, TreeOptions};
use super::source::ImageSource;
use super::verify::live_delta;
use super::version::Version;
use super::{ReadTree, TreeError};
use crate::base::{BlockNumber, DatabaseId, Inode};
use crate::crypt::{Scope, SealKeys, Secret};
use crate::image::{Image, MemoryDisk, Store};
use crate::map::{Map, NodeCache};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

const ROOT: Inode = Inode(1);
const OWNER: Owner = Owner { uid: 1000, gid: 100 };

static CLOCK: AtomicI64 = AtomicI64::new(1_000);
static PREFIX: AtomicU32 = AtomicU32::new(7);

/// Each moment is later than the one before.
fn tick() -> Timestamp {
    Timestamp { seconds: CLOCK.fetch_add(1, Ordering::Relaxed), nanos: 1 }
}

fn options() -> TreeOptions {
    TreeOptions {
        inode_prefix: PREFIX.fetch_add(1, Ordering::Relaxed),
        cache_bytes: 16 << 20,
        dirty_bytes_max: 8 << 20,
        owner: OWNER,
        mark: Mark::default(),
        clock: tick,
    }
}

fn keys_of(number: u16) -> SealKeys {
    let scope = Scope { database: DatabaseId([3; 32]), block: BlockNumber(number), epoch: 0 };
    SealKeys::new(&Secret::new([number as u8 + 1; 32]), scope)
}

fn view_of(number: u16, path: &str, writable: bool) -> BlockView {
    BlockView {
        number: BlockNumber(number),
        path: path.as_bytes().to_vec(),
        keys: keys_of(number),
        root: None,
        writable,
        private: None,
        append: false,
    }
}

/// A store with a tree in it.
struct World {
    store: Arc<Store>,
    blocks: Vec<BlockView>,
    tree: Tree,
}

impl World {
    fn new() -> World {
        World::with(vec![view_of(0, "", true)], options())
    }

    fn with(blocks: Vec<BlockView>, options: TreeOptions) -> World {
        let store = Store::create(Arc::new(MemoryDisk::new()), DatabaseId([3; 32])).unwrap();
        let tree = Tree::load(store.clone(), Image::empty(&store), blocks.clone(), options).unwrap();
        World { store, blocks, tree }
    }

    /// One whose only block is private, and opened.
    fn veiled() -> World {
        World::with(vec![veiled::hidden(0, "")], options())
    }

    /// The blocks with the roots of a head.
    fn views(&self, head: &Head) -> Vec<BlockView> {
        let view = |block: &BlockView| BlockView { root: head.roots[&block.number], ..block.clone() };
        self.blocks.iter().map(view).collect()
    }

    /// Flushes, throws the tree away, and opens what is left.
    fn reopen(self) -> World {
        let head = self.tree.flush().unwrap();
        let World { store, blocks, tree } = self;
        drop(tree);
        let tree = World::load(&store, &blocks, &head);
        World { store, blocks, tree }
    }

    /// The tree of a head.
    fn load(store: &Arc<Store>, blocks: &[BlockView], head: &Head) -> Tree {
        let view = |block: &BlockView| BlockView { root: head.roots[&block.number], ..block.clone() };
        let options = TreeOptions { mark: head.mark, ..options() };
        Tree::load(store.clone(), head.image.clone(), blocks.iter().map(view).collect::<Vec<_>>(), options)
            .unwrap()
    }

    /// Checks that what is flushed is a sound filesystem, that every byte of it opens, and that what the image says to
    /// be alive is what the maps use.
    fn check(&self) -> Head {
        let head = self.tree.flush().unwrap();
        let source = ImageSource::new(&self.store, &head.image);
        let cache = NodeCache::new(0);
        let mut live = BTreeMap::new();
        for block in self.views(&head) {
            let map = Map::new(&block.keys, &source, &cache);
            let version = Version { map: &map, root: block.root, keys: &block.keys, source: &source };
            let report = check_block(block.number, &version, head.image.bytes(), true);
            assert!(report.findings.is_empty(), "{:?}", report.findings);
            veiled::check_inside(&block, &source);
            for (region, bytes) in live_delta(None, &version).unwrap().regions() {
                *live.entry(*region).or_insert(0) += bytes;
            }
        }
        for (index, region) in head.image.iter() {
            assert_eq!(live.get(&index).copied().unwrap_or(0), i64::from(region.live), "{index:?}");
        }
        head
    }

    fn file(&self, directory: Inode, name: &str) -> Inode {
        self.tree.make_node(directory, name.as_bytes(), NodeKind::File, 0o644, OWNER).unwrap().inode
    }

    fn dir(&self, directory: Inode, name: &str) -> Inode {
        self.tree.make_dir(directory, name.as_bytes(), 0o755, OWNER).unwrap().inode
    }

    /// All of a file.
    fn content(&self, inode: Inode) -> Vec<u8> {
        self.tree.read(inode, 0, 1 << 30).unwrap()
    }

    /// The names in a directory without the dots, sorted.
    fn names(&self, directory: Inode) -> Vec<String> {
        names_in(&self.tree, directory)
    }
}

fn names_in(tree: &dyn ReadTree, directory: Inode) -> Vec<String> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let batch = tree.read_dir(directory, cookie).unwrap();
        let Some(last) = batch.last() else { break };
        cookie = last.cookie;
        names.extend(batch.iter().map(|item| String::from_utf8_lossy(&item.name).into_owned()));
    }
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

/// The word for what went wrong.
fn kind(error: &TreeError) -> String {
    let text = format!("{error:?}");
    text.split(['(', ' ', '{']).next().unwrap().to_owned()
}

/// Repeatable chance.
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.draw() % count
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
