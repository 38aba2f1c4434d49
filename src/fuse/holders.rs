//! Handles of one kind, counted by inode.

use crate::base::Inode;
use parking_lot::Mutex;
use std::collections::HashMap;

/// How many handles of a kind each inode has.
#[derive(Default)]
pub(super) struct Holders(Mutex<HashMap<Inode, u64>>);

impl Holders {
    /// One more.
    pub fn begin(&self, inode: Inode) {
        *self.0.lock().entry(inode).or_default() += 1;
    }

    /// One less.
    pub fn end(&self, inode: Inode) {
        let mut counts = self.0.lock();
        match counts.get_mut(&inode) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&inode)),
        }
    }

    /// Whether an inode has any.
    pub fn has(&self, inode: Inode) -> bool {
        self.0.lock().contains_key(&inode)
    }

    /// The inodes that have any.
    pub fn all(&self) -> Vec<Inode> {
        self.0.lock().keys().copied().collect()
    }
}
