//! Rename: to a free name, over another, or swapping two.

use super::attr::RenameFlags;
use super::error::TreeError;
use super::inode::{InodeRecord, Timestamp};
use super::intent::Intent;
use super::live::{Tree, check_name};
use super::state::State;
use super::value::DirEntry;
use crate::base::{BlockNumber, Inode};

/// Directories that lie deeper, or in a circle, cannot take in others.
const DEPTH_MAX: usize = 1 << 16;

/// One of the two names.
struct End<'a> {
    directory: Inode,
    name: &'a [u8],
    /// What bears the name now, and its record.
    entry: DirEntry,
    record: InodeRecord,
}

impl Tree {
    /// Renames within a block.
    pub fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), TreeError> {
        self.rename_at((parent, name), (new_parent, new_name), flags, self.now())
    }

    pub(super) fn rename_at(
        &self,
        (parent, name): (Inode, &[u8]),
        (new_parent, new_name): (Inode, &[u8]),
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        check_name(name).map_err(busy_if_dots)?;
        check_name(new_name).map_err(busy_if_dots)?;
        let mut state = self.bench.state.write();
        let (from, block) = self.end(&state, parent, name)?;
        let to = self.target(&state, new_parent, new_name, block)?;
        match (to, flags) {
            (Some(_), RenameFlags::NoReplace) => return Err(TreeError::Exists),
            (None, RenameFlags::Exchange) => return Err(TreeError::NotFound),
            (Some(to), _) if to.entry.inode == from.entry.inode => return Ok(()),
            (Some(to), RenameFlags::Exchange) => {
                self.keep_acyclic(&state, &from, new_parent)?;
                self.keep_acyclic(&state, &to, parent)?;
                exchange(&mut state, block, from, to, now);
            }
            (Some(to), RenameFlags::Replace) => {
                self.keep_acyclic(&state, &from, new_parent)?;
                self.check_replaceable(&state, &from, &to)?;
                let directory = to.record.is_directory();
                state.drop_name(to.entry.inode, block, to.record, now)?;
                move_name(&mut state, block, from, (new_parent, new_name), now);
                self.touch(&mut state, block, new_parent, -i32::from(directory), now)?;
            }
            (None, RenameFlags::Replace | RenameFlags::NoReplace) => {
                self.keep_acyclic(&state, &from, new_parent)?;
                move_name(&mut state, block, from, (new_parent, new_name), now);
            }
        }
        self.settle(&mut state, block, (parent, name), (new_parent, new_name), flags, now)?;
        let (from, to) = ((parent, name), (new_parent, new_name));
        state.note(parent, now, &Intent::Rename { from, to, flags });
        Ok(())
    }

    /// What is to be renamed.
    fn end<'a>(
        &self,
        state: &State,
        directory: Inode,
        name: &'a [u8],
    ) -> Result<(End<'a>, BlockNumber), TreeError> {
        let (entry, place) = self.named(state, directory, name)?;
        let record = state.view(&self.bench.shared).record(entry.inode)?;
        Ok((End { directory, name, entry, record }, place.block))
    }

    /// What bears the new name, if something does.
    fn target<'a>(
        &self,
        state: &State,
        directory: Inode,
        name: &'a [u8],
        block: BlockNumber,
    ) -> Result<Option<End<'a>>, TreeError> {
        let view = state.view(&self.bench.shared);
        let record = view.directory(directory)?;
        if state.base.pins.child(directory, name).is_some() {
            return Err(TreeError::Busy);
        }
        if view.block_of(directory)? != block {
            return Err(TreeError::CrossBlock);
        }
        self.place_of(state, directory, record)?;
        let Some(entry) = view.child(directory, name)? else { return Ok(None) };
        state.check_changeable(entry.inode, block)?;
        let record = view.record(entry.inode)?;
        Ok(Some(End { directory, name, entry, record }))
    }

    /// A directory must not move below itself.
    fn keep_acyclic(&self, state: &State, moved: &End<'_>, into: Inode) -> Result<(), TreeError> {
        if !moved.record.is_directory() {
            return Ok(());
        }
        let view = state.view(&self.bench.shared);
        let mut at = into;
        for _ in 0..DEPTH_MAX {
            if at == moved.entry.inode {
                return Err(TreeError::Invalid);
            }
            let above = view.parent(at)?;
            if above == at {
                return Ok(());
            }
            at = above;
        }
        Err(TreeError::Invalid)
    }

    fn check_replaceable(&self, state: &State, from: &End<'_>, to: &End<'_>) -> Result<(), TreeError> {
        match (from.record.is_directory(), to.record.is_directory()) {
            (true, false) => Err(TreeError::NotDirectory),
            (false, true) => Err(TreeError::IsDirectory),
            (true, true) if !state.view(&self.bench.shared).stack(to.entry.inode)?.is_empty()? => {
                Err(TreeError::NotEmpty)
            }
            _ => Ok(()),
        }
    }

    fn touch(
        &self,
        state: &mut State,
        block: BlockNumber,
        directory: Inode,
        subdirectories: i32,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        let record = state.view(&self.bench.shared).record(directory)?;
        state.touch_directory(directory, block, record, subdirectories, now);
        self.listings.touch(directory);
        Ok(())
    }

    /// Brings both directories' times and link counts up to what they hold now.
    fn settle(
        &self,
        state: &mut State,
        block: BlockNumber,
        (parent, name): (Inode, &[u8]),
        (new_parent, new_name): (Inode, &[u8]),
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        let view = state.view(&self.bench.shared);
        let is_directory = |entry: Option<DirEntry>| {
            i32::from(entry.is_some_and(|entry| entry.file_type == super::inode::FileType::Directory))
        };
        let arrived = is_directory(view.child(new_parent, new_name)?);
        let left = if flags == RenameFlags::Exchange { is_directory(view.child(parent, name)?) } else { 0 };
        let across = i32::from(parent != new_parent);
        self.touch(state, block, parent, across * (left - arrived), now)?;
        self.touch(state, block, new_parent, across * (arrived - left), now)
    }
}

fn busy_if_dots(error: TreeError) -> TreeError {
    match error {
        TreeError::Exists => TreeError::Busy,
        other => other,
    }
}

fn move_name(state: &mut State, block: BlockNumber, from: End<'_>, to: (Inode, &[u8]), now: Timestamp) {
    state.put_entry(from.directory, block, from.name, None);
    state.put_entry(to.0, block, to.1, Some(from.entry));
    let record = InodeRecord { parent: to.0, ctime: now, ..from.record };
    state.put_record(from.entry.inode, block, record);
}

fn exchange(state: &mut State, block: BlockNumber, one: End<'_>, other: End<'_>, now: Timestamp) {
    state.put_entry(one.directory, block, one.name, Some(other.entry));
    state.put_entry(other.directory, block, other.name, Some(one.entry));
    let moved = |record: InodeRecord, parent| InodeRecord { parent, ctime: now, ..record };
    state.put_record(one.entry.inode, block, moved(one.record, other.directory));
    state.put_record(other.entry.inode, block, moved(other.record, one.directory));
}
