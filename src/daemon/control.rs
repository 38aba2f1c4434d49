//! What commands say to an engine: one JSON object a line over a Unix socket, one answer each. The same requests are
//! handled in-process where no engine runs.

use serde::{Deserialize, Serialize};

/// The longest line that either side accepts, in bytes.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

/// A command for an engine. Paths are from the database's root, as hexadecimal bytes, since names need not be UTF-8.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// The object of `status --json`.
    Status,
    /// Publishes what is pending and fetches what is newer; answers when both are done or the time is over.
    Sync {
        /// How long to try, in seconds.
        timeout_seconds: f64,
    },
    /// Ends the engine: unmounts, publishes what is pending for a while, keeps the rest.
    Stop {
        /// How long to go on publishing, in seconds.
        publish_seconds: f64,
    },
    /// The kept versions, newest first.
    Versions,
    /// The newest commits, newest first.
    Log {
        /// At most so many.
        limit: usize,
        /// With what they changed, as far as they are kept.
        #[serde(default)]
        paths: bool,
    },
    /// What differs between two kept versions; 0 is the working head.
    Difference {
        /// The version to start from.
        older: u32,
        /// The version to compare with.
        newer: u32,
    },
    /// Copies a file or directory out of a kept version into the tree.
    Restore {
        /// Which version, 1 being the newest.
        version: u32,
        /// What to copy.
        path_hex: String,
        /// Where to, if not where it was.
        to_hex: Option<String>,
    },
    /// What an admin needs to make the next policy: answered with [`Ground`].
    Policy,
    /// What a block holds: answered with [`Held`](super::answers::Held).
    Holds {
        /// Its number.
        block: u16,
    },
    /// The devices that have published here: answered with their keys, hexadecimal.
    Devices,
    /// Takes a policy that an admin signed, with its charter.
    Enact {
        /// The encoded policy.
        policy_hex: String,
        /// The encoded charter that it names.
        charter_hex: String,
        /// The roots that the charter's new floors were made from, as [`Ground`] gave them: if they have moved on, the
        /// answer is a failure of the kind `moved` and the admin starts again.
        ground: Ground,
        /// The lifeline with that policy, signed by the same admin.
        lifeline_hex: String,
        /// Whom it lets write, or no longer.
        #[serde(default)]
        listing: Listing,
    },
    /// What an admin changed at this device that is not in force, since another admin device's policy was taken: answered
    /// with a list of [`Lost`](super::own::Lost).
    Lost,
    /// Lets go of it.
    Forget,
    /// Which devices are known here; answered with a list of `MemberSeen`.
    Members,
    /// Takes a rotation that an admin announced.
    Rotate {
        /// The lifeline that says so, and the info dictionary that it names, as `moves::Announced` encodes them.
        announced_hex: String,
        /// What the new policy was made from.
        ground: Ground,
    },
    /// Makes sure that paths can carry blocks: each is, or becomes, a directory. The answer tells whether all are empty.
    Prepare {
        /// The directories.
        paths_hex: Vec<String>,
    },
    /// Makes the maps that a charter needs which draws a border between blocks anew: answered with [`Recutting`].
    Recut {
        /// The encoded charter; its floors do not matter yet.
        charter_hex: String,
    },
    /// The paths that are pinned from now on, all of them.
    Pins {
        /// Paths from the root.
        paths_hex: Vec<String>,
    },
    /// Looks at every byte of the store that the keys open.
    Check,
    /// Does so, and puts right what is wrong: from kept versions and peers where they have it, else by leaving it out.
    Repair,
}

impl Request {
    /// Nothing changes by it: where an engine ended before it had answered, it may be asked for again.
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Request::Status
                | Request::Versions
                | Request::Log { .. }
                | Request::Difference { .. }
                | Request::Policy
                | Request::Holds { .. }
                | Request::Devices
                | Request::Lost
                | Request::Members
                | Request::Check
        )
    }
}

/// The state that a new policy is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ground {
    /// The encoded policy in force.
    pub policy_hex: String,
    /// The encoded charter in force.
    pub charter_hex: String,
    /// For each block its counter and root as the next version will carry them.
    pub blocks: Vec<GroundBlock>,
    /// The newest lifeline, encoded; none before it was heard.
    #[serde(default)]
    pub lifeline_hex: Option<String>,
}

/// Devices that a change of the list of members is about, hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// They may write from now on.
    pub added: Vec<String>,
    /// They may not.
    pub removed: Vec<String>,
}

/// One block of the [`Ground`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroundBlock {
    /// The block's number.
    pub number: u16,
    /// The counter of its entry.
    pub counter: u64,
    /// The id of its root; none while it is empty.
    pub root: Option<String>,
}

/// What an admin needs to sign a policy that moves a border between blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recutting {
    /// What it was made from.
    pub ground: Ground,
    /// The floors of the blocks on both sides of each border.
    pub floors: Vec<GroundBlock>,
}

/// What an engine answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done; the value depends on the request.
    Done(serde_json::Value),
    /// It was not done.
    Failed(Failure),
}

/// Why something was not done, in words for a person and in a kind that decides the exit code.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which exit code it means.
    pub kind: FailureKind,
    /// What happened, to what, and what to do next.
    pub message: String,
}

/// The kinds of failure, as scripts see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Exit code 1.
    Failed,
    /// Exit code 2: wrong usage.
    Usage,
    /// Exit code 3: not reachable or timed out.
    Unreachable,
    /// Exit code 4: the policy or the capability does not allow it.
    Refused,
    /// Exit code 5: wrong passphrase or link.
    WrongKey,
    /// The ground of an enactment has moved: make the policy anew.
    Moved,
    /// The engine ended before it had answered: whether it did what it was asked is not known.
    Ended,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// A failure without a kind of its own.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Failed, message)
    }

    /// The exit code of a process that ends with it.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Failed | FailureKind::Moved | FailureKind::Ended => 1,
            FailureKind::Usage => 2,
            FailureKind::Unreachable => 3,
            FailureKind::Refused => 4,
            FailureKind::WrongKey => 5,
        }
    }
}
