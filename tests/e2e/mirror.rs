//! Those who keep a database alive for others.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;

fn assert_reads_everything(device: &Device) {
    device.awaits("directory/text", b"kept alive");
    device.awaits("large", &vec![7; 3 << 20]);
}

fn furnish(device: &Device) {
    std::fs::create_dir(device.path("directory")).unwrap();
    device.write("directory/text", b"kept alive");
    device.write("large", &vec![7; 3 << 20]);
    device.sync();
}

/// A mirror that has everything of a device that is gone.
fn left_alone(world: &World) -> (Device, Device) {
    let a = world.creator("a");
    furnish(&a);
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    mirror.mirror();
    wait_until("the mirror has the newest version", || {
        let status = mirror.status();
        status["versions"][0]["complete"] == true
            && status["versions"][0]["infohash"] == a.status()["versions"][0]["infohash"]
    });
    a.umount();
    (a, mirror)
}

#[test]
fn a_mirror_alone_serves_one_who_joins() {
    let world = World::new();
    let (a, mirror) = left_alone(&world);
    let reader = world.joined("reader", &a, "read");
    assert_reads_everything(&reader);
    assert_eq!(reader.status()["capability"], "read");
    assert_eq!(mirror.status()["capability"], "mirror");
    assert_eq!(mirror.status()["root"], serde_json::Value::Null);
    mirror.end_mirror();
}

#[test]
fn a_dht_that_forgot_everything_is_told_again() {
    let mut world = World::new();
    let (a, mirror) = left_alone(&world);
    let knows_policy = |device: &Device| device.log().contains("announced by its admin");
    wait_until("the mirror has seen the lifeline", || knows_policy(&mirror));
    let before = mirror.status()["counters"]["reputs"].as_u64().unwrap();
    world.stop_dht();
    world.start_dht();
    let reader = world.joined("reader", &a, "read");
    assert_reads_everything(&reader);
    // The admin's lifeline with the policy is there again too, though nobody who holds a key of it is.
    wait_until("the policy is announced", || knows_policy(&reader));
    // Whoever saw the loss first puts both back, and tells the other that it was done.
    wait_until("record and lifeline were put back", || {
        let reputs = |device: &Device| device.status()["counters"]["reputs"].as_u64().unwrap();
        reputs(&mirror) + reputs(&reader) >= before + 2
    });
    drop(mirror);
}

#[test]
fn a_mirror_opens_nothing() {
    let world = World::new();
    let (_a, mirror) = left_alone(&world);
    mirror.end_mirror();
    let mounted = mirror.kilofs(&["mount", NAME, mirror.mount.to_str().unwrap()]);
    assert_eq!(mounted.code, Some(4), "{mounted:?}");
    let link = mirror.kilofs(&["link", NAME, "--read"]);
    assert_eq!(link.code, Some(4), "{link:?}");
    mirror.ok(&["link", NAME, "--mirror"]);
}

#[test]
fn a_version_that_nobody_serves_is_passed_over() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"first");
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("text", b"first");
    await_agreement(&[&a, &b]);
    let first = b.status()["versions"][0]["infohash"].clone();
    b.umount();
    a.write("text", b"second");
    a.sync();
    assert_ne!(a.status()["versions"][0]["infohash"], first);
    let link = a.link("read");
    // The record names the second version; nobody who has it is left.
    a.kill9();
    b.mount();
    wait_until("the version that is served stands first again", || {
        b.status()["versions"][0]["infohash"] == first
    });
    b.awaits("text", b"first");
    let reader = world.device("reader");
    reader.join(&link);
    reader.mount();
    reader.awaits("text", b"first");
    // When the second version appears after all, nothing of it is lost.
    a.mount();
    b.awaits("text", b"second");
    reader.awaits("text", b"second");
}
