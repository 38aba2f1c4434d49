//! What can go wrong between a map and its image.

use crate::base::Place;
use std::error::Error;
use std::io;

/// Why an object's bytes are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The image has them, this device not yet.
    #[error("the object at {} (+{}) is not here yet", .0.offset, .0.length)]
    Absent(Place),
    /// The place is not a place of the image.
    #[error("the image has no place {} (+{})", .0.offset, .0.length)]
    OutOfRange(Place),
    /// The disk failed.
    #[error("cannot read from the store")]
    Io(#[from] io::Error),
}

/// Why an object could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// Neither the image nor the disk below it has room.
    #[error("no space left in the store")]
    NoSpace,
    /// The disk failed.
    #[error("cannot write to the store")]
    Io(#[from] io::Error),
    /// What takes the objects refused.
    #[error("cannot append to the image")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a map could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The bytes at the place are not the node that its parent names: damaged, forged, or in a form that no encoder
    /// of ours writes. Which of these is not told.
    #[error("the map node at {} (+{}) does not open", .0.offset, .0.length)]
    Tampered(Place),
    /// A node's bytes could not be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A node could not be appended.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// Edits must ascend strictly, with keys and values within their limits.
    #[error("edits of a map out of order, or a key or value beyond its limit")]
    Edits,
    /// The content would need a tree higher than [`super::LEVEL_MAX`].
    #[error("the map would become too high")]
    TooHigh,
}
