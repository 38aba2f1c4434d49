//! How an engine is started: what it is told, and what it answers when it is usable.

use super::config::Options;
use super::home::{Home, Name};
use crate::crypt::keyring::Keyring;
use std::path::PathBuf;

/// What an engine is told at its start. It holds secrets: it travels through a pipe, never in arguments or environment.
pub struct Launch {
    /// The home that it keeps its files in.
    pub home: Home,
    /// Which database.
    pub name: Name,
    /// The opened keyring. The admin seed is dropped at the start unless `admin` is set.
    pub keyring: Keyring,
    /// All layers of options, already laid over each other.
    pub options: Options,
    /// What it does.
    pub role: Role,
}

/// What an engine does.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Shows the tree under a directory, and mirrors.
    Mount {
        /// The mountpoint.
        directory: PathBuf,
        /// The text behind `-o`, comma-separated; `admin` among them keeps the admin key for read-only blocks.
        options: Vec<String>,
    },
    /// Follows, keeps, seeds and re-puts.
    Mirror,
    /// Serves one command of a process that found no engine running: with the network or without.
    Command {
        /// Whether the command needs the network.
        network: bool,
    },
}
