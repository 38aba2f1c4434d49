//! What can go wrong on this floor, each with what it happened to.

use super::control::{Failure, FailureKind};
use crate::image::StoreError;
use crate::map::MapError;
use crate::tree::TreeError;

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A map did not open or did not take an edit.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The tree failed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A merge failed.
    #[error(transparent)]
    Merge(#[from] crate::tree::merge::MergeError),
    /// A border between blocks cannot be moved.
    #[error(transparent)]
    Recut(#[from] crate::tree::recut::RecutError),
    /// The store's own state does not open.
    #[error(
        "the state inside the store {path} does not open with this keyring; restore the store or the keyring from one backup, or join again"
    )]
    State {
        /// The store's file.
        path: String,
    },
    /// The newest version that is here was made by another generation of this program.
    #[error(
        "the newest version in the store is of commit format {0}, which this program does not read: open it with the kilofs that made it and copy the files into a new database"
    )]
    CommitFormat(u8),
    /// The capability does not allow it.
    #[error(
        "this device holds a {0} capability, which does not allow that; ask the owner for a link that does"
    )]
    Capability(&'static str),
    /// The record with the policy has not come in since this device joined.
    #[error("no signed policy is known yet; changes are published once it has come in")]
    NoPolicyYet,
    /// A file is empty because it is about to be written.
    #[error("a file is empty that is about to be written; what is changed is published when it has been")]
    Withheld,
    /// A rotation did not give this device the new keys.
    #[error("{}", super::report::LEFT_OUT)]
    LeftOut,
    /// The policy moved on meanwhile.
    #[error("the database changed while the policy was made; make it again")]
    Moved,
    /// Something the network floor could not do.
    #[error("{0}")]
    Network(String),
    /// Wrong input from the command.
    #[error("{0}")]
    Usage(String),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        let kind = match &error {
            EngineError::Capability(_) | EngineError::LeftOut => FailureKind::Refused,
            EngineError::Tree(TreeError::ReadOnlyBlock(_) | TreeError::Fixed(_) | TreeError::Closed(_)) => {
                FailureKind::Refused
            }
            EngineError::State { .. } => FailureKind::WrongKey,
            EngineError::Moved => FailureKind::Moved,
            EngineError::Network(_) => FailureKind::Unreachable,
            EngineError::Usage(_) => FailureKind::Usage,
            EngineError::Store(_)
            | EngineError::Merge(_)
            | EngineError::Recut(_)
            | EngineError::Map(_)
            | EngineError::Tree(_)
            | EngineError::CommitFormat(_)
            | EngineError::NoPolicyYet
            | EngineError::Withheld
            | EngineError::Other(_) => FailureKind::Failed,
        };
        Failure::new(kind, error.to_string())
    }
}
