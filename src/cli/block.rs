//! `kilofs block`: directories with rules of their own.

use super::Outcome;
use super::context::Context;
use super::enact::{Admin, Terms};
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
    let mut admin = Admin::open(context, name)?;
    ensure_no_block(&admin.terms()?, &path)?;
    admin.prepare(&path)?;
    let birth = Birth(random()?);
    let number = admin.enact(|terms| {
        ensure_no_block(terms, &path)?;
        let number = free_number(terms)?;
        terms.set_mode(number, mode);
        let floor = Floor { counter: 0, root: None };
        let block = BlockCharter { path: path.clone(), owner: None, birth, epoch: 0, floor };
        terms.charter.blocks.insert(number, block);
        Ok(number)
    })?;
    let added = json!({ "number": number.0, "path": shown_path, "mode": mode.to_string() });
    context.output.result(&added, |_| format!("{shown_path} is block {number}, {mode}"))
}

fn ensure_no_block(terms: &Terms, path: &[u8]) -> Outcome {
    match terms.find(None, path) {
        Some(number) => Err(Failure::failed(format!("/{} is block {number} already", shown(path)))),
        None => Ok(()),
    }
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
    let mut admin = Admin::open(context, name)?;
    // A directory that would do for a new block is empty.
    let (number, path) = removable(&admin.terms()?, block)?;
    admin.prepare(&path).map_err(|failure| match failure.kind {
        FailureKind::Usage => {
            Failure::failed(format!("block {number} is not empty: move what is in it elsewhere first"))
        }
        _ => failure,
    })?;
    let (number, path) = admin.enact(|terms| {
        let (number, path) = removable(terms, block)?;
        terms.charter.blocks.remove(&number);
        terms.set_mode(number, Mode::ReadWrite);
        let last = terms.charter.blocks.keys().next_back().map_or(0, |last| usize::from(last.0));
        terms.modes.truncate(last + 1);
        Ok((number, path))
    })?;
    let path = format!("/{}", shown(&path));
    let removed = json!({ "number": number.0, "path": path });
    context.output.result(&removed, |_| format!("{path} is no block any more"))
}

/// The number and path of a block that nothing keeps from being removed.
fn removable(terms: &Terms, block: &OsStr) -> Result<(BlockNumber, Vec<u8>), Failure> {
    let number = which(terms, block)?;
    if number == BlockNumber::ROOT {
        return Err(Failure::new(FailureKind::Usage, "block 0 is the database's root, which stays"));
    }
    let path = terms.path(number);
    let below = [path, b"/"].concat();
    if let Some((inner, _)) = terms.charter.blocks.iter().find(|(_, other)| other.path.starts_with(&below)) {
        return Err(Failure::failed(format!(
            "block {inner} lies inside block {number}: remove that one first"
        )));
    }
    Ok((number, path.to_vec()))
}

fn random() -> Result<[u8; Birth::BYTES], Failure> {
    let mut bytes = [0; Birth::BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}
