//! `kilofs umount`: ends an engine, found through its mountpoint or by the name of its database.

use super::Outcome;
use super::context::Context;
use super::output::{bytes, shown, understood};
use super::peek::read_within;
use super::progress::Progress;
use crate::daemon::answers::Stopped;
use crate::daemon::client::{self, Asked};
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use crate::daemon::status::Status;
use clap::Args;
use rustix::mount::UnmountFlags;
use serde_json::json;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long an engine goes on publishing after it was asked to end.
const PUBLISH: Duration = Duration::from_secs(5);
/// How long it may take besides that to write down what is left, and to end.
const END_DEADLINE: Duration = Duration::from_secs(60);
const STATUS_DEADLINE: Duration = Duration::from_secs(10);
const STATUS_BYTES_MAX: usize = 16 << 20;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Ends a mount: publishes what is pending for at most 5 s, keeps the rest, and returns when the engine has ended.
#[derive(Args)]
pub struct Umount {
    /// The mountpoint, the shared folder, or the name of a database
    #[arg(value_name = "DIR")]
    target: PathBuf,
}

/// Runs `umount`.
pub fn run(context: &Context, Umount { target }: Umount) -> Outcome {
    let directory = std::path::absolute(&target).unwrap_or_else(|_| target.clone());
    let status = match read_status(&directory) {
        Ok(status) => status,
        Err(error) if is_dead(&error) => return clear(context, &directory),
        // Whatever else would look at it would wait for it too.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(no_mount(&directory, &error)),
        Err(error) => match by_name(context, &target).or_else(|| by_place(context, &directory)) {
            Some(status) => status?,
            None => return Err(no_mount(&directory, &error)),
        },
    };
    let (Some(pid), Some(socket)) = (status.pid, status.socket.as_deref()) else {
        return Err(Failure::failed(format!("{} is shown by no engine of its own", directory.display())));
    };
    let process = Process::find(pid);
    let progress = Progress::start("publishing what is pending");
    let request = Request::Stop { publish_seconds: PUBLISH.as_secs_f64() };
    let stopped: Stopped = match client::ask(Path::new(socket), &request, PUBLISH + END_DEADLINE) {
        Asked::Answered(answer) => understood(answer?)?,
        Asked::NoEngine | Asked::Stale if !process.as_ref().is_some_and(Process::lives) => {
            return clear(context, &directory);
        }
        Asked::NoEngine | Asked::Stale => {
            let message = format!(
                "the engine of {} (process {pid}) lives, but its socket {socket} is gone: end it with `kill {pid}`",
                status.name
            );
            return Err(Failure::failed(message));
        }
    };
    // The other engines of that process go on; this one has closed its store before it answered.
    if let Some(process) = process.filter(|_| !status.shares_process) {
        process.wait(END_DEADLINE)?;
    }
    drop(progress);
    let name = &status.name;
    let ended = json!({ "name": name, "pid": pid, "pending_bytes": stopped.pending_bytes });
    context.output.result(&ended, |_| match stopped.pending_bytes {
        0 => String::new(),
        pending => format!(
            "{name}: {} are not published yet; they are kept, and published when it is mounted again",
            bytes(pending)
        ),
    })
}

/// The engine's own account of itself, from the mount. A mount that does not answer is given up after a while.
fn read_status(directory: &Path) -> io::Result<Status> {
    let file = directory.join(".kilofs/status");
    let text = read_within(&file, STATUS_DEADLINE)?;
    if text.len() > STATUS_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

fn by_name(context: &Context, target: &Path) -> Option<Result<Status, Failure>> {
    let name = Name::new(target.to_str()?).ok()?;
    let paths = context.existing(&name).ok()?;
    match client::ask(&paths.socket, &Request::Status, STATUS_DEADLINE) {
        Asked::Answered(answer) => Some(answer.and_then(understood)),
        Asked::NoEngine | Asked::Stale => {
            Some(Err(Failure::failed(format!("{name} is neither mounted, shared nor mirrored"))))
        }
    }
}

/// The engine that shares a folder, or whose mount is too damaged to tell of itself.
fn by_place(context: &Context, directory: &Path) -> Option<Result<Status, Failure>> {
    let place = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let names = context.home.names().ok()?;
    let statuses = names.iter().filter_map(|name| by_name(context, Path::new(name.as_str()))?.ok());
    let mut there = statuses.filter(|status| {
        [&status.shared_at, &status.mounted_at].iter().any(|at| at.as_deref().map(Path::new) == Some(&place))
    });
    there.next().map(Ok)
}

/// Whether a directory answers so because the engine that it was mounted by is gone, or just going.
pub(super) fn is_dead(error: &io::Error) -> bool {
    [rustix::io::Errno::NOTCONN, rustix::io::Errno::CONNABORTED]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn no_mount(directory: &Path, error: &io::Error) -> Failure {
    let shown = directory.display();
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::new(
            FailureKind::Unreachable,
            format!(
                "{shown} does not answer within {} s: is its engine stopped? `umount -l {shown}` takes the mount away{}",
                STATUS_DEADLINE.as_secs(),
                abort_of(directory)
            ),
        ),
        io::ErrorKind::NotFound => {
            Failure::failed(format!("{shown} is no mount of kilofs, nor the name of a database here"))
        }
        _ => Failure::failed(format!("cannot read {shown}/.kilofs/status: {error}")),
    }
}

/// How programs that wait for a mount are set free, in words; it is found without asking the mount.
fn abort_of(directory: &Path) -> String {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    // Field 3 is major:minor, field 5 the mountpoint, proc_pid_mountinfo(5); the minor number names the connection.
    let minor = table.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = fields.nth(2)?;
        let at = fields.nth(1)?;
        let minor = device.rsplit(|byte| *byte == b':').next()?;
        (at == directory.as_os_str().as_bytes()).then(|| String::from_utf8_lossy(minor).into_owned())
    });
    minor.map_or_else(String::new, |minor| {
        format!(", and `echo 1 > /sys/fs/fuse/connections/{minor}/abort` frees whoever waits for it; what was synced is kept")
    })
}

/// Takes away a mount whose engine is gone. Nothing is lost: what was written is in the store.
fn clear(context: &Context, directory: &Path) -> Outcome {
    let detached = rustix::mount::unmount(directory, UnmountFlags::DETACH);
    if detached.is_err() {
        // Whoever is not root needs the helper that mounted it.
        let helper = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(directory).output();
        let done = helper.as_ref().is_ok_and(|output| output.status.success());
        if !done {
            let why =
                helper.map_or_else(|error| error.to_string(), |output| shown(output.stderr.trim_ascii()));
            return Err(Failure::failed(format!(
                "cannot clear the dead mount at {}: {why}",
                directory.display()
            )));
        }
    }
    let cleared = json!({ "directory": directory.display().to_string(), "cleared": true });
    context.output.result(&cleared, |_| {
        format!("the engine behind {} was gone; the mountpoint is cleared", directory.display())
    })
}

/// A process, told from a later one of the same number by its start time.
struct Process {
    pid: u32,
    started: u64,
}

impl Process {
    fn find(pid: u32) -> Option<Process> {
        let (_, _, started) = Process::look(pid)?;
        Some(Process { pid, started })
    }

    /// State, threads and start time, fields 3, 20 and 22 of proc_pid_stat(5).
    fn look(pid: u32) -> Option<(char, u32, u64)> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let fields = std::str::from_utf8(&text[after_name..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads = fields.nth(16)?.parse().ok()?;
        Some((state, threads, fields.nth(1)?.parse().ok()?))
    }

    /// A process that has ended and that its parent has not asked about yet lives no more. While threads outlive the
    /// first one, they hold the store's lock.
    fn lives(&self) -> bool {
        Process::look(self.pid).is_some_and(|(state, threads, started)| {
            started == self.started && (threads > 1 || !matches!(state, 'Z' | 'X'))
        })
    }

    fn wait(&self, deadline: Duration) -> Outcome {
        let end = Instant::now() + deadline;
        while self.lives() {
            if Instant::now() > end {
                let message = format!(
                    "process {} has not ended within {} s; its log may say why",
                    self.pid,
                    deadline.as_secs()
                );
                return Err(Failure::new(FailureKind::Unreachable, message));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_its_end_is_seen_before_it_is_reaped() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.lives());
        assert!(!Process { started: process.started + 1, ..process }.lives());
        child.kill().unwrap();
        process.wait(Duration::from_secs(10)).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_plain_directory_is_no_mount() {
        let directory = tempfile::tempdir().unwrap();
        let error = std::fs::read(directory.path().join(".kilofs/status")).unwrap_err();
        assert!(!is_dead(&error));
        assert!(no_mount(directory.path(), &error).message.contains("no mount of kilofs"));
    }
}
