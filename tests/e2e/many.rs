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
    assert_eq!(added[0], serde_json::json!({ "number": 1, "path": "/rooms/00/0000", "mode": "rw" }));
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
