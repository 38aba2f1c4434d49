//! Many databases kept by one process.

use super::harness::{Device, NAME, World};
use super::process::{PATIENCE, run_within, wait_until};
use super::prometheus;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// A writer with several versions, the last of which says who it is.
fn writer(world: &World, label: &str) -> Device {
    let writer = world.creator(label);
    for content in ["first", "second", label] {
        writer.write("text", content.as_bytes());
        writer.sync();
    }
    writer
}

fn status(device: &Device, name: &str) -> Value {
    device.json(&["status", name])
}

/// Waits until all versions of what a writer's record names are at a mirror.
fn await_kept(mirror: &Device, name: &str, writer: &Device) {
    wait_until(&format!("{name} is kept, all of it"), || {
        let (kept, made) = (status(mirror, name), writer.status());
        let complete = |version: &Value| version["complete"] == true;
        let versions = kept["versions"].as_array().unwrap();
        made["versions"].as_array().unwrap().len() >= 2
            && kept["versions"][0]["infohash"] == made["versions"][0]["infohash"]
            && versions.len() >= 2
            && versions.iter().all(complete)
    });
}

#[test]
fn three_databases_live_on_in_one_process() {
    let mut world = World::new();
    let writers = ["a", "b", "c"].map(|label| writer(&world, label));
    let mirror = world.device("mirror");
    for ((name, writer), kind) in NAMES.iter().zip(&writers).zip(["mirror", "mirror", "read"]) {
        mirror.join_as(name, &writer.link(kind));
    }
    let mustered = mirror.mirror_all(&[]);
    assert_eq!(mustered["mirrored"].as_array().unwrap().len(), 3, "{mustered}");
    assert_eq!(mustered["skipped"].as_array().unwrap().len(), 0, "{mustered}");
    for (name, writer) in NAMES.iter().zip(&writers) {
        await_kept(&mirror, name, writer);
        let status = status(&mirror, name);
        assert_eq!((&status["pid"], &status["shares_process"]), (&mustered["pid"], &Value::Bool(true)));
    }
    let links: Vec<_> = writers.iter().map(|writer| writer.link("read")).collect();
    for writer in &writers {
        writer.kill9();
    }
    world.stop_dht();
    world.start_dht();
    for (label, link) in ["a", "b", "c"].iter().zip(links) {
        let reader = world.device(&format!("reader of {label}"));
        reader.join(&link);
        reader.mount();
        reader.awaits("text", label.as_bytes());
    }
    for name in NAMES {
        let log = mirror.home.join(format!("log/{name}.log"));
        wait_until("the log of each tells that its record was put back", || {
            std::fs::read_to_string(&log).unwrap().contains("record put back")
        });
    }

    // One ends: its store is free, the others go on; with the last ends the process.
    mirror.ok(&["umount", "one"]);
    assert!(status(&mirror, "one")["pid"].is_null());
    mirror.ok(&["fsck", "one"]);
    assert_eq!(status(&mirror, "two")["pid"], mustered["pid"]);
    mirror.ok(&["umount", "two"]);
    assert!(mirror.lives());
    mirror.ok(&["umount", "three"]);
    wait_until("the process has ended with its last engine", || !mirror.lives());
}

#[test]
fn a_signal_ends_all_of_them() {
    let world = World::new();
    let a = writer(&world, "a");
    let mirror = world.device("mirror");
    mirror.join_as("one", &a.link("mirror"));
    mirror.join_as("two", &a.link("read"));
    mirror.mirror_all(&[]);
    for name in ["one", "two"] {
        await_kept(&mirror, name, &a);
    }
    let process = rustix::process::Pid::from_raw(mirror.pid().cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    wait_until("the process has ended", || !mirror.lives());
    for name in ["one", "two"] {
        assert!(status(&mirror, name)["pid"].is_null());
        assert!(status(&mirror, name)["versions"][0]["complete"] == true);
    }
}

#[test]
fn what_is_joined_later_is_taken_in() {
    let world = World::new();
    let (a, b) = (writer(&world, "a"), writer(&world, "b"));
    let mirror = world.device("mirror");
    mirror.join_as("one", &a.link("mirror"));
    let mustered = mirror.mirror_all(&[]);
    mirror.join_as("two", &b.link("mirror"));
    wait_until("the second is mirrored too", || status(&mirror, "two")["pid"] == mustered["pid"]);
    await_kept(&mirror, "two", &b);
    let again = mirror.kilofs(&["mirror", "--all"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    let mounted = mirror.kilofs(&["mount", "one", mirror.mount.to_str().unwrap()]);
    assert!(mounted.code == Some(1) && mounted.err.contains("umount one"), "{mounted:?}");
}

#[test]
fn one_that_does_not_open_is_named_and_left_out() {
    let world = World::new();
    let a = writer(&world, "a");
    let mirror = world.device("mirror");
    let passphrases = ["right", "wrong"].map(|text| {
        let file = world.place("passphrases").join(text);
        std::fs::write(&file, format!("{text}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let [right, wrong] = passphrases;
    let mut join =
        mirror.command(&["join", "locked", "--passphrase-file", &right, "--bootstrap", &world.bootstrap()]);
    run_within(&mut join, a.link("mirror").as_bytes(), PATIENCE).expect("join");
    for flags in [&["--passphrase-file", &wrong][..], &["--no-passphrase"]] {
        let refused = mirror.kilofs(&[&["mirror", "--all"], flags].concat());
        assert!(refused.code == Some(5) && refused.err.contains("locked: "), "{refused:?}");
    }
    mirror.join_as("open", &a.link("mirror"));
    let mustered = mirror.mirror_all(&["--passphrase-file", &wrong]);
    assert_eq!(mustered["mirrored"], serde_json::json!(["open"]));
    assert_eq!(mustered["skipped"][0]["name"], "locked", "{mustered}");
    assert!(mustered["skipped"][0]["failure"]["message"].as_str().unwrap().contains("passphrase"));
    await_kept(&mirror, "open", &a);
    mirror.ok(&["umount", "open"]);
    wait_until("the process has ended", || !mirror.lives());
    let mustered = mirror.mirror_all(&["--passphrase-file", &right]);
    assert_eq!(mustered["mirrored"], serde_json::json!(["locked", "open"]));
}

#[test]
fn one_that_fails_is_tried_again_while_the_others_go_on() {
    let world = World::new();
    let a = writer(&world, "a");
    let mirror = world.device("mirror");
    mirror.join_as("good", &a.link("mirror"));
    mirror.join_as("bad", &a.link("mirror"));
    let store = mirror.home.join("databases/bad/database");
    let aside = store.with_extension("aside");
    std::fs::rename(&store, &aside).unwrap();
    std::fs::write(&store, vec![7; 2 << 20]).unwrap();
    let mustered = mirror.mirror_all(&[]);
    assert_eq!(mustered["mirrored"], serde_json::json!(["good"]));
    assert_eq!(
        (&mustered["skipped"][0]["name"], &mustered["skipped"][0]["again"]),
        (&"bad".into(), &true.into())
    );
    await_kept(&mirror, "good", &a);
    let log = std::fs::read_to_string(mirror.home.join("log/mirror-all")).unwrap();
    assert!(log.contains("database=bad") && log.contains("tried again"), "{log}");
    std::fs::rename(&aside, &store).unwrap();
    wait_until("what failed is mirrored after all", || status(&mirror, "bad")["pid"] == mustered["pid"]);
    await_kept(&mirror, "bad", &a);
}

fn fetched_page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_are_told_by_command_and_over_http() {
    let world = World::new();
    let a = writer(&world, "a");
    let mirror = world.device("mirror");
    mirror.join_as("one", &a.link("mirror"));
    let mustered = mirror.mirror_all(&["--metrics", "127.0.0.1:0", "--quota", "1G"]);
    await_kept(&mirror, "one", &a);
    a.write("more", &vec![1; 300_000]);
    a.sync();
    await_kept(&mirror, "one", &a);
    mirror.ok(&["create", "idle", "--no-passphrase", "--offline"]);
    mirror.ok(&["umount", "one"]);
    wait_until("the process has ended", || !mirror.lives());

    let mustered_again = mirror.mirror_all(&["--metrics", "127.0.0.1:0", "--quota", "1G"]);
    assert_eq!(mustered_again["mirrored"].as_array().unwrap().len(), 2);
    mirror.ok(&["umount", "idle"]);
    await_kept(&mirror, "one", &a);
    wait_until("the DHT has confirmed the record", || {
        !status(&mirror, "one")["confirmed_seconds_ago"].is_null()
    });
    let address = mustered_again["metrics"].as_str().unwrap();
    let address = address.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let answer = fetched_page(address, "/metrics");
    let (head, served) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("version=0.0.4"), "{head}");
    assert!(fetched_page(address, "/other").starts_with("HTTP/1.1 404 "));
    assert_ne!(mustered["metrics"], Value::Null);

    let served = prometheus::parse(served);
    let printed = prometheus::parse(&mirror.ok(&["metrics"]));
    let names =
        |samples: &std::collections::BTreeMap<String, f64>| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&served), names(&printed));
    let status = status(&mirror, "one");
    for (key, expected) in [
        ("kilofs_up one", 1.0),
        ("kilofs_up idle", 0.0),
        ("kilofs_quota_bytes one", (1u64 << 30) as f64),
        ("kilofs_record_seq one", status["seq"].as_f64().unwrap()),
        ("kilofs_record_versions_complete one", status["versions"].as_array().unwrap().len() as f64),
        ("kilofs_newest_version_complete one", 1.0),
        ("kilofs_image_bytes one", status["image_bytes"].as_f64().unwrap()),
        ("kilofs_fetched_bytes_total one", status["fetched_bytes"].as_f64().unwrap()),
        ("kilofs_store_bytes one", status["store_bytes"].as_f64().unwrap()),
        ("kilofs_pending_bytes one", 0.0),
    ] {
        assert_eq!(printed[key], expected, "{key}: {printed:#?}");
    }
    for positive in ["fetched_bytes_total", "store_bytes", "free_bytes", "uptime_seconds", "image_bytes"] {
        assert!(printed[&format!("kilofs_{positive} one")] > 0.0, "{positive}");
    }
    assert_eq!(printed.keys().filter(|key| key.ends_with(" idle")).count(), 1, "only that it is down");
    let one = prometheus::parse(&mirror.ok(&["metrics", "one"]));
    assert!(one.keys().all(|key| key.ends_with(" one")));
    assert_eq!(mirror.kilofs(&["metrics", "nothing"]).code, Some(1));
    assert_eq!(mirror.kilofs(&["mirror", "one", "--metrics", "9"]).code, Some(2));
}

/// Whoever asks while an engine starts or ends is answered by it or from the store, and is not told that it is in use.
#[test]
fn who_asks_while_an_engine_starts_or_ends_is_answered() {
    let world = World::new();
    let a = world.creator("a");
    let (ended, end) = (AtomicBool::new(false), Instant::now() + PATIENCE);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) && Instant::now() < end {
                    assert_eq!(a.status()["name"], NAME);
                }
            });
        }
        for _ in 0..6 {
            a.umount();
            a.mount();
        }
        ended.store(true, Ordering::Relaxed);
    });
}
