//! The whole way: a change made at one device is read at another.

use super::harness::{Dice, NAME, World, await_agreement};
use super::process::{run, wait_until};
use super::trees;
use kilofs::base::PieceLength;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_change_travels_to_a_writer_and_a_reader_and_back() {
    let world = World::new();
    let a = world.creator("a");
    a.write("hello", b"from a");
    let b = world.joined("b", &a, "write");
    let reader = world.joined("reader", &a, "read");
    b.awaits("hello", b"from a");
    reader.awaits("hello", b"from a");
    b.write("answer", b"from b");
    a.awaits("answer", b"from b");
    reader.awaits("answer", b"from b");
    let refused = std::fs::write(reader.path("mine"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    await_agreement(&[&a, &b, &reader]);
    for device in [&a, &b, &reader] {
        device.umount();
    }
}

#[test]
fn commands_without_a_network_say_so_and_succeed() {
    let world = World::new();
    let a = world.device("a");
    a.ok(&["create", NAME, "--no-passphrase", "--bootstrap", "127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    a.mount();
    a.write("alone", b"kept");
    let status = a.status();
    assert!(status["pending_bytes"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(status["published"], false);
    let synced = a.kilofs(&["sync", NAME, "--timeout", "2"]);
    assert_eq!(synced.code, Some(3), "{synced:?}");
    a.umount();
    a.mount();
    a.awaits("alone", b"kept");
}

#[test]
fn a_source_tree_arrives_whole() {
    let world = World::new();
    let source = world.place("source");
    trees::source_tree(&source);
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let copy = a.path("tree");
    run("cp", &["-a", source.to_str().unwrap(), copy.to_str().unwrap()], &world.place("work"));
    a.sync();
    await_agreement(&[&a, &b]);
    let arrived = b.path("tree");
    run("diff", &["-r", "--no-dereference", source.to_str().unwrap(), arrived.to_str().unwrap()], &source);
    trees::assert_equal(&source, &arrived);
    trees::assert_equal(&copy, &arrived);
}

#[test]
fn git_and_sqlite_work_inside() {
    let world = World::new();
    let origin = world.place("origin");
    run("git", &["init", "-q", "-b", "main"], &origin);
    trees::source_tree(&world.place("origin/src"));
    run("git", &["add", "-A"], &origin);
    run("git", &["commit", "-q", "-m", "first"], &origin);

    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    run("git", &["clone", "-q", origin.to_str().unwrap(), "clone"], &a.mount);
    let clone = a.path("clone");
    std::fs::write(clone.join("note"), "written in the mount").unwrap();
    run("git", &["add", "note"], &clone);
    run("git", &["commit", "-q", "-m", "second"], &clone);
    run("git", &["fsck", "--full", "--strict"], &clone);
    assert_eq!(run("git", &["status", "--porcelain"], &clone), "");

    let load = "PRAGMA journal_mode=WAL; CREATE TABLE t(i INTEGER PRIMARY KEY, v TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO t SELECT i, hex(randomblob(20)) FROM n; UPDATE t SET v = v || 'x' WHERE i % 7 = 0;
        DELETE FROM t WHERE i % 11 = 0; VACUUM;";
    run("sqlite3", &["load.db", load], &a.mount);
    assert_eq!(run("sqlite3", &["load.db", "PRAGMA integrity_check"], &a.mount).trim(), "ok");

    a.sync();
    await_agreement(&[&a, &b]);
    run("git", &["fsck", "--full", "--strict"], &b.path("clone"));
    assert_eq!(run("sqlite3", &["load.db", "PRAGMA integrity_check"], &b.mount).trim(), "ok");
}

#[test]
fn an_editors_save_is_seen_whole_or_not_at_all() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let text = |version: u8| vec![b'0' + version; 40_000];
    a.write("text", &text(0));
    b.awaits("text", &text(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let seen = std::fs::read(b.path("text")).expect("the file is always there");
                assert_eq!(seen.len(), text(0).len(), "half a save was seen");
                assert!(seen.iter().all(|byte| *byte == seen[0]), "a mixture of two saves was seen");
                assert!(seen[0] >= last, "an older save came back");
                last = seen[0];
            }
        });
        for version in 1..5 {
            let mut file = File::create(a.path("text.tmp")).unwrap();
            file.write_all(&text(version)).unwrap();
            file.sync_all().unwrap();
            std::fs::rename(a.path("text.tmp"), a.path("text")).unwrap();
            b.awaits("text", &text(version));
        }
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    assert!(!b.path("text.tmp").exists());
}

#[test]
fn a_small_change_in_a_large_file_costs_a_small_transfer() {
    const MIB: u64 = 1 << 20;
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let mut dice = Dice::new(3);
    let mut large = File::create(a.path("large")).unwrap();
    for _ in 0..256 {
        large.write_all(&dice.bytes(MIB as usize)).unwrap();
    }
    large.sync_all().unwrap();
    drop(large);
    a.sync();
    await_agreement(&[&a, &b]);

    let number = |status: &Value, pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap();
    let (before_a, before_b) = (a.status(), b.status());
    let large = OpenOptions::new().write(true).open(a.path("large")).unwrap();
    let change = dice.bytes(MIB as usize);
    large.write_all_at(&change, 100 * MIB + 12_345).unwrap();
    large.sync_all().unwrap();
    a.sync();
    await_agreement(&[&a, &b]);
    let (after_a, after_b) = (a.status(), b.status());

    let image = number(&after_b, "/image_bytes");
    let piece = PieceLength::for_image(image);
    let metainfo = 20 * u64::from(piece.count(image)) + 1024;
    let fetched = number(&after_b, "/fetched_bytes") - number(&before_b, "/fetched_bytes");
    assert!(fetched >= MIB, "{fetched} bytes cannot hold the change");
    assert!(
        fetched <= MIB + 6 * piece.bytes() + metainfo,
        "{fetched} bytes were fetched, pieces of {}",
        piece.bytes()
    );

    let grown = |pointer: &str| number(&after_a, pointer) - number(&before_a, pointer);
    let versions = grown("/counters/published").max(1);
    let pieces = MIB / piece.bytes() + 6 * versions;
    assert!(
        grown("/counters/pieces_hashed") <= pieces,
        "{} pieces were hashed",
        grown("/counters/pieces_hashed")
    );
    assert!(grown("/counters/bytes_hashed") <= pieces * piece.bytes());
    let found = std::fs::read(b.path("large")).unwrap();
    let at = (100 * MIB + 12_345) as usize;
    assert!(found[at..at + change.len()] == change[..]);
}

/// Two devices that cannot hear each other edit the same file and a file each; then they meet.
fn assert_merged(a: &super::harness::Device, b: &super::harness::Device) {
    await_agreement(&[a, b]);
    wait_until("both list the conflict", || {
        [a, b]
            .iter()
            .all(|device| device.status()["conflicts"].as_array().is_some_and(|list| list.len() == 1))
    });
    let names = |device: &super::harness::Device| {
        let mut names: Vec<String> = std::fs::read_dir(&device.mount)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b));
    let copies: Vec<String> = names(a).into_iter().filter(|name| name.contains(".conflict-")).collect();
    assert_eq!(copies.len(), 1, "{:?}", names(a));
    assert!(copies[0].starts_with("both.conflict-") && copies[0].ends_with(".txt"), "{copies:?}");
    for device in [a, b] {
        let mut texts = [
            std::fs::read(device.path("both.txt")).unwrap(),
            std::fs::read(device.path(&copies[0])).unwrap(),
        ];
        texts.sort();
        assert_eq!(texts, [b"a was here".to_vec(), b"b was here".to_vec()]);
        device.awaits("only-a", b"a");
        device.awaits("only-b", b"b");
        assert!(!device.path("gone").exists(), "what one deleted and nobody edited is gone");
        assert_eq!(device.status()["conflicts"][0]["path"].as_str().unwrap(), format!("/{}", copies[0]));
    }
}

fn edit_apart(a: &super::harness::Device, b: &super::harness::Device) {
    a.write("both.txt", b"a was here");
    a.write("only-a", b"a");
    b.write("both.txt", b"b was here");
    b.write("only-b", b"b");
    std::fs::remove_file(b.path("gone")).unwrap();
}

#[test]
fn two_who_were_offline_keep_both_edits() {
    let world = World::new();
    let a = world.creator("a");
    a.write("both.txt", b"before");
    a.write("gone", b"x");
    let b = world.joined("b", &a, "write");
    b.awaits("gone", b"x");
    b.awaits("both.txt", b"before");
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        device.umount();
        device.mount_with(&["--offline"]);
    }
    edit_apart(&a, &b);
    for device in [&a, &b] {
        device.umount();
        device.mount();
    }
    assert_merged(&a, &b);
}

#[test]
fn two_whose_dht_was_away_keep_both_edits() {
    let mut world = World::new();
    let a = world.creator("a");
    a.write("both.txt", b"before");
    a.write("gone", b"x");
    let b = world.joined("b", &a, "write");
    b.awaits("gone", b"x");
    b.awaits("both.txt", b"before");
    await_agreement(&[&a, &b]);
    world.stop_dht();
    edit_apart(&a, &b);
    world.start_dht();
    assert_merged(&a, &b);
}

#[test]
fn an_older_version_can_be_looked_at_and_brought_back() {
    let world = World::new();
    let a = world.creator("a");
    std::fs::create_dir(a.path("directory")).unwrap();
    a.write("directory/text", b"first");
    a.sync();
    a.write("directory/text", b"second");
    a.sync();
    let versions = a.json(&["versions", NAME]);
    let numbers: Vec<u64> =
        versions.as_array().unwrap().iter().map(|version| version["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers[..2], [1, 2], "{versions}");
    assert_eq!(std::fs::read(a.path(".kilofs/versions/1/directory/text")).unwrap(), b"second");
    assert_eq!(std::fs::read(a.path(".kilofs/versions/2/directory/text")).unwrap(), b"first");
    assert!(std::fs::write(a.path(".kilofs/versions/2/directory/text"), b"x").is_err());
    assert!(a.ok(&["diff", NAME, "2", "1"]).contains("/directory/text"));
    a.ok(&["restore", NAME, "2", "/directory/text", "--to", "/directory/older"]);
    assert_eq!(std::fs::read(a.path("directory/older")).unwrap(), b"first");
    a.ok(&["restore", NAME, "2", "directory/text"]);
    assert_eq!(std::fs::read(a.path("directory/text")).unwrap(), b"first");
    assert!(a.json(&["log", NAME]).as_array().unwrap().len() >= 2);
}
