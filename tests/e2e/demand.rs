//! Files are shown before they are here, and fetched when they are read.

use super::harness::{Device, World};
use super::process::wait_until;
use super::storm::SmallDisk;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

const MIB: usize = 1 << 20;
const EIO: i32 = 5;
/// What may come besides what is asked for: structure, read-ahead, records.
const SLACK_BYTES: u64 = 3 << 20;

/// Bytes that nothing can compress and that tell where they are from.
fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn number(device: &Device, field: &str) -> u64 {
    device.status()[field].as_u64().unwrap_or_else(|| panic!("{field} is a number"))
}

fn fetched(device: &Device) -> u64 {
    // The meter is read every two seconds, and what has come in is made durable then.
    std::thread::sleep(Duration::from_secs(5));
    number(device, "fetched_bytes")
}

/// A device that holds `files` files of 4 MiB, and has published them.
fn holder(world: &World, files: u64) -> Device {
    let a = world.creator("a");
    // The first version is small: its piece length stays for a while.
    a.write("small", b"a small one");
    a.sync();
    std::fs::create_dir(a.mount.join("deep")).unwrap();
    for seed in 0..files {
        a.write(&format!("deep/{seed}"), &content(seed, 4 * MIB));
    }
    a.sync();
    a
}

fn on_demand(world: &World, label: &str, other: &Device, kind: &str) -> Device {
    let device = world.device(label);
    device.join(&other.link(kind));
    device.mount_with(&["--on-demand"]);
    wait_until("the tree is shown", || device.mount.join("small").exists());
    device
}

#[test]
fn what_is_not_read_is_not_fetched() {
    let world = World::new();
    let a = holder(&world, 10);
    let b = on_demand(&world, "b", &a, "write");
    let names = std::fs::read_dir(b.mount.join("deep")).unwrap().count();
    assert_eq!(names, 10);
    assert_eq!(std::fs::metadata(b.mount.join("deep/7")).unwrap().len(), 4 * MIB as u64);
    let before = fetched(&b);
    assert!(before < SLACK_BYTES, "{before} bytes came for the names of 40 MiB");
    let status = b.status();
    assert!(status["here_bytes"].as_u64().unwrap() < status["image_bytes"].as_u64().unwrap() / 2, "{status}");
    assert_eq!(status["versions"][0]["complete"], false);
    assert!(b.ok(&["status", "shared"]).contains("the rest on demand"));
    // A part of a file, then all of it, by several readers at once.
    let mut part = vec![0; 10_000];
    File::open(b.mount.join("deep/3")).unwrap().read_exact_at(&mut part, 2 * MIB as u64).unwrap();
    assert!(part == content(3, 4 * MIB)[2 * MIB..][..10_000]);
    let after = fetched(&b);
    assert!(after - before < SLACK_BYTES, "{} bytes came for 10,000", after - before);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(std::fs::read(b.mount.join("deep/5")).unwrap() == content(5, 4 * MIB)));
        }
    });
    let whole = fetched(&b);
    assert!(whole - after < 4 * MIB as u64 + SLACK_BYTES, "{} bytes came for 4 MiB", whole - after);
    // What is here is here after a crash, with nobody to ask. The mount came back without a fetch.
    b.kill9();
    a.umount();
    b.mount_with(&["--offline"]);
    assert!(std::fs::read(b.mount.join("deep/5")).unwrap() == content(5, 4 * MIB));
}

#[test]
fn a_database_larger_than_the_disk_is_read_on_demand() {
    let world = World::new();
    let a = holder(&world, 12);
    let _disk = SmallDisk::at(world.place("b"), 32 * MIB as u64).expect("these tests are run as root");
    let b = world.device("b");
    b.join(&a.link("write"));
    b.mount();
    let told = || b.status()["warnings"].to_string();
    wait_until("it is said that it does not fit", || told().contains("mount it with --on-demand"));
    b.umount();
    b.mount_with(&["--on-demand"]);
    // An older version fitted.
    wait_until("the newest tree is shown", || b.mount.join("deep/11").exists());
    assert!(std::fs::read(b.mount.join("deep/11")).unwrap() == content(11, 4 * MIB));
    assert!(!told().contains("mount it with --on-demand") && !told().contains("not fetched"), "{}", told());
}

#[test]
fn a_file_that_is_not_here_can_be_changed() {
    let world = World::new();
    let a = holder(&world, 6);
    let b = on_demand(&world, "b", &a, "write");
    let mut expected = content(2, 4 * MIB);
    expected[3 * MIB + 100..][..5].copy_from_slice(b"hello");
    let file = File::options().write(true).open(b.mount.join("deep/2")).unwrap();
    file.write_all_at(b"hello", 3 * MIB as u64 + 100).unwrap();
    file.sync_all().unwrap();
    // What was synced on top of bytes that had just come is there after a crash.
    b.kill9();
    b.mount_with(&["--offline"]);
    let mut part = vec![0; 5];
    File::open(b.mount.join("deep/2")).unwrap().read_exact_at(&mut part, 3 * MIB as u64 + 100).unwrap();
    assert_eq!(part, b"hello");
    b.umount();
    b.mount();
    a.awaits("deep/2", &expected);
    // Cut in the middle of a chunk that is not here, appended to, renamed, removed.
    File::options().write(true).open(b.mount.join("deep/1")).unwrap().set_len(MIB as u64 + 77).unwrap();
    let mut appended = File::options().append(true).open(b.mount.join("deep/0")).unwrap();
    appended.write_all(b"the end").unwrap();
    std::fs::rename(b.mount.join("deep/3"), b.mount.join("deep/moved")).unwrap();
    std::fs::remove_file(b.mount.join("deep/4")).unwrap();
    a.awaits("deep/1", &content(1, 4 * MIB)[..MIB + 77]);
    a.awaits("deep/0", &[&content(0, 4 * MIB)[..], b"the end"].concat());
    a.awaits("deep/moved", &content(3, 4 * MIB));
    wait_until("the removal arrives", || !a.mount.join("deep/4").exists());
    // And the other way: a change to what is not here is seen, and the rest stays away.
    a.write("small", b"changed");
    let file = File::options().write(true).open(a.mount.join("deep/5")).unwrap();
    file.write_all_at(b"from a", 10).unwrap();
    drop(file);
    b.awaits("small", b"changed");
    let mut expected = content(5, 4 * MIB);
    expected[10..16].copy_from_slice(b"from a");
    b.awaits("deep/5", &expected);
    wait_until("both show the same", || a.status()["root"] == b.status()["root"]);
}

#[test]
fn without_a_source_a_read_fails_and_says_why() {
    let world = World::new();
    let a = holder(&world, 4);
    let b = on_demand(&world, "b", &a, "read");
    a.umount();
    let error = std::fs::read(b.mount.join("deep/1")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    assert!(b.log().contains("a program gets an I/O error"), "{}", b.log());
    // The rest is not held up by one who waits, and what failed works when somebody comes.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| std::fs::read(b.mount.join("deep/2")));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(std::fs::read(b.mount.join("small")).unwrap(), b"a small one");
        assert_eq!(std::fs::read_dir(b.mount.join("deep")).unwrap().count(), 4);
        assert!(waiting.join().unwrap().is_err());
    });
    a.mount();
    wait_until("it can be read", || {
        std::fs::read(b.mount.join("deep/1")).is_ok_and(|read| read == content(1, 4 * MIB))
    });
}

#[test]
fn devices_that_each_have_a_part_serve_each_other() {
    let world = World::new();
    let a = holder(&world, 6);
    let (b, c) = (on_demand(&world, "b", &a, "write"), on_demand(&world, "c", &a, "read"));
    assert!(std::fs::read(b.mount.join("deep/1")).unwrap() == content(1, 4 * MIB));
    b.write("from b", &content(77, MIB));
    wait_until("it is everywhere", || c.mount.join("from b").exists() && a.mount.join("from b").exists());
    wait_until("they are neighbours", || number(&c, "neighbours") == 2);
    a.umount();
    assert!(std::fs::read(c.mount.join("deep/1")).unwrap() == content(1, 4 * MIB));
    assert!(std::fs::read(c.mount.join("from b")).unwrap() == content(77, MIB));
    assert_eq!(std::fs::read(c.mount.join("deep/4")).unwrap_err().raw_os_error(), Some(EIO));
}

#[test]
fn a_large_database_is_shown_at_once_and_comes_in_the_background() {
    let world = World::new();
    let a = world.creator("a");
    let mut file = File::create(a.mount.join("large")).unwrap();
    for seed in 0..160 {
        file.write_all(&content(seed, MIB)).unwrap();
    }
    drop(file);
    a.write("small", b"a small one");
    a.sync();
    let b = world.device("b");
    b.join(&a.link("write"));
    std::fs::write(b.home.join("config.toml"), "show-early-mib = 64\n").unwrap();
    b.mount_with(&["--limit-down", "8M"]);
    wait_until("the tree is shown", || b.mount.join("small").exists());
    let here = number(&b, "here_bytes");
    assert!(here < number(&b, "image_bytes") / 2, "{here} bytes were here when it was shown");
    // What is read goes before the rest.
    let mut last = vec![0; MIB];
    let mut large = File::open(b.mount.join("large")).unwrap();
    large.seek(SeekFrom::Start(150 * MIB as u64)).unwrap();
    large.read_exact(&mut last).unwrap();
    assert!(last == content(150, MIB));
    // It is killed in the middle and goes on where it was.
    wait_until("some has come", || number(&b, "here_bytes") > here + (30 << 20));
    std::thread::sleep(Duration::from_secs(6));
    let before = number(&b, "here_bytes");
    b.kill9();
    b.mount_with(&["--limit-down", "100M"]);
    assert!(number(&b, "here_bytes") + (60 << 20) > before, "most of what had come is here");
    wait_until("all of it is here", || number(&b, "here_bytes") == number(&b, "image_bytes"));
    wait_until("it is complete", || b.status()["versions"][0]["complete"] == true);
    a.umount();
    let mut all = File::open(b.mount.join("large")).unwrap();
    for seed in 0..160 {
        all.read_exact(&mut last).unwrap();
        assert!(last == content(seed, MIB), "MiB {seed}");
    }
}

#[test]
fn what_is_pinned_is_here_and_stays() {
    let world = World::new();
    let a = holder(&world, 6);
    let b = on_demand(&world, "b", &a, "write");
    let here = number(&b, "here_bytes");
    assert_eq!(b.ok(&["pin", "shared", "deep/3/"]).trim(), "/deep/3");
    wait_until("it is fetched", || number(&b, "here_bytes") >= here + 4 * MIB as u64);
    // What others make of it is fetched too.
    a.write("deep/3", &content(33, 4 * MIB));
    wait_until("the new one is here", || {
        std::fs::metadata(b.mount.join("deep/3")).is_ok_and(|found| found.len() == 4 * MIB as u64)
            && b.log().matches("what is pinned is here").count() >= 2
    });
    a.umount();
    assert!(std::fs::read(b.mount.join("deep/3")).unwrap() == content(33, 4 * MIB));
    assert_eq!(std::fs::read(b.mount.join("deep/4")).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(b.ok(&["pin", "shared"]).trim(), "/deep/3");
    let missing = b.kilofs(&["unpin", "shared", "deep/4"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("/deep/4 is not pinned"), "{}", missing.err);
    assert_eq!(b.ok(&["unpin", "shared", "/deep/3"]).trim(), "nothing is pinned");
}

/// What the store takes on the disk.
fn on_disk(device: &Device) -> u64 {
    std::fs::metadata(device.home.join("databases/shared/database")).unwrap().blocks() * 512
}

#[test]
fn beyond_the_limit_what_others_keep_is_given_up() {
    const LIMIT: u64 = 16 << 20;
    let world = World::new();
    let a = holder(&world, 10);
    let b = world.device("b");
    b.join(&a.link("write"));
    b.mount_with(&["--local-limit", "16M"]);
    wait_until("the tree is shown", || b.mount.join("small").exists());
    b.ok(&["pin", "shared", "deep/0"]);
    wait_until("what is pinned is here", || b.log().contains("what is pinned is here"));
    for round in 0..2 {
        for seed in 0..10 {
            let read = std::fs::read(b.mount.join(format!("deep/{seed}"))).unwrap();
            assert!(read == content(seed, 4 * MIB), "round {round}, file {seed}");
        }
        // Structure, tables and the intent log are besides.
        wait_until("room is given back", || on_disk(&b) <= LIMIT + (4 << 20));
    }
    // Its own changes are given up only once somebody else keeps them.
    b.write("own", &content(90, 8 * MIB));
    a.awaits("own", &content(90, 8 * MIB));
    wait_until("room is given back", || on_disk(&b) <= LIMIT + (4 << 20));
    assert!(std::fs::read(b.mount.join("own")).unwrap() == content(90, 8 * MIB));
    // A crash in the middle of all that loses nothing.
    std::fs::read(b.mount.join("deep/5")).unwrap();
    b.kill9();
    b.mount();
    assert!(std::fs::read(b.mount.join("deep/6")).unwrap() == content(6, 4 * MIB));
    wait_until("a keeps it", || number(&b, "neighbours") == 1);
    a.umount();
    assert!(std::fs::read(b.mount.join("deep/0")).unwrap() == content(0, 4 * MIB), "it is pinned");
    // With nobody who keeps it, nothing is given up, whatever the limit.
    b.write("alone", &content(91, 8 * MIB));
    b.ok(&["sync", "shared", "--timeout", "5"]);
    std::thread::sleep(Duration::from_secs(6));
    assert!(std::fs::read(b.mount.join("alone")).unwrap() == content(91, 8 * MIB));
    assert!(on_disk(&b) > LIMIT);
    // Pieces become longer with the database: then everything is fetched once, and given up again.
    a.mount();
    b.write("outgrown", &content(92, 24 * MIB));
    a.awaits("outgrown", &content(92, 24 * MIB));
    assert!(b.log().contains("everything is fetched once"), "{}", b.log());
    wait_until("room is given back", || on_disk(&b) <= LIMIT + (4 << 20));
}

#[test]
fn what_is_not_here_is_no_damage_and_can_be_restored() {
    let world = World::new();
    let a = holder(&world, 4);
    let b = on_demand(&world, "b", &a, "write");
    let seen = b.ok(&["fsck", "shared"]);
    assert!(seen.contains("is clean") && seen.contains("more are not here"), "{seen}");
    b.ok(&["fsck", "shared", "--repair"]);
    let listed = b.json(&["versions", "shared"]);
    assert!(!listed.as_array().unwrap().is_empty(), "{listed}");
    b.ok(&["restore", "shared", "1", "deep/2", "--to", "again"]);
    assert!(std::fs::read(b.mount.join("again")).unwrap() == content(2, 4 * MIB));
    // A version is browsed like the rest.
    assert!(std::fs::read(b.mount.join(".kilofs/versions/1/deep/3")).unwrap() == content(3, 4 * MIB));
}
