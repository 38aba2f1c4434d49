//! What a mount has to bear: engines killed under load, a full disk, an engine that is stopped, a network that swallows
//! everything.

use super::harness::{BINARY, Device, Dice, NAME, World};
use super::process::{PATIENCE, run, run_within, wait_until};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

/// Kills in an ordinary run; `KILOFS_STORM_ROUNDS` asks for more.
const ROUNDS: u64 = 5;
const SMALL_DISK_BYTES: u64 = 64 << 20;

/// A program under load in a mount, ended with the mount.
struct Load(Child);

impl Load {
    fn start(command: &mut Command) -> Load {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Load(command.spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn git(arguments: &[&str], directory: &Path) -> Option<String> {
    let mut command = Command::new("git");
    // All that git says is done has to be on the disk.
    command.args(["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync", "-c", "gc.auto=0"]);
    command.args(["-c", "user.name=tester", "-c", "user.email=tester@example.org"]);
    // Not as the working directory: a dead mount has none.
    command.arg("-C").arg(directory).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let done = run_within(&mut command, b"", PATIENCE);
    (done.code == Some(0)).then_some(done.out)
}

fn sqlite(statement: &str, file: &Path) -> Option<String> {
    let mut command = Command::new("sqlite3");
    let done = run_within(command.arg(file).arg(statement), b"", PATIENCE);
    (done.code == Some(0)).then_some(done.out)
}

/// What programs were told to be safe.
#[derive(Default)]
struct Safe {
    rows: u64,
    commits: Vec<String>,
    files: Vec<u64>,
}

fn insert_rows(file: &Path, safe: &Mutex<Safe>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let next = safe.lock().unwrap().rows + 1;
        // A row that was under way when the engine was killed may be there already. With less than EXTRA the removal of
        // the journal, which commits the row, is not synced.
        let statement = format!(
            "PRAGMA synchronous=EXTRA; INSERT OR REPLACE INTO rows VALUES ({next}, hex(randomblob(500)));"
        );
        if sqlite(&statement, file).is_none() {
            return;
        }
        safe.lock().unwrap().rows = next;
    }
}

fn commit_files(repository: &Path, safe: &Mutex<Safe>, stop: &AtomicBool, mut dice: Dice) {
    while !stop.load(Ordering::Relaxed) {
        let name = format!("file-{}", dice.below(12));
        let count = dice.below(30_000) as usize;
        // What git was killed at is its own affair.
        _ = std::fs::remove_file(repository.join(".git/index.lock"));
        _ = std::fs::remove_file(repository.join(".git/HEAD.lock"));
        _ = std::fs::remove_file(repository.join(".git/refs/heads/main.lock"));
        if std::fs::write(repository.join(name), dice.bytes(count)).is_err()
            || git(&["add", "-A"], repository).is_none()
            || git(&["commit", "-q", "--allow-empty", "-m", "one more"], repository).is_none()
        {
            return;
        }
        let Some(head) = git(&["rev-parse", "HEAD"], repository) else { return };
        // Git syncs files and trusts that a journal orders what it renames after that; nobody promised that nothing comes
        // between the last rename and the next sync.
        if File::open(repository.join(".git/refs/heads")).and_then(|heads| heads.sync_all()).is_err() {
            return;
        }
        safe.lock().unwrap().commits.push(head.trim().to_owned());
    }
}

fn content(index: u64) -> Vec<u8> {
    let mut dice = Dice::new(index);
    let count = dice.below(60_000) as usize;
    dice.bytes(count)
}

fn sync_files(device: &Device, first: u64, safe: &Mutex<Safe>, stop: &AtomicBool) {
    for index in first.. {
        let path = device.path(&format!("synced-{index}"));
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&content(index))?;
            file.sync_all()
        });
        if written.is_err() || stop.load(Ordering::Relaxed) {
            return;
        }
        safe.lock().unwrap().files.push(index);
    }
}

#[test]
fn engines_killed_under_load_lose_nothing_that_was_acknowledged() {
    let asked = std::env::var("KILOFS_STORM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: u64 = asked.unwrap_or(ROUNDS);
    let world = World::new();
    let a = world.creator("a");
    let (repository, database) = (a.path("repository"), a.path("rows.db"));
    std::fs::create_dir(&repository).unwrap();
    run("git", &["init", "-q", "-b", "main"], &repository);
    sqlite("CREATE TABLE rows (id INTEGER PRIMARY KEY, text);", &database).unwrap();
    File::open(&a.mount).unwrap().sync_all().unwrap();
    let safe = Mutex::new(Safe::default());
    let mut dice = Dice::new(21);
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let heavy = a.path("heavy");
        scope(|scope| {
            let mut fio = Command::new("fio");
            fio.args(["--name=heavy", "--rw=randrw", "--size=8m", "--bs=4k", "--fsync=16", "--time_based"]);
            let _load = Load::start(fio.args(["--runtime=60", "--filename"]).arg(&heavy));
            scope.spawn(|| insert_rows(&database, &safe, &stop));
            let git_dice = Dice::new(dice.below(u64::MAX));
            scope.spawn(|| commit_files(&repository, &safe, &stop, git_dice));
            scope.spawn(|| sync_files(&a, round * 1_000_000, &safe, &stop));
            sleep(Duration::from_millis(1_000 + dice.below(2_000)));
            a.kill9();
            stop.store(true, Ordering::Relaxed);
        });
        a.mount();
        let safe = safe.lock().unwrap();
        assert_eq!(sqlite("PRAGMA integrity_check;", &database).as_deref(), Some("ok\n"), "round {round}");
        let rows = sqlite("SELECT count(*) FROM rows;", &database).unwrap();
        assert!(rows.trim().parse::<u64>().unwrap() >= safe.rows, "round {round}: {rows} of {}", safe.rows);
        if let Some(last) = safe.commits.last() {
            assert!(git(&["fsck", "--full", "--strict"], &repository).is_some(), "round {round}");
            let known = git(&["merge-base", "--is-ancestor", last, "HEAD"], &repository);
            assert!(known.is_some(), "round {round}: commit {last} is not below HEAD");
        }
        for index in &safe.files {
            let found = std::fs::read(a.path(&format!("synced-{index}")));
            assert!(found.is_ok_and(|found| found == content(*index)), "round {round}: synced-{index}");
        }
    }
    {
        let safe = safe.lock().unwrap();
        let told = (safe.rows, safe.commits.len(), safe.files.len());
        assert!(told.0 > 0 && told.1 > 0 && told.2 > 0, "too little was acknowledged: {told:?}");
    }
    a.umount();
    a.ok(&["fsck", NAME]);
}

/// A small filesystem, taken away when dropped.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this process may not mount.
    pub(super) fn at(directory: PathBuf, bytes: u64) -> Option<SmallDisk> {
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount("small", &directory, "tmpfs", MountFlags::empty(), options.as_c_str()).ok()?;
        Some(SmallDisk(directory))
    }

    fn grow(&self, bytes: u64) {
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), options.as_c_str()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[test]
fn a_full_disk_is_said_so_and_nothing_is_lost() {
    let world = World::new();
    let disk = SmallDisk::at(world.place("a"), SMALL_DISK_BYTES).expect("these tests are run as root");
    let a = world.creator("a");
    let bytes = |index: u64| Dice::new(index).bytes(1 << 20);
    let mut kept = Vec::new();
    let refused =
        (0..200).find_map(|index| match write_synced(&a.path(&format!("file-{index}")), &bytes(index)) {
            Ok(()) => {
                kept.push(index);
                None
            }
            Err(error) => Some(error),
        });
    let refused = refused.expect("so much does not fit");
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
    assert!(kept.len() > 10, "{} files only", kept.len());
    let all_there = |kept: &[u64], what: &str| {
        for index in kept {
            let found = std::fs::read(a.path(&format!("file-{index}"))).unwrap();
            assert!(found == bytes(*index), "{what}: file-{index}");
        }
    };
    all_there(&kept, "full");
    // Deleting works on a full disk. What kept versions show of it still takes room.
    let gone = kept.pop().unwrap();
    std::fs::remove_file(a.path(&format!("file-{gone}"))).unwrap();
    all_there(&kept, "after a deletion");
    disk.grow(4 * SMALL_DISK_BYTES);
    wait_until("there is room again", || write_synced(&a.path("file-900"), &bytes(900)).is_ok());
    kept.push(900);
    all_there(&kept, "with room again");
    a.kill9();
    a.mount();
    all_there(&kept, "after a kill");
    a.umount();
    a.ok(&["fsck", NAME]);
    drop(a);
    drop(disk);
}

#[test]
fn an_unmount_of_a_stopped_engine_ends_and_says_what_to_do() {
    let world = World::new();
    let a = world.creator("a");
    a.write("file", b"content");
    let process = rustix::process::Pid::from_raw(a.pid().cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    let mount = a.mount.to_str().unwrap();
    let ended = a.kilofs(&["umount", mount]);
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let told = ended.err.split("/sys/fs/fuse/connections/").nth(1).unwrap_or_default();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(mount)).unwrap();
    let minor = line.split(' ').nth(2).unwrap().rsplit(':').next().unwrap();
    assert!(told.starts_with(&format!("{minor}/abort")), "{ended:?}");
    // It was only asleep.
    assert_eq!(std::fs::read(a.path("file")).unwrap(), b"content");
    a.umount();
}

#[test]
fn a_network_that_swallows_everything_holds_nobody_up() {
    let world = World::new();
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bootstrap = hole.local_addr().unwrap().to_string();
    let (home, mount) = (world.place("a").join("home"), world.place("mount"));
    let kilofs = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("--home").arg(&home).args(arguments).env_remove("KILOFS_HOME");
        run_within(&mut command, b"", PATIENCE).expect(&format!("{arguments:?}"))
    };
    let network = ["--bootstrap", &bootstrap, "--listen", "127.0.0.1:0", "--poll-interval", "0.5"];
    kilofs(&[&["create", NAME, "--no-passphrase"], &network[..]].concat());
    kilofs(&["mount", NAME, mount.to_str().unwrap()]);
    write_synced(&mount.join("file"), b"content").unwrap();
    assert_eq!(std::fs::read(mount.join("file")).unwrap(), b"content");
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 1);
    rustix::fs::statvfs(&mount).unwrap();
    kilofs(&["umount", mount.to_str().unwrap()]);
    assert!(std::fs::read_dir(&mount).unwrap().next().is_none());
    kilofs(&["fsck", NAME]);
}
