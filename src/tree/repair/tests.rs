//! Damage of every kind, in every place: found, named, and repaired to a sound filesystem that shows nothing wrong.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::{DatabaseId, Place, RegionIndex};
use crate::crypt::{Scope, SealKeys, Secret};
use crate::image::{Draft, Image, MemoryDisk, Store, Stream};
use crate::map::{FetchError, Map, NodeCache};
use crate::tree::attr::{NodeKind, Owner, SetXattr};
use crate::tree::block::BlockView;
use crate::tree::check::{Finding, check_block};
use crate::tree::journal::Mark;
use crate::tree::source::{DraftSource, ImageSource};
use crate::tree::verify::open_changed;
use crate::tree::{FileType, Head, ReadTree, Tree, TreeOptions};
use std::sync::Arc;

const OWNER: Owner = Owner { uid: 1000, gid: 100 };
const FILES: u64 = 90;

fn now() -> Timestamp {
    Timestamp { seconds: 1_000, nanos: 0 }
}

fn keys() -> SealKeys {
    let scope = Scope { database: DatabaseId([3; 32]), block: BlockNumber::ROOT, epoch: 0 };
    SealKeys::new(&Secret::new([1; 32]), scope)
}

fn open(store: &Arc<Store>, image: &Image, root: Option<Root>) -> Tree {
    let view = BlockView {
        number: BlockNumber::ROOT,
        path: Vec::new(),
        keys: keys(),
        root,
        writable: true,
        private: None,
        append: false,
    };
    let options = TreeOptions {
        inode_prefix: 7,
        cache_bytes: 1 << 20,
        mark: Mark::default(),
        dirty_bytes_max: 8 << 20,
        owner: OWNER,
        clock: now,
    };
    Tree::load(store.clone(), image.clone(), vec![view], options).unwrap()
}

fn content(number: u64) -> Vec<u8> {
    let bytes = match number % 4 {
        0 => 300,
        1 => 20_000,
        2 => 70_000 + number as usize,
        _ => 5_000,
    };
    (0..bytes).map(|at| (at as u64 * 31 + number * 7 + 1) as u8).collect()
}

/// Directories with files, links, attributes; small files and larger ones.
fn furnished() -> (Arc<Store>, Head) {
    let store = Store::create(Arc::new(MemoryDisk::new()), DatabaseId([3; 32])).unwrap();
    let tree = open(&store, &Image::empty(&store), None);
    let root = BlockNumber::ROOT.root_inode();
    let mut directories = vec![root];
    for number in 0..8 {
        let above = directories[number / 2];
        let made = tree.make_dir(above, format!("dir-{number}").as_bytes(), 0o755, OWNER).unwrap();
        directories.push(made.inode);
    }
    for number in 0..FILES {
        let directory = directories[number as usize % directories.len()];
        let name = format!("file-{number}");
        let file = tree.make_node(directory, name.as_bytes(), NodeKind::File, 0o644, OWNER).unwrap();
        tree.write(file.inode, 0, &content(number)).unwrap();
        match number % 5 {
            0 => _ = tree.link(file.inode, root, format!("link-{number}").as_bytes()).unwrap(),
            1 => tree.set_xattr(file.inode, b"user.note", &content(number)[..100], SetXattr::Any).unwrap(),
            2 => {
                _ = tree.make_symlink(directory, format!("to-{number}").as_bytes(), b"there", OWNER).unwrap()
            }
            _ => {}
        }
    }
    let head = tree.flush().unwrap();
    (store, head)
}

/// Shows some objects damaged.
struct Damaged {
    inner: ImageSource,
    places: BTreeMap<Place, Damage>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    Flipped(usize),
    Zeroed,
    Cut,
    Swapped(Place),
}

impl crate::map::Fetch for Damaged {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        let mut bytes = self.inner.fetch(place)?;
        match self.places.get(&place) {
            None => {}
            Some(Damage::Flipped(at)) => {
                let at = at % bytes.len();
                bytes[at] ^= 0x40;
            }
            Some(Damage::Zeroed) => bytes.fill(0),
            Some(Damage::Cut) => {
                let half = bytes.len() / 2;
                bytes[half..].fill(0);
            }
            Some(Damage::Swapped(other)) => bytes = self.inner.fetch(*other)?,
        }
        Ok(bytes)
    }
}

/// All objects of a block: nodes, then chunks.
fn objects(version: &Version<'_>) -> (Vec<Place>, Vec<Place>) {
    let (mut nodes, mut chunks) = (Vec::new(), Vec::new());
    version.map.remains(version.root.as_ref(), &mut |remains| match remains {
        Remains::Node(place) => nodes.push(place),
        Remains::Entry(entry) => chunks.extend(entry.place),
        other => panic!("{other:?}"),
    });
    (nodes, chunks)
}

struct Stage {
    store: Arc<Store>,
    head: Head,
    keys: SealKeys,
    nodes: Vec<Place>,
    chunks: Vec<Place>,
    intact: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Stage {
    fn new() -> Stage {
        let (store, head) = furnished();
        let keys = keys();
        let (cache, source) = (NodeCache::new(0), ImageSource::new(&store, &head.image));
        let map = Map::new(&keys, &source, &cache);
        let version =
            Version { map: &map, root: head.roots[&BlockNumber::ROOT], keys: &keys, source: &source };
        let (nodes, chunks) = objects(&version);
        let intact = listed(&open(&store, &head.image, head.roots[&BlockNumber::ROOT]));
        Stage { head, keys, nodes, chunks, intact, store }
    }

    /// Damages, checks, repairs, and looks at what came of it. Returns the measures.
    fn damage(&self, places: BTreeMap<Place, Damage>, what: &str) -> Vec<Measure> {
        let (cache, inner) = (NodeCache::new(0), ImageSource::new(&self.store, &self.head.image));
        let source = Damaged { inner, places };
        let map = Map::new(&self.keys, &source, &cache);
        let root = self.head.roots[&BlockNumber::ROOT];
        let version = Version { map: &map, root, keys: &self.keys, source: &source };
        let report = check_block(BlockNumber::ROOT, &version, self.head.image.bytes(), true);
        for place in source.places.keys() {
            let hidden = report.findings.iter().any(|finding| matches!(finding, Finding::Node { .. }));
            let named = report.findings.iter().any(|finding| match finding {
                Finding::Node { at, .. } => at.place == *place,
                Finding::Chunk { place: at, .. } => at == place,
                _ => false,
            });
            assert!(named || hidden, "{what}: {place:?} is not named: {:?}", report.findings);
        }
        let repair = Repair::plan(BlockNumber::ROOT, &version, now());
        assert!(!repair.measures.is_empty(), "{what}: nothing is said");
        let draft = Arc::new(self.store.draft(&self.head.image).unwrap());
        let mut sink = DraftSource::new(draft.clone(), Stream::Fresh);
        let repaired = repair.apply(&version, &mut sink).unwrap();
        self.judge(&draft, repaired, &repair, what);
        repair.measures
    }

    /// What was repaired is sound, and every file that stands where it stood is what it was.
    fn judge(&self, draft: &Draft, root: Option<Root>, repair: &Repair, what: &str) {
        let image = draft.snapshot().unwrap();
        let (cache, source) = (NodeCache::new(0), ImageSource::new(&self.store, &image));
        let map = Map::new(&self.keys, &source, &cache);
        let version = Version { map: &map, root, keys: &self.keys, source: &source };
        let report = check_block(BlockNumber::ROOT, &version, image.bytes(), true);
        assert_eq!(report.found, 0, "{what}: {:?}", report.findings);
        open_changed(BlockNumber::ROOT, None, &version, image.bytes()).unwrap();
        let left = listed(&open(&self.store, &image, root));
        for (path, content) in &left {
            if !path.starts_with(b"/lost+found") {
                let before = self.intact.get(path);
                assert!(before == Some(content), "{what}: {}", String::from_utf8_lossy(path));
            }
        }
        if root.is_some() {
            let housed = left.keys().filter(|path| path.starts_with(b"/lost+found/")).count();
            let gone = self.intact.keys().filter(|path| !left.contains_key(*path)).count();
            assert!(gone == 0 || housed + repair.measures.len() > 0, "{what}: {gone} gone in silence");
        }
    }
}

/// Everything in a tree: paths with contents.
fn listed(tree: &Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![(BlockNumber::ROOT.root_inode(), Vec::new())];
    while let Some((directory, path)) = open.pop() {
        let mut cookie = 0;
        loop {
            let batch = tree.read_dir(directory, cookie).unwrap();
            let Some(last) = batch.last() else { break };
            cookie = last.cookie;
            for item in batch.iter().filter(|item| !matches!(&item.name[..], b"." | b"..")) {
                let path = [&path[..], b"/", &item.name].concat();
                let content = match item.file_type {
                    FileType::File => tree.read(item.inode, 0, 1 << 30).unwrap(),
                    FileType::Symlink => tree.read_link(item.inode).unwrap(),
                    _ => Vec::new(),
                };
                if item.file_type == FileType::Directory {
                    open.push((item.inode, path.clone()));
                }
                all.insert(path, content);
            }
        }
    }
    all
}

#[test]
fn every_single_object_may_be_lost() {
    let stage = Stage::new();
    assert!(
        stage.nodes.len() > 10 && stage.chunks.len() > 60,
        "{} {}",
        stage.nodes.len(),
        stage.chunks.len()
    );
    for (number, place) in stage.nodes.iter().chain(&stage.chunks).enumerate() {
        let other = stage.nodes[(number + 1) % stage.nodes.len()];
        let ways = [Damage::Flipped(number * 13), Damage::Zeroed, Damage::Cut, Damage::Swapped(other)];
        let damage = ways[number % 4];
        stage.damage(BTreeMap::from([(*place, damage)]), &format!("{damage:?} at {}", place.offset));
    }
}

#[test]
fn a_file_that_lost_a_chunk_goes_to_lost_and_found_and_says_so() {
    let stage = Stage::new();
    let measures = stage.damage(BTreeMap::from([(stage.chunks[5], Damage::Zeroed)]), "a chunk");
    let [measure] = &measures[..] else { panic!("{measures:?}") };
    assert!(measure.path.starts_with(b"/"), "{measure:?}");
    let name = measure.path.rsplit(|byte| *byte == b'/').next().unwrap();
    let wanted = format!("/lost+found/{}.damaged", String::from_utf8_lossy(name));
    assert!(measure.what.contains(&wanted), "{measure:?}");
}

#[test]
fn every_bit_of_a_node_and_of_a_chunk_counts() {
    let stage = Stage::new();
    let root = stage.head.roots[&BlockNumber::ROOT].unwrap().place;
    for place in [root, *stage.nodes.last().unwrap(), stage.chunks[0]] {
        let (cache, inner) = (NodeCache::new(0), ImageSource::new(&stage.store, &stage.head.image));
        // What is above all is opened first; for what lies lower everything before it is opened each time.
        let step = if place == root { 1 } else { 149 };
        for at in (0..place.length as usize).step_by(step) {
            let places = BTreeMap::from([(place, Damage::Flipped(at))]);
            let source = Damaged { inner: inner.clone(), places };
            let map = Map::new(&stage.keys, &source, &cache);
            let version = Version {
                map: &map,
                root: Some(stage.head.roots[&BlockNumber::ROOT].unwrap()),
                keys: &stage.keys,
                source: &source,
            };
            let mut lost = 0;
            version.map.remains(version.root.as_ref(), &mut |remains| {
                lost += usize::from(matches!(remains, Remains::Lost { .. }));
            });
            let bad = if stage.chunks.contains(&place) {
                !check_block(BlockNumber::ROOT, &version, stage.head.image.bytes(), true).findings.is_empty()
            } else {
                lost == 1
            };
            assert!(bad, "byte {at} of {place:?}");
        }
    }
}

#[test]
fn many_objects_may_be_lost_at_once() {
    let stage = Stage::new();
    let all: Vec<Place> = stage.nodes.iter().chain(&stage.chunks).copied().collect();
    let mut dice = 7u64;
    let mut draw = |count: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % count
    };
    for round in 0..150 {
        let count = 1 + draw(12);
        let places = (0..count).map(|_| (all[draw(all.len())], Damage::Flipped(draw(5_000)))).collect();
        stage.damage(places, &format!("round {round}"));
    }
}

#[test]
fn a_lost_region_takes_what_lay_in_it_and_no_more() {
    let stage = Stage::new();
    let regions = stage.head.image.regions();
    for region in (0..regions).map(RegionIndex) {
        let inside = |place: &&Place| RegionIndex::of(place.offset) == region;
        let all = stage.nodes.iter().chain(&stage.chunks);
        let places: BTreeMap<_, _> = all.filter(inside).map(|place| (*place, Damage::Zeroed)).collect();
        if !places.is_empty() {
            stage.damage(places, &format!("region {}", region.0));
        }
    }
}
