//! Floor 2: the Merkle map, an ordered map of byte strings whose id is a function of its content alone.
//!
//! A map is a tree of sealed nodes. A node's entries are keys with values (level 0) or its children's last keys
//! with their ids (above). Where a node ends is decided by keys and sizes alone (`boundary`), so equal contents
//! give equal ids whatever the history. Where children and objects lie is kept beside the logical content, outside
//! the id: moving them changes no id.
//!
//! Nothing that is read is trusted: a node is opened against its id, decoded strictly, and held against the keys
//! that its parent announces. The map knows images through [`Fetch`] and [`Emit`] only.

mod apply;
mod boundary;
mod cache;
mod cursor;
mod diff;
mod error;
mod frontier;
mod node;
mod path;
mod read;
mod relocate;
mod remains;
mod walk;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod model_tests;

pub use cache::NodeCache;
pub use cursor::Cursor;
pub use diff::{Changed, DifferenceVisitor, Which};
pub use error::{EmitError, FetchError, MapError};
pub use read::Map;
pub use relocate::Relocate;
pub use remains::Remains;
pub use walk::{Descend, Visit};

use crate::base::{Id, Place, REGION_BYTES};
use crate::crypt::seal::NODE_OVERHEAD;

/// Longest key. The shortest has one byte.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value: Linux' largest extended attribute and room for what goes with it.
pub const VALUE_BYTES_MAX: usize = (64 << 10) + 1024;
/// Most entries of a node.
pub const NODE_ENTRIES_MAX: usize = 32;
/// Heaviest node of more than one entry; an entry weighs its key, its value and [`ENTRY_WEIGHT_BYTES`].
pub const NODE_WEIGHT_BYTES_MAX: usize = 16 << 10;
/// What an entry weighs beyond key and value; no less than what lengths and a place take in a node.
pub const ENTRY_WEIGHT_BYTES: usize = 20;
/// One key in so many ends a run.
pub const RUN_FAN: u64 = 64;
/// Highest level of a root.
pub const LEVEL_MAX: u8 = 12;
/// Longest sealed node: one entry of the longest key and value.
pub const NODE_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + ENTRY_WEIGHT_BYTES + NODE_OVERHEAD;
/// Bytes at the start of a sealed node that name it: its nonce, a keyed hash of all that it holds.
pub const NODE_HEAD_BYTES: usize = 24;

const _: () =
    assert!(NODE_BYTES_MAX as u64 <= REGION_BYTES / 4, "an object lies in one region, and regions fill well");
const _: () =
    assert!(NODE_WEIGHT_BYTES_MAX <= KEY_BYTES_MAX + VALUE_BYTES_MAX, "one large entry is the longest node");
const _: () = assert!(NODE_OVERHEAD >= NODE_HEAD_BYTES);

/// Where a map begins: its top node. No root is the empty map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Root {
    /// Height of the top node; 0 is a leaf.
    pub level: u8,
    /// The top node's id; with the level it says which content this is.
    pub id: Id,
    /// Where the top node lies.
    pub place: Place,
}

/// A key with what the map holds under it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key: 1 to [`KEY_BYTES_MAX`] bytes, ordered as bytes.
    pub key: Box<[u8]>,
    /// The value, at most [`VALUE_BYTES_MAX`] bytes.
    pub value: Box<[u8]>,
    /// Where the object lies that the value speaks of, if there is one. That there is one is content; where it lies is
    /// part of no id.
    pub place: Option<Place>,
}

/// One change of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edit {
    /// The key.
    pub key: Box<[u8]>,
    /// Its new value and place; `None` removes it.
    pub change: Option<(Box<[u8]>, Option<Place>)>,
}

/// Reads the sealed objects of one image.
pub trait Fetch {
    /// All bytes of the object at `place`.
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError>;

    /// The first bytes of the object at `place`. Worth overriding where a short read is cheaper than a long one: the
    /// cache looks at them on every hit, since one place may show different nodes in different images.
    fn fetch_head(&self, place: Place, head: &mut [u8; NODE_HEAD_BYTES]) -> Result<(), FetchError> {
        let sealed = self.fetch(place)?;
        *head = *sealed.first_chunk().ok_or(FetchError::OutOfRange(place))?;
        Ok(())
    }
}

/// Takes new sealed nodes, and hears which are no longer needed.
pub trait Emit {
    /// Appends a sealed node; says where. The whole node must lie in one region.
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError>;

    /// The node at `place` is not part of the new map. It may be one that was emitted a moment ago.
    fn free(&mut self, place: Place);
}
