use super::*;
use crate::base::{REGION_BYTES, RegionIndex};
use std::collections::BTreeMap;

#[test]
fn two_drafts_from_one_base_do_not_disturb_each_other() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let shared = append(&draft, 1, 5000);
    let base = draft.snapshot().unwrap();
    drop(draft);
    let (a, b) = (store.draft(&base).unwrap(), store.draft(&base).unwrap());
    let in_a = append(&a, 2, 3000);
    let in_b = append(&b, 3, 4000);
    assert_eq!(in_a.offset, in_b.offset, "both go on at the base's fill");
    let (a, b) = (a.snapshot().unwrap(), b.snapshot().unwrap());
    let slot = |image: &Image| image.region(RegionIndex(0)).slot;
    assert_eq!(slot(&a), slot(&base));
    assert_ne!(slot(&b), slot(&base));
    for (image, place, seed) in [(&a, in_a, 2), (&b, in_b, 3)] {
        assert_eq!(store.read_object(image, shared).unwrap(), object(1, 5000));
        assert_eq!(store.read_object(image, place).unwrap(), object(seed, place.length as usize));
    }
    assert!(content(&store, &base)[5000..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_draft_that_was_dropped_leaves_no_trace() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    append(&draft, 1, 5000);
    let base = draft.snapshot().unwrap();
    let before = digest(&store, &base);
    let dropped = store.draft(&base).unwrap();
    for seed in 10..60 {
        append(&dropped, seed, 60_000);
    }
    drop(dropped);
    let next = store.draft(&base).unwrap();
    append(&next, 2, 100);
    let image = next.snapshot().unwrap();
    let bytes = content(&store, &image);
    assert!(bytes[5100..].iter().all(|byte| *byte == 0));
    assert_eq!(digest(&store, &base), before);
    let statistics = store.statistics().unwrap();
    assert_eq!((statistics.slots_used, statistics.slots_free), (2, 1), "the base's and a copy");
}

#[test]
fn a_slot_is_reused_after_the_next_commit_but_one_and_never_earlier() {
    let (disk, store) = memory_store();
    let whole = (REGION_BYTES - 16) as usize;
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let first = append(&draft, 1, whole);
    append(&draft, 2, whole);
    let image = draft.snapshot().unwrap();
    let slot = image.region(RegionIndex(0)).slot;
    store.commit(&[kept("head", &image)], b"1").unwrap();
    drop(image);
    draft.free(first);
    draft.truncate_empty();
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"2").unwrap();
    // The older superblock still shows the slot: what is appended now goes elsewhere.
    append(&draft, 3, whole);
    let third = draft.snapshot().unwrap();
    assert!(third.iter().all(|(_, region)| region.slot != slot));
    store.commit(&[kept("head", &third)], b"3").unwrap();
    append(&draft, 4, whole);
    let fourth = draft.snapshot().unwrap();
    assert!(fourth.iter().any(|(_, region)| region.slot == slot), "free since the third commit");
    drop(store);
    let store = reopened(&disk);
    assert_eq!(store.state(), b"3");
    assert_eq!(store.check(), []);
}

#[test]
fn the_store_shrinks_after_a_big_delete() {
    let (disk, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let places: Vec<Place> = (0..400).map(|seed| append(&draft, seed, 60_000)).collect();
    let full = draft.snapshot().unwrap();
    store.commit(&[kept("head", &full)], b"").unwrap();
    assert!(disk.allocated_bytes() > 24_000_000);
    drop(full);
    for place in &places[..390] {
        draft.free(*place);
    }
    draft.truncate_empty();
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    assert!(disk.allocated_bytes() < 2_000_000, "{}", disk.allocated_bytes());
    drop(image);
    // The image's own end is still in use, so the file keeps its length until that has moved to the front.
    for place in &places[390..] {
        draft.append(Stream::Cleaning, &draft.read(*place).unwrap()).unwrap();
        draft.free(*place);
    }
    draft.truncate_empty();
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    assert!(disk.length().unwrap() <= 4 << 20, "{}", disk.length().unwrap());
    assert_eq!(image.live_bytes(), 600_000);
    let statistics = store.statistics().unwrap();
    assert_eq!((statistics.slots_used, statistics.slots_of_tables), (1, 1));
    assert_eq!(store.check(), []);
}

#[test]
fn a_commit_writes_what_changed_and_not_the_whole_table() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    // 1,300 regions: three leaves of the table.
    let most = vec![0; 600_000];
    for _ in 0..1300 {
        draft.append(Stream::Fresh, &most).unwrap();
    }
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    append(&draft, 5000, 100);
    let next = draft.snapshot().unwrap();
    let shared =
        image.table().leaves().iter().zip(next.table().leaves()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!((image.table().leaves().len(), shared), (3, 2));
    assert_eq!(next.changed_since(&image).len(), 1);
}

#[test]
fn live_counts_can_be_replaced_and_carried_over() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    for seed in 0..3 {
        append(&draft, seed, 1_000_000);
    }
    let old = draft.snapshot().unwrap();
    let counted = old.with_live(&BTreeMap::from([
        (RegionIndex(1), 7),
        (RegionIndex(2), u32::MAX),
        (RegionIndex(99), 1),
    ]));
    let live = |image: &Image| image.iter().map(|(_, region)| region.live).collect::<Vec<_>>();
    assert_eq!(live(&counted), [1_000_000, 7, 1_000_000]);
    assert_eq!(live(&old), [1_000_000; 3]);
    assert_eq!(digest(&store, &old), digest(&store, &counted));
    // A received version shares region 0, whatever count came with it, and region 1 lost 5 bytes.
    let received = old.with_live(&BTreeMap::from([(RegionIndex(0), 3)]));
    let since = received
        .with_live_since(&counted, &BTreeMap::from([(RegionIndex(1), -5), (RegionIndex(2), -(1 << 21))]));
    assert_eq!(live(&since), [1_000_000, 2, 0]);
}

#[test]
fn changed_ranges_are_what_was_appended_or_replaced() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let places: Vec<Place> = (0..3).map(|seed| append(&draft, seed, 900_000)).collect();
    let base = draft.snapshot().unwrap();
    assert_eq!(base.changed_since(&base), []);
    let added = append(&draft, 5, 1000);
    draft.free(places[0]);
    draft.truncate_empty();
    let image = draft.snapshot().unwrap();
    assert_eq!(image.changed_since(&base), [0..900_000, added.offset..added.offset + 1000]);
    assert_eq!(image.changed_since(&Image::empty(&store)).len(), 2);
}
