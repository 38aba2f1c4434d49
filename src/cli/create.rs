//! `kilofs create`: a new database.

use super::Outcome;
use super::context::Context;
use crate::daemon::home::Name;
use crate::daemon::setup;
use clap::Args;
use serde_json::json;

/// Makes a new database: its keys, its keyring, its empty store. Nothing is published before the first mount.
#[derive(Args)]
pub struct Create {
    /// What to call it on this device
    #[arg(value_parser = Name::new)]
    name: Name,
}

/// Runs `create`.
pub fn run(context: &Context, Create { name }: Create) -> Outcome {
    setup::ensure_free(&context.home, &name)?;
    let options = context.common_options()?;
    let passphrase = context.passphrases.choose(&name, &options)?;
    let capability = setup::create(&context.home, &name, passphrase.as_bytes(), &context.flags)?;
    let made = json!({
        "name": name.as_str(),
        "database": capability.database_id().to_string(),
        "key": capability.database_public.to_string(),
    });
    context.output.result(&made, |_| {
        let home = context.home_flag();
        format!(
            "{name} is made. Next:\n  kilofs {home}mount {name} DIR        show it as a directory\n  kilofs {home}link {name} --write     print a link for another device"
        )
    })
}
