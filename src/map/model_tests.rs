//! The map against a model: random histories, lookups, differences, relocation.
#![allow(clippy::unwrap_used)]

use super::memory::{Dice, Memory, Model, Sink, built, edits_of, entries_of, keys, walked};
use super::{Changed, Edit, EmitError, Entry, Map, MapError, NodeCache, Root, Which};
use crate::base::Place;
use std::collections::BTreeSet;

/// A key: inodes in a few neighbourhoods, a kind, sometimes a name, rarely one of the longest.
fn key(dice: &mut Dice, universe: u64) -> Vec<u8> {
    let number = dice.below(universe);
    let mut key = (number / 3 * 7).to_be_bytes().to_vec();
    key.push((number % 3) as u8 + 1);
    match number % 50 {
        0 => key.extend(vec![b'x'; number as usize % 900]),
        1..20 => key.extend(number.to_string().bytes()),
        _ => {}
    }
    key
}

fn value(dice: &mut Dice) -> (Vec<u8>, Option<Place>) {
    let length = match dice.below(100) {
        0 => dice.below(20_000),
        1..10 => dice.below(1_200),
        _ => dice.below(60),
    };
    let byte = dice.below(4) as u8;
    let place = (dice.below(2) == 0)
        .then(|| Place { offset: dice.below(1 << 40), length: 1 + dice.below(70_000) as u32 });
    (vec![byte; length as usize], place)
}

/// Changes the model at random; returns the edits that do the same, and sometimes some that do nothing.
fn change(dice: &mut Dice, model: &mut Model, universe: u64) -> Vec<Edit> {
    let mut changes = Model::new();
    let mut removed = BTreeSet::new();
    let count = [0, 1, 1, 2, 5, 40, 400][dice.below(7) as usize];
    let mood = dice.below(5);
    for _ in 0..count {
        let key = key(dice, universe);
        if dice.below(5) < mood {
            removed.insert(key);
        } else {
            changes.insert(key, value(dice));
        }
    }
    if dice.below(6) == 0 {
        // A run of neighbours goes at once.
        let from = key(dice, universe);
        removed.extend(model.range(from..).take(dice.below(500) as usize).map(|(key, _)| key.clone()));
    }
    if dice.below(25) == 0 {
        let spared = dice.below(3) as usize;
        removed.extend(model.keys().skip(spared).cloned());
    }
    removed.retain(|key| !changes.contains_key(key));
    model.extend(changes.clone());
    model.retain(|key, _| !removed.contains(key));
    let mut edits = edits_of(&changes);
    edits.extend(removed.into_iter().map(|key| Edit { key: key.into(), change: None }));
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    edits
}

fn identity(root: Option<Root>) -> Option<(u8, crate::base::Id)> {
    root.map(|root| (root.level, root.id))
}

#[test]
fn the_root_depends_on_the_content_alone() {
    let keys = keys();
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let universe = [30, 300, 4_000][seed as usize % 3];
        let memory = Memory::default();
        // Every size of cache: none, so small that it forgets at once, and one that holds all.
        let cache = NodeCache::new([0, 100_000, 50 << 20][dice.below(3) as usize]);
        let map = Map::new(&keys, &memory, &cache);
        let (mut model, mut root) = (Model::new(), None);
        for step in 0..12 {
            let edits = change(&mut dice, &mut model, universe);
            root = map.apply(root, &edits, &mut Sink(&memory)).unwrap();
            let (other_memory, other) = built(&keys, &model);
            assert_eq!(identity(root), identity(other), "seed {seed} step {step}");
            let (places, entries) = walked(&map, root.as_ref()).unwrap();
            assert_eq!(entries, entries_of(&model), "seed {seed} step {step}");
            assert_eq!(places, *memory.live.borrow(), "freed is what is gone: seed {seed} step {step}");
            assert_eq!(places.len(), other_memory.live.borrow().len());
            let mut each = BTreeSet::new();
            map.each_node(root.as_ref(), &mut |place| assert!(each.insert(place))).unwrap();
            assert_eq!(each, places);
        }
    }
}

#[test]
fn an_edit_that_changes_nothing_emits_nothing() {
    let keys = keys();
    let (mut dice, mut model) = (Dice(1), Model::new());
    while model.len() < 3_000 {
        change(&mut dice, &mut model, 9_000);
    }
    let (memory, root) = built(&keys, &model);
    let cache = NodeCache::new(1 << 20);
    let map = Map::new(&keys, &memory, &cache);
    memory.room.set(Some(0));
    let mut edits = edits_of(&model);
    edits.push(Edit { key: [0xff; 20].into(), change: None });
    assert_eq!(map.apply(root, &edits, &mut Sink(&memory)).unwrap(), root);
    assert_eq!(map.apply(root, &[], &mut Sink(&memory)).unwrap(), root);
}

#[test]
fn a_moved_object_changes_places_and_no_id() {
    let keys = keys();
    let (mut dice, mut model) = (Dice(2), Model::new());
    while model.len() < 2_000 {
        change(&mut dice, &mut model, 9_000);
    }
    let (memory, root) = built(&keys, &model);
    let cache = NodeCache::new(1 << 20);
    let map = Map::new(&keys, &memory, &cache);
    let (key, (value, _)) = model.iter().skip(1_000).find(|(_, (_, place))| place.is_some()).unwrap();
    let place = Some(Place { offset: 77, length: 99 });
    let edit = Edit { key: key.as_slice().into(), change: Some((value.as_slice().into(), place)) };
    let moved = map.apply(root, &[edit], &mut Sink(&memory)).unwrap();
    assert_eq!(identity(moved), identity(root));
    assert_ne!(moved, root);
    assert_eq!(map.get(moved.as_ref(), key).unwrap().unwrap().place, place);
    let mut differences = 0;
    map.diff::<MapError>(root.as_ref(), moved.as_ref(), &mut |_, _, _| {
        differences += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(differences, 0);
}

#[test]
fn lookups_and_ranges_are_the_models() {
    let keys = keys();
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut model = Model::new();
        for _ in 0..dice.below(30) {
            change(&mut dice, &mut model, 3_000);
        }
        let (memory, root) = built(&keys, &model);
        let cache = NodeCache::new(dice.below(2) as usize * 10_000_000);
        let map = Map::new(&keys, &memory, &cache);
        for _ in 0..200 {
            let wanted = key(&mut dice, 3_000);
            let found =
                map.get(root.as_ref(), &wanted).unwrap().map(|entry| (entry.value.into_vec(), entry.place));
            assert_eq!(found, model.get(&wanted).cloned(), "seed {seed}");
        }
        for wanted in
            [vec![], vec![0], vec![0xff; 40]].into_iter().chain((0..20).map(|_| key(&mut dice, 3_000)))
        {
            let mut cursor = map.range(root.as_ref(), &wanted);
            for (key, (value, place)) in model.range(wanted..) {
                let expected =
                    Entry { key: key.as_slice().into(), value: value.as_slice().into(), place: *place };
                assert_eq!(cursor.next().unwrap(), Some(expected), "seed {seed}");
            }
            assert_eq!(cursor.next().unwrap(), None);
            assert_eq!(cursor.next().unwrap(), None);
        }
    }
}

/// Key, and what either has: the value, and whether it has a place.
type Difference = (Vec<u8>, Option<(Vec<u8>, bool)>, Option<(Vec<u8>, bool)>);

fn model_difference(a: &Model, b: &Model) -> Vec<Difference> {
    let keys: BTreeSet<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    let value = |model: &Model, key| model.get(key).map(|(value, place)| (value.clone(), place.is_some()));
    let all = keys.into_iter().map(|key| (key.clone(), value(a, key), value(b, key)));
    all.filter(|(_, in_a, in_b)| in_a != in_b).collect()
}

#[test]
fn differences_are_the_models() {
    let keys = keys();
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let universe = [40, 5_000][seed as usize % 2];
        let mut old = Model::new();
        for _ in 0..dice.below(25) {
            change(&mut dice, &mut old, universe);
        }
        let mut new = old.clone();
        for _ in 0..dice.below(4) {
            change(&mut dice, &mut new, universe);
        }
        let (old_memory, old_root) = built(&keys, &old);
        let (new_memory, new_root) = built(&keys, &new);
        // One cache for both: equal ids, other places.
        let cache = NodeCache::new(20 << 20);
        let (from, to) = (Map::new(&keys, &old_memory, &cache), Map::new(&keys, &new_memory, &cache));
        let mut found: Vec<Difference> = Vec::new();
        from.diff_with::<MapError>(old_root.as_ref(), &to, new_root.as_ref(), &mut |key, in_old, in_new| {
            let value =
                |entry: Option<&Entry>| entry.map(|entry| (entry.value.to_vec(), entry.place.is_some()));
            found.push((key.to_vec(), value(in_old), value(in_new)));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, model_difference(&old, &new), "seed {seed}");
    }
}

#[test]
fn changed_nodes_are_those_that_one_map_has() {
    let keys = keys();
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let memory = Memory::default();
        let cache = NodeCache::new(20 << 20);
        let map = Map::new(&keys, &memory, &cache);
        let (mut model, mut root) = (Model::new(), None);
        for _ in 0..dice.below(25) {
            root = map.apply(root, &change(&mut dice, &mut model, 4_000), &mut Sink(&memory)).unwrap();
        }
        let old = memory.live.borrow().clone();
        let new_root = map.apply(root, &change(&mut dice, &mut model, 4_000), &mut Sink(&memory)).unwrap();
        let new = memory.live.borrow().clone();
        let (mut gone, mut come) = (BTreeSet::new(), BTreeSet::new());
        map.nodes_changed::<MapError>(
            root.as_ref(),
            new_root.as_ref(),
            &mut |Changed { which, root, entries }| {
                assert!(!entries.is_empty());
                assert!([&mut gone, &mut come][usize::from(which == Which::New)].insert(root.place));
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(gone, &old - &new, "seed {seed}");
        assert_eq!(come, &new - &old, "seed {seed}");
    }
}

#[test]
fn relocation_keeps_ids_and_moves_what_must() {
    let keys = keys();
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut model = Model::new();
        for _ in 0..1 + dice.below(25) {
            change(&mut dice, &mut model, 4_000);
        }
        let (memory, Some(root)) = built(&keys, &model) else { continue };
        let cache = NodeCache::new(dice.below(2) as usize * 10_000_000);
        let map = Map::new(&keys, &memory, &cache);
        let share = 1 + dice.below(40);
        let end = memory.bytes.borrow().len() as u64;
        // Nodes by their image, objects (which lie far beyond) by their offset; what was moved need not move again.
        let must_move = |place: Place| {
            let old = place.offset < end || (place.offset >= 1 << 20 && place.offset < 1 << 40);
            old && (place.offset / 1_000).is_multiple_of(share)
        };
        let moved = map.relocate(root, &must_move, &mut Sink(&memory)).unwrap();
        assert_eq!(identity(Some(moved)), identity(Some(root)));
        let (places, entries) = walked(&map, Some(&moved)).unwrap();
        assert_eq!(places, *memory.live.borrow(), "seed {seed}");
        assert!(!places.iter().any(|place| must_move(*place)));
        for (entry, (key, (value, place))) in entries.iter().zip(&model) {
            let place = place.map(|place| {
                if must_move(place) { Place { offset: place.offset + (1 << 40), ..place } } else { place }
            });
            assert_eq!((&entry.key[..], &entry.value[..], entry.place), (&key[..], &value[..], place));
        }
        assert_eq!(entries.len(), model.len());
        assert_eq!(map.relocate(moved, &|_| false, &mut Sink(&memory)).unwrap(), moved);
    }
}

#[test]
fn what_fails_frees_what_it_emitted() {
    let keys = keys();
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let mut model = Model::new();
        for _ in 0..10 {
            change(&mut dice, &mut model, 4_000);
        }
        let (memory, root) = built(&keys, &model);
        let before = memory.live.borrow().clone();
        let cache = NodeCache::new(1 << 20);
        let map = Map::new(&keys, &memory, &cache);
        memory.room.set(Some(dice.below(20) as usize));
        match map.apply(root, &change(&mut dice, &mut model, 4_000), &mut Sink(&memory)) {
            Ok(_) => {}
            Err(MapError::Emit(EmitError::NoSpace)) => {
                assert_eq!(*memory.live.borrow(), before, "seed {seed}")
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn edits_must_ascend_within_their_limits() {
    let (keys, memory, cache) = (keys(), Memory::default(), NodeCache::new(0));
    let map = Map::new(&keys, &memory, &cache);
    let edit =
        |key: &[u8], length: usize| Edit { key: key.into(), change: Some((vec![0; length].into(), None)) };
    let largest = edit(&[1; super::KEY_BYTES_MAX], super::VALUE_BYTES_MAX);
    assert!(map.apply(None, &[largest], &mut Sink(&memory)).is_ok());
    for bad in [
        vec![edit(b"", 1)],
        vec![edit(&[1; super::KEY_BYTES_MAX + 1], 1)],
        vec![edit(b"a", super::VALUE_BYTES_MAX + 1)],
        vec![edit(b"b", 1), edit(b"a", 1)],
        vec![edit(b"a", 1), edit(b"a", 1)],
    ] {
        assert!(matches!(map.apply(None, &bad, &mut Sink(&memory)), Err(MapError::Edits)));
    }
}
