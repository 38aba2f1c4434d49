//! Floor 2: the store, a local file of 1 MiB slots that the images of all kept versions share.
//!
//! An [`Image`] is one immutable table: region → (slot, fill, live). A [`Draft`] grows a new image on top of another, an
//! [`Incoming`] builds one from pieces that arrive, [`Store::commit`] makes a set of images the durable ones. Bytes below
//! a fill that any image shows are never overwritten; a slot is free when no image, draft or superblock names it.

mod check;
mod crash_disk;
mod disk;
mod draft;
mod error;
mod evict;
mod file_disk;
mod incoming;
mod load;
mod log;
mod manifest;
mod mend;
mod open_region;
mod partial;
mod pieces;
mod presence;
mod slot_io;
mod slots;
mod store;
mod superblock;
mod table;
mod version;

#[cfg(test)]
mod tests;

pub use check::Finding;
pub use crash_disk::{CrashDisk, Fate};
pub use disk::{Disk, MemoryDisk, Space};
pub use draft::Draft;
pub use error::StoreError;
pub use evict::GivenUp;
pub use file_disk::FileDisk;
pub use incoming::Incoming;
pub use open_region::Stream;
pub use pieces::{Counters, hash_piece, hash_pieces, zero_piece_hash};
pub use presence::UNIT_BYTES;
pub use store::{Kept, Label, Statistics, Store};
pub use version::{Image, Region};
