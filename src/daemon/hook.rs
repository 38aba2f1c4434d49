//! Tells a person's own command of what a person should look at: conflicts, refusals, and a record that nobody confirms.
//!
//! The command is split into words and run without a shell, one at a time, each with a deadline. What comes in a burst
//! comes as one event. An event says what is so, never a secret.

use super::commands::Desk;
use super::report::STALE_SECONDS;
use super::status::{ConflictStatus, RefusalStatus};
use crate::base::shown;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// What comes within this time of the first is told together.
const GATHER: Duration = Duration::from_millis(500);
/// Between two runs of the command.
const REST: Duration = Duration::from_secs(5);
/// A command that runs longer is killed.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often to look whether the record was confirmed.
const CONFIRMED_PERIOD: Duration = Duration::from_secs(60);
/// Paths that one event names.
const ITEMS_MAX: usize = 20;

/// What the command is told, as JSON on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Event {
    /// `conflict`, `refusal` or `unconfirmed`.
    kind: &'static str,
    /// What the database is called on this device.
    name: String,
    /// Where it is mounted.
    mount: Option<String>,
    /// How many there are in this event.
    count: usize,
    /// The first of them: its path from the database's root.
    path: Option<String>,
    /// The device that it is from: the first bytes for a conflict, all of it for a refusal.
    device: Option<String>,
    /// Why, for a refusal.
    reason: Option<String>,
    /// All paths, up to a limit.
    paths: Vec<String>,
    /// One sentence for a person.
    text: String,
}

/// The running hook; ends when it is dropped.
pub(super) struct Hook(Option<JoinHandle<()>>);

impl Hook {
    /// Begins to watch, if a command is configured.
    pub fn start(desk: &Arc<Desk>) -> Hook {
        let Some(line) = &desk.core.settings.on_event else { return Hook(None) };
        match shlex::split(line).filter(|words| !words.is_empty()) {
            Some(words) => {
                let seen = Seen::now(desk);
                Hook(Some(tokio::spawn(watch(desk.clone(), words, seen))))
            }
            None => {
                tracing::warn!(
                    "on-event cannot be split into words, so nothing is run: {}",
                    shown(line.as_bytes())
                );
                Hook(None)
            }
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// What was told already, or was so at the start.
#[derive(Default)]
struct Seen {
    conflicts: BTreeSet<ConflictStatus>,
    refusals: BTreeSet<RefusalStatus>,
    unconfirmed: bool,
}

impl Seen {
    fn now(desk: &Desk) -> Seen {
        let inner = desk.core.inner();
        Seen {
            conflicts: inner.state.conflicts.clone(),
            refusals: inner.state.refusals.clone(),
            unconfirmed: false,
        }
    }

    /// What is new; `unconfirmed_seconds` is how long the record has not been confirmed.
    fn take(&mut self, now: Seen, unconfirmed_seconds: Option<f64>) -> Vec<Event> {
        let mut events = Vec::new();
        let conflicts: Vec<_> = now.conflicts.difference(&self.conflicts).cloned().collect();
        if let Some(first) = conflicts.first() {
            let paths = conflicts.iter().map(|conflict| conflict.path.clone());
            let text = format!("{} holds the edit of device {}", shown(first.path.as_bytes()), first.device);
            let event =
                Event { kind: "conflict", device: Some(first.device.clone()), text, ..Event::default() };
            events.push(event.about(paths.collect()));
        }
        let refusals: Vec<_> = now.refusals.difference(&self.refusals).cloned().collect();
        if let Some(first) = refusals.first() {
            let paths = refusals.iter().map(|refusal| refusal.path.clone());
            let text = format!("a change in {} was refused: {}", shown(first.path.as_bytes()), first.reason);
            let (device, reason) = (first.signer.clone(), Some(first.reason.clone()));
            events.push(
                Event { kind: "refusal", device, reason, text, ..Event::default() }.about(paths.collect()),
            );
        }
        let stale = unconfirmed_seconds.is_some_and(|seconds| seconds > STALE_SECONDS);
        if stale && !self.unconfirmed {
            let text = "the DHT has not confirmed for a day that this is the newest state".into();
            events.push(Event { kind: "unconfirmed", count: 1, text, ..Event::default() });
        }
        *self = Seen { unconfirmed: stale, ..now };
        events
    }
}

impl Event {
    fn about(self, mut paths: Vec<String>) -> Event {
        let count = paths.len();
        paths.truncate(ITEMS_MAX);
        let text = match count {
            0 | 1 => self.text,
            _ => format!("{}, and {} more", self.text, count - 1),
        };
        Event { count, path: paths.first().cloned(), paths, text, ..self }
    }

    /// The same for who reads no JSON.
    fn variables(&self) -> [(&'static str, String); 8] {
        let some = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            ("KILOFS_EVENT_KIND", self.kind.into()),
            ("KILOFS_EVENT_NAME", self.name.clone()),
            ("KILOFS_EVENT_MOUNT", some(&self.mount)),
            ("KILOFS_EVENT_COUNT", self.count.to_string()),
            ("KILOFS_EVENT_PATH", some(&self.path)),
            ("KILOFS_EVENT_DEVICE", some(&self.device)),
            ("KILOFS_EVENT_REASON", some(&self.reason)),
            ("KILOFS_EVENT_TEXT", self.text.clone()),
        ]
    }
}

async fn watch(desk: Arc<Desk>, words: Vec<String>, mut seen: Seen) {
    let started = Instant::now();
    let mut failing = false;
    loop {
        if timeout(CONFIRMED_PERIOD, desk.core.saved.notified()).await.is_ok() {
            sleep(GATHER).await;
        }
        let online = desk.driver.listen().is_some();
        let confirmed = desk.driver.confirmed_seconds_ago();
        let unconfirmed = online.then(|| confirmed.unwrap_or_else(|| started.elapsed().as_secs_f64()));
        for event in seen.take(Seen::now(&desk), unconfirmed) {
            let (name, mount) = (desk.core.name.to_string(), desk.mounted_at.clone());
            let outcome = run(&words, &Event { name, mount, ..event }, DEADLINE).await;
            match &outcome {
                Err(problem) if !failing => {
                    tracing::warn!("on-event: {} {problem}; this is said once", shown(words[0].as_bytes()));
                }
                _ => {}
            }
            failing = outcome.is_err();
            sleep(REST).await;
        }
    }
}

async fn run(words: &[String], event: &Event, deadline: Duration) -> Result<(), String> {
    let mut told = serde_json::to_vec(event).map_err(|error| error.to_string())?;
    told.push(b'\n');
    let mut command = Command::new(&words[0]);
    // What it says of itself goes to the log.
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    // A name cannot hold a NUL, nor can a variable.
    command.envs(event.variables().map(|(name, value)| (name, value.replace('\0', ""))));
    let mut child = command
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let stdin = child.stdin.take();
    let running = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read closes the pipe.
            _ = stdin.write_all(&told).await;
        }
        child.wait().await
    };
    match timeout(deadline, running).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("failed: {status}")),
        Ok(Err(error)) => Err(format!("is lost: {error}")),
        Err(_) => {
            if let Some(group) = group {
                // What it started ends with it; that it ended meanwhile is as well.
                _ = kill_process_group(group, Signal::KILL);
            }
            Err(format!("was not done within {} s and was killed", deadline.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn conflicts(paths: &[&str]) -> Seen {
        let conflict = |path: &&str| ConflictStatus { path: (*path).into(), device: "0123abcd".into() };
        Seen { conflicts: paths.iter().map(conflict).collect(), ..Seen::default() }
    }

    #[test]
    fn a_burst_is_one_event_and_nothing_is_told_twice() {
        let mut seen = conflicts(&["/old"]);
        let events = seen.take(conflicts(&["/a", "/b", "/old"]), None);
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].kind, events[0].count), ("conflict", 2));
        assert_eq!(events[0].text, "/a holds the edit of device 0123abcd, and 1 more");
        assert!(seen.take(conflicts(&["/a", "/b", "/old"]), None).is_empty());
        assert!(seen.take(conflicts(&["/a"]), None).is_empty(), "one that was resolved is no news");
    }

    #[test]
    fn a_day_without_confirmation_is_told_once_until_there_is_one() {
        let mut seen = Seen::default();
        let day = STALE_SECONDS + 1.0;
        let told: Vec<usize> = [Some(5.0), Some(day), Some(day + 60.0), Some(1.0), Some(day), None]
            .map(|seconds| seen.take(Seen::default(), seconds).len())
            .into();
        assert_eq!(told, [0, 1, 0, 0, 1, 0]);
    }

    #[tokio::test]
    async fn a_command_gets_json_and_variables_and_what_it_leaves_unread_harms_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out");
        let words = ["sh", "-c", "cat > \"$0\"; echo \"$KILOFS_EVENT_KIND $KILOFS_EVENT_PATH\" >> \"$0\""];
        let mut words: Vec<String> = words.map(String::from).into();
        words.push(file.display().to_string());
        let event = Event { kind: "conflict", path: Some("/a b".into()), ..Event::default() };
        run(&words, &event, DEADLINE).await.unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let (json, variables) = text.split_once('\n').unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap()["path"], "/a b");
        assert_eq!(variables, "conflict /a b\n");
        run(&["true".into()], &event, DEADLINE).await.unwrap();
        assert!(run(&["false".into()], &event, DEADLINE).await.is_err());
        assert!(run(&["/no/such/program".into()], &event, DEADLINE).await.is_err());
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = "sleep 600 & echo $! > \"$0\"; wait";
        let words = ["sh".into(), "-c".into(), script.into(), file.display().to_string()];
        let problem = run(&words, &Event::default(), Duration::from_secs(2)).await.unwrap_err();
        assert!(problem.contains("killed"), "{problem}");
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
            Err(_) => true,
        };
        for _ in 0..100 {
            if gone() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("process {child} outlived the command that started it");
    }
}
