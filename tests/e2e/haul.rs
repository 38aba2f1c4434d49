//! Much of a version at a time: from several devices, one of which goes, and while it is read and changed.

use super::harness::{Device, World};
use super::process::wait_until;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// A MiB that tells where it is from.
fn content(seed: usize) -> Vec<u8> {
    let mut out = vec![0; MIB];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn number(device: &Device, field: &str) -> u64 {
    device.status()[field].as_u64().unwrap_or_else(|| panic!("{field} is a number"))
}

fn is_complete(device: &Device) -> bool {
    device.status()["versions"][0]["complete"] == true
}

/// A device that holds and has published one large file.
fn holder(world: &World, mib: usize) -> Device {
    let a = world.creator("a");
    let mut file = File::create(a.path("large")).unwrap();
    (0..mib).for_each(|seed| file.write_all(&content(seed)).unwrap());
    drop(file);
    a.write("small", b"a small one");
    a.sync();
    a
}

fn assert_reads(device: &Device, mib: usize) {
    let (mut file, mut read) = (File::open(device.path("large")).unwrap(), vec![0; MIB]);
    for seed in 0..mib {
        file.read_exact(&mut read).unwrap_or_else(|error| panic!("MiB {seed}: {error}"));
        assert!(read == content(seed), "MiB {seed}");
    }
}

#[test]
fn a_join_from_three_survives_that_one_of_them_goes() {
    const FILE_MIB: usize = 72;
    let world = World::new();
    let a = holder(&world, FILE_MIB);
    let mirror = |label| {
        let device = world.device(label);
        device.join(&a.link("mirror"));
        device.mirror();
        wait_until("the mirror has it", || {
            device.status()["versions"].as_array().is_some_and(|all| !all.is_empty()) && is_complete(&device)
        });
        device
    };
    let (b, c) = (mirror("b"), mirror("c"));
    let d = world.device("d");
    d.join(&a.link("read"));
    // Shown early, so that it can be seen how much has come.
    std::fs::write(d.home.join("config.toml"), "show-early-mib = 16\n").unwrap();
    d.mount_with(&["--limit-down", "12M"]);
    wait_until("the tree is shown", || d.path("small").exists());
    let begun = number(&d, "here_bytes");
    wait_until("some has come", || number(&d, "here_bytes") > begun + (8 << 20));
    assert!(!is_complete(&d));
    b.kill9();
    wait_until("all of it is here", || is_complete(&d));
    let (fetched, all) = (number(&d, "fetched_bytes"), number(&d, "image_bytes"));
    // What the one that went was asked for came from others, once more at worst.
    assert!(fetched >= all / 100 * 95 && fetched < all + (8 << 20), "{fetched} bytes of {all}");
    a.umount();
    c.end_mirror();
    assert_reads(&d, FILE_MIB);
}

#[test]
fn bytes_come_once_while_it_is_read_completed_and_changed() {
    const FILE_MIB: usize = 64;
    let world = World::new();
    let a = holder(&world, FILE_MIB);
    let b = world.device("b");
    b.join(&a.link("read"));
    std::fs::write(b.home.join("config.toml"), "show-early-mib = 16\n").unwrap();
    // Slowly enough that reading, completing and changing are at work together.
    b.mount_with(&["--limit-down", "8M"]);
    wait_until("the tree is shown", || b.path("small").exists());
    assert!(!is_complete(&b));
    let done = AtomicBool::new(false);
    let versions = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) {
                a.write("small", format!("round {rounds}").as_bytes());
                rounds += 1;
                std::thread::sleep(Duration::from_millis(400));
            }
            rounds
        });
        let read = std::panic::catch_unwind(|| {
            assert_reads(&b, FILE_MIB);
            wait_until("all of it is here", || is_complete(&b));
        });
        done.store(true, Ordering::SeqCst);
        let rounds = writing.join().unwrap();
        read.unwrap();
        rounds
    });
    assert!(versions > 5, "{versions} changes were made meanwhile");
    b.awaits("small", format!("round {}", versions - 1).as_bytes());
    wait_until("all of the last one is here", || is_complete(&b));
    let (fetched, all) = (number(&b, "fetched_bytes"), number(&b, "image_bytes"));
    assert!(fetched <= all / 100 * 105, "{fetched} bytes came for {all}, {versions} versions");
}

/// Nothing comes in any more.
fn comes_to_rest(device: &Device) -> u64 {
    let mut last = u64::MAX;
    wait_until("the fetch is given up", || {
        std::thread::sleep(Duration::from_secs(4));
        std::mem::replace(&mut last, number(device, "fetched_bytes")) == number(device, "fetched_bytes")
    });
    last
}

#[test]
fn a_fetch_that_ends_early_goes_on_where_it_was() {
    const FILE_MIB: usize = 48;
    let world = World::new();
    let a = holder(&world, FILE_MIB);
    let reader = world.device("reader");
    reader.join(&a.link("read"));
    reader.mount_with(&["--limit-down", "3M"]);
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    mirror.mirror_with(&["--limit-down", "3M"]);
    let devices = [&reader, &mirror];
    wait_until("much has come", || devices.iter().all(|device| number(device, "fetched_bytes") > 20 << 20));
    a.kill9();
    for device in devices {
        comes_to_rest(device);
    }
    // At one of them the engine goes on, the other is killed too.
    mirror.kill9();
    mirror.mirror();
    a.mount();
    for device in devices {
        wait_until("all of it is here", || is_complete(device));
        let (fetched, all) = (number(device, "fetched_bytes"), number(device, "image_bytes"));
        assert!(fetched < all + (6 << 20), "{fetched} bytes came for {all}");
    }
    a.umount();
    assert_reads(&reader, FILE_MIB);
}
