//! A path that both sides have: whose state holds, and what becomes of the other's.

use super::base::Entry;
use super::error::ShareError;
use super::folder::{join, split};
use super::reconcile::{Change, Hand};
use super::stamp::{Kind, Local};
use super::xattr;
use crate::tree::merge::conflict_name;
use crate::tree::{Attr, ReadTree as _, TreeError};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes that are compared at a time.
const STEP_BYTES: usize = 1 << 20;
/// So many names are tried for a conflict copy.
const NAMES_MAX: u32 = 1000;

impl Hand {
    pub(super) fn meet(
        &mut self,
        path: &[u8],
        local: &Local,
        attr: &Attr,
        base: Option<Entry>,
        deep: bool,
    ) -> Result<(), ShareError> {
        let kind = Kind::of(attr.file_type);
        if (local.kind, kind) == (Kind::Directory, Kind::Directory) {
            let new = base.is_none_or(|entry| entry.left || entry.local.kind != Kind::Directory);
            self.meet_directories(path, local, attr, base.filter(|_| !new))?;
            return if deep || new { self.children(path) } else { Ok(()) };
        }
        let known = base.filter(|entry| !entry.left);
        let here = self.local_change(path, local, known.as_ref())?;
        let there = self.tree_change(attr, known.as_ref())?;
        match (here, there) {
            (Change::None, Change::None) => Ok(()),
            (Change::Attributes, Change::None) => self.push_attributes(path, local, attr),
            (Change::Content, Change::None | Change::Attributes) => self.push_over(path, local, attr),
            (Change::None | Change::Attributes, Change::Attributes) => {
                self.pull_attributes(path, local, attr)
            }
            (Change::None | Change::Attributes, Change::Content) => self.pull_over(path, local, attr),
            (Change::Content, Change::Content) if local.kind == kind => {
                self.meet_contents(path, local, attr, known.is_none())
            }
            (Change::Content, Change::Content) => self.conflict(path),
        }
    }

    /// Both have mode and attributes; where both changed them, the tree's hold.
    fn meet_directories(
        &mut self,
        path: &[u8],
        local: &Local,
        attr: &Attr,
        base: Option<Entry>,
    ) -> Result<(), ShareError> {
        let here = xattr::of_file(self.folder.read(path)?)?;
        let there = xattr::of_inode(&self.tree, attr.inode)?;
        let changed_there =
            base.is_none_or(|entry| attr.mode != entry.tree.mode || xattr::digest(&there) != entry.xattrs);
        let changed_here =
            base.is_some_and(|entry| local.mode != entry.local.mode || xattr::digest(&here) != entry.xattrs);
        if changed_there {
            self.pull_directory(path, attr, &there)
        } else if changed_here {
            self.push_directory(path, attr, local, &here)
        } else {
            self.record(path, local, attr, [0; 32], &there);
            Ok(())
        }
    }

    /// Both wrote. Equal is in step; where nobody knows what was before, one that begins with all of the other goes on
    /// from it; else it is a conflict.
    fn meet_contents(
        &mut self,
        path: &[u8],
        local: &Local,
        attr: &Attr,
        unknown: bool,
    ) -> Result<(), ShareError> {
        if local.kind == Kind::Symlink {
            if self.folder.read_link(path)? == self.tree.read_link(attr.inode)? {
                return self.pull_attributes(path, local, attr);
            }
            return self.conflict(path);
        }
        let common = local.bytes.min(attr.size);
        if !(local.bytes == attr.size || unknown) || !self.is_equal_up_to(path, attr, common)? {
            return self.conflict(path);
        }
        match local.bytes.cmp(&attr.size) {
            std::cmp::Ordering::Equal => self.pull_attributes(path, local, attr),
            std::cmp::Ordering::Less => self.pull_over(path, local, attr),
            std::cmp::Ordering::Greater => self.push_over(path, local, attr),
        }
    }

    fn is_equal_up_to(&self, path: &[u8], attr: &Attr, bytes: u64) -> Result<bool, ShareError> {
        let mut file = self.folder.read(path)?;
        let mut buffer = vec![0; STEP_BYTES];
        let mut at = 0;
        while at < bytes {
            let count = (bytes - at).min(STEP_BYTES as u64) as usize;
            match file.read_exact(&mut buffer[..count]) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(ShareError::Moved);
                }
                other => other?,
            }
            if self.tree.read(attr.inode, at, count)? != buffer[..count] {
                return Ok(false);
            }
            at += count as u64;
        }
        Ok(true)
    }

    /// The tree's state keeps the name, the folder's gets another one; then both are shared.
    pub(super) fn conflict(&mut self, path: &[u8]) -> Result<(), ShareError> {
        let (above, name) = split(path);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = i64::try_from(since.as_secs()).unwrap_or(0);
        for attempt in 0..NAMES_MAX {
            let copy = conflict_name(name, &self.host.device(), time, attempt);
            let copy_path = join(above, &copy);
            if self.look_in_tree(&copy_path)?.is_some() {
                continue;
            }
            match self.folder.rename(path, &copy_path) {
                Err(ShareError::Moved) => continue,
                other => other?,
            }
            tracing::warn!(path = %String::from_utf8_lossy(path), copy = %String::from_utf8_lossy(&copy),
                "conflict: it was changed here and elsewhere, both are kept");
            self.base.remove(path);
            self.visit(path, true);
            self.visit(&copy_path, true);
            if let Ok(directory) = self.tree.resolve(above) {
                self.host.conflict(directory.inode, &copy);
            }
            return Ok(());
        }
        Err(ShareError::Moved)
    }

    /// The policy does not allow what was changed here: it is taken aside, and the folder shows the tree again.
    pub(super) fn refuse(&mut self, path: &[u8]) -> Result<(), ShareError> {
        let (local, attr) = (self.folder.look(path)?, self.look_in_tree(path)?);
        if let (Some(local), Some(attr)) = (local, attr)
            && (local.kind, Kind::of(attr.file_type)) == (Kind::Directory, Kind::Directory)
        {
            let xattrs = xattr::of_inode(&self.tree, attr.inode)?;
            return self.pull_directory(path, &attr, &xattrs);
        }
        if local.is_some() {
            let aside = self.folder.set_aside(path)?;
            tracing::warn!(path = %String::from_utf8_lossy(path), aside = %String::from_utf8_lossy(&aside),
                "the policy does not let this device change it: the change is set aside");
            self.notes.refused.push(aside);
        }
        self.base.remove(path);
        match attr {
            Some(attr) => self.pull_new(path, &attr),
            None => Ok(()),
        }
    }

    /// Takes away what stands in the tree where something of another kind is to be put. False if something in it has to
    /// live on.
    pub(super) fn clear_in_tree(&mut self, path: &[u8], attr: &Attr) -> Result<bool, ShareError> {
        if Kind::of(attr.file_type) == Kind::Directory {
            self.in_removal(|hand| hand.children(path))?;
        }
        match self.remove_in_tree(path, attr) {
            Ok(()) => Ok(true),
            Err(ShareError::Tree(TreeError::NotEmpty)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
