//! Nodes that nobody's encoder writes: all are refused, none panics.
#![allow(clippy::unwrap_used)]

use super::memory::{Dice, Memory, Model, Sink, built, edits_of, keys, walked};
use super::node::{Encoded, Node};
use super::{Edit, Entry, LEVEL_MAX, Map, MapError, NODE_ENTRIES_MAX, NodeCache, Root};
use crate::base::{Id, Place, Writer};
use crate::crypt::SealKeys;

fn some_node(dice: &mut Dice, level: u8) -> Node {
    let keys = keys();
    let boundary = super::boundary::Boundary::new(keys.boundary_key(), level);
    loop {
        let mut names: Vec<Vec<u8>> = (0..1 + dice.below(32))
            .map(|_| (0..1 + dice.below(12)).map(|_| b'a' + dice.below(3) as u8).collect())
            .collect();
        names.sort();
        names.dedup();
        let entry = |dice: &mut Dice, name: Vec<u8>| {
            let place = Place { offset: dice.below(1 << 30), length: 1 + dice.below(70_000) as u32 };
            let placed = level > 0 || dice.below(2) == 0;
            let length = if level > 0 { 32 } else { dice.below(300) as usize };
            Entry {
                key: name.into(),
                value: vec![dice.roll() as u8; length].into(),
                place: placed.then_some(place),
            }
        };
        let entries: Vec<Entry> = names.into_iter().map(|name| entry(dice, name)).collect();
        if boundary.could_be_node(&entries) {
            return Node { level, entries };
        }
    }
}

fn decode(level: u8, logical: &[u8], placements: &[u8]) -> Option<Node> {
    let boundary = super::boundary::Boundary::new(keys().boundary_key(), level);
    Node::decode(level, logical, placements, &boundary).ok()
}

#[test]
fn a_node_has_one_form() {
    for seed in 0..3_000 {
        let mut dice = Dice(seed);
        let node = some_node(&mut dice, (seed % 3) as u8);
        let Encoded { logical, placements } = node.encode();
        assert_eq!(decode(node.level, &logical, &placements), Some(node), "seed {seed}");
        // Whatever else decodes is another node, whose one form that is.
        for _ in 0..30 {
            let (mut logical, mut placements) = (logical.clone(), placements.clone());
            let level = dice.below(3) as u8;
            let victim = if dice.below(4) == 0 { &mut placements } else { &mut logical };
            let at = dice.below(victim.len() as u64 + 1) as usize;
            match dice.below(4) {
                0 => victim.truncate(at),
                1 => victim.insert(at, dice.roll() as u8),
                2 if at < victim.len() => drop(victim.remove(at)),
                _ if at < victim.len() => victim[at] ^= 1 << dice.below(8),
                _ => victim.extend([0; 9]),
            }
            if let Some(other) = decode(level, &logical, &placements) {
                let again = other.encode();
                assert_eq!((again.logical, again.placements), (logical, placements), "seed {seed}");
            }
        }
    }
}

#[test]
fn noise_is_refused_without_panic() {
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let mut noise = |length: u64| -> Vec<u8> { (0..length).map(|_| dice.roll() as u8 % 9).collect() };
        let (logical, placements) = (noise(seed % 90), noise(seed % 4 * 9));
        if let Some(node) = decode((seed % 2) as u8, &logical, &placements) {
            assert_eq!(node.encode().logical, logical);
        }
    }
}

/// A leaf written by hand: shared, rest of the key, value length × 2 + placed, value.
fn leaf(entries: &[(u64, &[u8], u64, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (shared, rest, length, value) in entries {
        writer.varint(*shared).bytes(rest).varint(*length).raw(value);
    }
    writer.0
}

#[test]
fn what_the_encoder_would_not_write_is_refused() {
    assert!(decode(0, &leaf(&[(0, b"ab", 2, b"v"), (1, b"c", 2, b"v")]), &[]).is_some());
    let place = [1, 0, 0, 0, 0, 0, 1, 0, 0];
    assert!(decode(0, &leaf(&[(0, b"ab", 3, b"v")]), &place).is_some());
    let long = vec![b'k'; super::KEY_BYTES_MAX + 1];
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("no entries", vec![], vec![]),
        ("an empty key", leaf(&[(0, b"", 0, b"")]), vec![]),
        ("a prefix of nothing", leaf(&[(1, b"a", 0, b"")]), vec![]),
        ("a key twice", leaf(&[(0, b"ab", 0, b""), (2, b"", 0, b"")]), vec![]),
        ("keys that descend", leaf(&[(0, b"b", 0, b""), (0, b"a", 0, b"")]), vec![]),
        ("too little shared", leaf(&[(0, b"ab", 0, b""), (0, b"ac", 0, b"")]), vec![]),
        ("a key beyond the limit", leaf(&[(0, &long, 0, b"")]), vec![]),
        ("a value that ends early", leaf(&[(0, b"a", 4, b"v")]), vec![]),
        ("a value beyond the limit", leaf(&[(0, b"a", u64::MAX, b"v")]), vec![]),
        ("a place that is missing", leaf(&[(0, b"a", 3, b"v")]), vec![]),
        ("a place too many", leaf(&[(0, b"a", 2, b"v")]), place.to_vec()),
        ("a place of nothing", leaf(&[(0, b"a", 3, b"v")]), vec![0; 9]),
    ];
    for (what, logical, placements) in cases {
        assert_eq!(decode(0, &logical, &placements), None, "{what}");
    }
}

#[test]
fn a_node_that_should_have_been_split_is_refused() {
    let keys = keys();
    let boundary = super::boundary::Boundary::new(keys.boundary_key(), 0);
    let numbers = (0..100_000u64).map(|number| number.to_be_bytes());
    let (ends, others): (Vec<_>, Vec<_>) = numbers.partition(|key| boundary.ends_run(key));
    let refused = |chosen: &[[u8; 8]], bytes: usize| {
        let entry = |key: &[u8; 8]| Entry { key: (*key).into(), value: vec![0; bytes].into(), place: None };
        let node = Node { level: 0, entries: chosen.iter().map(entry).collect() };
        decode(0, &node.encode().logical, &[]).is_none()
    };
    assert!(!refused(&others[..NODE_ENTRIES_MAX], 0));
    assert!(refused(&others[..NODE_ENTRIES_MAX + 1], 0), "too many entries");
    assert!(!refused(&others[..2], 8_000));
    assert!(refused(&others[..2], 9_000), "too heavy");
    assert!(!refused(&others[..1], 40_000), "one entry may be heavy");
    let after = others.iter().find(|key| **key > ends[0]).unwrap();
    assert!(refused(&[ends[0], *after], 0), "a run that ends inside");
}

struct Forge<'f> {
    keys: &'f SealKeys,
    memory: Memory,
}

impl Forge<'_> {
    /// Seals a node with the right keys: what one who may write can do.
    fn seal(&self, level: u8, entries: Vec<Entry>) -> Root {
        let Encoded { logical, placements } = Node { level, entries }.encode();
        let mut sealed = Vec::new();
        let id = self.keys.seal_node(level, &logical, &placements, &mut sealed);
        Root { level, id, place: self.memory.append(&sealed) }
    }

    fn leaf(&self, names: &[&str]) -> Root {
        let entry = |name: &&str| Entry { key: name.as_bytes().into(), value: [].into(), place: None };
        self.seal(0, names.iter().map(entry).collect())
    }

    fn above(&self, level: u8, children: &[(&str, Root)]) -> Root {
        let entry = |(name, root): &(&str, Root)| Node::entry_of(name.as_bytes().into(), root);
        self.seal(level, children.iter().map(entry).collect())
    }

    /// Whether every way to read the map refuses it.
    fn refuses(&self, root: Root) -> bool {
        let cache = NodeCache::new(1 << 20);
        let map = Map::new(self.keys, &self.memory, &cache);
        let tampered = |result: Result<(), MapError>| matches!(result, Err(MapError::Tampered(_)));
        let mut scanned = Ok(());
        let mut cursor = map.range(Some(&root), &[]);
        loop {
            match cursor.next() {
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(error) => scanned = Err(error),
            }
            break;
        }
        let removal = |name: &[u8]| Edit { key: name.into(), change: None };
        let edits: Vec<Edit> = (b'a'..=b'z').map(|name| removal(&[name])).collect();
        tampered(walked(&map, Some(&root)).map(|_| ()))
            && tampered(scanned)
            && tampered(map.diff(None, Some(&root), &mut |_, _, _| Ok(())))
            && tampered(map.nodes_changed(None, Some(&root), &mut |_| Ok(())))
            && tampered(map.apply(Some(root), &edits, &mut Sink(&self.memory)).map(|_| ()))
            && tampered(map.relocate(root, &|_| false, &mut Sink(&self.memory)).map(|_| ()))
    }
}

#[test]
fn trees_that_no_map_forms_are_refused() {
    let keys = keys();
    let forge = Forge { keys: &keys, memory: Memory::default() };
    let (ab, cd) = (forge.leaf(&["a", "b"]), forge.leaf(&["c", "d"]));
    let cases = [
        ("a child whose last key is another", forge.above(1, &[("b", ab), ("e", cd)])),
        (
            "a child that begins before its place",
            forge.above(1, &[("b", ab), ("d", forge.leaf(&["b", "d"]))]),
        ),
        ("a child twice", forge.above(1, &[("b", ab), ("c", ab)])),
        ("a root with one child", forge.above(1, &[("b", ab)])),
        ("a level left out", forge.above(2, &[("b", ab), ("d", cd)])),
        ("a leaf that calls itself a root above", Root { level: 1, ..ab }),
        ("a root above the highest", Root { level: LEVEL_MAX + 1, ..ab }),
        ("a root of another content", Root { id: cd.id, ..ab }),
        ("a root in another's place", Root { place: cd.place, ..ab }),
        ("a place too short", Root { place: Place { length: ab.place.length - 1, ..ab.place }, ..ab }),
        ("a place too long", Root { place: Place { length: ab.place.length + 1, ..ab.place }, ..ab }),
        ("a place of nothing", Root { place: Place { length: 0, ..ab.place }, ..ab }),
        ("a place of more than a node", Root { place: Place { length: (1 << 24) - 1, ..ab.place }, ..ab }),
    ];
    for (what, root) in cases {
        assert!(forge.refuses(root), "{what}");
    }
}

#[test]
fn a_walk_refuses_nodes_that_end_in_the_wrong_place() {
    let keys = keys();
    let forge = Forge { keys: &keys, memory: Memory::default() };
    let cache = NodeCache::new(0);
    let map = Map::new(&keys, &forge.memory, &cache);
    let boundary = map.boundary(0);
    assert!(!(b'a'..=b'd').any(|name| boundary.ends_run(&[name])), "the case needs one run");
    let split = forge.above(1, &[("b", forge.leaf(&["a", "b"])), ("d", forge.leaf(&["c", "d"]))]);
    assert!(matches!(walked(&map, Some(&split)), Err(MapError::Tampered(_))));
    assert!(walked(&map, Some(&forge.leaf(&["a", "b", "c", "d"]))).is_ok());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let keys = keys();
    let model: Model = (0..400u32).map(|n| (n.to_be_bytes().to_vec(), (vec![n as u8; 20], None))).collect();
    let (memory, root) = built(&keys, &model);
    let cache = NodeCache::new(1 << 20);
    let map = Map::new(&keys, &memory, &cache);
    assert!(walked(&map, root.as_ref()).is_ok());
    let end = memory.bytes.borrow().len();
    for at in (0..end).step_by(7) {
        memory.bytes.borrow_mut()[at] ^= 1 << (at % 8);
        assert!(
            matches!(walked(&map, root.as_ref()), Err(MapError::Tampered(_))),
            "byte {at}, with a warm cache"
        );
        memory.bytes.borrow_mut()[at] ^= 1 << (at % 8);
    }
}

#[test]
fn one_place_in_two_images_is_two_nodes() {
    let keys = keys();
    let cache = NodeCache::new(1 << 20);
    let model = |offset| -> Model {
        let place = Some(Place { offset, length: 5 });
        (0..100u32).map(|n| (n.to_be_bytes().to_vec(), (vec![1], place))).collect()
    };
    let (ours, theirs) = (Memory::default(), Memory::default());
    let (our_map, their_map) = (Map::new(&keys, &ours, &cache), Map::new(&keys, &theirs, &cache));
    let our_root = our_map.apply(None, &edits_of(&model(100)), &mut Sink(&ours)).unwrap().unwrap();
    let their_root = their_map.apply(None, &edits_of(&model(200)), &mut Sink(&theirs)).unwrap().unwrap();
    assert_eq!(our_root, their_root, "same content, same places of nodes");
    for (map, offset) in [(&our_map, 100), (&their_map, 200)] {
        let entry = map.get(Some(&our_root), &50u32.to_be_bytes()).unwrap().unwrap();
        assert_eq!(entry.place, Some(Place { offset, length: 5 }));
    }
}

#[test]
fn other_keys_open_nothing() {
    let (memory, cache) = (Memory::default(), NodeCache::new(1 << 20));
    let ours = keys();
    let edit = Edit { key: [1].into(), change: Some(([2].into(), None)) };
    let root = Map::new(&ours, &memory, &cache).apply(None, &[edit], &mut Sink(&memory)).unwrap();
    let scope = crate::crypt::Scope {
        database: crate::base::DatabaseId([1; 32]),
        block: crate::base::BlockNumber(3),
        epoch: 0,
    };
    let others = SealKeys::new(&crate::crypt::Secret::new([8; 32]), scope);
    let cache = NodeCache::new(0);
    let map = Map::new(&others, &memory, &cache);
    assert!(matches!(map.get(root.as_ref(), &[1]), Err(MapError::Tampered(_))));
    let nowhere = Root { level: 0, id: Id([0; 32]), place: Place { offset: 1 << 47, length: 100 } };
    assert!(matches!(map.get(Some(&nowhere), &[1]), Err(MapError::Fetch(_))));
}
