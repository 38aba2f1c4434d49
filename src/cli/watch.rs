//! `kilofs status --watch`: asks engines again and again, and shows what they say, on a terminal or as JSON lines.

use super::Outcome;
use super::context::Context;
use super::output::harmless_json;
use super::seen::{Look, Seen};
use super::status::one_of_all;
use super::terminal::{Key, Screen, is_terminal, keys};
use super::text::{Line, Tone};
use super::view::{Now, detail, overview};
use crate::daemon::answers::LogEntry;
use crate::daemon::client::{self, Asked};
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use crate::daemon::status::Status;
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// An engine that takes longer is shown as one that does not answer.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Commits that are asked for.
const LOG_LIMIT: usize = 8;
/// How often to look for databases that came or went.
const NAMES_PERIOD: Duration = Duration::from_secs(3);
/// So that ages go on while nothing happens.
const REDRAW_PERIOD: Duration = Duration::from_secs(1);
const DATABASES_MAX: usize = 256;

/// What one look at one database brought.
struct News {
    name: String,
    at: Instant,
    look: Look,
    answer: Option<Value>,
    log: Option<Vec<LogEntry>>,
}

/// Runs the view until a person ends it.
pub fn run(context: &Context, name: Option<Name>, interval: Duration) -> Outcome {
    if let Some(name) = &name {
        context.existing(name)?;
    }
    let json = context.output.is_json();
    if !json && !is_terminal() {
        return Err(Failure::new(
            FailureKind::Usage,
            "--watch draws on a terminal, and this is none; with --json it prints one object a line instead",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(async {
        let mut watch = Watch::start(context, name, interval)?;
        if json { watch.print().await } else { watch.show().await }
    });
    // A look at an engine that hangs is not waited for.
    runtime.shutdown_background();
    ended
}

struct Watch<'a> {
    context: &'a Context,
    only: Option<Name>,
    interval: Duration,
    seen: Vec<Seen>,
    sender: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
}

/// Where a person has gone to.
#[derive(Default)]
struct Place {
    /// One database in detail; else all.
    opened: bool,
    chosen: usize,
    scrolled: usize,
}

impl<'a> Watch<'a> {
    fn start(context: &'a Context, only: Option<Name>, interval: Duration) -> Result<Watch<'a>, Failure> {
        let (sender, news) = mpsc::channel(DATABASES_MAX);
        let mut watch = Watch { context, only, interval, seen: Vec::new(), sender, news };
        watch.look_for_databases()?;
        Ok(watch)
    }

    /// Begins to look at databases that are not looked at yet, and lets go of those that are gone.
    fn look_for_databases(&mut self) -> Outcome {
        let names = match &self.only {
            Some(name) => vec![name.clone()],
            None => self
                .context
                .home
                .names()
                .map_err(|error| Failure::failed(format!("cannot list the databases: {error}")))?,
        };
        self.seen.retain(|seen| names.iter().any(|name| name.as_str() == seen.name));
        for name in names.into_iter().take(DATABASES_MAX) {
            if self.seen.iter().any(|seen| seen.name == name.as_str()) {
                continue;
            }
            // Once, and without asking anybody: what is known of one that no engine runs for.
            let (context, asked) = (self.context, &name);
            // On a thread of its own: it may have to open the database, which needs a runtime.
            let looked = std::thread::scope(|scope| scope.spawn(|| one_of_all(context, asked)).join());
            let known = looked.ok().and_then(|known| serde_json::from_value(known).ok());
            self.seen.push(Seen::new(name.as_str(), known));
            self.seen.sort_by(|one, other| one.name.cmp(&other.name));
            let socket = self.context.home.database(&name).socket;
            let keyring = self.context.home.database(&name).keyring;
            tokio::spawn(follow(name.to_string(), socket, keyring, self.interval, self.sender.clone()));
        }
        Ok(())
    }

    fn take(&mut self, news: News) {
        let Some(seen) = self.seen.iter_mut().find(|seen| seen.name == news.name) else { return };
        seen.take(news.at, news.look);
        if let Some(log) = news.log {
            seen.log = log;
        }
    }

    async fn show(&mut self) -> Outcome {
        let failed = |error: std::io::Error| Failure::failed(format!("the terminal does not work: {error}"));
        let mut screen = Screen::enter().map_err(failed)?;
        let mut place = Place { opened: self.only.is_some(), ..Place::default() };
        let mut keys = keys();
        let mut redraw = tokio::time::interval(REDRAW_PERIOD);
        let mut names = tokio::time::interval(NAMES_PERIOD);
        let signals = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
        let [mut term, mut hangup, mut interrupt] = signals.map(signal);
        let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
        let (Ok(term), Ok(hangup), Ok(interrupt)) = (&mut term, &mut hangup, &mut interrupt) else {
            return Err(Failure::failed("signals cannot be awaited"));
        };
        loop {
            self.draw(&mut screen, &mut place).map_err(failed)?;
            tokio::select! {
                news = self.news.recv() => if let Some(news) = news { self.take(news) },
                key = keys.recv() => match key {
                    None | Some(Key::Quit) => return Ok(()),
                    Some(Key::Suspend) => screen.suspend().map_err(failed)?,
                    Some(Key::Redraw) => screen.forget(),
                    Some(key) => self.go(&mut place, key, screen.size().1),
                },
                _ = redraw.tick() => {}
                _ = names.tick() => if self.only.is_none() { self.look_for_databases()? },
                _ = resized.recv() => screen.forget(),
                _ = term.recv() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    fn go(&self, place: &mut Place, key: Key, height: usize) {
        let page = height.saturating_sub(3).max(1);
        match key {
            Key::Up if place.opened => place.scrolled = place.scrolled.saturating_sub(1),
            Key::Down if place.opened => place.scrolled += 1,
            Key::Up => place.chosen = place.chosen.saturating_sub(1),
            Key::Down => place.chosen += 1,
            Key::PageUp => place.scrolled = place.scrolled.saturating_sub(page),
            Key::PageDown => place.scrolled += page,
            Key::Open if !self.seen.is_empty() => (place.opened, place.scrolled) = (true, 0),
            Key::Back if self.only.is_none() => (place.opened, place.scrolled) = (false, 0),
            _ => {}
        }
        place.chosen = place.chosen.min(self.seen.len().saturating_sub(1));
    }

    fn draw(&self, screen: &mut Screen, place: &mut Place) -> std::io::Result<()> {
        let (width, height) = screen.size();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = Now { clock: i64::try_from(clock).unwrap_or(i64::MAX), instant: Instant::now() };
        let chosen = self.seen.get(place.chosen.min(self.seen.len().saturating_sub(1)));
        let (mut lines, body) = match chosen {
            Some(seen) if place.opened => detail(seen, now, width),
            Some(_) => overview(&self.seen, place.chosen, width),
            None => (
                vec![Line::of(Tone::Plain, "there is no database yet; `kilofs create NAME` makes one")],
                Vec::new(),
            ),
        };
        let room = height.saturating_sub(lines.len() + 1);
        place.scrolled = place.scrolled.min(body.len().saturating_sub(room));
        let below = body.len().saturating_sub(place.scrolled + room);
        lines.extend(body.into_iter().skip(place.scrolled).take(room));
        lines.resize(height.saturating_sub(1), Line::default());
        lines.push(self.foot(place, below));
        screen.draw(&lines)
    }

    fn foot(&self, place: &Place, below: usize) -> Line {
        let mut keys = vec!["q quit"];
        match (place.opened, self.only.is_some()) {
            (false, _) => keys.extend(["arrows choose", "Enter opens"]),
            (true, false) => keys.push("Esc all databases"),
            (true, true) => {}
        }
        let line = Line::of(Tone::Dim, keys.join("  "));
        match below {
            0 => line,
            _ => line.and(Tone::Warn, format!("  {below} more lines, arrows and space scroll")),
        }
    }

    /// One object a line, each time that something but time has changed.
    async fn print(&mut self) -> Outcome {
        let mut printed: Vec<(String, Value)> = Vec::new();
        let mut names = tokio::time::interval(NAMES_PERIOD);
        loop {
            let news = tokio::select! {
                news = self.news.recv() => news,
                _ = names.tick() => {
                    if self.only.is_none() {
                        self.look_for_databases()?;
                    }
                    continue;
                }
            };
            let Some(news) = news else { return Ok(()) };
            let name = news.name.clone();
            let answer = news.answer.clone();
            self.take(news);
            let Some(seen) = self.seen.iter().find(|seen| seen.name == name) else { continue };
            let object = answer.unwrap_or_else(|| {
                let mut status = seen.as_it_is();
                status.warnings.extend(seen.failure.clone());
                serde_json::to_value(status).unwrap_or(Value::Null)
            });
            let still = without_time(&object);
            match printed.iter_mut().find(|(known, _)| *known == name) {
                Some((_, last)) if *last == still => continue,
                Some((_, last)) => *last = still,
                None => printed.push((name, still)),
            }
            let mut stdout = std::io::stdout().lock();
            match writeln!(stdout, "{}", harmless_json(&object.to_string())).and_then(|()| stdout.flush()) {
                Ok(()) => {}
                // The reader has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(Failure::failed(format!("cannot write the result: {error}"))),
            }
        }
    }
}

/// A status without what changes by itself.
fn without_time(object: &Value) -> Value {
    let mut still = object.clone();
    if let Some(fields) = still.as_object_mut() {
        fields.remove("confirmed_seconds_ago");
        for neighbour in fields.get_mut("connected").and_then(Value::as_array_mut).into_iter().flatten() {
            neighbour.as_object_mut().map(|fields| fields.remove("seconds"));
        }
    }
    still
}

/// Looks at one database until it is gone or nobody listens.
async fn follow(
    name: String,
    socket: PathBuf,
    keyring: PathBuf,
    interval: Duration,
    sender: mpsc::Sender<News>,
) {
    let mut logged: Option<(Option<String>, Option<i64>, usize)> = None;
    while keyring.exists() {
        let socket = socket.clone();
        let known = logged.clone();
        let looking = tokio::task::spawn_blocking(move || look(&socket, known));
        let Ok((look, answer, log)) = looking.await else { return };
        if let (Look::Answered(status), Some(_)) = (&look, &log) {
            logged = Some(mark(status));
        }
        let news = News { name: name.clone(), at: Instant::now(), look, answer, log };
        if sender.send(news).await.is_err() {
            return;
        }
        tokio::time::sleep(interval).await;
    }
}

/// What has to differ for the log to differ.
fn mark(status: &Status) -> (Option<String>, Option<i64>, usize) {
    (status.versions.first().map(|version| version.infohash.clone()), status.seq, status.versions.len())
}

fn look(
    socket: &std::path::Path,
    logged: Option<(Option<String>, Option<i64>, usize)>,
) -> (Look, Option<Value>, Option<Vec<LogEntry>>) {
    let answer = match client::ask(socket, &Request::Status, LOOK_DEADLINE) {
        Asked::Answered(Ok(answer)) => answer,
        Asked::Answered(Err(failure)) => return (Look::Failed(failure.message), None, None),
        Asked::NoEngine | Asked::Stale => return (Look::NoEngine, None, None),
    };
    let Ok(status) = serde_json::from_value::<Status>(answer.clone()) else {
        return (Look::Failed("the engine is of another version".into()), None, None);
    };
    let log = if logged != Some(mark(&status)) {
        let request = Request::Log { limit: LOG_LIMIT, paths: true };
        match client::ask(socket, &request, LOOK_DEADLINE) {
            Asked::Answered(Ok(log)) => serde_json::from_value(log).ok(),
            _ => None,
        }
    } else {
        None
    };
    (Look::Answered(Box::new(status)), Some(answer), log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_alone_is_no_change() {
        let of = |seconds: f64, seq: u32| {
            let connected = [json!({"address": "a", "seconds": seconds})];
            json!({"confirmed_seconds_ago": seconds, "seq": seq, "connected": connected})
        };
        assert_eq!(without_time(&of(1.0, 1)), without_time(&of(2.0, 1)));
        assert_ne!(without_time(&of(1.0, 1)), without_time(&of(1.0, 2)));
    }
}
