//! Private blocks: what is inside is a tree like any other, what is outside tells little, and what dies is given back.

use super::super::adopt::Changes;
use super::super::block::{BlockView, Blocks};
use super::super::check::check_block;
use super::super::key::Key;
use super::super::live::Tree;
use super::super::source::ImageSource;
use super::super::veil::{CHUNK_BYTES, Front, SEGMENT_BYTES, file_of, look_inside};
use super::super::version::Version;
use super::{Dice, Head, NodeCache, ROOT, ReadTree, World, keys_of, kind, names_in, options, view_of};
use crate::base::{Birth, BlockNumber, DatabaseId, Inode};
use crate::crypt::{Life, PrivateKeys, Secret};
use crate::map::{Descend, Map, MapError, Visit};
use std::sync::Arc;

fn keys(number: u16) -> PrivateKeys {
    let life = Life { database: DatabaseId([3; 32]), block: BlockNumber(number), birth: Birth([4; 16]) };
    PrivateKeys::from_present(life, Secret::new([number as u8 + 50; 32]), &[]).unwrap()
}

/// A private block that this device can open.
pub(super) fn hidden(number: u16, path: &str) -> BlockView {
    BlockView { private: Some(keys(number).seal_keys()), ..view_of(number, path, true) }
}

fn front_of(block: &BlockView, source: &ImageSource) -> Front {
    let map = Map::new(&block.keys, source, &NODES);
    let key = Key::Xattr(file_of(block.number), super::super::veil::FRONT).encode();
    let entry = map.get(block.root.as_ref(), &key).unwrap().unwrap();
    Front::open(block.private.as_ref().unwrap(), &entry.value).unwrap()
}

static NODES: std::sync::LazyLock<NodeCache> = std::sync::LazyLock::new(|| NodeCache::new(0));

/// Checks what is inside a private block as any block is checked, and that its front counts what lives.
pub(super) fn check_inside(block: &BlockView, source: &ImageSource) {
    let (Some(inner), Some(_)) = (&block.private, block.root) else { return };
    let nodes = Arc::new(NodeCache::new(0));
    let inside = look_inside(block.number, (&block.keys, block.root), inner, source, &nodes).unwrap();
    let map = Map::new(inner, &inside.source, &nodes);
    let version = Version { map: &map, root: inside.root, keys: inner, source: &inside.source };
    let report = check_block(block.number, &version, inside.bytes, true);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let mut live = 0;
    map.walk(inside.root.as_ref(), &mut |visit| {
        live += match visit {
            Visit::Node { place, .. } => u64::from(place.length),
            Visit::Entry(entry) => entry.place.map_or(0, |place| u64::from(place.length)),
        };
        Ok::<_, MapError>(Descend::Yes)
    })
    .unwrap();
    assert_eq!(front_of(block, source).live, live);
}

/// How large a block looks to whoever cannot open it, and how much of that means something.
fn seen(world: &World, head: &Head) -> (u64, u64) {
    let block = world.views(head).pop().unwrap();
    let source = ImageSource::new(&world.store, &head.image);
    let map = Map::new(&block.keys, &source, &NODES);
    let mut cursor = map.range(block.root.as_ref(), &Key::Chunk(file_of(block.number), 0).encode());
    let mut chunks = 0;
    while let Some(entry) = cursor.next().unwrap() {
        let Ok(Key::Chunk(..)) = Key::decode(&entry.key) else { break };
        chunks += 1;
    }
    (chunks * CHUNK_BYTES, front_of(&block, &source).live)
}

fn world() -> World {
    World::with(vec![view_of(0, "", true), hidden(7, "p")], options())
}

#[test]
fn what_died_inside_is_given_back_in_steps() {
    let world = world();
    let inside = world.tree.resolve(b"p").unwrap().inode;
    let file = world.file(inside, "f");
    let mut dice = Dice(3);
    let bytes = 10 << 20;
    for offset in (0..bytes).step_by(1 << 20) {
        world.tree.write(file, offset, &dice.bytes(1 << 20)).unwrap();
    }
    let (mut largest, mut smallest) = (0, u64::MAX);
    for round in 0..30 {
        for _ in 0..60 {
            let offset = dice.below(bytes / 4096) * 4096;
            world.tree.write(file, offset, &dice.bytes(4096)).unwrap();
        }
        let head = world.tree.flush().unwrap();
        let (seen, live) = seen(&world, &head);
        assert!(seen <= live + live / 2 + 4 * SEGMENT_BYTES + (8 << 20), "round {round}: {seen} for {live}");
        (largest, smallest) = (largest.max(seen), smallest.min(seen));
    }
    world.check();
    world.tree.unlink(inside, b"f").unwrap();
    let head = world.tree.flush().unwrap();
    let (seen, _) = seen(&world, &head);
    assert!(seen <= 3 * SEGMENT_BYTES, "{seen} after all is gone");
    world.check();
    let again = world.reopen();
    assert!(again.names(again.tree.resolve(b"p").unwrap().inode).is_empty());
}

#[test]
fn much_that_is_written_at_once_does_not_stay_in_memory() {
    let world = world();
    let inside = world.tree.resolve(b"p").unwrap().inode;
    let most = options().dirty_bytes_max;
    let file = world.file(inside, "f");
    let mut dice = Dice(5);
    let pieces: Vec<Vec<u8>> = (0..40).map(|_| dice.bytes(1 << 20)).collect();
    for (index, piece) in pieces.iter().enumerate() {
        world.tree.write(file, (index as u64) << 20, piece).unwrap();
        assert!(world.tree.dirty_bytes() <= most + (2 << 20));
    }
    world.tree.open(file, true, false).unwrap();
    let head = world.check();
    assert!(world.content(file) == pieces.concat());
    // Unlinked and open it stays, also where another state is taken over.
    world.tree.unlink(inside, b"f").unwrap();
    world.tree.write(file, 0, &pieces[3]).unwrap();
    world.check();
    let views = world.views(&head);
    let now = world.tree.flush().unwrap();
    world.tree.adopt(now.generation, head, views).unwrap();
    assert!(world.content(file)[1 << 20..] == pieces[1..].concat());
}

#[test]
fn who_has_no_key_keeps_the_block_and_is_shown_nothing() {
    let world = world();
    let inside = world.tree.resolve(b"p").unwrap().inode;
    let file = world.file(inside, "f");
    world.tree.write(file, 0, &Dice(1).bytes(400_000)).unwrap();
    let head = world.check();
    let shut = |head: &Head| -> Blocks {
        let mut open = world.views(head);
        let mut other = open.pop().unwrap();
        (other.private, other.writable) = (None, false);
        Blocks { open, veiled: vec![other], ..Blocks::default() }
    };
    let other = Tree::load(world.store.clone(), head.image.clone(), shut(&head), options()).unwrap();
    let closed = other.resolve(b"p").unwrap();
    assert_eq!(closed.mode & 0o777, 0);
    assert_eq!(kind(&other.read_dir(closed.inode, 0).unwrap_err()), "Closed");
    assert_eq!(kind(&other.lookup(closed.inode, b"f").unwrap_err()), "Closed");
    for inode in [file, file_of(BlockNumber(7))] {
        assert_eq!(kind(&other.attr(inode).unwrap_err()), "NotFound");
        assert_eq!(kind(&other.read(inode, 0, 10).unwrap_err()), "NotFound");
    }
    // Much is written and dies beside it: cleaning moves what it cannot open.
    let mine = other.make_node(ROOT, b"mine", super::NodeKind::File, 0o644, super::OWNER).unwrap().inode;
    for round in 0..30 {
        other.write(mine, 0, &Dice(round).bytes(1 << 20)).unwrap();
        other.flush().unwrap();
    }
    let theirs = other.flush().unwrap();
    assert_eq!(theirs.roots[&BlockNumber(7)].map(|root| root.id), head.roots[&BlockNumber(7)].map(|r| r.id));
    let changes = world.tree.adopt(head.generation, theirs.clone(), world.views(&theirs)).unwrap();
    assert_eq!(changes.directories, [ROOT], "nothing in the private block");
    assert!(world.content(file) == Dice(1).bytes(400_000));
    world.check();
    // And the other way round: what is adopted there stays shut, until it is opened.
    world.tree.write(file, 5, b"new").unwrap();
    let head = world.check();
    let now = other.flush().unwrap().generation;
    assert_eq!(other.adopt(now, head.clone(), shut(&head)).unwrap(), Changes::default());
    let now = other.flush().unwrap().generation;
    assert!(other.adopt(now, head.clone(), world.views(&head)).unwrap().too_many);
    assert_eq!(other.read(file, 5, 3).unwrap(), b"new");
    assert_eq!(names_in(&other, inside), ["f"]);
}

#[test]
fn a_new_key_opens_what_was_and_the_old_one_nothing_new() {
    let world = world();
    let inside = world.tree.resolve(b"p").unwrap().inode;
    let file = world.file(inside, "before");
    world.tree.write(file, 0, &Dice(1).bytes(200_000)).unwrap();
    let head = world.check();
    let mut newer = keys(7);
    newer.turn();
    let mut views = world.views(&head);
    views[1].private = Some(newer.seal_keys());
    assert!(world.tree.adopt(head.generation, head.clone(), views.clone()).unwrap().too_many);
    assert!(world.content(file) == Dice(1).bytes(200_000));
    let after = world.file(inside, "after");
    world.tree.write(after, 0, &Dice(2).bytes(200_000)).unwrap();
    let head = world.tree.flush().unwrap();
    let with = |private: &PrivateKeys| -> Vec<BlockView> {
        let of = |view: &BlockView| {
            let private = (view.number.0 == 7).then(|| private.seal_keys());
            BlockView { root: head.roots[&view.number], private, ..view.clone() }
        };
        views.iter().map(of).collect()
    };
    let open = |private: &PrivateKeys| {
        Tree::load(world.store.clone(), head.image.clone(), with(private), options()).unwrap()
    };
    let kept = open(&newer);
    assert!(kept.read(file, 0, 1 << 20).unwrap() == Dice(1).bytes(200_000));
    assert!(kept.read(after, 0, 1 << 20).unwrap() == Dice(2).bytes(200_000));
    let gone = open(&keys(7));
    let closed = gone.resolve(b"p").unwrap().inode;
    assert_eq!(kind(&gone.read_dir(closed, 0).unwrap_err()), "Closed");
    check_inside(&with(&newer)[1], &ImageSource::new(&world.store, &head.image));
}

#[test]
fn two_blocks_of_one_size_look_alike() {
    let make = |fill: &dyn Fn(&World, Inode)| {
        let world = world();
        let inside = world.tree.resolve(b"p").unwrap().inode;
        fill(&world, inside);
        let head = world.check();
        let block = world.views(&head).pop().unwrap();
        let source = ImageSource::new(&world.store, &head.image);
        let map = Map::new(&block.keys, &source, &NODES);
        let mut cursor = map.range(block.root.as_ref(), &[]);
        let mut shape = Vec::new();
        let mut random = 0;
        while let Some(entry) = cursor.next().unwrap() {
            if let (Ok(Key::Chunk(_, index)), Some(place)) = (Key::decode(&entry.key), entry.place) {
                let id = crate::base::Id(entry.value[..].try_into().unwrap());
                let sealed = source.bytes(place).unwrap();
                let plain = keys_of(7).open_chunk(file_of(block.number).0, index, &id, &sealed).unwrap();
                let ones: u32 = plain.iter().map(|byte| byte.count_ones()).sum();
                assert!(
                    (64_000..=67_100).contains(&ones),
                    "what is seen looks random: {ones} of 131072 bits"
                );
                random += 1;
                shape.push((entry.key.to_vec(), place.length as usize));
            } else if matches!(Key::decode(&entry.key), Ok(Key::Xattr(..))) {
                shape.push((entry.key.to_vec(), entry.value.len()));
            } else {
                shape.push((
                    entry.key.to_vec(),
                    usize::from_le_bytes(blake3::hash(&entry.value).as_bytes()[..8].try_into().unwrap()),
                ));
            }
        }
        assert!(random > 0);
        shape
    };
    let one = make(&|world, inside| {
        let file = world.file(inside, "one large file");
        world.tree.write(file, 0, &vec![7; 150_000]).unwrap();
    });
    let many = make(&|world, inside| {
        for number in 0..60 {
            let file = world.file(inside, &format!("many small ones {number}"));
            world.tree.write(file, 0, &Dice(number).bytes(2_300)).unwrap();
        }
    });
    assert_eq!(one, many, "but for what is sealed, both say the same");
    let more = make(&|world, inside| {
        let file = world.file(inside, "f");
        world.tree.write(file, 0, &Dice(1).bytes(300_000)).unwrap();
    });
    assert_ne!(one, more, "how large it is can be seen");
}
