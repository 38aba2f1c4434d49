//! Links of one block: what they open, what they do not, and what their holders keep alive all the same.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

/// The names in a directory of the mount.
fn names(device: &Device, inside: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(device.path(inside)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Listing, looking up and opening there gives EACCES, also to root; stat works.
#[track_caller]
fn assert_closed(at: &Path) {
    assert!(at.metadata().unwrap().is_dir(), "{}", at.display());
    let listed = std::fs::read_dir(at).and_then(|mut entries| entries.next().transpose());
    assert_eq!(listed.expect_err("listing").kind(), ErrorKind::PermissionDenied);
    let opened = std::fs::read(at.join("secret"));
    assert_eq!(opened.expect_err("opening").kind(), ErrorKind::PermissionDenied);
}

fn world_with_blocks(world: &World) -> Device {
    let a = world.creator("a");
    for block in ["/docs", "/deep/inner/vault", "/other"] {
        a.json(&["block", NAME, "add", block]);
    }
    a.write("in-the-root", b"root");
    a.write("docs/text", b"for readers of the block");
    a.write("deep/inner/plain", b"beside the vault");
    a.write("deep/inner/vault/secret", b"vault");
    a.write("other/secret", &vec![7; 300_000]);
    a.sync();
    a
}

fn block_link(device: &Device, block: &str) -> String {
    device.ok(&["link", NAME, "--block", block, "--read"])
}

#[test]
fn a_link_of_one_block_opens_that_block_alone() {
    let world = World::new();
    let a = world_with_blocks(&world);
    let link = block_link(&a, "/docs");
    assert!(link.starts_with("kilofs:block:"), "{link}");
    let b = world.device("b");
    b.join(&link);
    b.mount();
    b.awaits("docs/text", b"for readers of the block");
    assert_eq!(names(&b, ""), set(&["docs", "deep", "other"]));
    assert_eq!(names(&b, "deep"), set(&["inner"]));
    assert_eq!(names(&b, "deep/inner"), set(&["vault"]));
    assert_eq!(std::fs::read(b.path("in-the-root")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_closed(&b.path("other"));
    assert_closed(&b.path("deep/inner/vault"));
    assert_closed(&b.path(".kilofs/versions/1/other"));
    assert_eq!(std::fs::read(b.path(".kilofs/versions/1/docs/text")).unwrap(), b"for readers of the block");
    let made = std::fs::write(b.path("other/new"), b"x").unwrap_err();
    assert_eq!(made.kind(), ErrorKind::PermissionDenied);
    let written = std::fs::write(b.path("docs/text"), b"x").unwrap_err();
    assert_eq!(written.kind(), ErrorKind::ReadOnlyFilesystem);

    let status = b.status();
    assert_eq!(status["capability"], "block");
    let readable: Vec<bool> =
        status["blocks"].as_array().unwrap().iter().map(|block| block["readable"] == true).collect();
    assert_eq!(readable, [false, true, false, false]);
    assert_eq!(status["warnings"].as_array().unwrap().len(), 0, "{status:?}");

    a.write("docs/text", b"changed");
    a.write("docs/more", &vec![9; 200_000]);
    a.write("other/secret", b"changed where b cannot look");
    b.awaits("docs/text", b"changed");
    b.awaits("docs/more", &vec![9; 200_000]);
    await_agreement(&[&a, &b]);
    let log = b.log();
    let said = log.lines().filter(|line| line.contains("cannot be opened with the link of this device"));
    assert!(said.count() >= 1, "{log}");
    assert!(!log.contains("ERROR"), "{log}");

    let checked = b.json(&["fsck", NAME]);
    assert_eq!(checked["findings"].as_array().unwrap().len(), 0, "{checked:?}");
    assert_eq!(checked["closed"], serde_json::json!([0, 2, 3]));
    assert!(!b.json(&["log", NAME]).as_array().unwrap().is_empty());

    assert!(block_link(&b, "/docs").starts_with("kilofs:block:"));
    assert!(b.link("mirror").starts_with("kilofs:mirror:"));
    for refused in [&["--read"][..], &["--write"], &["--admin"], &["--block", "/other", "--read"]] {
        let refused = b.kilofs(&[&["link", NAME], refused].concat());
        assert_eq!((refused.code, refused.out.as_str()), (Some(4), ""), "{refused:?}");
    }
    assert_eq!(a.kilofs(&["link", NAME, "--block", "/docs", "--write"]).code, Some(2));
    b.umount();
    b.mount();
    b.awaits("docs/text", b"changed");
    assert_closed(&b.path("other"));
}

#[test]
fn who_reads_one_block_keeps_all_of_them_alive() {
    let world = World::new();
    let a = world_with_blocks(&world);
    let whole = a.link("write");
    let b = world.device("b");
    b.join(&block_link(&a, "1"));
    b.mount();
    b.awaits("docs/text", b"for readers of the block");
    await_agreement(&[&a, &b]);
    a.kill9();
    let c = world.device("c");
    c.join(&whole);
    c.mount();
    c.awaits("other/secret", &vec![7; 300_000]);
    c.awaits("deep/inner/vault/secret", b"vault");
    c.awaits("in-the-root", b"root");
    c.write("docs/text", b"written by c");
    b.awaits("docs/text", b"written by c");
}

#[test]
fn a_link_says_that_its_block_is_gone() {
    let world = World::new();
    let a = world_with_blocks(&world);
    let b = world.device("b");
    b.join(&block_link(&a, "/docs"));
    b.mount();
    b.awaits("docs/text", b"for readers of the block");
    std::fs::remove_file(a.path("docs/text")).unwrap();
    a.json(&["block", NAME, "remove", "/docs"]);
    // The number lives on in another block, whose key is another one.
    a.json(&["block", NAME, "add", "/elsewhere"]);
    a.write("elsewhere/secret", b"not for b");
    a.sync();
    wait_until("b says that its block is gone", || {
        b.status()["warnings"].to_string().contains("ask for a new link")
    });
    wait_until("b has the new blocks", || names(&b, "") == set(&["deep", "elsewhere", "other"]));
    assert_closed(&b.path("elsewhere"));
}

/// A new link after rotations opens what the block holds of each time; one from before shows nothing newer.
#[test]
fn a_link_of_one_block_after_rotations_opens_what_is_older_too() {
    let world = World::new();
    let a = world_with_blocks(&world);
    a.write("docs/kept", &vec![1; 200_000]);
    a.write("docs/changed", &vec![2; 200_000]);
    a.sync();
    let before = world.device("before");
    before.join(&block_link(&a, "/docs"));
    before.mount();
    before.awaits("docs/kept", &vec![1; 200_000]);
    for round in 0..2u8 {
        a.json(&["rotate", NAME, "--keep-known"]);
        let mut changed = vec![2; 200_000];
        changed[70_000..90_000].fill(round);
        a.write("docs/changed", &changed);
        a.write(&format!("docs/round-{round}"), &[round; 30_000]);
        a.write("other/secret", &[round; 100]);
        a.sync();
    }
    let mut changed = vec![2; 200_000];
    changed[70_000..90_000].fill(1);
    let link = block_link(&a, "/docs");
    assert!(link.starts_with("kilofs:block:"), "{link}");
    let after = world.device("after");
    after.join(&link);
    after.mount();
    after.awaits("docs/round-1", &[1; 30_000]);
    after.awaits("docs/round-0", &[0; 30_000]);
    after.awaits("docs/kept", &vec![1; 200_000]);
    after.awaits("docs/changed", &changed);
    assert_eq!(names(&after, ""), set(&["docs", "deep", "other"]));
    assert_closed(&after.path("other"));
    assert_closed(&after.path("deep/inner/vault"));
    after.ok(&["fsck", NAME]);
    a.write("docs/later", b"later");
    after.awaits("docs/later", b"later");

    wait_until("who has an older link is told", || {
        before.status()["warnings"].to_string().contains("left out")
    });
    before.awaits("docs/kept", &vec![1; 200_000]);
    before.awaits("docs/changed", &vec![2; 200_000]);
    assert!(!before.path("docs/round-0").exists() && !before.path("docs/later").exists());
    // It hands on what it was given, and nothing else.
    let handed = world.device("handed");
    handed.join(&block_link(&after, "/docs"));
    handed.mount();
    handed.awaits("docs/later", b"later");
    let other = after.kilofs(&["link", NAME, "--block", "/other", "--read"]);
    assert_eq!(other.code, Some(4), "{other:?}");
}
