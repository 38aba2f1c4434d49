//! Attributes of inodes: modes, owners, times, sizes, extended attributes.

use super::errno::{Refusal, of_inode};
use super::files::Caller;
use super::host::VIRTUAL_XATTRS;
use super::init::CACHE_FOR;
use super::shared::Shared;
use super::shelf;
use crate::base::Inode;
use crate::image::Space;
use crate::tree::{Attr, ReadTree as _, SetAttr, SetXattr, TreeError};
use std::time::Duration;

impl Shared {
    pub fn attr(&self, inode: Inode) -> Result<(Attr, Duration), Refusal> {
        if shelf::holds(inode) {
            return Ok(self.shelf.attr(inode)?);
        }
        Ok((self.tree.attr(inode).map_err(of_inode)?, CACHE_FOR))
    }

    pub fn set_attr(
        &self,
        inode: Inode,
        change: SetAttr,
        caller: Caller,
    ) -> Result<(Attr, Duration), Refusal> {
        if shelf::holds(inode) {
            return Err(Refusal::ReadOnlyShelf);
        }
        let attr = self.tree.set_attr(inode, change).map_err(of_inode)?;
        let attr = match (change.size, caller) {
            (Some(_), Caller::Ordinary) => {
                self.changed_by(inode, caller)?;
                self.tree.attr(inode)?
            }
            _ => self.mutated(attr),
        };
        Ok((attr, CACHE_FOR))
    }

    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>, Refusal> {
        if shelf::holds(inode) {
            return Ok(self.shelf.read_link(inode)?);
        }
        self.tree.read_link(inode).map_err(of_inode)
    }

    pub fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, Refusal> {
        if is_virtual(name) && !shelf::holds(inode) {
            let value = self.host.provenance(inode).and_then(|provenance| provenance.value(name));
            return value.map(String::into_bytes).ok_or(Refusal::Tree(TreeError::NoData));
        }
        if shelf::holds(inode) {
            return Ok(self.shelf.xattr(inode, name)?);
        }
        if !is_kept(name) {
            return Err(TreeError::NoData.into());
        }
        self.tree.get_xattr(inode, name).map_err(of_inode)
    }

    /// The names, each closed by a NUL, as listxattr(2) has them.
    pub fn xattrs(&self, inode: Inode) -> Result<Vec<u8>, Refusal> {
        let names =
            if shelf::holds(inode) { self.shelf.xattrs(inode)? } else { self.tree.list_xattr(inode)? };
        let listed = names.into_iter().filter(|name| is_kept(name) && !is_virtual(name));
        Ok(listed.flat_map(|name| name.into_iter().chain([0]).collect::<Vec<u8>>()).collect())
    }

    pub fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], flags: i32) -> Result<(), Refusal> {
        let how = match flags {
            0 => SetXattr::Any,
            libc::XATTR_CREATE => SetXattr::Create,
            libc::XATTR_REPLACE => SetXattr::Replace,
            _ => return Err(TreeError::Invalid.into()),
        };
        self.settable(inode, name)?;
        self.tree.set_xattr(inode, name, value, how).map_err(of_inode)?;
        self.host.mutated();
        Ok(())
    }

    pub fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Refusal> {
        self.settable(inode, name)?;
        self.tree.remove_xattr(inode, name)?;
        self.host.mutated();
        Ok(())
    }

    fn settable(&self, inode: Inode, name: &[u8]) -> Result<(), Refusal> {
        if is_virtual(name) {
            return Err(TreeError::NotPermitted.into());
        }
        if shelf::holds(inode) {
            return Err(Refusal::ReadOnlyShelf);
        }
        if is_kept(name) { Ok(()) } else { Err(TreeError::Unsupported.into()) }
    }

    pub fn space(&self) -> Result<Space, Refusal> {
        Ok(self.tree.space()?)
    }
}

fn is_virtual(name: &[u8]) -> bool {
    name.starts_with(VIRTUAL_XATTRS.as_bytes())
}

/// Whether a name is of the namespace that users share. Access lists and capabilities would not be obeyed elsewhere:
/// better say so than keep them.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
}
