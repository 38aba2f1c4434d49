//! `kilofs join`: a database from a link. The link comes from standard input, a file or a prompt, never from the
//! arguments, which other processes can read.

use super::Outcome;
use super::context::Context;
use super::output::moment;
use super::passphrase::{self, Passphrase};
use crate::crypt::link::{self, Capability, LinkError};
use crate::crypt::recovery::RecoveryRoot;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::core::now_seconds;
use crate::daemon::home::Name;
use crate::daemon::setup;
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const LINK_BYTES_MAX: u64 = 16 << 10;

/// Takes a database from a link on standard input, or from the words of a recovery sheet. Its content comes with the first mount.
#[derive(Args)]
pub struct Join {
    /// What to call it on this device
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Read the link from FILE
    #[arg(long, value_name = "FILE")]
    link_file: Option<PathBuf>,
    /// Read the passphrase of a locked link from the first line of FILE
    #[arg(long, value_name = "FILE")]
    link_passphrase_file: Option<PathBuf>,
    /// Take the words of a recovery sheet instead of a link
    #[arg(long, conflicts_with = "link_passphrase_file")]
    recovery_words: bool,
}

/// Runs `join`.
pub fn run(context: &Context, command: Join) -> Outcome {
    let name = &command.name;
    setup::ensure_free(&context.home, name)?;
    let question = if command.recovery_words { "The 24 words, one after the other: " } else { "Link: " };
    let text = read_text(command.link_file.as_deref(), question)?;
    let capability = if command.recovery_words {
        let root = RecoveryRoot::from_words(&text);
        root.map_err(|error| Failure::new(FailureKind::WrongKey, error.to_string()))?.recover()
    } else {
        opened(&text, command.link_passphrase_file.as_deref())?
    };
    let options = context.common_options()?;
    let factors = context.passphrases.choose(name, &options)?;
    let capability = setup::join(&context.home, name, &factors, &context.flags, capability)?;
    let kind = capability.kind();
    let joined = json!({
        "name": name.as_str(),
        "database": capability.database_id().to_string(),
        "key": capability.database_public.to_string(),
        "capability": kind.to_string(),
    });
    context.output.result(&joined, |_| {
        let home = context.home_flag();
        let next = if kind == link::Kind::Mirror {
            format!("kilofs {home}mirror {name}        keep it alive")
        } else {
            format!("kilofs {home}mount {name} DIR     show it as a directory")
        };
        format!("{name} is joined with a {kind} link. Next:\n  {next}")
    })
}

fn opened(text: &str, passphrase_file: Option<&Path>) -> Result<Capability, Failure> {
    let mut failed = None;
    let parsed = link::parse_at(text, u64::from(now_seconds()), || match unlock(passphrase_file) {
        Ok(passphrase) => Some(passphrase),
        Err(failure) => {
            failed = Some(failure);
            None
        }
    });
    match (parsed, failed) {
        (Ok(capability), _) => Ok(capability),
        (Err(_), Some(failure)) => Err(failure),
        (Err(error), None) => Err(refused(&error)),
    }
}

fn read_text(file: Option<&Path>, question: &str) -> Result<Passphrase, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LINK_BYTES_MAX as usize));
    let read = match file {
        Some(file) => File::open(file).and_then(|file| file.take(LINK_BYTES_MAX).read_to_end(&mut bytes)),
        None if stdin().is_terminal() => return passphrase::prompt(question),
        None => stdin().lock().take(LINK_BYTES_MAX).read_to_end(&mut bytes),
    };
    read.map_err(|error| Failure::failed(format!("cannot read what to join with: {error}")))?;
    let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
    text.map_err(|_| Failure::new(FailureKind::WrongKey, "what was given is no text, so no link"))
}

fn unlock(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(file) => passphrase::from_file(file),
        None => passphrase::prompt("Passphrase of the link: "),
    }
}

fn refused(error: &LinkError) -> Failure {
    let message = match error {
        LinkError::Expired(when) => {
            let when = moment(i64::try_from(*when).unwrap_or(i64::MAX));
            format!("{error} (it was good until {when} UTC by the clock of this device)")
        }
        other => other.to_string(),
    };
    Failure::new(FailureKind::WrongKey, message)
}
