//! `kilofs pin` and `kilofs unpin`: what is to be here although files are fetched on demand.

use super::Outcome;
use super::context::Context;
use super::output::shown;
use super::paths;
use super::session::Session;
use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use clap::Args;
use data_encoding::HEXLOWER;
use std::ffi::{OsStr, OsString};

/// Keeps what lies below a path on this device, and fetches it now; without a path it lists what is pinned.
#[derive(Args)]
pub struct Pin {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// A path from the database's root
    path: Option<OsString>,
}

/// Lets what was pinned be fetched on demand again.
#[derive(Args)]
pub struct Unpin {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// A path that was pinned
    path: OsString,
}

/// Runs `pin`.
pub fn pin(context: &Context, command: Pin) -> Outcome {
    let Some(path) = command.path else { return list(context, &command.name) };
    let path = text(&path)?;
    change(context, &command.name, |pins| {
        if !pins.contains(&path) {
            pins.push(path.clone());
        }
        Ok(())
    })?;
    list(context, &command.name)
}

/// Runs `unpin`.
pub fn unpin(context: &Context, command: Unpin) -> Outcome {
    let path = text(&command.path)?;
    change(context, &command.name, |pins| {
        let before = pins.len();
        pins.retain(|pinned| *pinned != path);
        if pins.len() == before {
            let message =
                format!("{} is not pinned; `kilofs pin {}` lists what is", path_of(&path), command.name);
            return Err(Failure::failed(message));
        }
        Ok(())
    })?;
    list(context, &command.name)
}

fn list(context: &Context, name: &Name) -> Outcome {
    let pins = context.options(name)?.pin.unwrap_or_default();
    context.output.result(&serde_json::json!(pins), |_| {
        if pins.is_empty() {
            return "nothing is pinned".into();
        }
        pins.iter().map(|path| path_of(path)).collect::<Vec<_>>().join("\n")
    })
}

fn change(
    context: &Context,
    name: &Name,
    change: impl FnOnce(&mut Vec<String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut pins = context.options(name)?.pin.unwrap_or_default();
    change(&mut pins)?;
    context.save_options(name, "what is pinned", |saved| Options { pin: Some(pins.clone()), ..saved })?;
    let paths_hex = pins.iter().map(|path| HEXLOWER.encode(path.as_bytes())).collect();
    // Without an engine it is read when one starts.
    Session::new(context, name, false)?.ask(Request::Pins { paths_hex }).map(drop)
}

fn path_of(inside: &str) -> String {
    format!("/{}", shown(inside.as_bytes()))
}

/// A path from the root as it is saved: without leading or trailing slashes.
fn text(path: &OsStr) -> Result<String, Failure> {
    let inside = paths::inside(path)?;
    String::from_utf8(inside).map_err(|error| {
        let path = shown(error.as_bytes());
        Failure::new(FailureKind::Usage, format!("{path} is not UTF-8: pin the directory that it lies in"))
    })
}
