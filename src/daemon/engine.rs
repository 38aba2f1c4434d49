//! An engine from start to end: opens the database, mounts or mirrors it, answers commands on its socket, and leaves
//! nothing behind but the store.

use super::answers::Stopped;
use super::commands::{Desk, unknown_request};
use super::control::{Failure, FailureKind, LINE_BYTES_MAX, Reply, Request};
use super::core::Core;
use super::drive::Driver;
use super::error::EngineError;
use super::hook::Hook;
use super::host::EngineHost;
use super::launch::{Launch, Role};
use crate::fuse::{MountOptions, Mounted, Unmount};
use crate::sync::Input;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

pub use super::genesis::initialise;

const WORKER_THREADS: usize = 2;
/// Unpublished changes of a terminated engine are tried for so long; they are kept in any case.
const PUBLISH_AT_END: Duration = Duration::from_secs(5);
/// Everything durable that is not synced by a program is made so at least so often.
const PERSIST_PERIOD: Duration = Duration::from_secs(2);
/// So many of these periods without a change, and what is in the intent log goes into a commit.
const QUIET_PERIODS: u32 = 5;
const SOCKET_MODE: u32 = 0o600;
/// A kernel that knows a million inodes takes seconds to forget them.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(60);
/// For a question that was sent as somebody else unmounted.
const ASKER_PATIENCE: Duration = Duration::from_millis(500);
/// How long who asked may take to read the answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Runs an engine until it is stopped by command, by signal, or by an unmount. `ready` is called once, when it is
/// usable or has failed.
pub fn serve(launch: Launch, ready: impl FnOnce(Result<Value, Failure>)) -> Result<(), Failure> {
    serve_on(runtime()?, launch, false, ready).map(drop)
}

/// The same on a runtime of the caller's, which ends with the engine: whatever the engine left running, and with it
/// the store's lock, is gone on return. `among` says that other engines live in this process. Tells whether a command
/// asked for the end.
pub(super) fn serve_on(
    runtime: tokio::runtime::Runtime,
    launch: Launch,
    among: bool,
    ready: impl FnOnce(Result<Value, Failure>),
) -> Result<bool, Failure> {
    let result = runtime.block_on(async {
        match Engine::start(launch, among).await {
            Ok(engine) => {
                ready(Ok(engine.desk.status()));
                Ok(engine.run().await)
            }
            Err(failure) => {
                ready(Err(failure.clone()));
                Err(failure)
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    let Some((mut asker, stopped)) = result? else { return Ok(false) };
    let mut answered = || -> io::Result<()> {
        let mut line = serde_json::to_vec(&Reply::Done(json!(stopped)))?;
        line.push(b'\n');
        asker.set_nonblocking(false)?;
        asker.set_write_timeout(Some(ANSWER_PATIENCE))?;
        asker.write_all(&line)
    };
    // Whoever asked may be gone; the engine has ended all the same.
    _ = answered();
    Ok(true)
}

/// A runtime for one engine among others: one worker, and all its threads write to the engine's log.
pub(super) fn runtime_among_others(log: &tracing::Dispatch) -> Result<tokio::runtime::Runtime, Failure> {
    let log = log.clone();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        // The guard would give the thread its old log back, but the thread never works for anybody else.
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)))
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))
}

/// A database opened by a command that found no engine running.
pub struct Local {
    runtime: Option<tokio::runtime::Runtime>,
    desk: Arc<Desk>,
    stop: Arc<Notify>,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// Opens a database for one command.
pub fn local(launch: Launch) -> Result<Local, Failure> {
    let network = matches!(launch.role, Role::Command { network: true, .. });
    let runtime = runtime()?;
    let core = open_core(launch, false)?;
    let (driver, inputs) = runtime.block_on(Driver::start(core.clone(), network)).map_err(Failure::from)?;
    let stop = Arc::new(Notify::new());
    // A repair works on what is there; nothing may be taken over meanwhile, and nothing be published.
    let task = (!core.settings.rescue).then(|| runtime.spawn(driver.clone().run(inputs, stop.clone())));
    let desk = Desk { core, driver, serving: false, among: false, mounted_at: None, share: OnceLock::new() };
    let desk = Arc::new(desk);
    Ok(Local { runtime: Some(runtime), desk, stop, task })
}

impl Local {
    /// Answers one request.
    pub fn handle(&self, request: Request) -> Reply {
        let Some(runtime) = &self.runtime else {
            return Reply::Failed(Failure::failed("the database is closed"));
        };
        runtime.block_on(self.desk.clone().answer(request))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Err(error) = self.desk.core.persist() {
            tracing::error!(%error, "the last changes are not durable");
        }
        self.stop.notify_one();
        if let (Some(runtime), Some(task)) = (self.runtime.take(), self.task.take()) {
            let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), task).await });
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

fn open_core(launch: Launch, as_admin: bool) -> Result<Arc<Core>, Failure> {
    let paths = launch
        .home
        .prepare(&launch.name)
        .map_err(|error| Failure::failed(format!("cannot prepare the home of {}: {error}", launch.name)))?;
    let mut settings = launch.options.settle();
    settings.rescue = matches!(launch.role, Role::Command { rescue: true, .. });
    settings.mirrors = launch.role == Role::Mirror;
    // A mirror and a plain folder have everything.
    settings.on_demand &= !matches!(launch.role, Role::Mirror | Role::Share { .. });
    let keyring = super::moves::bring_up(&paths, launch.keyring);
    let core = Core::open(launch.name, paths, keyring, launch.held, settings, as_admin);
    core.map(Arc::new).map_err(Failure::from)
}

struct Engine {
    desk: Arc<Desk>,
    mounted: Mutex<Option<Arc<Mounted>>>,
    listener: UnixListener,
    inputs: Mutex<Option<mpsc::UnboundedReceiver<Input>>>,
    /// Somebody asked for the unmount that is under way, and waits for an answer.
    asked: AtomicBool,
}

/// Why an engine ends.
enum End {
    Signal,
    Unmounted,
    Asked { publish: Duration, answer: UnixStream },
}

impl Engine {
    async fn start(launch: Launch, among: bool) -> Result<Arc<Engine>, Failure> {
        let role = launch.role.clone();
        let as_admin =
            matches!(&role, Role::Mount { options, .. } if options.iter().any(|option| option == "admin"));
        if as_admin && launch.keyring.capability.admin_key().is_none() {
            return Err(Failure::new(
                FailureKind::Refused,
                "-o admin needs the admin capability, which this device does not hold",
            ));
        }
        let core = tokio::task::spawn_blocking(move || open_core(launch, as_admin))
            .await
            .map_err(|error| Failure::failed(error.to_string()))??;
        let listener = bind(&core.paths.socket)?;
        let (driver, inputs) = Driver::start(core.clone(), true).await.map_err(Failure::from)?;
        let mounted_at = match &role {
            Role::Mount { directory, .. } => Some(directory.display().to_string()),
            _ => None,
        };
        let desk = Arc::new(Desk {
            core: core.clone(),
            driver: driver.clone(),
            serving: true,
            among,
            mounted_at,
            share: OnceLock::new(),
        });
        let sharing = (desk.clone(), role.clone());
        let sharing = tokio::task::spawn_blocking(move || sharing.0.start_share(&sharing.1));
        sharing.await.map_err(|error| Failure::failed(error.to_string()))??;
        let mounted = match role {
            Role::Mount { directory, options } => {
                let desk = desk.clone();
                let mounting = tokio::task::spawn_blocking(move || mount(desk, &directory, &options));
                Some(mounting.await.map_err(|error| Failure::failed(error.to_string()))??)
            }
            _ => None,
        };
        if let Some(mounted) = &mounted {
            driver.set_kernel(Arc::downgrade(mounted));
        }
        let capability = super::report::kind_name(desk.core.keys.kind);
        let done = match (&desk.mounted_at, desk.share_status().0) {
            (Some(directory), _) => format!("mounted at {}", crate::base::shown(directory.as_bytes())),
            (None, Some(folder)) => format!("shared with {}", crate::base::shown(folder.as_bytes())),
            (None, None) => "mirrored".into(),
        };
        tracing::info!("{} ({capability}) is {done}", desk.core.name);
        Ok(Arc::new(Engine {
            desk,
            mounted: Mutex::new(mounted),
            listener,
            inputs: Mutex::new(Some(inputs)),
            asked: AtomicBool::new(false),
        }))
    }

    /// Runs to the end; the command that asked for it, if any, is to be answered when all is over.
    async fn run(self: &Arc<Self>) -> Option<(std::os::unix::net::UnixStream, Stopped)> {
        let inputs = self.inputs.lock().take()?;
        let stop = Arc::new(Notify::new());
        let driving = tokio::spawn(self.desk.driver.clone().run(inputs, stop.clone()));
        let persisting = tokio::spawn(persist_regularly(self.desk.core.clone()));
        let hook = Hook::start(&self.desk);
        let end = self.wait().await;
        tracing::info!("ending");
        let (publish, answer) = match end {
            End::Signal => {
                if let Err(failure) = self.unmount(true).await {
                    tracing::warn!(%failure, "the mount is left to the kernel");
                }
                (PUBLISH_AT_END, None)
            }
            End::Unmounted => (PUBLISH_AT_END, None),
            End::Asked { publish, answer } => (publish, Some(answer)),
        };
        self.stop_share().await;
        persisting.abort();
        drop(hook);
        self.persist().await;
        let published = self.desk.driver.drain(publish).await;
        self.persist().await;
        if !published {
            tracing::warn!(
                pending = self.desk.core.pending_bytes(),
                "not everything was published; it is kept for the next start"
            );
        }
        stop.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(2), driving).await;
        let _ = std::fs::remove_file(&self.desk.core.paths.socket);
        let pending_bytes = if published { 0 } else { self.desk.core.pending_bytes().max(1) };
        Some((answer?.into_std().ok()?, Stopped { pending_bytes }))
    }

    async fn stop_share(&self) {
        let Some(share) = self.desk.share.get().cloned() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || share.stop()).await {
            tracing::error!(%error, "the shared folder ended abnormally");
        }
    }

    async fn persist(&self) {
        let core = self.desk.core.clone();
        match tokio::task::spawn_blocking(move || core.persist()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last changes are not durable"),
            Err(error) => tracing::error!(%error, "persisting ended abnormally"),
        }
    }

    async fn wait(self: &Arc<Self>) -> End {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let terminated = async {
            let (Ok(mut term), Ok(mut interrupt), Ok(mut hangup)) = (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
                signal(SignalKind::hangup()),
            ) else {
                return std::future::pending().await;
            };
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {}, _ = hangup.recv() => {} }
        };
        let mounted = self.mounted.lock().clone();
        let unmounted = async move {
            match mounted {
                Some(mounted) => _ = tokio::task::spawn_blocking(move || mounted.wait(None)).await,
                None => std::future::pending().await,
            }
        };
        let serving = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => _ = tokio::spawn(self.clone().converse(stream, asked.clone())),
                    Err(error) => {
                        tracing::warn!(%error, "control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = terminated => End::Signal,
            end = asks.recv() => end.unwrap_or(End::Signal),
            () = unmounted => {
                // An unmount that was asked for reaches us here too, before the kernel has let go of all inodes.
                let patience = if self.asked.load(Ordering::SeqCst) { UNMOUNT_PATIENCE } else { ASKER_PATIENCE };
                tokio::time::timeout(patience, asks.recv()).await.ok().flatten().unwrap_or(End::Unmounted)
            }
            () = serving => End::Signal,
        }
    }

    async fn converse(self: Arc<Self>, stream: UnixStream, asked: mpsc::UnboundedSender<End>) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX);
        if !matches!(limited.read_line(&mut line).await, Ok(count) if count > 0) {
            return;
        }
        let stream = reader.into_inner();
        let reply = match serde_json::from_str::<Request>(&line) {
            Ok(Request::Stop { publish_seconds }) => {
                let publish = Duration::try_from_secs_f64(publish_seconds).unwrap_or(PUBLISH_AT_END);
                self.asked.store(true, Ordering::SeqCst);
                match self.unmount(false).await {
                    Ok(()) => {
                        let _ = asked.send(End::Asked { publish, answer: stream });
                        return;
                    }
                    Err(failure) => {
                        self.asked.store(false, Ordering::SeqCst);
                        Reply::Failed(failure)
                    }
                }
            }
            Ok(request) => self.desk.clone().answer(request).await,
            Err(error) => unknown_request(&error),
        };
        respond(stream, &reply).await;
    }

    /// Unmounts; a mount that is in use stays, unless `lazily`.
    async fn unmount(&self, lazily: bool) -> Result<(), Failure> {
        let Some(mounted) = self.mounted.lock().clone() else { return Ok(()) };
        let how = if lazily { Unmount::Lazily } else { Unmount::Gently };
        let unmounting = tokio::task::spawn_blocking(move || mounted.unmount(how));
        match unmounting.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::failed(error.to_string())),
            Err(error) => Err(Failure::failed(error.to_string())),
        }
    }
}

/// Makes changes durable that no program syncs. Once it is quiet, brings them into a commit, and gives back what has
/// died: cleaning goes on until nothing is due, and a commit more lets go of what the one before it still keeps.
async fn persist_regularly(core: Arc<Core>) {
    let mut last = None;
    let (mut quiet, mut commits_due) = (0, 0);
    let mut failing = None;
    loop {
        tokio::time::sleep(PERSIST_PERIOD).await;
        let Some(tree) = &core.tree else { return };
        let generation = tree.generation();
        let changed = last != Some(generation);
        quiet = if changed { 0 } else { quiet + 1 };
        if changed || tree.is_untidy() {
            commits_due = 2;
        }
        if !changed && (quiet < QUIET_PERIODS || commits_due == 0) {
            continue;
        }
        let persisting = core.clone();
        let persist = move || if changed { persisting.persist() } else { persisting.commit() };
        match tokio::task::spawn_blocking(persist).await {
            Ok(Ok(())) => {
                if changed {
                    last = Some(generation);
                } else {
                    commits_due -= 1;
                }
                if failing.take().is_some() {
                    tracing::info!("changes are durable again");
                }
            }
            // Once, however often it is tried.
            Ok(Err(error)) => {
                let error = Some(error.to_string());
                if failing != error {
                    tracing::error!(error, "changes are not durable; it is tried again");
                    failing = error;
                }
            }
            Err(error) => tracing::error!(%error, "persisting ended abnormally"),
        }
    }
}

async fn respond(mut stream: UnixStream, reply: &Reply) {
    let Ok(mut line) = serde_json::to_vec(reply) else { return };
    line.push(b'\n');
    let _ = tokio::time::timeout(ANSWER_PATIENCE, stream.write_all(&line)).await;
}

fn mount(desk: Arc<Desk>, directory: &Path, options: &[String]) -> Result<Arc<Mounted>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::failed(super::drive::error_chain(error));
    let mut parsed = MountOptions::new(desk.core.name.as_str());
    parsed.parse(&options.join(",")).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
    let tree = desk.core.tree.clone().ok_or_else(|| Failure::from(EngineError::Capability("mirror")))?;
    let host = Arc::new(EngineHost::new(desk));
    crate::fuse::mount(tree, host, directory, &parsed).map(Arc::new).map_err(|error| failed(&error))
}

/// Binds the control socket. The store's lock is held: a socket that stands there has nobody behind it.
fn bind(path: &Path) -> Result<UnixListener, Failure> {
    let refused = |error: io::Error| Failure::failed(format!("cannot listen on {}: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(refused)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode).map_err(refused)?;
    Ok(listener)
}
