//! Mounting and unmounting: options, what is in the way, crashes, ordinary users.

use super::world::{SOON, World, trees};
use kilofs::fuse::{MountError, MountOptions, Unmount, clear_stale, mount, unmount};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the test binary, started again by a test, where to mount.
const CHILD_DIR: &str = "KILOFS_TEST_MOUNT_DIR";
const NOBODY: u32 = 65534;

#[test]
fn a_directory_is_taken_once() {
    let Some(world) = World::new() else { return };
    let (tree, host) = trees();
    let again = mount(tree, host, &world.path(""), &MountOptions::new("again"));
    assert!(matches!(again, Err(MountError::AlreadyMounted(_))));
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(world.mounted().path().to_str().unwrap())).unwrap();
    for word in ["test ", " fuse.kilofs ", "nosuid", "nodev", "noatime", "default_permissions"] {
        assert!(line.contains(word), "{word} in {line}");
    }
}

#[test]
fn unmounting_from_outside_and_from_inside() {
    let Some(mut world) = World::new() else { return };
    let dir = world.path("");
    let held = fs::File::create(dir.join("file")).unwrap();
    assert!(matches!(unmount(&dir, Unmount::Gently), Err(MountError::Busy(_))));
    assert!(!world.mounted().has_ended());
    drop(held);
    unmount(&dir, Unmount::Gently).unwrap();
    assert_eq!(world.mounted().wait(Some(Instant::now() + SOON)), Some(Ok(())));
    assert!(matches!(unmount(&dir, Unmount::Gently), Err(MountError::NotMounted(_))));
    world.mounted().unmount(Unmount::Gently).unwrap();
    // Somebody else mounts there since; dropping the old mount leaves that alone.
    let (tree, host) = trees();
    let other = mount(tree, host, &dir, &MountOptions::new("other")).unwrap();
    drop(world.mounted.take());
    fs::write(dir.join("still"), "here").unwrap();
    other.unmount(Unmount::Gently).unwrap();
    assert_eq!(other.wait(Some(Instant::now() + SOON)), Some(Ok(())));
    assert!(!dir.join("still").exists());
}

#[test]
fn a_lazy_unmount_ends_with_the_last_user() {
    let Some(world) = World::new() else { return };
    let held = fs::File::create(world.path("file")).unwrap();
    world.mounted().unmount(Unmount::Lazily).unwrap();
    assert!(!world.path("file").exists());
    assert_eq!(world.mounted().wait(Some(Instant::now() + Duration::from_millis(50))), None);
    drop(held);
    assert_eq!(world.mounted().wait(Some(Instant::now() + SOON)), Some(Ok(())));
}

#[test]
fn read_only_and_noexec() {
    let Some(world) = World::with("ro,noexec") else { return };
    assert_eq!(fs::write(world.path("x"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    let flags = rustix::fs::statvfs(world.path("")).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY | rustix::fs::StatVfsMountFlags::NOEXEC));
}

#[test]
fn only_its_owner_may_use_it_unless_told_otherwise() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("file"), "x").unwrap();
    assert!(!world.as_nobody("cat \"$FILE\" > /dev/null", &world.path("file")));
    let Some(world) = World::with("allow_other") else { return };
    fs::write(world.path("file"), "x").unwrap();
    assert!(world.as_nobody("cat \"$FILE\" > /dev/null", &world.path("file")));
    assert!(!world.as_nobody("echo y > \"$FILE\"", &world.path("file")), "modes hold for others");
}

#[test]
fn a_dead_mount_is_cleared() {
    if World::new().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_child(dir.path(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(rustix::fs::statfs(dir.path()).err(), Some(rustix::io::Errno::NOTCONN));
    let (tree, host) = trees();
    let mounted = mount(tree, host, dir.path(), &MountOptions::new("new")).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    assert!(!clear_stale(dir.path()).unwrap(), "a live mount is left alone");
    drop(mounted);
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "one mount, no more below it");

    let mut child = start_child(dir.path(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(clear_stale(dir.path()).unwrap());
    assert!(fs::metadata(dir.path()).is_ok());
}

#[test]
fn an_ordinary_user_mounts_through_the_helper() {
    // Where users may mount, the device is open to them; the helper opens it in their name.
    let open_to_all = fs::metadata("/dev/fuse").is_ok_and(|device| device.mode() & 0o6 == 0o6);
    if World::new().is_none() || !open_to_all {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut child = start_child(dir.path(), Some(NOBODY));
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(dir.path().to_str().unwrap())).unwrap();
    assert!(
        line.starts_with("child ") && line.contains(" fuse.kilofs ") && line.contains("nosuid,nodev"),
        "{line}"
    );
    // The child ends by unmounting, which an ordinary user too does through the helper.
    drop(child.stdin.take());
    fs::remove_file(readable_copy()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::metadata(dir.path()).unwrap().uid(), NOBODY);
}

/// A process that mounts on `dir` and stays until its input ends, ready when this returns.
fn start_child(dir: &Path, user: Option<u32>) -> std::process::Child {
    let program = match user {
        None => std::env::current_exe().unwrap(),
        Some(_) => make_readable_copy(),
    };
    let mut command = Command::new(program);
    command.args(["--exact", "lifetime::child", "--nocapture"]).env(CHILD_DIR, dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while !fs::read_to_string("/proc/self/mounts").unwrap().contains(dir.to_str().unwrap()) {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < SOON, "the child did not mount");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// This program, where everybody may start it.
fn readable_copy() -> PathBuf {
    std::env::temp_dir().join(format!("kilofs-test-mount-{}", std::process::id()))
}

fn make_readable_copy() -> PathBuf {
    let path = readable_copy();
    fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Not a test: what [`start_child`] starts.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let (tree, host) = trees();
    let mounted = mount(tree, host, Path::new(&dir), &MountOptions::new("child")).unwrap();
    assert!(fs::metadata(&dir).unwrap().is_dir());
    std::io::read_to_string(std::io::stdin()).unwrap();
    mounted.unmount(Unmount::Gently).unwrap();
    assert_eq!(mounted.wait(Some(Instant::now() + SOON)), Some(Ok(())));
}
