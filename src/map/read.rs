//! A map in an image: opening nodes, and looking up a key.

use super::boundary::Boundary;
use super::node::{Bounds, Node};
use super::path::Path;
use super::{Entry, Fetch, LEVEL_MAX, MapError, NODE_BYTES_MAX, NODE_HEAD_BYTES, NodeCache, Root};
use crate::crypt::SealKeys;
use crate::crypt::seal::NODE_OVERHEAD;
use std::sync::Arc;

/// Reads and changes the maps of one block in one image. Cheap to make; holds no state of its own.
#[derive(Clone, Copy)]
pub struct Map<'a> {
    pub(super) keys: &'a SealKeys,
    pub(super) source: &'a dyn Fetch,
    pub(super) cache: &'a NodeCache,
}

/// Whether a node may come from the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It may: it was opened once, and the bytes at its place still begin as they did.
    Cache,
    /// It is opened from the bytes at its place, whatever is known: for those who verify.
    Bytes,
}

impl<'a> Map<'a> {
    /// The maps that `keys` open, out of the image that `source` reads.
    pub fn new(keys: &'a SealKeys, source: &'a dyn Fetch, cache: &'a NodeCache) -> Map<'a> {
        Map { keys, source, cache }
    }

    /// What the map holds under `key`.
    pub fn get(&self, root: Option<&Root>, key: &[u8]) -> Result<Option<Entry>, MapError> {
        let Some(root) = root else { return Ok(None) };
        let leaf = Path::seek(self, root, 0, key)?.open(self)?;
        let found = leaf.entries.get(leaf.position(key)).filter(|entry| entry.key.as_ref() == key);
        Ok(found.cloned())
    }

    pub(super) fn boundary(&self, level: u8) -> Boundary {
        Boundary::new(self.keys.boundary_key(), level)
    }

    /// Opens the node at `at` and holds it against what its parent announces.
    pub(super) fn open(&self, at: &Root, bounds: Bounds<'_>, trust: Trust) -> Result<Arc<Node>, MapError> {
        if at.level > LEVEL_MAX || !(NODE_OVERHEAD..=NODE_BYTES_MAX).contains(&(at.place.length as usize)) {
            return Err(MapError::Tampered(at.place));
        }
        let mut head = [0; NODE_HEAD_BYTES];
        let cached = match trust {
            Trust::Cache => {
                self.source.fetch_head(at.place, &mut head)?;
                self.cache.get(&head, at)
            }
            Trust::Bytes => None,
        };
        let node = match cached {
            Some(node) => node,
            None => self.open_bytes(at)?,
        };
        if node.lies_in(bounds) { Ok(node) } else { Err(MapError::Tampered(at.place)) }
    }

    fn open_bytes(&self, at: &Root) -> Result<Arc<Node>, MapError> {
        let tampered = || MapError::Tampered(at.place);
        let sealed = self.source.fetch(at.place)?;
        if sealed.len() != at.place.length as usize {
            return Err(tampered());
        }
        let opened = self.keys.open_node(at.level, &at.id, &sealed).map_err(|_| tampered())?;
        let node = Node::decode(at.level, &opened.logical, &opened.placements, &self.boundary(at.level))
            .map_err(|_| tampered())?;
        let node = Arc::new(node);
        let head = sealed.first_chunk().ok_or_else(tampered)?;
        self.cache.put(head, at, &node);
        Ok(node)
    }
}
