//! Limits of rate hold for all that a device sends together, whichever way it goes.

use super::harness::{Device, Dice, World};
use super::process::wait_until;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LIMIT: f64 = 2.0 * MIB as f64;

fn sent(device: &Device) -> f64 {
    device.status()["sent_bytes"].as_u64().unwrap() as f64
}

fn fetched(device: &Device) -> f64 {
    device.status()["fetched_bytes"].as_u64().unwrap() as f64
}

#[test]
fn a_limit_holds_for_neighbours_and_swarm_together() {
    let world = World::new();
    let a = world.device("a");
    a.create();
    a.mount_with(&["--limit-up", "2M"]);
    a.write("first", &Dice::new(1).bytes(12 * MIB));
    a.sync();
    let b = world.joined("b", &a, "read");
    b.awaits("first", &Dice::new(1).bytes(12 * MIB));
    b.umount();
    a.write("second", &Dice::new(2).bytes(14 * MIB));
    a.sync();
    // What one lacks comes from the swarm, what the other lacks from its neighbour.
    let c = world.device("c");
    c.join(&a.link("read"));
    c.mount();
    b.mount();
    wait_until("it has begun", || {
        [&b, &c].iter().all(|d| !d.status()["transfers"].as_array().unwrap().is_empty())
    });
    // What each may send at once, and until the two are seen to be at work together.
    std::thread::sleep(Duration::from_secs(1));
    let (before, begun) = (sent(&a), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let (bytes, took) = (sent(&a) - before, begun.elapsed().as_secs_f64());
    // A device that is busy with other things sends less.
    assert!(bytes <= LIMIT * took * 1.1, "{bytes} bytes in {took} s");
    b.awaits("second", &Dice::new(2).bytes(14 * MIB));
    c.awaits("second", &Dice::new(2).bytes(14 * MIB));
}

#[test]
fn a_limit_holds_for_what_is_fetched_while_there_are_news() {
    const NEWS: u64 = 4;
    let world = World::new();
    let a = world.creator("a");
    let b = world.device("b");
    b.join(&a.link("read"));
    b.mount_with(&["--limit-down", "2M"]);
    wait_until("they are neighbours", || b.status()["neighbours"] == 1);
    // Too much for news, too little to be asked of neighbours: the swarm brings it.
    a.write("large", &Dice::new(1).bytes(14 * MIB));
    wait_until("it has begun", || !b.status()["transfers"].as_array().unwrap().is_empty());
    // And meanwhile a neighbour has news. Whether both are at work at one moment is left to chance here: that each gets half
    // then is for the unit test of `daemon/balance.rs`.
    for seed in 0..NEWS {
        a.write(&format!("news{seed}"), &Dice::new(10 + seed).bytes(3 * MIB));
        std::thread::sleep(Duration::from_millis(300));
    }
    let (before, begun) = (fetched(&b), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let (bytes, took) = (fetched(&b) - before, begun.elapsed().as_secs_f64());
    assert!(bytes <= LIMIT * took * 1.1, "{bytes} bytes in {took} s");
    b.awaits("large", &Dice::new(1).bytes(14 * MIB));
    for seed in 0..NEWS {
        b.awaits(&format!("news{seed}"), &Dice::new(10 + seed).bytes(3 * MIB));
    }
}

#[test]
fn a_limit_that_could_not_be_kept_is_refused() {
    let world = World::new();
    let a = world.creator("a");
    a.umount();
    let mount = |flags: &[&str]| a.kilofs(&[&["mount", "shared", a.mount.to_str().unwrap()], flags].concat());
    for flag in ["--limit-up", "--limit-down"] {
        let refused = mount(&[flag, "10K"]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("32K is the least"), "{refused:?}");
    }
    std::fs::write(a.home.join("config.toml"), "limit-up = 10000\n").unwrap();
    let refused = mount(&[]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("32K is the least"), "{refused:?}");
    std::fs::write(a.home.join("config.toml"), "limit-up = \"32K\"\n").unwrap();
    a.mount();
}
