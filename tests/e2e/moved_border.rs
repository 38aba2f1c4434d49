//! A database that moves to new keys while a border between its blocks moves, before one who was away for both and has
//! edits on both sides of it.

use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::wait_until;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Border,
    Rotation,
}

const ORDERS: [[Step; 2]; 2] = [[Step::Border, Step::Rotation], [Step::Rotation, Step::Border]];
const LARGE: usize = 200_000;

/// An admin and one who writes, in agreement; what is in `docs` is a block where that is said.
fn pair(world: &World, block: bool) -> (Device, Device, Vec<u8>) {
    let a = world.creator("a");
    for directory in ["docs", "docs/deep", "beside"] {
        fs::create_dir(a.path(directory)).unwrap();
    }
    let large = Dice::new(3).bytes(LARGE);
    for place in ["docs/deep", "beside"] {
        a.write(&format!("{place}/large"), &large);
        a.write(&format!("{place}/text"), b"before");
        a.write(&format!("{place}/gone"), b"gone");
    }
    if block {
        a.json(&["block", NAME, "add", "/docs"]);
    }
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("docs/deep/gone", b"gone");
    b.write("from-b", b"b");
    a.awaits("from-b", b"b");
    await_agreement(&[&a, &b]);
    (a, b, large)
}

/// Edits of one who is away, on both sides; what becomes of the large file.
fn edit(device: &Device, large: &[u8]) -> Vec<u8> {
    let mut changed = large.to_vec();
    changed[100_000..120_000].fill(b'b');
    for place in ["docs/deep", "beside"] {
        device.write(&format!("{place}/text"), b"edited by b");
        device.write(&format!("{place}/new"), b"made by b");
        fs::remove_file(device.path(&format!("{place}/gone"))).unwrap();
        let file = File::options().write(true).open(device.path(&format!("{place}/large"))).unwrap();
        file.write_all_at(&changed[100_000..120_000], 100_000).unwrap();
    }
    changed
}

fn assert_whole(devices: &[&Device], large: &[u8], blocks: usize) {
    await_agreement(devices);
    for device in devices {
        for place in ["docs/deep", "beside"] {
            device.awaits(&format!("{place}/text"), b"edited by b");
            device.awaits(&format!("{place}/new"), b"made by b");
            device.awaits(&format!("{place}/from-a"), b"made by a");
            device.awaits(&format!("{place}/large"), large);
            assert!(!device.path(&format!("{place}/gone")).exists());
        }
        let status = device.status();
        assert_eq!(status["blocks"].as_array().unwrap().len(), blocks, "{status}");
        for nothing in ["conflicts", "refused", "warnings"] {
            assert_eq!(status[nothing].as_array().unwrap().len(), 0, "{nothing}: {status}");
        }
        let checked = device.json(&["fsck", NAME]);
        assert_eq!(checked["findings"].as_array().unwrap().len(), 0, "{checked}");
    }
}

fn away(block: bool, order: [Step; 2]) {
    let world = World::new();
    let (a, b, large) = pair(&world, block);
    b.umount();
    b.mount_with(&["--offline"]);
    let changed = edit(&b, &large);
    b.umount();
    for step in order {
        match step {
            Step::Border if block => a.json(&["block", NAME, "remove", "/docs", "--keep"]),
            Step::Border => a.json(&["block", NAME, "add", "/docs"]),
            Step::Rotation => a.json(&["rotate", NAME, "--keep-known"]),
        };
    }
    for place in ["docs/deep", "beside"] {
        a.write(&format!("{place}/from-a"), b"made by a");
    }
    a.sync();
    b.mount();
    let key = |device: &Device| device.status()["key"].as_str().unwrap().to_owned();
    wait_until("b has followed", || key(&b) == key(&a));
    b.awaits("docs/deep/from-a", b"made by a");
    let blocks = if block { 1 } else { 2 };
    assert_whole(&[&a, &b], &changed, blocks);
    let late = world.joined("late", &b, "write");
    assert_whole(&[&a, &b, &late], &changed, blocks);
    b.write("docs/deep/last", b"last");
    for device in [&a, &late] {
        device.awaits("docs/deep/last", b"last");
    }
}

#[test]
fn a_block_made_before_a_rotation_reaches_one_who_was_away() {
    away(false, ORDERS[0]);
}

#[test]
fn a_block_made_after_a_rotation_reaches_one_who_was_away() {
    away(false, ORDERS[1]);
}

#[test]
fn a_block_removed_before_a_rotation_reaches_one_who_was_away() {
    away(true, ORDERS[0]);
}

#[test]
fn a_block_removed_after_a_rotation_reaches_one_who_was_away() {
    away(true, ORDERS[1]);
}
