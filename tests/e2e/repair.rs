//! A damaged store at one device: `fsck` names what is wrong, `fsck --repair` gets it back from another device, or makes
//! do without it and says so.

use super::aside::{offline, online};
use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::wait_until;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;

const BIG_BYTES: usize = 4 << 20;
const SLOT_BYTES: u64 = 1 << 20;

fn content(seed: u64) -> Vec<u8> {
    Dice::new(seed).bytes(BIG_BYTES)
}

/// Two devices with a large file and a small one; the second is not mounted.
fn pair(world: &World) -> (Device, Device) {
    let a = world.creator("a");
    a.write("big", &content(1));
    a.write("keep", b"kept");
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("big", &content(1));
    b.awaits("keep", b"kept");
    b.sync();
    b.umount();
    (a, b)
}

fn checked(device: &Device, repair: bool) -> (Option<i32>, Value) {
    let flags: &[&str] =
        if repair { &["fsck", NAME, "--repair", "--json"] } else { &["fsck", NAME, "--json"] };
    let done = device.kilofs(flags);
    (done.code, serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}")))
}

fn texts(list: &Value) -> Vec<String> {
    let text =
        |item: &Value| format!("{}: {}", item["subject"].as_str().unwrap(), item["what"].as_str().unwrap());
    list.as_array().unwrap().iter().map(text).collect()
}

/// Overwrites bytes of a store until a chunk of the large file is hit.
fn damage_a_chunk(device: &Device) -> Value {
    damage(device, |line| line.contains("/big: chunk"))
}

/// Overwrites bytes of a store until it is named as wanted.
fn damage(device: &Device, is_wanted: impl Fn(&str) -> bool) -> Value {
    let store = device.home.join("databases").join(NAME).join("database");
    let file = File::options().read(true).write(true).open(store).unwrap();
    let slots = file.metadata().unwrap().len() / SLOT_BYTES;
    for slot in 1..slots {
        let (at, mut before) = (slot * SLOT_BYTES + 300_000, [0; 64]);
        file.read_exact_at(&mut before, at).unwrap();
        file.write_all_at(&[0x55; 64], at).unwrap();
        let (code, report) = checked(device, false);
        if code == Some(1) && texts(&report["findings"]).iter().any(|line| is_wanted(line)) {
            return report;
        }
        file.write_all_at(&before, at).unwrap();
    }
    panic!("what is to be damaged lies nowhere");
}

#[test]
fn what_another_device_has_is_fetched_again() {
    let world = World::new();
    let (a, b) = pair(&world);
    damage_a_chunk(&b);
    let (code, report) = checked(&b, true);
    assert_eq!(code, Some(0), "{report:#}");
    let done = texts(&report["repaired"]);
    assert!(done.iter().any(|line| line.contains("pieces were put back")), "{done:?}");
    assert!(!done.iter().any(|line| line.contains("lost+found")), "{done:?}");
    b.ok(&["fsck", NAME]);
    b.mount();
    b.awaits("big", &content(1));
    assert!(!b.path("lost+found").exists());
    b.umount();
    a.umount();
}

#[test]
fn a_running_engine_is_repaired_without_an_unmount() {
    let world = World::new();
    let (a, b) = pair(&world);
    damage_a_chunk(&b);
    b.mount();
    let (code, report) = checked(&b, true);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(std::fs::read(b.path("big")).unwrap(), content(1));
    b.umount();
    a.umount();
}

#[test]
fn what_nobody_has_is_left_out_and_comes_back_when_somebody_does() {
    let world = World::new();
    let (a, b) = pair(&world);
    a.umount();
    let report = damage_a_chunk(&b);
    let planned = texts(&report["planned"]);
    assert!(planned.iter().any(|line| line.contains("/big") && line.contains("lost+found")), "{planned:?}");
    let (code, report) = checked(&b, true);
    assert_eq!(code, Some(0), "{report:#}");
    let done = texts(&report["repaired"]);
    assert!(done.iter().any(|line| line.contains("/lost+found/big.damaged")), "{done:?}");
    b.ok(&["fsck", NAME]);
    b.mount();
    assert!(!b.path("big").exists(), "nothing stands under the old name");
    assert_eq!(std::fs::read(b.path("keep")).unwrap(), b"kept");
    let (left, whole) = (std::fs::read(b.path("lost+found/big.damaged")).unwrap(), content(1));
    assert_eq!(left.len(), whole.len());
    let differing: Vec<usize> = (0..whole.len()).filter(|at| left[*at] != whole[*at]).collect();
    assert!(!differing.is_empty() && differing.len() <= 128 << 10, "{} bytes differ", differing.len());
    assert!(differing.iter().all(|at| left[*at] == 0), "what is lost is a hole");
    // The loss stays where it happened.
    a.mount();
    a.sync();
    b.awaits("big", &whole);
    a.awaits("big", &whole);
    b.umount();
    a.umount();
}

#[test]
fn damage_in_what_is_set_aside_is_named_with_what_to_do() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs"]);
    a.write("docs/keep", b"kept");
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    offline(&b);
    b.write("docs/edited", &content(2));
    a.json(&["policy", NAME, "set", "/docs", "ro"]);
    a.sync();
    online(&b);
    wait_until("it is set aside", || b.path(".kilofs/refused/1/edited").exists());
    await_agreement(&[&a, &b]);
    b.umount();
    b.ok(&["fsck", NAME]);
    damage(&b, |line| line.starts_with(".kilofs/refused/1: ") && line.contains("edited: chunk"));
    let only_copy = |flags: &[&str]| {
        let done = b.kilofs(flags);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains("copy out of there what can still be read"), "{done:?}");
        done
    };
    only_copy(&["fsck", NAME]);
    let done = only_copy(&["fsck", NAME, "--repair"]);
    assert!(!done.err.contains("try again"), "no peer has it: {done:?}");
    b.mount();
    assert_eq!(std::fs::read(b.path("docs/keep")).unwrap(), b"kept");
    assert!(b.path(".kilofs/refused/1/edited").exists(), "what is left of it stays");
    b.umount();
    a.umount();
}
