//! What an engine's answers hold, besides [`Status`](super::status::Status) and [`Ground`](super::control::Ground).
//! Names and paths are bytes, so they travel as hexadecimal.

use serde::{Deserialize, Serialize};

/// Where what is set aside is found in a mount; findings in it go by its place.
pub const REFUSED: &str = ".kilofs/refused/";

/// The answer to `Sync`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Synced {
    /// Nothing is pending.
    pub published: bool,
    /// Bytes that no record names yet.
    pub pending_bytes: u64,
    /// The highest record accepted.
    pub seq: Option<i64>,
    /// The content of all blocks as one id.
    pub root: Option<String>,
}

/// The answer to `Holds`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Sizes of its files together.
    pub bytes: u64,
    /// All that has an inode, without the block's root.
    pub files: u64,
}

/// The answer to `Stop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stopped {
    /// Bytes that no record names yet: kept, and published at the next start.
    pub pending_bytes: u64,
}

/// One element of the answer to `Versions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptVersion {
    /// Its number under `.kilofs/versions`, 1 being the newest.
    pub version: u32,
    /// The torrent.
    pub infohash: String,
    /// The id of its commit.
    pub commit: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// The device that made it.
    pub device: Option<String>,
    /// All of it is here.
    pub complete: bool,
    /// The record names it.
    pub in_record: bool,
    /// Length of its image.
    pub image_bytes: u64,
}

/// One element of the answer to `Log`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogEntry {
    /// The commit's id.
    pub commit: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// The device that made it.
    pub device: String,
    /// The commits that it stands on.
    pub parents: Vec<String>,
    /// Its Lamport counter.
    pub lamport: u64,
    /// Its number under `.kilofs/versions`, while it is kept.
    pub version: Option<u32>,
    /// What it changed, where it is kept and that was asked for: a few paths from the database's root.
    pub paths: Vec<String>,
    /// How many more there are at least.
    pub more: usize,
}

/// One element of the answer to `Members`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberSeen {
    /// The device.
    pub device: String,
    /// It is the one that answers.
    pub this: bool,
    /// The charter lets it write; whether it has a link to do so, nobody knows but it.
    pub writes: bool,
    /// It is one of those that the charter lists.
    pub listed: bool,
    /// It has made commits or entries.
    pub wrote: bool,
    /// It has a block of its own.
    pub owns: bool,
    /// When it made its newest commit that was here itself, in seconds since 1970. Of others that are stood on it is not
    /// known when they were made.
    pub time: Option<i64>,
    /// That commit.
    pub commit: Option<String>,
}

/// One element of the answer to `Difference`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Differing {
    /// The path from the database's root.
    pub path_hex: String,
    /// `added`, `removed`, `changed` (its content) or `attributes`.
    pub change: String,
}

/// The answer to `Restore`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restored {
    /// Where it is now.
    pub path_hex: String,
    /// Files, directories and symlinks that were written.
    pub entries: u64,
    /// Bytes of file content that were written.
    pub bytes: u64,
}

/// The answer to `Check`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checked {
    /// Objects that were opened.
    pub objects: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Objects that are not here; they are fetched when they are read.
    pub absent: u64,
    /// Blocks whose key is not here: of them only the pieces were held against their hashes.
    pub closed: Vec<u16>,
    /// What is wrong; empty is clean.
    pub findings: Vec<CheckFinding>,
    /// What a repair would do with what neither a kept version nor a peer has any more.
    pub planned: Vec<CheckFinding>,
    /// What a repair did.
    pub repaired: Vec<CheckFinding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckFinding {
    /// The block; none where the store itself is damaged.
    pub block: Option<u16>,
    /// Where: a path, an inode or a place in the store, in words.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
}
