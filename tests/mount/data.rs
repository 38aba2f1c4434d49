//! Data of files: reading, writing, holes, truncation, mappings, locks, durability.

use super::mapping::Mapping;
use super::world::World;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

fn both(world: &World, name: &str) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(world.path(name)).unwrap()
}

/// Bytes that repeat nowhere nearby.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).flat_map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()).take(bytes).collect()
}

#[test]
fn large_files_come_back() {
    let Some(world) = World::new() else { return };
    let data = pattern(9_000_001);
    fs::write(world.path("large"), &data).unwrap();
    assert_eq!(fs::read(world.path("large")).unwrap(), data);
    let file = both(&world, "large");
    file.write_all_at(b"patch", 4_999_998).unwrap();
    let mut around = [0; 9];
    file.read_exact_at(&mut around, 4_999_996).unwrap();
    assert_eq!(&around[2..7], b"patch");
    assert_eq!(&around[..2], &data[4_999_996..4_999_998]);
    assert_eq!(file.metadata().unwrap().size(), 9_000_001);
}

#[test]
fn opening_flags() {
    let Some(world) = World::new() else { return };
    let path = world.path("file");
    let exclusive = || OpenOptions::new().write(true).create_new(true).open(&path);
    exclusive().unwrap().write_all(b"0123456789").unwrap();
    assert_eq!(exclusive().unwrap_err().raw_os_error(), Some(libc::EEXIST));
    let mut appending = OpenOptions::new().append(true).open(&path).unwrap();
    appending.write_all(b"ab").unwrap();
    let reader = File::open(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123456789ab");
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(reader.metadata().unwrap().size(), 0);
    appending.write_all(b"cd").unwrap();
    let mut rest = [0; 8];
    assert_eq!(reader.read_at(&mut rest, 0).unwrap(), 2);
    assert_eq!(&rest[..2], b"cd");
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    assert_eq!(direct.read_at(&mut rest, 1).unwrap(), 1);
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let Some(world) = World::new() else { return };
    let mut file = both(&world, "ghost");
    file.write_all(b"boo").unwrap();
    fs::remove_file(world.path("ghost")).unwrap();
    assert!(!world.path("ghost").exists());
    file.write_all(b"!").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "boo!");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    // Replaced by a rename while open: the same.
    fs::write(world.path("new"), "new").unwrap();
    let old = both(&world, "old");
    old.write_all_at(b"old", 0).unwrap();
    fs::rename(world.path("new"), world.path("old")).unwrap();
    let mut three = [0; 3];
    old.read_exact_at(&mut three, 0).unwrap();
    assert_eq!(&three, b"old");
    assert_eq!(fs::read(world.path("old")).unwrap(), b"new");
}

#[test]
fn holes_and_allocation() {
    let Some(world) = World::new() else { return };
    let file = both(&world, "sparse");
    file.write_all_at(b"end", 10 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().size(), (10 << 20) + 3);
    let mut zeros = [1; 100];
    file.read_exact_at(&mut zeros, 5 << 20).unwrap();
    assert_eq!(zeros, [0; 100]);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 11 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().size(), 11 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 12 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().size(), 11 << 20);
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, (10 << 20) + 1, 1).unwrap();
    let mut end = [0; 3];
    file.read_exact_at(&mut end, 10 << 20).unwrap();
    assert_eq!(&end, b"e\0d");
    assert_eq!(rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(12 << 20)), Err(Errno::NXIO));
    let data = rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap();
    assert!(data <= 10 << 20);
    assert!(rustix::fs::seek(&file, SeekFrom::Hole(10 << 20)).unwrap() <= 11 << 20);
    file.set_len(5).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(fs::read(world.path("sparse")).unwrap(), [0; 10]);
}

#[test]
fn ranges_are_copied() {
    let Some(world) = World::new() else { return };
    let data = pattern(3_000_000);
    fs::write(world.path("from"), &data).unwrap();
    let (from, to) = (both(&world, "from"), both(&world, "to"));
    let (mut source, mut target) = (1000, 0);
    while source < 3_000_000 {
        let copied =
            rustix::fs::copy_file_range(&from, Some(&mut source), &to, Some(&mut target), 1 << 20).unwrap();
        assert!(copied > 0);
    }
    assert_eq!(fs::read(world.path("to")).unwrap(), data[1000..]);
    fs::copy(world.path("from"), world.path("third")).unwrap();
    assert_eq!(fs::read(world.path("third")).unwrap(), data);
}

#[test]
fn shared_mappings() {
    let Some(world) = World::new() else { return };
    let file = both(&world, "mapped");
    file.set_len(100_000).unwrap();
    let mapping = Mapping::new(&file, 100_000);
    mapping.set(0, b'a');
    mapping.set(99_999, b'z');
    mapping.sync();
    let other = fs::read(world.path("mapped")).unwrap();
    assert_eq!((other[0], other[1], other[99_999]), (b'a', 0, b'z'));
    file.write_all_at(b"m", 50_000).unwrap();
    assert_eq!(mapping.get(50_000), b'm');
    // Changed, closed, unmapped, never synced: written all the same.
    mapping.set(7, b'7');
    drop(file);
    drop(mapping);
    assert_eq!(world.stored("mapped")[7], b'7');
}

#[test]
fn programs_run_but_never_as_somebody_else() {
    let Some(world) = World::new() else { return };
    let program = world.path("true");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    assert!(std::process::Command::new(&program).status().unwrap().success());
    let flags = rustix::fs::statvfs(&program).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::NOSUID | rustix::fs::StatVfsMountFlags::NODEV));
}

#[test]
fn a_program_that_runs_is_not_emptied() {
    let Some(world) = World::new() else { return };
    let path = world.path("cat");
    fs::copy("/bin/cat", &path).unwrap();
    let before = fs::read(&path).unwrap();
    let mut running = Command::new(&path).stdin(Stdio::piped()).spawn().unwrap();
    let truncate = |flags| rustix::fs::open(&path, flags | OFlags::TRUNC, Mode::empty());
    for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR] {
        assert_eq!(truncate(flags).err(), Some(Errno::TXTBSY));
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    world.wait_until(|| truncate(OFlags::RDONLY).is_ok());
    assert_eq!(fs::metadata(&path).unwrap().size(), 0);
}

#[test]
fn locks_are_kept_by_the_kernel() {
    let Some(world) = World::new() else { return };
    let (one, two) = (both(&world, "locked"), both(&world, "locked"));
    rustix::fs::flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
    rustix::fs::flock(&one, FlockOperation::Unlock).unwrap();
    rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
    rustix::fs::fcntl_lock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn fsync_reaches_the_engine_and_close_does_not() {
    let Some(world) = World::new() else { return };
    let persisted = || world.host.persisted.load(Ordering::Relaxed);
    let mut file = both(&world, "file");
    file.write_all(b"x").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert_eq!(persisted(), 2);
    File::open(world.path("")).unwrap().sync_all().unwrap();
    assert_eq!(persisted(), 3);
    drop(file);
    assert_eq!(fs::read(world.path("file")).unwrap(), b"x");
    assert_eq!(persisted(), 3);
}

#[test]
fn set_user_id_ends_with_a_strangers_write() {
    let Some(world) = World::with("allow_other") else { return };
    let path = world.path("tool");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    assert_eq!(mode(), 0o6777);
    assert!(world.as_nobody("printf x >> \"$FILE\"", &path));
    assert_eq!(mode(), 0o777);
}
