//! Directories with content that become blocks and directories again: nothing in them changes, for anybody, and nobody who
//! was away loses what they did there.

use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::wait_until;
use super::trees;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

/// 200 files of many sizes in a few directories, with attributes, links of both kinds and modes.
fn fill(root: &Path) {
    let mut dice = Dice::new(5);
    for name in ["sub", "sub/one", "sub/two", "sub/two/deep", "beside"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for index in 0..200 {
        let directory = ["sub", "sub/one", "sub/two", "sub/two/deep"][index % 4];
        let size = [0, 90, 1_500, 20_000, 150_000][dice.below(5) as usize];
        let file = root.join(directory).join(format!("file-{index}"));
        fs::write(&file, dice.bytes(size)).unwrap();
        let number = index.to_string();
        rustix::fs::setxattr(&file, "user.number", number.as_bytes(), rustix::fs::XattrFlags::empty())
            .unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode([0o644, 0o600, 0o755][index % 3])).unwrap();
    }
    symlink("../beside/other", root.join("sub/link")).unwrap();
    fs::hard_link(root.join("sub/file-0"), root.join("sub/two/again")).unwrap();
    fs::write(root.join("beside/other"), b"not in it").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("sub"), "user.directory", b"of sub", flags).unwrap();
    fs::set_permissions(root.join("sub"), PermissionsExt::from_mode(0o751)).unwrap();
}

/// What is in the tree, with inode numbers of all but `sub` itself, and attributes.
fn shape(root: &Path) -> Vec<(String, u64, u64, Vec<u8>)> {
    let mut found = Vec::new();
    for path in trees::entries(root).keys() {
        let full = root.join(path);
        let meta = full.symlink_metadata().unwrap();
        let mut value = vec![0; 64];
        let name = if path == Path::new("sub") { "user.directory" } else { "user.number" };
        let length = rustix::fs::lgetxattr(&full, name, &mut value[..]).unwrap_or(0);
        value.truncate(length);
        let inode = if path == Path::new("sub") { 0 } else { meta.ino() };
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        found.push((path.display().to_string(), inode, links, value));
    }
    found
}

fn clean(device: &Device) {
    let checked = device.json(&["fsck", NAME]);
    assert_eq!(checked["findings"].as_array().unwrap().len(), 0, "{checked:?}");
}

/// Two devices that both have what `fill` makes.
fn both_filled(world: &World) -> (Device, Device) {
    let a = world.creator("a");
    fill(&a.mount);
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    (a, b)
}

fn blocks(device: &Device) -> usize {
    device.status()["blocks"].as_array().unwrap().len()
}

#[test]
fn a_directory_becomes_a_block_and_a_directory_again() {
    let world = World::new();
    let (a, b) = both_filled(&world);
    let (before, was) = (trees::entries(&a.mount), shape(&a.mount));
    let mut held = File::open(b.path("sub/two/deep/file-3")).unwrap();
    let content = fs::read(b.path("sub/two/deep/file-3")).unwrap();

    let newest = b.status()["versions"][0]["infohash"].as_str().unwrap().to_owned();
    let added = a.json(&["block", NAME, "add", "/sub"]);
    assert_eq!(added["number"], 1);
    a.sync();
    wait_until("b has the block", || blocks(&b) == 2);
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(trees::entries(&device.mount), before);
        assert_eq!(shape(&device.mount), was);
        let across = fs::rename(device.path("sub/link"), device.path("beside/link")).unwrap_err();
        assert_eq!(across.kind(), ErrorKind::CrossesDevices);
    }
    // Who had a file open goes on reading it.
    let mut read = Vec::new();
    held.seek(SeekFrom::Start(0)).unwrap();
    held.read_to_end(&mut read).unwrap();
    assert_eq!(read, content);
    drop(held);
    // Versions from before and after show it where it was.
    let kept = b.json(&["versions", NAME]);
    let number = |infohash: &str| {
        let kept = kept.as_array().unwrap().iter();
        let mut found = kept.filter(|version| version["infohash"] == infohash);
        found.next().unwrap_or_else(|| panic!("{infohash} is kept"))["version"].to_string()
    };
    for infohash in [&newest, b.status()["versions"][0]["infohash"].as_str().unwrap()] {
        let path = b.path(&format!(".kilofs/versions/{}/sub/two/deep/file-3", number(infohash)));
        assert_eq!(fs::read(path).unwrap(), content, "{infohash}");
    }
    b.write("sub/two/new", b"from b");
    a.awaits("sub/two/new", b"from b");
    fs::remove_file(a.path("sub/two/new")).unwrap();
    wait_until("it is gone at b", || !b.path("sub/two/new").exists());
    await_agreement(&[&a, &b]);
    clean(&a);
    clean(&b);

    let full = a.kilofs(&["block", NAME, "remove", "/sub"]);
    assert!(full.code == Some(1) && full.err.contains("--keep"), "{full:?}");
    a.json(&["block", NAME, "remove", "/sub", "--keep"]);
    a.sync();
    wait_until("b has no block", || blocks(&b) == 1);
    await_agreement(&[&a, &b]);
    let without_times = |device: &Device| {
        // Names came and went in it.
        let mut found = trees::entries(&device.mount);
        found.remove(Path::new("sub/two"));
        found
    };
    let mut before = before;
    before.remove(Path::new("sub/two"));
    for device in [&a, &b] {
        assert_eq!(without_times(device), before);
        assert_eq!(shape(&device.mount), was);
    }
    fs::rename(b.path("sub/link"), b.path("beside/link")).unwrap();
    wait_until("a sees it", || a.path("beside/link").is_symlink());
    clean(&a);
    clean(&b);
    b.umount();
    a.umount();
    a.mount();
    assert_eq!(fs::read(a.path("sub/two/deep/file-3")).unwrap(), content);
}

fn away(device: &Device) {
    device.umount();
    device.mount_with(&["--offline"]);
}

fn back(device: &Device) {
    device.umount();
    device.mount();
}

#[test]
fn who_was_away_keeps_what_was_done_there() {
    let world = World::new();
    let (a, b) = both_filled(&world);
    away(&b);
    b.write("sub/one/file-1", b"changed by b");
    b.write("sub/two/new", &vec![3; 70_000]);
    fs::remove_file(b.path("sub/file-4")).unwrap();
    fs::rename(b.path("sub/file-8"), b.path("sub/two/renamed")).unwrap();
    b.write("beside/other", b"changed by b, too");
    a.json(&["block", NAME, "add", "/sub"]);
    a.write("sub/one/from-a", b"in the block");
    a.sync();
    back(&b);
    let arrived = |device: &Device| {
        device.awaits("sub/one/file-1", b"changed by b");
        device.awaits("sub/two/new", &vec![3; 70_000]);
        device.awaits("beside/other", b"changed by b, too");
        device.awaits("sub/one/from-a", b"in the block");
        wait_until("names went", || {
            !device.path("sub/file-4").exists()
                && !device.path("sub/file-8").exists()
                && device.path("sub/two/renamed").exists()
        });
    };
    arrived(&a);
    arrived(&b);
    await_agreement(&[&a, &b]);
    assert_eq!((blocks(&a), blocks(&b)), (2, 2));
    assert_eq!(a.status()["conflicts"].as_array().unwrap().len(), 0);

    away(&b);
    b.write("sub/one/file-1", b"changed by b again");
    b.write("sub/one/newer", b"made in the block");
    a.json(&["block", NAME, "remove", "/sub", "--keep"]);
    a.write("sub/two/new", b"changed by a");
    a.sync();
    back(&b);
    for device in [&a, &b] {
        device.awaits("sub/one/file-1", b"changed by b again");
        device.awaits("sub/one/newer", b"made in the block");
        device.awaits("sub/two/new", b"changed by a");
    }
    await_agreement(&[&a, &b]);
    assert_eq!((blocks(&a), blocks(&b)), (1, 1));
    clean(&a);
    clean(&b);
}

#[test]
fn what_the_new_block_forbids_is_set_aside() {
    let world = World::new();
    let (a, b) = both_filled(&world);
    let before = fs::read(a.path("sub/one/file-1")).unwrap();
    away(&b);
    b.write("sub/one/file-1", b"changed by b");
    b.write("sub/new", b"made by b");
    b.write("beside/other", b"allowed");
    a.json(&["block", NAME, "add", "/sub", "--mode", "ro"]);
    a.sync();
    back(&b);
    wait_until("b says what it set aside", || {
        let status = b.status();
        let refused = status["refused"].as_array().unwrap();
        refused.iter().any(|refusal| refusal["kind"] == "local" && refusal["block"] == 1)
    });
    a.awaits("beside/other", b"allowed");
    b.awaits("sub/one/file-1", &before);
    assert!(!b.path("sub/new").exists() && !a.path("sub/new").exists());
    let aside = trees::entries(&b.path(".kilofs/refused"));
    let find = |name: &str| {
        let found = aside.keys().find(|path| path.ends_with(name));
        let path = found.unwrap_or_else(|| panic!("{name} is among {:?}", aside.keys()));
        fs::read(b.path(".kilofs/refused").join(path)).unwrap()
    };
    assert_eq!(find("1/new"), b"made by b");
    assert_eq!(find("1/one/file-1"), b"changed by b");
    await_agreement(&[&a, &b]);
}

#[test]
fn a_hard_link_across_the_border_is_refused_before_anything_is_done() {
    let world = World::new();
    let a = world.creator("a");
    fill(&a.mount);
    fs::hard_link(a.path("sub/file-0"), a.path("beside/outside")).unwrap();
    let before = trees::entries(&a.mount);
    let refused = a.kilofs(&["block", NAME, "add", "/sub"]);
    assert!(refused.code == Some(1) && refused.err.contains("hard link"), "{refused:?}");
    assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
    assert_eq!((blocks(&a), trees::entries(&a.mount)), (1, before));
    fs::remove_file(a.path("beside/outside")).unwrap();
    a.json(&["block", NAME, "add", "/sub"]);
    assert_eq!(blocks(&a), 2);
}

#[test]
fn a_killed_engine_has_moved_all_or_nothing() {
    let world = World::new();
    let a = world.creator("a");
    fill(&a.mount);
    let mut dice = Dice::new(3);
    for index in 0..8 {
        fs::write(a.path(&format!("sub/one/large-{index}")), dice.bytes(2 << 20)).unwrap();
    }
    a.sync();
    let before = trees::entries(&a.mount);
    for round in 0..6 {
        let arguments = if blocks(&a) == 1 {
            ["block", NAME, "add", "/sub", "--mode", "rw"]
        } else {
            ["block", NAME, "remove", "/sub", "--keep", "--json"]
        };
        let mut command = a.command(&arguments);
        let quiet = std::process::Stdio::null;
        let mut child = command.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(dice.below(900)));
        a.kill9();
        child.kill().unwrap();
        child.wait().unwrap();
        a.mount();
        let count = blocks(&a);
        assert!(count == 1 || count == 2);
        assert_eq!(trees::entries(&a.mount), before, "round {round}, {count} blocks");
    }
    clean(&a);
}

#[test]
#[ignore = "long: 200 MiB go into a block and back"]
fn a_large_directory_goes_into_a_block_and_back() {
    let world = World::new();
    let a = world.creator("a");
    fs::create_dir(a.path("sub")).unwrap();
    let mut dice = Dice::new(9);
    for index in 0..50 {
        fs::write(a.path(&format!("sub/large-{index}")), dice.bytes(4 << 20)).unwrap();
    }
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    let before = trees::entries(&a.mount);
    a.json(&["block", NAME, "add", "/sub"]);
    a.sync();
    await_agreement(&[&a, &b]);
    assert_eq!(trees::entries(&b.mount), before);
    a.json(&["block", NAME, "remove", "/sub", "--keep"]);
    a.sync();
    await_agreement(&[&a, &b]);
    assert_eq!(trees::entries(&b.mount), before);
}
