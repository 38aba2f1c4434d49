//! Programs that are run, awaited and ended, each with a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// A bound for what comes soon on an idle machine, wide enough for a busy one.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const LOOK: Duration = Duration::from_millis(50);

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    /// The standard output of a command that must have succeeded.
    #[track_caller]
    pub fn expect(self, what: &str) -> String {
        assert_eq!(self.code, Some(0), "{what}: {self:?}");
        self.out
    }
}

/// Runs a command to its end, or kills it at the deadline.
pub fn run_within(command: &mut Command, input: &[u8], deadline: Duration) -> Done {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that does not read its input closes the pipe.
    let feed = spawn(move || _ = stdin.write_all(&input));
    let collect = |mut pipe: Box<dyn Read + Send>| {
        spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = collect(Box::new(child.stdout.take().unwrap()));
    let err = collect(Box::new(child.stderr.take().unwrap()));
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "{shown} was not done within {deadline:?}: {} {}",
                out.join().unwrap(),
                err.join().unwrap()
            );
        }
        sleep(Duration::from_millis(5));
    };
    feed.join().unwrap();
    Done { code: status.code(), out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Runs a program that must succeed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "tester")
            .env(format!("GIT_{role}_EMAIL"), "tester@example.org");
    }
    run_within(&mut command, b"", PATIENCE * 2).expect(&format!("{program} {arguments:?}"))
}

/// Looks until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not so within {PATIENCE:?}: {what}");
        sleep(LOOK);
    }
}

/// A child that writes one line when it is usable, and is killed when dropped.
pub struct Service {
    child: Child,
    pub line: String,
}

impl Service {
    pub fn start(command: &mut Command) -> Service {
        let shown = format!("{command:?}");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        spawn(move || {
            let mut line = String::new();
            _ = pipe.read_line(&mut line);
            // The pipe stays open, so that whatever is written to it later harms nobody.
            _ = sender.send((line, pipe));
        });
        let mut service = Service { child, line: String::new() };
        let (line, pipe) =
            receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{shown} is not usable"));
        std::mem::forget(pipe);
        service.line = line.trim().to_owned();
        assert!(!service.line.is_empty(), "{shown} ended at once");
        service
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
