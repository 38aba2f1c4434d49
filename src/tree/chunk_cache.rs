//! Opened chunks, for reads that take less than a whole one.

use crate::base::Id;
use lru::LruCache;
use parking_lot::Mutex;
use std::sync::Arc;

const SHARDS: usize = 16;

/// Plaintext of chunks by id, bounded in bytes; the least recently used go first. An id covers content and context, so
/// nothing in here ever becomes wrong.
pub(super) struct ChunkCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

struct Shard {
    chunks: LruCache<Id, Arc<Vec<u8>>>,
    bytes: usize,
}

impl ChunkCache {
    /// A cache of at most `bytes`.
    pub(super) fn new(bytes: usize) -> ChunkCache {
        let shard = || Mutex::new(Shard { chunks: LruCache::unbounded(), bytes: 0 });
        ChunkCache { shards: std::array::from_fn(|_| shard()), shard_bytes_max: bytes / SHARDS }
    }

    /// The plaintext of a chunk, if it is here.
    pub(super) fn get(&self, id: &Id) -> Option<Arc<Vec<u8>>> {
        self.shard(id).lock().chunks.get(id).cloned()
    }

    /// Keeps a chunk that was opened.
    pub(super) fn put(&self, id: Id, plain: Arc<Vec<u8>>) {
        if plain.len() > self.shard_bytes_max {
            return;
        }
        let mut shard = self.shard(&id).lock();
        shard.bytes += plain.len();
        if let Some(replaced) = shard.chunks.put(id, plain) {
            shard.bytes -= replaced.len();
        }
        while shard.bytes > self.shard_bytes_max
            && let Some((_, evicted)) = shard.chunks.pop_lru()
        {
            shard.bytes -= evicted.len();
        }
    }

    fn shard(&self, id: &Id) -> &Mutex<Shard> {
        &self.shards[usize::from(id.0[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_bytes() {
        let cache = ChunkCache::new(SHARDS * 100);
        for index in 0..50u8 {
            let mut id = Id([0; 32]);
            id.0[1] = index;
            cache.put(id, Arc::new(vec![index; 30]));
            cache.put(id, Arc::new(vec![index; 30]));
            assert_eq!(cache.get(&id).map(|plain| plain[0]), Some(index));
        }
        let shard = cache.shards[0].lock();
        assert_eq!((shard.bytes, shard.chunks.len()), (90, 3));
    }
}
