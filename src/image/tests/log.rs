//! The intent log: what was appended is there after a power cut, and nothing else ever is.

use super::crash::CutDisk;
use super::*;
use crate::image::{CrashDisk, Fate, StoreError};
use std::sync::atomic::{AtomicU64, Ordering};

fn batch(number: usize) -> Vec<u8> {
    (0..number * 97 % 5000).map(|at| (at * number) as u8).collect()
}

fn payloads(store: &Store) -> Vec<Vec<u8>> {
    store.log_batches().unwrap().into_iter().map(|(_, payload)| payload).collect()
}

#[test]
fn a_store_without_a_log_says_so_and_gets_one_with_a_commit() {
    let disk = Arc::new(MemoryDisk::new());
    let store = Store::create(disk.clone(), DATABASE).unwrap();
    assert!(matches!(store.log_append(b"early"), Err(StoreError::LogFull { .. })));
    store.commit(&[], b"plain").unwrap();
    assert!(matches!(store.log_append(b"early"), Err(StoreError::LogFull { .. })));
    store.commit_logged(&[], b"logged", Some(store.log_end())).unwrap();
    store.log_append(b"one").unwrap();
    store.log_append(b"").unwrap();
    drop(store);
    let store = Store::open(disk).unwrap();
    assert_eq!(payloads(&store), [b"one".to_vec(), Vec::new()]);
    assert!(store.check().is_empty());
}

#[test]
fn batches_go_on_where_they_ended_and_a_commit_frees_their_room() {
    let disk = Arc::new(MemoryDisk::new());
    let store = Store::create(disk.clone(), DATABASE).unwrap();
    store.commit_logged(&[], b"", Some(0)).unwrap();
    let mut expected: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut laps = 0;
    for number in 0..20_000 {
        let payload = batch(number);
        let position = match store.log_append(&payload) {
            Ok(position) => position,
            Err(StoreError::LogFull { .. }) => {
                // Half of what is there is held by the commit; the one before it needs the rest until the next.
                let half = expected[expected.len() / 2].0;
                store.commit_logged(&[], b"", Some(half)).unwrap();
                assert!(matches!(store.log_append(&payload), Err(StoreError::LogFull { .. })));
                store.commit_logged(&[], b"", Some(half)).unwrap();
                expected.retain(|(position, _)| *position >= half);
                laps += 1;
                store.log_append(&payload).unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        expected.push((position, payload));
        if number % 1000 == 0 {
            let again = Store::open(Arc::new((*disk).clone())).unwrap();
            assert_eq!(again.log_batches().unwrap(), expected, "after {number}");
        }
    }
    assert!(laps > 5, "the ring was gone round several times");
}

#[test]
fn a_power_cut_leaves_all_that_was_synced_and_no_half_batch() {
    let mut torn = 0;
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let disk = Arc::new(CutDisk { inner: CrashDisk::new(), left: AtomicU64::new(u64::MAX) });
        let store = Store::create(disk.clone(), DATABASE).unwrap();
        store.commit_logged(&[], b"", Some(0)).unwrap();
        disk.left.store(dice.below(12), Ordering::SeqCst);
        let mut synced: Vec<Vec<u8>> = Vec::new();
        let mut last = None;
        for number in 0..12 {
            let payload = batch(seed as usize * 31 + number);
            match store.log_append(&payload) {
                Ok(_) => synced.push(payload),
                Err(_) => {
                    last = Some(payload);
                    break;
                }
            }
            if number == 3 && store.commit_logged(&[], b"x", Some(store.log_end())).is_ok() {
                synced.clear();
            }
        }
        let after = disk.inner.crash(|| match dice.below(3) {
            0 => Fate::Kept,
            1 => Fate::Torn,
            _ => Fate::Lost,
        });
        let found = payloads(&Store::open(Arc::new(after)).unwrap());
        torn += usize::from(last.is_some() && found == synced);
        let with_last = synced.iter().cloned().chain(last).collect::<Vec<_>>();
        // A commit that was cut off may or may not count; what it holds is in it or in the log.
        assert!(
            found == synced || found == with_last || found.is_empty() && synced.len() == 4,
            "seed {seed}"
        );
    }
    assert!(torn > 50, "{torn}");
}

#[test]
fn damage_in_the_log_ends_it_there() {
    let disk = Arc::new(MemoryDisk::new());
    let store = Store::create(disk.clone(), DATABASE).unwrap();
    store.commit_logged(&[], b"", Some(0)).unwrap();
    let payload = vec![7; 300];
    for _ in 0..3 {
        store.log_append(&payload).unwrap();
    }
    let length = disk.length().unwrap();
    let mut all = vec![0; length as usize];
    disk.read_at(0, &mut all).unwrap();
    let magic: Vec<usize> =
        all.windows(8).enumerate().filter(|(_, bytes)| bytes == b"kilofslg").map(|(at, _)| at).collect();
    assert_eq!(magic.len(), 3);
    for (at, byte) in all.iter().enumerate().skip(magic[1]).take(52 + 300) {
        let bent = (*disk).clone();
        bent.write_at(at as u64, &[byte ^ 0x10]).unwrap();
        let store = Store::open(Arc::new(bent)).unwrap();
        assert_eq!(payloads(&store).len(), 1, "byte {at}");
    }
}

#[test]
fn a_ring_far_out_moves_in_so_that_the_file_can_shrink() {
    let disk = Arc::new(MemoryDisk::new());
    let store = Store::create(disk.clone(), DATABASE).unwrap();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    for number in 0..80 {
        draft.append(Stream::Fresh, &vec![number; 1_000_000]).unwrap();
    }
    let large = draft.snapshot().unwrap();
    drop(draft);
    store.commit_logged(&[kept("head", &large)], b"", Some(0)).unwrap();
    assert!(disk.length().unwrap() > 88 << 20);
    drop(large);
    for _ in 0..4 {
        store.commit_logged(&[], b"", Some(store.log_end())).unwrap();
    }
    assert!(disk.length().unwrap() < 24 << 20, "{} bytes", disk.length().unwrap());
    store.log_append(b"still there").unwrap();
    drop(store);
    assert_eq!(payloads(&Store::open(disk).unwrap()), [b"still there"]);
}
