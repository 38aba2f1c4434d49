//! Subtrees into blocks and back.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::DatabaseId;
use crate::crypt::{Scope, Secret};
use crate::image::{Image, MemoryDisk, Store};
use crate::tree::attr::{NodeKind, Owner, SetXattr};
use crate::tree::check::check_block;
use crate::tree::verify::live_delta;
use crate::tree::version::Version;
use crate::tree::{BlockView, Head, ImageSource, Mark, ReadTree, Timestamp, Tree, TreeError, TreeOptions};

/// An image with the roots of the outer and the inner block in it.
type State = (Image, [Option<Root>; 2]);

const OWNER: Owner = Owner { uid: 1000, gid: 100 };
const INNER: BlockNumber = BlockNumber(2);

fn keys(number: BlockNumber) -> SealKeys {
    let scope = Scope { database: DatabaseId([3; 32]), block: number, epoch: 0 };
    SealKeys::new(&Secret::new([number.0 as u8 + 1; 32]), scope)
}

fn now() -> Timestamp {
    Timestamp { seconds: 1_000, nanos: 5 }
}

fn views(roots: [Option<Root>; 2], inner: Option<&str>) -> Vec<BlockView> {
    let paths = [(BlockNumber::ROOT, Some("")), (INNER, inner)];
    let view = |((number, path), root): ((BlockNumber, Option<&str>), _)| {
        let path = path?.as_bytes().to_vec();
        Some(BlockView {
            number,
            path,
            keys: keys(number),
            root,
            writable: true,
            append: false,
            private: None,
        })
    };
    paths.into_iter().zip(roots).filter_map(view).collect()
}

fn options(inode_prefix: u32) -> TreeOptions {
    let (cache_bytes, dirty_bytes_max) = (16 << 20, 8 << 20);
    TreeOptions {
        inode_prefix,
        cache_bytes,
        dirty_bytes_max,
        owner: OWNER,
        mark: Mark::default(),
        clock: now,
    }
}

struct World {
    store: Arc<Store>,
    nodes: NodeCache,
}

impl World {
    fn new() -> World {
        let store = Store::create(Arc::new(MemoryDisk::new()), DatabaseId([3; 32])).unwrap();
        World { store, nodes: NodeCache::new(1 << 20) }
    }

    fn tree(&self) -> Tree {
        let image = Image::empty(&self.store);
        Tree::load(self.store.clone(), image, views([None; 2], None), options(7)).unwrap()
    }

    fn bench(&self, image: &Image) -> Bench<'_> {
        Bench { draft: Arc::new(self.store.draft(image).unwrap()), nodes: &self.nodes }
    }

    fn cut(&self, head: &Head, path: &str) -> Result<Option<State>, RecutError> {
        let bench = self.bench(&head.image);
        let (outer_keys, inner_keys) = (keys(BlockNumber::ROOT), keys(INNER));
        let root = head.roots[&BlockNumber::ROOT];
        let outer = Part { block: BlockNumber::ROOT, keys: &outer_keys, root };
        let inner = Part { block: INNER, keys: &inner_keys, root: None };
        let done = bench.cut_out(outer, inner, path.as_bytes())?;
        Ok(done.map(|done| (bench.draft.snapshot().unwrap(), [done.outer, done.inner])))
    }

    fn put_back(&self, (image, roots): &State, path: &str) -> Result<(Image, Option<Root>), RecutError> {
        let bench = self.bench(image);
        let (outer_keys, inner_keys) = (keys(BlockNumber::ROOT), keys(INNER));
        let outer = Part { block: BlockNumber::ROOT, keys: &outer_keys, root: roots[0] };
        let inner = Part { block: INNER, keys: &inner_keys, root: roots[1] };
        let done = bench.put_back(outer, inner, path.as_bytes(), Inode(9 << 32))?;
        assert_eq!(done.inner, None);
        Ok((bench.draft.snapshot().unwrap(), done.outer))
    }

    /// Both blocks are sound, all opens, and what counts as alive is what is used.
    fn check(&self, image: &Image, roots: [Option<Root>; 2]) {
        let source = ImageSource::new(&self.store, image);
        let mut live = BTreeMap::new();
        for (number, root) in [BlockNumber::ROOT, INNER].into_iter().zip(roots) {
            let keys = keys(number);
            let map = Map::new(&keys, &source, &self.nodes);
            let version = Version { map: &map, root, keys: &keys, source: &source };
            let report = check_block(number, &version, image.bytes(), true);
            assert!(report.findings.is_empty(), "{number}: {:?}", report.findings);
            for (region, bytes) in live_delta(None, &version).unwrap().regions() {
                *live.entry(*region).or_insert(0) += bytes;
            }
        }
        for (index, region) in image.iter() {
            assert_eq!(live.get(&index).copied().unwrap_or(0), i64::from(region.live), "{index:?}");
        }
    }

    fn load(&self, image: &Image, roots: [Option<Root>; 2], inner: Option<&str>) -> Tree {
        Tree::load(self.store.clone(), image.clone(), views(roots, inner), options(8)).unwrap()
    }
}

fn file(tree: &Tree, parent: Inode, name: &str, content: &[u8]) -> Inode {
    let inode = tree.make_node(parent, name.as_bytes(), NodeKind::File, 0o640, OWNER).unwrap().inode;
    tree.write(inode, 0, content).unwrap();
    inode
}

fn dir(tree: &Tree, parent: Inode, name: &str) -> Inode {
    tree.make_dir(parent, name.as_bytes(), 0o751, OWNER).unwrap().inode
}

/// Everything of a tree by path: number, type, mode, links, times, content, attributes. `root` is left out, and so are the
/// numbers in `but`.
fn seen(tree: &Tree, but: &[&str]) -> BTreeMap<String, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![String::new()]);
    while let Some(path) = open.pop() {
        let attr = tree.resolve(path.as_bytes()).unwrap();
        let content = match attr.file_type {
            FileType::Directory => {
                let mut cookie = 0;
                loop {
                    let items = tree.read_dir(attr.inode, cookie).unwrap();
                    let Some(last) = items.last() else { break };
                    cookie = last.cookie;
                    let names = items.iter().map(|item| String::from_utf8_lossy(&item.name).into_owned());
                    let names = names.filter(|name| name != "." && name != "..");
                    open.extend(names.map(|name| format!("{path}/{name}")));
                }
                Vec::new()
            }
            FileType::Symlink => tree.read_link(attr.inode).unwrap(),
            _ => tree.read(attr.inode, 0, 1 << 30).unwrap(),
        };
        let xattrs: Vec<_> = tree.list_xattr(attr.inode).unwrap();
        let xattrs: Vec<_> = xattrs
            .into_iter()
            .map(|name| (name.clone(), tree.get_xattr(attr.inode, &name).unwrap()))
            .collect();
        let number = if but.contains(&path.as_str()) { Inode(0) } else { attr.inode };
        let attr = crate::tree::Attr { inode: number, ..attr };
        let hash = blake3::hash(&content);
        found.insert(path, format!("{attr:?} {} {hash} {xattrs:?}", content.len()));
    }
    found
}

/// A tree with a subtree of all kinds at `a/sub`.
fn filled(world: &World) -> (Tree, Head) {
    let tree = world.tree();
    let root = BlockNumber::ROOT.root_inode();
    let a = dir(&tree, root, "a");
    file(&tree, a, "beside", &[1; 100_000]);
    let sub = dir(&tree, a, "sub");
    tree.set_xattr(sub, b"user.of-directory", b"1", SetXattr::Any).unwrap();
    for number in 0..200 {
        let inode = file(&tree, sub, &format!("file-{number}"), &vec![number as u8 + 1; 40 * number]);
        tree.set_xattr(inode, b"user.number", &[number as u8], SetXattr::Any).unwrap();
    }
    let deep = dir(&tree, sub, "deep");
    let large: Vec<u8> = (0..300_000u32).map(|byte| (byte % 251) as u8).collect();
    let inode = file(&tree, deep, "large", &large);
    tree.link(inode, sub, b"again").unwrap();
    tree.make_symlink(deep, b"link", b"../elsewhere", OWNER).unwrap();
    let sparse = file(&tree, sub, "sparse", b"");
    tree.write(sparse, 1 << 30, b"end").unwrap();
    dir(&tree, deep, "deeper");
    let head = tree.flush().unwrap();
    (tree, head)
}

#[test]
fn a_subtree_goes_into_a_block_and_back() {
    let world = World::new();
    let (tree, head) = filled(&world);
    let before = seen(&tree, &["/a/sub"]);
    let cut = world.cut(&head, "a/sub").unwrap().unwrap();
    world.check(&cut.0, cut.1);
    let after = world.load(&cut.0, cut.1, Some("a/sub"));
    assert_eq!(seen(&after, &["/a/sub"]), before);
    assert_eq!(after.resolve(b"/a/sub").unwrap().inode, INNER.root_inode());
    let inside = after.resolve(b"/a/sub/deep/large").unwrap().inode;
    assert_eq!(after.block_of(inside), Some(INNER));
    // Without the block there is an empty directory.
    let bare = world.load(&cut.0, [cut.1[0], None], None);
    assert_eq!(bare.read_dir(bare.resolve(b"/a/sub").unwrap().inode, 0).unwrap().len(), 2);
    let (image, root) = world.put_back(&cut, "a/sub").unwrap();
    world.check(&image, [root, None]);
    assert_eq!(root.map(|root| root.id), head.roots[&BlockNumber::ROOT].map(|root| root.id));
}

#[test]
fn what_comes_out_depends_on_content_alone() {
    let world = World::new();
    let (tree, head) = filled(&world);
    let cut = world.cut(&head, "a/sub").unwrap().unwrap();
    // Another history of the same content.
    let root = BlockNumber::ROOT.root_inode();
    let passing = file(&tree, root, "passing", &[7; 50_000]);
    tree.flush().unwrap();
    assert!(passing.0 > 0);
    let beside = tree.resolve(b"/a/sub/sparse").unwrap().inode;
    tree.write(beside, 5, b"x").unwrap();
    tree.flush().unwrap();
    tree.write(beside, 5, b"\0").unwrap();
    let again = tree.flush().unwrap();
    let other = world.cut(&again, "a/sub").unwrap().unwrap();
    let id = |root: Option<Root>| root.map(|root| root.id);
    assert_eq!(id(other.1[1]), id(cut.1[1]));
    assert_ne!(id(other.1[0]), id(cut.1[0]));
}

#[test]
fn a_hard_link_across_the_border_is_refused() {
    let world = World::new();
    let (tree, _) = filled(&world);
    let inode = tree.resolve(b"/a/sub/file-9").unwrap().inode;
    tree.link(inode, BlockNumber::ROOT.root_inode(), b"outside").unwrap();
    let head = tree.flush().unwrap();
    assert!(matches!(world.cut(&head, "a/sub"), Err(RecutError::Crossing(found)) if found == inode));
    tree.unlink(BlockNumber::ROOT.root_inode(), b"outside").unwrap();
    let head = tree.flush().unwrap();
    assert!(world.cut(&head, "a/sub").unwrap().is_some());
}

#[test]
fn no_directory_is_nothing_to_cut_and_a_missing_one_is_made() {
    let world = World::new();
    let (tree, head) = filled(&world);
    for path in ["nowhere", "a/nowhere", "a/sub/file-3", "a/sub/file-3/x"] {
        assert!(world.cut(&head, path).unwrap().is_none(), "{path}");
    }
    let cut = world.cut(&head, "a/sub").unwrap().unwrap();
    let moved = world.put_back(&cut, "elsewhere").unwrap();
    world.check(&moved.0, [moved.1, None]);
    let after = world.load(&moved.0, [moved.1, None], None);
    let (old, new) = (seen(&tree, &["/a/sub"]), seen(&after, &["/elsewhere"]));
    assert_eq!(new["/elsewhere/deep/large"], old["/a/sub/deep/large"]);
    assert!(matches!(world.put_back(&cut, "not/there"), Err(RecutError::NotThere)));
    assert!(matches!(world.put_back(&cut, "a/beside"), Err(RecutError::Occupied(_))));
}

#[test]
fn what_lies_hidden_below_a_mountpoint_stays_or_is_refused() {
    let world = World::new();
    let (_, head) = filled(&world);
    let cut = world.cut(&head, "a/sub").unwrap().unwrap();
    let hidden = world.load(&cut.0, [cut.1[0], None], None);
    let sub = hidden.resolve(b"/a/sub").unwrap().inode;
    dir(&hidden, sub, "hidden");
    let head = hidden.flush().unwrap();
    let with_hidden = (head.image, [head.roots[&BlockNumber::ROOT], cut.1[1]]);
    let (image, root) = world.put_back(&with_hidden, "a/sub").unwrap();
    let both = world.load(&image, [root, None], None);
    assert!(both.resolve(b"/a/sub/hidden").is_ok() && both.resolve(b"/a/sub/deep/large").is_ok());
    file(&hidden, sub, "file-9", b"x");
    let head = hidden.flush().unwrap();
    let taken = (head.image, [head.roots[&BlockNumber::ROOT], cut.1[1]]);
    assert!(matches!(world.put_back(&taken, "a/sub"), Err(RecutError::Occupied(name)) if name == "file-9"));
}

#[test]
fn damaged_content_is_not_carried() {
    let world = World::new();
    let (_, head) = filled(&world);
    let bench = world.bench(&head.image);
    let wrong = keys(BlockNumber(7));
    let outer = Part { block: BlockNumber::ROOT, keys: &wrong, root: head.roots[&BlockNumber::ROOT] };
    let inner = Part { block: INNER, keys: &keys(INNER), root: None };
    assert!(matches!(bench.cut_out(outer, inner, b"a/sub"), Err(RecutError::Map(MapError::Tampered(_)))));
    assert!(matches!(world.load(&head.image, [None; 2], None).resolve(b"/a"), Err(TreeError::NotFound)));
}
