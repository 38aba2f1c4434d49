use super::*;
use crate::image::{CrashDisk, Fate, Space};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk whose power fails after so many changes.
pub(super) struct CutDisk {
    pub(super) inner: CrashDisk,
    pub(super) left: AtomicU64,
}

impl CutDisk {
    fn spend(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| io::Error::other("the power is gone"))
    }
}

impl Disk for CutDisk {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.spend()?;
        self.inner.write_at(offset, bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.spend()?;
        self.inner.set_length(bytes)
    }
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.spend()?;
        self.inner.discard(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.spend()?;
        self.inner.sync()
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

type Shown = (Vec<u8>, Vec<(Label, blake3::Hash)>);

fn shown(store: &Store) -> Shown {
    let versions = store.kept().iter().map(|kept| (kept.label.clone(), digest(store, &kept.image))).collect();
    (store.state(), versions)
}

/// Works on a store until it is done or the power fails; says what the last commit was to show, and the one under way.
fn work(
    store: &Arc<Store>,
    dice: &mut Dice,
    durable: &mut Shown,
    under_way: &mut Option<Shown>,
) -> Result<(), crate::image::StoreError> {
    let mut versions: Vec<Kept> = store.kept();
    let base = versions.first().map_or_else(|| Image::empty(store), |kept| kept.image.clone());
    let mut draft = store.draft(&base)?;
    let mut places: Vec<Place> = Vec::new();
    for round in 0..60u64 {
        match dice.below(10) {
            0..=4 => {
                let bytes = 1 + dice.below(200_000) as usize;
                let stream = if dice.below(5) == 0 { Stream::Cleaning } else { Stream::Fresh };
                places.push(draft.append(stream, &object(dice.below(u64::MAX), bytes))?);
            }
            5 if !places.is_empty() => {
                draft.free(places.swap_remove(dice.below(places.len() as u64) as usize));
                draft.truncate_empty();
            }
            6 if !versions.is_empty() => {
                // A fork: on from an older version.
                let base = &versions[dice.below(versions.len() as u64) as usize].image;
                draft = store.draft(base)?;
                places.clear();
            }
            7 | 8 => {
                let image = draft.snapshot()?;
                versions.insert(0, kept(&format!("v{round}"), &image));
                versions.truncate(1 + dice.below(4) as usize);
                let state = object(round, dice.below(9000) as usize);
                let hashes =
                    versions.iter().map(|kept| (kept.label.clone(), digest(store, &kept.image))).collect();
                *under_way = Some((state.clone(), hashes));
                store.commit(&versions, &state)?;
                *durable = under_way.take().unwrap();
            }
            _ => drop(draft.snapshot()?),
        }
    }
    Ok(())
}

#[test]
fn after_a_power_cut_the_last_commit_is_found() {
    let mut cut_in_commit = 0;
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let disk = Arc::new(CutDisk { inner: CrashDisk::new(), left: AtomicU64::new(u64::MAX) });
        let store = Store::create(disk.clone(), DATABASE).unwrap();
        let mut durable: Shown = (Vec::new(), Vec::new());
        let mut under_way = None;
        disk.left.store(dice.below(200), Ordering::SeqCst);
        let outcome = work(&store, &mut dice, &mut durable, &mut under_way);
        assert!(outcome.is_ok() || disk.left.load(Ordering::SeqCst) == 0);
        cut_in_commit += usize::from(under_way.is_some());
        // Twice the same power cut with other luck, and a life after it that ends in another.
        for _ in 0..3 {
            let after = Arc::new(disk.inner.crash(|| match dice.below(5) {
                0 | 1 => Fate::Kept,
                2 => Fate::Torn,
                _ => Fate::Lost,
            }));
            let store = Store::open(after.clone()).unwrap();
            let found = shown(&store);
            assert!(found == durable || Some(&found) == under_way.as_ref(), "seed {seed}");
            assert_eq!(store.check(), [], "seed {seed}");
            let (mut later, mut pending) = (found, None);
            work(&store, &mut dice, &mut later, &mut pending).unwrap();
            assert!(pending.is_none());
            drop(store);
            assert!(shown(&reopened(&after)) == later, "seed {seed}");
        }
    }
    assert!(cut_in_commit > 10, "{cut_in_commit}");
}

#[test]
fn at_every_step_of_a_commit_either_it_or_the_one_before_is_found() {
    for left in 0..14 {
        let mut dice = Dice::new(left);
        for _ in 0..12 {
            let disk = Arc::new(CutDisk { inner: CrashDisk::new(), left: AtomicU64::new(u64::MAX) });
            let store = Store::create(disk.clone(), DATABASE).unwrap();
            let draft = store.draft(&Image::empty(&store)).unwrap();
            let mut expected = vec![shown(&store)];
            for round in 0..3u64 {
                // More than a region: what is lost must not always be the end of the file, where its length tells.
                for _ in 0..3 {
                    append(&draft, dice.below(u64::MAX), 400_000);
                }
                let image = draft.snapshot().unwrap();
                let versions = [kept("head", &image)];
                expected.push((vec![round as u8], vec![(Label(b"head".to_vec()), digest(&store, &image))]));
                if round == 2 {
                    disk.left.store(left, Ordering::SeqCst);
                }
                if store.commit(&versions, &[round as u8]).is_ok() {
                    expected.drain(..expected.len() - 1);
                }
            }
            for _ in 0..4 {
                // Mostly kept: only then does a superblock without what it leads to show itself.
                let after = disk.inner.crash(|| match dice.below(8) {
                    0 => Fate::Lost,
                    1 => Fate::Torn,
                    _ => Fate::Kept,
                });
                let found = shown(&Store::open(Arc::new(after)).unwrap());
                assert!(expected.contains(&found), "{left}: {:?}", found.0);
            }
        }
    }
}

#[test]
fn a_store_that_was_being_made_when_the_power_failed_is_none_or_empty() {
    for left in 0..8 {
        let disk = Arc::new(CutDisk { inner: CrashDisk::new(), left: AtomicU64::new(left) });
        let created = Store::create(disk.clone(), DATABASE).is_ok();
        for fate in [Fate::Kept, Fate::Torn, Fate::Lost] {
            match Store::open(Arc::new(disk.inner.crash(|| fate))) {
                Ok(store) => assert_eq!(shown(&store), (Vec::new(), Vec::new())),
                Err(_) => assert!(!created, "{left} {fate:?}"),
            }
        }
    }
}
