//! Blocks and policy: who may change what, at once and everywhere.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

pub fn writable_bits(device: &Device, inside: &str) -> u32 {
    std::fs::metadata(device.path(inside)).unwrap().permissions().mode() & 0o222
}

#[track_caller]
pub fn assert_read_only(device: &Device, directory: &str) {
    let inside = |name: &str| device.path(&format!("{directory}/{name}"));
    let refused = |what: &str, done: std::io::Result<()>| {
        assert_eq!(done.expect_err(what).kind(), ErrorKind::ReadOnlyFilesystem, "{what}");
    };
    refused("create", std::fs::write(inside("new"), b"x"));
    refused("overwrite", std::fs::write(inside("text"), b"x"));
    refused("append", std::fs::File::options().append(true).open(inside("text")).map(drop));
    refused("remove", std::fs::remove_file(inside("text")));
    refused("rename", std::fs::rename(inside("text"), inside("other")));
    refused("mkdir", std::fs::create_dir(inside("directory")));
    refused("chmod", std::fs::set_permissions(inside("text"), PermissionsExt::from_mode(0o777)));
    assert_eq!(writable_bits(device, &format!("{directory}/text")), 0);
    assert_eq!(writable_bits(device, directory), 0);
}

#[test]
fn a_read_only_block_is_read_only_until_the_admin_says_otherwise() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let added = a.json(&["block", NAME, "add", "/docs"]);
    assert_eq!(added["number"], 1);
    a.write("docs/text", b"written by a");
    a.sync();
    b.awaits("docs/text", b"written by a");
    b.write("docs/from-b", b"written by b");
    a.awaits("docs/from-b", b"written by b");

    a.json(&["policy", NAME, "set", "/docs", "ro"]);
    a.sync();
    wait_until("the new policy has reached b", || writable_bits(&b, "docs/text") == 0);
    assert_read_only(&b, "docs");
    assert_read_only(&a, "docs");
    b.awaits("docs/text", b"written by a");
    b.write("elsewhere", b"still writable");
    let blocks = b.json(&["block", NAME, "list"]);
    assert_eq!(blocks[1]["mode"], "ro");
    assert_eq!(blocks[1]["writable"], false);
    assert_eq!(blocks[0]["writable"], true);

    a.json(&["policy", NAME, "set", "1", "rw"]);
    a.sync();
    wait_until("the newest policy has reached b", || writable_bits(&b, "docs/text") != 0);
    b.write("docs/text", b"written by b");
    a.awaits("docs/text", b"written by b");
    await_agreement(&[&a, &b]);
    b.umount();
    a.umount();
}

#[test]
fn a_block_hangs_where_it_hangs() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "deep/er"]);
    assert!(a.path("deep/er").is_dir());
    assert_eq!(
        std::fs::rename(a.path("deep/er"), a.path("moved")).unwrap_err().kind(),
        ErrorKind::ResourceBusy
    );
    assert!(std::fs::remove_dir(a.path("deep/er")).is_err());
    a.write("outside", b"x");
    let across = std::fs::rename(a.path("outside"), a.path("deep/er/inside")).unwrap_err();
    assert_eq!(across.kind(), ErrorKind::CrossesDevices);
    let again = a.kilofs(&["block", NAME, "add", "/deep/er"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    a.write("deep/er/file", b"x");
    let full = a.kilofs(&["block", NAME, "remove", "1"]);
    assert_eq!(full.code, Some(1), "{full:?}");
    std::fs::remove_file(a.path("deep/er/file")).unwrap();
    a.json(&["block", NAME, "remove", "1"]);
    assert_eq!(a.json(&["block", NAME, "list"]).as_array().unwrap().len(), 1);
    let reused = a.json(&["block", NAME, "add", "/another", "--mode", "ro"]);
    assert_eq!(reused["number"], 1);
    assert_eq!(std::fs::write(a.path("another/x"), b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn only_the_admin_changes_the_policy() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    for arguments in
        [&["block", NAME, "add", "/x"][..], &["policy", NAME, "set", "0", "ro"], &["link", NAME, "--admin"]]
    {
        let refused = b.kilofs(arguments);
        assert_eq!(refused.code, Some(4), "{arguments:?}: {refused:?}");
        assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
        assert_eq!(refused.out, "");
    }
    for arguments in
        [&["policy", NAME, "set", "0", "owner"][..], &["block", NAME, "add", "/x", "--mode", "none"]]
    {
        assert_eq!(a.kilofs(arguments).code, Some(2), "{arguments:?}");
    }
    assert_eq!(a.kilofs(&["policy", NAME, "set", "7", "ro"]).code, Some(1));
}

#[test]
fn edits_that_a_newer_policy_forbids_are_set_aside() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs"]);
    a.write("docs/text", b"agreed");
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("docs/text", b"agreed");
    await_agreement(&[&a, &b]);
    b.umount();
    b.mount_with(&["--offline"]);
    b.write("docs/text", b"edited offline");
    b.write("docs/new", b"written offline");
    a.json(&["policy", NAME, "set", "/docs", "ro"]);
    a.sync();
    b.umount();
    b.mount();
    b.awaits("docs/text", b"agreed");
    wait_until("b says what it set aside", || {
        let status = b.status();
        let refused = status["refused"].as_array().unwrap();
        refused.iter().any(|refusal| refusal["kind"] == "local" && refusal["block"] == 1)
    });
    assert!(!b.path("docs/new").exists());
    let aside = b.path(".kilofs/refused");
    let found = super::trees::entries(&aside);
    let names: Vec<String> = found.keys().map(|path| path.display().to_string()).collect();
    assert!(names.iter().any(|name| name.ends_with("new")), "{names:?}");
    assert!(!a.path("docs/new").exists());
    a.awaits("docs/text", b"agreed");
}

#[test]
fn the_admin_can_write_where_nobody_else_can() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs", "--mode", "ro"]);
    let b = world.joined("b", &a, "write");
    a.umount();
    a.mount_with(&["-o", "admin"]);
    a.write("docs/text", b"from the admin");
    a.sync();
    b.awaits("docs/text", b"from the admin");
    assert_read_only(&b, "docs");
    let refused = b.kilofs(&["umount", b.mount.to_str().unwrap()]);
    assert_eq!(refused.code, Some(0), "{refused:?}");
    let refused = b.kilofs(&["mount", NAME, b.mount.to_str().unwrap(), "-o", "admin"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
}
