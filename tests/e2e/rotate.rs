//! Members, and new keys: who is left out, who follows, what stays readable, and what an interruption leaves behind.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use serde_json::Value;
use std::io::ErrorKind;

fn id(device: &Device) -> String {
    device.status()["device"].as_str().unwrap().to_owned()
}

fn warned(device: &Device, what: &str) -> bool {
    let status = device.status();
    status["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains(what))
}

fn key(device: &Device) -> String {
    device.status()["key"].as_str().unwrap().to_owned()
}

#[track_caller]
fn awaits_read_only(device: &Device, path: &str) {
    // Asked first: what is written before the policy has come is an edit that is set aside.
    wait_until("nothing can be written here any more", || device.status()["blocks"][0]["writable"] == false);
    let refused = std::fs::write(device.path(path), b"x").expect_err("a write where nothing may be written");
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn only_members_write_once_they_are_listed() {
    let world = World::new();
    let a = world.creator("a");
    let (b, c) = (world.joined("b", &a, "write"), world.joined("c", &a, "write"));
    b.write("from-b", b"b");
    c.write("from-c", b"c");
    for device in [&a, &b, &c] {
        device.awaits("from-b", b"b");
        device.awaits("from-c", b"c");
    }
    await_agreement(&[&a, &b, &c]);
    let listed = a.json(&["member", NAME, "list"]);
    let made = |device: &Device| {
        let id = id(device);
        let known = listed.as_array().unwrap().iter().find(|member| member["device"] == *id);
        known.unwrap_or_else(|| panic!("{id} in {listed}")).clone()
    };
    for device in [&b, &c] {
        // When one of them wrote is known only where its own version came, and not merged into the other's.
        assert!(made(device)["wrote"] == true && made(device)["writes"] == true, "{listed}");
    }
    assert_eq!((&made(&a)["this"], &made(&a)["listed"]), (&Value::Bool(true), &Value::Bool(false)));

    // A prefix is enough for a device that is known.
    let demoted = a.json(&["member", NAME, "demote", &id(&c)[..12]]);
    assert_eq!(demoted["members"], 2);
    awaits_read_only(&c, "late");
    c.awaits("from-b", b"b");
    b.write("after", b"b goes on");
    for device in [&a, &c] {
        device.awaits("after", b"b goes on");
        device.awaits("from-c", b"c");
    }
    for device in [&a, &b, &c] {
        assert_eq!(device.status()["refused"].as_array().unwrap().len(), 0, "what was there before stays");
    }
    let unknown = a.kilofs(&["member", NAME, "demote", "0123456789"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let no_device = a.kilofs(&["member", NAME, "demote", "01234"]);
    assert_eq!(no_device.code, Some(2), "{no_device:?}");
    let own = a.kilofs(&["member", NAME, "demote", &id(&a)]);
    assert_eq!(own.code, Some(2), "{own:?}");
    let others = b.kilofs(&["member", NAME, "add", &id(&c)]);
    assert_eq!(others.code, Some(4), "{others:?}");

    a.json(&["member", NAME, "add", &id(&c)]);
    wait_until("c may write again", || c.status()["blocks"][0]["writable"] == true);
    c.write("again", b"c again");
    b.awaits("again", b"c again");
    let d = world.joined("d", &a, "write");
    d.awaits("again", b"c again");
    awaits_read_only(&d, "stranger");
    a.json(&["member", NAME, "open"]);
    wait_until("whoever has the link may write", || d.status()["blocks"][0]["writable"] == true);
    d.write("anybody", b"d");
    a.awaits("anybody", b"d");
    await_agreement(&[&a, &b, &c, &d]);
}

#[test]
fn edits_of_one_who_is_no_member_any_more_are_set_aside() {
    let world = World::new();
    let (a, b) = world.two_writers();
    b.umount();
    b.mount_with(&["--offline"]);
    b.write("text", b"edited offline");
    a.json(&["member", NAME, "demote", &id(&b)]);
    a.sync();
    b.umount();
    b.mount();
    b.awaits("text", b"by a");
    wait_until("b says what it set aside", || {
        let status = b.status();
        status["refused"].as_array().unwrap().iter().any(|refusal| refusal["kind"] == "local")
    });
    assert_eq!(std::fs::read(b.path(".kilofs/refused/0/text")).unwrap(), b"edited offline");
    a.awaits("text", b"by a");
}

/// A version is kept, and `large` comes out of it as it was when it was made.
#[track_caller]
fn gives_back_large(device: &Device, infohash: &Value) {
    // Numbers move when a version comes in between.
    for _ in 0..5 {
        let kept = device.json(&["versions", NAME]);
        let one = kept.as_array().unwrap().iter().find(|one| one["infohash"] == *infohash);
        let one = one.unwrap_or_else(|| panic!("{infohash} is not kept: {kept}"));
        let done = device.kilofs(&["restore", NAME, &one["version"].to_string(), "large", "--to", "old"]);
        if done.code == Some(0) {
            assert!(std::fs::read(device.path("old")).unwrap() == vec![9; 1 << 20], "{one}");
            std::fs::remove_file(device.path("old")).unwrap();
            return;
        }
    }
    panic!("nothing can be had from version {infohash}");
}

/// What one device wrote came to the admin merged into another one's version: the admin has never had a version of it.
#[test]
fn who_is_known_by_what_others_stand_on_is_given_the_new_keys() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"a");
    a.sync();
    let (b, c) = (world.joined("b", &a, "write"), world.joined("c", &a, "write"));
    for device in [&b, &c] {
        device.awaits("text", b"a");
    }
    await_agreement(&[&a, &b, &c]);
    a.umount();
    b.write("from-b", b"b");
    c.awaits("from-b", b"b");
    c.write("from-c", b"c");
    b.awaits("from-c", b"c");
    await_agreement(&[&b, &c]);
    b.umount();
    a.mount();
    a.awaits("from-c", b"c");
    await_agreement(&[&a, &c]);
    let done = a.json(&["rotate", NAME, "--keep-known"]);
    let kept: Vec<_> = done["kept"].as_array().unwrap().iter().map(|one| &one["device"]).collect();
    assert!(kept.contains(&&Value::from(id(&b))) && kept.len() == 3, "{done}");
    assert_eq!(done["left_out"], Value::Array(Vec::new()), "{done}");
    b.mount();
    b.write("after", b"b follows");
    a.awaits("after", b"b follows");
    await_agreement(&[&a, &b, &c]);
    assert_eq!(key(&a), key(&b));
}

/// The joint test: five devices and a mirror; one is away for all of it, one is removed.
#[test]
fn who_was_away_follows_and_who_was_removed_does_not() {
    let world = World::new();
    let a = world.creator("a");
    let [b, away, removed] = ["b", "away", "removed"].map(|label| world.joined(label, &a, "write"));
    let reader = world.joined("reader", &a, "read");
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    mirror.mirror();
    a.json(&["block", NAME, "add", "/fixed"]);
    a.write("fixed/rule", b"as the admin has it");
    a.write("large", &vec![9; 1 << 20]);
    for (device, name) in [(&b, "from-b"), (&away, "from-away"), (&removed, "from-removed")] {
        device.write(name, name.as_bytes());
    }
    let all = [&a, &b, &away, &removed, &reader];
    for device in all {
        for name in ["from-b", "from-away", "from-removed"] {
            device.awaits(name, name.as_bytes());
        }
        device.awaits("fixed/rule", b"as the admin has it");
    }
    a.json(&["policy", NAME, "set", "/fixed", "ro"]);
    a.sync();
    await_agreement(&all);
    let (old_key, link) = (key(&a), a.link("write"));
    let agreed = a.json(&["versions", NAME])[0]["infohash"].clone();
    let ids = [&away, &removed, &reader, &mirror].map(id);
    away.umount();
    away.mount_with(&["--offline"]);
    away.write("unpublished", b"written while away");
    away.umount();

    let keep = [format!("{}:read", ids[2]), format!("{}:mirror", ids[3])];
    let done = a.json(&["member", NAME, "remove", &ids[1], "--keep", &keep[0], "--keep", &keep[1]]);
    assert_eq!((&done["generation"], &done["told"]), (&Value::from(1), &Value::Bool(true)), "{done}");
    assert_eq!(done["kept"].as_array().unwrap().len(), 5, "{done}");
    wait_until("those who were given the keys have moved", || {
        [&a, &b, &reader, &mirror].iter().all(|device| key(device) != old_key)
    });
    // What was agreed upon before the keys changed stays readable.
    gives_back_large(&a, &agreed);
    b.write("secret", b"nobody else reads this");
    a.write("large", &vec![8; 1 << 20]);
    for device in [&a, &b, &reader] {
        device.awaits("secret", b"nobody else reads this");
        device.awaits("large", &vec![8; 1 << 20]);
        device.awaits("from-removed", b"from-removed");
    }
    wait_until("the mirror has the newest version", || {
        let status = mirror.status();
        status["versions"][0]["complete"] == true
            && status["versions"][0]["infohash"] == a.status()["versions"][0]["infohash"]
    });

    // The removed one keeps what it had, and says that there is more.
    wait_until("the removed one knows", || warned(&removed, "left out"));
    awaits_read_only(&removed, "late");
    removed.awaits("from-b", b"from-b");
    assert!(!removed.path("secret").exists());
    let sync = removed.kilofs(&["sync", NAME, "--timeout", "5"]);
    assert_eq!(sync.code, Some(4), "{sync:?}");
    assert!(sync.err.contains("left out"), "{sync:?}");
    assert_eq!(key(&removed), old_key);
    let joiner = world.device("joiner");
    joiner.join(&link);
    joiner.mount();
    wait_until("an old link leads to a clear word", || warned(&joiner, "left out"));
    assert!(!joiner.path("secret").exists());

    // The one that was away follows when it returns, and brings what it wrote.
    away.mount();
    away.awaits("secret", b"nobody else reads this");
    a.awaits("unpublished", b"written while away");
    away.awaits("large", &vec![8; 1 << 20]);
    assert_eq!(key(&away), key(&a));
    await_agreement(&[&a, &b, &away, &reader]);
    assert_eq!(std::fs::read(b.path("fixed/rule")).unwrap(), b"as the admin has it");
    assert_eq!(std::fs::write(b.path("fixed/rule"), b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    for device in [&a, &b, &away, &reader] {
        let status = device.status();
        assert!(status["conflicts"].as_array().unwrap().is_empty(), "{status}");
    }
    // Two records of one number are spoken of until the next one: whoever told the last of them is not waited for above.
    wait_until("there is nothing to be told", || {
        let quiet = |device: &&Device| device.status()["warnings"].as_array().unwrap().is_empty();
        [&a, &b, &away, &reader].iter().all(quiet)
    });
    assert!(!removed.path("unpublished").exists());

    // A new link gives all of it, what was written under the old keys too; and older versions are still readable.
    let late = world.joined("late", &b, "write");
    late.awaits("secret", b"nobody else reads this");
    late.awaits("from-removed", b"from-removed");
    late.awaits("fixed/rule", b"as the admin has it");
    awaits_read_only(&late, "from-late");
    a.json(&["member", NAME, "add", &id(&late)]);
    wait_until("the new one is a member", || late.status()["blocks"][0]["writable"] == true);
    late.write("from-late", b"late");
    a.awaits("from-late", b"late");
    a.ok(&["fsck", NAME]);
    late.ok(&["fsck", NAME]);
    mirror.end_mirror();
}

#[test]
fn an_interrupted_rotation_is_finished_at_the_next_start() {
    let world = World::new();
    let (a, b) = world.two_writers();
    let old_key = key(&a);
    a.umount();
    // No network: the keys change here and nobody hears of it yet.
    a.mount_with(&["--offline"]);
    let refused = a.kilofs(&["rotate", NAME]);
    assert_eq!(refused.code, Some(2), "with open membership it must be said who is kept: {refused:?}");
    assert_eq!(key(&a), old_key);
    let done = a.json(&["rotate", NAME, "--keep-known"]);
    assert_eq!((&done["generation"], &done["told"]), (&Value::from(1), &Value::Bool(false)), "{done}");
    assert_ne!(key(&a), old_key);
    a.write("after", b"under new keys");
    a.kill9();
    _ = rustix::mount::unmount(&a.mount, rustix::mount::UnmountFlags::DETACH);
    assert_eq!(key(&b), old_key);
    // The state inside the store is that of before the rotation: what was written to it last is lost with a crash.
    let moved = a.home.join(format!("databases/{NAME}/moved"));
    assert!(moved.exists());
    a.mount();
    a.awaits("text", b"by a");
    wait_until("b follows", || key(&b) != old_key);
    a.write("again", b"again");
    b.awaits("again", b"again");
    await_agreement(&[&a, &b]);
    a.ok(&["fsck", NAME]);

    // A second rotation goes on from the first.
    let done = a.json(&["rotate", NAME, "--keep-known"]);
    assert_eq!(done["generation"], 2);
    wait_until("b follows again", || key(&b) == key(&a));
    b.write("twice", b"twice moved");
    a.awaits("twice", b"twice moved");
    let late = world.joined("late", &a, "read");
    for (name, content) in [("text", &b"by a"[..]), ("from-b", b"b"), ("twice", b"twice moved")] {
        late.awaits(name, content);
    }
    // The policy goes on under new keys.
    a.json(&["block", NAME, "add", "/docs", "--mode", "ro"]);
    wait_until("the block has reached b", || {
        std::fs::write(b.path("docs/x"), b"x")
            .is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem)
    });
    await_agreement(&[&a, &b, &late]);
}

/// A recovery sheet is of the time before all rotations; the admin key on it opens what came since.
#[test]
fn a_recovery_sheet_leads_to_the_keys_of_today() {
    let world = World::new();
    let a = world.device("a");
    let sheet = world.place("sheet").join("recovery.txt");
    let bootstrap = world.bootstrap();
    let network = ["--bootstrap", &bootstrap, "--listen", "127.0.0.1:0", "--poll-interval", "0.5"];
    let create = ["create", NAME, "--no-passphrase", "--recovery", sheet.to_str().unwrap()];
    a.ok(&[&create[..], &network].concat());
    a.mount();
    a.write("before", b"before");
    a.sync();
    a.json(&["rotate", NAME, "--keep-known"]);
    a.write("after", b"after");
    a.sync();
    let c = world.device("c");
    let text = std::fs::read_to_string(&sheet).unwrap();
    c.join(text.lines().find(|line| line.starts_with("kilofs:recovery:")).unwrap());
    c.mount();
    // An engine has no admin key: it can only say that there is more.
    wait_until("it is known that the database moved", || warned(&c, "unmount it and mount it again"));
    c.umount();
    c.mount();
    c.awaits("after", b"after");
    c.awaits("before", b"before");
    assert_eq!((key(&c), &c.status()["capability"]), (key(&a), &Value::from("admin")));
    assert!(!warned(&c, "left out"));
    c.write("from-c", b"c");
    a.awaits("from-c", b"c");
    c.json(&["block", NAME, "add", "/docs"]);
    wait_until("a has the block", || a.path("docs").is_dir());
    await_agreement(&[&a, &c]);
}

/// Two devices with the admin key, which both have `before`.
fn two_admins(world: &World) -> (Device, Device) {
    let a = world.creator("a");
    a.write("before", b"before");
    a.sync();
    let b = world.joined("b", &a, "admin");
    b.awaits("before", b"before");
    await_agreement(&[&a, &b]);
    (a, b)
}

/// The second one hears of the first when it is back: what it wrote stays, and it says that there are two databases now.
#[test]
fn two_rotations_apart_are_told() {
    let world = World::new();
    let (a, b) = two_admins(&world);
    b.umount();
    b.mount_with(&["--offline"]);
    b.json(&["rotate", NAME, "--keep", &id(&a)]);
    b.write("from-b", b"b");
    a.json(&["rotate", NAME, "--keep", &id(&b)]);
    a.write("from-a", b"a");
    a.sync();
    b.umount();
    b.mount();
    wait_until("b says that there are two", || warned(&b, "there are two databases now"));
    assert_ne!(key(&a), key(&b));
    b.awaits("from-b", b"b");
    b.awaits("before", b"before");
    a.awaits("from-a", b"a");
}

/// The device was off while the other one moved the database, and is asked to move it without being mounted.
#[test]
fn a_rotation_looks_first_whether_there_was_one() {
    let world = World::new();
    let (a, b) = two_admins(&world);
    b.umount();
    a.json(&["rotate", NAME, "--keep", &id(&b)]);
    a.sync();
    let refused = b.kilofs(&["rotate", NAME, "--keep", &id(&a)]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    b.mount();
    wait_until("b follows", || key(&b) == key(&a));
    let done = b.json(&["rotate", NAME, "--keep", &id(&a)]);
    assert_eq!(done["generation"], 2, "{done}");
    wait_until("a follows", || key(&b) == key(&a));
    a.write("after", b"after");
    b.awaits("after", b"after");
    await_agreement(&[&a, &b]);
}
