//! Space: dead bytes are given back, and a full disk loses nothing.

use super::super::{ReadTree, Tree};
use super::{Dice, ROOT, World, kind, options, view_of};
use crate::base::DatabaseId;
use crate::image::{Disk, Image, MemoryDisk, Space, Store};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn deleted_files_shrink_the_image() {
    let world = World::new();
    let files: Vec<_> = (0..30).map(|index| world.file(ROOT, &format!("f{index}"))).collect();
    for (seed, file) in files.iter().enumerate() {
        world.tree.write(*file, 0, &Dice(seed as u64).bytes(1 << 20)).unwrap();
    }
    assert!(world.check().image.bytes() >= 30 << 20);
    for index in 0..30 {
        world.tree.unlink(ROOT, format!("f{index}").as_bytes()).unwrap();
    }
    world.check();
    assert!(world.check().image.bytes() <= 4 << 20);
}

#[test]
fn overwriting_here_and_there_leaves_little_dead_space() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    world.tree.write(file, 0, &Dice(0).bytes(32 << 20)).unwrap();
    world.tree.flush().unwrap();
    let mut dice = Dice(1);
    let mut data = world.content(file);
    for round in 0..400 {
        let offset = (dice.below(32 << 20) & !0xffff) as usize;
        let piece = dice.bytes(1 << 16);
        world.tree.write(file, offset as u64, &piece).unwrap();
        data[offset..offset + piece.len()].copy_from_slice(&piece);
        if round % 20 == 0 {
            world.tree.flush().unwrap();
        }
    }
    let head = world.check();
    assert!(world.content(file) == data);
    let (live, filled) = (head.image.live_bytes(), head.image.filled_bytes());
    assert!(live * 10 >= filled * 6, "{live} of {filled} live");
    let world = world.reopen();
    assert!(world.content(file) == data);
}

/// A disk that takes so many bytes and no more.
struct Tight {
    disk: MemoryDisk,
    room: AtomicU64,
    /// What it says that it has; if nothing, it says that it has enough.
    told: Option<u64>,
}

impl Disk for Tight {
    fn name(&self) -> String {
        "a small disk".into()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.room.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.write_at(offset, bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.disk.length()
    }
    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.disk.set_length(bytes)
    }
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.disk.discard(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn space(&self) -> io::Result<Space> {
        let Some(told) = self.told else { return self.disk.space() };
        let free_bytes = told.saturating_sub(self.disk.length()?);
        Ok(Space { free_bytes, total_bytes: told })
    }
}

#[test]
fn what_does_not_fit_the_disk_is_refused_and_can_be_deleted() {
    const ROOM: u64 = 40 << 20;
    let disk = Tight { disk: MemoryDisk::new(), room: AtomicU64::new(ROOM), told: Some(ROOM) };
    let store = Store::create(Arc::new(disk), DatabaseId([3; 32])).unwrap();
    let blocks = vec![view_of(0, "", true)];
    let tree = Tree::load(store.clone(), Image::empty(&store), blocks.clone(), options()).unwrap();
    let world = World { store, blocks, tree };
    let file = world.file(ROOT, "large");
    let piece = Dice(1).bytes(1 << 20);
    let taken = (0..60).take_while(|index| world.tree.write(file, index << 20, &piece).is_ok()).count();
    assert!((4..ROOM as usize >> 20).contains(&taken), "{taken} MiB were taken");
    assert_eq!(kind(&world.tree.write(file, (taken as u64) << 20, &piece).unwrap_err()), "NoSpace");
    // What was taken is kept, and there is room to get rid of it.
    world.check();
    world.tree.unlink(ROOT, b"large").unwrap();
    world.check();
    // A name less is written, whatever the disk has left.
    assert_eq!(world.names(ROOT), Vec::<String>::new());
}

#[test]
fn a_full_disk_loses_nothing() {
    let disk = Arc::new(Tight { disk: MemoryDisk::new(), room: AtomicU64::new(12 << 20), told: None });
    let store = Store::create(disk.clone(), DatabaseId([3; 32])).unwrap();
    let blocks = vec![view_of(0, "", true)];
    let tree = Tree::load(store.clone(), Image::empty(&store), blocks.clone(), options()).unwrap();
    let world = World { store, blocks, tree };
    let before = world.file(ROOT, "before");
    world.tree.write(before, 0, &[4; 100_000]).unwrap();
    world.check();
    let file = world.file(ROOT, "f");
    let data = Dice(1).bytes(20 << 20);
    for (index, piece) in data.chunks(1 << 20).enumerate() {
        world.tree.write(file, (index as u64) << 20, piece).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(kind(&world.tree.flush().unwrap_err()), "NoSpace");
        assert!(world.content(file) == data && world.content(before) == [4; 100_000]);
        world.tree.write(file, 7, b"meanwhile").unwrap();
        assert_eq!(world.tree.read(file, 7, 9).unwrap(), b"meanwhile");
        world.tree.write(file, 7, &data[7..16]).unwrap();
    }
    world.file(ROOT, "later");
    disk.room.store(u64::MAX, Ordering::Relaxed);
    world.check();
    let world = world.reopen();
    assert!(world.content(file) == data);
    assert_eq!(world.names(ROOT), ["before", "f", "later"]);
}
