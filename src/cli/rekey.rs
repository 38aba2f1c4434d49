//! `kilofs passphrase`: another passphrase or key file for the keyring of a database, or none.

use super::Outcome;
use super::context::{Context, opens};
use super::passphrase::{self, Passphrase};
use crate::crypt::keyring::Factors;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::Name;
use crate::daemon::kernel_keys;
use crate::daemon::ring_file::Turn;
use clap::Args;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Changes what opens the keyring: asks for the present passphrase, then for the new one. With --no-passphrase there is none
/// any more. With --new-key-file or --no-key-file alone the passphrase stays.
#[derive(Args)]
pub struct Change {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Read the new passphrase from the first line of FILE
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// From now on FILE is needed too
    #[arg(long, value_name = "FILE", conflicts_with = "no_key_file")]
    new_key_file: Option<PathBuf>,
    /// From now on no key file is needed
    #[arg(long)]
    no_key_file: bool,
    /// Do not ask whether a keyring without protection is meant
    #[arg(long)]
    yes: bool,
}

/// Runs `passphrase`.
pub fn run(context: &Context, command: Change) -> Outcome {
    let name = &command.name;
    let removes = context.passphrases.none;
    if removes && command.new_passphrase_file.is_some() {
        let message = "--no-passphrase and --new-passphrase-file contradict each other";
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let paths = context.existing(name)?;
    let options = context.options(name)?;
    let turn = Turn::take(&paths)?;
    let (keyring, current, _) = context.open_afresh(name)?;
    if context.passphrases.key_file.is_some() && current.key_file.is_none() && command.new_key_file.is_none()
    {
        let message = format!("{name} opens without a key file: --new-key-file is what adds one");
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let passphrase = match &command.new_passphrase_file {
        _ if removes => Passphrase::default(),
        Some(file) => passphrase::from_file(file)?,
        None if command.new_key_file.is_some() || command.no_key_file => current.passphrase.clone(),
        None => passphrase::twice(&format!("New passphrase for {name}: "))?,
    };
    let key_file = match &command.new_key_file {
        Some(file) => Some(passphrase::key_file(file)?),
        None if command.no_key_file => None,
        None => current.key_file.clone(),
    };
    let new = Factors { passphrase, key_file };
    let needs = new.needs();
    if !needs.anything() {
        confirm(context, name, &paths.keyring, command.yes)?;
    }
    turn.replace(&keyring, &new)?;
    // What the kernel kept opens the old keyring only; it is let go all the same.
    _ = kernel_keys::forget(&paths.keyring);
    let made = json!({ "name": name.as_str(), "passphrase": needs.passphrase, "key_file": needs.key_file });
    context.output.result(&made, |_| {
        let mut text = format!("{name} opens with {} from now on", opens(needs));
        if needs.passphrase && options.passphrase_command.is_some() {
            text.push_str("\nlet passphrase-command print the new passphrase");
        }
        if current.needs().anything() {
            text.push_str(
                "\ncopies of the old keyring, as in backups and snapshots, still open with what opened them",
            );
        }
        text
    })
}

fn confirm(context: &Context, name: &Name, keyring: &Path, yes: bool) -> Outcome {
    context.output.note(&format!(
        "kilofs: warning: without a passphrase the keys of {name} lie open in {}.\n\
         Whoever can read that file, or a copy of it, has all the access that this device has, and it cannot be taken back.",
        keyring.display()
    ));
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    _ = write!(io::stderr(), "Type yes to go on: ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::failed(format!("nothing was done: {name} opens with what it opened with"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::keyring::Needs;

    #[test]
    fn what_opens_a_keyring_is_named() {
        for (passphrase, key_file, text) in [
            (false, false, "no passphrase"),
            (true, false, "a passphrase"),
            (false, true, "a key file"),
            (true, true, "a passphrase and a key file"),
        ] {
            assert_eq!(opens(Needs { passphrase, key_file }), text);
        }
    }
}
