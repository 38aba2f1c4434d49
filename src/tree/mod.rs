//! Floor 3: a POSIX tree over block maps: inodes, names, file data, rename, merge, cleaning. Synchronous; no FUSE in it.

pub mod attr;
pub mod error;
pub mod inode;
pub mod key;
pub mod source;
pub mod value;

pub use attr::{
    Allocate, Attr, DirItem, NodeKind, Owner, RenameFlags, SetAttr, SetTime, SetXattr, Whence,
};
pub use error::TreeError;
pub use inode::{FileType, Timestamp};
pub use source::{DraftSource, ImageSource};
