//! What a block may hold.

use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::wait_until;
use rustix::fs::statvfs;
use std::io::{ErrorKind, Write};

const MIB: usize = 1 << 20;

#[track_caller]
fn assert_full<T>(done: std::io::Result<T>, what: &str) {
    assert_eq!(done.err().expect(what).kind(), ErrorKind::QuotaExceeded, "{what}");
}

/// Writes a file in steps, as far as that goes; says what it has come to.
fn fill(device: &Device, inside: &str, seed: u64, bytes: usize) -> std::io::Result<()> {
    let data = Dice::new(seed).bytes(bytes);
    let mut file = std::fs::File::create(device.path(inside))?;
    data.chunks(64 << 10).try_for_each(|piece| file.write_all(piece))
}

fn names(device: &Device, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(device.path(directory)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_block_takes_what_its_quota_allows() {
    let world = World::new();
    let a = world.creator("a");
    let added = a.json(&["block", NAME, "add", "/box", "--quota-bytes", "1M", "--quota-files", "5"]);
    assert_eq!((added["quota_bytes"].as_u64(), added["quota_files"].as_u64()), (Some(1 << 20), Some(5)));
    a.sync();
    let b = world.joined("b", &a, "write");
    wait_until("b has the block", || b.status()["blocks"][1]["quota_files"] == 5);
    fill(&b, "box/most", 1, 900 << 10).unwrap();
    assert_full(fill(&b, "box/more", 2, 200 << 10), "more bytes than the quota");
    assert_eq!(std::fs::read(b.path("box/most")).unwrap(), Dice::new(1).bytes(900 << 10));
    std::fs::remove_file(b.path("box/more")).unwrap();
    fill(&b, "outside", 3, 2 * MIB).unwrap();
    let room = statvfs(b.path("box")).unwrap();
    assert_eq!(room.f_blocks * room.f_frsize, 1 << 20, "df shows the quota");
    assert_eq!(room.f_bfree * room.f_frsize, (1 << 20) - (900 << 10));
    assert_eq!((room.f_files, room.f_ffree), (5, 4));
    assert!(statvfs(b.path(".")).unwrap().f_blocks > room.f_blocks, "and the disk outside of it");
    for index in 0..4 {
        b.write(&format!("box/{index}"), b"");
    }
    assert_full(std::fs::write(b.path("box/fifth"), b""), "more files than the quota");
    assert_full(std::fs::create_dir(b.path("box/fifth")), "a directory is one");
    a.awaits("box/3", b"");
    assert_full(std::fs::write(a.path("box/fifth"), b""), "the same at another device");
    std::fs::remove_file(a.path("box/0")).unwrap();
    std::fs::File::options().write(true).open(a.path("box/most")).unwrap().set_len(10).unwrap();
    a.write("box/fits again", &[1; 500 << 10]);
    b.awaits("box/fits again", &[1; 500 << 10]);
    let list = b.ok(&["block", NAME, "list"]);
    assert!(list.contains("500.0 KiB of 1.0 MiB, 5 of 5 files"), "{list}");

    let low = a.kilofs(&["block", NAME, "quota", "/box", "--bytes", "100K"]);
    assert_eq!(low.code, Some(1), "{low:?}");
    assert_eq!(a.kilofs(&["block", NAME, "quota", "/box"]).code, Some(2), "nothing is said");
    let low = a.json(&["block", NAME, "quota", "1", "--bytes", "300K", "--files", "none"]);
    assert_eq!((low["quota_bytes"].as_u64(), low["quota_files"].as_u64()), (Some(300 << 10), None));
    a.sync();
    wait_until("the new quota has reached b", || b.status()["blocks"][1]["quota_bytes"] == 300 << 10);
    assert_full(std::fs::write(b.path("box/1"), b"x"), "a quota below what is there");
    for index in 10..20 {
        b.write(&format!("box/{index}"), b"");
    }
    std::fs::remove_file(b.path("box/fits again")).unwrap();
    b.write("box/1", b"x");
    a.awaits("box/1", b"x");
    let c = world.joined("c", &a, "write");
    c.awaits("box/1", b"x");
    assert_full(fill(&c, "box/joined", 4, 400 << 10), "at who joins");
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert_eq!(device.status()["refused"], serde_json::json!([]));
    }
    b.umount();
    b.ok(&["fsck", NAME]);
    b.mount();
    assert_full(fill(&b, "box/after a restart", 5, 400 << 10), "after a restart");
}

/// Devices that each fill the block without knowing of each other.
fn filled_apart(devices: &[&Device]) {
    for device in devices {
        device.umount();
        device.mount_with(&["--offline"]);
    }
    for (index, device) in devices.iter().enumerate() {
        fill(device, &format!("box/{index}"), index as u64, 900 << 10).unwrap();
    }
    for device in devices {
        device.umount();
        device.mount();
    }
}

#[test]
fn what_two_devices_fill_apart_is_all_there() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/box", "--quota-bytes", "1M"]);
    a.sync();
    let b = world.joined("b", &a, "write");
    wait_until("b has the block", || b.path("box").is_dir());
    await_agreement(&[&a, &b]);
    filled_apart(&[&a, &b]);
    for device in [&a, &b] {
        device.awaits("box/0", &Dice::new(0).bytes(900 << 10));
        device.awaits("box/1", &Dice::new(1).bytes(900 << 10));
    }
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(device.status()["refused"], serde_json::json!([]));
        assert_full(std::fs::write(device.path("box/more"), b"more"), "twice the quota is there");
    }
    // Two who found it so made two names apart at most: without bytes they are no more than that.
    std::fs::remove_file(b.path("box/0")).unwrap();
    b.write("box/fits", b"fits");
    a.awaits("box/fits", b"fits");
}

/// Three devices in agreement, with an empty block of one MiB.
fn three_with_a_box(world: &World) -> [Device; 3] {
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/box", "--quota-bytes", "1M"]);
    a.sync();
    let b = world.joined("b", &a, "write");
    let c = world.joined("c", &a, "write");
    for device in [&b, &c] {
        wait_until("everybody has the block", || device.path("box").is_dir());
    }
    await_agreement(&[&a, &b, &c]);
    [a, b, c]
}

#[test]
fn what_three_devices_fill_apart_is_there_or_set_aside() {
    let world = World::new();
    let [a, b, c] = three_with_a_box(&world);
    let devices = [&a, &b, &c];
    filled_apart(&devices);
    await_agreement(&devices);
    let there = names(&a, "box");
    assert!(!there.is_empty() && there.len() < 3, "not all of it can be there: {there:?}");
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(names(device, "box"), there);
        let data = Dice::new(index as u64).bytes(900 << 10);
        let name = index.to_string();
        if there.contains(&name) {
            a.awaits(&format!("box/{name}"), &data);
            continue;
        }
        assert_set_aside(device, &name, &data);
    }
    // What was tried and held too much has taken nothing of what stays.
    for device in devices {
        assert_eq!(device.json(&["fsck", NAME])["findings"], serde_json::json!([]));
    }
}

/// Whose it was has it still.
#[track_caller]
fn assert_set_aside(device: &Device, name: &str, data: &[u8]) {
    let aside = super::trees::entries(&device.path(".kilofs/refused"));
    // The directory of the block has a name like that too.
    let is_file = |path: &std::path::Path| device.path(".kilofs/refused").join(path).is_file();
    let kept = aside.keys().find(|path| path.ends_with(name) && is_file(path));
    let kept = kept.unwrap_or_else(|| panic!("{name} is lost: {:?}", aside.keys()));
    assert_eq!(std::fs::read(device.path(".kilofs/refused").join(kept)).unwrap(), data);
    let refused = device.status()["refused"].clone();
    assert!(refused.as_array().unwrap().iter().any(|one| one["kind"] == "local"), "{refused}");
}

/// One of two has merged both devices' work and signed the block; both must find theirs when that merge loses.
#[test]
fn what_another_device_merged_is_set_aside_at_whoever_made_it() {
    let world = World::new();
    let [a, b, c] = three_with_a_box(&world);
    for (index, device) in [&a, &b, &c].into_iter().enumerate() {
        device.umount();
        device.mount_with(&["--offline"]);
        fill(device, &format!("box/{index}"), index as u64, 900 << 10).unwrap();
        device.umount();
    }
    // Many versions make c's side the later one.
    c.mount();
    for round in 0..8 {
        c.write("round", format!("round {round}").as_bytes());
        c.sync();
    }
    c.umount();
    a.mount();
    b.mount();
    b.awaits("box/0", &Dice::new(0).bytes(900 << 10));
    a.awaits("box/1", &Dice::new(1).bytes(900 << 10));
    await_agreement(&[&a, &b]);
    c.mount();
    for device in [&a, &b] {
        device.awaits("box/2", &Dice::new(2).bytes(900 << 10));
    }
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert_eq!(names(device, "box"), ["2"]);
    }
    assert_set_aside(&a, "0", &Dice::new(0).bytes(900 << 10));
    assert_set_aside(&b, "1", &Dice::new(1).bytes(900 << 10));
    assert_eq!(c.status()["refused"], serde_json::json!([]));
}
