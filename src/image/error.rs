//! What can go wrong with a store.

use crate::base::{PieceIndex, Place, REGION_BYTES, RegionIndex};
use std::io;

/// A failure of the store; its message says what happened, to what, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file's lock.
    #[error(
        "{file} is in use by another process: stop the engine that holds it, or run the command while it is up"
    )]
    Locked {
        /// The store's file.
        file: String,
    },
    /// A store was to be made where something already is.
    #[error("{file} already exists: open it, or choose another place for the new store")]
    Exists {
        /// The file in the way.
        file: String,
    },
    /// There is no file to open.
    #[error("there is no store at {file}: check the path, or create or join a database first")]
    Missing {
        /// The path that was tried.
        file: String,
    },
    /// The disk, the quota or the store's own address range is used up.
    #[error(
        "no space is left {action} {file}: free some space there and try again; nothing committed is lost"
    )]
    Full {
        /// The store's file.
        file: String,
        /// What was being done, as in "writing to".
        action: &'static str,
    },
    /// The operating system refused.
    #[error("{action} {file} at byte {offset} failed ({source}): check the disk and the file's permissions")]
    Io {
        /// The store's file.
        file: String,
        /// What was being done, as in "writing to".
        action: &'static str,
        /// Where in the file; 0 where the whole file is meant.
        offset: u64,
        /// The reason that the operating system gave.
        source: io::Error,
    },
    /// An earlier sync failed, so what the disk holds since then is unknown.
    #[error(
        "{file} could not be made durable earlier: stop the engine, check the disk, start again; the last commit stands"
    )]
    SyncFailed {
        /// The store's file.
        file: String,
    },
    /// The intent log has no room for a batch until the next commit.
    #[error("the intent log of {file} is full: commit first")]
    LogFull {
        /// The store's file.
        file: String,
    },
    /// The file's head is no superblock of ours.
    #[error("{file} is not a kilofs store: check the path")]
    NotAStore {
        /// The file that was opened.
        file: String,
    },
    /// The file was made by a newer program.
    #[error("{file} has store format {found} and this program reads up to {known}: use a newer kilofs")]
    Format {
        /// The store's file.
        file: String,
        /// The format number it carries.
        found: u32,
        /// The newest format number known here.
        known: u32,
    },
    /// Neither superblock leads to an intact table.
    #[error(
        "{file} is damaged ({what}): run `kilofs fsck NAME --repair`; if that does not open it either, move the file away: an empty one takes its place and is filled from peers"
    )]
    Damaged {
        /// The store's file.
        file: String,
        /// Both superblocks' faults.
        what: String,
    },
    /// A read outside the image, or an object that would straddle two regions.
    #[error(
        "{length} bytes at offset {offset} are not inside one image of {image_bytes} bytes: the version is damaged, \
         restore an older one",
        length = place.length, offset = place.offset
    )]
    OutOfRange {
        /// What was asked for.
        place: Place,
        /// Bytes of the image.
        image_bytes: u64,
    },
    /// Something passes a limit of the store.
    #[error("{what} of {amount} passes the store's limit of {max}: make it smaller")]
    TooLarge {
        /// What was too large, with its unit.
        what: &'static str,
        /// How large it was.
        amount: u64,
        /// The limit.
        max: u64,
    },
    /// An image of another store was passed.
    #[error("an image of another store was passed to {file}: report this as a defect")]
    Foreign {
        /// The store that refused it.
        file: String,
    },
    /// Bytes of an image that are not here: nobody has fetched them, or they were given up.
    #[error("the bytes at offset {offset} of the image are not here: fetch them first")]
    NotHere {
        /// Where the absent unit begins, in the region's slot if the image is not known.
        offset: u64,
    },
    /// Bytes of a piece that has not arrived.
    #[error("piece {} is not here yet: fetch it first", .0.0)]
    Absent(PieceIndex),
    /// Bytes whose SHA-1 is not the piece's.
    #[error("the bytes offered for piece {} do not match its hash: fetch it from another peer", .0.0)]
    WrongPiece(PieceIndex),
    /// A version was to be finished while pieces are missing.
    #[error("{missing} pieces of the version are still missing: fetch them first")]
    Incomplete {
        /// How many.
        missing: usize,
    },
}

impl StoreError {
    /// Tells where in the image a unit is absent that was found absent in a slot; `at` is in the same region.
    pub(super) fn in_region(self, at: u64) -> StoreError {
        match self {
            StoreError::NotHere { offset } => {
                StoreError::NotHere { offset: RegionIndex::of(at).start() + offset % REGION_BYTES }
            }
            other => other,
        }
    }

    /// Wraps a failure of the operating system; running out of space becomes [`StoreError::Full`].
    pub(super) fn io(file: &str, action: &'static str, offset: u64, source: io::Error) -> StoreError {
        let file = file.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::Full { file, action }
            }
            _ => StoreError::Io { file, action, offset, source },
        }
    }
}
