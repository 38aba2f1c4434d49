//! `kilofs sync`: publish what is pending, fetch what is newer, wait for both.

use super::Outcome;
use super::context::Context;
use super::output::understood;
use super::progress::{Meter, Progress};
use super::session::Session;
use crate::daemon::answers::Synced;
use crate::daemon::client::{self, Asked};
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use crate::daemon::status::Status;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What an engine may need beyond the time that it was given.
const GRACE: Duration = Duration::from_secs(15);
const METER_DEADLINE: Duration = Duration::from_secs(2);
const TIMEOUT_SECONDS_MAX: f64 = 1e6;

/// Publishes what is pending and fetches what is newer; returns when both are done.
#[derive(Args)]
pub struct Sync {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Give up after so many seconds
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    timeout: f64,
}

/// Runs `sync`.
pub fn run(context: &Context, Sync { name, timeout }: Sync) -> Outcome {
    let mut session = Session::new(context, &name, true)?;
    let request = Request::Sync { timeout_seconds: timeout };
    let progress = Progress::metered(&format!("syncing {name}"), meter(context.existing(&name)?.socket));
    let answer = session.ask_within(request, Duration::from_secs_f64(timeout) + GRACE)?;
    drop(progress);
    let synced: Synced = understood(answer.clone())?;
    if !synced.published {
        return Err(Failure::new(FailureKind::Unreachable, format!("{name} is not published yet")));
    }
    context.output.answer(answer, |synced: Synced| match synced.seq {
        Some(seq) => format!("{name} is up to date at record number {seq}"),
        None => format!("{name} is up to date; nothing was ever published"),
    })
}

fn meter(socket: PathBuf) -> Meter {
    Box::new(move || {
        let Asked::Answered(answer) = client::ask(&socket, &Request::Status, METER_DEADLINE) else {
            return None;
        };
        let status: Status = serde_json::from_value(answer.ok()?).ok()?;
        let sums = status.transfers.iter().map(|transfer| (transfer.done_bytes, transfer.total_bytes));
        sums.reduce(|(done, total), (more_done, more)| {
            (done.saturating_add(more_done), total.saturating_add(more))
        })
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.0..=TIMEOUT_SECONDS_MAX).contains(seconds));
    number.ok_or_else(|| "a timeout is a number of seconds".into())
}
