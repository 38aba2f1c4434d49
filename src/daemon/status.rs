//! The object of `kilofs status --json`.

use serde::{Deserialize, Serialize};

/// One database as its engine sees it. Field names are part of the command-line contract.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What it is called on this device.
    pub name: String,
    /// Its id, hexadecimal.
    pub database: String,
    /// The engine's process; none while no engine runs.
    pub pid: Option<u32>,
    /// Other engines run in that process: it goes on when this one ends.
    pub shares_process: bool,
    /// How long the engine has run, in seconds.
    pub uptime_seconds: Option<f64>,
    /// The engine's control socket; none while no engine runs.
    pub socket: Option<String>,
    /// Where peers are awaited.
    pub listen: Option<String>,
    /// The public key of the record (BEP 44, no salt), hexadecimal.
    pub key: String,
    /// `admin`, `write`, `read` or `mirror`.
    pub capability: String,
    /// This device's public key, hexadecimal.
    pub device: String,
    /// The highest record accepted.
    pub seq: Option<i64>,
    /// When the DHT last confirmed that nothing is newer.
    pub confirmed_seconds_ago: Option<f64>,
    /// When the record in force was signed, by the clock of who did, in seconds since 1970.
    pub record_time: Option<i64>,
    /// Bytes of changes that no record names yet; above 0 from the first unpublished change on.
    pub pending_bytes: u64,
    /// Nothing is pending.
    pub published: bool,
    /// The content of all blocks as one id; equal on two devices if and only if they hold the same content.
    pub root: Option<String>,
    /// The versions of the record, newest first.
    pub versions: Vec<VersionStatus>,
    /// How many peers were heard of lately.
    pub peers: usize,
    /// How many of them are connected and told news at once.
    #[serde(default)]
    pub neighbours: usize,
    /// Who they are.
    pub connected: Vec<NeighbourStatus>,
    /// Whether the DHT answered when it was last asked; none while nothing was asked.
    pub dht_answers: Option<bool>,
    /// The blocks and what this device may do in them.
    pub blocks: Vec<BlockStatus>,
    /// Conflict copies that still exist.
    pub conflicts: Vec<ConflictStatus>,
    /// What others published against the policy, and local edits that a newer policy forbids.
    pub refused: Vec<RefusalStatus>,
    /// Length of the image.
    pub image_bytes: u64,
    /// Bytes of it that are in use.
    pub live_bytes: u64,
    /// Bytes of it that are here; the rest is fetched when it is read, or is on its way.
    pub here_bytes: u64,
    /// Files are fetched when they are read.
    pub on_demand: bool,
    /// Versions that are kept, those of the record and others.
    pub kept_versions: usize,
    /// What the store takes, in whole slots of 1 MiB.
    pub store_bytes: u64,
    /// What is free beside it.
    pub free_bytes: u64,
    /// What the store of a mirror may take; none without a quota.
    pub quota_bytes: Option<u64>,
    /// Bytes fetched from peers since the database came here.
    pub fetched_bytes: u64,
    /// Bytes sent to peers since the database came here.
    pub sent_bytes: u64,
    /// Where it is mounted.
    pub mounted_at: Option<String>,
    /// The folder that it is shared with.
    pub shared_at: Option<String>,
    /// How that folder is.
    pub share: Option<ShareStatus>,
    /// Versions that are being fetched.
    pub transfers: Vec<TransferStatus>,
    /// What else a person should know.
    pub warnings: Vec<String>,
    /// Work done since the engine started, for tests that count instead of timing.
    pub counters: Counters,
}

/// One version of the record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionStatus {
    /// The torrent.
    pub infohash: String,
    /// All of it is here.
    pub complete: bool,
    /// Peers that are connected for it.
    pub peers: usize,
    /// When it was made, in seconds since 1970; none where it cannot be opened.
    pub time: Option<i64>,
    /// The device that made it.
    pub device: Option<String>,
    /// Bytes of its image.
    pub image_bytes: u64,
}

/// One neighbour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NeighbourStatus {
    /// From where it takes part.
    pub address: String,
    /// For how long it has been connected, in seconds.
    pub seconds: f64,
}

/// One block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockStatus {
    /// Its number; 0 is the root.
    pub number: u16,
    /// Its path from the database's root, with a leading slash.
    pub path: String,
    /// `rw`, `ro`, `owner` or `append`.
    pub mode: String,
    /// The device that owns it.
    pub owner: Option<String>,
    /// This device may write in it.
    pub writable: bool,
    /// This device has its key.
    pub readable: bool,
    /// What is in it is not for everybody who reads the database.
    pub private: bool,
    /// The devices that can open it beside the admin, where it is private.
    pub readers: Vec<String>,
    /// What its files may hold together; none without a quota.
    pub quota_bytes: Option<u64>,
    /// How many files, directories and so on it may hold; none without a quota.
    pub quota_files: Option<u64>,
    /// What it holds, where it has a quota and that was counted since the engine started.
    pub used_bytes: Option<u64>,
    /// The same of files.
    pub used_files: Option<u64>,
}

/// One conflict copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ConflictStatus {
    /// The path of the copy.
    pub path: String,
    /// The first bytes of the device whose edit it holds.
    pub device: String,
}

/// One refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalStatus {
    /// The block's number.
    pub block: u16,
    /// The block's path.
    pub path: String,
    /// `remote`: a version of somebody's was refused; `local`: edits of this device were set aside.
    pub kind: String,
    /// Who signed it, where that is certain.
    pub signer: Option<String>,
    /// Why.
    pub reason: String,
}

/// One version on its way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransferStatus {
    /// The torrent.
    pub infohash: String,
    /// Bytes that were missing at the start.
    pub total_bytes: u64,
    /// Bytes of them that are here.
    pub done_bytes: u64,
}

/// A shared folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShareStatus {
    /// All that is known of is in step.
    pub in_step: bool,
    /// Paths that wait.
    pub waiting: usize,
    /// What is not shared; a hundred at most are named.
    pub skipped: Vec<SkippedStatus>,
    /// Where, below the folder, local changes lie that the policy does not allow.
    pub refused: Vec<String>,
    /// What failed and is tried again.
    pub failing: Vec<SkippedStatus>,
    /// Why nothing is done at present.
    pub halted: Option<String>,
}

/// One path of a shared folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SkippedStatus {
    /// Below the folder.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Work done since the engine started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Pieces hashed for publishing.
    pub pieces_hashed: u64,
    /// Bytes read and hashed for publishing.
    pub bytes_hashed: u64,
    /// Versions published.
    pub published: u64,
    /// Versions adopted.
    pub adopted: u64,
    /// Versions merged.
    pub merged: u64,
    /// Records put that this device signed.
    pub puts: u64,
    /// Records put back as they were, and lifelines with them.
    pub reputs: u64,
    /// Commits of the store.
    pub commits: u64,
    /// Batches written to the intent log: what an fsync costs between two commits.
    pub logged: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_status_of_an_older_engine_is_understood() {
        let older =
            serde_json::from_str::<Status>(r#"{"name":"notes","pid":7,"blocks":[{"number":3}]}"#).unwrap();
        assert_eq!((older.name.as_str(), older.pid, older.blocks[0].number), ("notes", Some(7), 3));
    }
}
