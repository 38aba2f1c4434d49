//! Floor 3: a POSIX tree over block maps: inodes, names, file data, rename, merge, cleaning. Synchronous; no FUSE in it.

pub mod attr;
pub mod check;
pub mod clean;
pub mod error;
pub mod inode;
pub mod key;
pub mod merge;
pub mod source;
pub mod structure;
pub mod value;
pub mod verify;
pub mod version;

pub use attr::{
    Allocate, Attr, DirItem, NodeKind, Owner, RenameFlags, SetAttr, SetTime, SetXattr, Whence,
};
pub use error::TreeError;
pub use inode::{FileType, Timestamp};
pub use source::{DraftSource, ImageSource};
