//! `kilofs versions`, `log`, `diff` and `restore`: what was.

use super::Outcome;
use super::context::Context;
use super::output::{bytes, moment, short, shown_path, table};
use super::paths;
use super::session::Session;
use crate::daemon::answers::{Differing, KeptVersion, LogEntry, Restored};
use crate::daemon::control::Request;
use crate::daemon::home::Name;
use clap::Args;
use data_encoding::HEXLOWER;
use std::ffi::OsString;
use std::time::Duration;

const RESTORE_DEADLINE: Duration = Duration::from_secs(24 * 3600);
const DIFFERENCE_DEADLINE: Duration = Duration::from_secs(3600);

/// Lists the kept versions, newest first.
#[derive(Args)]
pub struct Versions {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
}

/// Lists the newest commits, newest first.
#[derive(Args)]
pub struct Log {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Lists what differs between a kept version and a newer one.
#[derive(Args)]
pub struct Diff {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// The version to start from: a number of `kilofs versions`
    older: u32,
    /// The version to compare with; what is there now without it
    #[arg(default_value_t = 0)]
    newer: u32,
}

/// Copies a file or directory out of a kept version back into the database.
#[derive(Args)]
pub struct Restore {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// The version: a number of `kilofs versions`
    version: u32,
    /// What to copy: a path from the database's root
    path: OsString,
    /// Where to, if not where it was: a path from the database's root
    #[arg(long, value_name = "PATH")]
    to: Option<OsString>,
}

/// Runs `versions`.
pub fn versions(context: &Context, command: Versions) -> Outcome {
    let answer = Session::new(context, &command.name, false)?.ask(Request::Versions)?;
    context.output.answer(answer, |versions: Vec<KeptVersion>| {
        let row = |version: &KeptVersion| {
            let state = match (version.in_record, version.complete) {
                (true, true) => "in the record",
                (true, false) => "in the record, not here yet",
                (false, true) => "kept here",
                (false, false) => "not here",
            };
            let device = version.device.as_deref().map(short).unwrap_or_default();
            let size = bytes(version.image_bytes);
            vec![
                version.version.to_string(),
                moment(version.time),
                device,
                size,
                short(&version.infohash),
                state.into(),
            ]
        };
        table(&versions.iter().map(row).collect::<Vec<_>>())
    })
}

/// Runs `log`.
pub fn log(context: &Context, command: Log) -> Outcome {
    let answer = Session::new(context, &command.name, false)?
        .ask(Request::Log { limit: command.limit, paths: true })?;
    context.output.answer(answer, |entries: Vec<LogEntry>| {
        let row = |entry: &LogEntry| {
            let merged = if entry.parents.len() > 1 { "merge" } else { "" };
            let kept = entry.version.map_or(String::new(), |version| format!("version {version}"));
            let what = LogEntry { parents: Vec::new(), ..entry.clone() };
            let cells = [short(&entry.commit), moment(entry.time), short(&entry.device), merged.into(), kept];
            cells.into_iter().chain([super::view::touched(&what)]).collect()
        };
        table(&entries.iter().map(row).collect::<Vec<_>>())
    })
}

/// Runs `diff`.
pub fn diff(context: &Context, command: Diff) -> Outcome {
    let Diff { name, older, newer } = command;
    let answer = Session::new(context, &name, false)?
        .ask_within(Request::Difference { older, newer }, DIFFERENCE_DEADLINE)?;
    context.output.answer(answer, |entries: Vec<Differing>| {
        let line = |entry: &Differing| {
            let sign = match entry.change.as_str() {
                "added" => '+',
                "removed" => '-',
                "attributes" => '.',
                _ => '~',
            };
            format!("{sign} {}\n", shown_path(&entry.path_hex))
        };
        entries.iter().map(line).collect()
    })
}

/// Runs `restore`.
pub fn restore(context: &Context, command: Restore) -> Outcome {
    let Restore { name, version, path, to } = command;
    let path_hex = HEXLOWER.encode(&paths::inside(&path)?);
    let to_hex = to.map(|to| paths::inside(&to).map(|to| HEXLOWER.encode(&to))).transpose()?;
    let request = Request::Restore { version, path_hex, to_hex };
    let answer = Session::new(context, &name, false)?.ask_within(request, RESTORE_DEADLINE)?;
    context.output.answer(answer, |restored: Restored| {
        let Restored { path_hex, entries, bytes: content } = restored;
        format!("{} is back: {entries} entries, {}", shown_path(&path_hex), bytes(content))
    })
}
