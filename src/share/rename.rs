//! Renames: a file that left one path and stands at another is moved on the other side too, so that its bytes are not
//! sent again and its history goes on.

use super::error::ShareError;
use super::folder::split;
use super::reconcile::Hand;
use super::stamp::{Kind, Local, Stamp};
use crate::tree::{Attr, ReadTree as _, RenameFlags};

impl Hand {
    /// If what stands at `path` on one side came from elsewhere, lets it come from there on the other side too. True if so.
    pub(super) fn follow_renames(
        &mut self,
        path: &[u8],
        local: Option<&Local>,
        attr: Option<&Attr>,
    ) -> Result<bool, ShareError> {
        let moved = match (local, attr) {
            (Some(local), _) => self.follow_local(path, local, attr)?,
            (None, Some(attr)) => self.follow_tree(path, attr)?,
            (None, None) => false,
        };
        Ok(moved)
    }

    fn follow_local(&mut self, path: &[u8], local: &Local, attr: Option<&Attr>) -> Result<bool, ShareError> {
        let here = self.base.get(path).copied();
        if here.is_some_and(|entry| entry.local.number == local.number) {
            return Ok(false);
        }
        // Over something that the others have changed, nothing is moved.
        let free = match (attr, here) {
            (None, _) => true,
            (Some(attr), Some(entry)) => Stamp::of(attr) == entry.tree && entry.tree.kind != Kind::Directory,
            (Some(_), None) => false,
        };
        if !free {
            return Ok(false);
        }
        for from in self.base.of_number(local.number) {
            let Some(entry) = self.base.get(&from).copied() else { continue };
            // A number is used again for something new: then the time is another.
            let same = entry.local.kind == local.kind
                && (local.kind == Kind::Directory || entry.local.is_same_content(local));
            let directory_over_file = local.kind == Kind::Directory && attr.is_some();
            if from == path || !same || directory_over_file || self.folder.look(&from)?.is_some() {
                continue;
            }
            if self.look_in_tree(&from)?.is_none_or(|there| there.inode != entry.tree.inode) {
                continue;
            }
            return match self.rename_in_tree(&from, path, attr) {
                Ok(()) => {
                    self.base.rename(&from, path);
                    Ok(true)
                }
                // It is done as a new file and a removal instead.
                Err(ShareError::Tree(error)) => {
                    tracing::debug!(%error, "a rename is not followed");
                    Ok(false)
                }
                Err(error) => Err(error),
            };
        }
        Ok(false)
    }

    fn rename_in_tree(&mut self, from: &[u8], to: &[u8], over: Option<&Attr>) -> Result<(), ShareError> {
        let directory = self.directory_in_tree(split(to).0)?;
        let over = over.map(|attr| attr.inode);
        self.steady(|tree| {
            let parent = tree.resolve(split(from).0)?.inode;
            let there = tree.lookup(directory, split(to).1).ok().map(|attr| attr.inode);
            if there != over {
                return Err(ShareError::Moved);
            }
            let how = if over.is_some() { RenameFlags::Replace } else { RenameFlags::NoReplace };
            Ok(tree.rename(parent, split(from).1, directory, split(to).1, how)?)
        })?;
        self.host.mutated();
        Ok(())
    }

    fn follow_tree(&mut self, path: &[u8], attr: &Attr) -> Result<bool, ShareError> {
        if self.base.get(path).is_some() {
            return Ok(false);
        }
        for from in self.base.of_inode(attr.inode) {
            let Some(entry) = self.base.get(&from).copied() else { continue };
            let moved_away = self.look_in_tree(&from)?.is_none_or(|there| there.inode != attr.inode);
            let there = self.folder.look(&from)?;
            if !moved_away || there.is_none_or(|local| local.kind != entry.local.kind) {
                continue;
            }
            self.directory_in_folder(split(path).0)?;
            self.folder.rename(&from, path)?;
            self.base.rename(&from, path);
            return Ok(true);
        }
        Ok(false)
    }
}
