use super::*;
use crate::image::StoreError;
use crate::image::manifest::{Manifest, decode_index};
use crate::image::slots::RunRef;
use crate::image::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock};
use std::ops::Range;

/// A store with two commits that differ in everything, and what each of them showed.
struct Damaged {
    disk: MemoryDisk,
    shown: [(Vec<u8>, Vec<blake3::Hash>); 2],
}

fn two_commits() -> Damaged {
    let (disk, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let first = append(&draft, 1, 3000);
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("one", &image)], b"first state").unwrap();
    let one = (store.state(), vec![digest(&store, &image)]);
    append(&draft, 2, 500);
    draft.free(first);
    let next = draft.snapshot().unwrap();
    store.commit(&[kept("two", &next), kept("one", &image)], b"second state").unwrap();
    let two = (store.state(), vec![digest(&store, &next), digest(&store, &image)]);
    // Nothing that is done without a commit may matter.
    append(&draft, 3, 700_000);
    append(&draft, 4, 700_000);
    draft.snapshot().unwrap();
    Damaged { disk: (*disk).clone(), shown: [one, two] }
}

fn shown(store: &Store) -> (Vec<u8>, Vec<blake3::Hash>) {
    (store.state(), store.kept().iter().map(|kept| digest(store, &kept.image)).collect())
}

fn superblock(disk: &MemoryDisk, location: usize) -> Superblock {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    disk.read_at(SUPERBLOCK_OFFSETS[location], &mut bytes).unwrap();
    Superblock::decode(&bytes).unwrap()
}

/// The byte ranges of everything that a superblock leads to but the slots.
fn runs(disk: &MemoryDisk, location: usize) -> Vec<Range<u64>> {
    let bytes = |run: RunRef| {
        let mut bytes = vec![0; run.bytes as usize];
        disk.read_at(run.offset(), &mut bytes).unwrap();
        bytes
    };
    let mut all = vec![superblock(disk, location).manifest];
    let manifest = Manifest::decode(&bytes(all[0]), false).unwrap();
    all.extend(manifest.state);
    for kept in manifest.kept {
        let index = kept.index.unwrap();
        all.push(index);
        all.extend(decode_index(&bytes(index), kept.regions).unwrap());
    }
    all.into_iter().map(|run| run.offset()..run.offset() + u64::from(run.bytes)).collect()
}

fn flip(disk: &MemoryDisk, at: u64) {
    let mut byte = [0];
    disk.read_at(at, &mut byte).unwrap();
    byte[0] ^= 1 << (at % 8);
    disk.write_at(at, &byte).unwrap();
}

#[test]
fn any_flipped_byte_leaves_one_of_the_two_commits() {
    let Damaged { disk, shown: [one, two] } = two_commits();
    let superblocks = SUPERBLOCK_OFFSETS.map(|offset| offset..offset + SUPERBLOCK_BYTES as u64);
    let (older, newer) = (runs(&disk, 0), runs(&disk, 1));
    let mut counts = [0, 0];
    for range in superblocks.into_iter().chain(older.clone()).chain(newer.clone()) {
        // The table of a version that both commits keep exists once.
        let shared = older.contains(&range) && newer.contains(&range);
        for at in range {
            let bent = Arc::new(disk.clone());
            flip(&bent, at);
            let store = match Store::open(bent.clone()) {
                Ok(store) if !shared => store,
                Err(StoreError::Damaged { .. }) if shared => continue,
                Ok(_) => panic!("byte {at} was not noticed"),
                Err(error) => panic!("byte {at}: {error}"),
            };
            let now = shown(&store);
            assert!(now == one || now == two, "byte {at}");
            counts[usize::from(now == two)] += 1;
            assert!(store.fell_back().is_some(), "byte {at}");
            // It was healed: what is committed next is found again.
            if at % 97 == 0 {
                store.commit(&store.kept(), b"third").unwrap();
                drop(store);
                let store = reopened(&bent);
                assert_eq!((store.state(), store.fell_back()), (b"third".to_vec(), None));
                assert_eq!(store.check(), []);
            }
        }
    }
    assert!(counts[0] > 4096 && counts[1] > 4096, "{counts:?}");
}

#[test]
fn damage_in_both_is_an_error_that_names_the_file() {
    let Damaged { disk, .. } = two_commits();
    for (a, b) in [(300, 300), (0, 300), (0, 0)] {
        let bent = disk.clone();
        flip(&bent, SUPERBLOCK_OFFSETS[0] + a);
        flip(&bent, SUPERBLOCK_OFFSETS[1] + b);
        let error = Store::open(Arc::new(bent)).err().unwrap();
        assert!(error.to_string().starts_with("a disk in memory is "), "{error}");
        assert_eq!(matches!(error, StoreError::NotAStore { .. }), (a, b) == (0, 0));
    }
    let bent = disk.clone();
    let (zero, one) = (runs(&disk, 0), runs(&disk, 1));
    flip(&bent, zero[0].start);
    flip(&bent, one.last().unwrap().start);
    assert!(matches!(Store::open(Arc::new(bent)), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_file_cut_anywhere_opens_soundly_or_not_at_all() {
    let Damaged { disk, shown: [one, two] } = two_commits();
    for bytes in (0..disk.length().unwrap()).step_by(4099) {
        let cut = disk.clone();
        cut.set_length(bytes).unwrap();
        if let Ok(store) = Store::open(Arc::new(cut)) {
            let now = shown(&store);
            assert!(now == one || now == two, "cut at {bytes}");
        }
    }
}

#[test]
fn random_damage_never_panics() {
    let Damaged { disk, .. } = two_commits();
    let ranges: Vec<Range<u64>> = runs(&disk, 0).into_iter().chain(runs(&disk, 1)).collect();
    for seed in 0..2000 {
        let mut dice = Dice::new(seed);
        let bent = disk.clone();
        for _ in 0..=dice.below(6) {
            let range = &ranges[dice.below(ranges.len() as u64) as usize];
            flip(&bent, range.start + dice.below(range.end - range.start));
        }
        if let Ok(store) = Store::open(Arc::new(bent)) {
            shown(&store);
            store.check();
        }
    }
}

#[test]
fn a_newer_format_is_named_and_not_touched() {
    let Damaged { disk, .. } = two_commits();
    for location in [0, 1] {
        let mut bytes = superblock(&disk, location).encode();
        bytes[8] = 9;
        let body = SUPERBLOCK_BYTES - 32;
        let checksum = *blake3::hash(&bytes[..body]).as_bytes();
        bytes[body..].copy_from_slice(&checksum);
        disk.write_at(SUPERBLOCK_OFFSETS[location], &bytes).unwrap();
    }
    assert!(matches!(Store::open(Arc::new(disk)), Err(StoreError::Format { found: 9, .. })));
}

#[test]
fn tables_that_name_what_cannot_be_are_refused_though_their_checksums_hold() {
    use crate::image::slots::Slots;
    use crate::image::table::{LEAF_BYTES, Leaf};
    let entry = |slot: u64, fill: u64, live: u64| (slot << 42 | fill << 21 | live).to_le_bytes();
    let decode = |entries: &[[u8; 8]]| {
        let slots = Slots::new(10);
        let mut bytes = entries.as_flattened().to_vec();
        bytes.resize(LEAF_BYTES as usize, 0);
        let run = slots.adopt_run(RunRef { page: 9 * 256, bytes: LEAF_BYTES, hash: [0; 32] }).unwrap();
        let outcome = Leaf::decode(&slots, &bytes, 10 << 20, run).map(drop);
        // Whatever came of it, all references were given back.
        assert_eq!(slots.counts(), (0, 0, 9));
        outcome
    };
    assert_eq!(decode(&[entry(3, 100, 50), entry(0, 0, 0), entry(9 - 1, 1 << 20, 1 << 20)]), Ok(()));
    let hostile = [
        entry(0, 5, 0),
        entry(0, 0, 5),
        entry(3, (1 << 20) + 1, 0),
        entry(3, 0, (1 << 20) + 1),
        entry(10, 1, 0),
        entry(9, 1, 0),
        entry((1 << 22) - 1, 1 << 20, 1),
    ];
    for bad in hostile {
        assert!(decode(&[entry(3, 100, 50), bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn check_finds_what_was_bent_under_an_open_store() {
    let (disk, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    append(&draft, 1, 3000);
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("one", &image)], b"first").unwrap();
    store.commit(&[kept("one", &image)], b"second").unwrap();
    assert_eq!(store.check(), []);
    flip(&disk, runs(&disk, 0)[2].start);
    let findings = store.check();
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings[0].to_string().contains("a table's index at byte"), "{}", findings[0]);
}

#[test]
fn a_store_with_a_damaged_table_opens_for_repair() {
    let Damaged { disk, shown: [_, two] } = two_commits();
    let (older, newer) = (runs(&disk, 0), runs(&disk, 1));
    let shared: Vec<_> = newer.iter().filter(|run| older.contains(run)).cloned().collect();
    assert!(!shared.is_empty());
    for run in shared {
        let bent = Arc::new(disk.clone());
        flip(&bent, run.start + 9);
        assert!(matches!(Store::open(bent.clone()), Err(StoreError::Damaged { .. })));
        let before = bent.length().unwrap();
        let store = Store::rescue(bent.clone()).unwrap();
        assert!(!store.rescued().is_empty());
        assert_eq!(bent.length().unwrap(), before, "nothing is written yet");
        assert!(store.check().iter().any(|finding| finding.place == "the tables"));
        // The head's own table is sound, and what the other one lacks is taken from it.
        assert_eq!((store.state(), digest(&store, &store.kept()[0].image)), (two.0.clone(), two.1[0]));
        store.commit(&store.kept(), b"repaired").unwrap();
        store.commit(&store.kept(), b"repaired").unwrap();
        drop(store);
        let store = reopened(&bent);
        assert_eq!((store.state(), store.check(), store.rescued().len()), (b"repaired".to_vec(), vec![], 0));
    }
}

#[test]
fn what_was_lost_can_be_put_back() {
    let (disk, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let place = append(&draft, 1, 3_000);
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("one", &image)], b"").unwrap();
    let whole = store.read_object(&image, place).unwrap();
    let at = (0..disk.length().unwrap())
        .find(|at| {
            flip(&disk, *at);
            let hit = store.read_object(&image, place).unwrap() != whole;
            if !hit {
                flip(&disk, *at);
            }
            hit
        })
        .unwrap();
    store.mend(&image, place.offset, &whole).unwrap();
    assert_eq!(store.read_object(&image, place).unwrap(), whole, "byte {at}");
    // Nothing is written behind what the image shows.
    let digest_before = digest(&store, &image);
    store.mend(&image, place.offset, &[whole, vec![7; 5_000]].concat()).unwrap();
    assert_eq!(digest(&store, &image), digest_before);
}
