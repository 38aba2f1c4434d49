//! Private blocks: who opens them, what others see and do for them, and what happens when readers come and go.

use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::wait_until;
use std::io::ErrorKind;
use std::path::Path;

fn id(device: &Device) -> String {
    device.status()["device"].as_str().unwrap().to_owned()
}

/// Listing and looking up there gives EACCES, also to root.
fn is_closed(path: &Path) -> bool {
    let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    let listed = std::fs::read_dir(path).and_then(|mut entries| entries.next().transpose());
    listed.is_err_and(denied) && std::fs::read(path.join("x")).is_err_and(denied)
}

#[track_caller]
fn assert_closed(path: &Path) {
    assert!(is_closed(path), "{}", path.display());
}

#[track_caller]
fn await_closed(path: &Path) {
    wait_until(&format!("{} is closed", path.display()), || is_closed(path));
}

fn block_of(device: &Device, path: &str) -> serde_json::Value {
    let status = device.status();
    let blocks = status["blocks"].as_array().unwrap();
    blocks.iter().find(|block| block["path"] == path).cloned().unwrap_or_default()
}

/// Waits until a device knows that a block is private, and may write there: what is written before goes elsewhere.
#[track_caller]
fn await_own(device: &Device, path: &str) {
    wait_until(&format!("{path} is private"), || {
        let block = block_of(device, path);
        block["private"] == true && block["writable"] == true
    });
}

/// `a` is the admin, `b` owns /diary, `c` reads the database.
fn three(world: &World) -> [Device; 3] {
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let c = world.joined("c", &a, "write");
    a.write("plain", b"for everybody");
    b.awaits("plain", b"for everybody");
    c.awaits("plain", b"for everybody");
    [a, b, c]
}

#[test]
fn a_private_block_is_read_by_whom_it_is_for_and_carried_by_all() {
    let world = World::new();
    let [a, b, c] = three(&world);
    let d = world.joined("d", &a, "write");
    d.awaits("plain", b"for everybody");
    let made = a.json(&["block", NAME, "add", "/diary", "--private", "--owner", &id(&b), "--for", &id(&d)]);
    assert_eq!((&made["mode"], &made["private"]), (&"owner".into(), &true.into()));
    for other in [&a, &c] {
        await_closed(&other.path("diary"));
    }
    await_own(&b, "/diary");
    std::fs::create_dir_all(b.path("diary/2026/may")).unwrap();
    let long = Dice::new(1).bytes(3_000_000);
    b.write("diary/2026/may/first", b"nobody else's business");
    b.write("diary/long", &long);
    std::os::unix::fs::symlink("2026/may", b.path("diary/now")).unwrap();
    d.awaits("diary/2026/may/first", b"nobody else's business");
    d.awaits("diary/now/first", b"nobody else's business");
    d.awaits("diary/long", &long);
    let refused = std::fs::write(d.path("diary/2026/mine"), b"x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    await_agreement(&[&a, &b, &c, &d]);
    for other in [&a, &c] {
        assert_closed(&other.path("diary"));
        assert_closed(&other.path(".kilofs/versions/1/diary"));
        assert_eq!(
            std::fs::write(other.path("diary/x"), b"x").unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(other.path("diary")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0);
        let told = block_of(other, "/diary");
        assert_eq!((&told["readable"], &told["private"]), (&false.into(), &true.into()), "{told:?}");
        let shown = other.json(&["log", NAME]).to_string();
        for name in ["2026", "may", "first", "long", "now"] {
            assert!(!shown.contains(name), "{name}: {shown}");
        }
    }
    assert!(c.ok(&["block", NAME, "list"]).contains("private, for"));

    // Who cannot open it publishes all the same, and loses nothing of it.
    c.write("plain", b"changed by c");
    b.write("diary/2026/may/second", b"at the same time");
    for device in [&a, &b, &d] {
        device.awaits("plain", b"changed by c");
    }
    d.awaits("diary/2026/may/second", b"at the same time");
    await_agreement(&[&a, &b, &c, &d]);

    // A joiner gets it from the only one left, who cannot open it; and that one hands the owner's own work back to him.
    for gone in [&a, &b, &d] {
        gone.umount();
    }
    let e = world.joined("e", &c, "write");
    e.awaits("plain", b"changed by c");
    assert_closed(&e.path("diary"));
    std::fs::remove_file(b.home.join(format!("databases/{NAME}/store"))).ok();
    b.mount();
    b.awaits("diary/2026/may/second", b"at the same time");
    b.awaits("diary/long", &long);
    await_agreement(&[&b, &c, &e]);
    for device in [&b, &c, &e] {
        let checked = device.json(&["fsck", NAME]);
        assert_eq!(checked["findings"].as_array().unwrap().len(), 0, "{checked:?}");
        assert!(!device.log().contains("ERROR"), "{}", device.log());
    }
}

#[test]
fn what_a_private_block_holds_survives_kills_and_moves_within_it() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/diary", "--private"]);
    let long = Dice::new(2).bytes(500_000);
    a.write("diary/long", &long);
    std::fs::create_dir(a.path("diary/below")).unwrap();
    std::fs::rename(a.path("diary/long"), a.path("diary/below/moved")).unwrap();
    std::fs::hard_link(a.path("diary/below/moved"), a.path("diary/again")).unwrap();
    let file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(a.path("diary/sparse"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"far out", 1 << 30).unwrap();
    file.sync_all().unwrap();
    a.kill9();
    a.mount();
    a.awaits("diary/below/moved", &long);
    a.awaits("diary/again", &long);
    let mut end = [0; 7];
    let file = std::fs::File::open(a.path("diary/sparse")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, 1 << 30).unwrap();
    assert_eq!(&end, b"far out");
    let across = std::fs::rename(a.path("diary/again"), a.path("out")).unwrap_err();
    assert_eq!(across.kind(), ErrorKind::CrossesDevices);
    a.sync();
    a.write("diary/again", b"shorter");
    a.sync();
    let number = a.json(&["versions", NAME]).as_array().unwrap().len();
    assert!(number >= 2);
    a.json(&["restore", NAME, "2", "/diary/again", "--to", "/diary/restored"]);
    a.awaits("diary/restored", &long);
    let checked = a.json(&["fsck", NAME]);
    assert_eq!(checked["findings"].as_array().unwrap().len(), 0, "{checked:?}");
}

#[test]
fn readers_come_and_go() {
    let world = World::new();
    let [a, b, c] = three(&world);
    a.json(&["block", NAME, "add", "/team", "--private", "--owner", &id(&b)]);
    await_own(&b, "/team");
    b.write("team/before", b"before");
    await_agreement(&[&a, &b, &c]);
    assert_closed(&c.path("team"));
    a.json(&["block", NAME, "share", "/team", "--for", &id(&c)]);
    c.awaits("team/before", b"before");
    b.write("team/both", b"both");
    c.awaits("team/both", b"both");
    let refused = a.kilofs(&["block", NAME, "unshare", "/team", "--for", &id(&b)]);
    assert_eq!(refused.code, Some(1), "the owner cannot be shut out: {refused:?}");
    let told = a.json(&["block", NAME, "unshare", "/team", "--for", &id(&c)]);
    assert_eq!(told["new_key"], true);
    await_closed(&c.path("team"));
    await_agreement(&[&a, &b, &c]);
    b.write("team/after", b"after");
    b.awaits("team/before", b"before");
    await_agreement(&[&a, &b, &c]);
    assert_closed(&c.path("team"));
    // Who comes later reads what was written under all keys.
    a.json(&["block", NAME, "share", "/team", "--for", &id(&a)]);
    a.awaits("team/before", b"before");
    a.awaits("team/after", b"after");
    // Another owner goes on where the first one was.
    a.json(&["policy", NAME, "set", "/team", "owner", "--owner", &id(&c)]);
    c.awaits("team/after", b"after");
    wait_until("c may write", || std::fs::write(c.path("team/by-c"), b"by c").is_ok());
    a.awaits("team/by-c", b"by c");
    b.awaits("team/by-c", b"by c");
    let refused = std::fs::write(b.path("team/by-b"), b"x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    for device in [&a, &b, &c] {
        assert_eq!(device.status()["refused"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn what_cannot_be_private_is_refused() {
    let world = World::new();
    let a = world.creator("a");
    std::fs::create_dir(a.path("full")).unwrap();
    a.write("full/file", b"x");
    let refused = |arguments: &[&str]| {
        let done = a.kilofs(&[&["block", NAME], arguments].concat());
        assert!(done.code != Some(0), "{arguments:?}");
        done.err
    };
    assert!(refused(&["add", "/p", "--private", "--mode", "rw"]).contains("owner or ro"));
    assert!(refused(&["add", "/p", "--private", "--quota-bytes", "1G"]).contains("no quota"));
    assert!(refused(&["add", "/full", "--private"]).contains("make an empty one private"));
    assert!(refused(&["add", "/p", "--for", "self"]).contains("--private"));
    a.json(&["block", NAME, "add", "/p", "--private"]);
    assert!(refused(&["quota", "/p", "--bytes", "1G"]).contains("no quota"));
    assert!(refused(&["add", "/p/inside"]).contains("private"));
    assert!(refused(&["remove", "/p", "--keep"]).contains("private"));
    assert!(refused(&["share", "0", "--for", "self"]).contains("not private"));
    let done = a.kilofs(&["policy", NAME, "set", "/p", "rw"]);
    assert!(done.code != Some(0) && done.err.contains("owner or ro"), "{done:?}");
    a.write("p/x", b"x");
    assert!(refused(&["remove", "/p"]).contains("not empty"));
    std::fs::remove_file(a.path("p/x")).unwrap();
    a.json(&["block", NAME, "remove", "/p"]);
    wait_until("it is a plain directory", || std::fs::write(a.path("p/plain"), b"x").is_ok());
}

#[test]
fn who_is_removed_is_no_reader_any_more_and_the_others_go_on() {
    let world = World::new();
    let [a, b, c] = three(&world);
    let [of_b, of_c] = [id(&b), id(&c)];
    a.json(&["block", NAME, "add", "/team", "--private", "--owner", &of_b, "--for", &of_c, "--for", "self"]);
    await_own(&b, "/team");
    b.write("team/before", b"before");
    a.awaits("team/before", b"before");
    c.awaits("team/before", b"before");
    await_agreement(&[&a, &b, &c]);
    a.json(&["member", NAME, "remove", &of_c]);
    wait_until("c is no reader", || {
        let readers = block_of(&b, "/team")["readers"].clone();
        readers
            .as_array()
            .is_some_and(|readers| readers.len() == 2 && !readers.contains(&of_c.as_str().into()))
    });
    b.write("team/after", b"after");
    a.awaits("team/after", b"after");
    for device in [&a, &b] {
        device.awaits("team/before", b"before");
        assert_eq!(device.json(&["fsck", NAME])["findings"].as_array().unwrap().len(), 0);
    }
    assert!(!c.path("team/after").exists());
}
