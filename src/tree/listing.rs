//! Listing directories without handles: a cookie is made of the inode number and the name after which to go on, and entries
//! come in the order of their cookies, so a listing can be resumed at any time whatever was added or removed meanwhile.

use super::attr::{Attr, DirItem};
use super::error::TreeError;
use super::inode::{FileType, InodeRecord, Timestamp};
use super::value::DirEntry;
use super::view::View;
use crate::base::Inode;
use lru::LruCache;
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;
/// Entries that one call gives.
const BATCH_ENTRIES: usize = 200;
/// Entries of all directories that are remembered, about 80 bytes each; the directory listed last stays in any case.
const CACHED_ENTRIES_MAX: usize = 1 << 18;
/// Bits of a cookie that the name decides; those above are the inode's.
const COOKIE_NAME_BITS: u32 = 31;

struct Item {
    cookie: u64,
    name: Box<[u8]>,
    entry: DirEntry,
}

struct Cached {
    items: Arc<Vec<Item>>,
    /// The directory was changed since; good enough to go on with, not to start with.
    stale: bool,
}

/// Directories as they were when somebody began to list them.
pub(super) struct Listings {
    hasher: RandomState,
    cached: Mutex<LruCache<Inode, Cached>>,
}

impl Listings {
    pub(super) fn new() -> Listings {
        Listings { hasher: RandomState::new(), cached: Mutex::new(LruCache::unbounded()) }
    }

    /// A directory's entries were changed. Called under the tree's lock.
    pub(super) fn touch(&self, directory: Inode) {
        if let Some(cached) = self.cached.lock().peek_mut(&directory) {
            cached.stale = true;
        }
    }

    /// Any directory may have changed.
    pub(super) fn touch_all(&self) {
        self.cached.lock().iter_mut().for_each(|(_, cached)| cached.stale = true);
    }

    /// Forgets everything, as when memory ran short.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.cached.lock().clear();
    }

    /// A listing's next batch; empty at the end.
    pub(super) fn read(
        &self,
        view: View<'_>,
        directory: Inode,
        cookie: u64,
    ) -> Result<Vec<DirItem>, TreeError> {
        let items = match self.known(directory, cookie) {
            Some(items) => items,
            None => self.build(view, directory)?,
        };
        let mut batch = Vec::new();
        for (own, name, inode) in
            [(COOKIE_SELF, &b"."[..], directory), (COOKIE_PARENT, b"..", view.parent(directory)?)]
        {
            if cookie < own {
                let attr = view.attr(inode)?;
                batch.push(DirItem {
                    name: name.to_vec(),
                    inode,
                    file_type: attr.file_type,
                    cookie: own,
                    attr,
                });
            }
        }
        let from = items.partition_point(|item| item.cookie <= cookie);
        for item in &items[from..] {
            if batch.len() == BATCH_ENTRIES {
                break;
            }
            let DirEntry { inode, file_type } = item.entry;
            let attr = match view.attr(inode) {
                Ok(attr) => attr,
                Err(TreeError::NotFound) => continue,
                // It is listed all the same: whoever asks for more of it gets the error.
                Err(_) => unknown(inode, file_type),
            };
            batch.push(DirItem { name: item.name.to_vec(), inode, file_type, cookie: item.cookie, attr });
        }
        Ok(batch)
    }

    fn known(&self, directory: Inode, cookie: u64) -> Option<Arc<Vec<Item>>> {
        let mut cached = self.cached.lock();
        let known = cached.get(&directory)?;
        (cookie > 0 || !known.stale).then(|| known.items.clone())
    }

    /// Called under the tree's lock, so that no change goes unnoticed.
    fn build(&self, view: View<'_>, directory: Inode) -> Result<Arc<Vec<Item>>, TreeError> {
        view.directory(directory)?;
        view.enter(directory)?;
        let mut items = Vec::new();
        let mut take = |name: &[u8], entry: DirEntry| {
            items.push(Item { cookie: self.cookie(name, entry.inode), name: name.into(), entry });
            true
        };
        if view.base.pins.at(directory).is_none_or(|pin| !pin.synthetic) {
            let stack = view.stack(directory)?;
            stack.each_entry(|name, entry| {
                let pinned = view.base.pins.child(directory, name).is_some();
                // An inode of another block: refused when it is asked for by name, not shown under that one's number.
                let foreign = view.claim(entry.inode, stack.block).is_err();
                pinned || foreign || take(name, entry)
            })?;
        }
        for (name, pin) in view.base.pins.children(directory) {
            take(name, DirEntry { inode: pin.inode, file_type: FileType::Directory });
        }
        items.sort_unstable_by(|a, b| (a.cookie, &a.name).cmp(&(b.cookie, &b.name)));
        // Of an inode with very many names two may agree; a listing could end between them.
        let mut least = 0;
        for item in &mut items {
            item.cookie = item.cookie.max(least);
            least = item.cookie + 1;
        }
        let items = Arc::new(items);
        let mut cached = self.cached.lock();
        cached.put(directory, Cached { items: items.clone(), stale: false });
        let mut count: usize = cached.iter().map(|(_, cached)| cached.items.len() + 1).sum();
        while count > CACHED_ENTRIES_MAX && cached.len() > 1 {
            count -= cached.pop_lru().map_or(0, |(_, cached)| cached.items.len() + 1);
        }
        Ok(items)
    }

    /// 63 bits, above those of `.` and `..`. Inodes that were made one after the other lie together in the map, so the
    /// order of their numbers is the one in which attributes are read at least cost.
    fn cookie(&self, name: &[u8], inode: Inode) -> u64 {
        let name = self.hasher.hash_one(name) & ((1 << COOKIE_NAME_BITS) - 1);
        ((inode.0 & u64::from(u32::MAX)) << COOKIE_NAME_BITS | name).max(COOKIE_PARENT + 1)
    }
}

fn unknown(inode: Inode, file_type: FileType) -> Attr {
    let record = InodeRecord::new(file_type, 0, Inode(0), Timestamp::default());
    Attr::new(inode, &record, false)
}
