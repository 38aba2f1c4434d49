//! `kilofs link`: a capability as one line of text, and as a QR code.

use super::Outcome;
use super::code::{Code, write_private};
use super::context::Context;
use super::enact::in_force;
use super::passphrase;
use super::policy::which;
use super::session::Session;
use crate::crypt::link::{self, Capability, Kind};
use crate::daemon::control::{Failure, FailureKind, Ground, Request};
use crate::daemon::home::Name;
use crate::daemon::status::Status;
use crate::record;
use clap::Args;
use data_encoding::HEXLOWER;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Prints a link: whoever has it has the access that it gives.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("kind").required(true))]
pub struct Link {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Read and change
    #[arg(long, group = "kind")]
    write: bool,
    /// Read only
    #[arg(long, group = "kind")]
    read: bool,
    /// Only this block, by its number or path: with --read
    #[arg(long, value_name = "BLOCK", conflicts_with_all = ["write", "mirror", "admin"])]
    block: Option<OsString>,
    /// Keep and pass on without being able to read
    #[arg(long, group = "kind")]
    mirror: bool,
    /// Everything, policy included: a backup for the owner
    #[arg(long, group = "kind")]
    admin: bool,
    /// Print a QR code too
    #[arg(long)]
    qr: bool,
    /// Write a QR code to FILE, as a PNG image
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Lock the link with a passphrase
    #[arg(long)]
    lock: bool,
    /// Lock the link with the passphrase on the first line of FILE
    #[arg(long, value_name = "FILE")]
    link_passphrase_file: Option<PathBuf>,
}

/// Runs `link`.
pub fn run(context: &Context, command: Link) -> Outcome {
    let name = &command.name;
    let kind = match (command.mirror, command.read, command.write) {
        (true, ..) => Kind::Mirror,
        (_, true, _) => Kind::Read,
        (.., true) => Kind::Write,
        _ => Kind::Admin,
    };
    let capability = match &command.block {
        Some(block) => of_block(context, name, block)?,
        None => weakened(context, name, kind)?,
    };
    let kind = capability.kind();
    let text = match lock(&command)? {
        Some(passphrase) => link::print_locked(&capability, &passphrase),
        None => link::print(&capability),
    };
    let text = Zeroizing::new(text);
    if let Some(file) = &command.png {
        write_private(file, &Code::of(&text)?.png()?)?;
    }
    if context.output.is_json() {
        return context.output.result(&json!({ "kind": kind.to_string(), "link": *text }), |_| String::new());
    }
    let code = if command.qr { Code::of(&text)?.terminal() } else { String::new() };
    context.output.result(&(), |()| format!("{code}{}", *text))
}

/// What this device can give of a database, up to a kind, with what is known to be too old by now.
pub(super) fn weakened(context: &Context, name: &Name, kind: Kind) -> Result<Capability, Failure> {
    let keyring = context.open_keyring(name)?;
    let held = keyring.capability.kind();
    let capability = keyring.capability.weakened(kind).ok_or_else(|| {
        let message = format!(
            "{name} was joined with a {held} link, which cannot give a {kind} link; ask its owner for one"
        );
        Failure::new(FailureKind::Refused, message)
    })?;
    let mut session = Session::new(context, name, false)?.with_keyring(keyring);
    Ok(dated(capability, &mut session))
}

/// What this device can give of one block.
fn of_block(context: &Context, name: &Name, block: &OsStr) -> Result<Capability, Failure> {
    let keyring = context.open_keyring(name)?;
    let whole = keyring.capability.clone();
    let mut session = Session::new(context, name, false)?.with_keyring(keyring);
    let terms = in_force(&mut session)?;
    let number = which(&terms, block)?;
    let charter = terms.charter.blocks.get(&number);
    if charter.is_some_and(|block| block.private.is_some()) {
        return Err(Failure::failed(format!(
            "block {number} is private and has no link: `kilofs block {name} share {number} --for DEVICE` lets a device read it"
        )));
    }
    let capability = charter.and_then(|block| whole.of_block(number, &block.birth, block.epoch));
    let held = whole.kind();
    let capability = capability.ok_or_else(|| {
        let message = format!("{name} was joined with a {held} link, which does not open block {number}");
        Failure::new(FailureKind::Refused, message)
    })?;
    Ok(dated(capability, &mut session))
}

/// The capability with what is known to be too old by now.
fn dated(mut capability: Capability, session: &mut Session) -> Capability {
    // A link made while the database cannot be opened is good too; it only says less about what is too old.
    if let Some((seq, counter)) = newest(session) {
        capability.seq = capability.seq.max(seq);
        capability.policy_counter = capability.policy_counter.max(counter);
    }
    capability
}

/// The newest record and policy seen here.
fn newest(session: &mut Session) -> Option<(i64, u32)> {
    let status: Status = serde_json::from_value(session.ask(Request::Status).ok()?).ok()?;
    let ground: Ground = serde_json::from_value(session.ask(Request::Policy).ok()?).ok()?;
    let policy = record::Policy::decode(&HEXLOWER.decode(ground.policy_hex.as_bytes()).ok()?).ok()?;
    Some((status.seq.unwrap_or(0), policy.counter))
}

fn lock(command: &Link) -> Result<Option<passphrase::Passphrase>, Failure> {
    match &command.link_passphrase_file {
        Some(file) => passphrase::from_file(file).map(Some),
        None if command.lock => passphrase::twice("Passphrase for the link: ").map(Some),
        None => Ok(None),
    }
}
