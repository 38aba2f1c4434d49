//! `kilofs invite`: a link for one person, locked with words that are told another way, and good for some days.

use super::Outcome;
use super::code::{Code, write_private};
use super::context::Context;
use super::link::weakened;
use super::output::moment;
use super::unlock::time;
use crate::crypt::link::{self, Kind};
use crate::crypt::recovery;
use crate::daemon::core::now_seconds;
use crate::daemon::home::Name;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// Eleven bits each: 66, and each guess costs an Argon2id with 64 MiB.
const WORDS: usize = 6;

/// Prints a link that opens with words only, until it expires. The words go to standard error: send them another way.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("kind").required(true))]
pub struct Invite {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Read and change
    #[arg(long, group = "kind")]
    write: bool,
    /// Read only
    #[arg(long, group = "kind")]
    read: bool,
    /// Keep and pass on without being able to read
    #[arg(long, group = "kind")]
    mirror: bool,
    /// For how long it can be joined with, such as 12h or 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = time)]
    expires: Duration,
    /// Print a QR code of the link too
    #[arg(long)]
    qr: bool,
    /// Write a QR code of the link to FILE, as a PNG image
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

/// Runs `invite`.
pub fn run(context: &Context, command: Invite) -> Outcome {
    let name = &command.name;
    let kind = match (command.mirror, command.read) {
        (true, _) => Kind::Mirror,
        (_, true) => Kind::Read,
        _ => Kind::Write,
    };
    let capability = weakened(context, name, kind)?;
    let words = recovery::passphrase(WORDS);
    let expires = u64::from(now_seconds()) + command.expires.as_secs();
    let text = Zeroizing::new(link::print_invite(&capability, &words, expires));
    if let Some(file) = &command.png {
        write_private(file, &Code::of(&text)?.png()?)?;
    }
    if context.output.is_json() {
        let invited = json!({
            "kind": kind.to_string(), "link": *text, "passphrase": *words, "expires": expires,
        });
        return context.output.result(&invited, |_| String::new());
    }
    let code = if command.qr { Code::of(&text)?.terminal() } else { String::new() };
    context.output.result(&(), |()| format!("{code}{}", *text))?;
    let until = moment(i64::try_from(expires).unwrap_or(i64::MAX));
    context.output.note(&format!(
        "The words that open it, to be told another way than the link:\n\n    {}\n\n\
         It can be joined with until {until} UTC. Whoever has joined keeps what the link gives.",
        *words
    ));
    Ok(())
}
