//! Blocks: where they hang, what does not cross them, and policies that hold for one of them.

use super::world::{SIDE_BLOCK, World, find, make};
use kilofs::tree::RenameFlags;
use std::fs;
use std::os::unix::fs::MetadataExt;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn a_block_hangs_where_the_charter_says_and_stays_there() {
    let Some(world) = World::with_side_block() else { return };
    let (side, block) = (world.path("side"), world.path("side/block"));
    assert_eq!(fs::metadata(&block).unwrap().ino(), u64::from(SIDE_BLOCK.0) + 1);
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&side).unwrap().count(), 1);
    fs::write(block.join("file"), "inside").unwrap();
    fs::create_dir(block.join("dir")).unwrap();
    fs::write(world.path("file"), "outside").unwrap();
    let busy = Some(libc::EBUSY);
    assert_eq!(errno(fs::remove_dir(&block)), busy);
    assert_eq!(errno(fs::rename(&block, world.path("moved"))), busy);
    assert_eq!(errno(fs::rename(&side, world.path("moved"))), busy);
    let across = Some(libc::EXDEV);
    assert_eq!(errno(fs::rename(world.path("file"), block.join("moved"))), across);
    assert_eq!(errno(fs::rename(block.join("dir"), world.path("dir"))), across);
    assert_eq!(errno(fs::hard_link(block.join("file"), world.path("link"))), across);
    let moved = std::process::Command::new("mv").arg(block.join("file")).arg(world.path("moved")).status();
    assert!(moved.unwrap().success(), "mv copies");
    assert_eq!(fs::read(world.path("moved")).unwrap(), b"inside");
    assert_eq!(fs::metadata(block.join("..")).unwrap().ino(), fs::metadata(&side).unwrap().ino());
}

#[test]
fn a_policy_holds_for_its_block_alone() {
    let Some(world) = World::with_side_block() else { return };
    let file = world.path("side/block/file");
    fs::write(&file, "x").unwrap();
    fs::write(world.path("other"), "x").unwrap();
    world.set_block_writable(SIDE_BLOCK, false);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&file), 0o444);
    assert_eq!(mode(&world.path("side/block")), 0o555);
    assert_eq!(mode(&world.path("other")), 0o644);
    assert_eq!(errno(fs::write(&file, "y")), Some(libc::EROFS));
    assert_eq!(errno(fs::write(world.path("side/block/new"), "y")), Some(libc::EROFS));
    fs::write(world.path("other"), "y").unwrap();
    world.remote(|tree| make(tree, "", "came", b"along"));
    assert_eq!(fs::read(world.path("came")).unwrap(), b"along");
    assert_eq!(errno(fs::remove_file(&file)), Some(libc::EROFS));
    world.set_block_writable(SIDE_BLOCK, true);
    fs::write(&file, "z").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"z");
}

#[test]
fn what_others_change_in_a_block_is_seen() {
    let Some(world) = World::with_side_block() else { return };
    fs::write(world.path("side/block/a"), "a").unwrap();
    assert!(!world.path("side/block/b").exists());
    world.remote(|tree| {
        let block = find(tree, "side/block");
        tree.rename(block, b"a", block, b"b", RenameFlags::Replace).unwrap();
        make(tree, "side/block", "c", b"c");
    });
    assert!(!world.path("side/block/a").exists());
    assert_eq!(fs::read(world.path("side/block/b")).unwrap(), b"a");
    assert_eq!(fs::read_dir(world.path("side/block")).unwrap().count(), 2);
}
