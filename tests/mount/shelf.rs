//! The `.kilofs` directory.

use super::world::{SOON, World, find, make};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn it_is_there_but_not_listed() {
    let Some(world) = World::new() else { return };
    assert!(listing(&world.path("")).is_empty());
    let shelf = world.path(".kilofs");
    assert_eq!(listing(&shelf), ["conflicts", "refused", "status", "versions"]);
    assert!(fs::metadata(&shelf).unwrap().ino() >= 0x4000_0000);
    assert_eq!(fs::metadata(shelf.join("..")).unwrap().ino(), 1);
    assert_eq!(fs::metadata(shelf.join("versions/..")).unwrap().ino(), fs::metadata(&shelf).unwrap().ino());
    assert!(!shelf.join("other").exists() && !shelf.join("versions/1").exists());
    assert!(listing(&shelf.join("versions")).is_empty() && listing(&shelf.join("refused")).is_empty());
    assert!(!world.path(".kilofs/status/x").exists());
}

#[test]
fn texts_are_made_at_the_open() {
    let Some(world) = World::new() else { return };
    let status = || fs::read_to_string(world.path(".kilofs/status")).unwrap();
    let before = status();
    fs::write(world.path("file"), "x").unwrap();
    assert_ne!(before, status());
    assert_eq!(fs::read_to_string(world.path(".kilofs/conflicts")).unwrap(), "a.conflict\n");
    let read = std::process::Command::new("cat").arg(world.path(".kilofs/status")).output().unwrap();
    assert_eq!(read.stdout, status().into_bytes());
}

#[test]
fn nothing_on_it_can_be_changed() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("file"), "x").unwrap();
    make(&world.tree, "", "kept", b"kept");
    world.keep_version();
    let (shelf, status) = (world.path(".kilofs"), world.path(".kilofs/status"));
    let rofs = Some(libc::EROFS);
    assert_eq!(errno(fs::write(&status, "x")), rofs);
    assert_eq!(errno(fs::write(shelf.join("new"), "x")), rofs);
    assert_eq!(errno(fs::create_dir(shelf.join("new"))), rofs);
    assert_eq!(errno(symlink("x", shelf.join("new"))), rofs);
    assert_eq!(errno(fs::remove_file(&status)), rofs);
    assert_eq!(errno(fs::remove_dir(&shelf)), rofs);
    assert_eq!(errno(fs::remove_dir(shelf.join("versions"))), rofs);
    assert_eq!(errno(fs::rename(&shelf, world.path("elsewhere"))), rofs);
    assert_eq!(errno(fs::rename(&status, world.path("elsewhere"))), rofs);
    assert_eq!(errno(fs::rename(world.path("file"), shelf.join("new"))), rofs);
    assert_eq!(errno(fs::hard_link(world.path("file"), shelf.join("new"))), rofs);
    assert_eq!(errno(fs::hard_link(shelf.join("versions/1/kept"), world.path("new"))), Some(libc::EXDEV));
    assert_eq!(errno(fs::set_permissions(&status, fs::metadata(&status).unwrap().permissions())), rofs);
    assert_eq!(errno(fs::write(shelf.join("versions/1/kept"), "x")), rofs);
    assert_eq!(errno(fs::remove_file(shelf.join("versions/1/kept"))), rofs);
    assert_eq!(errno(fs::create_dir(&shelf)), Some(libc::EEXIST));
}

#[test]
fn old_versions_are_trees() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("dir")).unwrap();
    fs::write(world.path("dir/file"), "first").unwrap();
    symlink("dir/file", world.path("link")).unwrap();
    rustix::fs::setxattr(world.path("dir/file"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    world.keep_version();
    fs::write(world.path("dir/file"), "second").unwrap();
    fs::remove_file(world.path("link")).unwrap();
    world.keep_version();
    fs::write(world.path("dir/file"), "third").unwrap();

    let versions = world.path(".kilofs/versions");
    assert_eq!(listing(&versions), ["1", "2"]);
    assert_eq!(fs::read(versions.join("1/dir/file")).unwrap(), b"second");
    assert_eq!(fs::read(versions.join("2/dir/file")).unwrap(), b"first");
    assert_eq!(fs::read(versions.join("2/link")).unwrap(), b"first", "links lead inside the old tree");
    assert_eq!(listing(&versions.join("1")), ["dir"]);
    assert_eq!(listing(&versions.join("2")), ["dir", "link"]);
    let (now, then) =
        (fs::metadata(world.path("dir/file")).unwrap(), fs::metadata(versions.join("2/dir/file")).unwrap());
    assert_ne!(now.ino(), then.ino());
    assert_eq!(then.mode() & 0o777, 0o444);
    let mut room = [0; 8];
    assert_eq!(rustix::fs::getxattr(versions.join("2/dir/file"), "user.a", &mut room), Ok(1));
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(versions.join("2"))
        .arg(world.path("restored"))
        .status();
    assert!(copied.unwrap().success());
    assert_eq!(fs::read(world.path("restored/dir/file")).unwrap(), b"first");

    // The numbers move on when a version is added, and what is no more listed is let go.
    let old = world.host.versions.lock().last().cloned().unwrap();
    world.keep_version();
    world.mounted().retire();
    assert!(world.mounted().settle(SOON));
    assert_eq!(fs::read(versions.join("3/dir/file")).unwrap(), b"first");
    assert_eq!(fs::read(versions.join("1/dir/file")).unwrap(), b"third");
    world.host.versions.lock().clear();
    world.mounted().retire();
    assert!(world.mounted().settle(SOON));
    assert!(listing(&versions).is_empty() && !versions.join("1").exists());
    world.wait_until(|| std::sync::Arc::strong_count(&old) == 1);
}

#[test]
fn refused_edits_are_there_to_be_read() {
    let Some(world) = World::new() else { return };
    make(&world.tree, "", "mine", b"edited here");
    assert!(find(&world.tree, "mine").0 > 1);
    let kept = world.snapshot();
    world.host.refused.lock().push(kept);
    assert_eq!(listing(&world.path(".kilofs/refused")), ["7"]);
    assert_eq!(fs::read(world.path(".kilofs/refused/7/mine")).unwrap(), b"edited here");
}
