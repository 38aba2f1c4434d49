//! `kilofs create`: a new database.

use super::Outcome;
use super::context::Context;
use super::recovery;
use crate::crypt::recovery::RecoveryRoot;
use crate::daemon::control::Failure;
use crate::daemon::home::Name;
use crate::daemon::setup;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Makes a new database: its keys, its keyring, its empty store. Nothing is published before the first mount.
#[derive(Args)]
pub struct Create {
    /// What to call it on this device
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Write a recovery sheet to FILE.html or FILE.txt: words and a code that give everything back
    #[arg(long, value_name = "FILE")]
    recovery: Option<PathBuf>,
}

/// Runs `create`.
pub fn run(context: &Context, Create { name, recovery }: Create) -> Outcome {
    // Said before a person is troubled for a passphrase.
    recovery.as_deref().map(recovery::Form::of).transpose()?;
    setup::ensure_free(&context.home, &name)?;
    let options = context.common_options()?;
    let factors = context.passphrases.choose(&name, &options)?;
    let root = RecoveryRoot::generate();
    // First: a database whose sheet could not be written would have none for ever.
    if let Some(file) = &recovery {
        recovery::write(file, &name, &root.create().database_id(), &root)?;
    }
    let made = setup::create(&context.home, &name, &factors, &context.flags, &root);
    let capability = made.inspect_err(|_: &Failure| {
        // A sheet of nothing.
        _ = recovery.as_ref().map(std::fs::remove_file);
    })?;
    drop(root);
    let made = json!({
        "name": name.as_str(),
        "database": capability.database_id().to_string(),
        "key": capability.database_public.to_string(),
    });
    context.output.result(&made, |_| {
        let home = context.home_flag();
        let sheet = recovery.as_ref().map_or(String::new(), |file| {
            let file = file.display();
            format!("The recovery sheet is {file}: print it, put it away, delete the file.\n")
        });
        format!(
            "{sheet}{name} is made. Next:\n  kilofs {home}mount {name} DIR        show it as a directory\n  kilofs {home}link {name} --write     print a link for another device"
        )
    })
}
