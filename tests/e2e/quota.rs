//! What the store of a mirror may take.

use super::harness::{Device, Dice, NAME, World};
use super::process::wait_until;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// A device gives space back when it has been quiet for a while.
const CLEANING: Duration = Duration::from_secs(14);

/// Bytes on disk.
fn store_bytes(device: &Device) -> u64 {
    std::fs::metadata(device.home.join(format!("databases/{NAME}/database"))).unwrap().blocks() * 512
}

fn has_newest_of(mirror: &Device, writer: &Device) -> bool {
    let (kept, made) = (mirror.status(), writer.status());
    kept["versions"][0]["complete"] == true
        && kept["versions"][0]["infohash"] == made["versions"][0]["infohash"]
}

fn write_anew(writer: &Device, seed: u64, mib: u64) {
    writer.write("random", &Dice::new(seed).bytes((mib * MIB) as usize));
    writer.sync();
}

#[test]
fn older_versions_go_before_a_newer_one_is_left_out() {
    let world = World::new();
    let a = world.creator("a");
    write_anew(&a, 1, 4);
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    let quota = 24;
    mirror.mirror_with(&["--quota", &format!("{quota}M")]);
    let free = world.device("free");
    free.join(&a.link("mirror"));
    free.mirror();
    // On a busy machine one file may become several versions, which share most of it: then more have to be written.
    let mut seed = 1;
    while seed < 8 || store_bytes(&free) <= quota * MIB {
        seed += 1;
        assert!(seed < 100, "what is kept without a quota never takes more than it: {}", free.status());
        write_anew(&a, seed, 4);
        wait_until("the mirrors have the newest version", || {
            has_newest_of(&mirror, &a) && has_newest_of(&free, &a)
        });
        // While a version is taken over, what it replaces may take its room for a moment.
        wait_until("the store is within its quota", || {
            let status = mirror.status();
            has_newest_of(&mirror, &a)
                && status["store_bytes"].as_u64().unwrap() <= quota * MIB
                && store_bytes(&mirror) <= quota * MIB
        });
    }
    // Without a quota all are kept, and take more.
    let all = |device: &Device| {
        device.status()["versions"].as_array().unwrap().iter().all(|version| version["complete"] == true)
    };
    wait_until("without a quota everything is kept", || all(&free));
    wait_until("that takes more", || all(&free) && store_bytes(&free) > quota * MIB);
    assert!(!all(&mirror), "{}", mirror.status());
    mirror.end_mirror();
}

#[test]
fn a_version_that_does_not_fit_is_told_and_taken_when_it_does() {
    let mut world = World::new();
    let a = world.creator("a");
    write_anew(&a, 1, 4);
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    mirror.mirror_with(&["--quota", "24M"]);
    wait_until("the mirror has the first", || has_newest_of(&mirror, &a));
    let kept = mirror.status()["versions"][0]["infohash"].clone();
    a.write("large", &Dice::new(9).bytes((40 * MIB) as usize));
    a.sync();
    let told = |status: &serde_json::Value| {
        let warnings = status["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning.as_str().unwrap().contains("the quota of 24 MiB"))
    };
    wait_until("the mirror says that it does not fit", || told(&mirror.status()));
    assert!(mirror.log().contains("there is no room for it"), "{}", mirror.log());
    assert!(!has_newest_of(&mirror, &a));
    assert!(store_bytes(&mirror) <= 24 * MIB);
    let still = |status: &serde_json::Value| {
        let versions = status["versions"].as_array().unwrap();
        versions.iter().any(|version| version["infohash"] == kept && version["complete"] == true)
    };
    assert!(still(&mirror.status()), "what is here is kept: {}", mirror.status());

    // The record is put back all the same.
    let put_back = || mirror.status()["counters"]["reputs"].as_u64().unwrap();
    let before = put_back();
    a.kill9();
    world.stop_dht();
    world.start_dht();
    wait_until("the mirror puts the record back", || put_back() > before);
    a.mount();

    // It fits again: by what is deleted, once the writer has given the space back and published that.
    std::fs::remove_file(a.path("large")).unwrap();
    a.sync();
    let (mut nudged, mut nudges) = (Instant::now(), 0);
    wait_until("the mirror has the newest version again", || {
        if nudged.elapsed() > CLEANING {
            nudges += 1;
            a.write("nudge", format!("{nudges}").as_bytes());
            a.sync();
            nudged = Instant::now();
        }
        nudges > 0 && has_newest_of(&mirror, &a) && !told(&mirror.status())
    });
    assert!(store_bytes(&mirror) <= 24 * MIB);
    mirror.end_mirror();

    // Or by a quota that is raised; it was saved, and stays so.
    a.write("large", &Dice::new(10).bytes((40 * MIB) as usize));
    a.sync();
    mirror.mirror();
    wait_until("the saved quota holds", || told(&mirror.status()));
    mirror.end_mirror();
    mirror.mirror_with(&["--quota", "1G"]);
    wait_until("the mirror has all", || has_newest_of(&mirror, &a));
    let saved = std::fs::read_to_string(mirror.home.join(format!("databases/{NAME}/config.toml"))).unwrap();
    assert!(saved.contains(&format!("mirror-quota = {}", 1 << 30)), "{saved}");
    mirror.end_mirror();
}
