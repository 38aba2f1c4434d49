//! Changing attributes, and opening: what does not touch names.

use super::attr::{Attr, SetAttr, SetTime, is_privileged, stripped};
use super::error::TreeError;
use super::inode::{InodeRecord, MODE_MASK, Timestamp};
use super::intent::Intent;
use super::live::Tree;
use super::state::{State, strip};
use super::write::{Attempt, Loaded, finish};
use crate::base::Inode;

impl Tree {
    /// Changes attributes; all of them or none.
    pub fn set_attr(&self, inode: Inode, set: SetAttr) -> Result<Attr, TreeError> {
        self.set_attr_at(inode, set, self.now())
    }

    pub(super) fn set_attr_at(&self, inode: Inode, set: SetAttr, now: Timestamp) -> Result<Attr, TreeError> {
        if set.size.is_some() {
            self.count(inode)?;
        }
        self.with_chunks(|state, loaded| {
            if let Some(size) = set.size
                && let Attempt::Needs(needs) = self.truncate(state, inode, size, loaded, now)?
            {
                return Ok(Attempt::Needs(needs));
            }
            let view = state.view(&self.bench.shared);
            let mut record = view.record(inode)?;
            let block = view.block_of(inode)?;
            state.check_changeable(inode, block)?;
            if state.base.pins.at(inode).is_some_and(|pin| pin.synthetic) {
                return Err(TreeError::ReadOnlyBlock(block));
            }
            let was = record.clone();
            let given = apply(&mut record, &set, now);
            if record != was {
                record.ctime = now;
                state.put_record(inode, block, record.clone());
            } else if given {
                state.restamp(inode, now);
            }
            if set.size.is_some() || record != was {
                state.note(inode, now, &Intent::SetAttr { inode, set });
            }
            Ok(Attempt::Done(state.view(&self.bench.shared).attr_of(inode, block, &record)))
        })
    }

    fn truncate(
        &self,
        state: &mut State,
        inode: Inode,
        size: u64,
        loaded: &Loaded,
        now: Timestamp,
    ) -> Result<Attempt<()>, TreeError> {
        let mut target = self.target_file(state, inode)?;
        let attempt = self.try_truncate(state, &mut target, size, loaded)?;
        if let Attempt::Done(()) = attempt {
            finish(state, target, now);
        }
        Ok(attempt)
    }

    /// Takes set-user-id and set-group-id away, as a write by an ordinary user does.
    pub fn strip_privileges(&self, inode: Inode) -> Result<(), TreeError> {
        if !self.read_view(|view| Ok(is_privileged(&view.record(inode)?)))? {
            return Ok(());
        }
        self.strip_at(inode, self.now())
    }

    pub(super) fn strip_at(&self, inode: Inode, now: Timestamp) -> Result<(), TreeError> {
        let mut state = self.bench.state.write();
        let view = state.view(&self.bench.shared);
        let (mut record, block) = (view.record(inode)?, view.block_of(inode)?);
        state.check_changeable(inode, block)?;
        if strip(&mut record) {
            record.ctime = now;
            state.put_record(inode, block, record);
            state.note(inode, now, &Intent::Strip { inode });
        }
        Ok(())
    }

    /// Counts an open handle; as long as there is one, the inode outlives its names. `truncate` empties the file.
    pub fn open(&self, inode: Inode, write: bool, truncate: bool) -> Result<(), TreeError> {
        let now = self.now();
        self.with_chunks(|state, loaded| {
            let view = state.view(&self.bench.shared);
            let record = view.record(inode)?;
            if write {
                if record.is_directory() {
                    return Err(TreeError::IsDirectory);
                }
                state.check_changeable(inode, view.block_of(inode)?)?;
            }
            if truncate {
                if let Attempt::Needs(needs) = self.truncate(state, inode, 0, loaded, now)? {
                    return Ok(Attempt::Needs(needs));
                }
                let set = SetAttr { size: Some(0), ..SetAttr::default() };
                state.note(inode, now, &Intent::SetAttr { inode, set });
            }
            if write {
                Tree::opened_writer(state, inode);
            }
            *state.open.entry(inode).or_default() += 1;
            Ok(Attempt::Done(()))
        })
    }

    /// Takes one open handle back.
    pub fn close(&self, inode: Inode) {
        let mut state = self.bench.state.write();
        let Some(count) = state.open.get_mut(&inode) else { return };
        *count -= 1;
        if *count == 0 {
            state.open.remove(&inode);
            state.drop_orphan(inode);
        }
    }
}

/// Applies everything but the size; says whether anything was asked for.
fn apply(record: &mut InodeRecord, set: &SetAttr, now: Timestamp) -> bool {
    let at = |time: SetTime| match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    if let Some(mode) = set.mode {
        record.mode = mode & MODE_MASK;
    }
    if (set.uid.is_some() || set.gid.is_some()) && !record.is_directory() && set.mode.is_none() {
        record.mode = stripped(record.mode);
    }
    record.uid = set.uid.unwrap_or(record.uid);
    record.gid = set.gid.unwrap_or(record.gid);
    record.atime = set.atime.map_or(record.atime, at);
    record.mtime = set.mtime.map_or(record.mtime, at);
    let SetAttr { mode, uid, gid, size: _, atime, mtime } = set;
    mode.is_some() || uid.is_some() || gid.is_some() || atime.is_some() || mtime.is_some()
}
