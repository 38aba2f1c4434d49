//! Opened nodes, kept up to a limit of memory.

use super::node::Node;
use super::{NODE_HEAD_BYTES, Root};
use crate::base::Id;
use lru::LruCache;
use parking_lot::Mutex;
use std::sync::Arc;

/// A sealed node's name: its first bytes, a keyed hash of content and places. The id would not do: two images can
/// hold the same content with its objects in different places, even at the same place.
pub(super) type Head = [u8; NODE_HEAD_BYTES];

const SHARDS: usize = 16;

/// Opened nodes of any number of maps, blocks and images; the least recently used go first. Share it freely.
pub struct NodeCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

struct Shard {
    nodes: LruCache<Head, Cached>,
    bytes: usize,
}

struct Cached {
    id: Id,
    sealed_bytes: u32,
    memory_bytes: usize,
    node: Arc<Node>,
}

impl NodeCache {
    /// A cache of about `bytes` of memory; 0 keeps nothing.
    pub fn new(bytes: usize) -> NodeCache {
        let shard = || Mutex::new(Shard { nodes: LruCache::unbounded(), bytes: 0 });
        NodeCache { shards: std::array::from_fn(|_| shard()), shard_bytes_max: bytes / SHARDS }
    }

    /// Bytes of memory in use, about.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    /// The node that `at` names, if it is here and is the one whose sealed form begins with `head`.
    pub(super) fn get(&self, head: &Head, at: &Root) -> Option<Arc<Node>> {
        let mut shard = self.shard(head).lock();
        let cached = shard.nodes.get(head)?;
        let same =
            cached.id == at.id && cached.node.level == at.level && cached.sealed_bytes == at.place.length;
        same.then(|| cached.node.clone())
    }

    /// Keeps a node that was opened, or sealed, as `at`.
    pub(super) fn put(&self, head: &Head, at: &Root, node: &Arc<Node>) {
        let memory_bytes = node.memory_bytes() + size_of::<Cached>() + 2 * size_of::<Head>();
        if memory_bytes > self.shard_bytes_max {
            return;
        }
        let cached = Cached { id: at.id, sealed_bytes: at.place.length, memory_bytes, node: node.clone() };
        let mut shard = self.shard(head).lock();
        shard.bytes += memory_bytes;
        if let Some(replaced) = shard.nodes.put(*head, cached) {
            shard.bytes -= replaced.memory_bytes;
        }
        while shard.bytes > self.shard_bytes_max
            && let Some((_, evicted)) = shard.nodes.pop_lru()
        {
            shard.bytes -= evicted.memory_bytes;
        }
    }

    fn shard(&self, head: &Head) -> &Mutex<Shard> {
        &self.shards[usize::from(head[0]) % SHARDS]
    }
}
