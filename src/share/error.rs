//! What can go wrong between a folder and a tree.

use crate::tree::TreeError;
use std::io;
use std::path::PathBuf;

/// Why a folder cannot be kept in step, or one path of it.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The folder's disk refused.
    #[error("{0}")]
    Folder(#[from] io::Error),
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// One of the two sides changed while it was looked at: to be tried again.
    #[error("it is being changed")]
    Moved,
    /// The folder is not the one that was shared.
    #[error("{}: {why}", path.display())]
    NotTheFolder {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl From<rustix::io::Errno> for ShareError {
    fn from(errno: rustix::io::Errno) -> ShareError {
        ShareError::Folder(errno.into())
    }
}
