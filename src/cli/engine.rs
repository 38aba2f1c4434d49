//! `kilofs engine`, hidden: the process behind a mount or a mirror. It reads its launch from standard input, writes one
//! line of readiness to standard output, and logs to standard error.

use super::Outcome;
use super::context::Context;
use super::logging;
use crate::daemon::control::{Failure, Reply};
use crate::daemon::engine;
use crate::daemon::fleet::{self, Fleet};
use crate::daemon::home::Name;
use crate::daemon::launch::Launch;
use clap::Args;
use rustix::fs::Mode;
use serde_json::json;
use std::cell::Cell;
use std::io::{self, Write};

/// An engine in the background.
#[derive(Args)]
pub struct Engine {
    /// For the list of processes only
    name: Option<String>,
    /// Many engines instead of one
    #[arg(long)]
    all: bool,
}

/// Runs `engine`. `open` says where the system did not let this process be shut.
pub fn run(context: &Context, command: Engine, open: &[String]) -> Outcome {
    // The child of a mount leads no group yet; were it to, it would keep its session, and that only means more signals.
    _ = rustix::process::setsid();
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    logging::of_engine(context.verbose);
    logging::tell(open);
    let told = Cell::new(false);
    let tell = |reply: Reply| {
        told.set(true);
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        // Whoever started this may have given up waiting; a mount that works goes on all the same.
        _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    };
    if command.all {
        return reported(&told, &tell, run_all(context, &tell));
    }
    let launched = Launch::read(io::stdin().lock()).map_err(|error| Failure::failed(error.to_string()));
    // No directory is pinned by an engine that lives long.
    let launched = launched.and_then(|launch| {
        std::env::set_current_dir("/").map(|()| launch).map_err(|error| Failure::failed(error.to_string()))
    });
    let outcome = launched.and_then(|launch| {
        engine::serve(launch, |readiness| match readiness {
            Ok(readiness) => tell(Reply::Done(readiness)),
            Err(failure) => tell(Reply::Failed(failure)),
        })
    });
    reported(&told, &tell, outcome)
}

/// A failure that nobody was told yet is told instead of being printed.
fn reported(told: &Cell<bool>, tell: &impl Fn(Reply), outcome: Outcome) -> Outcome {
    match outcome {
        Err(failure) if !told.get() => {
            tell(Reply::Failed(failure));
            Ok(())
        }
        other => other,
    }
}

fn run_all(context: &Context, tell: &impl Fn(Reply)) -> Outcome {
    let failed = |error: io::Error| Failure::failed(error.to_string());
    let fleet = Fleet::read(io::stdin().lock()).map_err(failed)?;
    std::env::set_current_dir("/").map_err(failed)?;
    let home = fleet.home.clone();
    let log_of = |name: &Name| logging::of_one_in_file(context.verbose, name, &home.database(name).log);
    fleet::serve(fleet, log_of, |mustered| match mustered {
        Ok(mustered) => tell(Reply::Done(json!(mustered))),
        Err(failure) => tell(Reply::Failed(failure)),
    })
}
