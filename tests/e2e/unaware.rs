//! Work that was published by somebody who had not heard of a policy yet: it comes in where it may, and its maker finds
//! the rest, whoever has built on it meanwhile.

use super::aside::{blocks_aside, offline, online};
use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use std::fs;

/// a, the admin, is away; b and c are connected.
fn apart(world: &World, prepare: impl Fn(&Device)) -> [Device; 3] {
    let a = world.creator("a");
    prepare(&a);
    a.sync();
    let b = world.joined("b", &a, "write");
    let c = world.joined("c", &a, "write");
    await_agreement(&[&a, &b, &c]);
    offline(&a);
    [a, b, c]
}

fn fsck(devices: &[&Device]) {
    for device in devices {
        assert_eq!(device.json(&["fsck", NAME])["findings"], serde_json::json!([]));
    }
}

#[test]
fn a_third_device_builds_on_what_a_policy_forbids_and_its_maker_finds_it() {
    let world = World::new();
    let [a, b, c] = apart(&world, |a| {
        a.json(&["block", NAME, "add", "/docs"]);
        a.write("docs/text", b"agreed");
    });
    a.json(&["policy", NAME, "set", "/docs", "ro"]);
    b.write("docs/text", b"by b, who did not know");
    b.write("docs/new", b"made by b");
    b.write("free", b"by b, allowed");
    b.sync();
    for (path, content) in [("docs/text", &b"by b, who did not know"[..]), ("free", b"by b, allowed")] {
        c.awaits(path, content);
    }
    b.umount();
    // c stands on that now, and so does what it makes.
    c.write("beside", b"by c");
    c.sync();
    online(&a);
    a.awaits("beside", b"by c");
    a.awaits("free", b"by b, allowed");
    wait_until("c has heard of the policy", || c.status()["blocks"][1]["writable"] == false);
    c.write("beside", b"by c, later");
    a.awaits("beside", b"by c, later");
    await_agreement(&[&a, &c]);
    for device in [&a, &c] {
        assert_eq!(fs::read(device.path("docs/text")).unwrap(), b"agreed");
        assert!(!device.path("docs/new").exists());
    }
    b.mount();
    b.awaits("beside", b"by c, later");
    wait_until("b says what it set aside", || blocks_aside(&b) == [1]);
    assert_eq!(fs::read(b.path(".kilofs/refused/1/text")).unwrap(), b"by b, who did not know");
    assert_eq!(fs::read(b.path(".kilofs/refused/1/new")).unwrap(), b"made by b");
    b.awaits("docs/text", b"agreed");
    b.write("free", b"by b, again");
    a.awaits("free", b"by b, again");
    await_agreement(&[&a, &b, &c]);
    assert_eq!((blocks_aside(&a).len(), blocks_aside(&c).len()), (0, 0));
    fsck(&[&a, &b, &c]);
}

/// The state that a policy forbids bears the name of the one who merged last: the others find their work as well.
#[test]
fn all_who_built_on_each_other_in_a_block_find_what_a_policy_forbids() {
    let world = World::new();
    let [a, b, c] = apart(&world, |a| {
        a.json(&["block", NAME, "add", "/docs"]);
        a.write("docs/text", b"agreed");
    });
    a.json(&["policy", NAME, "set", "/docs", "ro"]);
    b.write("docs/by-b", b"by b, who did not know");
    c.awaits("docs/by-b", b"by b, who did not know");
    c.write("docs/by-c", b"by c, on top of it");
    b.awaits("docs/by-c", b"by c, on top of it");
    await_agreement(&[&b, &c]);
    online(&a);
    for device in [&b, &c] {
        wait_until("both say what they set aside", || blocks_aside(device) == [1]);
        let gone = || !device.path("docs/by-b").exists() && !device.path("docs/by-c").exists();
        wait_until("the block is as the admin left it", gone);
    }
    assert_eq!(fs::read(b.path(".kilofs/refused/1/by-b")).unwrap(), b"by b, who did not know");
    assert_eq!(fs::read(c.path(".kilofs/refused/1/by-c")).unwrap(), b"by c, on top of it");
    await_agreement(&[&a, &b, &c]);
    assert_eq!(blocks_aside(&a), [0; 0]);
    fsck(&[&a, &b, &c]);
}

/// What b and c write into a directory of which they do not know that it is a block now.
fn unaware_in_a_new_block(world: &World, mode: &str) -> [Device; 3] {
    let [a, b, c] = apart(world, |a| fs::create_dir(a.path("sub")).unwrap());
    a.json(&["block", NAME, "add", "/sub", "--mode", mode]);
    a.json(&["block", NAME, "add", "/fresh", "--mode", mode]);
    b.write("sub/from-b", b"made by b");
    fs::create_dir(b.path("fresh")).unwrap();
    b.write("fresh/from-b", b"where nothing was");
    b.write("outside", b"by b");
    b.sync();
    c.awaits("outside", b"by b");
    c.awaits("fresh/from-b", b"where nothing was");
    c.write("outside-c", b"by c");
    c.sync();
    online(&a);
    for device in [&a, &b, &c] {
        wait_until("the blocks are known", || device.status()["blocks"].as_array().unwrap().len() == 3);
        device.awaits("outside", b"by b");
        device.awaits("outside-c", b"by c");
    }
    await_agreement(&[&a, &b, &c]);
    [a, b, c]
}

#[test]
fn what_was_written_into_an_empty_directory_comes_into_its_block() {
    let world = World::new();
    let [a, b, c] = unaware_in_a_new_block(&world, "rw");
    for device in [&a, &b, &c] {
        device.awaits("sub/from-b", b"made by b");
        device.awaits("fresh/from-b", b"where nothing was");
        assert!(blocks_aside(device).is_empty());
    }
    b.write("sub/from-b", b"changed by b");
    a.awaits("sub/from-b", b"changed by b");
    await_agreement(&[&a, &b, &c]);
    fsck(&[&a, &b, &c]);
}

#[test]
fn what_was_written_into_an_empty_directory_is_set_aside_where_its_block_forbids_it() {
    let world = World::new();
    let [a, b, c] = unaware_in_a_new_block(&world, "ro");
    wait_until("b says what it set aside", || blocks_aside(&b) == [1, 2]);
    assert_eq!(fs::read(b.path(".kilofs/refused/1/from-b")).unwrap(), b"made by b");
    assert_eq!(fs::read(b.path(".kilofs/refused/2/from-b")).unwrap(), b"where nothing was");
    for device in [&a, &b, &c] {
        assert_eq!(fs::read_dir(device.path("sub")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(device.path("fresh")).unwrap().count(), 0);
    }
    fsck(&[&a, &b, &c]);
}

#[test]
fn what_was_written_into_a_block_comes_along_when_it_is_none_any_more() {
    let world = World::new();
    let [a, b, c] = apart(&world, |a| _ = a.json(&["block", NAME, "add", "/sub"]));
    a.json(&["block", NAME, "remove", "/sub"]);
    b.write("sub/from-b", b"made by b");
    b.write("outside", b"by b");
    b.sync();
    c.awaits("sub/from-b", b"made by b");
    c.awaits("outside", b"by b");
    b.umount();
    c.write("sub/from-c", b"made by c");
    c.sync();
    online(&a);
    b.mount();
    for device in [&a, &b, &c] {
        wait_until("the block is gone", || device.status()["blocks"].as_array().unwrap().len() == 1);
        device.awaits("outside", b"by b");
        device.awaits("sub/from-b", b"made by b");
        device.awaits("sub/from-c", b"made by c");
    }
    await_agreement(&[&a, &b, &c]);
    fsck(&[&a, &b, &c]);
}

/// What a policy fixed that loses against another admin's bears nobody's name, and may hold what a third one made.
#[test]
fn what_a_policy_fixed_that_lost_is_set_aside_at_who_made_it() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs"]);
    a.write("docs/text", b"agreed");
    a.sync();
    let b = world.joined("b", &a, "admin");
    let c = world.joined("c", &a, "write");
    await_agreement(&[&a, &b, &c]);
    offline(&b);
    c.write("docs/new", b"made by c");
    a.awaits("docs/new", b"made by c");
    a.json(&["policy", NAME, "set", "/docs", "ro"]);
    a.sync();
    wait_until("c has heard of the policy", || c.status()["blocks"][1]["writable"] == false);
    await_agreement(&[&a, &c]);
    c.umount();
    // Of two policies more than a's one, so that they hold.
    b.json(&["policy", NAME, "set", "/docs", "ro"]);
    b.json(&["block", NAME, "quota", "/docs", "--bytes", "1000000"]);
    b.write("from-b", b"b");
    online(&b);
    a.awaits("from-b", b"b");
    a.write("from-a", b"a");
    b.awaits("from-a", b"a");
    await_agreement(&[&a, &b]);
    c.mount();
    c.awaits("from-a", b"a");
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert!(!device.path("docs/new").exists());
        assert_eq!(fs::read(device.path("docs/text")).unwrap(), b"agreed");
    }
    assert_eq!(fs::read(c.path(".kilofs/refused/1/new")).unwrap(), b"made by c");
    c.write("free", b"by c, again");
    a.awaits("free", b"by c, again");
    await_agreement(&[&a, &b, &c]);
    fsck(&[&a, &b, &c]);
}
