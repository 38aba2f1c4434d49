//! A disk that takes nothing for a while: programs go on reading and writing meanwhile.

use super::super::ReadTree;
use super::*;
use crate::image::{Disk, Space};
use parking_lot::{Condvar, Mutex};
use std::io;

/// A disk whose writes and syncs wait at a gate.
#[derive(Default)]
struct GateDisk {
    inner: MemoryDisk,
    shut: Mutex<bool>,
    waiting: Mutex<u32>,
    moved: Condvar,
}

impl GateDisk {
    fn pass(&self) {
        let mut shut = self.shut.lock();
        *self.waiting.lock() += 1;
        self.moved.notify_all();
        while *shut {
            self.moved.wait(&mut shut);
        }
        *self.waiting.lock() -= 1;
    }

    fn set_shut(&self, value: bool) {
        *self.shut.lock() = value;
        self.moved.notify_all();
    }

    /// Waits until somebody stands at the gate.
    fn await_somebody(&self) {
        let mut shut = self.shut.lock();
        while *self.waiting.lock() == 0 {
            self.moved.wait(&mut shut);
        }
    }
}

impl Disk for GateDisk {
    fn name(&self) -> String {
        "a slow disk".to_owned()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pass();
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
        self.pass();
        Ok(())
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

#[test]
fn a_disk_that_stands_still_holds_up_nobody_but_who_asks_for_it() {
    let disk = Arc::new(GateDisk::default());
    let store = Store::create(disk.clone(), DatabaseId([3; 32])).unwrap();
    let blocks = vec![view_of(0, "", true)];
    let tree = Tree::load(store.clone(), Image::empty(&store), blocks.clone(), options()).unwrap();
    let world = World { store, blocks, tree };
    let file = world.file(ROOT, "before");
    world.tree.write(file, 0, &[7; 100_000]).unwrap();
    disk.set_shut(true);
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| world.tree.flush().map(drop));
        disk.await_somebody();
        // The flush stands at the gate; everything else goes on.
        assert_eq!(world.content(file), [7; 100_000]);
        world.tree.write(file, 0, b"over").unwrap();
        let directory = world.dir(ROOT, "directory");
        let other = world.file(directory, "other");
        world.tree.write(other, 0, &[9; 50_000]).unwrap();
        world.tree.unlink(ROOT, b"before").unwrap();
        assert_eq!(world.names(ROOT), ["directory"]);
        assert_eq!(world.content(other), [9; 50_000]);
        assert!(world.tree.space().is_ok() && world.tree.attr(directory).is_ok());
        disk.set_shut(false);
        flushing.join().unwrap().unwrap();
    });
    world.check();
    let world = world.reopen();
    assert_eq!(world.names(ROOT), ["directory"]);
}
