//! mount(8), fstab(5) and systemd.

use super::stage::{NAME, Stage, command, done, ran, said, with_mount_helper};
use std::ffi::OsStr;
use std::path::Path;

/// Mounts by an fstab of its own, as root and as another user, writes, remounts, unmounts: one line a result.
const SCRIPT: &str = r#"
    mount -T "$FSTAB" "$DIR"
    findmnt -no FSTYPE,SOURCE "$DIR"
    echo kept > "$DIR/file"
    mount -o remount,ro "$DIR"
    touch "$DIR/file" 2>&1 | grep -o 'Read-only file system'
    mount -o remount,rw "$DIR"
    touch "$DIR/file" && echo writable
    kilofs umount "$DIR" > /dev/null
    mount -t kilofs "$NAME" "$DIR" -o "home=$HOME_OF_IT,noexec,noatime,_netdev,x-systemd.automount"
    findmnt -no OPTIONS "$DIR" | grep -o noexec
    cat "$DIR/file"
    kilofs umount "$DIR" > /dev/null
    mount -t kilofs "$NAME" "$DIR" -o "home=$HOME_OF_IT,no_such_option" 2>&1 | grep -o '`no_such_option`'
    mount -t kilofs "$NAME" "$DIR" -o "home=$HOME_OF_IT,setuid=nobody-of-this-name" 2>&1 | grep -o 'no user'
"#;

#[test]
fn a_line_of_fstab_mounts() {
    let stage = Stage::unmounted();
    let fstab = stage.home().join("fstab");
    let (home, path) = (stage.home(), stage.path());
    let line =
        format!("{NAME} {} kilofs noauto,home={},allow_other,_netdev 0 0\n", path.display(), home.display());
    std::fs::write(&fstab, line).unwrap();
    let mut command = with_mount_helper(&stage, ["sh", "-euxc", SCRIPT].map(OsStr::new).as_slice());
    command.env("FSTAB", &fstab).env("DIR", &path).env("NAME", NAME).env("HOME_OF_IT", &home);
    let output = ran(&mut command);
    let lines = [
        "fuse.kilofs disk",
        "Read-only file system",
        "writable",
        "noexec",
        "kept",
        "`no_such_option`",
        "no user",
    ];
    assert_eq!(String::from_utf8_lossy(&output.stdout), lines.join("\n") + "\n", "{}", said(&output));
}

#[test]
fn a_user_mounts_by_fstab() {
    // As root with `setuid=`: the databases are those of the user, in whose name all is done.
    const SCRIPT: &str = r#"
        # Whoever may use the device at home may not where tests run.
        devices=$(mktemp -d); mount -t tmpfs tmpfs "$devices"
        mknod -m 666 "$devices/fuse" c 10 229; mount --bind "$devices/fuse" /dev/fuse
        mount -t kilofs "$NAME" "$DIR" -o "home=$HOME_OF_IT,setuid=daemon"
        su -s /bin/sh daemon -c "echo mine > $DIR/file; stat -c %U $DIR/file; kilofs umount $DIR > /dev/null"
    "#;
    let stage = Stage::unmounted();
    done(command("chown").args(["-R", "daemon:daemon"]).arg(stage.home()).arg(stage.path()));
    let mut command = with_mount_helper(&stage, ["sh", "-euxc", SCRIPT].map(OsStr::new).as_slice());
    command.env("DIR", stage.path()).env("NAME", NAME).env("HOME_OF_IT", stage.home());
    let output = ran(&mut command);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("daemon\n"),
        "{}",
        said(&output)
    );
}

#[test]
fn systemd_understands_the_units() {
    understood("kilofs@.service", "kilofs@notes.service", &["ExecStart=", "ExecStop="]);
    understood("kilofs-mirror.service", "kilofs-mirror.service", &["ExecStart="]);
}

fn understood(unit: &str, instance: &str, lines: &[&str]) {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(unit);
    // The program need not be installed where this runs: its place is taken by one that is.
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join(instance);
    let mut text = std::fs::read_to_string(unit).unwrap();
    for line in lines {
        let here = format!("{line}kilofs ");
        assert!(text.contains(&here), "{here}");
        text = text.replace(&here, &format!("{line}/bin/true "));
    }
    std::fs::write(&copy, text).unwrap();
    let output = ran(command("systemd-analyze").args(["verify", "--man=no"]).arg(&copy));
    assert!(output.status.success() && said(&output).trim().is_empty(), "{}", said(&output));
}
