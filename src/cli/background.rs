//! Starts an engine as a process of its own and waits until it is usable.

use super::context::Context;
use super::output::{shown, understood};
use super::progress::Progress;
use crate::daemon::control::{Failure, FailureKind, Reply};
use crate::daemon::fleet::{Fleet, Mustered};
use crate::daemon::launch::Launch;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long an engine may take until its mount is usable.
const USABLE_DEADLINE: Duration = Duration::from_secs(60);
const READINESS_BYTES_MAX: u64 = 1 << 20;
/// A log longer than this is put aside when an engine starts.
const LOG_BYTES_MAX: u64 = 8 << 20;
const LOG_TAIL_BYTES: i64 = 2048;
const LOG_TAIL_LINES: usize = 3;

/// Starts the engine and returns what it says of itself when it is usable.
pub fn start(context: &Context, launch: &Launch) -> Result<Value, Failure> {
    let name = &launch.name;
    let failed =
        |error: io::Error| Failure::failed(format!("cannot prepare the directories of {name}: {error}"));
    let paths = context.home.prepare(name).map_err(failed)?;
    launched(context, &[name.as_str()], name.as_str(), &paths.log, &launch.encode())
}

/// Starts one process for all engines of a fleet and returns what it says when it has tried them all.
pub fn start_all(context: &Context, fleet: &Fleet) -> Result<Mustered, Failure> {
    for (name, _) in &fleet.launches {
        let failed =
            |error: io::Error| Failure::failed(format!("cannot prepare the directories of {name}: {error}"));
        context.home.prepare(name).map_err(failed)?;
    }
    let log = context.home.common_log();
    understood(launched(context, &["--all"], "the mirrors", &log, &fleet.encode())?)
}

fn launched(
    context: &Context,
    arguments: &[&str],
    name: &str,
    log_path: &Path,
    told: &[u8],
) -> Result<Value, Failure> {
    let failed = |what: &str, error: io::Error| Failure::failed(format!("cannot {what} of {name}: {error}"));
    let log = open_log(log_path).map_err(|error| failed("open the log", error))?;
    let mut child = spawn(context, arguments, log).map_err(|error| failed("start the engine", error))?;
    let progress = Progress::start(&format!("starting {name}"));
    let line = tell(&mut child, told).and_then(|()| hear(&mut child));
    drop(progress);
    match line.map(|line| serde_json::from_slice(&line)) {
        Ok(Ok(Reply::Done(readiness))) => Ok(readiness),
        Ok(Ok(Reply::Failed(failure))) => Err(failure),
        Ok(Err(_)) => Err(Failure::failed(format!(
            "the engine of {name} ended before it was usable; {} ends with:\n{}",
            log_path.display(),
            shown_tail(log_path)
        ))),
        Err(error) => {
            // It may be gone already; either way it must not go on half started.
            _ = child.kill();
            _ = child.wait();
            let message = format!(
                "the engine of {name} was not usable within {} s ({error}); see {}",
                USABLE_DEADLINE.as_secs(),
                log_path.display()
            );
            Err(Failure::new(FailureKind::Unreachable, message))
        }
    }
}

fn spawn(context: &Context, arguments: &[&str], log: File) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    // The name is there for those who look at the list of processes; all else goes through the pipe.
    command.arg("engine").args(arguments);
    command.args((0..context.verbose).map(|_| "-v"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()
}

fn tell(child: &mut Child, told: &[u8]) -> io::Result<()> {
    let mut pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    match pipe.write_all(told) {
        // It has ended; what it says of that is read next.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The one line that the engine writes, empty if it ended without it.
fn hear(child: &mut Child) -> io::Result<Vec<u8>> {
    let pipe = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let read = BufReader::new(pipe.take(READINESS_BYTES_MAX)).read_until(b'\n', &mut line);
        // Nobody waits any longer after the deadline.
        _ = sender.send(read.map(|_| line));
    });
    receiver.recv_timeout(USABLE_DEADLINE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Opens a log to be written on; one that has grown long is put aside.
pub fn open_log(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn shown_tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::End(-LOG_TAIL_BYTES.min(length.try_into().unwrap_or(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let tail = lines.split_off(lines.len().saturating_sub(LOG_TAIL_LINES));
    tail.iter().map(|line| format!("  {}", shown(line))).collect::<Vec<_>>().join("\n")
}
