//! Two devices with the admin key, apart from each other: what either changed counts in the end, or somebody is told.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use serde_json::Value;

fn policy(device: &Device) -> Value {
    device.json(&["policy", NAME, "show"])
}

fn mode(device: &Device, path: &str) -> Option<String> {
    let policy = policy(device);
    let block = policy["blocks"].as_array().unwrap().iter().find(|block| block["path"] == path);
    block.map(|block| block["mode"].as_str().unwrap().to_owned())
}

fn warnings(device: &Device) -> String {
    device.status()["warnings"].to_string()
}

/// Two admin devices and one that only writes, in agreement.
fn admins(world: &World) -> (Device, Device, Device) {
    let a = world.creator("a");
    for directory in ["docs", "pictures"] {
        std::fs::create_dir(a.path(directory)).unwrap();
    }
    a.write("docs/text", b"text");
    a.write("pictures/one", b"one");
    a.sync();
    let (b, c) = (world.joined("b", &a, "admin"), world.joined("c", &a, "write"));
    for device in [&b, &c] {
        device.awaits("docs/text", b"text");
        device.awaits("pictures/one", b"one");
    }
    c.write("from-c", b"c");
    a.awaits("from-c", b"c");
    await_agreement(&[&a, &b, &c]);
    (a, b, c)
}

#[test]
fn what_an_admin_changed_while_another_one_did_is_made_again_by_itself() {
    let world = World::new();
    let (a, b, c) = admins(&world);
    for device in [&a, &b] {
        device.umount();
        device.mount_with(&["--offline"]);
    }
    // Two policies of one number each, with content that goes behind a new border.
    a.json(&["block", NAME, "add", "/docs", "--mode", "ro"]);
    b.json(&["block", NAME, "add", "/pictures", "--mode", "ro"]);
    assert_eq!(policy(&a)["counter"], policy(&b)["counter"]);
    a.write("from-a", b"a");
    b.write("from-b", b"b");
    for device in [&a, &b] {
        device.umount();
        device.mount_with(&["-o", "admin"]);
    }
    wait_until("both blocks are there, everywhere", || {
        [&a, &b, &c].iter().all(|device| {
            ["/docs", "/pictures"].iter().all(|path| mode(device, path).as_deref() == Some("ro"))
        })
    });
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        for (path, content) in
            [("docs/text", &b"text"[..]), ("pictures/one", b"one"), ("from-a", b"a"), ("from-b", b"b")]
        {
            device.awaits(path, content);
        }
        assert!(!warnings(device).contains("not in force"), "{}", warnings(device));
    }
}

#[test]
fn what_was_lost_to_another_admin_is_told_and_made_again_with_the_next_command() {
    let world = World::new();
    let (a, b, c) = admins(&world);
    let d = world.joined("d", &a, "write");
    d.awaits("from-c", b"c");
    d.write("from-d", b"d");
    for device in [&a, &b, &c] {
        device.awaits("from-d", b"d");
    }
    await_agreement(&[&a, &b, &c, &d]);
    let id = |device: &Device| device.status()["device"].as_str().unwrap().to_owned();
    for device in [&a, &b] {
        device.umount();
        device.mount_with(&["--offline"]);
    }
    // Each shuts another one out: both have to stay out.
    a.json(&["member", NAME, "demote", &id(&c)]);
    b.json(&["member", NAME, "demote", &id(&d)]);
    for device in [&a, &b] {
        device.umount();
        device.mount();
    }
    let lost = |device: &Device| warnings(device).contains("lost against policy");
    wait_until("one of the two is told that its policy lost", || lost(&a) || lost(&b));
    let loser = if lost(&a) { &a } else { &b };
    await_agreement(&[&a, &b]);
    assert!(warnings(loser).contains(" may not; "), "{}", warnings(loser));
    // Whatever it is, the next change takes it along.
    let done = loser.kilofs(&["policy", NAME, "set", "/", "rw"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.err.contains("made again"), "{done:?}");
    for device in [&c, &d] {
        wait_until("both are shut out", || device.status()["blocks"][0]["writable"] == false);
    }
    for device in [&a, &b] {
        wait_until("nobody has to be told any more", || !warnings(device).contains("policy"));
    }
    let members = policy(&a)["members"].clone();
    assert_eq!(members, policy(&b)["members"]);
    let listed: Vec<String> = serde_json::from_value(members).unwrap();
    assert!(listed.contains(&id(&a)) && listed.contains(&id(&b)), "{listed:?}");
    assert!(!listed.contains(&id(&c)) && !listed.contains(&id(&d)), "{listed:?}");
    a.write("last", b"last");
    for device in [&b, &c, &d] {
        device.awaits("last", b"last");
    }
}

#[test]
fn what_another_admin_undid_on_purpose_is_told_and_left_alone() {
    let world = World::new();
    let (a, b, _c) = admins(&world);
    a.json(&["block", NAME, "add", "/docs", "--mode", "ro"]);
    a.sync();
    wait_until("b has the block", || mode(&b, "/docs").as_deref() == Some("ro"));
    b.json(&["policy", NAME, "set", "/docs", "rw"]);
    wait_until("a has b's policy", || mode(&a, "/docs").as_deref() == Some("rw"));
    wait_until("a is told", || warnings(&a).contains("undid"));
    // Commands go on from what is in force.
    let done = a.kilofs(&["block", NAME, "add", "/other"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(mode(&a, "/docs").as_deref(), Some("rw"));
    assert!(warnings(&a).contains("undid"));
    let redone = a.json(&["policy", NAME, "redo"]);
    assert_eq!((redone.as_array().unwrap().len(), &redone[0]["hindered"]), (1, &Value::Null), "{redone}");
    wait_until("b has it", || mode(&b, "/docs").as_deref() == Some("ro"));
    assert!(!warnings(&a).contains("undid"));
    b.json(&["policy", NAME, "set", "/docs", "rw"]);
    wait_until("a is told again", || warnings(&a).contains("undid"));
    let forgotten = a.json(&["policy", NAME, "forget"]);
    assert_eq!(forgotten["forgotten"], 1);
    assert!(!warnings(&a).contains("undid"));
    assert_eq!(mode(&a, "/docs").as_deref(), Some("rw"));
}
