//! A process that holds keys keeps them in memory and to itself.

use super::harness::{BINARY, World};
use super::process::Service;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Somebody who is not root.
const NOBODY: u32 = 65_534;

fn field(pid: u32, file: &str, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn an_engine_locks_its_keys_and_leaves_no_core() {
    let world = World::new();
    let a = world.creator("a");
    a.write("x", b"x");
    let pid = a.pid();
    let cores = field(pid, "limits", "Max core file size");
    assert_eq!(cores[..2], ["0", "0"], "soft and hard");
    let locked: u64 = field(pid, "status", "VmLck:")[0].parse().unwrap();
    let allowed = field(pid, "limits", "Max locked memory")[1].clone();
    // At most a page or two for a key: even the smallest limit that systems have is enough for one database.
    let none_allowed = allowed == "0" && !rustix::process::geteuid().is_root();
    assert!(none_allowed || locked >= 8, "{locked} KiB of {allowed} bytes");
    assert!(!a.log().contains("core dumps cannot") && !a.log().contains("may look into"), "{}", a.log());
}

/// The system gives what is in /proc of a process that is not dumpable to root: nobody else can read its memory there, attach
/// a debugger to it, or make it dump.
#[test]
fn the_memory_of_a_process_is_closed_to_others_of_its_user() {
    let world = World::new();
    let place = world.place("program");
    for directory in place.ancestors().take(2) {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = place.join("kilofs");
    std::fs::copy(BINARY, &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = super::harness::free_ports(1).to_string();
    let mut command = Command::new(&program);
    command.args(["testnet", "--nodes", "1", "--port", &port, "--home"]).arg(place.join("home"));
    let mut plain = Command::new("sleep");
    plain.arg("1000");
    let mut own = rustix::process::geteuid().as_raw();
    if own == 0 {
        own = NOBODY;
        command.uid(NOBODY).gid(NOBODY);
        plain.uid(NOBODY).gid(NOBODY);
    }
    let owner = |pid: u32| std::fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    let service = Service::start(&mut command);
    let mut other = plain.spawn().unwrap();
    let owners = (owner(service.pid()), owner(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(owners, (0, own));
}
