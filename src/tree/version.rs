//! One state of a block together with the image in which it lies.

use crate::crypt::SealKeys;
use crate::map::{Fetch, Map, Root};

/// One state of a block in its own image: places of different versions name different bytes.
#[derive(Clone, Copy)]
pub struct Version<'a> {
    /// Reads nodes out of this version's image.
    pub map: &'a Map<'a>,
    /// The block's root in it; `None` is the empty block.
    pub root: Option<Root>,
    /// Opens the chunks.
    pub keys: &'a SealKeys,
    /// Reads sealed chunks out of this version's image.
    pub source: &'a dyn Fetch,
}
