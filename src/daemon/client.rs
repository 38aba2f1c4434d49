//! Asks a running engine over its control socket. Every wait has a deadline.

use super::control::{Failure, FailureKind, LINE_BYTES_MAX, Reply, Request};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// An engine answered.
    Answered(Result<serde_json::Value, Failure>),
    /// There is no socket: no engine runs.
    NoEngine,
    /// There is a socket, and nobody behind it: an engine ended without cleaning up.
    Stale,
}

/// Sends one request to the engine behind `socket` and waits for its answer.
///
/// An engine that takes longer than `deadline`, or that ends while it answers, is a failure; that none runs is not.
pub fn ask(socket: &Path, request: &Request, deadline: Duration) -> Asked {
    match UnixStream::connect(socket) {
        Ok(stream) => Asked::Answered(converse(stream, request, deadline)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Asked::NoEngine,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Asked::Stale,
        Err(error) => Asked::Answered(Err(Failure::failed(format!(
            "cannot reach the engine at {}: {error}",
            socket.display()
        )))),
    }
}

fn converse(stream: UnixStream, request: &Request, deadline: Duration) -> Result<serde_json::Value, Failure> {
    let line = exchange(stream, request, deadline).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::new(
            FailureKind::Unreachable,
            format!(
                "the engine did not answer within {} s: is its process stopped? Its log may say why",
                deadline.as_secs()
            ),
        ),
        io::ErrorKind::InvalidData => Failure::failed(format!("the engine's answer is no answer: {error}")),
        _ => Failure::new(
            FailureKind::Ended,
            format!("the engine ended while it was asked: {error}; its log may say why"),
        ),
    })?;
    let reply = serde_json::from_slice(&line).map_err(|error| {
        Failure::failed(format!(
            "the engine answered in a way that this version does not know ({error}); are both of one version?"
        ))
    })?;
    match reply {
        Reply::Done(value) => Ok(value),
        Reply::Failed(failure) => Err(failure),
    }
}

fn exchange(mut stream: UnixStream, request: &Request, deadline: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + deadline;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(deadline.max(Duration::from_millis(1))))?;
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 64 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let chunk = &buffer[..count];
        if let Some(at) = chunk.iter().position(|byte| *byte == b'\n') {
            answer.extend_from_slice(&chunk[..at]);
            return Ok(answer);
        }
        answer.extend_from_slice(chunk);
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.len() as u64 > LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    const DEADLINE: Duration = Duration::from_millis(200);

    /// An engine that reads one line and then writes `answer`; without one it stays silent.
    fn engine(answer: Option<&'static str>) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            io::BufReader::new(&stream).read_line(&mut line).unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => std::thread::sleep(DEADLINE * 10),
            }
        });
        (directory, socket)
    }

    #[test]
    fn an_answer_arrives() {
        let (_directory, socket) = engine(Some("{\"done\":7}\n"));
        assert!(matches!(ask(&socket, &Request::Status, DEADLINE), Asked::Answered(Ok(value)) if value == 7));
    }

    #[test]
    fn a_failure_keeps_its_kind() {
        let (_directory, socket) = engine(Some("{\"failed\":{\"kind\":\"refused\",\"message\":\"no\"}}\n"));
        let Asked::Answered(Err(failure)) = ask(&socket, &Request::Status, DEADLINE) else { panic!() };
        assert_eq!(failure.exit_code(), 4);
    }

    #[test]
    fn silence_and_half_an_answer_are_failures() {
        let (_directory, socket) = engine(None);
        let Asked::Answered(Err(failure)) = ask(&socket, &Request::Status, DEADLINE) else { panic!() };
        assert_eq!(failure.kind, FailureKind::Unreachable);
        let (_directory, socket) = engine(Some("{\"done\""));
        let Asked::Answered(Err(failure)) = ask(&socket, &Request::Status, DEADLINE) else { panic!() };
        assert_eq!(failure.kind, FailureKind::Ended);
    }

    #[test]
    fn no_engine_differs_from_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        assert!(matches!(ask(&socket, &Request::Status, DEADLINE), Asked::NoEngine));
        drop(UnixListener::bind(&socket).unwrap());
        assert!(matches!(ask(&socket, &Request::Status, DEADLINE), Asked::Stale));
    }
}
