//! Names: making, linking, renaming, removing, listing; attributes and extended attributes.

use super::world::World;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, Timespec, XattrFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::Ordering;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn things_of_every_kind() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("dir")).unwrap();
    fs::write(world.path("dir/file"), "hello").unwrap();
    symlink("dir/file", world.path("link")).unwrap();
    fs::hard_link(world.path("dir/file"), world.path("second")).unwrap();
    rustix::fs::mknodat(CWD, world.path("fifo"), FileType::Fifo, Mode::from(0o640), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap();
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, world.path("null"), FileType::CharacterDevice, Mode::from(0o666), device)
        .unwrap();

    assert_eq!(fs::read(world.path("link")).unwrap(), b"hello");
    assert_eq!(fs::read_link(world.path("link")).unwrap().to_str(), Some("dir/file"));
    let (first, second) =
        (fs::metadata(world.path("dir/file")).unwrap(), fs::metadata(world.path("second")).unwrap());
    assert_eq!((first.ino(), first.nlink()), (second.ino(), 2));
    assert!(fs::metadata(world.path("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::metadata(world.path("socket")).unwrap().file_type().is_socket());
    assert_eq!(fs::metadata(world.path("null")).unwrap().rdev(), device);
    assert_eq!(errno(fs::File::open(world.path("null"))), libc::EACCES, "the mount is nodev");
    assert_eq!(fs::metadata(world.path("")).unwrap().nlink(), 3);

    fs::remove_file(world.path("dir/file")).unwrap();
    assert_eq!(fs::metadata(world.path("second")).unwrap().nlink(), 1);
    assert_eq!(errno(fs::metadata(world.path("link"))), libc::ENOENT);
    fs::remove_dir(world.path("dir")).unwrap();
    assert_eq!(fs::metadata(world.path("")).unwrap().nlink(), 2);
    assert!(world.host.mutations.load(Ordering::Relaxed) >= 10);
}

#[test]
fn refusals_have_their_numbers() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.path("dir/inner")).unwrap();
    fs::write(world.path("file"), "").unwrap();
    let long = "n".repeat(256);
    assert_eq!(errno(fs::metadata(world.path(&long))), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::write(world.path(&long), "")), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::create_dir(world.path(&long))), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::rename(world.path("file"), world.path(&long))), libc::ENAMETOOLONG);
    fs::write(world.path(&long[..255]), "").unwrap();
    assert_eq!(errno(fs::remove_dir(world.path("dir"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::remove_dir(world.path("file"))), libc::ENOTDIR);
    assert_eq!(errno(fs::remove_file(world.path("dir"))), libc::EISDIR);
    assert_eq!(errno(fs::create_dir(world.path("file"))), libc::EEXIST);
    assert_eq!(errno(fs::rename(world.path("dir"), world.path("dir/inner/x"))), libc::EINVAL);
    assert_eq!(errno(fs::hard_link(world.path("dir"), world.path("other"))), libc::EPERM);
    assert_eq!(errno(fs::read(world.path("file/below"))), libc::ENOTDIR);
}

#[test]
fn renames_and_their_flags() {
    let Some(world) = World::new() else { return };
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(CWD, world.path(from), CWD, world.path(to), flags)
    };
    fs::write(world.path("a"), "a").unwrap();
    fs::write(world.path("b"), "b").unwrap();
    fs::create_dir_all(world.path("dir/sub")).unwrap();
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("a", "none", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(rename("a", "b", RenameFlags::WHITEOUT), Err(Errno::INVAL));
    rename("a", "dir", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(world.path("dir")).unwrap(), b"a");
    assert!(world.path("a/sub").is_dir());
    rename("dir", "a/c", RenameFlags::NOREPLACE).unwrap();
    rename("b", "a/c", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(world.path("a/c")).unwrap(), b"b");
    rename("a/sub", "sub", RenameFlags::empty()).unwrap();
    assert_eq!(fs::metadata(world.path("a")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(world.path("")).unwrap().nlink(), 4);
    assert_eq!(fs::metadata(world.path("sub/..")).unwrap().ino(), 1);
}

#[test]
fn attributes_and_times() {
    let Some(world) = World::new() else { return };
    let file = world.path("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4751);
    std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
    for (seconds, nanos) in [(1_700_000_000, 123_456_789), (-2, 800_000_000), (-2, 0), (1 << 33, 1), (0, 0)] {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
        let meta = fs::metadata(&file).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanos));
        assert_eq!((meta.atime(), meta.atime_nsec()), (seconds, nanos));
    }
    let space = rustix::fs::statvfs(world.path("")).unwrap();
    assert!(space.f_blocks > 0 && space.f_bavail <= space.f_blocks && space.f_namemax == 255);
}

#[test]
fn extended_attributes() {
    let Some(world) = World::new() else { return };
    let file = world.path("file");
    fs::write(&file, "x").unwrap();
    let get = |name: &str| {
        let mut room = [0u8; 256];
        rustix::fs::getxattr(&file, name, &mut room).map(|bytes| room[..bytes].to_vec())
    };
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&file, name, value, flags);
    assert_eq!(get("user.color"), Err(Errno::NODATA));
    set("user.color", b"red", XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.color", b"blue", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.shape", b"x", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.color", b"blue", XattrFlags::REPLACE).unwrap();
    set("user.empty", b"", XattrFlags::empty()).unwrap();
    assert_eq!(get("user.color").unwrap(), b"blue");
    assert_eq!(get("user.empty").unwrap(), b"");
    let mut small = [0u8; 2];
    assert_eq!(rustix::fs::getxattr(&file, "user.color", &mut small), Err(Errno::RANGE));
    let mut room = [0u8; 256];
    let bytes = rustix::fs::listxattr(&file, &mut room).unwrap();
    let names: BTreeSet<&[u8]> =
        room[..bytes].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    assert_eq!(names, BTreeSet::from([&b"user.color"[..], b"user.empty"]), "virtual ones are not listed");
    rustix::fs::removexattr(&file, "user.color").unwrap();
    assert_eq!(rustix::fs::removexattr(&file, "user.color"), Err(Errno::NODATA));

    assert_eq!(get("user.kilofs.block").unwrap(), b"0");
    assert_eq!(get("user.kilofs.mode").unwrap(), b"rw");
    assert!(get("user.kilofs.version").is_ok() && get("user.kilofs.author").is_ok());
    assert_eq!(get("user.kilofs.other"), Err(Errno::NODATA));
    assert_eq!(set("user.kilofs.block", b"1", XattrFlags::empty()), Err(Errno::PERM));
    assert_eq!(rustix::fs::removexattr(&file, "user.kilofs.mode"), Err(Errno::PERM));
}

#[test]
fn long_listings_are_complete_also_while_they_shrink() {
    const FILES: usize = 3000;
    let Some(world) = World::new() else { return };
    let dir = world.path("many");
    fs::create_dir(&dir).unwrap();
    for index in 0..FILES {
        fs::File::create(dir.join(format!("file-{index:05}"))).unwrap();
    }
    let names = |()| fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    for _ in 0..3 {
        let listed = names(());
        assert_eq!(listed.len(), FILES);
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>().len(), FILES);
    }
    // As `rm -r` does: remove while listing. Nothing may be skipped.
    let mut removed = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        removed += 1;
    }
    assert_eq!(removed, FILES);
    fs::remove_dir(&dir).unwrap();
}
