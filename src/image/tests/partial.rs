//! Images that lack bytes: what is shown of them is right or not here, never anything else.

#![allow(clippy::single_range_in_vec_init)]

use super::crash::CutDisk;
use super::*;
use crate::base::{PieceHashes, PieceIndex, PieceLength, REGION_BYTES, RegionIndex};
use crate::image::{Counters, CrashDisk, Fate, Incoming, StoreError, UNIT_BYTES, hash_pieces};
use std::sync::atomic::{AtomicU64, Ordering};

fn hashes(store: &Store, image: &Image, length: PieceLength) -> PieceHashes {
    hash_pieces(store, image, length, None, &Counters::default()).unwrap()
}

fn bring(incoming: &Incoming, piece: PieceIndex, whole: &[u8]) {
    let start = incoming.hashes().length.start_of(piece) as usize;
    let bytes = incoming.hashes().bytes_of(piece) as usize;
    incoming.accept(piece, &whole[start..start + bytes]).unwrap();
    assert!(incoming.has(piece));
}

/// Holds an image against what it is to show; how many units of it are here.
fn compare(store: &Store, image: &Image, whole: &[u8]) -> usize {
    assert_eq!(image.bytes(), whole.len() as u64);
    let mut here = 0;
    let mut buffer = vec![0; UNIT_BYTES as usize];
    for (number, unit) in whole.chunks(UNIT_BYTES as usize).enumerate() {
        let offset = number as u64 * UNIT_BYTES;
        let place = Place { offset, length: UNIT_BYTES as u32 };
        match store.read(image, offset, &mut buffer) {
            Ok(()) => {
                assert!(buffer == unit, "unit {number}");
                assert!(!store.lacks(image, place));
                here += 1;
            }
            Err(StoreError::NotHere { offset: at }) => {
                assert_eq!(at, offset);
                assert!(store.lacks(image, place));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(store.absent_bytes(image), whole.len() as u64 - here as u64 * UNIT_BYTES);
    assert_eq!(store.is_whole(image), here == whole.len() / UNIT_BYTES as usize);
    here
}

/// A version as its author has it.
struct Author {
    store: Arc<Store>,
    draft: Draft,
    places: Vec<Place>,
    seed: u64,
}

impl Author {
    fn new(objects: usize) -> Author {
        let (_, store) = memory_store();
        let draft = store.draft(&Image::empty(&store)).unwrap();
        let mut author = Author { store, draft, places: Vec::new(), seed: 0 };
        author.add(objects);
        author
    }

    fn add(&mut self, objects: usize) {
        for _ in 0..objects {
            self.seed += 1;
            self.places.push(append(&self.draft, self.seed, 50_000));
        }
    }

    fn version(&self, length: PieceLength) -> (Vec<u8>, PieceHashes) {
        let image = self.draft.snapshot().unwrap();
        (content(&self.store, &image), hashes(&self.store, &image, length))
    }
}

#[test]
fn a_version_is_used_before_it_is_here_and_fills_up() {
    for log2 in [14, 16, 20, 22] {
        let author = Author::new(60);
        let (whole, known) = author.version(PieceLength::from_log2(log2).unwrap());
        let (disk, store) = memory_store();
        let incoming = store.incoming(known.clone(), &[]).unwrap();
        bring(&incoming, PieceIndex(0), &whole);
        let image = incoming.finish_partial().unwrap();
        let first = compare(&store, &image, &whole);
        assert!(first >= known.length.bytes().min(whole.len() as u64) as usize / UNIT_BYTES as usize);
        assert!(first < whole.len() / UNIT_BYTES as usize || log2 == 22, "{first} units of {}", whole.len());
        store.commit(&[kept("head", &image)], b"state").unwrap();
        // Not marked anew, and found again as it was left.
        let store = reopened(&disk);
        let image = store.kept()[0].image.clone();
        assert_eq!(compare(&store, &image, &whole), first);
        assert_eq!(store.state(), b"state");
        assert!(store.check().is_empty());
        let incoming = store.incoming(known.clone(), &[(image.clone(), known.clone())]).unwrap();
        assert!(incoming.unknown().is_empty() && incoming.has(PieceIndex(0)));
        let slots = store.statistics().unwrap().slots_used;
        for piece in incoming.missing() {
            assert!(!incoming.complete());
            bring(&incoming, piece, &whole);
        }
        assert!(incoming.complete());
        assert_eq!(compare(&store, &image, &whole), whole.len() / UNIT_BYTES as usize);
        assert_eq!(store.statistics().unwrap().slots_used, slots, "it is filled in where it lies");
        let finished = incoming.finish().unwrap();
        assert!(finished.iter().zip(image.iter()).all(|(a, b)| a.1.slot == b.1.slot && a.1.fill == b.1.fill));
        store.commit(&[kept("head", &image)], b"state").unwrap();
        assert!(store.is_whole(&reopened(&disk).kept()[0].image) || !store.is_whole(&image));
    }
}

#[test]
fn the_next_version_shares_what_is_absent() {
    let mut author = Author::new(200);
    let length = PieceLength::from_log2(16).unwrap();
    let (whole, known) = author.version(length);
    let (_, store) = memory_store();
    let image = store.incoming(known.clone(), &[]).unwrap().finish_partial().unwrap();
    let slots = store.statistics().unwrap().slots_used;
    author.add(1);
    let (next_whole, next_known) = author.version(length);
    let next = store.incoming(next_known.clone(), &[(image.clone(), known.clone())]).unwrap();
    let unknown = next.unknown();
    assert!((1..=2).contains(&unknown.len()), "only what was appended is new: {unknown:?}");
    unknown.iter().for_each(|piece| bring(&next, *piece, &next_whole));
    assert!(next.unknown().is_empty() && !next.complete());
    let next_image = next.finish_partial().unwrap();
    assert!(store.statistics().unwrap().slots_used <= slots + 2);
    // What is brought for one is there for the other.
    let before = compare(&store, &image, &whole);
    bring(&next, PieceIndex(3), &next_whole);
    assert_eq!(compare(&store, &image, &whole), before + 4);
    let old = store.incoming(known.clone(), &[(image.clone(), known)]).unwrap();
    for piece in old.missing() {
        bring(&old, piece, &whole);
    }
    assert!(old.complete());
    compare(&store, &next_image, &next_whole);
    for piece in next.missing() {
        bring(&next, piece, &next_whole);
    }
    assert!(next.complete() && store.is_whole(&next_image) && store.is_whole(&image));
}

#[test]
fn nothing_is_appended_where_bytes_are_absent() {
    let author = Author::new(30);
    let (whole, known) = author.version(PieceLength::MIN);
    let (_, store) = memory_store();
    let image = store.incoming(known, &[]).unwrap().finish_partial().unwrap();
    let draft = store.draft(&image).unwrap();
    assert!((0..draft.regions()).all(|index| draft.is_open(RegionIndex(index))), "none is to be cleaned");
    let place = append(&draft, 7000, 40_000);
    assert!(place.offset >= image.bytes());
    let own = draft.snapshot().unwrap();
    assert_eq!(store.read_object(&own, place).unwrap(), object(7000, 40_000));
    assert_eq!(
        compare(&store, &image, &whole),
        compare(&store, &own, &{
            let mut all = whole.clone();
            all.resize(own.bytes() as usize, 0);
            all[place.offset as usize..][..40_000].copy_from_slice(&object(7000, 40_000));
            all
        }) - REGION_BYTES as usize / UNIT_BYTES as usize
    );
}

#[test]
fn a_store_that_has_all_keeps_the_older_format() {
    let (disk, store) = memory_store();
    let format = || {
        let mut bytes = [0; 4];
        disk.read_at(8, &mut bytes).unwrap();
        let mut other = [0; 4];
        disk.read_at((512 << 10) + 8, &mut other).unwrap();
        (u32::from_le_bytes(bytes), u32::from_le_bytes(other))
    };
    let author = Author::new(30);
    let (whole, known) = author.version(PieceLength::MIN);
    let incoming = store.incoming(known, &[]).unwrap();
    let image = incoming.finish_partial().unwrap();
    let commit = || {
        store.commit(&[kept("head", &image)], b"").unwrap();
        store.commit(&[kept("head", &image)], b"").unwrap();
    };
    assert_eq!(format(), (2, 2));
    commit();
    assert_eq!(format(), (3, 3));
    incoming.missing().into_iter().for_each(|piece| bring(&incoming, piece, &whole));
    commit();
    assert_eq!(format(), (2, 2));
    // A slot that is let go is whole for the next one.
    let gone = store.incoming(incoming.hashes().clone(), &[]).unwrap().finish_partial().unwrap();
    assert!(!store.is_whole(&gone));
    drop(gone);
    store.commit(&[], b"").unwrap();
    store.commit(&[], b"").unwrap();
    assert_eq!(format(), (2, 2));
}

/// One life of a store between power cuts: versions arrive in part, are filled in, and follow one another.
fn live(
    store: &Arc<Store>,
    dice: &mut Dice,
    author: &mut Author,
    versions: &mut Versions,
    length: PieceLength,
) -> Result<(), StoreError> {
    let found = |store: &Store, versions: &Versions| -> Vec<(Image, Vec<u8>, PieceHashes)> {
        let known = |kept: Kept| {
            let name = String::from_utf8(kept.label.0).unwrap();
            let (_, whole, known) = versions.iter().find(|(known, ..)| *known == name).unwrap();
            (kept.image, whole.clone(), known.clone())
        };
        store.kept().into_iter().map(known).collect()
    };
    for _ in 0..12 {
        let kept_now = found(store, versions);
        match dice.below(4) {
            0 => {
                if dice.below(3) == 0 && author.places.len() > 10 {
                    for _ in 0..8 {
                        let gone = dice.below(author.places.len() as u64) as usize;
                        author.draft.free(author.places.swap_remove(gone));
                    }
                    author.draft.truncate_empty();
                }
                author.add(1 + dice.below(12) as usize);
                let (whole, known) = author.version(length);
                let bases: Vec<_> =
                    kept_now.iter().take(2).map(|(image, _, known)| (image.clone(), known.clone())).collect();
                let incoming = store.incoming(known.clone(), &bases)?;
                for piece in incoming.missing() {
                    if dice.below(3) == 0 {
                        let start = known.length.start_of(piece) as usize;
                        incoming.accept(piece, &whole[start..start + known.bytes_of(piece) as usize])?;
                    }
                }
                let image = incoming.finish_partial()?;
                compare(store, &image, &whole);
                let name = format!("v{}", versions.len());
                versions.push((name.clone(), whole, known));
                let mut all = vec![kept(&name, &image)];
                all.extend(store.kept().into_iter().take(2));
                store.commit(&all, b"")?;
            }
            1 | 2 if !kept_now.is_empty() => {
                let (image, whole, known) = &kept_now[dice.below(kept_now.len() as u64) as usize];
                let incoming = store.incoming(known.clone(), &[(image.clone(), known.clone())])?;
                for piece in incoming.missing() {
                    if dice.below(2) == 0 {
                        let start = known.length.start_of(piece) as usize;
                        incoming.accept(piece, &whole[start..start + known.bytes_of(piece) as usize])?;
                        assert!(incoming.has(piece));
                    }
                }
            }
            _ => store.commit(&store.kept(), b"")?,
        }
    }
    for (image, whole, _) in found(store, versions) {
        compare(store, &image, &whole);
    }
    Ok(())
}

#[test]
fn what_is_given_up_frees_room_and_comes_back() {
    let author = Author::new(60);
    let length = PieceLength::from_log2(16).unwrap();
    let (whole, known) = author.version(length);
    let (disk, store) = memory_store();
    let incoming = store.incoming(known.clone(), &[]).unwrap();
    incoming.missing().into_iter().for_each(|piece| bring(&incoming, piece, &whole));
    let image = incoming.finish().unwrap();
    let commit = || store.commit(&[kept("head", &image)], b"").unwrap();
    commit();
    let before = disk.allocated_bytes();
    let given_up = store.give_up(&image, &[0..1_000_000, 1_500_000..2_500_000]).unwrap();
    let units = (1_000_000 / UNIT_BYTES + 1_000_000 / UNIT_BYTES) as usize;
    assert!((units - 8..=units).contains(&((given_up.bytes() / UNIT_BYTES) as usize)));
    let gone =
        |store: &Store, image: &Image| whole.len() / UNIT_BYTES as usize - compare(store, image, &whole);
    assert_eq!(gone(&store, &image) as u64 * UNIT_BYTES, given_up.bytes());
    commit();
    commit();
    // One comes back before the bytes are gone, others after.
    let again = store.incoming(known.clone(), &[(image.clone(), known.clone())]).unwrap();
    bring(&again, PieceIndex(3), &whole);
    store.discard_given_up(&given_up).unwrap();
    assert!(disk.allocated_bytes() + 1_800_000 < before, "{} of {before}", disk.allocated_bytes());
    let left = gone(&store, &image);
    assert_eq!(left as u64 * UNIT_BYTES, given_up.bytes() - length.bytes());
    let store = reopened(&disk);
    let image = store.kept()[0].image.clone();
    // What came back after the last commit is fetched once more.
    assert_eq!(gone(&store, &image) as u64 * UNIT_BYTES, given_up.bytes());
    let again = store.incoming(known.clone(), &[(image.clone(), known)]).unwrap();
    again.missing().into_iter().for_each(|piece| bring(&again, piece, &whole));
    assert!(again.complete() && gone(&store, &image) == 0);
}

#[test]
fn what_another_version_shows_in_part_is_not_given_up() {
    let mut author = Author::new(3);
    let length = PieceLength::MIN;
    let (whole, known) = author.version(length);
    let (_, store) = memory_store();
    let old = store.incoming(known.clone(), &[]).unwrap();
    old.missing().into_iter().for_each(|piece| bring(&old, piece, &whole));
    let old = old.finish().unwrap();
    author.add(5);
    let (next_whole, next_known) = author.version(length);
    let next = store.incoming(next_known, &[(old.clone(), known)]).unwrap();
    next.missing().into_iter().for_each(|piece| bring(&next, piece, &next_whole));
    let next = next.finish().unwrap();
    let region = RegionIndex(0);
    assert!(
        old.region(region).slot == next.region(region).slot
            && old.region(region).fill < next.region(region).fill
    );
    store.commit(&[kept("old", &old), kept("next", &next)], b"").unwrap();
    let _given_up = store.give_up(&next, &[0..next.bytes()]).unwrap();
    let torn = u64::from(old.region(region).fill - 1);
    assert!(!store.lacks(&next, Place { offset: torn, length: 1 }));
    assert!(store.lacks(&next, Place { offset: torn - UNIT_BYTES, length: 1 }));
    // Nor what nobody else has yet: the end of what is written, where more may follow.
    let end = u64::from(next.region(region).fill - 1);
    assert!(!store.lacks(&next, Place { offset: end, length: 1 }));
}

#[test]
fn a_reader_never_sees_what_is_being_discarded() {
    let author = Author::new(20);
    let (whole, known) = author.version(PieceLength::from_log2(16).unwrap());
    let (_, store) = memory_store();
    let incoming = store.incoming(known.clone(), &[]).unwrap();
    incoming.missing().into_iter().for_each(|piece| bring(&incoming, piece, &whole));
    let image = incoming.finish().unwrap();
    store.commit(&[kept("head", &image)], b"").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut missed) = (0, 0);
            let mut buffer = vec![0; 100_000];
            while !done.load(Ordering::SeqCst) {
                match store.read(&image, 150_000, &mut buffer) {
                    Ok(()) => {
                        assert!(buffer == whole[150_000..250_000]);
                        seen += 1;
                    }
                    Err(StoreError::NotHere { .. }) => missed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (seen, missed)
        });
        for _ in 0..200 {
            let given_up = store.give_up(&image, &[0..image.bytes()]).unwrap();
            store.discard_given_up(&given_up).unwrap();
            let again = store.incoming(known.clone(), &[(image.clone(), known.clone())]).unwrap();
            again.missing().into_iter().for_each(|piece| bring(&again, piece, &whole));
        }
        done.store(true, Ordering::SeqCst);
        let (seen, missed) = reader.join().unwrap();
        assert!(seen > 0 && missed > 0, "{seen} {missed}");
    });
}

type Versions = Vec<(String, Vec<u8>, PieceHashes)>;

fn compare_kept(store: &Store, versions: &Versions) {
    for kept in store.kept() {
        let name = String::from_utf8(kept.label.0).unwrap();
        let (_, whole, _) = versions.iter().find(|(known, ..)| *known == name).unwrap();
        compare(store, &kept.image, whole);
    }
}

#[test]
fn after_power_cuts_what_is_here_is_right() {
    let (mut cut_short, mut lacking) = (0, 0);
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let length = PieceLength::from_log2([14, 15, 16, 20, 21][dice.below(5) as usize]).unwrap();
        let mut author = Author::new(20);
        let mut versions = Versions::new();
        let disk = Arc::new(CutDisk { inner: CrashDisk::new(), left: AtomicU64::new(u64::MAX) });
        let store = Store::create(disk.clone(), DATABASE).unwrap();
        disk.left.store(dice.below(150), Ordering::SeqCst);
        cut_short += usize::from(live(&store, &mut dice, &mut author, &mut versions, length).is_err());
        for _ in 0..3 {
            let after = Arc::new(disk.inner.crash(|| match dice.below(5) {
                0 | 1 => Fate::Kept,
                2 => Fate::Torn,
                _ => Fate::Lost,
            }));
            let store = Store::open(after.clone()).unwrap();
            compare_kept(&store, &versions);
            lacking += store.kept().iter().filter(|kept| !store.is_whole(&kept.image)).count();
            assert_eq!(store.check(), [], "seed {seed}");
            live(&store, &mut dice, &mut author, &mut versions, length).unwrap();
            drop(store);
            let store = reopened(&after);
            compare_kept(&store, &versions);
            assert_eq!(store.check(), [], "seed {seed}");
        }
    }
    assert!(cut_short > 8 && lacking > 40, "{cut_short} {lacking}");
}
