//! `kilofs fsck`: looks at every byte of a store, and repairs it.

use super::Outcome;
use super::context::Context;
use super::output::{bytes, shown, understood};
use super::progress::Progress;
use super::session::Session;
use crate::daemon::answers::{CheckFinding, Checked, REFUSED};
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
    /// Put right what is wrong: from kept versions and peers; what nobody has any more is left out and named
    #[arg(long)]
    repair: bool,
}

/// Runs `fsck`.
pub fn run(context: &Context, Fsck { name, repair }: Fsck) -> Outcome {
    let mut session = Session::new(context, &name, repair)?.rescuing();
    let progress = Progress::start(&format!("{} {name}", if repair { "repairing" } else { "checking" }));
    let request = if repair { Request::Repair } else { Request::Check };
    let answer = session.ask_within(request, CHECK_DEADLINE)?;
    drop(progress);
    let findings = understood::<Checked>(answer.clone())?.findings;
    let aside = findings.iter().filter(|finding| finding.subject.starts_with(REFUSED)).count();
    context.output.answer(answer, |checked: Checked| {
        let absent = match checked.absent {
            0 => String::new(),
            count => format!("; {count} more are not here, and are fetched when they are read"),
        };
        let closed = match checked.closed.len() {
            0 => String::new(),
            count => format!("; {count} blocks cannot be opened here, and only their pieces were compared"),
        };
        let seen = format!("{} objects, {} looked at{absent}{closed}", checked.objects, bytes(checked.bytes));
        let mut text: String = checked.findings.iter().map(line).collect();
        if !checked.planned.is_empty() {
            text.push_str("without what peers may still have, --repair would:\n");
            text.extend(checked.planned.iter().map(line));
        }
        if !checked.repaired.is_empty() {
            text.push_str("repaired:\n");
            text.extend(checked.repaired.iter().map(line));
        }
        if checked.findings.is_empty() {
            format!("{text}{name} is clean: {seen}")
        } else {
            format!("{text}{seen}")
        }
    })?;
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::failed(next_step(&name, count, aside, repair))),
    }
}

/// What a person does about so many findings, some of which are in what is set aside: no other device has that.
fn next_step(name: &Name, count: usize, aside: usize, repaired: bool) -> String {
    let copies = format!(
        "of what is under {REFUSED} this device has the only copy: mount {name}, and copy out of there what can still be read"
    );
    match repaired {
        true if count == aside => format!("{count} things are still wrong with {name}: {copies}"),
        true => {
            let more = if aside > 0 { format!("; {copies}") } else { String::new() };
            format!(
                "{count} things are still wrong with {name}: try again where a peer can be reached that has them{more}"
            )
        }
        false => {
            let more = if aside > 0 { format!("; {copies}") } else { String::new() };
            format!(
                "{count} things are wrong with {name}: `kilofs fsck {name} --repair` gets back what kept versions and peers have, and leaves out the rest{more}"
            )
        }
    }
}

fn line(finding: &CheckFinding) -> String {
    let block = finding.block.map_or("store".into(), |number| format!("block {number}"));
    format!("{block}: {}: {}\n", shown(finding.subject.as_bytes()), shown(finding.what.as_bytes()))
}
