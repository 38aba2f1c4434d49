//! Data: small files, chunk sizes, holes, and what is sealed early.

use super::super::{Allocate, ReadTree, SetAttr, Whence};
use super::{Dice, ROOT, World, kind};

const MIB: u64 = 1 << 20;

fn cut(world: &World, inode: crate::base::Inode, size: u64) {
    world.tree.set_attr(inode, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
}

#[test]
fn a_file_moves_between_record_and_chunks() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let data = Dice(1).bytes(5 << 20);
    for size in [0, 1, 1023, 1024, 1025, 16 << 10, (16 << 10) + 1, 100, 70_000, 5 << 20, 1024, 3 << 20, 0, 40]
    {
        cut(&world, file, 0);
        world.tree.write(file, 0, &data[..size]).unwrap();
        world.check();
        assert!(world.content(file) == data[..size], "{size}");
        world = world.reopen();
        assert!(world.content(file) == data[..size], "{size} again");
        // Without being emptied first.
        cut(&world, file, (size / 2) as u64);
        world.check();
        assert!(world.content(file) == data[..size / 2], "half of {size}");
        cut(&world, file, size as u64);
        let grown = world.content(file);
        assert!(grown[..size / 2] == data[..size / 2] && grown[size / 2..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn the_chunk_size_is_chosen_at_the_first_commit() {
    for (bytes, chunks) in [(3 * MIB, 3 * MIB / (16 << 10)), (4 * MIB, 4 * MIB / (64 << 10))] {
        let world = World::new();
        let file = world.file(ROOT, "f");
        world.tree.write(file, 0, &vec![7; bytes as usize]).unwrap();
        world.tree.flush().unwrap();
        let before = world.tree.flush().unwrap().image.live_bytes();
        // Another byte at the end seals one chunk: the live bytes hardly move.
        world.tree.write(file, bytes - 1, b"x").unwrap();
        assert!(world.check().image.live_bytes().abs_diff(before) < 100);
        // Growing does not change the size of chunks.
        world.tree.write(file, 0, &vec![8; 6 * MIB as usize]).unwrap();
        world.check();
        let unit = bytes / chunks;
        world.tree.allocate(file, Allocate::PunchHole, 0, 64 << 10).unwrap();
        assert_eq!(world.tree.seek(file, 0, Whence::Data).unwrap(), 64 << 10);
        world.tree.allocate(file, Allocate::PunchHole, 64 << 10, unit).unwrap();
        assert_eq!(world.tree.seek(file, 0, Whence::Data).unwrap(), (64 << 10) + unit);
        world.check();
    }
}

#[test]
fn holes_cost_nothing_and_are_found() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let far = 1u64 << 40;
    world.tree.write(file, far, b"end").unwrap();
    world.tree.write(file, 5 * MIB, &[1; 100]).unwrap();
    for _ in 0..2 {
        let tree = &world.tree;
        assert_eq!(tree.attr(file).unwrap().size, far + 3);
        assert_eq!(tree.seek(file, 0, Whence::Data).unwrap(), 5 * MIB);
        assert_eq!(tree.seek(file, 5 * MIB, Whence::Hole).unwrap(), 5 * MIB + (64 << 10));
        assert_eq!(tree.seek(file, 6 * MIB, Whence::Data).unwrap(), far);
        assert_eq!(tree.seek(file, far + 1, Whence::Hole).unwrap(), far + 3);
        assert_eq!(kind(&tree.seek(file, far + 3, Whence::Data).unwrap_err()), "NoSuchOffset");
        assert_eq!(tree.read(file, far - 2, 10).unwrap(), b"\0\0end");
        assert!(tree.read(file, 1 << 39, 5000).unwrap() == vec![0; 5000]);
        assert!(world.check().image.live_bytes() < 5000);
        world = world.reopen();
    }
    assert_eq!(kind(&world.tree.write(file, u64::MAX - 5, b"toolong").unwrap_err()), "TooBig");
    let zeros = world.file(ROOT, "zeros");
    world.tree.write(zeros, 0, &vec![0; 5 * MIB as usize]).unwrap();
    assert!(world.check().image.live_bytes() < 5000, "zeros are holes");
    assert_eq!(kind(&world.tree.seek(zeros, 0, Whence::Data).unwrap_err()), "NoSuchOffset");
}

#[test]
fn allocation_grows_or_does_not() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    let size = || world.tree.attr(file).unwrap().size;
    world.tree.allocate(file, Allocate::KeepSize, 0, 5000).unwrap();
    assert_eq!(size(), 0);
    world.tree.allocate(file, Allocate::Extend, 1000, 5000).unwrap();
    assert_eq!(size(), 6000);
    world.tree.write(file, 0, &[9; 6000]).unwrap();
    world.tree.allocate(file, Allocate::ZeroRange, 5000, 3000).unwrap();
    assert_eq!(size(), 8000);
    world.tree.allocate(file, Allocate::ZeroRangeKeepSize, 0, 90_000).unwrap();
    assert_eq!(size(), 8000);
    assert!(world.content(file).iter().all(|byte| *byte == 0));
    assert_eq!(kind(&world.tree.allocate(file, Allocate::Extend, 0, 0).unwrap_err()), "Invalid");
    world.check();
}

#[test]
fn a_big_write_is_sealed_before_anybody_flushes() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    let data = Dice(5).bytes(1 << 20);
    for index in 0..40 {
        world.tree.write(file, index * MIB, &data).unwrap();
        assert!(world.tree.dirty_bytes() <= (8 << 20) + (1 << 20));
    }
    for index in 0..40 {
        assert!(world.tree.read(file, index * MIB, 1 << 20).unwrap() == data);
    }
    world.check();
    // Overwritten at odd places, while what lies there is sealed.
    for index in 0..40 {
        world.tree.write(file, index * MIB + 100_000, &data[..300_000]).unwrap();
    }
    let world = world.reopen();
    for index in 0..40 {
        let piece = world.tree.read(file, index * MIB, 1 << 20).unwrap();
        assert!(piece[..100_000] == data[..100_000] && piece[100_000..400_000] == data[..300_000]);
        assert!(piece[400_000..] == data[400_000..]);
    }
    world.check();
}

#[test]
fn copies_stay_within_the_source() {
    let world = World::new();
    let (from, to) = (world.file(ROOT, "from"), world.file(ROOT, "to"));
    let data = Dice(9).bytes(3_000_000);
    world.tree.write(from, 0, &data).unwrap();
    assert_eq!(world.tree.copy_range(from, 1000, to, 77, 1 << 40).unwrap(), 2_999_000);
    assert!(world.content(to)[77..] == data[1000..]);
    assert_eq!(world.tree.copy_range(from, 3_000_000, to, 0, 10).unwrap(), 0);
    assert_eq!(kind(&world.tree.copy_range(from, 0, from, 10, 100).unwrap_err()), "Invalid");
    world.check();
}
