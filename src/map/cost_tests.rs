//! What a change costs, counted in bytes and reads.
#![allow(clippy::unwrap_used)]

use super::memory::{Memory, Sink, keys};
use super::{Edit, Map, NodeCache};

fn file(number: u64) -> [Edit; 2] {
    let inode = (1u64 << 33) + number;
    let record = [&inode.to_be_bytes()[..], &[1]].concat();
    let entry = [&1u64.to_be_bytes()[..], &[2], format!("file-{number:07}").as_bytes()].concat();
    let edit = |key: Vec<u8>, value: Vec<u8>| Edit { key: key.into(), change: Some((value.into(), None)) };
    [edit(record, vec![number as u8; 60]), edit(entry, inode.to_le_bytes().to_vec())]
}

#[test]
fn one_new_file_among_many_rewrites_few_and_small_nodes() {
    const FILES: u64 = 50_000;
    const BYTES_MAX: usize = 24 << 10;
    const MEAN_BYTES_MAX: usize = 12 << 10;
    let (keys, memory, cache) = (keys(), Memory::default(), NodeCache::new(64 << 20));
    let map = Map::new(&keys, &memory, &cache);
    let mut edits: Vec<Edit> = (0..FILES).map(|number| number * 2).flat_map(file).collect();
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    let mut root = map.apply(None, &edits, &mut Sink(&memory)).unwrap();
    let mut sum = 0;
    for number in 0..100 {
        memory.emitted.set(0);
        memory.fetched.set(0);
        let mut edits = file(number * 997 + 1);
        edits.sort_by(|a, b| a.key.cmp(&b.key));
        root = map.apply(root, &edits, &mut Sink(&memory)).unwrap();
        assert!(memory.emitted.get() < BYTES_MAX, "{} bytes", memory.emitted.get());
        assert_eq!(memory.fetched.get(), 0, "all was in the cache");
        sum += memory.emitted.get();
    }
    assert!(sum / 100 < MEAN_BYTES_MAX, "{} bytes on average", sum / 100);
}

#[test]
fn the_cache_keeps_to_its_limit() {
    const CACHE_BYTES: usize = 1 << 20;
    let (keys, memory, cache) = (keys(), Memory::default(), NodeCache::new(CACHE_BYTES));
    let map = Map::new(&keys, &memory, &cache);
    let mut edits: Vec<Edit> = (0..20_000).flat_map(file).collect();
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    let root = map.apply(None, &edits, &mut Sink(&memory)).unwrap();
    let mut cursor = map.range(root.as_ref(), &[]);
    while cursor.next().unwrap().is_some() {}
    assert!(cache.bytes() <= CACHE_BYTES);
    assert!(cache.bytes() > CACHE_BYTES / 2);
}
