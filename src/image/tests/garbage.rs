//! What a power cut left behind in slots shows nowhere.

use super::*;
use crate::base::{PieceHashes, PieceLength, RegionIndex};
use crate::image::{Counters, hash_pieces};

fn hashes(store: &Store, image: &Image) -> PieceHashes {
    hash_pieces(store, image, PieceLength::MIN, None, &Counters::default()).unwrap()
}

/// Work that reached the disk and that no commit kept: bytes behind the fill of region 0 and in slots of no table.
fn store_with_garbage(base_bytes: usize) -> (Arc<Store>, Image) {
    let (disk, store) = memory_store();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    if base_bytes > 0 {
        append(&draft, 1, base_bytes);
    }
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    for seed in 100..180 {
        append(&draft, seed, 60_000);
    }
    draft.snapshot().unwrap();
    let store = reopened(&disk);
    let image = store.kept()[0].image.clone();
    (store, image)
}

fn arrives(store: &Arc<Store>, bases: &[(Image, PieceHashes)], source: &Store, image: &Image) -> Image {
    let incoming = store.incoming(hashes(source, image), bases).unwrap();
    for piece in incoming.missing() {
        let mut bytes = vec![0; incoming.hashes().bytes_of(piece) as usize];
        source.read(image, incoming.hashes().length.start_of(piece), &mut bytes).unwrap();
        incoming.accept(piece, &bytes).unwrap();
    }
    let received = incoming.finish().unwrap();
    assert!(content(store, &received) == content(source, image));
    received
}

/// An image that begins like the base and goes on with a run of zeros between two objects.
fn with_zeros(base_bytes: usize) -> (Arc<Store>, Image, Image) {
    let (_, source) = memory_store();
    let draft = source.draft(&Image::empty(&source)).unwrap();
    if base_bytes > 0 {
        append(&draft, 1, base_bytes);
    }
    let old = draft.snapshot().unwrap();
    append(&draft, 2, 100);
    draft.append(Stream::Fresh, &vec![0; 200_000]).unwrap();
    append(&draft, 3, 100);
    let image = draft.snapshot().unwrap();
    (source, old, image)
}

#[test]
fn behind_a_shared_fill() {
    let (source, old, image) = with_zeros(5000);
    let (store, base) = store_with_garbage(5000);
    let received = arrives(&store, &[(base.clone(), hashes(&source, &old))], &source, &image);
    assert_eq!(received.region(RegionIndex(0)).slot, base.region(RegionIndex(0)).slot);
}

#[test]
fn in_a_slot_that_is_taken_anew() {
    let (source, _, image) = with_zeros(0);
    let (store, _) = store_with_garbage(0);
    assert!(store.statistics().unwrap().slots_free > 3);
    arrives(&store, &[], &source, &image);
}

#[test]
fn behind_the_fill_of_a_draft() {
    let (store, base) = store_with_garbage(5000);
    let draft = store.draft(&base).unwrap();
    let place = append(&draft, 2, 100);
    let image = draft.snapshot().unwrap();
    let bytes = content(&store, &image);
    assert_eq!(place.offset, 5016, "a tag that ended in zeros would lie in between");
    assert!(bytes[5000..5016].iter().chain(&bytes[5116..]).all(|byte| *byte == 0));
}
