//! `kilofs peek`, hidden: what a mount says of itself, read by a process of its own. A thread that waits for a stopped
//! engine cannot be ended, nor can its process; a child that does so is left behind.

use super::Outcome;
use crate::daemon::control::Failure;
use clap::Args;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The start of what is written; what follows is the content, or the number of an error.
const CONTENT: u8 = b'+';
const ERROR: u8 = b'-';

/// Reads a file.
#[derive(Args)]
pub struct Peek {
    file: PathBuf,
}

/// Runs `peek`.
pub fn run(Peek { file }: Peek) -> Outcome {
    let told = match std::fs::read(file) {
        Ok(content) => [&[CONTENT][..], &content].concat(),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
            [&[ERROR][..], number.to_string().as_bytes()].concat()
        }
    };
    io::stdout().write_all(&told).map_err(|error| Failure::failed(error.to_string()))
}

/// Reads a file that may never answer.
pub(super) fn read_within(file: &Path, deadline: Duration) -> io::Result<Vec<u8>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("peek")
        .arg(file)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut told = Vec::new();
        let read = stdout.read_to_end(&mut told);
        // Nobody listens any longer after the deadline.
        _ = sender.send(read.map(|_| told));
    });
    let Ok(told) = receiver.recv_timeout(deadline) else {
        // It ends when what it waits for does. To wait for it would be to wait for that.
        _ = child.kill();
        return Err(io::ErrorKind::TimedOut.into());
    };
    _ = child.wait();
    understood(&told?)
}

fn understood(told: &[u8]) -> io::Result<Vec<u8>> {
    match told.split_first() {
        Some((&CONTENT, content)) => Ok(content.to_vec()),
        Some((&ERROR, number)) => {
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            Err(number.map_or(io::ErrorKind::InvalidData.into(), io::Error::from_raw_os_error))
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn content_and_errors_are_told_apart() {
        assert_eq!(understood(b"+").unwrap(), b"");
        assert_eq!(understood(b"+-2").unwrap(), b"-2");
        let errno = |told: &[u8]| understood(told).unwrap_err().raw_os_error();
        assert_eq!(errno(b"-2"), Some(rustix::io::Errno::NOENT.raw_os_error()));
        assert_eq!(errno(b"-107"), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
        for bad in [&b""[..], b"-", b"-x", b"2"] {
            assert_eq!(errno(bad), None);
        }
    }
}
