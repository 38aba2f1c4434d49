//! What a person is told when something is not as usual: what it is, and what to do next.

use super::harness::{Device, Dice, NAME, World, await_agreement};
use super::process::{PATIENCE, run_within, wait_until};
use super::storm::SmallDisk;
use serde_json::Value;
use std::net::{TcpListener, UdpSocket};

fn warnings(device: &Device) -> String {
    device.status()["warnings"].to_string()
}

#[test]
fn who_waits_for_a_device_that_is_gone_is_told_so() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"first");
    a.sync();
    let reader = world.joined("reader", &a, "read");
    reader.awaits("text", b"first");
    assert_eq!(warnings(&reader), "[]");
    reader.umount();
    a.write("text", b"second");
    a.sync();
    let link = a.link("write");
    a.kill9();
    let not_in_step = |device: &Device| {
        let synced = device.kilofs(&["sync", NAME, "--timeout", "4"]);
        assert_eq!(synced.code, Some(3), "{synced:?}");
        assert!(synced.err.contains("it comes when one is online again"), "{synced:?}");
    };
    // One has nothing, the other has an older version; they do not meet.
    let joiner = world.device("joiner");
    joiner.join(&link);
    joiner.mount();
    wait_until("it is said", || warnings(&joiner).contains("nothing is here yet: no device that has it can"));
    assert!(joiner.ok(&["status", NAME]).contains("none wait to be published"));
    not_in_step(&joiner);
    let ended = joiner.kilofs(&["umount", joiner.mount.to_str().unwrap()]);
    assert!(ended.code == Some(0) && !ended.err.contains("not published"), "{ended:?}");
    reader.mount();
    wait_until("it is said", || {
        warnings(&reader).contains("the newest version is not here, an older one is")
    });
    not_in_step(&reader);
    a.mount();
    reader.awaits("text", b"second");
    joiner.mount();
    for device in [&reader, &joiner] {
        device.awaits("text", b"second");
        wait_until("there is nothing to say any more", || warnings(device) == "[]");
    }
}

#[test]
fn a_port_that_is_taken_and_a_directory_that_is_not_empty() {
    let world = World::new();
    let a = world.device("a");
    a.create();
    let taken = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = taken.0.local_addr().unwrap().to_string();
    std::fs::write(a.path("mine"), b"was here before").unwrap();
    let mount = a.mount.to_str().unwrap();
    let refused = a.kilofs(&["mount", NAME, mount, "--listen", &address]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused.err.contains("in use") && refused.err.contains("`--listen` names another"),
        "{refused:?}"
    );
    let mut command = a.command(&["mount", NAME, mount]);
    let mounted = run_within(&mut command, b"", PATIENCE);
    assert!(mounted.err.contains("is not empty: what is in it is hidden until the unmount"), "{mounted:?}");
    a.ok(&["umount", mount]);
    assert_eq!(std::fs::read(a.path("mine")).unwrap(), b"was here before");
}

#[test]
fn the_log_says_of_each_version_what_it_changed() {
    let world = World::new();
    let a = world.creator("a");
    // The first version holds nothing.
    a.sync();
    a.write("both", b"before");
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("both", b"before");
    await_agreement(&[&a, &b]);
    for (device, edit) in [(&a, "from a, longer"), (&b, "from b")] {
        device.umount();
        device.mount_with(&["--offline"]);
        device.write("both", edit.as_bytes());
    }
    b.write("only-b", b"from b");
    // Each publishes before it hears of the other.
    for device in [&a, &b] {
        device.umount();
    }
    b.mount();
    b.sync();
    a.mount();
    await_agreement(&[&a, &b]);
    let log = a.json(&["log", NAME]);
    let maker = |device: &Device| device.status()["device"].clone();
    let paths =
        |entry: &Value| -> Vec<String> { serde_json::from_value(entry["paths"].clone()).unwrap_or_default() };
    let plain = |by: &Value| -> Vec<Vec<String>> {
        let own = log.as_array().unwrap().iter().filter(|entry| entry["device"] == *by);
        own.filter(|entry| entry["parents"].as_array().is_some_and(|p| p.len() < 2)).map(paths).collect()
    };
    assert!(plain(&maker(&b)).contains(&vec!["/both".into(), "/only-b".into()]), "{log}");
    // Whatever was made later.
    assert_eq!(plain(&maker(&a)).last().map(Vec::len), Some(0), "{log}");
    // What to do about the conflict is said where it is shown.
    assert!(a.ok(&["status", NAME]).contains("keep what you want there, then delete the copy"));
    let copy = a.status()["conflicts"][0]["path"].as_str().unwrap().to_owned();
    std::fs::remove_file(a.path(copy.trim_start_matches('/'))).unwrap();
    for device in [&a, &b] {
        wait_until("a conflict ends with its copy", || {
            device.status()["conflicts"].as_array().unwrap().is_empty()
        });
    }
}

/// What programs are told that a mount has left, in bytes.
fn room(device: &Device) -> u64 {
    let space = rustix::fs::statvfs(&device.mount).unwrap();
    space.f_bavail * space.f_frsize
}

#[test]
fn a_full_disk_is_told_and_deleting_makes_room_on_it() {
    let world = World::new();
    let _disk = SmallDisk::at(world.place("a"), 64 << 20).expect("these tests are run as root");
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    a.write("stays", &Dice::new(3).bytes(4 << 20));
    await_agreement(&[&a, &b]);
    // Nobody syncs: programs believe what write and close say.
    let error = std::fs::write(a.path("large"), Dice::new(1).bytes(80 << 20)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    wait_until("it is said", || warnings(&a).contains("is full: what does not fit is refused"));
    // Now a version shows what fitted.
    await_agreement(&[&a, &b]);
    let large = std::fs::metadata(a.path("large")).unwrap().len();
    assert!(large > 16 << 20, "{large}");
    std::fs::remove_file(a.path("large")).unwrap();
    wait_until("there is room again", || room(&a) > large / 4 * 3);
    wait_until("it is said no more", || !warnings(&a).contains("is full"));
    assert!(a.log().contains("the disk is full: an older version is let go"));
    a.write("second", &Dice::new(2).bytes(12 << 20));
    await_agreement(&[&a, &b]);
    // It is on the disk.
    a.kill9();
    a.mount();
    for (name, seed, bytes) in [("stays", 3, 4 << 20), ("second", 2, 12 << 20)] {
        for device in [&a, &b] {
            device.awaits(name, &Dice::new(seed).bytes(bytes));
        }
    }
    assert_eq!(a.status()["conflicts"].as_array().unwrap().len(), 0);
    assert!(a.log().matches("changes are not durable").count() <= 1, "{}", a.log());
    a.umount();
    a.ok(&["fsck", NAME]);
}
