//! Blocks that belong to one device.

use super::harness::{Device, NAME, World, await_agreement};
use super::policy::{assert_read_only, writable_bits};
use super::process::wait_until;
use std::path::PathBuf;

fn device(device: &Device) -> String {
    device.status()["device"].as_str().unwrap().to_owned()
}

fn writable(device: &Device, block: usize) -> bool {
    device.status()["blocks"][block]["writable"].as_bool().unwrap()
}

/// What lies under `.kilofs/refused`, by the end of its path.
fn aside(device: &Device) -> Vec<PathBuf> {
    super::trees::entries(&device.path(".kilofs/refused")).into_keys().collect()
}

#[test]
fn a_block_belongs_to_one_device_and_then_to_another() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let c = world.joined("c", &a, "write");
    c.write("c-was-here", b"so that its device is known");
    a.awaits("c-was-here", b"so that its device is known");
    let added = a.json(&["block", NAME, "add", "/letters", "--mode", "owner", "--owner", &device(&b)]);
    assert_eq!((added["mode"].as_str(), added["owner"].as_str()), (Some("owner"), Some(&*device(&b))));
    a.sync();
    wait_until("b has the block", || b.status()["blocks"][1]["writable"] == true);
    b.write("letters/text", b"written by b");
    a.awaits("letters/text", b"written by b");
    c.awaits("letters/text", b"written by b");
    for other in [&a, &c] {
        assert!(!writable(other, 1));
        assert_read_only(other, "letters");
    }
    b.write("letters/text", b"changed by b");
    c.awaits("letters/text", b"changed by b");
    // What the admin has not heard of when it gives the block to another does not count.
    await_agreement(&[&a, &b, &c]);
    let listed = c.json(&["block", NAME, "list"]);
    assert_eq!(
        (listed[1]["mode"].as_str(), listed[1]["owner"].as_str()),
        (Some("owner"), Some(&*device(&b)))
    );
    let shown = a.ok(&["policy", NAME, "show"]);
    assert!(shown.contains(&format!("owner {}", &device(&b)[..12])), "{shown}");

    let unknown = a.kilofs(&["policy", NAME, "set", "/letters", "owner", "--owner", "00000000"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let unfit = a.kilofs(&["policy", NAME, "set", "/letters", "ro", "--owner", "self"]);
    assert_eq!(unfit.code, Some(2), "{unfit:?}");
    let set = a.json(&["policy", NAME, "set", "/letters", "owner", "--owner", &device(&c)[..8]]);
    assert_eq!(set["owner"].as_str(), Some(&*device(&c)));
    a.sync();
    wait_until("c has become the owner", || writable(&c, 1));
    wait_until("b is the owner no more", || !writable(&b, 1) && writable_bits(&b, "letters/text") == 0);
    assert_read_only(&b, "letters");
    await_agreement(&[&a, &b, &c]);

    // Nobody has signed anything since: what a joiner sees is what the charter fixed.
    let d = world.joined("d", &a, "read");
    d.awaits("letters/text", b"changed by b");
    c.write("letters/text", b"written by c");
    for other in [&a, &b, &d] {
        other.awaits("letters/text", b"written by c");
    }
    let e = world.joined("e", &a, "write");
    e.awaits("letters/text", b"written by c");
    assert_read_only(&e, "letters");
    for everybody in [&a, &b, &c, &d, &e] {
        assert_eq!(everybody.status()["refused"], serde_json::json!([]), "nobody did anything wrong");
    }
    await_agreement(&[&a, &b, &c, &e]);
    // Each starts again with what stands in its store.
    for restarted in [&a, &b, &c] {
        restarted.umount();
        restarted.ok(&["fsck", NAME]);
        restarted.mount();
        restarted.awaits("letters/text", b"written by c");
    }
    assert!(writable(&c, 1) && !writable(&b, 1));
    a.json(&["policy", NAME, "set", "/letters", "owner", "--owner", "self"]);
    a.write("letters/text", b"written by a");
    b.awaits("letters/text", b"written by a");
}

#[test]
fn an_owner_who_was_away_keeps_what_it_may_and_finds_the_rest_aside() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/kept"]);
    a.json(&["block", NAME, "add", "/taken"]);
    for block in ["kept", "taken"] {
        a.write(&format!("{block}/text"), b"agreed");
    }
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("taken/text", b"agreed");
    let owner = device(&b);
    a.json(&["policy", NAME, "set", "/taken", "owner", "--owner", &owner]);
    a.sync();
    wait_until("b owns the block", || {
        b.status()["blocks"][2]["mode"] == "owner" && b.status()["published"] == true
    });
    await_agreement(&[&a, &b]);
    b.umount();
    b.mount_with(&["--offline"]);
    b.write("kept/text", b"edited by b, away");
    b.write("taken/text", b"edited by b, away");
    b.write("taken/new", b"written by b, away");
    a.write("kept/other", b"written by a meanwhile");
    a.json(&["policy", NAME, "set", "/kept", "owner", "--owner", &owner]);
    a.json(&["policy", NAME, "set", "/taken", "owner", "--owner", "self"]);
    a.write("taken/text", b"edited by a");
    a.sync();
    b.umount();
    b.mount();
    b.awaits("taken/text", b"edited by a");
    b.awaits("kept/other", b"written by a meanwhile");
    b.awaits("kept/text", b"edited by b, away");
    a.awaits("kept/text", b"edited by b, away");
    assert!(!b.path("taken/new").exists() && !a.path("taken/new").exists());
    wait_until("b finds what it may not publish", || aside(&b).iter().any(|path| path.ends_with("new")));
    let refused = b.status()["refused"].clone();
    let local: Vec<_> = refused.as_array().unwrap().iter().filter(|one| one["kind"] == "local").collect();
    assert_eq!(local.len(), 1, "{refused}");
    assert_eq!(local[0]["path"], "/taken");
    await_agreement(&[&a, &b]);
    assert_read_only(&b, "taken");
    assert_read_only(&a, "kept");
}

#[test]
fn owner_and_admin_both_write_and_nothing_is_lost() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    a.json(&["block", NAME, "add", "/letters", "--mode", "owner", "--owner", &device(&b)]);
    a.sync();
    wait_until("b has the block", || b.status()["blocks"][1]["writable"] == true);
    b.write("letters/text", b"written by b");
    a.awaits("letters/text", b"written by b");
    await_agreement(&[&a, &b]);
    a.umount();
    a.mount_with(&["-o", "admin"]);
    a.write("letters/text", b"corrected by the admin");
    b.awaits("letters/text", b"corrected by the admin");
    b.write("letters/text", b"corrected by b");
    a.awaits("letters/text", b"corrected by b");
    await_agreement(&[&a, &b]);
    // Both apart, several times each: the counters say nothing of who knew what.
    b.umount();
    b.mount_with(&["--offline"]);
    for round in 0..3 {
        b.write(&format!("letters/b-{round}"), b"by b, away");
        for name in ["x", "y"] {
            a.write(&format!("letters/a-{round}-{name}"), b"by the admin");
            a.sync();
        }
    }
    b.umount();
    b.mount();
    for round in 0..3 {
        for device in [&a, &b] {
            device.awaits(&format!("letters/b-{round}"), b"by b, away");
            device.awaits(&format!("letters/a-{round}-x"), b"by the admin");
        }
    }
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(device.status()["refused"], serde_json::json!([]));
        assert!(aside(device).is_empty());
    }
}
