//! POSIX access lists, beside a tmpfs: the same commands leave the same lists and modes.

use super::stage::{Stage, Tmpfs, command, done, ran};
use std::path::Path;

/// Each line is done in both places; what they show must be the same.
const SCRIPT: &str = r#"
    umask 022
    exec 2>&1
    touch file; mkdir dir
    setfacl -m u:nobody:rwx,g:daemon:r file
    getfacl -c file; stat -c %a file
    chmod 640 file; getfacl -c file; stat -c %a file
    chmod 4775 file; setfacl -m m::r file; stat -c %a file; getfacl -c file
    setfacl -d -m u:nobody:rwx,o::- dir
    getfacl -c dir; stat -c %a dir
    mkdir dir/below; touch dir/plain; (umask 077; touch dir/private; mkdir dir/hidden)
    mkfifo dir/pipe; ln -s plain dir/link
    for made in below plain private hidden pipe link; do stat -c "%n %a" dir/$made; getfacl -c dir/$made; done
    cp -a dir copy; for made in $(find copy ! -type l | sort); do getfacl $made; done
    getfattr -d -m - -R . | grep -v '^$' | sort
    setfacl -b file; getfacl -c file; stat -c %a file; getfattr -d -m - file
    setfacl -k dir; getfacl -c dir; mkdir dir/after; stat -c %a dir/after
    setfacl -d -m u:daemon:r file || echo refused
    su -s /bin/sh nobody -c 'echo x > copy/plain' && echo written
    su -s /bin/sh daemon -c 'cat copy/plain' || echo unreadable
    su -s /bin/sh daemon -c 'setfacl -m u:daemon:rw copy/plain' || echo unchanged
"#;

fn told(place: &Path) -> String {
    done(command("sh").arg("-c").arg(SCRIPT).current_dir(place))
}

#[test]
fn lists_are_kept_handed_down_and_obeyed() {
    let (stage, tmpfs) = (Stage::new("allow_other,acl"), Tmpfs::new());
    for place in [&stage.path(), tmpfs.path()] {
        std::fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    assert_eq!(told(&stage.path()), told(tmpfs.path()));
    stage.end();
}

#[test]
fn without_the_option_they_are_refused_and_chmod_still_closes() {
    let stage = Stage::new("allow_other,acl");
    let file = stage.path().join("file");
    std::fs::write(&file, "x").unwrap();
    done(command("setfacl").args(["-m", "u:daemon:rw"]).arg(&file));
    stage.umount();
    stage.mount("allow_other");
    let refused = ran(command("setfacl").args(["-m", "u:daemon:rw"]).arg(&file));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Operation not supported"), "{refused:?}");
    done(command("chmod").arg("600").arg(&file));
    stage.umount();
    stage.mount("allow_other,acl");
    let shown = done(command("getfacl").arg("-cE").arg(&file));
    assert!(shown.contains("user:daemon:rw-") && shown.contains("mask::---"), "{shown}");
    let read =
        ran(command("su").args(["-s", "/bin/sh", "daemon", "-c"]).arg(format!("cat {}", file.display())));
    assert!(!read.status.success());
    stage.end();
}
