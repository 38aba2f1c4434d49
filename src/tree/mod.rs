//! Floor 3: a POSIX tree over block maps: inodes, names, file data, rename, merge, cleaning. Synchronous; no FUSE in it.

pub mod inode;
pub mod key;
pub mod value;
