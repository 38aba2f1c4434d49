//! A device is killed in the middle of what takes long: nothing is lost, and nobody has to do more than mount again.
//! `KILOFS_STORM_ROUNDS` asks for more kills.

use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::wait_until;
use super::trees;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn rounds(usual: u64) -> u64 {
    std::env::var("KILOFS_STORM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

fn write_synced(device: &Device, name: &str, content: &[u8]) {
    let mut file = File::create(device.path(name)).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

fn pause(dice: &mut Dice, least: u64, more: u64) {
    sleep(Duration::from_millis(least + dice.below(more)));
}

#[test]
fn a_merge_of_five_hundred_files() {
    const FILES: usize = 500;
    let world = World::new();
    let a = world.creator("a");
    for number in 0..FILES {
        a.write(&format!("file{number}"), format!("before {number}").as_bytes());
    }
    let b = world.joined("b", &a, "write");
    b.awaits(&format!("file{}", FILES - 1), format!("before {}", FILES - 1).as_bytes());
    await_agreement(&[&a, &b]);
    for (name, device) in [("a", &a), ("b", &b)] {
        device.umount();
        device.mount_with(&["--offline"]);
        for number in 0..FILES {
            device.write(&format!("file{number}"), format!("{name} edited {number}").as_bytes());
        }
        File::open(&device.mount).unwrap().sync_all().unwrap();
        device.umount();
    }
    let mut dice = Dice::new(500);
    for device in [&a, &b] {
        device.mount();
    }
    for _ in 0..rounds(4) {
        pause(&mut dice, 30, 900);
        let victim = [&a, &b][dice.below(2) as usize];
        victim.kill9();
        pause(&mut dice, 0, 500);
        victim.mount();
    }
    await_agreement(&[&a, &b]);
    let mut found: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (path, entry) in trees::entries(&a.mount) {
        assert!(!path.starts_with("lost+found"), "{path:?}");
        *found.entry(std::fs::read(a.mount.join(path)).unwrap()).or_default() += 1;
        drop(entry);
    }
    for number in 0..FILES {
        for name in ["a", "b"] {
            let edit = format!("{name} edited {number}");
            assert!(found.contains_key(edit.as_bytes()), "{edit} is lost");
        }
        assert!(a.path(&format!("file{number}")).exists(), "one of the two keeps the name file{number}");
    }
    assert_eq!(found.len(), 2 * FILES, "nothing else is there");
    trees::assert_equal(&a.mount, &b.mount);
}

#[test]
fn a_large_transfer_and_a_join() {
    let slow = ["--limit-down", "16M"];
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    let mut dice = Dice::new(64);
    let content = dice.bytes(64 * MIB);
    b.umount();
    b.mount_with(&slow);
    write_synced(&a, "large", &content);
    for round in 0..rounds(4) {
        pause(&mut dice, 200, 1_500);
        // Who sends and who receives, in turn.
        let (victim, flags) = if round % 2 == 0 { (&b, &slow[..]) } else { (&a, &[][..]) };
        victim.kill9();
        victim.mount_with(flags);
        write_synced(victim, &format!("meanwhile-{round}"), b"changed in between");
    }
    let c = world.device("c");
    c.join(&a.link("write"));
    c.mount_with(&slow);
    for _ in 0..rounds(4) / 2 {
        pause(&mut dice, 200, 1_500);
        c.kill9();
        c.mount_with(&slow);
        write_synced(&c, "from c", b"written before anything came");
    }
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert!(std::fs::read(device.path("large")).unwrap() == content, "{}", device.mount.display());
        for round in 0..rounds(4) {
            device.awaits(&format!("meanwhile-{round}"), b"changed in between");
        }
        device.awaits("from c", b"written before anything came");
        assert_eq!(device.status()["conflicts"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn versions_that_take_each_others_places() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let mut dice = Dice::new(5);
    let mut written = 0;
    for _ in 0..rounds(4) {
        let victim = [&a, &b][dice.below(2) as usize];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..8 {
                    written += 1;
                    // Of the one that is killed too.
                    let text = format!("version {written}");
                    let made = File::create(a.path("text")).and_then(|mut file| {
                        file.write_all(text.as_bytes())?;
                        file.sync_all()
                    });
                    if made.is_err() {
                        return;
                    }
                    sleep(Duration::from_millis(120));
                }
            });
            pause(&mut dice, 100, 900);
            victim.kill9();
        });
        victim.mount();
        await_agreement(&[&a, &b]);
        // Each version of the record that is here can be looked at.
        for device in [&a, &b] {
            let listed = device.json(&["versions", NAME]);
            let listed = listed.as_array().unwrap();
            // One of the record that is not here has no number.
            let here =
                listed.iter().filter(|version| version["in_record"] == true && version["version"] != 0);
            for version in here {
                let place = device.path(&format!(".kilofs/versions/{}", version["version"]));
                for name in std::fs::read_dir(&place).unwrap() {
                    let text = std::fs::read_to_string(name.unwrap().path()).unwrap();
                    assert!(text.is_empty() || text.starts_with("version "), "{text}");
                }
            }
        }
    }
    write_synced(&a, "text", b"version last");
    b.awaits("text", b"version last");
    await_agreement(&[&a, &b]);
    a.write("text", b"overwritten");
    a.sync();
    let listed = a.json(&["versions", NAME]);
    let in_record = listed.as_array().unwrap().iter().filter(|version| version["in_record"] == true).count();
    assert_eq!(in_record, 5, "{listed}");
    a.ok(&["restore", NAME, "2", "text", "--to", "again"]);
    b.awaits("again", b"version last");
    for device in [&a, &b] {
        device.umount();
        device.ok(&["fsck", NAME]);
    }
}

#[test]
fn what_is_given_up_to_stay_within_a_limit() {
    const FILES: u64 = 8;
    let world = World::new();
    let a = world.creator("a");
    a.write("small", b"a small one");
    a.sync();
    let content = |seed: u64| Dice::new(seed).bytes(3 * MIB);
    for seed in 0..FILES {
        a.write(&format!("file{seed}"), &content(seed));
    }
    a.sync();
    let b = world.device("b");
    b.join(&a.link("write"));
    let flags = ["--local-limit", "8M"];
    b.mount_with(&flags);
    wait_until("the tree is shown", || b.path(&format!("file{}", FILES - 1)).exists());
    let mut dice = Dice::new(8);
    let rounds = rounds(5);
    for round in 0..rounds {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Until it is killed: every file in turn, more than may stay.
                for seed in (0..FILES).cycle().take(200) {
                    let Ok(read) = std::fs::read(b.path(&format!("file{seed}"))) else { return };
                    assert!(read == content(seed), "round {round}: file{seed}");
                }
            });
            write_synced(&b, &format!("own-{round}"), &content(100 + round));
            pause(&mut dice, 1_500, 2_500);
            b.kill9();
        });
        b.mount_with(&flags);
        for own in 0..=round {
            assert!(std::fs::read(b.path(&format!("own-{own}"))).unwrap() == content(100 + own), "own-{own}");
        }
    }
    for seed in 0..FILES {
        assert!(std::fs::read(b.path(&format!("file{seed}"))).unwrap() == content(seed), "file{seed}");
    }
    await_agreement(&[&a, &b]);
    for own in 0..rounds {
        a.awaits(&format!("own-{own}"), &content(100 + own));
    }
    assert!(b.log().contains("were given up to stay within the limit"), "nothing was given up");
    b.umount();
    b.ok(&["fsck", NAME]);
}
