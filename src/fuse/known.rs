//! Which inodes the kernel holds: it tells when it forgets one, we count what we told it.

use crate::base::Inode;
use parking_lot::Mutex;
use std::collections::HashMap;

const SHARDS: usize = 16;

/// Lookups not yet forgotten, by inode.
#[derive(Default)]
pub(super) struct Known([Mutex<HashMap<u64, u64>>; SHARDS]);

impl Known {
    /// The kernel is about to be told of `inode`. Call it before the reply: forgetting may come right after.
    pub fn remember(&self, inode: Inode) {
        *self.shard(inode).lock().entry(inode.0).or_default() += 1;
    }

    /// The kernel gave back `lookups` of them; true if it knows the inode no more.
    pub fn forget(&self, inode: Inode, lookups: u64) -> bool {
        let mut shard = self.shard(inode).lock();
        match shard.get_mut(&inode.0) {
            Some(count) if *count > lookups => *count -= lookups,
            _ => {
                shard.remove(&inode.0);
                return true;
            }
        }
        false
    }

    /// Whether the kernel holds `inode`.
    pub fn has(&self, inode: Inode) -> bool {
        self.shard(inode).lock().contains_key(&inode.0)
    }

    /// All of them, as of some moment during the call.
    pub fn all(&self) -> Vec<Inode> {
        self.0.iter().flat_map(|shard| shard.lock().keys().copied().map(Inode).collect::<Vec<_>>()).collect()
    }

    fn shard(&self, inode: Inode) -> &Mutex<HashMap<u64, u64>> {
        &self.0[inode.0 as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_until_all_is_given_back() {
        let known = Known::default();
        for _ in 0..3 {
            known.remember(Inode(7));
        }
        known.remember(Inode(7 + SHARDS as u64));
        assert!(!known.forget(Inode(7), 2));
        assert_eq!(known.all().len(), 2);
        assert!(known.forget(Inode(7), 1));
        assert!(known.forget(Inode(99), u64::MAX));
        assert_eq!(known.all(), [Inode(7 + SHARDS as u64)]);
    }
}
