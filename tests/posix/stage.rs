//! A database mounted by the built binary, and a tmpfs to compare with.

use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kilofs");
/// What the database is called.
pub const NAME: &str = "disk";
/// After so many seconds a command counts as hung. Nothing here takes nearly as long.
const PATIENCE_SECONDS: &str = "300";

/// A mounted database without a network.
pub struct Stage {
    directory: TempDir,
}

impl Stage {
    /// Makes a database and mounts it.
    pub fn new(options: &str) -> Stage {
        let stage = Stage::unmounted();
        stage.mount(options);
        stage
    }

    /// Makes a database.
    pub fn unmounted() -> Stage {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount, change owners and users: they need root"
        );
        let stage = Stage { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(stage.path()).unwrap();
        // Ordinary users pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(stage.directory.path(), open).unwrap();
        stage.kilofs(&["create", NAME, "--no-passphrase", "--offline"]);
        stage
    }

    /// Mounts it.
    pub fn mount(&self, options: &str) {
        let path = self.path();
        let mut arguments = vec!["mount", NAME, path.to_str().unwrap()];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        self.kilofs(&arguments);
    }

    /// Unmounts it. The kernel may hold files of a program for a moment after its end, so that this asks more than once.
    #[track_caller]
    pub fn umount(&self) {
        const ATTEMPTS_MAX: usize = 100;
        let path = self.path();
        for _ in 0..ATTEMPTS_MAX {
            let output = ran(command(BINARY).arg("--home").arg(self.home()).arg("umount").arg(&path));
            if output.status.success() {
                return;
            }
            assert!(said(&output).contains("in use"), "{}", said(&output));
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("{} stays in use", path.display());
    }

    /// Unmounts it and looks at every byte of its store.
    pub fn end(self) {
        self.umount();
        self.kilofs(&["fsck", NAME]);
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Where the device keeps its files.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Runs a command of the binary, which must succeed; its output.
    #[track_caller]
    pub fn kilofs(&self, arguments: &[&str]) -> String {
        let mut command = command(BINARY);
        done(command.arg("--home").arg(self.home()).args(arguments))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Most are unmounted already. What is not ends with the engine, which a lazy unmount ends.
        _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
        if std::thread::panicking() {
            let log =
                std::fs::read_to_string(self.home().join(format!("log/{NAME}.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            _ = std::io::Write::write_all(&mut std::io::stderr(), tail.join("\n").as_bytes());
        }
    }
}

/// A tmpfs of its own.
pub struct Tmpfs(TempDir);

impl Tmpfs {
    /// Mounts one.
    pub fn new() -> Tmpfs {
        let directory = tempfile::tempdir().unwrap();
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        Tmpfs(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// A command that is ended when it hangs.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", PATIENCE_SECONDS]).arg(program);
    command.env_remove("KILOFS_HOME").stdin(std::process::Stdio::null());
    command
}

/// Runs a command that must succeed; its standard output.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    let output = ran(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end.
#[track_caller]
pub fn ran(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command said on both channels.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A tool that `scripts/test` installs.
pub fn tool(name: &str) -> PathBuf {
    let directory = std::env::var_os("KILOFS_TEST_TOOLS").map(PathBuf::from);
    let directory =
        directory.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin"));
    let tool = directory.join(name);
    assert!(tool.exists(), "{} is missing: scripts/test installs it", tool.display());
    tool
}

/// Runs a command where mount(8) finds our helper: in a namespace of mounts whose `/sbin` has it, beside all else.
pub fn with_mount_helper(stage: &Stage, inner: &[&OsStr]) -> Command {
    const SCRIPT: &str = r#"
        sbin=$(realpath /sbin)
        mount -t overlay overlay -o "lowerdir=$1:$sbin" "$sbin"
        shift
        exec "$@"
    "#;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mount.kilofs");
    let helpers = stage.directory.path().join("helpers");
    std::fs::create_dir_all(&helpers).unwrap();
    for name in ["mount.kilofs", "mount.fuse.kilofs"] {
        std::fs::copy(&source, helpers.join(name)).unwrap();
    }
    // mount(8) gives its helpers a path of its own.
    if !helpers.join("kilofs").exists() {
        std::os::unix::fs::symlink(BINARY, helpers.join("kilofs")).unwrap();
    }
    let mut wrapped = command("unshare");
    wrapped.args(["--mount", "sh", "-euc", SCRIPT, "sh"]).arg(helpers).args(inner);
    wrapped
}
