//! Names that a terminal would act on, and links that lead out of the mount.

use super::harness::{Device, NAME, World};
use std::os::unix::fs::symlink;

/// Clears the screen, sets its title, turns text around, begins a line.
const HOSTILE: [&str; 4] =
    ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "txt.\u{202e}exe", "two\nlines\u{9b}31m"];

#[track_caller]
fn assert_harmless(device: &Device, arguments: &[&str]) -> String {
    let done = device.kilofs(arguments);
    for text in [&done.out, &done.err] {
        let active = |character: &char| {
            character.is_control() && *character != '\n' || ('\u{202a}'..='\u{202e}').contains(character)
        };
        let found: Vec<char> = text.chars().filter(active).collect();
        assert!(found.is_empty(), "{arguments:?} prints {found:?}: {text}");
    }
    done.out
}

#[test]
fn what_is_printed_of_hostile_names_is_harmless() {
    let world = World::new();
    let a = world.creator("a");
    for name in HOSTILE {
        a.write(name, b"x");
        a.json(&["block", NAME, "add", &format!("block-{name}")]);
        a.write(&format!("block-{name}/inside"), b"x");
    }
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits(HOSTILE[0], b"x");
    // What two devices make of one name apart from each other is named by status.
    b.umount();
    b.mount_with(&["--offline"]);
    b.write(HOSTILE[0], b"what b made of it");
    a.write(HOSTILE[0], b"what a made of it");
    a.sync();
    b.umount();
    b.mount();
    super::process::wait_until("there is a conflict", || {
        b.status()["conflicts"].as_array().is_some_and(|conflicts| !conflicts.is_empty())
    });
    let inside = format!("block-{}/inside", HOSTILE[1]);
    let conflict = assert_harmless(&b, &["status", NAME]);
    assert!(conflict.contains("conflict") && conflict.contains("\\u{1b}[2J"), "{conflict}");
    for json in [&[][..], &["--json"]] {
        for arguments in [
            &["status", NAME, "-v"][..],
            &["status"],
            &["block", NAME, "list"],
            &["policy", NAME, "show"],
            &["versions", NAME],
            &["log", NAME, "--paths"],
            &["diff", NAME, "2"],
            &["restore", NAME, "1", &inside, "--to", &format!("{inside}-{}", HOSTILE[0])],
            &["block", NAME, "add", &format!("block-{}", HOSTILE[2])],
            &["block", NAME, "remove", HOSTILE[3]],
            &["umount", HOSTILE[0]],
        ] {
            assert_harmless(&b, &[arguments, json].concat());
        }
    }
    // The names are what they are, and JSON says them exactly.
    let listed = a.json(&["block", NAME, "list"]);
    let paths: Vec<&str> =
        listed.as_array().unwrap().iter().map(|block| block["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), 1 + HOSTILE.len(), "{paths:?}");
    for name in HOSTILE {
        assert!(b.path(name).exists() && b.path(&format!("block-{name}")).is_dir());
    }
}

#[test]
fn a_link_that_leads_out_is_a_link_and_no_more() {
    let world = World::new();
    let a = world.creator("a");
    let outside = world.place("outside");
    std::fs::write(outside.join("secret"), b"not of the database").unwrap();
    for (name, target) in [("absolute", outside.to_str().unwrap()), ("up", "../../outside"), ("self", "self")]
    {
        symlink(target, a.path(name)).unwrap();
    }
    a.sync();
    let b = world.joined("b", &a, "write");
    super::process::wait_until("the links are there", || b.path("self").is_symlink());
    assert_eq!(std::fs::read_link(b.path("absolute")).unwrap(), outside);
    assert!(std::fs::read(b.path("self")).is_err(), "the kernel says that it leads around");
    // Nothing of kilofs follows them: no block beyond one, nothing restored through one.
    for path in ["absolute/secret", "absolute/new", "up/new"] {
        let done = a.kilofs(&["block", NAME, "add", path]);
        assert_eq!(done.code, Some(1), "{path}: {done:?}");
    }
    b.write("text", b"x");
    b.sync();
    let restored = b.kilofs(&["restore", NAME, "1", "text", "--to", "absolute/text"]);
    assert_ne!(restored.code, Some(0), "{restored:?}");
    let restored = b.kilofs(&["restore", NAME, "1", "absolute", "--to", "copy"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert!(b.path("copy").is_symlink(), "a link is restored as one");
    let names: Vec<_> =
        std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"not of the database");
}
