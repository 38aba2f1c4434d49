//! What can go wrong in a tree. The errno is chosen by whoever answers the kernel.

use crate::base::{BlockNumber, Inode, Malformed, Place};
use crate::image::StoreError;
use crate::map::{EmitError, FetchError, MapError};

/// Why an operation on a tree failed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No such name, or no such inode any more.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// Something other than a directory stands where one is needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory stands where it must not.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The policy does not let this device write in the block.
    #[error("block {0} is read-only for this device; the database's admin can change that (kilofs policy)")]
    ReadOnlyBlock(BlockNumber),
    /// What is whole in an append block.
    #[error("block {0} only grows: what is in it can be neither changed nor removed")]
    Fixed(BlockNumber),
    /// The key of the block is not here.
    #[error("block {0} cannot be opened with the link of this device")]
    Closed(BlockNumber),
    /// A rename or link from one block to another.
    #[error("source and target lie in different blocks; copy instead")]
    CrossBlock,
    /// The name belongs to a block's mountpoint or leads to one.
    #[error("a block hangs here or below; it can be neither removed nor renamed")]
    Busy,
    /// A name of more than 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// An argument that makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// What no one may do: a hard link to a directory, say.
    #[error("operation not permitted")]
    NotPermitted,
    /// What this filesystem does not do.
    #[error("operation not supported")]
    Unsupported,
    /// Disk, quota or number space used up.
    #[error("no space is left for the database")]
    NoSpace,
    /// The block would hold more than its quota.
    #[error(
        "block {0} holds as much as it may; the database's admin can give it more (kilofs block NAME quota)"
    )]
    QuotaExceeded(BlockNumber),
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoData,
    /// A file would pass the largest size.
    #[error("the file would become too large")]
    TooBig,
    /// An extended attribute's value is too large.
    #[error("the value is too large")]
    ValueTooLarge,
    /// No data, or no hole, at or behind the offset.
    #[error("nothing there at or behind the offset")]
    NoSuchOffset,
    /// An inode has as many names as one may have.
    #[error("too many links")]
    TooManyLinks,
    /// Bytes that do not open under the block's key, or not to what is named.
    #[error("block {block}: the object at {} (+{}) does not open: it is damaged or forged; `kilofs fsck` says more", place.offset, place.length)]
    Tampered {
        /// The block whose key was tried.
        block: BlockNumber,
        /// Where the object lies.
        place: Place,
    },
    /// An object opened to something that no device writes.
    #[error("block {block}: inode {inode} is malformed; `kilofs fsck` says more")]
    Malformed {
        /// The block.
        block: BlockNumber,
        /// The inode to which it belongs.
        inode: Inode,
    },
    /// An inode number that two blocks use.
    #[error("block {block}: inode {inode} belongs to another block")]
    ForeignInode {
        /// The block that came second.
        block: BlockNumber,
        /// The inode.
        inode: Inode,
    },
    /// Bytes that this device does not have yet.
    #[error("the object at {} (+{}) is not here yet", .0.offset, .0.length)]
    Absent(Place),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// A map failed.
    #[error(transparent)]
    Map(MapError),
}

impl TreeError {
    /// What failed in a map of `block`.
    pub(super) fn in_block(block: BlockNumber, error: MapError) -> TreeError {
        match error {
            MapError::Tampered(place) => TreeError::Tampered { block, place },
            other => TreeError::from(other),
        }
    }

    /// A value of `inode` that no device writes.
    pub(super) fn malformed(block: BlockNumber, inode: Inode) -> impl Fn(Malformed) -> TreeError {
        move |_| TreeError::Malformed { block, inode }
    }
}

impl From<StoreError> for TreeError {
    fn from(error: StoreError) -> TreeError {
        match error {
            StoreError::Full { .. } => TreeError::NoSpace,
            other => TreeError::Store(other),
        }
    }
}

impl From<MapError> for TreeError {
    fn from(error: MapError) -> TreeError {
        match error {
            MapError::Fetch(FetchError::Absent(place)) => TreeError::Absent(place),
            MapError::Emit(EmitError::NoSpace) => TreeError::NoSpace,
            other => TreeError::Map(other),
        }
    }
}
