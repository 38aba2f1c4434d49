//! The configured command that prints a passphrase: run without a shell, with a deadline, and heard out on failure.

use super::output::shown;
use super::passphrase::{Passphrase, first_line};
use crate::daemon::config::Words;
use crate::daemon::control::{Failure, FailureKind};
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Such commands may ask a person in turn.
const DEADLINE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);
/// More than a passphrase has, and more than anyone reads of a complaint.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
const COMPLAINT_LINES: usize = 5;

/// The first line that the command prints.
pub fn run(command: &Words) -> Result<Passphrase, Failure> {
    let words = command.split().ok_or_else(|| {
        Failure::new(
            FailureKind::Usage,
            "passphrase-command names no program: it is a list of words, or a line with quotes that are closed",
        )
    })?;
    within(&words, DEADLINE)
}

fn within(words: &[String], deadline: Duration) -> Result<Passphrase, Failure> {
    let program = shown(words[0].as_bytes());
    let cannot =
        |error: io::Error| Failure::failed(format!("cannot run passphrase-command {program}: {error}"));
    let mut command = Command::new(&words[0]);
    // It stays in this process group: what asks on the terminal must be in its foreground.
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    let (printed, complained) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let end = Instant::now() + deadline;
    let status = match ended(&mut child, end) {
        Ok(Some(status)) => status,
        outcome => {
            // Gone already, or about to be.
            _ = child.kill();
            _ = child.wait();
            outcome.map_err(cannot)?;
            let seconds = deadline.as_secs();
            let message =
                format!("passphrase-command {program} did not end within {seconds} s and was killed");
            return Err(Failure::new(FailureKind::Unreachable, message));
        }
    };
    // What it started may hold its pipes for longer than it lives.
    let heard = |pipe: Receiver<Zeroizing<Vec<u8>>>| {
        pipe.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap_or_default()
    };
    if !status.success() {
        let complaint = complaint(&heard(complained));
        return Err(Failure::failed(format!("passphrase-command {program} failed: {status}{complaint}")));
    }
    first_line(&heard(printed)).ok_or_else(|| {
        let complaint = complaint(&heard(complained));
        Failure::failed(format!("passphrase-command {program} printed no line of text{complaint}"))
    })
}

fn listen(pipe: Option<impl Read + Send + 'static>) -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Sized ahead: a vector that grows would leave a copy of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX as usize));
        let mut rest = pipe.map(|pipe| pipe.take(OUTPUT_BYTES_MAX));
        // What can be read is what counts; nobody waits any longer after the deadline.
        _ = rest.as_mut().map(|pipe| pipe.read_to_end(&mut bytes));
        _ = sender.send(bytes);
        // One that says more goes on, and is not heard.
        _ = rest.map(|pipe| io::copy(&mut pipe.into_inner(), &mut io::sink()));
    });
    receiver
}

fn ended(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(LOOK),
            outcome => return Ok(outcome),
        }
    }
}

/// The last lines that it wrote to its standard error.
fn complaint(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(COMPLAINT_LINES)..];
    if last.is_empty() { String::new() } else { format!(": {}", last.join("; ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(String::from).to_vec()
    }

    #[test]
    fn the_first_line_counts() {
        assert_eq!(*run(&Words::Line("printf 'a b\\nc'".into())).unwrap(), "a b");
        let list = Words::List(["printf", "%s", "$HOME `id`"].map(String::from).to_vec());
        assert_eq!(*run(&list).unwrap(), "$HOME `id`", "no shell looks at it");
        let loud = sh("echo secret; head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2");
        assert_eq!(*within(&loud, DEADLINE).unwrap(), "secret");
    }

    #[test]
    fn what_it_says_of_its_failure_is_said() {
        let failure = within(&sh("echo one >&2; echo two >&2; exit 7"), DEADLINE).unwrap_err();
        assert!(failure.message.contains("exit status: 7: one; two"), "{failure}");
        let silent = within(&sh("echo why >&2"), DEADLINE).unwrap_err();
        assert!(silent.message.contains("no line of text: why"), "{silent}");
        let missing = within(&["/nonexistent/pass".to_owned()], DEADLINE).unwrap_err();
        assert!(missing.message.contains("/nonexistent/pass"), "{missing}");
        for bad in ["printf 'unclosed", ""] {
            assert_eq!(run(&Words::Line(bad.into())).unwrap_err().kind, FailureKind::Usage, "{bad}");
        }
    }

    #[test]
    fn one_that_does_not_end_is_killed() {
        let failure =
            within(&["sleep".to_owned(), "1000".to_owned()], Duration::from_millis(50)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
    }
}
