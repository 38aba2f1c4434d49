use super::*;
use crate::base::{PieceHashes, PieceLength, REGION_BYTES};
use crate::image::{Counters, hash_pieces, zero_piece_hash};
use sha1::{Digest, Sha1};
use std::sync::atomic::Ordering;

fn plain_hashes(store: &Store, image: &Image, length: PieceLength) -> PieceHashes {
    let bytes = content(store, image);
    let hashes = bytes.chunks(length.bytes() as usize).map(|piece| Sha1::digest(piece).into()).collect();
    PieceHashes { length, image_bytes: image.bytes(), hashes }
}

#[test]
fn hashes_are_those_of_the_bytes_in_every_piece_length() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let places: Vec<Place> = (0..70).map(|seed| append(&draft, seed, 61_000)).collect();
    for place in &places[17..40] {
        draft.free(*place);
    }
    draft.truncate_empty();
    let image = draft.snapshot().unwrap();
    for log2 in 14..=24 {
        let length = PieceLength::from_log2(log2).unwrap();
        let hashes = hash_pieces(&store, &image, length, None, &Counters::default()).unwrap();
        assert_eq!(hashes, plain_hashes(&store, &image, length), "{log2}");
    }
}

#[test]
fn a_hole_and_the_room_behind_a_fill_are_not_read() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    append(&draft, 1, 20_000);
    let image = draft.snapshot().unwrap();
    let counters = Counters::default();
    let hashes = hash_pieces(&store, &image, PieceLength::MIN, None, &counters).unwrap();
    assert_eq!(counters.pieces_hashed.load(Ordering::Relaxed), 2);
    assert_eq!(counters.bytes_hashed.load(Ordering::Relaxed), 32 << 10);
    assert_eq!(hashes.hashes.len(), 64);
    assert_eq!(hashes.hashes[2], zero_piece_hash(PieceLength::MIN));
    assert_eq!(hashes.hashes[2], <[u8; 20]>::from(Sha1::digest([0; 16 << 10])));
}

#[test]
fn with_a_base_only_what_changed_is_hashed() {
    for log2 in [14, 16, 18, 20, 21, 22] {
        let length = PieceLength::from_log2(log2).unwrap();
        let mut dice = Dice::new(u64::from(log2));
        let (_, store) = memory_store();
        let mut draft = store.draft(&Image::empty(&store)).unwrap();
        let mut places: Vec<Place> = Vec::new();
        let mut versions: Vec<(Image, PieceHashes)> = Vec::new();
        for round in 0..60 {
            for seed in 0..dice.below(12) {
                places.push(append(&draft, round << 8 | seed, 1 + dice.below(90_000) as usize));
            }
            for _ in 0..dice.below(10).min(places.len() as u64) {
                draft.free(places.swap_remove(dice.below(places.len() as u64) as usize));
            }
            draft.truncate_empty();
            let image = draft.snapshot().unwrap();
            let base = versions.get(dice.below(5) as usize).map(|(image, hashes)| (image, hashes));
            let hashes = hash_pieces(&store, &image, length, base, &Counters::default()).unwrap();
            assert_eq!(hashes, plain_hashes(&store, &image, length), "{log2} {round}");
            versions.insert(0, (image, hashes));
            if dice.below(8) == 0 {
                draft = store.draft(&versions[dice.below(versions.len() as u64) as usize].0).unwrap();
                places.clear();
            }
        }
    }
}

#[test]
fn one_small_append_costs_one_piece() {
    let (_, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    for seed in 0..100 {
        append(&draft, seed, 60_000);
    }
    let base = draft.snapshot().unwrap();
    let known = hash_pieces(&store, &base, PieceLength::MIN, None, &Counters::default()).unwrap();
    let place = append(&draft, 1000, 100);
    draft.free(Place { offset: 0, length: 60_000 });
    let image = draft.snapshot().unwrap();
    let counters = Counters::default();
    let hashes = hash_pieces(&store, &image, PieceLength::MIN, Some((&base, &known)), &counters).unwrap();
    assert_eq!(counters.pieces_hashed.load(Ordering::Relaxed), 1);
    assert_eq!(hashes, plain_hashes(&store, &image, PieceLength::MIN));
    assert!(place.offset < 6 * REGION_BYTES);
}
