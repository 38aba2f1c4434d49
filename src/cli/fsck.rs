//! `kilofs fsck`: looks at every byte of a store.

use super::Outcome;
use super::context::Context;
use super::output::{bytes, shown, understood};
use super::progress::Progress;
use super::session::Session;
use crate::daemon::answers::{CheckFinding, Checked};
use crate::daemon::control::{Failure, Request};
use crate::daemon::home::Name;
use clap::Args;
use std::time::Duration;

const CHECK_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Looks at every byte of a database's store that the keys open; exit code 1 if something is wrong.
#[derive(Args)]
pub struct Fsck {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
}

/// Runs `fsck`.
pub fn run(context: &Context, Fsck { name }: Fsck) -> Outcome {
    let mut session = Session::new(context, &name, false)?;
    let progress = Progress::start(&format!("checking {name}"));
    let answer = session.ask_within(Request::Check, CHECK_DEADLINE)?;
    drop(progress);
    let findings = understood::<Checked>(answer.clone())?.findings.len();
    context.output.answer(answer, |checked: Checked| {
        let line = |finding: &CheckFinding| {
            let block = finding.block.map_or("store".into(), |number| format!("block {number}"));
            format!("{block}: {}: {}\n", shown(finding.subject.as_bytes()), shown(finding.what.as_bytes()))
        };
        let found: String = checked.findings.iter().map(line).collect();
        let seen = format!("{} objects, {} looked at", checked.objects, bytes(checked.bytes));
        if checked.findings.is_empty() {
            format!("{name} is clean: {seen}")
        } else {
            format!("{found}{seen}")
        }
    })?;
    match findings {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "{count} things are wrong with {name}; what peers still hold is fetched again at the next `kilofs sync {name}`"
        ))),
    }
}
