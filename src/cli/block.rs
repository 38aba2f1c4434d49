//! `kilofs block`: directories with rules of their own.

use super::Outcome;
use super::context::Context;
use super::enact::{Terms, enact};
use super::output::{shown, understood};
use super::paths;
use super::policy::{ensure_supported, which};
use super::session::Session;
use super::status::blocks;
use crate::base::{Birth, BlockNumber};
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use crate::daemon::status::Status;
use crate::record::{BLOCKS_MAX, BlockCharter, Floor, Mode};
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use serde_json::json;
use std::ffi::{OsStr, OsString};

/// Directories with rules of their own.
#[derive(Args)]
pub struct Block {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a directory a block; it is made if it does not exist, and must be empty if it does
    Add {
        /// A path from the database's root
        path: OsString,
        /// Who may write: rw (everybody with a write link) or ro (nobody but the admin)
        #[arg(long, default_value = "rw")]
        mode: Mode,
        /// The device that owns it
        #[arg(long, value_name = "DEVICE")]
        owner: Option<String>,
    },
    /// List the blocks
    List,
    /// Make an empty block a plain directory again
    Remove {
        /// Its number, or its path from the database's root
        block: OsString,
    },
}

/// Runs `block`.
pub fn run(context: &Context, Block { name, action }: Block) -> Outcome {
    match action {
        Action::Add { path, mode, owner } => {
            ensure_supported(mode)?;
            if owner.is_some() {
                let message = "this version has no blocks with an owner: leave --owner out";
                return Err(Failure::new(FailureKind::Usage, message));
            }
            add(context, &name, &path, mode)
        }
        Action::List => list(context, &name),
        Action::Remove { block } => remove(context, &name, &block),
    }
}

fn add(context: &Context, name: &Name, path: &OsStr, mode: Mode) -> Outcome {
    let path = paths::inside(path)?;
    if path.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "the database's root is block 0 already"));
    }
    let shown_path = format!("/{}", shown(&path));
    let birth = Birth(random()?);
    let number = enact(context, name, |session, terms| {
        if let Some(number) = terms.find(None, &path) {
            return Err(Failure::failed(format!("{shown_path} is block {number} already")));
        }
        let number = free_number(terms)?;
        session.ask(Request::Prepare { path_hex: HEXLOWER.encode(&path) })?;
        let index = usize::from(number.0);
        if terms.modes.len() <= index {
            terms.modes.resize(index + 1, Mode::ReadWrite);
        }
        terms.modes[index] = mode;
        let floor = Floor { counter: 0, root: None };
        let block = BlockCharter { path: path.clone(), owner: None, birth, epoch: 0, floor };
        terms.charter.blocks.insert(number, block);
        Ok(number)
    })?;
    let added = json!({ "number": number.0, "path": shown_path, "mode": mode.to_string() });
    context.output.result(&added, |_| format!("{shown_path} is block {number}, {mode}"))
}

/// The lowest number that no block has. A number is used again after its block was removed: its birth tells the two
/// apart.
fn free_number(terms: &Terms) -> Result<BlockNumber, Failure> {
    let mut numbers = (1..BLOCKS_MAX).filter_map(|number| u16::try_from(number).ok().map(BlockNumber));
    numbers.find(|number| !terms.charter.blocks.contains_key(number)).ok_or_else(|| {
        Failure::failed(format!(
            "a database has at most {BLOCKS_MAX} blocks, the root included; remove one first"
        ))
    })
}

fn list(context: &Context, name: &Name) -> Outcome {
    let answer = Session::new(context, name, false)?.ask(Request::Status)?;
    let status: Status = understood(answer)?;
    context.output.result(&status.blocks, |list| blocks(list))
}

fn remove(context: &Context, name: &Name, block: &OsStr) -> Outcome {
    let (number, path) = enact(context, name, |session, terms| {
        let number = which(terms, block)?;
        if number == BlockNumber::ROOT {
            return Err(Failure::new(FailureKind::Usage, "block 0 is the database's root, which stays"));
        }
        let Some(removed) = terms.charter.blocks.remove(&number) else {
            return Err(Failure::failed(format!("there is no block {number}")));
        };
        let below = [removed.path.as_slice(), b"/"].concat();
        if let Some((inner, _)) =
            terms.charter.blocks.iter().find(|(_, other)| other.path.starts_with(&below))
        {
            return Err(Failure::failed(format!(
                "block {inner} lies inside block {number}: remove that one first"
            )));
        }
        // A block's directory that passes as fit to become a block is empty.
        session.ask(Request::Prepare { path_hex: HEXLOWER.encode(&removed.path) })?;
        terms.modes[usize::from(number.0)] = Mode::ReadWrite;
        let last = terms.charter.blocks.keys().next_back().map_or(0, |last| usize::from(last.0));
        terms.modes.truncate(last + 1);
        Ok((number, removed.path))
    })?;
    let path = format!("/{}", shown(&path));
    let removed = json!({ "number": number.0, "path": path });
    context.output.result(&removed, |_| format!("{path} is no block any more"))
}

fn random() -> Result<[u8; Birth::BYTES], Failure> {
    let mut bytes = [0; Birth::BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}
