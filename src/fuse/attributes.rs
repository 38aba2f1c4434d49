//! Attributes of inodes: modes, owners, times, sizes, extended attributes.

use super::acl;
use super::errno::{Refusal, of_inode};
use super::files::Caller;
use super::host::VIRTUAL_XATTRS;
use super::init::CACHE_FOR;
use super::shared::{ROOT, Shared};
use super::shelf;
use crate::base::Inode;
use crate::image::Space;
use crate::tree::{Attr, ReadTree as _, SetAttr, SetXattr, TreeError};
use std::time::{Duration, Instant};

/// Which extended attributes a mount keeps. What would not be obeyed, such as capabilities, is better refused than kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// Those of the namespace that users share.
    Users,
    /// Access lists too.
    UsersAndLists,
}

/// Inodes are numbered with 64 bits; statfs(2) has to say something.
const INODES: u64 = 1 << 32;

/// What statfs(2) tells.
pub struct Room {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub files: u64,
    pub free_files: u64,
}

impl Namespace {
    fn keeps(self, name: &[u8]) -> bool {
        name.starts_with(b"user.") || self.keeps_list(name)
    }

    fn keeps_list(self, name: &[u8]) -> bool {
        self == Namespace::UsersAndLists && [acl::ACCESS, acl::DEFAULT].contains(&name)
    }
}

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
        let (uid, gid) = self.owners.given(change.uid, change.gid);
        let change = SetAttr { uid, gid, ..change };
        let unwritten = self.tree.unwritten();
        let emptying = (change.size == Some(0) && self.writers.has(inode)).then(|| unwritten.begin());
        let attr = self.tree.set_attr(inode, change).map_err(of_inode)?;
        match (emptying, change.size) {
            (Some(emptying), _) => emptying.done(inode, Instant::now()),
            (None, Some(1..)) => unwritten.settle(inode),
            (None, _) => {}
        }
        if inode == ROOT && (uid.is_some() || gid.is_some()) {
            self.root_was_given();
        }
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
        if !self.namespace.keeps(name) {
            return Err(TreeError::NoData.into());
        }
        let value = if shelf::holds(inode) {
            self.shelf.xattr(inode, name)?
        } else {
            self.tree.get_xattr(inode, name).map_err(of_inode)?
        };
        if self.namespace.keeps_list(name) {
            let (attr, _) = self.attr(inode)?;
            return Ok(acl::shown(name, &value, attr.mode, &self.owners)?);
        }
        Ok(value)
    }

    /// The names, each closed by a NUL, as listxattr(2) has them.
    pub fn xattrs(&self, inode: Inode) -> Result<Vec<u8>, Refusal> {
        let names =
            if shelf::holds(inode) { self.shelf.xattrs(inode)? } else { self.tree.list_xattr(inode)? };
        let listed = names.into_iter().filter(|name| self.namespace.keeps(name) && !is_virtual(name));
        Ok(listed.flat_map(|name| name.into_iter().chain([0]).collect::<Vec<u8>>()).collect())
    }

    pub fn set_xattr(
        &self,
        inode: Inode,
        name: &[u8],
        value: &[u8],
        flags: i32,
        caller: (Caller, u32),
    ) -> Result<(), Refusal> {
        let how = match flags {
            0 => SetXattr::Any,
            libc::XATTR_CREATE => SetXattr::Create,
            libc::XATTR_REPLACE => SetXattr::Replace,
            _ => return Err(TreeError::Invalid.into()),
        };
        self.settable(inode, name)?;
        if self.namespace.keeps_list(name) {
            self.set_acl(inode, name, value, caller)?;
        } else {
            self.tree.set_xattr(inode, name, value, how).map_err(of_inode)?;
        }
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
        if self.namespace.keeps(name) { Ok(()) } else { Err(TreeError::Unsupported.into()) }
    }

    /// Room for data as statfs(2) tells it: on the disk, or within the quota of the block.
    pub fn room(&self, inode: Inode) -> Result<Room, Refusal> {
        let Space { total_bytes, free_bytes } = self.tree.space()?;
        let mut room = Room { total_bytes, free_bytes, files: INODES, free_files: INODES };
        let limited = if shelf::holds(inode) { None } else { self.tree.quota_of(inode).map_err(of_inode)? };
        if let Some((quota, used)) = limited {
            let left = |limit: u64, used: i128| u64::try_from(i128::from(limit) - used).unwrap_or(0);
            if let Some(limit) = quota.bytes {
                (room.total_bytes, room.free_bytes) = (limit, left(limit, used.bytes).min(free_bytes));
            }
            if let Some(limit) = quota.files {
                (room.files, room.free_files) = (limit, left(limit, used.files));
            }
        }
        Ok(room)
    }
}

fn is_virtual(name: &[u8]) -> bool {
    name.starts_with(VIRTUAL_XATTRS.as_bytes())
}
