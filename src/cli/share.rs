//! `kilofs share`: keeps a plain folder in step with a database.

use super::Outcome;
use super::context::Context;
use super::mount::{ensure_idle, start};
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::Name;
use crate::daemon::launch::Role;
use clap::Args;
use std::path::PathBuf;

/// Keeps a plain folder in step with a database, both ways. Goes to the background; `kilofs umount` ends it.
#[derive(Args)]
pub struct Share {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// The folder
    directory: PathBuf,
    /// Stay in the foreground, with the log on stderr
    #[arg(short, long)]
    foreground: bool,
    /// Leave out what .gitignore names, besides what .kilofsignore does
    #[arg(long)]
    gitignore: bool,
    /// Forget what was in step before: bring both sides together, and remove nothing
    #[arg(long)]
    afresh: bool,
    /// However much is missing in the folder since the last time, remove it everywhere
    #[arg(long, conflicts_with = "afresh")]
    accept_removals: bool,
}

/// Runs `share`.
pub fn run(context: &Context, command: Share) -> Outcome {
    let given = &command.directory;
    let usage = |what: String| Failure::new(FailureKind::Usage, format!("{} {what}", given.display()));
    let directory = given.canonicalize().map_err(|error| usage(format!("cannot be shared: {error}")))?;
    if !directory.is_dir() {
        return Err(usage("is not a directory".into()));
    }
    if directory.join(".kilofs/status").exists() {
        return Err(usage("shows a database already; `kilofs umount` it first".into()));
    }
    let paths = context.existing(&command.name)?;
    for own in [&paths.directory, &paths.log, &paths.socket] {
        if own.canonicalize().is_ok_and(|own| own.starts_with(&directory)) || own.starts_with(&directory) {
            let message = format!("holds kilofs's own files ({}): it would share itself", own.display());
            return Err(usage(message));
        }
    }
    ensure_idle(context, &command.name)?;
    let Share { name, gitignore, afresh, accept_removals, foreground, .. } = command;
    start(context, name, Role::Share { directory, gitignore, afresh, accept_removals }, foreground)
}
