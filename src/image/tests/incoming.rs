use super::*;
use crate::base::{PieceHashes, PieceIndex, PieceLength, REGION_BYTES, RegionIndex};
use crate::image::{Counters, Incoming, StoreError, hash_pieces};

fn hashes(store: &Store, image: &Image, length: PieceLength) -> PieceHashes {
    hash_pieces(store, image, length, None, &Counters::default()).unwrap()
}

/// Brings all that is missing from a source; how many pieces that was.
fn fetch(incoming: &Incoming, source: &Store, image: &Image) -> usize {
    let missing = incoming.missing();
    for (done, piece) in missing.iter().enumerate() {
        let mut bytes = vec![0; incoming.hashes().bytes_of(*piece) as usize];
        source.read(image, incoming.hashes().length.start_of(*piece), &mut bytes).unwrap();
        assert!(!incoming.has(*piece));
        assert_eq!(incoming.accept(*piece, &bytes).unwrap(), done + 1 == missing.len());
        assert!(incoming.has(*piece));
    }
    missing.len()
}

/// A version of `source` as it arrives at `store`.
fn receive(
    store: &Arc<Store>,
    bases: &[(Image, PieceHashes)],
    source: &Store,
    image: &Image,
    length: PieceLength,
) -> (Image, usize) {
    let incoming = store.incoming(hashes(source, image, length), bases).unwrap();
    let fetched = fetch(&incoming, source, image);
    assert!(incoming.complete());
    let received = incoming.finish().unwrap();
    assert!(received.same(&incoming.finish().unwrap()));
    assert!(content(store, &received) == content(source, image));
    let mut bytes = vec![1; received.bytes() as usize];
    incoming.read(0, &mut bytes).unwrap();
    assert!(bytes == content(source, image), "an incoming version still serves after its end");
    (received, fetched)
}

#[test]
fn a_version_from_nothing_is_fetched_but_for_its_zeros() {
    let (_, source) = memory_store();
    let draft = source.draft(&Image::empty(&source)).unwrap();
    let places: Vec<Place> = (0..60).map(|seed| append(&draft, seed, 50_000)).collect();
    places[20..41].iter().for_each(|place| draft.free(*place));
    draft.truncate_empty();
    let image = draft.snapshot().unwrap();
    for log2 in [14, 16, 20, 21, 22] {
        let (_, store) = memory_store();
        let length = PieceLength::from_log2(log2).unwrap();
        let (received, _) = receive(&store, &[], &source, &image, length);
        for (index, region) in image.iter() {
            let got = received.region(index);
            assert_eq!(
                (got.slot.is_some(), got.fill),
                (region.slot.is_some(), region.fill),
                "{log2} {index:?}"
            );
        }
        assert_eq!(store.statistics().unwrap().slots_used, 2);
    }
}

#[test]
fn what_was_appended_is_added_to_the_shared_slot() {
    let ((_, source), (_, store)) = (memory_store(), memory_store());
    let draft = source.draft(&Image::empty(&source)).unwrap();
    for seed in 0..30 {
        append(&draft, seed, 50_000);
    }
    let old = draft.snapshot().unwrap();
    let (base, _) = receive(&store, &[], &source, &old, PieceLength::MIN);
    let before = digest(&store, &base);
    append(&draft, 100, 5000);
    let image = draft.snapshot().unwrap();
    let known = hashes(&source, &old, PieceLength::MIN);
    let (received, fetched) =
        receive(&store, &[(base.clone(), known.clone())], &source, &image, PieceLength::MIN);
    assert!(fetched <= 2, "{fetched} pieces for 5,000 bytes");
    assert!(
        base.iter().all(|(index, region)| received.region(index).slot == region.slot),
        "no slot was copied"
    );
    assert_eq!(digest(&store, &base), before);
    // Piece by piece the same again, now from nothing but what is here.
    let (_, fetched) = receive(
        &store,
        &[(received, hashes(&source, &image, PieceLength::MIN)), (base, known)],
        &source,
        &image,
        PieceLength::MIN,
    );
    assert_eq!(fetched, 0);
}

#[test]
fn an_incoming_version_and_a_draft_extend_one_region_without_harm() {
    for draft_first in [false, true] {
        let ((_, source), (_, store)) = (memory_store(), memory_store());
        let far = source.draft(&Image::empty(&source)).unwrap();
        append(&far, 1, 30_000);
        let old = far.snapshot().unwrap();
        let (base, _) = receive(&store, &[], &source, &old, PieceLength::MIN);
        let before = digest(&store, &base);
        append(&far, 2, 40_000);
        let image = far.snapshot().unwrap();
        let known = hashes(&source, &old, PieceLength::MIN);
        let incoming =
            store.incoming(hashes(&source, &image, PieceLength::MIN), &[(base.clone(), known)]).unwrap();
        let near = store.draft(&base).unwrap();
        let mine = if draft_first { append(&near, 3, 20_000) } else { Place { offset: 0, length: 0 } };
        fetch(&incoming, &source, &image);
        let mine = if draft_first { mine } else { append(&near, 3, 20_000) };
        let (ours, theirs) = (near.snapshot().unwrap(), incoming.finish().unwrap());
        let slot = |image: &Image| image.region(RegionIndex(0)).slot;
        assert_ne!(slot(&ours), slot(&theirs));
        assert_eq!(
            slot(if draft_first { &ours } else { &theirs }),
            slot(&base),
            "whoever came first is in place"
        );
        assert_eq!(store.read_object(&ours, mine).unwrap(), object(3, 20_000));
        assert!(content(&store, &theirs) == content(&source, &image));
        assert_eq!(digest(&store, &base), before);
    }
}

#[test]
fn a_draft_that_rests_lets_an_incoming_version_go_on_in_its_region() {
    let ((_, a), (_, b)) = (memory_store(), memory_store());
    let at_a = a.draft(&Image::empty(&a)).unwrap();
    append(&at_a, 1, 30_000);
    let first = at_a.snapshot().unwrap();
    let known = hashes(&a, &first, PieceLength::MIN);
    let (at_b, _) = receive(&b, &[], &a, &first, PieceLength::MIN);
    let answer = b.draft(&at_b).unwrap();
    append(&answer, 2, 30_000);
    let second = answer.snapshot().unwrap();
    let (received, _) = receive(&a, &[(first.clone(), known)], &b, &second, PieceLength::MIN);
    assert_eq!(received.region(RegionIndex(0)).slot, first.region(RegionIndex(0)).slot, "no copy");
    // The draft that had rested finds its tail taken and moves on in a copy.
    let place = append(&at_a, 3, 100);
    let third = at_a.snapshot().unwrap();
    assert_eq!(a.read_object(&third, place).unwrap(), object(3, 100));
    assert!(content(&a, &received) == content(&b, &second));
}

#[test]
fn wrong_bytes_are_refused_and_absent_ones_are_not_read() {
    let ((_, source), (_, store)) = (memory_store(), memory_store());
    let draft = source.draft(&Image::empty(&source)).unwrap();
    append(&draft, 1, 40_000);
    let image = draft.snapshot().unwrap();
    let incoming = store.incoming(hashes(&source, &image, PieceLength::MIN), &[]).unwrap();
    assert_eq!(incoming.missing(), [PieceIndex(0), PieceIndex(1), PieceIndex(2)]);
    let mut piece = content(&source, &image)[..16 << 10].to_vec();
    assert!(matches!(incoming.read(5, &mut [0; 10]), Err(StoreError::Absent(PieceIndex(0)))));
    piece[7] ^= 1;
    for (index, bytes) in
        [(0, &piece[..]), (0, &piece[1..]), (1, &piece), (64, &piece), (u32::MAX, &[]), (0, &[])]
    {
        assert!(
            matches!(incoming.accept(PieceIndex(index), bytes), Err(StoreError::WrongPiece(_))),
            "{index}"
        );
    }
    piece[7] ^= 1;
    assert!(!incoming.accept(PieceIndex(0), &piece).unwrap());
    assert!(!incoming.accept(PieceIndex(0), &piece).unwrap(), "twice is no harm");
    let mut bytes = vec![0; 16 << 10];
    incoming.read(0, &mut bytes).unwrap();
    assert!(bytes == piece);
    assert!(matches!(incoming.read((16 << 10) - 1, &mut [0; 2]), Err(StoreError::Absent(PieceIndex(1)))));
    assert!(matches!(incoming.read(REGION_BYTES - 1, &mut [0; 2]), Err(StoreError::OutOfRange { .. })));
    assert!(matches!(incoming.finish(), Err(StoreError::Incomplete { missing: 2 })));
    assert_eq!(incoming.have().iter().filter(|have| **have).count(), 62);
    let short = PieceHashes { image_bytes: REGION_BYTES + 1, ..incoming.hashes().clone() };
    assert!(matches!(store.incoming(short, &[]), Err(StoreError::OutOfRange { .. })));
}

#[test]
fn a_delta_is_applied_to_what_the_base_has() {
    let ((_, source), (_, store)) = (memory_store(), memory_store());
    let draft = source.draft(&Image::empty(&source)).unwrap();
    for seed in 0..20 {
        append(&draft, seed, 60_000);
    }
    let old = draft.snapshot().unwrap();
    let known = hashes(&source, &old, PieceLength::MIN);
    let (base, _) = receive(&store, &[], &source, &old, PieceLength::MIN);
    append(&draft, 50, 20_000);
    let image = draft.snapshot().unwrap();
    let wire: Vec<(u64, Vec<u8>)> = image
        .changed_since(&old)
        .into_iter()
        .map(|range| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            source.read(&image, range.start, &mut bytes).unwrap();
            (range.start, bytes)
        })
        .collect();
    assert_eq!(wire.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 20_000);
    let incoming = store.incoming(hashes(&source, &image, PieceLength::MIN), &[(base, known)]).unwrap();
    for piece in incoming.missing() {
        let start = incoming.hashes().length.start_of(piece);
        let mut bytes = incoming.basis(piece).unwrap();
        for (offset, changed) in &wire {
            for (at, byte) in changed.iter().enumerate() {
                if let Some(held) =
                    (offset + at as u64).checked_sub(start).and_then(|at| bytes.get_mut(at as usize))
                {
                    *held = *byte;
                }
            }
        }
        incoming.accept(piece, &bytes).unwrap();
    }
    assert!(content(&store, &incoming.finish().unwrap()) == content(&source, &image));
}

#[test]
fn an_object_whose_tag_ends_in_zeros_is_not_written_over() {
    let ((_, source), (_, store)) = (memory_store(), memory_store());
    let draft = source.draft(&Image::empty(&source)).unwrap();
    let mut sealed = object(1, 1000);
    sealed[985..].fill(0);
    let place = draft.append(Stream::Fresh, &sealed).unwrap();
    let image = draft.snapshot().unwrap();
    let (received, _) = receive(&store, &[], &source, &image, PieceLength::MIN);
    assert_eq!(received.region(RegionIndex(0)).fill, 985);
    let near = store.draft(&received).unwrap();
    let next = append(&near, 2, 500);
    let ours = near.snapshot().unwrap();
    assert_eq!(store.read_object(&ours, place).unwrap(), sealed);
    assert_eq!(store.read_object(&ours, next).unwrap(), object(2, 500));
}

#[test]
fn a_version_in_pieces_of_another_length_shares_after_rehashing() {
    let ((_, source), (_, store)) = (memory_store(), memory_store());
    let draft = source.draft(&Image::empty(&source)).unwrap();
    for seed in 0..60 {
        append(&draft, seed, 60_000);
    }
    let image = draft.snapshot().unwrap();
    let (base, _) = receive(&store, &[], &source, &image, PieceLength::MIN);
    let known = hashes(&source, &image, PieceLength::MIN);
    let (_, all) = receive(&store, &[(base.clone(), known)], &source, &image, PieceLength::BULK);
    assert!(all > 50);
    let rehashed = hashes(&store, &base, PieceLength::BULK);
    assert_eq!(receive(&store, &[(base, rehashed)], &source, &image, PieceLength::BULK).1, 0);
}

/// Two stores that send each other versions, with drafts, forks, deletions, abandoned fetches and commits in between:
/// what any image showed once it shows for ever, and what arrives is what was sent.
#[test]
fn no_image_ever_changes_whatever_goes_on_around_it() {
    for seed in 0..14 {
        let mut dice = Dice::new(seed);
        let length = PieceLength::from_log2([14, 15, 16, 18, 20, 21, 22][seed as usize % 7]).unwrap();
        let disks = [memory_store(), memory_store()];
        let mut worlds: Vec<World> = disks.into_iter().map(|(disk, store)| World::new(disk, store)).collect();
        for round in 0..60 {
            let here = dice.below(2) as usize;
            match dice.below(8) {
                0..=2 => worlds[here].write(&mut dice, seed << 32 | round << 8),
                3 => worlds[here].fork(&mut dice),
                4..=5 => {
                    let (from, to) = if here == 0 { (0, 1) } else { (1, 0) };
                    let Some((image, _)) = worlds[from].pick(&mut dice) else { continue };
                    let source = worlds[from].store.clone();
                    worlds[to].take(&mut dice, &source, &image, length);
                }
                6 => worlds[here].commit(&mut dice),
                _ => worlds[here].forget(&mut dice),
            }
            if round % 6 == 0 {
                worlds.iter().for_each(|world| world.verify(seed, round));
            }
        }
        for world in worlds {
            world.verify(seed, 60);
            assert_eq!(world.store.check(), [], "seed {seed}");
        }
    }
}

struct World {
    disk: Arc<MemoryDisk>,
    store: Arc<Store>,
    draft: Draft,
    places: Vec<Place>,
    images: Vec<(Image, blake3::Hash)>,
    fetching: Vec<Incoming>,
}

impl World {
    fn new(disk: Arc<MemoryDisk>, store: Arc<Store>) -> World {
        let draft = store.draft(&Image::empty(&store)).unwrap();
        World { disk, store, draft, places: Vec::new(), images: Vec::new(), fetching: Vec::new() }
    }

    fn pick(&self, dice: &mut Dice) -> Option<(Image, blake3::Hash)> {
        let count = self.images.len() as u64;
        (count > 0).then(|| self.images[dice.below(count) as usize].clone())
    }

    fn keep(&mut self, image: Image) {
        let digest = digest(&self.store, &image);
        self.images.push((image, digest));
    }

    fn write(&mut self, dice: &mut Dice, seed: u64) {
        for number in 0..1 + dice.below(20) {
            let stream = if dice.below(6) == 0 { Stream::Cleaning } else { Stream::Fresh };
            let sealed = object(seed | number, 1 + dice.below(80_000) as usize);
            self.places.push(self.draft.append(stream, &sealed).unwrap());
        }
        for _ in 0..dice.below(12).min(self.places.len() as u64) {
            self.draft.free(self.places.swap_remove(dice.below(self.places.len() as u64) as usize));
        }
        self.draft.truncate_empty();
        if dice.below(3) > 0 {
            let image = self.draft.snapshot().unwrap();
            self.keep(image);
        }
    }

    fn fork(&mut self, dice: &mut Dice) {
        if let Some((image, _)) = self.pick(dice) {
            self.draft = self.store.draft(&image).unwrap();
            self.places.clear();
        }
    }

    fn take(&mut self, dice: &mut Dice, source: &Store, image: &Image, length: PieceLength) {
        let mut bases = Vec::new();
        for _ in 0..dice.below(3) {
            if let Some((base, _)) = self.pick(dice) {
                let known = hashes(&self.store, &base, length);
                bases.push((base, known));
            }
        }
        let incoming = self.store.incoming(hashes(source, image, length), &bases).unwrap();
        if dice.below(4) == 0 {
            let missing = incoming.missing();
            for piece in missing.iter().take(missing.len() / 2) {
                let mut bytes = vec![0; incoming.hashes().bytes_of(*piece) as usize];
                source.read(image, length.start_of(*piece), &mut bytes).unwrap();
                incoming.accept(*piece, &bytes).unwrap();
            }
            self.fetching.push(incoming);
            return;
        }
        fetch(&incoming, source, image);
        let received = incoming.finish().unwrap();
        assert!(content(&self.store, &received) == content(source, image));
        self.keep(received);
    }

    fn commit(&mut self, dice: &mut Dice) {
        let from = self.images.len().saturating_sub(1 + dice.below(4) as usize);
        let versions: Vec<Kept> = self.images[from..].iter().map(|(image, _)| kept("v", image)).collect();
        self.store.commit(&versions, b"").unwrap();
        let again = reopened(&self.disk);
        for (kept, (_, hash)) in again.kept().iter().zip(&self.images[from..]) {
            assert_eq!(digest(&again, &kept.image), *hash);
        }
    }

    fn forget(&mut self, dice: &mut Dice) {
        if self.images.len() > 3 {
            self.images.swap_remove(dice.below(self.images.len() as u64) as usize);
        }
        self.fetching.truncate(dice.below(3) as usize);
    }

    fn verify(&self, seed: u64, round: u64) {
        for (image, hash) in &self.images {
            assert_eq!(digest(&self.store, image), *hash, "seed {seed} round {round}");
        }
    }
}
