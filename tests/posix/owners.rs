//! Owners and modes as a mount shows them and as the tree stores them.

use super::stage::{BINARY, NAME, Stage, command, done, ran, said};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

fn touch_as(user: &str, path: &Path) {
    done(command("su").args(["-s", "/bin/sh", user, "-c"]).arg(format!("umask 077; : > {}", path.display())));
}

#[test]
fn all_is_shown_as_one_users_and_stored_as_it_was() {
    let stage = Stage::new("allow_other");
    std::fs::write(stage.path().join("file"), "x").unwrap();
    std::fs::create_dir(stage.path().join("dir")).unwrap();
    chown(stage.path().join("file"), Some(1234), Some(5678)).unwrap();
    std::fs::set_permissions(stage.path().join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    stage.umount();
    stage.mount("allow_other,uid=1,gid=1,umask=027");
    assert_eq!(owner(&stage.path().join("file")), (1, 1, 0o640));
    assert_eq!(owner(&stage.path().join("dir")), (1, 1, 0o750));
    touch_as("daemon", &stage.path().join("new"));
    assert_eq!(owner(&stage.path().join("new")), (1, 1, 0o640));
    // What is shown already is not stored: the file stays its owner's.
    chown(stage.path().join("file"), Some(1), Some(1)).unwrap();
    stage.umount();
    stage.mount("allow_other");
    assert_eq!(owner(&stage.path().join("file")), (1234, 5678, 0o640));
    assert_eq!(owner(&stage.path().join("new")), (1, 1, 0o600));
    stage.end();
}

#[test]
fn the_owner_of_the_folder_is_who_mounts_it() {
    let stage = Stage::new("allow_other");
    chown(stage.path(), Some(501), Some(502)).unwrap();
    std::fs::write(stage.path().join("theirs"), "x").unwrap();
    chown(stage.path().join("theirs"), Some(501), Some(502)).unwrap();
    stage.umount();
    stage.mount("allow_other,idmap=user");
    assert_eq!(owner(&stage.path()), (0, 0, 0o755));
    assert_eq!(owner(&stage.path().join("theirs")), (0, 0, 0o644));
    std::fs::write(stage.path().join("mine"), "x").unwrap();
    assert_eq!(owner(&stage.path().join("mine")), (0, 0, 0o644));
    stage.umount();
    stage.mount("allow_other");
    assert_eq!(owner(&stage.path().join("mine")), (501, 502, 0o644));
    stage.end();
}

#[test]
fn two_files_say_who_is_who() {
    let stage = Stage::new("allow_other");
    std::fs::write(stage.path().join("theirs"), "x").unwrap();
    chown(stage.path().join("theirs"), Some(501), Some(601)).unwrap();
    stage.umount();
    let (users, groups) = (stage.home().join("users"), stage.home().join("groups"));
    std::fs::write(&users, "# name here:id there\ndaemon:501\n").unwrap();
    std::fs::write(&groups, "daemon:601\n").unwrap();
    let tables = format!("idmap=file,uidfile={},gidfile={}", users.display(), groups.display());
    stage.mount(&format!("allow_other,{tables}"));
    assert_eq!(owner(&stage.path().join("theirs")), (1, 1, 0o644));
    std::fs::set_permissions(stage.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    touch_as("daemon", &stage.path().join("new"));
    chown(stage.path().join("new"), None, Some(7)).unwrap();
    stage.umount();
    stage.mount("allow_other");
    assert_eq!(owner(&stage.path().join("new")), (501, 7, 0o600));
    stage.end();
}

#[test]
fn a_wrong_word_is_named_before_anything_is_mounted() {
    let stage = Stage::unmounted();
    for (options, word) in [
        ("allow_other,kernel_cache", "`kernel_cache`"),
        ("reconnect", "`reconnect`"),
        ("uid=me", "`uid=me`"),
        ("suid", "`suid`"),
        ("idmap=file", "uidfile="),
        ("uidfile=/nowhere/at/all", "/nowhere/at/all"),
        ("acl,umask=022", "umask="),
    ] {
        let mut mount = command(BINARY);
        mount.arg("--home").arg(stage.home()).args(["mount", NAME]).arg(stage.path()).args(["-o", options]);
        let output = ran(&mut mount);
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(said(&output).contains(word), "{options}: {}", said(&output));
    }
    stage.mount("rw,relatime,nonempty,auto_unmount,default_permissions,fsname=other,subtype=x,_netdev,x-systemd.automount");
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(stage.path().to_str().unwrap())).unwrap();
    assert!(line.starts_with("other ") && line.contains(" fuse.kilofs "), "{line}");
    stage.end();
}
