//! `kilofs policy`: who may change what.

use super::Outcome;
use super::context::Context;
use super::enact::{Admin, Terms};
use super::output::{short, shown, table};
use super::paths;
use super::session::Session;
use crate::base::BlockNumber;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::Name;
use crate::record::{Members, Mode};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};

/// Who may change what.
#[derive(Args)]
pub struct Policy {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Show the policy in force
    Show,
    /// Change a block's mode
    Set {
        /// Its number, or its path from the database's root
        block: OsString,
        /// Who may write: rw (everybody with a write link) or ro (nobody but the admin)
        mode: Mode,
    },
}

/// Runs `policy`.
pub fn run(context: &Context, Policy { name, action }: Policy) -> Outcome {
    match action {
        None | Some(Action::Show) => show(context, &name),
        Some(Action::Set { block, mode }) => {
            ensure_supported(mode)?;
            set(context, &name, &block, mode)
        }
    }
}

/// Refuses the modes that the formats have and this version does not act on.
pub fn ensure_supported(mode: Mode) -> Outcome {
    match mode {
        Mode::ReadWrite | Mode::ReadOnly => Ok(()),
        Mode::Owner | Mode::Append => Err(Failure::new(
            FailureKind::Usage,
            format!("this version knows the modes rw and ro, not {mode}"),
        )),
    }
}

/// The block that a person means: a number, or a path.
pub fn which(terms: &Terms, block: &OsStr) -> Result<BlockNumber, Failure> {
    let number = block.to_str().and_then(|text| text.parse().ok()).map(BlockNumber);
    let found = terms.find(number, &paths::inside(block)?);
    let unknown = || {
        Failure::failed(format!(
            "there is no block {}; `kilofs policy NAME show` lists them",
            block.display()
        ))
    };
    found.ok_or_else(unknown)
}

fn set(context: &Context, name: &Name, block: &OsStr, mode: Mode) -> Outcome {
    let (number, path) = Admin::open(context, name)?.enact(|terms| {
        let number = which(terms, block)?;
        // From here on nothing older counts: what the block is now is where its new rules begin.
        if terms.mode(number) != mode {
            let floor = terms.floor(number);
            if let Some(charter) = terms.charter.blocks.get_mut(&number) {
                charter.floor = floor;
            }
        }
        terms.set_mode(number, mode);
        Ok((number, terms.path(number).to_vec()))
    })?;
    let path = format!("/{}", shown(&path));
    let done = json!({ "number": number.0, "path": path, "mode": mode.to_string() });
    context.output.result(&done, |_| format!("block {number} ({path}) is {mode}"))
}

fn show(context: &Context, name: &Name) -> Outcome {
    let terms = Terms::in_force(&mut Session::new(context, name, false)?)?;
    let block = |number: &BlockNumber| {
        let charter = &terms.charter.blocks[number];
        json!({
            "number": number.0,
            "path": format!("/{}", shown(&charter.path)),
            "mode": terms.mode(*number).to_string(),
            "owner": charter.owner.map(|owner| owner.to_string()),
            "floor": { "counter": charter.floor.counter, "root": charter.floor.root.map(|root| root.to_string()) },
        })
    };
    let blocks: Vec<Value> = terms.charter.blocks.keys().map(block).collect();
    let members = match &terms.charter.members {
        Members::Open => json!("open"),
        Members::Listed(devices) => devices.iter().map(|device| device.to_string()).collect(),
    };
    let policy = json!({ "counter": terms.counter, "members": members, "blocks": blocks });
    context.output.result(&policy, |_| {
        let row = |number: &BlockNumber| {
            let charter = &terms.charter.blocks[number];
            let owner =
                charter.owner.map(|owner| format!("owner {}", short(&owner.to_string()))).unwrap_or_default();
            vec![
                number.to_string(),
                format!("/{}", shown(&charter.path)),
                terms.mode(*number).to_string(),
                owner,
            ]
        };
        let rows: Vec<Vec<String>> = terms.charter.blocks.keys().map(row).collect();
        let members = match &terms.charter.members {
            Members::Open => "everybody with a write link".into(),
            Members::Listed(devices) => format!("{} devices", devices.len()),
        };
        format!("policy {}, members: {members}\n{}", terms.counter, table(&rows))
    })
}
