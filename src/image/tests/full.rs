use super::*;
use crate::image::{Space, StoreError};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A disk with so many bytes left to write, and a switch that makes syncing fail.
#[derive(Default)]
struct SmallDisk {
    inner: MemoryDisk,
    left: AtomicU64,
    sync_fails: AtomicBool,
}

impl Disk for SmallDisk {
    fn name(&self) -> String {
        "a small disk".to_owned()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let take = |left: u64| left.checked_sub(bytes.len() as u64);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            // A real disk takes what fits and then says no.
            self.inner.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(offset, bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_length(bytes)
    }
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.inner.discard(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) { Err(io::Error::other("bad sector")) } else { Ok(()) }
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

#[test]
fn a_full_disk_is_said_so_and_costs_nothing_that_was_written() {
    let disk = Arc::new(SmallDisk::default());
    disk.left.store(3 << 20, Ordering::SeqCst);
    let store = Store::create(disk.clone(), DATABASE).unwrap();
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let first = append(&draft, 0, 60_000);
    let committed = draft.snapshot().unwrap();
    store.commit(&[kept("head", &committed)], b"before").unwrap();
    let mut places = vec![(0, first)];
    let mut failures = 0;
    for seed in 1..300 {
        match draft.append(Stream::Fresh, &object(seed, 60_000)) {
            Ok(place) => places.push((seed, place)),
            Err(StoreError::Full { .. }) => failures += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failures > 100, "memory does not stand in for the disk without end");
    assert!(matches!(draft.snapshot(), Err(StoreError::Full { .. })));
    assert!(matches!(store.commit(&[], &vec![1; 1 << 19]), Err(StoreError::Full { .. })));
    assert_eq!(store.state(), b"before");
    for (seed, place) in &places {
        assert_eq!(draft.read(*place).unwrap(), object(*seed, 60_000), "still readable from memory");
    }
    assert_eq!(reopened(&disk.inner).state(), b"before");
    // Space again: everything goes on.
    disk.left.store(100 << 20, Ordering::SeqCst);
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"after").unwrap();
    let store = reopened(&disk.inner);
    assert_eq!(store.state(), b"after");
    for (seed, place) in &places {
        assert_eq!(store.read_object(&store.kept()[0].image, *place).unwrap(), object(*seed, 60_000));
    }
    assert_eq!(store.check(), []);
}

#[test]
fn after_a_failed_sync_nothing_more_is_committed() {
    let disk = Arc::new(SmallDisk::default());
    disk.left.store(3 << 20, Ordering::SeqCst);
    let store = Store::create(disk.clone(), DATABASE).unwrap();
    store.commit(&[], b"good").unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    let error = store.commit(&[], b"lost").unwrap_err();
    assert_eq!(
        error.to_string(),
        "syncing a small disk at byte 0 failed (bad sector): check the disk and the file's permissions"
    );
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(store.commit(&[], b"more"), Err(StoreError::SyncFailed { .. })));
    assert_eq!(store.state(), b"good");
    assert_eq!(reopened(&disk.inner).state(), b"good");
}

#[test]
fn a_store_on_a_real_file_is_locked_sparse_and_comes_back() {
    use crate::image::FileDisk;
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("database");
    let store = Store::create(Arc::new(FileDisk::create(&path).unwrap()), DATABASE).unwrap();
    assert!(matches!(FileDisk::open(&path), Err(StoreError::Locked { .. })));
    let draft = store.draft(&Image::empty(&store)).unwrap();
    let places: Vec<Place> = (0..200).map(|seed| append(&draft, seed, 50_000)).collect();
    let image = draft.snapshot().unwrap();
    store.commit(&[kept("head", &image)], b"s").unwrap();
    assert!(store.space().unwrap().free_bytes <= store.space().unwrap().total_bytes);
    for place in &places[20..] {
        draft.free(*place);
    }
    draft.truncate_empty();
    let small = draft.snapshot().unwrap();
    drop((draft, image));
    store.commit(&[kept("head", &small)], b"s").unwrap();
    store.commit(&[kept("head", &small)], b"s").unwrap();
    drop((store, small));
    let on_disk = std::fs::metadata(&path).unwrap();
    assert!(on_disk.blocks() * 512 < 3 << 20, "{} bytes on disk", on_disk.blocks() * 512);
    let store = Store::open(Arc::new(FileDisk::open(&path).unwrap())).unwrap();
    for (seed, place) in places[..20].iter().enumerate() {
        assert_eq!(store.read_object(&store.kept()[0].image, *place).unwrap(), object(seed as u64, 50_000));
    }
    std::fs::write(folder.path().join("other"), b"a text").unwrap();
    let other: Arc<dyn Disk> = Arc::new(FileDisk::open(&folder.path().join("other")).unwrap());
    assert!(matches!(Store::open(other), Err(StoreError::NotAStore { .. })));
}
