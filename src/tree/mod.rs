//! Floor 3: a POSIX tree over block maps: inodes, names, file data, rename, merge, cleaning. Synchronous; no FUSE in it.

mod adopt;
pub mod attr;
mod attributes;
mod block;
#[cfg(test)]
mod care_tests;
pub mod check;
mod chunk_cache;
pub mod clean;
mod commit;
pub mod error;
mod flush;
mod growing;
mod headroom;
pub mod inode;
mod intent;
mod intent_log;
mod journal;
pub mod key;
mod layer;
mod ledger;
mod listing;
mod live;
pub mod merge;
pub mod meter;
mod names;
pub mod path;
mod pins;
mod ranges;
mod read;
mod reclaim;
pub mod recut;
mod rename;
pub mod repair;
mod sealer;
mod snapshot;
pub mod source;
mod state;
pub mod structure;
mod unwritten;
pub mod value;
pub mod veil;
mod veil_writer;
pub mod verify;
pub mod version;
mod view;
mod whole;
mod write;
mod xattr;

#[cfg(test)]
mod tests;

pub use crate::image::Space;
pub use adopt::{Changes, Stale};
pub use attr::{Allocate, Attr, DirItem, NodeKind, Owner, RenameFlags, SetAttr, SetTime, SetXattr, Whence};
pub use block::{BlockView, Blocks, ClosedBlock};
pub use error::TreeError;
pub use flush::{Head, Held};
pub use inode::{FileType, Timestamp};
pub use intent_log::{IntentLog, Logged};
pub use journal::{Batch, Mark, ReplayError};
pub use live::{Tree, TreeOptions};
pub use snapshot::{ReadTree, TreeSnapshot};
pub use source::{DraftSource, ImageSource};
pub use unwritten::{UNWRITTEN_MAX, Unwritten};
pub use whole::Whole;
