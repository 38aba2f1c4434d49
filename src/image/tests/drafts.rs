use super::*;
use crate::base::{REGION_BYTES, RegionIndex};
use crate::image::{Region, StoreError};

#[test]
fn what_is_appended_can_be_read_at_once_and_after_a_snapshot_and_after_reopening() {
    let (disk, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let places: Vec<Place> = (0..100).map(|seed| append(&draft, seed, 60_000)).collect();
    for (seed, place) in places.iter().enumerate() {
        assert_eq!(draft.read(*place).unwrap(), object(seed as u64, 60_000));
        assert_eq!(RegionIndex::of(place.offset), RegionIndex::of(place.offset + 59_999), "one region");
    }
    let image = draft.snapshot().unwrap();
    assert_eq!(image.live_bytes(), 6_000_000);
    assert_eq!(image.regions(), 6);
    store.commit(&[kept("head", &image)], b"state").unwrap();
    drop((draft, image, store));
    let store = reopened(&disk);
    assert_eq!(store.state(), b"state");
    assert_eq!(store.database(), DATABASE);
    assert_eq!(store.fell_back(), None);
    let [head] = &store.kept()[..] else { panic!("one version was kept") };
    assert_eq!(head.label, Label(b"head".to_vec()));
    assert_eq!(head.image.live_bytes(), 6_000_000);
    for (seed, place) in places.iter().enumerate() {
        assert_eq!(store.read_object(&head.image, *place).unwrap(), object(seed as u64, 60_000));
    }
    assert_eq!(store.check(), []);
}

#[test]
fn an_image_of_nothing_still_has_a_region() {
    let (disk, store) = memory_store();
    let empty = Image::empty(&store);
    assert_eq!((empty.regions(), empty.bytes()), (0, 0));
    store.commit(&[kept("none", &empty)], b"").unwrap();
    let image = store.draft(&empty).unwrap().snapshot().unwrap();
    assert_eq!((image.regions(), image.region(RegionIndex(0))), (1, Region::EMPTY));
    assert!(content(&store, &image).iter().all(|byte| *byte == 0));
    store.commit(&[kept("none", &empty), kept("one", &image)], b"").unwrap();
    let again = reopened(&disk).kept();
    assert_eq!(again.iter().map(|kept| kept.image.regions()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_snapshot_without_changes_is_the_same_image() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    append(&draft, 1, 10);
    let first = draft.snapshot().unwrap();
    assert!(first.same(&draft.snapshot().unwrap()));
    let other = store.draft(&first).unwrap();
    assert!(first.same(&other.snapshot().unwrap()));
    append(&draft, 2, 10);
    assert!(!first.same(&draft.snapshot().unwrap()));
}

#[test]
fn an_older_snapshot_does_not_see_what_its_draft_appends() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let mut seen = Vec::new();
    for seed in 0..40 {
        append(&draft, seed, 50_000);
        let image = draft.snapshot().unwrap();
        seen.push((digest(&store, &image), image));
    }
    assert_eq!(store.statistics().unwrap().slots_used, 2, "all forty share two slots");
    for (digest_then, image) in &seen {
        assert_eq!(digest(&store, image), *digest_then);
    }
}

#[test]
fn emptied_regions_become_holes_that_are_filled_again_and_the_end_is_cut() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let whole = (REGION_BYTES - 16) as usize;
    let places: Vec<Place> = (0..4).map(|seed| append(&draft, seed, whole)).collect();
    append(&draft, 9, 1000);
    let old = draft.snapshot().unwrap();
    let before = digest(&store, &old);
    draft.free(places[1]);
    draft.free(places[3]);
    assert_eq!(draft.truncate_empty(), [RegionIndex(1), RegionIndex(3)]);
    let image = draft.snapshot().unwrap();
    assert_eq!(image.regions(), 5);
    assert_eq!(image.region(RegionIndex(1)), Region::EMPTY);
    let filled = append(&draft, 10, whole);
    assert_eq!(RegionIndex::of(filled.offset), RegionIndex(1));
    let image = draft.snapshot().unwrap();
    assert_ne!(image.region(RegionIndex(1)).slot, old.region(RegionIndex(1)).slot);
    draft.empty_regions(&[RegionIndex(4), RegionIndex(2)]);
    assert_eq!(draft.regions(), 2);
    assert_eq!(draft.snapshot().unwrap().regions(), 2);
    assert_eq!(store.read_object(&image, filled).unwrap(), object(10, whole));
    assert_eq!(digest(&store, &old), before);
}

#[test]
fn an_object_freed_before_its_region_was_closed_does_not_count() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let place = append(&draft, 1, 500);
    assert_eq!(draft.region(RegionIndex(0)), Region { live: 500, fill: 500, ..draft.region(RegionIndex(0)) });
    draft.free(place);
    draft.free(Place { offset: u64::MAX, length: 7 });
    let image = draft.snapshot().unwrap();
    assert_eq!((image.live_bytes(), image.filled_bytes()), (0, 500));
    assert_eq!(draft.truncate_empty(), [RegionIndex(0)]);
    assert_eq!(draft.snapshot().unwrap().region(RegionIndex(0)), Region::EMPTY);
}

#[test]
fn the_streams_fill_regions_of_their_own() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let fresh = append(&draft, 1, 100);
    let moved = draft.append(Stream::Cleaning, &object(2, 100)).unwrap();
    assert_ne!(RegionIndex::of(fresh.offset), RegionIndex::of(moved.offset));
    let image = draft.snapshot().unwrap();
    assert!(draft.is_open(RegionIndex(0)) && draft.is_open(RegionIndex(1)));
    // Another draft goes on where this one left off, in both.
    let next = store.draft(&image).unwrap();
    assert_eq!(append(&next, 3, 50).offset, 100);
    assert_eq!(next.append(Stream::Cleaning, &object(4, 50)).unwrap().offset, REGION_BYTES + 100);
}

#[test]
fn objects_that_cannot_be_are_refused() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let huge = vec![1; REGION_BYTES as usize];
    assert!(matches!(draft.append(Stream::Fresh, &huge), Err(StoreError::TooLarge { .. })));
    append(&draft, 1, 100);
    let image = draft.snapshot().unwrap();
    let hostile = [
        (REGION_BYTES, 1),
        (REGION_BYTES - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, u32::MAX),
        (0, u32::MAX),
        (1 << 60, 0),
    ];
    for (offset, length) in hostile {
        let place = Place { offset, length };
        assert!(matches!(draft.read(place), Err(StoreError::OutOfRange { .. })), "{place:?}");
        assert!(matches!(store.read_object(&image, place), Err(StoreError::OutOfRange { .. })), "{place:?}");
    }
    let (_, other) = memory_store();
    assert!(matches!(other.draft(&image), Err(StoreError::Foreign { .. })));
    assert!(matches!(other.commit(&[kept("x", &image)], b""), Err(StoreError::Foreign { .. })));
    assert!(matches!(other.read(&image, 0, &mut [0]), Err(StoreError::Foreign { .. })));
}

#[test]
fn a_commit_refuses_what_passes_its_limits_and_takes_what_reaches_them() {
    let (disk, store) = memory_store();
    let image = Image::empty(&store);
    let label = |bytes: usize| Kept { label: Label(vec![b'x'; bytes]), image: image.clone() };
    let full: Vec<Kept> = (0..64).map(|_| label(256)).collect();
    store.commit(&full, &vec![5; 1 << 20]).unwrap();
    let again = reopened(&disk);
    assert_eq!((again.kept().len(), again.state().len()), (64, 1 << 20));
    for refused in [
        store.commit(&[label(257)], b""),
        store.commit(&vec![label(1); 65], b""),
        store.commit(&[], &vec![0; (1 << 20) + 1]),
    ] {
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    }
}

#[test]
fn many_threads_append_and_read_and_take_snapshots() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (draft, store) = (&draft, &store);
            scope.spawn(move || {
                let mut dice = Dice::new(thread);
                let mut mine: Vec<(u64, usize, Place)> = Vec::new();
                for round in 0..300 {
                    let (seed, bytes) = (thread << 32 | round, 1 + dice.below(70_000) as usize);
                    let stream = if dice.below(4) == 0 { Stream::Cleaning } else { Stream::Fresh };
                    mine.push((seed, bytes, draft.append(stream, &object(seed, bytes)).unwrap()));
                    let (seed, bytes, place) = mine[dice.below(mine.len() as u64) as usize];
                    assert_eq!(draft.read(place).unwrap(), object(seed, bytes));
                    if dice.below(20) == 0 {
                        let image = draft.snapshot().unwrap();
                        for (seed, bytes, place) in mine.iter().step_by(7) {
                            assert_eq!(store.read_object(&image, *place).unwrap(), object(*seed, *bytes));
                        }
                        store.commit(&[kept("head", &image)], b"").unwrap();
                    }
                }
                let image = draft.snapshot().unwrap();
                for (seed, bytes, place) in mine {
                    assert_eq!(store.read_object(&image, place).unwrap(), object(seed, bytes));
                }
            });
        }
    });
    assert_eq!(store.check(), []);
}
