//! The promises of kilofs(7) that one mount can keep, each with a test of its number. Those that need several devices or
//! a power cut are kept in `tests/e2e/promises.rs`.

use super::mapping::Mapping;
use super::world::{SIDE_BLOCK, SOON, World, find, make, overwrite};
use kilofs::tree::{Changes, RenameFlags, SetAttr};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, SeekFrom, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn start_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let count = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(count);
    bytes
}

#[track_caller]
fn refuses<T: std::fmt::Debug>(errno: Errno, result: std::io::Result<T>) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
}

#[test]
fn promise_01_a_write_is_seen_by_every_program_here_at_once() {
    let Some(world) = World::new() else { return };
    let (one, other) = (both(&world.path("file")), both(&world.path("file")));
    one.write_all_at(&[b'a'; 4096], 0).unwrap();
    assert_eq!(start_of(&other), [b'a'; 4096]);
    let mapping = Mapping::new(&other, 4096);
    one.write_all_at(b"b", 100).unwrap();
    assert_eq!(mapping.get(100), b'b');
    mapping.set(101, b'c');
    assert_eq!(&start_of(&one)[99..103], b"abca");
}

#[test]
fn promise_03_a_rename_replaces_at_once() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("text"), "version 0").unwrap();
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| {
            for version in 1..300 {
                fs::write(world.path("new"), format!("version {version}")).unwrap();
                fs::rename(world.path("new"), world.path("text")).unwrap();
            }
        });
        while !renaming.is_finished() {
            assert!(fs::read_to_string(world.path("text")).unwrap().starts_with("version "));
        }
        renaming.join().unwrap();
    });
    world.remote(|tree| {
        make(tree, "", "new", b"from elsewhere");
        tree.rename(find(tree, ""), b"new", find(tree, ""), b"text", RenameFlags::Replace).unwrap();
    });
    assert_eq!(fs::read(world.path("text")).unwrap(), b"from elsewhere");
}

#[test]
fn promise_05_who_holds_a_file_open_sees_the_newer_content() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("file"), "one two").unwrap();
    let mut held = File::open(world.path("file")).unwrap();
    let mut three = [0; 3];
    held.read_exact(&mut three).unwrap();
    world.remote(|tree| overwrite(tree, "file", b"ONE TWO THREE"));
    let mut rest = String::new();
    held.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, " TWO THREE", "the offset stays");
    assert_eq!(held.metadata().unwrap().size(), 13);
    world.remote(|tree| overwrite(tree, "file", b"-"));
    assert_eq!(start_of(&held), b"-");
    assert_eq!(held.read(&mut three).unwrap(), 0, "behind the end there is nothing");
}

#[test]
fn promise_06_what_is_taken_away_elsewhere_stays_for_who_holds_it() {
    let Some(world) = World::new() else { return };
    for name in ["removed", "replaced"] {
        fs::write(world.path(name), "kept").unwrap();
    }
    let held = ["removed", "replaced"].map(|name| both(&world.path(name)));
    world.remote(|tree| {
        tree.unlink(find(tree, ""), b"removed").unwrap();
        make(tree, "", "new", b"other");
        tree.rename(find(tree, ""), b"new", find(tree, ""), b"replaced", RenameFlags::Replace).unwrap();
    });
    for file in &held {
        assert_eq!(start_of(file), b"kept");
        file.write_all_at(b"!", 4).unwrap();
        assert_eq!(start_of(file), b"kept!");
    }
    assert!(!world.path("removed").exists());
    assert_eq!(fs::read(world.path("replaced")).unwrap(), b"other");
}

#[test]
fn promise_07_who_appends_appends_at_the_real_end() {
    let Some(world) = World::new() else { return };
    let mut log = OpenOptions::new().append(true).create(true).open(world.path("log")).unwrap();
    log.write_all(b"here\n").unwrap();
    world.remote(|tree| overwrite(tree, "log", b"here\nelsewhere\n"));
    log.write_all(b"here again\n").unwrap();
    assert!(world.mounted().settle(SOON));
    assert_eq!(fs::read(world.path("log")).unwrap(), b"here\nelsewhere\nhere again\n");
}

#[test]
fn promise_08_names_come_and_go_under_listings_and_working_directories() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.path("dir/below")).unwrap();
    let count = || fs::read_dir(world.path("dir/below")).unwrap().count();
    let held = File::open(world.path("dir/below")).unwrap();
    assert_eq!(count(), 0);
    assert!(!world.path("dir/below/new").exists());
    world.remote(|tree| make(tree, "dir/below", "new", b"x"));
    assert_eq!(count(), 1);
    let at = rustix::fs::statat(&held, "new", AtFlags::empty()).unwrap();
    assert_eq!(at.st_size, 1);
    world.edited(|tree| tree.unlink(find(tree, "dir/below"), b"new").unwrap());
    world.mounted().notify(Changes { too_many: true, ..Changes::default() });
    assert!(world.mounted().settle(SOON));
    assert_eq!(count(), 0);
}

#[test]
fn promise_09_changes_elsewhere_raise_no_event_and_those_here_do() {
    let Some(world) = World::new() else { return };
    let events = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::NONBLOCK).unwrap();
    let all = rustix::fs::inotify::WatchFlags::CREATE | rustix::fs::inotify::WatchFlags::DELETE;
    rustix::fs::inotify::add_watch(&events, world.path(""), all).unwrap();
    world.remote(|tree| make(tree, "", "elsewhere", b""));
    let mut room = [0; 4096];
    assert_eq!(rustix::io::read(&events, &mut room), Err(Errno::AGAIN));
    fs::write(world.path("here"), "").unwrap();
    assert!(rustix::io::read(&events, &mut room).unwrap() > 0);
}

#[test]
fn promise_10_locks_hold_among_the_programs_of_one_machine() {
    let Some(world) = World::new() else { return };
    let (one, other) = (both(&world.path("file")), both(&world.path("file")));
    rustix::fs::flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    // Another device knows nothing of it.
    world.remote(|tree| overwrite(tree, "file", b"changed"));
    assert_eq!(start_of(&one), b"changed");
    rustix::fs::flock(&one, FlockOperation::Unlock).unwrap();
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn promise_11_times_are_exact_and_access_times_are_set_by_hand() {
    let Some(world) = World::new() else { return };
    let path = world.path("file");
    fs::write(&path, "x").unwrap();
    let times = || {
        let meta = fs::metadata(&path).unwrap();
        (
            (meta.atime(), meta.atime_nsec()),
            (meta.mtime(), meta.mtime_nsec()),
            (meta.ctime(), meta.ctime_nsec()),
        )
    };
    // Linux keeps no fraction of the first and the last second that there is.
    for (seconds, nanos) in
        [(i64::MIN, 0), (i64::MIN + 1, 999_999_999), (-1, 1), (0, 0), (1 << 40, 123_456_789), (i64::MAX, 0)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let both = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &both, AtFlags::empty()).unwrap();
        let (access, modification, _) = times();
        assert_eq!((access, modification), ((seconds, nanos), (seconds, nanos)));
    }
    let before = times();
    fs::read(&path).unwrap();
    assert_eq!(times(), before, "reading changes no time");
    fs::hard_link(&path, world.path("other")).unwrap();
    let linked = times();
    assert_eq!((linked.0, linked.1), (before.0, before.1));
    assert!(linked.2 > before.2, "a change of attributes is noted");
    fs::write(&path, "y").unwrap();
    let written = times();
    assert!(written.0 == before.0 && written.1 != before.1 && written.2 > linked.2);
}

#[test]
fn promise_12_holes_read_as_zeros_and_are_found() {
    let Some(world) = World::new() else { return };
    let file = both(&world.path("sparse"));
    file.write_all_at(b"end", 100 << 20).unwrap();
    assert_eq!(start_of(&file), [0; 1 << 16]);
    let data = rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap();
    assert!(data > 99 << 20 && data <= 100 << 20, "{data}");
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(0)).unwrap(), 0);
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, 0, 101 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Err(Errno::NXIO));
    assert_eq!(file.metadata().unwrap().size(), (100 << 20) + 3);
}

#[test]
fn promise_13_sizes_are_the_same_on_every_device() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("dir")).unwrap();
    assert_eq!(fs::metadata(world.path("dir")).unwrap().size(), 4096);
    for number in 0..500 {
        fs::write(world.path(&format!("dir/{number}")), "x").unwrap();
    }
    let meta = fs::metadata(world.path("dir")).unwrap();
    assert_eq!((meta.size(), meta.nlink()), (4096, 2));
    fs::create_dir(world.path("dir/sub")).unwrap();
    assert_eq!(fs::metadata(world.path("dir")).unwrap().nlink(), 3);
    fs::write(world.path("file"), vec![1; 5000]).unwrap();
    assert_eq!(fs::metadata(world.path("file")).unwrap().blocks(), 10);
    symlink("target", world.path("link")).unwrap();
    assert_eq!(fs::symlink_metadata(world.path("link")).unwrap().size(), 6);
}

#[test]
fn promise_14_what_may_not_be_written_says_so_at_the_open() {
    let Some(world) = World::with_side_block() else { return };
    fs::write(world.path("side/block/file"), "x").unwrap();
    let mut held = OpenOptions::new().append(true).open(world.path("side/block/file")).unwrap();
    world.set_block_writable(SIDE_BLOCK, false);
    assert_eq!(fs::metadata(world.path("side/block/file")).unwrap().mode() & 0o222, 0);
    refuses(Errno::ROFS, OpenOptions::new().write(true).open(world.path("side/block/file")));
    refuses(Errno::ROFS, held.write(b"y"));
    refuses(Errno::ROFS, fs::create_dir(world.path("side/block/dir")));
    refuses(Errno::BUSY, fs::remove_dir(world.path("side/block")));
    world.set_block_writable(SIDE_BLOCK, true);
    held.write_all(b"y").unwrap();
    assert_eq!(fs::read(world.path("side/block/file")).unwrap(), b"xy");
    refuses(Errno::XDEV, fs::rename(world.path("side/block/file"), world.path("file")));
}

#[test]
fn promise_15_what_is_too_much_has_its_number() {
    let Some(world) = World::new() else { return };
    let long = |count: usize| "n".repeat(count);
    fs::write(world.path(&long(255)), "").unwrap();
    refuses(Errno::NAMETOOLONG, fs::metadata(world.path(&long(256))));
    refuses(Errno::NAMETOOLONG, fs::write(world.path(&long(256)), ""));
    symlink(long(4095), world.path("link")).unwrap();
    refuses(Errno::NAMETOOLONG, symlink(long(4096), world.path("longer")));
    let file = both(&world.path("file"));
    refuses(Errno::FBIG, file.set_len(i64::MAX as u64));
    file.set_len(1 << 60).unwrap();
    let set =
        |name: &str, bytes: usize| rustix::fs::fsetxattr(&file, name, &vec![0; bytes], XattrFlags::empty());
    assert_eq!(set("user.full", 64 << 10), Ok(()));
    assert_eq!(set("user.more", (64 << 10) + 1), Err(Errno::TOOBIG));
    assert_eq!(set("trusted.any", 1), Err(Errno::OPNOTSUPP));
    assert_eq!(set("user.kilofs.mode", 1), Err(Errno::PERM));
    let mut room = [0; 8];
    assert_eq!(rustix::fs::fgetxattr(&file, "user.none", &mut room), Err(Errno::NODATA));
    let shift = FallocateFlags::INSERT_RANGE;
    assert_eq!(rustix::fs::fallocate(&file, shift, 0, 4096), Err(Errno::OPNOTSUPP));
}

#[test]
fn promise_16_nothing_that_is_shared_gives_rights() {
    let Some(world) = World::with("allow_other") else { return };
    fs::copy("/usr/bin/id", world.path("id")).unwrap();
    world.remote(|tree| {
        let change = SetAttr { mode: Some(0o4755), uid: Some(0), ..SetAttr::default() };
        tree.set_attr(find(tree, "id"), change).unwrap();
    });
    assert_eq!(fs::metadata(world.path("id")).unwrap().mode() & 0o7777, 0o4755);
    assert!(world.as_nobody("[ \"$($FILE -u)\" = 65534 ]", &world.path("id")));
    let kind = rustix::fs::FileType::CharacterDevice;
    let (mode, null) = (rustix::fs::Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3));
    rustix::fs::mknodat(CWD, world.path("null"), kind, mode, null).unwrap();
    refuses(Errno::ACCESS, File::open(world.path("null")));
}

/// Every number of kilofs(7) has its test, and every test a number there.
#[test]
fn the_promises_are_those_of_the_manual() {
    let manual = include_str!("../../man/kilofs.7");
    let section = manual.split(".Ss Promises").nth(1).unwrap().split("\n.Ss ").next().unwrap();
    let promised = section.lines().filter(|line| line.starts_with(".It")).count();
    let tests = [include_str!("promises.rs"), include_str!("../e2e/promises.rs")].concat();
    let kept = |number: usize| tests.matches(&format!("\nfn promise_{number:02}_")).count();
    let numbers: Vec<usize> = (1..=promised).map(kept).collect();
    assert_eq!(numbers, vec![1; promised]);
    assert_eq!(tests.matches("\nfn promise_").count(), promised);
}
