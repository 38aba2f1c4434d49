//! `kilofs mount`: an engine in the background, or here with `-f`.

use super::Outcome;
use super::background;
use super::context::Context;
use super::logging;
use super::output::shown;
use super::umount::is_dead;
use crate::crypt::link::Kind;
use crate::daemon::client::{self, Asked};
use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::engine;
use crate::daemon::home::Name;
use crate::daemon::launch::{Launch, Role};
use crate::daemon::size;
use crate::daemon::status::Status;
use crate::fuse::MountOptions;
use clap::Args;
use serde_json::Value;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RUNNING_DEADLINE: Duration = Duration::from_secs(5);
/// How long an engine that does not answer well is given to be gone.
const ENDING_PATIENCE: Duration = Duration::from_secs(3);
const ENDING_PAUSE: Duration = Duration::from_millis(50);
/// The mount option that keeps the admin key in the engine.
const ADMIN_OPTION: &str = "admin";

/// Shows a database as a directory. Goes to the background once the mount is usable.
#[derive(Args)]
pub struct Mount {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// The mountpoint: a directory
    directory: PathBuf,
    /// Stay in the foreground, with the log on stderr
    #[arg(short, long)]
    foreground: bool,
    /// Fetch the content of files when they are read, and no sooner; =false fetches everything again. Remembered
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    on_demand: Option<bool>,
    /// Let files fetched on demand take no more room than SIZE, such as 20G, where others keep them. Remembered
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    local_limit: Option<u64>,
    /// Mount options: ro, allow_other, admin (write read-only blocks with the admin key), acl, idmap=, uid=, …
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<String>,
}

/// Runs `mount`.
pub fn mount(context: &Context, command: Mount) -> Outcome {
    let directory = mountpoint(&command.directory)?;
    ensure_idle(context, &command.name)?;
    if std::fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_some()) {
        let shown = shown(directory.as_os_str().as_bytes());
        context
            .output
            .note(&format!("kilofs: {shown} is not empty: what is in it is hidden until the unmount"));
    }
    let options: Vec<String> =
        command.options.into_iter().filter(|option| !option.is_empty()).map(absolute_table).collect();
    // The engine reads them too; here a wrong word is told before anybody types a passphrase.
    let parsed = MountOptions::new(command.name.as_str()).parse(&options.join(","));
    parsed.map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
    if command.on_demand.is_some() || command.local_limit.is_some() {
        let (on_demand, limit) = (command.on_demand, command.local_limit);
        let change = |saved: Options| Options {
            on_demand: on_demand.or(limit.map(|_| true)).or(saved.on_demand),
            local_limit: limit.or(saved.local_limit).filter(|_| on_demand != Some(false)),
            ..saved
        };
        context.save_options(&command.name, "how files are fetched", change)?;
    }
    start(context, command.name, Role::Mount { directory, options }, command.foreground)
}

/// Starts the engine of one database, in the background or here.
pub fn start(context: &Context, name: Name, role: Role, foreground: bool) -> Outcome {
    let keyring = context.open_keyring(&name)?;
    let is_mirror = role == Role::Mirror;
    if keyring.capability.kind() == Kind::Mirror && !is_mirror {
        let message = format!(
            "{name} was joined with a mirror link, which cannot open it; `kilofs mirror {name}` keeps it alive"
        );
        return Err(Failure::new(FailureKind::Refused, message));
    }
    let as_admin =
        matches!(&role, Role::Mount { options, .. } if options.iter().any(|option| option == ADMIN_OPTION));
    if as_admin && keyring.capability.admin_key().is_none() {
        let message =
            format!("-o {ADMIN_OPTION} needs the admin key, which {name} does not have on this device");
        return Err(Failure::new(FailureKind::Refused, message));
    }
    let options = context.options(&name)?;
    let settings = options.clone().settle();
    if matches!(role, Role::Mount { .. }) && settings.on_demand && !settings.neighbours {
        let message =
            "files on demand come from neighbours: --on-demand and --no-neighbours do not go together";
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let launch = Launch::new(context.home.clone(), name, keyring, options, role);
    let output = context.output;
    let usable = move |name: &Name, readiness: Value| {
        for warning in readiness["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output.note(&format!("kilofs: {}", shown(warning.as_bytes())));
        }
        output.result(&readiness, |readiness| match readiness["mounted_at"].as_str() {
            Some(directory) => format!("{name} is mounted at {}", shown(directory.as_bytes())),
            None if readiness["shared_at"].is_string() => format!(
                "{name} is shared with {}; `kilofs umount {name}` ends that",
                shown(readiness["shared_at"].as_str().unwrap_or_default().as_bytes())
            ),
            None => format!("{name} is mirrored; `kilofs umount {name}` ends that"),
        })
    };
    let name = launch.name.clone();
    if !foreground {
        return background::start(context, &launch).and_then(|readiness| usable(&name, readiness));
    }
    logging::of_engine(context.verbose);
    engine::serve(launch, move |readiness| {
        // A failure to start is what `serve` returns; one to print is no reason to end a mount.
        if let Ok(readiness) = readiness {
            _ = usable(&name, readiness);
        }
    })
}

/// A table of ids is read by an engine that works in another directory.
fn absolute_table(option: String) -> String {
    let Some((key @ ("uidfile" | "gidfile"), file)) = option.split_once('=') else { return option };
    std::path::absolute(file).map_or(option.clone(), |path| format!("{key}={}", path.display()))
}

/// The mountpoint as an absolute path. One that a dead engine left behind is cleared by the new one, so it passes.
fn mountpoint(given: &Path) -> Result<PathBuf, Failure> {
    let usage = |what: &str| Failure::new(FailureKind::Usage, format!("{} {what}", given.display()));
    match std::fs::metadata(given) {
        Ok(found) if !found.is_dir() => return Err(usage("is not a directory")),
        Ok(_) if given.join(".kilofs/status").exists() => {
            return Err(usage("shows a database already; `kilofs umount` it first"));
        }
        Ok(_) => match given.canonicalize() {
            Err(error) if !is_dead(&error) => return Err(usage(&format!("cannot be used: {error}"))),
            Ok(found) => return Ok(found),
            // It died just now.
            Err(_) => {}
        },
        Err(error) if is_dead(&error) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(usage("does not exist; make it first"));
        }
        Err(error) => return Err(usage(&format!("cannot be used: {error}"))),
    }
    let absolute = std::path::absolute(given).map_err(|error| usage(&format!("cannot be used: {error}")))?;
    let (Some(parent), Some(last)) = (absolute.parent(), absolute.file_name()) else { return Ok(absolute) };
    if last.as_bytes() == b".." {
        return Ok(absolute);
    }
    Ok(parent.canonicalize().map_or(absolute.clone(), |parent| parent.join(last)))
}

/// Fails where an engine runs the database already.
pub fn ensure_idle(context: &Context, name: &Name) -> Outcome {
    let paths = context.existing(name)?;
    let end = Instant::now() + ENDING_PATIENCE;
    let answer = loop {
        match client::ask(&paths.socket, &Request::Status, RUNNING_DEADLINE) {
            Asked::Answered(Ok(answer)) => break answer,
            // One that was killed still has its socket for a moment.
            Asked::Answered(Err(failure))
                if matches!(failure.kind, FailureKind::Failed | FailureKind::Ended)
                    && Instant::now() < end =>
            {
                std::thread::sleep(ENDING_PAUSE);
            }
            Asked::Answered(Err(failure)) => return Err(failure),
            Asked::NoEngine | Asked::Stale => return Ok(()),
        }
    };
    let running = serde_json::from_value::<Status>(answer).unwrap_or_default();
    let process = running.pid.map_or(String::new(), |pid| format!(" by process {pid}"));
    Err(Failure::failed(match running.mounted_at {
        Some(directory) => {
            let directory = shown(directory.as_bytes());
            format!(
                "{name} is mounted at {directory}{process} already; `kilofs umount {directory}` ends that"
            )
        }
        None => format!("{name} is mirrored{process} already; `kilofs umount {name}` ends that"),
    }))
}
