//! Limits of rate hold for all that a device sends together, whichever way it goes.

use super::harness::{Device, Dice, World};
use super::process::wait_until;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LIMIT: f64 = 2.0 * MIB as f64;

fn sent(device: &Device) -> f64 {
    device.status()["sent_bytes"].as_u64().unwrap() as f64
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
