//! News between neighbours: what arrives without the DHT, and what happens when a neighbour falls away.

use super::harness::{Device, Dice, World, await_agreement};
use super::process::wait_until;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[track_caller]
fn await_neighbours(devices: &[&Device]) {
    wait_until("all devices are neighbours", || {
        devices
            .iter()
            .all(|device| device.status()["neighbours"].as_u64().unwrap() as usize == devices.len() - 1)
    });
}

fn fetched(device: &Device) -> u64 {
    device.status()["fetched_bytes"].as_u64().unwrap()
}

/// Three devices and a mirror that know each other; the DHT is gone.
fn cut_off(world: &mut World) -> [Device; 3] {
    let a = world.creator("a");
    a.write("before", b"the DHT was there");
    let b = world.joined("b", &a, "write");
    let reader = world.joined("reader", &a, "read");
    for device in [&b, &reader] {
        device.awaits("before", b"the DHT was there");
    }
    await_neighbours(&[&a, &b, &reader]);
    world.stop_dht();
    [a, b, reader]
}

#[test]
fn neighbours_hear_of_changes_without_the_dht() {
    let mut world = World::new();
    let [a, b, reader] = cut_off(&mut world);
    a.write("small", b"from a");
    for device in [&b, &reader] {
        device.awaits("small", b"from a");
    }
    b.write("small", b"from b, longer");
    for device in [&a, &reader] {
        device.awaits("small", b"from b, longer");
    }
    // More than news may carry: the hashes come with them, the bytes from the one who told.
    let large = Dice::new(5).bytes(9 << 20);
    a.write("large", &large);
    for device in [&b, &reader] {
        device.awaits("large", &large);
    }
    assert_eq!(a.status()["published"], false, "nothing was put: there is no DHT");
    world.start_dht();
    await_agreement(&[&a, &b, &reader]);
    let late = world.joined("late", &a, "write");
    late.awaits("large", &large);
    await_agreement(&[&a, &b, &reader, &late]);
}

#[test]
fn writers_that_write_at_once_lose_nothing() {
    const FILES: usize = 150;
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    await_neighbours(&[&a, &b]);
    std::thread::scope(|scope| {
        for (name, device) in [("a", &a), ("b", &b)] {
            scope.spawn(move || {
                for number in 0..FILES {
                    device.write(&format!("{name}{number}"), format!("{name} wrote {number}").as_bytes());
                    std::thread::sleep(Duration::from_millis(number as u64 % 17));
                }
            });
        }
    });
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        for name in ["a", "b"] {
            for number in 0..FILES {
                device.awaits(&format!("{name}{number}"), format!("{name} wrote {number}").as_bytes());
            }
        }
        assert_eq!(device.status()["conflicts"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn one_file_that_two_edit_at_once_keeps_both_edits() {
    let mut world = World::new();
    let [a, b, reader] = cut_off(&mut world);
    for round in 0..5 {
        let name = format!("contested{round}.txt");
        std::thread::scope(|scope| {
            scope.spawn(|| a.write(&name, b"what a wrote"));
            scope.spawn(|| b.write(&name, b"b wrote this"));
        });
        let mut seen = Vec::new();
        wait_until("all show the same of the contested file", || {
            let show = |device: &Device| -> Vec<Vec<u8>> {
                let mine = std::fs::read_dir(&device.mount).unwrap().filter_map(|entry| {
                    let entry = entry.unwrap();
                    let named =
                        entry.file_name().to_string_lossy().starts_with(&format!("contested{round}."));
                    named.then(|| std::fs::read(entry.path()).unwrap_or_default())
                });
                let mut all: Vec<_> = mine.collect();
                all.sort();
                all
            };
            seen = show(&a);
            let roots: Vec<_> =
                [&a, &b, &reader].iter().map(|device| device.status()["root"].clone()).collect();
            roots[0] == roots[1]
                && roots[1] == roots[2]
                && seen == show(&b)
                && seen == show(&reader)
                && (seen.len() == 2 || seen.len() == 1 && seen[0].len() == 12)
        });
        // One file only where one of them had seen the other's before it wrote.
        assert!(!seen.is_empty());
    }
}

#[test]
fn a_small_change_costs_few_bytes() {
    let world = World::new();
    let a = world.creator("a");
    a.write("large", &Dice::new(1).bytes(64 << 20));
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    await_neighbours(&[&a, &b]);
    for round in 0..5u64 {
        let before = fetched(&b);
        let change = Dice::new(round + 2).bytes(4096);
        OpenOptions::new()
            .write(true)
            .open(a.path("large"))
            .unwrap()
            .write_all_at(&change, round << 22)
            .unwrap();
        wait_until("the change is there", || {
            let mut found = vec![0; change.len()];
            let file = std::fs::File::open(b.path("large")).unwrap();
            file.read_exact_at(&mut found, round << 22).is_ok() && found == change
        });
        let cost = fetched(&b) - before;
        assert!(cost < 160 << 10, "4 KiB inside 64 KiB of one chunk cost {cost} bytes");
        a.write("new", &change);
        let before = fetched(&b);
        b.awaits("new", &change);
        let cost = fetched(&b).saturating_sub(before);
        assert!(cost < 40 << 10, "a file of 4 KiB cost {cost} bytes");
    }
}

#[test]
fn what_a_change_leaves_empty_costs_nothing() {
    const CHANGED: usize = 2 << 20;
    let world = World::new();
    let a = world.creator("a");
    a.write("large", &Dice::new(1).bytes(32 << 20));
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    await_neighbours(&[&a, &b]);
    // Equal roots do not say that the content is here.
    wait_until("B has all of it", || b.status()["versions"][0]["complete"] == true);
    let before = fetched(&b);
    let change = Dice::new(2).bytes(CHANGED);
    let large = OpenOptions::new().write(true).open(a.path("large")).unwrap();
    large.write_all_at(&change, 8 << 20).unwrap();
    // More than the intent log takes: a commit, after which what was there before is given up.
    large.sync_all().unwrap();
    wait_until("the change is there", || {
        let mut found = vec![0; change.len()];
        let file = std::fs::File::open(b.path("large")).unwrap();
        file.read_exact_at(&mut found, 8 << 20).is_ok() && found == change
    });
    await_agreement(&[&a, &b]);
    // The regions that held what was there before are empty now; that is told by a hash, not by a MiB of zeros.
    let cost = fetched(&b) - before;
    assert!(cost < (CHANGED + (512 << 10)) as u64, "{CHANGED} changed bytes cost {cost}");
}

#[test]
fn a_neighbour_that_is_killed_and_comes_back_misses_nothing() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    for round in 0..4 {
        await_neighbours(&[&a, &b]);
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        from.write("kept", format!("round {round}").as_bytes());
        to.awaits("kept", format!("round {round}").as_bytes());
        to.write(&format!("mine{round}"), b"made just before the kill");
        std::fs::File::open(to.path(&format!("mine{round}"))).unwrap().sync_all().unwrap();
        to.kill9();
        for number in 0..20 {
            from.write("kept", format!("round {round} change {number}").as_bytes());
        }
        to.mount();
        await_agreement(&[&a, &b]);
        to.awaits("kept", format!("round {round} change 19").as_bytes());
        from.awaits(&format!("mine{round}"), b"made just before the kill");
    }
}

/// For less than so long, a file that was emptied may wait for what is written to it before others see it.
const AWAITED: Duration = Duration::from_secs(1);

/// Saves as many programs do, but takes time between emptying and writing. Says whether that was short enough: a busy
/// machine may let a program sleep for longer than it asked for.
pub fn save_slowly(device: &Device, name: &str, content: &[u8]) -> bool {
    let began = Instant::now();
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(device.path(name)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    file.write_all(content).unwrap();
    began.elapsed() < AWAITED
}

/// Whether a file was ever seen empty at `there` while `change` was made, and until it arrived.
pub fn seen_empty(there: &Device, name: &str, content: &[u8], change: impl FnOnce() -> bool) -> Option<bool> {
    let (done, empty) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if std::fs::read(there.path(name)).is_ok_and(|found| found.is_empty()) {
                    empty.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let counts = change();
        there.awaits(name, content);
        done.store(true, Ordering::Relaxed);
        counts.then(|| empty.load(Ordering::Relaxed))
    })
}

#[test]
fn nobody_sees_a_file_empty_that_is_being_saved() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"the first");
    let b = world.joined("b", &a, "write");
    b.awaits("text", b"the first");
    await_neighbours(&[&a, &b]);
    let mut counted = 0;
    for round in 0.. {
        let content = format!("round {round}");
        // New every second time; once changes are published all the while.
        let name = if round % 2 == 0 { "text" } else { &format!("new{round}") };
        let seen = seen_empty(&b, name, content.as_bytes(), || {
            std::thread::scope(|scope| {
                let saving = scope.spawn(|| save_slowly(&a, name, content.as_bytes()));
                for step in 0u32.. {
                    if round < 2 || saving.is_finished() {
                        break;
                    }
                    a.write("beside", &step.to_le_bytes());
                    b.write("elsewhere", format!("{round}").as_bytes());
                    std::thread::sleep(Duration::from_millis(20));
                }
                saving.join().unwrap()
            })
        });
        counted += usize::from(seen.is_some());
        assert_ne!(seen, Some(true), "round {round}: {name} was seen empty");
        if counted == 4 {
            break;
        }
    }
    await_agreement(&[&a, &b]);
}

#[test]
fn what_is_emptied_to_be_saved_is_merged_as_it_is_saved() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    await_neighbours(&[&a, &b]);
    let mut counted = 0;
    for round in 0.. {
        let name = format!("contested{round}.txt");
        a.write(&name, b"what both began with");
        b.awaits(&name, b"what both began with");
        let counts = std::thread::scope(|scope| {
            let saving = scope.spawn(|| save_slowly(&a, &name, b"what a saved"));
            b.write(&name, b"b saved this");
            saving.join().unwrap()
        });
        await_agreement(&[&a, &b]);
        if counts {
            counted += 1;
            let files = std::fs::read_dir(&b.mount).unwrap().map(|entry| entry.unwrap().path());
            for file in files.filter(|file| file.to_string_lossy().contains(&format!("contested{round}."))) {
                assert!(!std::fs::read(&file).unwrap().is_empty(), "{}", file.display());
            }
        }
        if counted == 2 {
            break;
        }
    }
}

#[test]
fn what_stays_empty_arrives_all_the_same() {
    let world = World::new();
    let a = world.creator("a");
    a.write("emptied", b"not for long");
    let b = world.joined("b", &a, "write");
    b.awaits("emptied", b"not for long");
    // Nobody closes them before they have arrived.
    let _emptied = std::fs::File::create(a.path("emptied")).unwrap();
    let _new = std::fs::File::create(a.path("new")).unwrap();
    a.write("beside", b"is not held up for ever");
    for name in ["emptied", "new"] {
        b.awaits(name, b"");
    }
    b.awaits("beside", b"is not held up for ever");
    await_agreement(&[&a, &b]);
}
