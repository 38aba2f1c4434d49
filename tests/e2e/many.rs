//! As many blocks as a record has room for.

use super::harness::{NAME, World};
use super::process::{PATIENCE, run_within, wait_until};

/// The root is one of 2,168.
const BESIDE_THE_ROOT: usize = 2_167;

fn path(index: usize) -> String {
    format!("rooms/{:02}/{index:04}", index % 50)
}

#[test]
fn a_record_full_of_blocks_works_and_one_more_is_refused() {
    let world = World::new();
    let a = world.creator("a");
    let paths: Vec<String> = (0..BESIDE_THE_ROOT).map(path).collect();
    let mut add = a.command(&["block", NAME, "add", "--from", "-", "--json"]);
    let added = run_within(&mut add, paths.join("\n").as_bytes(), PATIENCE * 2).expect("2,167 blocks");
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added.as_array().unwrap().len(), BESIDE_THE_ROOT);
    let first = &added[0];
    assert_eq!(
        (&first["number"], &first["path"], &first["mode"]),
        (&1.into(), &"/rooms/00/0000".into(), &"rw".into())
    );
    let policy = a.json(&["policy", NAME, "show"]);
    assert_eq!(policy["counter"], 2, "one policy for all of them");

    let full = a.kilofs(&["block", NAME, "add", "/one-more"]);
    assert_eq!((full.code, full.out.as_str()), (Some(1), ""), "{full:?}");
    assert!(full.err.contains("at most 2168 blocks") && full.err.contains("room for 0 more"), "{full:?}");
    assert!(!a.path("one-more").exists(), "nothing is made of what is refused");

    a.write("rooms/17/0017/text", b"in one of many");
    a.json(&["policy", NAME, "set", "/rooms/17/0017", "ro"]);
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("rooms/17/0017/text", b"in one of many");
    let refused = std::fs::write(b.path("rooms/17/0017/new"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    b.write("rooms/16/2166/text", b"from b, in the last");
    a.awaits("rooms/16/2166/text", b"from b, in the last");

    let status = b.status();
    assert_eq!(status["blocks"].as_array().unwrap().len(), BESIDE_THE_ROOT + 1);
    let shown = b.ok(&["status", NAME]);
    assert!(shown.lines().count() < 60, "{shown}");
    assert!(shown.contains("2168: 1 ro, 2167 rw; 2167 writable here"), "{shown}");
    assert!(b.ok(&["status", NAME, "-v"]).contains("/rooms/16/2166"));

    // A number is free again, and used again.
    a.json(&["block", NAME, "remove", "/rooms/00/0000"]);
    assert_eq!(a.json(&["block", NAME, "add", "/one-more"])["number"], 1);
    a.sync();
    wait_until("the block hangs at b", || {
        let listed = b.json(&["block", NAME, "list"]);
        listed.as_array().unwrap().iter().any(|block| block["path"] == "/one-more")
    });
    b.umount();
    b.mount();
    b.awaits("rooms/16/2166/text", b"from b, in the last");
    a.umount();
    a.ok(&["fsck", NAME]);
}

#[test]
fn each_of_many_blocks_belongs_to_another_device() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"x");
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("text", b"x");
    let own = |device: &super::harness::Device| device.status()["device"].as_str().unwrap().to_owned();
    let (of_a, of_b) = (own(&a), own(&b));
    // The last but one is b's; the others are of devices that never were.
    let owner = |index: usize| match index {
        0 => of_a.clone(),
        2_165 => of_b.clone(),
        _ => format!("{index:064x}"),
    };
    let lines: Vec<String> =
        (0..BESIDE_THE_ROOT).map(|index| format!("{}\t{}", path(index), owner(index))).collect();
    let mut add = a.command(&["block", NAME, "add", "--mode", "owner", "--from", "-", "--json"]);
    let added = run_within(&mut add, lines.join("\n").as_bytes(), PATIENCE * 2).expect("2,167 blocks");
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added[2_165]["owner"], of_b.as_str());
    a.sync();
    let (mine, others) = (path(2_165), path(7));
    // Until then it is a directory as any other.
    wait_until("the blocks hang at b", || {
        b.status()["blocks"].as_array().unwrap().len() == BESIDE_THE_ROOT + 1
    });
    b.write(&format!("{mine}/text"), b"b's");
    a.awaits(&format!("{mine}/text"), b"b's");
    a.write(&format!("{}/text", path(0)), b"a's");
    b.awaits(&format!("{}/text", path(0)), b"a's");
    for (device, refused) in [(&a, mine.as_str()), (&a, &others), (&b, &others), (&b, &path(0))] {
        let done = std::fs::write(device.path(refused).join("new"), b"x");
        assert_eq!(done.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{refused}");
    }
    let shown = b.ok(&["status", NAME]);
    assert!(shown.lines().count() < 60, "{shown}");
    assert!(shown.contains("2168: 2167 owner, 1 rw; 2 writable here"), "{shown}");
    let c = world.joined("c", &a, "read");
    c.awaits(&format!("{mine}/text"), b"b's");
    for (lines, why) in [("x\tself\ny", "whose is it"), ("x\tnobody", "a device is named by the id")] {
        let mut add = a.command(&["block", NAME, "add", "--mode", "owner", "--from", "-"]);
        let refused = run_within(&mut add, lines.as_bytes(), PATIENCE);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains(why), "{refused:?}");
    }
}

#[test]
fn what_cannot_be_blocks_together_is_said_before_anything_is_made() {
    let world = World::new();
    let a = world.creator("a");
    for (paths, why) in [
        (&["x", "y", "/x/"][..], "named twice"),
        (&["x/y", "x"][..], "add /x first"),
        (&["x", "/"][..], "block 0 already"),
    ] {
        let refused = a.kilofs(&[&["block", NAME, "add"], paths].concat());
        assert_eq!(refused.code, Some(2), "{paths:?}: {refused:?}");
        assert!(refused.err.contains(why), "{refused:?}");
        assert!(!a.path("x").exists());
    }
    let several = a.json(&["block", NAME, "add", "x", "y", "--mode", "ro"]);
    assert_eq!(several[1]["number"], 2);
    let again = a.kilofs(&["block", NAME, "add", "z", "y"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("/y is block 2 already") && !a.path("z").exists(), "{again:?}");
    // The outer one first, then what lies in it.
    a.json(&["block", NAME, "add", "outer"]);
    assert_eq!(a.json(&["block", NAME, "add", "outer/inner"])["number"], 4);
    assert_eq!(a.kilofs(&["block", NAME, "add"]).code, Some(2));
}
