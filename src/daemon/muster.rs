//! Runs many engines in one process. Each has a thread and a runtime of its own, so that with it ends whatever it
//! started, and its store is free for others while the rest go on. They are started one after the other: what they do
//! at intervals is spread by that. One that fails is tried again after a while; one that a command ended is left alone.

use super::client::{self, Asked};
use super::control::{Failure, FailureKind, Request};
use super::engine;
use super::fleet::{Fleet, Mustered, Skipped};
use super::home::Name;
use super::kernel_keys;
use super::launch::{Launch, Role};
use super::metrics;
use crate::crypt::keyring::{self, Factors};
use crate::net::scrape;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::Dispatch;
use zeroize::Zeroizing;

/// The next engine is started when the last one is usable, or after so long.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// The first pass counts as done after so long at the latest.
const MUSTER_DEADLINE: Duration = Duration::from_secs(40);
/// How often databases are looked for that were joined meanwhile.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// The pause before an engine that failed is tried again; doubled up to the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(600);
/// An engine that ran for so long had nothing wrong with it at its start.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// Publishing and closing may take so long after a signal.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// What an engine's thread tells.
enum Event {
    Usable,
    /// It has ended: whether a command asked for that, or why.
    Ended(Result<bool, Failure>),
}

/// One database of the fleet.
struct Member {
    launch: Zeroizing<Vec<u8>>,
    /// Since when its thread runs.
    running: Option<Instant>,
    usable: bool,
    failure: Option<Failure>,
    retry_at: Option<Instant>,
    pause: Duration,
}

struct Muster<L> {
    fleet: Fleet,
    members: BTreeMap<Name, Member>,
    /// Databases that are not looked at again.
    passed_over: BTreeSet<Name>,
    queue: VecDeque<Name>,
    starting: Option<(Name, Instant)>,
    events: mpsc::UnboundedSender<(Name, Event)>,
    log_of: L,
    metrics: Option<String>,
    /// A command ended one of them.
    asked: bool,
    ending: Option<Instant>,
}

/// Runs the engines of a fleet until the last was ended by a command, or a signal ends the process. `log_of` gives each
/// its log. `ready` is called once, when all were tried; it is a failure where none can be started.
pub fn serve<L: Fn(&Name) -> Dispatch>(
    fleet: Fleet,
    log_of: L,
    ready: impl FnOnce(Result<Mustered, Failure>),
) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot start threads: {error}"));
    raise_limit_of_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let result = runtime.block_on(async {
        let (events, told) = mpsc::unbounded_channel();
        let muster = Muster::new(fleet, log_of, events);
        muster.run(told, ready).await
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

impl<L: Fn(&Name) -> Dispatch> Muster<L> {
    fn new(mut fleet: Fleet, log_of: L, events: mpsc::UnboundedSender<(Name, Event)>) -> Muster<L> {
        let launches = std::mem::take(&mut fleet.launches);
        let queue = launches.iter().map(|(name, _)| name.clone()).collect();
        let members = launches.into_iter().map(|(name, launch)| (name, Member::new(launch))).collect();
        let passed_over = fleet.left_alone.iter().cloned().collect();
        Muster {
            fleet,
            members,
            passed_over,
            queue,
            starting: None,
            events,
            log_of,
            metrics: None,
            asked: false,
            ending: None,
        }
    }

    async fn run(
        mut self,
        mut told: mpsc::UnboundedReceiver<(Name, Event)>,
        ready: impl FnOnce(Result<Mustered, Failure>),
    ) -> Result<(), Failure> {
        if let Err(failure) = self.serve_metrics().await {
            ready(Err(failure.clone()));
            return Err(failure);
        }
        let mut ready = Some(ready);
        let terminated = terminated();
        tokio::pin!(terminated);
        let begun = Instant::now();
        let mut look_at = begun + LOOK_PERIOD;
        loop {
            self.start_next();
            let tried = self.queue.is_empty() && self.starting.is_none();
            if (tried || begun.elapsed() > MUSTER_DEADLINE)
                && let Some(ready) = ready.take()
            {
                let mustered = self.mustered();
                ready(mustered.clone());
                mustered?;
            }
            if self.is_over() {
                return Ok(());
            }
            let next = self.next_look(look_at);
            tokio::select! {
                event = told.recv() => {
                    if let Some((name, event)) = event {
                        self.hear(name, event);
                    }
                }
                () = &mut terminated, if self.ending.is_none() => {
                    tracing::info!("ending");
                    self.ending = Some(Instant::now() + END_DEADLINE);
                    self.queue.clear();
                }
                () = sleep_until(next.into()) => {}
            }
            if self.ending.is_none() && Instant::now() >= look_at {
                self.look_for_more();
                look_at = Instant::now() + LOOK_PERIOD;
            }
        }
    }

    /// Nothing runs any more, and nothing is to run.
    fn is_over(&self) -> bool {
        let none_runs = self.members.values().all(|member| member.running.is_none());
        match self.ending {
            Some(deadline) => none_runs || Instant::now() >= deadline,
            None => none_runs && self.asked && self.queue.is_empty() || self.members.is_empty(),
        }
    }

    fn next_look(&self, look_at: Instant) -> Instant {
        if let Some(deadline) = self.ending {
            return deadline;
        }
        let retries = self.members.values().filter_map(|member| member.retry_at);
        let starting = self.starting.iter().map(|(_, since)| *since + START_PATIENCE);
        retries.chain(starting).fold(look_at, Instant::min)
    }

    /// Starts what is due, one at a time.
    fn start_next(&mut self) {
        let now = Instant::now();
        if self.ending.is_some() {
            return;
        }
        for (name, member) in &mut self.members {
            if member.retry_at.take_if(|at| *at <= now).is_some() {
                self.queue.push_back(name.clone());
            }
        }
        if self.starting.take_if(|(_, since)| since.elapsed() >= START_PATIENCE).is_some() {
            tracing::debug!("an engine takes long to start; going on with the next");
        }
        if self.starting.is_none()
            && let Some(name) = self.queue.pop_front()
        {
            self.start(name);
        }
    }

    fn start(&mut self, name: Name) {
        let Some(member) = self.members.get_mut(&name) else { return };
        let log = (self.log_of)(&name);
        let (launch, events) = (member.launch.clone(), self.events.clone());
        let called = name.clone();
        let thread = std::thread::Builder::new().name(format!("mirror {name}"));
        let spawned = thread.spawn(move || {
            let usable = |readiness: Result<_, Failure>| {
                if readiness.is_ok() {
                    // Nobody listens any longer once the process ends.
                    _ = events.send((called.clone(), Event::Usable));
                }
            };
            let run = || tracing::dispatcher::with_default(&log, || run(&launch, &log, usable));
            let abnormal = |_| Err(Failure::failed("the engine ended abnormally; its log may say why"));
            let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(abnormal);
            _ = events.send((called.clone(), Event::Ended(outcome)));
        });
        match spawned {
            Ok(_) => {
                member.running = Some(Instant::now());
                self.starting = Some((name, Instant::now()));
            }
            Err(error) => member.failed(&name, Failure::failed(format!("cannot start a thread: {error}"))),
        }
    }

    fn hear(&mut self, name: Name, event: Event) {
        self.starting.take_if(|(starting, _)| *starting == name);
        let Some(member) = self.members.get_mut(&name) else { return };
        match event {
            Event::Usable => {
                tracing::info!(database = %name, "mirrored");
                (member.usable, member.failure) = (true, None);
            }
            Event::Ended(Ok(true)) => {
                tracing::info!(database = %name, "ended by a command");
                self.asked = true;
                self.passed_over.insert(name.clone());
                self.members.remove(&name);
            }
            Event::Ended(Ok(false)) if self.ending.is_some() => member.running = None,
            Event::Ended(Ok(false)) => member.failed(&name, Failure::failed("the engine ended by itself")),
            Event::Ended(Err(failure)) => member.failed(&name, failure),
        }
        let gone = !self.fleet.home.database(&name).keyring.exists();
        if gone && self.members.get(&name).is_some_and(|member| member.running.is_none()) {
            tracing::warn!(database = %name, "the database is gone");
            self.members.remove(&name);
        }
    }

    /// What has come of the first pass.
    fn mustered(&self) -> Result<Mustered, Failure> {
        let runs = |member: &Member| member.running.is_some();
        if !self.members.values().any(runs) {
            let mut failures =
                self.members.iter().filter_map(|(name, member)| Some((name, member.failure.as_ref()?)));
            let kind = failures.clone().next().map_or(FailureKind::Failed, |(_, failure)| failure.kind);
            let named = failures.by_ref().map(|(name, failure)| format!("{name}: {failure}"));
            let reasons = named.collect::<Vec<_>>().join("; ");
            return Err(Failure::new(kind, format!("no database could be mirrored: {reasons}")));
        }
        let names = self.members.iter().filter(|(_, member)| runs(member));
        let skipped = self.members.iter().filter_map(|(name, member)| {
            let failure = member.failure.clone()?;
            Some(Skipped { name: name.to_string(), failure, again: true })
        });
        Ok(Mustered {
            pid: std::process::id(),
            metrics: self.metrics.clone(),
            mirrored: names.map(|(name, _)| name.to_string()).collect(),
            skipped: skipped.collect(),
        })
    }

    /// Takes in databases that were joined meanwhile, unless they have a passphrase or somebody runs them.
    fn look_for_more(&mut self) {
        let names = self.fleet.home.names().unwrap_or_else(|error| {
            tracing::warn!(%error, "the databases cannot be listed");
            Vec::new()
        });
        for name in names {
            if self.members.contains_key(&name) || self.passed_over.contains(&name) {
                continue;
            }
            match self.found(&name) {
                Ok(Some(launch)) => {
                    tracing::info!(database = %name, "a database was joined");
                    self.members.insert(name.clone(), Member::new(launch));
                    self.queue.push_back(name);
                }
                Ok(None) => _ = self.passed_over.insert(name),
                Err(failure) => {
                    tracing::warn!(database = %name, %failure, "not mirrored");
                    self.passed_over.insert(name);
                }
            }
        }
    }

    fn found(&self, name: &Name) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let paths = self.fleet.home.database(name);
        if matches!(client::ask(&paths.socket, &Request::Status, ANSWER_DEADLINE), Asked::Answered(_)) {
            return Ok(None);
        }
        let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
        let sealed = std::fs::read(&paths.keyring).map_err(|error| failed(&error))?;
        let keyring = if keyring::needs(&sealed).map_err(|error| failed(&error))?.anything() {
            let kept = kernel_keys::recall(&paths.keyring);
            let opened = kept.and_then(|key| keyring::open_with(&sealed, &key).ok());
            opened.ok_or_else(|| {
                Failure::new(
                    FailureKind::WrongKey,
                    "its keyring has a passphrase: `kilofs mirror` it by its name, or start this anew",
                )
            })?
        } else {
            keyring::open(&sealed, &Factors::default()).map_err(|error| failed(&error))?
        };
        let options = self.fleet.options(name).map_err(|error| failed(&error))?;
        let launch = Launch::new(self.fleet.home.clone(), name.clone(), keyring, options, Role::Mirror);
        Ok(Some(launch.encode()))
    }

    async fn serve_metrics(&mut self) -> Result<(), Failure> {
        let Some(address) = self.fleet.metrics else { return Ok(()) };
        let cannot =
            |error: std::io::Error| Failure::failed(format!("cannot serve metrics at {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        self.metrics = Some(format!("http://{}{METRICS_PATH}", listener.local_addr().map_err(cannot)?));
        let home = self.fleet.home.clone();
        let page = Arc::new(move || metrics::of_home(&home));
        tokio::spawn(scrape::serve(listener, METRICS_PATH, metrics::CONTENT_TYPE, page));
        Ok(())
    }
}

const METRICS_PATH: &str = "/metrics";

impl Member {
    fn new(launch: Zeroizing<Vec<u8>>) -> Member {
        let pause = RETRY_PAUSE_MIN;
        Member { launch, running: None, usable: false, failure: None, retry_at: None, pause }
    }

    fn failed(&mut self, name: &Name, failure: Failure) {
        let sound = self.usable && self.running.is_some_and(|since| since.elapsed() >= SOUND_AFTER);
        self.pause = if sound { RETRY_PAUSE_MIN } else { self.pause };
        tracing::error!(database = %name, %failure, retry_seconds = self.pause.as_secs(), "its engine failed; it is tried again");
        (self.running, self.usable) = (None, false);
        self.failure = Some(failure);
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
    }
}

fn run(
    launch: &[u8],
    log: &Dispatch,
    ready: impl FnOnce(Result<serde_json::Value, Failure>),
) -> Result<bool, Failure> {
    let launch = Launch::decode(launch).map_err(|error| Failure::failed(error.to_string()))?;
    tracing::info!(process = std::process::id(), "starting");
    engine::serve_on(engine::runtime_among_others(log)?, launch, true, ready)
}

/// Each engine has some thirty files and sockets open: the usual soft limit of 1024 holds for thirty databases.
fn raise_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Resolves when the process is asked to end.
async fn terminated() {
    let (Ok(mut term), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {}, _ = hangup.recv() => {} }
}
