//! Devices on one machine: each a home and a mountpoint of its own, on a private DHT. Everything that is started is
//! ended by its process id when the test ends, whichever way it ends.

use super::process::{Done, LOOK, PATIENCE, Service, run_within, wait_until};
use serde_json::Value;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::Instant;
use tempfile::TempDir;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kilofs");
/// What every device calls the database.
pub const NAME: &str = "shared";
const NODES: u16 = 8;

/// Consecutive UDP ports that are free now. They lie below those that the kernel gives to engines that take any (32768
/// and above), so none is taken before it is used; and nobody else who draws ports this way gets them for as long as
/// this process lives: it listens at the same ports of another address.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static RESERVED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    let spread = u16::try_from(std::process::id() % 12_000).unwrap();
    _ = NEXT.compare_exchange(0, 17_000 + spread, Ordering::SeqCst, Ordering::SeqCst);
    for _ in 0..500 {
        let first = NEXT.fetch_add(count, Ordering::SeqCst);
        let reserved: Vec<_> =
            (first..first + count).map(|port| TcpListener::bind(("127.0.0.2", port))).collect();
        let bound: Vec<_> = (first..first + count).map(|port| UdpSocket::bind(("127.0.0.1", port))).collect();
        if reserved.iter().all(Result::is_ok) && bound.iter().all(Result::is_ok) {
            RESERVED.lock().unwrap().extend(reserved.into_iter().flatten());
            return first;
        }
    }
    panic!("no {count} consecutive UDP ports are free");
}

/// A private DHT and a directory for devices.
pub struct World {
    directory: TempDir,
    first_port: u16,
    dht: Option<Service>,
}

impl World {
    /// A world with a running DHT.
    pub fn new() -> World {
        assert!(
            Path::new("/dev/fuse").exists(),
            "these tests mount: they need /dev/fuse (and the package fuse3)"
        );
        let mut world =
            World { directory: tempfile::tempdir().unwrap(), first_port: free_ports(NODES), dht: None };
        world.start_dht();
        world
    }

    /// A world whose DHT is of somebody else's making.
    pub fn on(make: impl FnOnce(u16) -> Service) -> World {
        let first_port = free_ports(NODES);
        World { directory: tempfile::tempdir().unwrap(), first_port, dht: Some(make(first_port)) }
    }

    /// Starts the DHT, empty, on the ports that it always has.
    pub fn start_dht(&mut self) {
        let mut command = Command::new(BINARY);
        command.args(["testnet", "--nodes", &NODES.to_string(), "--port", &self.first_port.to_string()]);
        self.dht = Some(Service::start(&mut command));
    }

    /// Ends the DHT and forgets what it held.
    pub fn stop_dht(&mut self) {
        self.dht = None;
    }

    /// What to give to `--bootstrap`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.first_port)
    }

    /// A directory of the world's.
    pub fn place(&self, label: &str) -> PathBuf {
        let place = self.directory.path().join(label);
        std::fs::create_dir_all(&place).unwrap();
        place
    }

    /// A device without a database.
    pub fn device(&self, label: &str) -> Device {
        let home = self.place(label).join("home");
        let mount = self.place(label).join("mount");
        std::fs::create_dir_all(&mount).unwrap();
        Device { home, mount, bootstrap: self.bootstrap(), pid: Mutex::new(None) }
    }

    /// A device that has created the database and mounted it.
    pub fn creator(&self, label: &str) -> Device {
        let device = self.device(label);
        device.create();
        device.mount();
        device
    }

    /// A device that has joined `other`'s database with a link of a kind and mounted it.
    pub fn joined(&self, label: &str, other: &Device, kind: &str) -> Device {
        let device = self.device(label);
        device.join(&other.link(kind));
        device.mount();
        device
    }

    /// Two devices that have both published: `text` by a, `from-b` by b, and both are there.
    pub fn two_writers(&self) -> (Device, Device) {
        let a = self.creator("a");
        a.write("text", b"by a");
        a.sync();
        let b = self.joined("b", &a, "write");
        b.awaits("text", b"by a");
        b.write("from-b", b"b");
        a.awaits("from-b", b"b");
        await_agreement(&[&a, &b]);
        (a, b)
    }
}

/// One device: a home, a mountpoint, perhaps an engine.
pub struct Device {
    pub home: PathBuf,
    pub mount: PathBuf,
    bootstrap: String,
    pid: Mutex<Option<u32>>,
}

impl Device {
    /// The command line of a command at this device.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("--home").arg(&self.home).args(arguments).env_remove("KILOFS_HOME");
        command
    }

    /// Runs a command of kilofs to its end.
    pub fn kilofs(&self, arguments: &[&str]) -> Done {
        run_within(&mut self.command(arguments), b"", PATIENCE * 2)
    }

    /// The output of a command that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.kilofs(arguments).expect(&format!("{arguments:?}"))
    }

    /// The JSON of a command that must succeed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.ok(&arguments)).unwrap()
    }

    fn network(&self) -> [&str; 6] {
        ["--bootstrap", &self.bootstrap, "--listen", "127.0.0.1:0", "--poll-interval", "0.5"]
    }

    /// Makes the database.
    #[track_caller]
    pub fn create(&self) {
        self.ok(&[&["create", NAME, "--no-passphrase"], &self.network()[..]].concat());
    }

    /// Takes the database from a link.
    #[track_caller]
    pub fn join(&self, link: &str) {
        self.join_as(NAME, link);
    }

    /// Takes a database from a link under a name.
    #[track_caller]
    pub fn join_as(&self, name: &str, link: &str) {
        let mut command = self.command(&[&["join", name, "--no-passphrase"], &self.network()[..]].concat());
        run_within(&mut command, link.as_bytes(), PATIENCE).expect("join");
    }

    /// A link of a kind: `write`, `read`, `mirror`, `admin`.
    #[track_caller]
    pub fn link(&self, kind: &str) -> String {
        self.ok(&["link", NAME, &format!("--{kind}")])
    }

    /// Mounts.
    #[track_caller]
    pub fn mount(&self) {
        self.mount_with(&[]);
    }

    /// Mounts with more flags.
    #[track_caller]
    pub fn mount_with(&self, flags: &[&str]) {
        let directory = self.mount.to_str().unwrap();
        let status = self.json(&[&["mount", NAME, directory], flags].concat());
        *self.pid.lock().unwrap() = Some(pid(&status));
    }

    /// Mirrors.
    #[track_caller]
    pub fn mirror(&self) {
        self.mirror_with(&[]);
    }

    /// Mirrors with more flags.
    #[track_caller]
    pub fn mirror_with(&self, flags: &[&str]) {
        let status = self.json(&[&["mirror", NAME], flags].concat());
        *self.pid.lock().unwrap() = Some(pid(&status));
    }

    /// Mirrors all databases of this device in one process; what that process says of itself.
    #[track_caller]
    pub fn mirror_all(&self, flags: &[&str]) -> Value {
        let mustered = self.json(&[&["mirror", "--all"], flags].concat());
        *self.pid.lock().unwrap() = Some(pid(&mustered));
        mustered
    }

    /// Whether the engine's process lives.
    pub fn lives(&self) -> bool {
        self.pid.lock().unwrap().is_some_and(is_ours)
    }

    /// Shares the directory that others mount on, as a plain folder.
    #[track_caller]
    pub fn share(&self, flags: &[&str]) {
        let directory = self.mount.to_str().unwrap();
        let status = self.json(&[&["share", NAME, directory], flags].concat());
        *self.pid.lock().unwrap() = Some(pid(&status));
    }

    /// Ends the share; all that was written before is in the database then.
    #[track_caller]
    pub fn unshare(&self) {
        self.ok(&["umount", self.mount.to_str().unwrap()]);
        self.ended();
    }

    /// Ends the mount as a person does; the engine must be gone when that returns.
    #[track_caller]
    pub fn umount(&self) {
        let arguments = ["umount", self.mount.to_str().unwrap()];
        let mut done = self.kilofs(&arguments);
        // Between fork and exec a program that another test starts holds what this process has open, in the mount too.
        wait_until("nobody uses the mount", || {
            let busy = done.err.contains(": in use;");
            if busy {
                done = self.kilofs(&arguments);
            }
            !busy
        });
        done.expect("umount");
        self.ended();
    }

    /// Ends the mirror.
    #[track_caller]
    pub fn end_mirror(&self) {
        self.ok(&["umount", NAME]);
        self.ended();
    }

    #[track_caller]
    fn ended(&self) {
        let pid = self.pid.lock().unwrap().take().unwrap();
        assert!(!is_ours(pid), "the engine (process {pid}) outlived its unmount");
    }

    /// The process id of the engine.
    pub fn pid(&self) -> u32 {
        self.pid.lock().unwrap().unwrap()
    }

    /// Kills the engine without warning. The mountpoint stays behind, dead.
    pub fn kill9(&self) {
        let pid = self.pid.lock().unwrap().take().unwrap();
        kill(pid);
        wait_until("a killed engine is gone", || !is_ours(pid));
    }

    /// The object of `status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(&["status", NAME])
    }

    /// Publishes and fetches.
    #[track_caller]
    pub fn sync(&self) {
        self.ok(&["sync", NAME, "--timeout", "60"]);
    }

    /// A path in the mount.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.mount.join(inside)
    }

    /// Writes a file in the mount.
    #[track_caller]
    pub fn write(&self, inside: &str, content: &[u8]) {
        std::fs::write(self.path(inside), content).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// Waits until a file in the mount holds exactly `content`.
    #[track_caller]
    pub fn awaits(&self, inside: &str, content: &[u8]) {
        let path = self.path(inside);
        wait_until(&format!("{} holds what was written", path.display()), || {
            std::fs::read(&path).is_ok_and(|found| found == content)
        });
    }

    /// The only log of this device.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join(format!("log/{NAME}.log"))).unwrap_or_default()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let pid = self.pid.get_mut().map_or(None, Option::take);
        if let Some(pid) = pid {
            kill(pid);
        }
        // Most are unmounted already; what fails here fails because there is nothing to do.
        _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH)
            .or_else(|_| fusermount(&self.mount).ok_or(rustix::io::Errno::PERM));
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let shown = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            _ = writeln!(std::io::stderr(), "--- {}\n{shown}", self.home.display());
        }
    }
}

fn fusermount(mount: &Path) -> Option<()> {
    let output = Command::new("fusermount3").args(["-u", "-z", "-q"]).arg(mount).output().ok()?;
    output.status.success().then_some(())
}

fn pid(status: &Value) -> u32 {
    u32::try_from(status["pid"].as_u64().expect("an engine has a process id")).unwrap()
}

/// Whether a process id belongs to a live process of the binary under test, which a rebuild may have replaced meanwhile.
fn is_ours(pid: u32) -> bool {
    // Only root sees the link of a process that has shut itself.
    let link = std::fs::read_link(format!("/proc/{pid}/exe"));
    let Some(program) = link.ok().or_else(|| first_word(pid)) else { return false };
    let program = program.to_string_lossy();
    let program = Path::new(program.strip_suffix(" (deleted)").unwrap_or(&program));
    Path::new(BINARY).canonicalize().is_ok_and(|binary| binary == program) || program == Path::new(BINARY)
}

fn first_word(pid: u32) -> Option<PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let word = line.split(|byte| *byte == 0).next()?;
    (!word.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(word)))
}

fn kill(pid: u32) {
    let Some(process) = rustix::process::Pid::from_raw(pid.cast_signed()) else { return };
    if is_ours(pid) {
        _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
}

/// Waits until devices hold the same content, all of it published.
#[track_caller]
pub fn await_agreement(devices: &[&Device]) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let statuses: Vec<Value> = devices.iter().map(|device| device.status()).collect();
        let root = statuses[0]["root"].as_str().unwrap_or_default();
        let agree = |status: &Value| status["root"] == *root && status["published"] == true;
        if !root.is_empty() && statuses.iter().all(agree) {
            return root.to_owned();
        }
        assert!(
            Instant::now() < end,
            "not so within {PATIENCE:?}: all devices hold the same content: {statuses:#?}"
        );
        sleep(LOOK);
    }
}

/// A small generator: the same bytes for the same seed on every machine (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}
