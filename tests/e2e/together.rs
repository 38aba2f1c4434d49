//! Many changes on several devices, some of them apart, some of them killed: whatever was acknowledged is there in the end.

use super::harness::{Device, Dice, World, await_agreement};
use super::process::wait_until;
use super::trees;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// What every regular file below the mount holds, by its bytes.
fn contents(device: &Device) -> BTreeMap<Vec<u8>, usize> {
    let mut found = BTreeMap::new();
    for path in trees::entries(&device.mount).keys() {
        if let Ok(content) = std::fs::read(device.mount.join(path)) {
            *found.entry(content).or_insert(0) += 1;
        }
    }
    found
}

#[test]
fn five_hundred_files_that_two_edit_apart_keep_all_edits() {
    const FILES: usize = 500;
    let world = World::new();
    let a = world.creator("a");
    let directory = |number: usize| format!("directory{}", number % 7);
    for number in 0..7 {
        std::fs::create_dir(a.path(&directory(number))).unwrap();
    }
    let file = |number: usize| format!("{}/file{number}", directory(number));
    for number in 0..FILES {
        a.write(&file(number), format!("before {number}").as_bytes());
    }
    let b = world.joined("b", &a, "write");
    b.awaits(&file(FILES - 1), format!("before {}", FILES - 1).as_bytes());
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        device.umount();
        device.mount_with(&["--offline"]);
    }
    let edit = |name: &str, number: usize| format!("{name} edited {number}");
    for (name, device) in [("a", &a), ("b", &b)] {
        for number in 0..FILES {
            device.write(&file(number), edit(name, number).as_bytes());
        }
        device.umount();
        device.mount();
    }
    await_agreement(&[&a, &b]);
    let found = contents(&a);
    for number in 0..FILES {
        for name in ["a", "b"] {
            assert_eq!(found.get(edit(name, number).as_bytes()), Some(&1), "{name}'s edit of {number}");
        }
        assert!(a.path(&file(number)).exists(), "one of the two keeps the name {}", file(number));
    }
    assert_eq!(found.len(), 2 * FILES, "nothing else is there");
    trees::assert_equal(&a.mount, &b.mount);
}

/// Writes until told to stop, or until the engine is gone; every file that `fsync` returned for is listed.
fn write_on(device: &Device, name: &str, first: usize, count: usize) -> Vec<String> {
    let mut safe = Vec::new();
    for number in first..first + count {
        let file = format!("{name}-{number}");
        let written = File::create(device.path(&file)).and_then(|mut open| {
            open.write_all(format!("content of {file}").as_bytes())?;
            open.sync_all()
        });
        if written.is_err() {
            return safe;
        }
        safe.push(file);
        std::thread::sleep(Duration::from_millis(number as u64 % 13));
    }
    safe
}

/// `KILOFS_STORM_ROUNDS` asks for more rounds.
#[test]
fn whichever_device_is_killed_nothing_is_lost() {
    const WRITES: usize = 60;
    let asked = std::env::var("KILOFS_STORM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = asked.unwrap_or(4);
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    mirror.mirror();
    let mut dice = Dice::new(77);
    let mut safe: Vec<String> = Vec::new();
    for round in 0..rounds {
        let victim = (round + dice.below(2) as usize) % 3;
        let pause = Duration::from_millis(50 + dice.below(500));
        std::thread::scope(|scope| {
            let writers = [("a", &a), ("b", &b)]
                .map(|(name, device)| scope.spawn(move || write_on(device, name, round * WRITES, WRITES)));
            std::thread::sleep(pause);
            [&a, &b, &mirror][victim].kill9();
            for writer in writers {
                safe.extend(writer.join().unwrap());
            }
        });
        match victim {
            0 => a.mount(),
            1 => b.mount(),
            _ => mirror.mirror(),
        }
    }
    await_agreement(&[&a, &b]);
    assert!(safe.len() > rounds * WRITES / 2, "too little was acknowledged: {}", safe.len());
    for device in [&a, &b] {
        for file in &safe {
            let found = std::fs::read(device.path(file));
            let whole = found.as_ref().is_ok_and(|found| *found == format!("content of {file}").as_bytes());
            let listed: Vec<_> = trees::entries(&device.mount).into_keys().collect();
            assert!(whole, "{file} is {found:?}; {listed:?}; {}", device.status()["conflicts"]);
        }
    }
    trees::assert_equal(&a.mount, &b.mount);
    let newest = |device: &Device| device.status()["versions"][0]["infohash"].clone();
    wait_until("the mirror holds the newest version", || {
        let status = mirror.status();
        status["versions"][0]["infohash"] == newest(&a) && status["versions"][0]["complete"] == true
    });
}
