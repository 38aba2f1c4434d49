//! Names: looking up, making, linking, removing, renaming, listing.

use super::errno::Refusal;
use super::init::CACHE_FOR;
use super::shared::{Found, Shared, is_shelf};
use super::shelf::{self, Audience, CACHE_BRIEFLY, Visit};
use crate::base::Inode;
use crate::tree::{Attr, DirItem, FileType, NodeKind, Owner, ReadTree as _, RenameFlags, TreeError};
use std::time::Duration;

/// Who makes something, and with which permission bits. Where there are no access lists, the kernel has applied the
/// umask.
#[derive(Clone, Copy)]
pub(super) struct Maker {
    pub mode: u16,
    pub umask: u16,
    pub owner: Owner,
}

impl Shared {
    pub fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Found, Refusal> {
        let on_shelf = if is_shelf(parent, name) {
            Some(Ok(self.shelf.itself()))
        } else {
            shelf::holds(parent).then(|| self.shelf.lookup(parent, name))
        };
        if let Some(found) = on_shelf {
            let (attr, lasting) = found?;
            return Ok(Found { attr: Some(attr), lasting });
        }
        self.note_name(parent, name);
        match self.tree.lookup(parent, name) {
            Ok(attr) => Ok(self.found(attr)),
            Err(TreeError::NotFound) => Ok(Found { attr: None, lasting: CACHE_FOR }),
            Err(error) => Err(error.into()),
        }
    }

    pub fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        kind: NodeKind,
        maker: Maker,
    ) -> Result<Found, Refusal> {
        self.changeable(parent, name)?;
        self.note_name(parent, name);
        let (mode, acl) = self.birth(parent, maker.mode, maker.umask)?;
        let made = self.tree.make_node(parent, name, kind, mode, self.owners.stored(maker.owner))?;
        let attr = self.hand_down(made, acl)?;
        Ok(self.mutated(self.found(attr)))
    }

    pub fn make_dir(&self, parent: Inode, name: &[u8], maker: Maker) -> Result<Found, Refusal> {
        self.changeable(parent, name)?;
        self.note_name(parent, name);
        let (mode, acl) = self.birth(parent, maker.mode, maker.umask)?;
        let made = self.tree.make_dir(parent, name, mode, self.owners.stored(maker.owner))?;
        let attr = self.hand_down(made, acl)?;
        Ok(self.mutated(self.found(attr)))
    }

    pub fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        owner: Owner,
    ) -> Result<Found, Refusal> {
        self.changeable(parent, name)?;
        self.note_name(parent, name);
        let attr = self.tree.make_symlink(parent, name, target, self.owners.stored(owner))?;
        Ok(self.mutated(self.found(attr)))
    }

    pub fn link(&self, inode: Inode, parent: Inode, name: &[u8]) -> Result<Found, Refusal> {
        self.changeable(parent, name)?;
        if shelf::holds(inode) {
            return Err(TreeError::CrossBlock.into());
        }
        self.note_name(parent, name);
        let attr = self.tree.link(inode, parent, name)?;
        Ok(self.mutated(self.found(attr)))
    }

    pub fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Refusal> {
        self.changeable(parent, name)?;
        self.tree.unlink(parent, name)?;
        self.host.mutated();
        Ok(())
    }

    pub fn remove_dir(&self, parent: Inode, name: &[u8]) -> Result<(), Refusal> {
        self.changeable(parent, name)?;
        self.tree.remove_dir(parent, name)?;
        self.host.mutated();
        Ok(())
    }

    pub fn rename(
        &self,
        from: (Inode, &[u8]),
        to: (Inode, &[u8]),
        flags: fuser::RenameFlags,
    ) -> Result<(), Refusal> {
        let how = if flags.is_empty() {
            RenameFlags::Replace
        } else if flags == fuser::RenameFlags::RENAME_NOREPLACE {
            RenameFlags::NoReplace
        } else if flags == fuser::RenameFlags::RENAME_EXCHANGE {
            RenameFlags::Exchange
        } else {
            return Err(TreeError::Invalid.into());
        };
        self.changeable(from.0, from.1)?;
        self.changeable(to.0, to.1)?;
        self.note_name(to.0, to.1);
        let replaced = if how == RenameFlags::Replace { self.hold_replaced(to) } else { None };
        let done = self.tree.rename(from.0, from.1, to.0, to.1, how);
        if let (Err(_), Some(replaced)) = (&done, replaced) {
            self.let_go(replaced);
        }
        done?;
        self.host.mutated();
        Ok(())
    }

    /// A program that has looked a name up opens what it found, as on any disk, though another file is renamed over
    /// that just now: what is replaced is kept until the kernel forgets it. Otherwise whoever opens a file that is
    /// replaced again and again may fail.
    fn hold_replaced(&self, (parent, name): (Inode, &[u8])) -> Option<Inode> {
        let attr = self.tree.lookup(parent, name).ok()?;
        let last_name = attr.file_type == FileType::File && attr.nlink == 1;
        if !last_name || !self.known.has(attr.inode) || !self.replaced.lock().insert(attr.inode) {
            return None;
        }
        if self.tree.open(attr.inode, false, false).is_err() {
            self.replaced.lock().remove(&attr.inode);
            return None;
        }
        Some(attr.inode)
    }

    /// The kernel has forgotten what was replaced, or it was not replaced after all.
    pub fn let_go(&self, inode: Inode) {
        if self.replaced.lock().remove(&inode) {
            self.tree.close(inode);
        }
    }

    /// How long the kernel may believe what a directory lists.
    pub fn listing_lasts(&self, inode: Inode) -> Duration {
        if shelf::changes_unnoticed(inode) { CACHE_BRIEFLY } else { CACHE_FOR }
    }

    /// Visits the entries after `cookie`. Inodes that are taken for [`Audience::Inodes`] count as looked up.
    pub fn read_dir(
        &self,
        inode: Inode,
        cookie: u64,
        audience: Audience,
        visit: Visit<'_>,
    ) -> Result<(), Refusal> {
        if shelf::holds(inode) {
            return Ok(self.shelf.read_dir(inode, cookie, audience, visit)?);
        }
        let mut from = cookie;
        loop {
            let batch = match self.tree.read_dir(inode, from) {
                Ok(batch) => batch,
                // What was visited is good; the error comes again when the kernel goes on from there.
                Err(_) if from != cookie => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let Some(last) = batch.last() else { return Ok(()) };
            from = last.cookie;
            for item in batch {
                if self.visit(inode, &item, audience, visit) {
                    return Ok(());
                }
            }
        }
    }

    fn visit(&self, directory: Inode, item: &DirItem, audience: Audience, visit: Visit<'_>) -> bool {
        let name = &item.name[..];
        // A database may hold such a name all the same; here it stands for the shelf.
        if is_shelf(directory, name) {
            return false;
        }
        let remembered = audience == Audience::Inodes && !matches!(name, b"." | b"..");
        if remembered {
            self.known.remember(item.inode);
            self.note_name(directory, name);
        }
        let full = visit(name, item.cookie, &item.attr);
        if full && remembered {
            self.known.forget(item.inode, 1);
        }
        full
    }
}

/// What mknod(2) is asked to make; `None` for what it cannot.
pub(super) fn node_kind(mode: u32, device: u32) -> Option<NodeKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(NodeKind::File),
        libc::S_IFIFO => Some(NodeKind::Fifo),
        libc::S_IFSOCK => Some(NodeKind::Socket),
        libc::S_IFCHR => Some(NodeKind::Char(device)),
        libc::S_IFBLK => Some(NodeKind::Block(device)),
        _ => None,
    }
}

/// Whether a file is there that an open without `O_EXCL` may take instead of making it.
pub(super) fn is_openable(attr: &Attr) -> Result<(), TreeError> {
    match attr.file_type {
        FileType::File => Ok(()),
        FileType::Directory => Err(TreeError::IsDirectory),
        _ => Err(TreeError::Exists),
    }
}
