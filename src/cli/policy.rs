//! `kilofs policy`: who may change what.

use super::Outcome;
use super::context::Context;
use super::device::DeviceText;
use super::enact::{Admin, Remade, in_force};
use super::output::{short, shown, table, understood};
use super::paths;
use super::private;
use super::session::Session;
use crate::base::{BlockNumber, DeviceId};
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use crate::daemon::own::Lost;
use crate::daemon::terms::Terms;
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
    /// Make again what was changed here and another admin device's policy left out or undid
    Redo,
    /// Let go of what was changed here and another admin device's policy left out or undid
    Forget,
    /// Change a block's mode
    Set {
        /// Its number, or its path from the database's root
        block: OsString,
        /// Who may write: rw (everybody with a write link), ro (nobody but the admin), owner (one device, and the admin) or
        /// append (everybody with a write link adds, nobody changes or removes)
        mode: Mode,
        /// The device that owns it from now on, in mode owner: its id, 8 or more of its first digits, or self
        #[arg(long, value_name = "DEVICE")]
        owner: Option<DeviceText>,
    },
}

/// Runs `policy`.
pub fn run(context: &Context, Policy { name, action }: Policy) -> Outcome {
    match action {
        None | Some(Action::Show) => show(context, &name),
        Some(Action::Redo) => redo(context, &name),
        Some(Action::Forget) => {
            let mut session = Session::new(context, &name, false)?;
            let lost: Vec<Lost> = understood(session.ask(Request::Lost)?)?;
            session.ask(Request::Forget)?;
            let forgotten = json!({ "forgotten": lost.len() });
            context.output.result(&forgotten, |_| format!("{} changes are let go", lost.len()))
        }
        Some(Action::Set { block, mode, owner }) => {
            ensure_fitting(mode, owner.as_ref())?;
            set(context, &name, &block, mode, owner.as_ref())
        }
    }
}

fn redo(context: &Context, name: &Name) -> Outcome {
    let remade = Admin::open_to(context, name, false)?.redo(true)?;
    let each = |remade: &Remade| json!({ "what": remade.words, "hindered": remade.hindered });
    let told: Vec<Value> = remade.iter().map(each).collect();
    context.output.result(&told, |_| match remade.is_empty() {
        true => "nothing of this device's is missing from the policy in force".into(),
        false => remade.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    })?;
    match remade.iter().any(|remade| remade.hindered.is_some()) {
        true => {
            Err(Failure::failed(format!("`kilofs policy {name} forget` drops what cannot be made again")))
        }
        false => Ok(()),
    }
}

/// Refuses an owner that a mode does not know.
pub fn ensure_fitting(mode: Mode, owner: Option<&DeviceText>) -> Outcome {
    match mode {
        Mode::ReadWrite | Mode::ReadOnly | Mode::Append if owner.is_some() => Err(Failure::new(
            FailureKind::Usage,
            format!("a block has an owner in mode owner, not in {mode}"),
        )),
        Mode::ReadWrite | Mode::ReadOnly | Mode::Append | Mode::Owner => Ok(()),
    }
}

/// A block in mode owner of which nobody was said to be the owner.
pub fn nobodys() -> Failure {
    Failure::new(FailureKind::Usage, "whose is it? say so with --owner DEVICE (or --owner self)")
}

/// Behind a mode, for a person.
pub fn of_whom(owner: Option<DeviceId>) -> String {
    owner.map(|owner| format!(" {}", short(&owner.to_string()))).unwrap_or_default()
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

fn set(context: &Context, name: &Name, block: &OsStr, mode: Mode, owner: Option<&DeviceText>) -> Outcome {
    let mut admin = Admin::open(context, name)?;
    let named = owner.map(|owner| admin.device(owner)).transpose()?;
    let keyholder = admin.keyholder();
    let (number, path, owner) = admin.enact(|terms| {
        let number = which(terms, block)?;
        let owner = match mode {
            Mode::Owner => {
                let known = terms.charter.blocks.get(&number).and_then(|block| block.owner);
                Some(named.or(known).ok_or_else(nobodys)?)
            }
            Mode::ReadWrite | Mode::ReadOnly | Mode::Append => None,
        };
        if terms.charter.blocks.get(&number).is_some_and(|block| block.private.is_some()) {
            private::ensure_mode(mode)?;
            let owners: Vec<DeviceId> = owner.into_iter().collect();
            keyholder.admit(terms, number, &owners)?;
        }
        terms.set_rules(number, mode, owner)?;
        Ok((number, terms.path(number).to_vec(), owner))
    })?;
    let path = format!("/{}", shown(&path));
    let done = json!({
        "number": number.0,
        "path": path,
        "mode": mode.to_string(),
        "owner": owner.map(|owner| owner.to_string()),
    });
    context.output.result(&done, |_| format!("block {number} ({path}) is {mode}{}", of_whom(owner)))
}

fn show(context: &Context, name: &Name) -> Outcome {
    let terms = in_force(&mut Session::new(context, name, false)?)?;
    let block = |number: &BlockNumber| {
        let charter = &terms.charter.blocks[number];
        json!({
            "number": number.0,
            "path": format!("/{}", shown(&charter.path)),
            "mode": terms.mode(*number).to_string(),
            "owner": charter.owner.map(|owner| owner.to_string()),
            "quota_bytes": charter.quota.bytes,
            "quota_files": charter.quota.files,
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
