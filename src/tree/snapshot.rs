//! Reading a tree: the one interface of the live tree and of old versions.

use super::attr::{Attr, DirItem};
use super::block::{Base, Blocks, Shared};
use super::error::TreeError;
use super::listing::Listings;
use super::live::{Tree, make_base};
use super::read::read_still;
use super::source::ImageSource;
use crate::base::Inode;
use crate::image::Image;
use std::sync::Arc;

/// What one can do with a tree without changing it.
pub trait ReadTree: Send + Sync {
    /// What a name leads to.
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attr, TreeError>;
    /// The attributes of an inode.
    fn attr(&self, inode: Inode) -> Result<Attr, TreeError>;
    /// The target of a symbolic link.
    fn read_link(&self, inode: Inode) -> Result<Vec<u8>, TreeError>;
    /// Up to `bytes` bytes of a file from `offset` on; fewer at its end.
    fn read(&self, inode: Inode, offset: u64, bytes: usize) -> Result<Vec<u8>, TreeError>;
    /// The next entries of a directory, in no order that means anything; `cookie` is 0 at the start, later that of
    /// the last entry taken. Empty at the end. An entry that exists all the while comes exactly once.
    fn read_dir(&self, directory: Inode, cookie: u64) -> Result<Vec<DirItem>, TreeError>;
    /// The value of an extended attribute.
    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, TreeError>;
    /// The names of all extended attributes, in order.
    fn list_xattr(&self, inode: Inode) -> Result<Vec<Vec<u8>>, TreeError>;
}

impl ReadTree for Tree {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attr, TreeError> {
        self.read_view(|view| view.lookup(parent, name))
    }

    fn attr(&self, inode: Inode) -> Result<Attr, TreeError> {
        self.read_view(|view| view.attr(inode))
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>, TreeError> {
        self.read_view(|view| view.stack(inode)?.link_target())
    }

    fn read(&self, inode: Inode, offset: u64, bytes: usize) -> Result<Vec<u8>, TreeError> {
        self.read_live(inode, offset, bytes)
    }

    fn read_dir(&self, directory: Inode, cookie: u64) -> Result<Vec<DirItem>, TreeError> {
        self.read_view(|view| self.listings.read(view, directory, cookie))
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        self.read_view(|view| view.get_xattr(inode, name))
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Vec<u8>>, TreeError> {
        self.read_view(|view| view.list_xattr(inode))
    }
}

/// A state that nobody changes any more: an old version, or edits that were set aside. All of it is masked read-only.
pub struct TreeSnapshot {
    base: Base,
    shared: Arc<Shared>,
    listings: Listings,
}

impl Tree {
    /// The tree of another state in the same store. It shares this one's caches.
    pub fn snapshot(&self, image: &Image, blocks: impl Into<Blocks>) -> Result<Arc<TreeSnapshot>, TreeError> {
        let own = &self.bench.shared;
        // An inode may lie in another block here: what is known of the live tree's is not used.
        let shared = Arc::new(own.with_own_homes());
        let mut blocks = blocks.into();
        blocks.open.iter_mut().for_each(|block| block.writable = false);
        let base = make_base(ImageSource::remembering(&own.store, image, Arc::default()), blocks, &shared)?;
        Ok(Arc::new(TreeSnapshot { base, shared, listings: Listings::new() }))
    }
}

impl ReadTree for TreeSnapshot {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attr, TreeError> {
        self.base.view(&self.shared).lookup(parent, name)
    }

    fn attr(&self, inode: Inode) -> Result<Attr, TreeError> {
        self.base.view(&self.shared).attr(inode)
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>, TreeError> {
        self.base.view(&self.shared).stack(inode)?.link_target()
    }

    fn read(&self, inode: Inode, offset: u64, bytes: usize) -> Result<Vec<u8>, TreeError> {
        read_still(self.base.view(&self.shared), inode, offset, bytes)
    }

    fn read_dir(&self, directory: Inode, cookie: u64) -> Result<Vec<DirItem>, TreeError> {
        self.listings.read(self.base.view(&self.shared), directory, cookie)
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        self.base.view(&self.shared).get_xattr(inode, name)
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Vec<u8>>, TreeError> {
        self.base.view(&self.shared).list_xattr(inode)
    }
}
