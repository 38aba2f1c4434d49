//! Engines killed and bytes damaged: nothing that was synced is lost, nothing wrong is shown, nothing panics.

use super::harness::{Device, Dice, NAME, World};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

fn content(index: u64) -> Vec<u8> {
    let mut dice = Dice::new(index);
    let size = dice.below(100_000) as usize;
    dice.bytes(size)
}

/// Writes files, syncs each, and says which are safe, until the engine is gone.
fn write_and_sync(device: &Device, first: u64, safe: &Mutex<Vec<u64>>, stop: &AtomicBool) {
    for index in first.. {
        let path = device.path(&format!("file-{index}"));
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&content(index))?;
            file.sync_all()
        });
        if written.is_err() || stop.load(Ordering::Relaxed) {
            return;
        }
        safe.lock().unwrap().push(index);
    }
}

#[test]
fn what_was_synced_survives_a_killed_engine() {
    let world = World::new();
    let a = world.creator("a");
    let mut dice = Dice::new(11);
    let safe = Mutex::new(Vec::new());
    for round in 0..6 {
        let stop = AtomicBool::new(false);
        scope(|scope| {
            scope.spawn(|| write_and_sync(&a, round * 1_000_000, &safe, &stop));
            sleep(Duration::from_millis(20 + dice.below(700)));
            a.kill9();
            stop.store(true, Ordering::Relaxed);
        });
        // The dead mountpoint is cleared by the next mount, without a person's help.
        // (Asked for what the kernel cannot have cached.)
        assert!(rustix::fs::statfs(&a.mount).is_err(), "the mountpoint should be dead");
        a.mount();
        for index in safe.lock().unwrap().iter() {
            let found = std::fs::read(a.path(&format!("file-{index}")));
            assert!(
                found.is_ok_and(|found| found == content(*index)),
                "file-{index} was synced in or before round {round}"
            );
        }
    }
    assert!(safe.lock().unwrap().len() > 6, "too little was written to tell anything");
    a.umount();
    a.ok(&["fsck", NAME]);
}

#[test]
fn an_fsync_is_one_batch_of_the_log_and_comes_back_without_a_commit() {
    const WRITES: u64 = 200;
    let world = World::new();
    let a = world.device("a");
    a.create();
    a.mount_with(&["--offline"]);
    a.write("before", b"the first fsync makes the log");
    File::open(a.path("before")).unwrap().sync_all().unwrap();
    let counter = |name: &str| a.status()["counters"][name].as_u64().unwrap();
    let (logged, commits) = (counter("logged"), counter("commits"));
    let mut file = File::create(a.path("journal")).unwrap();
    for index in 0..WRITES {
        file.write_all(&content(index)[..8.min(content(index).len())]).unwrap();
        file.sync_data().unwrap();
    }
    std::fs::rename(a.path("before"), a.path("after")).unwrap();
    File::open(&a.mount).unwrap().sync_all().unwrap();
    assert_eq!(counter("logged") - logged, WRITES + 1);
    assert_eq!(counter("commits"), commits);
    let expected = std::fs::read(a.path("journal")).unwrap();
    drop(file);
    a.kill9();
    a.mount_with(&["--offline"]);
    assert_eq!(std::fs::read(a.path("journal")).unwrap(), expected);
    assert!(a.path("after").exists() && !a.path("before").exists());
    assert!(a.log().contains("brought back from the intent log"), "{}", a.log());
    assert!(a.status()["pending_bytes"].as_u64().unwrap() > 0, "nothing of it was published");
}

#[test]
fn an_engine_that_is_stopped_is_known_as_that() {
    let world = World::new();
    let a = world.creator("a");
    let engine = rustix::process::Pid::from_raw(a.pid().cast_signed()).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::STOP).unwrap();
    let asked = std::time::Instant::now();
    let status = a.kilofs(&["status", super::harness::NAME]);
    let took = asked.elapsed();
    rustix::process::kill_process(engine, rustix::process::Signal::CONT).unwrap();
    assert_eq!(status.code, Some(3), "{status:?}");
    assert!(status.err.contains("is its process stopped?"), "{status:?}");
    assert!(took < std::time::Duration::from_secs(30), "{took:?}");
    a.ok(&["status", super::harness::NAME]);
}

#[test]
fn doctor_asks_the_nodes_that_databases_are_set_to() {
    let mut world = World::new();
    let a = world.device("a");
    a.create();
    let nodes = world.bootstrap();
    let config = database(&a).join("config.toml");
    std::fs::write(&config, format!("bootstrap = [\"{nodes}\"]\n")).unwrap();
    let doctor = || {
        let told = a.kilofs(&["doctor", "--json"]);
        let findings: serde_json::Value = serde_json::from_str(&told.out).unwrap();
        findings.as_array().unwrap().iter().find(|one| one["subject"] == "DHT").cloned().unwrap()
    };
    let found = doctor();
    assert!(found["verdict"] == "ok" && found["message"].to_string().contains(&nodes), "{found}");
    world.stop_dht();
    let found = doctor();
    assert!(found["verdict"] == "warning" && found["message"].to_string().contains(&nodes), "{found}");
}

#[test]
fn a_dead_mountpoint_can_be_cleared_by_hand() {
    let world = World::new();
    let a = world.creator("a");
    a.kill9();
    let mount = a.mount.to_str().unwrap();
    let told = a.status()["warnings"].to_string();
    assert!(told.contains(&format!("`kilofs umount {mount}`")), "{told}");
    assert!(a.ok(&["status"]).contains(&format!("has left its mount at {mount}")));
    a.ok(&["umount", mount]);
    assert_eq!(a.status()["warnings"], serde_json::json!([]));
    assert!(std::fs::read_dir(&a.mount).unwrap().next().is_none());
    let again = a.kilofs(&["umount", mount]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("is no mount of kilofs"), "{again:?}");
}

fn database(device: &Device) -> PathBuf {
    device.home.join("databases").join(NAME)
}

fn assert_no_panic(what: &str, text: &str) {
    assert!(!text.contains("panicked"), "{what}: {text}");
}

/// A device whose database holds a few files of every sort, not mounted; and what the files hold.
fn furnished(world: &World) -> (Device, Vec<(String, Vec<u8>)>) {
    let a = world.creator("a");
    std::fs::create_dir(a.path("directory")).unwrap();
    let mut files =
        vec![("small".to_owned(), b"inline".to_vec()), ("directory/empty".to_owned(), Vec::new())];
    files.extend((1..8).map(|index| (format!("directory/file-{index}"), content(index))));
    for (name, bytes) in &files {
        a.write(name, bytes);
    }
    std::os::unix::fs::symlink("small", a.path("link")).unwrap();
    a.sync();
    a.umount();
    (a, files)
}

/// Mounts a damaged database: each file reads as it was or not at all; or the mount fails with a clear error.
fn assert_never_wrong(device: &Device, files: &[(String, Vec<u8>)], what: &str) {
    let mounted = device.kilofs(&["mount", NAME, device.mount.to_str().unwrap(), "--offline", "--json"]);
    assert_no_panic(what, &mounted.err);
    if mounted.code != Some(0) {
        assert!(
            mounted.err.lines().count() <= 5 && mounted.err.starts_with("kilofs: "),
            "{what}: {mounted:?}"
        );
        return;
    }
    for (name, bytes) in files {
        if let Ok(found) = std::fs::read(device.path(name)) {
            assert!(found == *bytes, "{what}: {name} shows something that was never written");
        }
    }
    let ended = device.kilofs(&["umount", device.mount.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
    assert_no_panic(what, &device.log());
}

/// Runs `check` with one byte of the store flipped, and puts it back.
fn with_flipped_byte(store: &Path, at: u64, check: impl FnOnce()) {
    let file = File::options().read(true).write(true).open(store).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    check();
    file.write_all_at(&byte, at).unwrap();
}

/// Where the store has its second superblock.
const SECOND_SUPERBLOCK: u64 = 512 << 10;

#[test]
fn a_flipped_byte_is_found_or_does_not_matter() {
    let world = World::new();
    let (a, files) = furnished(&world);
    let store = database(&a).join("database");
    let pristine = std::fs::read(&store).unwrap();
    let used: Vec<u64> = (0u64..).zip(&pristine).filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    let mut dice = Dice::new(5);
    // Every byte of both superblocks, and places drawn from all that is in use.
    let in_superblock = |at: &u64| *at < 512 || (SECOND_SUPERBLOCK..SECOND_SUPERBLOCK + 512).contains(at);
    let head = used.iter().copied().filter(in_superblock).collect::<Vec<_>>();
    assert!(head.iter().any(|at| *at >= SECOND_SUPERBLOCK), "the second superblock is in use");
    let drawn: Vec<u64> = (0..2_000).map(|_| used[dice.below(used.len() as u64) as usize]).collect();
    for at in head.iter().chain(&drawn) {
        with_flipped_byte(&store, *at, || {
            let checked = a.kilofs(&["fsck", NAME]);
            assert_no_panic(&format!("fsck with byte {at} flipped"), &checked.err);
            assert!(matches!(checked.code, Some(0 | 1)), "byte {at}: {checked:?}");
        });
        // A repair may have been written: every place is tried on the same store.
        std::fs::write(&store, &pristine).unwrap();
    }
    for at in drawn.iter().take(25) {
        with_flipped_byte(&store, *at, || assert_never_wrong(&a, &files, &format!("byte {at} flipped")));
        std::fs::write(&store, &pristine).unwrap();
    }
    a.ok(&["fsck", NAME]);
    assert_never_wrong(&a, &files, "nothing damaged");
}

#[test]
fn a_store_cut_short_is_a_clear_error_or_repairs_itself() {
    let world = World::new();
    let (a, files) = furnished(&world);
    let store = database(&a).join("database");
    let pristine = std::fs::read(&store).unwrap();
    let length = pristine.len() as u64;
    for cut in [0, 1, 511, 4096, 8191, 8192, length / 4, length / 2, length - 4096, length - 1] {
        std::fs::write(&store, &pristine).unwrap();
        File::options().write(true).open(&store).unwrap().set_len(cut).unwrap();
        let checked = a.kilofs(&["fsck", NAME]);
        assert_no_panic(&format!("fsck of {cut} bytes"), &checked.err);
        assert_never_wrong(&a, &files, &format!("cut to {cut} of {length} bytes"));
    }
}

#[test]
fn a_cache_that_is_gone_or_rubbish_is_rebuilt() {
    let world = World::new();
    let (a, files) = furnished(&world);
    let cache = database(&a).join("cache");
    let read_all = |what: &str| {
        a.mount();
        for (name, bytes) in &files {
            assert!(std::fs::read(a.path(name)).unwrap() == *bytes, "{what}: {name}");
        }
        a.sync();
        a.umount();
        assert_no_panic(what, &a.log());
    };
    std::fs::remove_dir_all(&cache).unwrap();
    read_all("cache deleted");
    let mut dice = Dice::new(9);
    let mut open = vec![cache.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                std::fs::write(&path, dice.bytes(5000)).unwrap();
            }
        }
    }
    read_all("cache overwritten");
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::write(&cache, b"not even a directory").unwrap();
    read_all("cache replaced by a file");
}

#[test]
fn a_damaged_keyring_is_a_clear_error() {
    let world = World::new();
    let (a, _) = furnished(&world);
    let keyring = database(&a).join("keyring");
    let pristine = std::fs::read(&keyring).unwrap();
    for at in 0..pristine.len() {
        let mut damaged = pristine.clone();
        damaged[at] ^= 1;
        std::fs::write(&keyring, &damaged).unwrap();
        let failed = a.kilofs(&["link", NAME, "--write"]);
        assert_no_panic(&format!("byte {at}"), &failed.err);
        assert!(matches!(failed.code, Some(1 | 2 | 5)), "byte {at}: {failed:?}");
        assert_eq!(failed.out, "", "byte {at}");
    }
}
