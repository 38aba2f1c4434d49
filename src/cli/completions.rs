//! `kilofs completions`: a script for a shell.

use super::Outcome;
use super::arguments::Arguments;
use crate::daemon::control::Failure;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Prints a completion script.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Runs `completions`.
pub fn run(Completions { shell }: Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kilofs", &mut script);
    let written = std::io::stdout().lock().write_all(&script);
    written.map_err(|error| Failure::failed(format!("cannot write the script: {error}")))
}
