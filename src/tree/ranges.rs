//! Ranges of a file: reserving, zeroing, punching holes, copying.

use super::attr::Allocate;
use super::error::TreeError;
use super::inode::{FILE_BYTES_MAX, INLINE_BYTES_MAX, Timestamp};
use super::intent::Intent;
use super::layer::Slot;
use super::live::Tree;
use super::read::unit_of;
use super::state::State;
use super::write::{Attempt, Loaded, Target, clear, finish, parts};
use crate::base::Inode;

/// Bytes of one step of a copy.
const COPY_STEP_BYTES: u64 = 1 << 20;

impl Tree {
    /// fallocate(2).
    pub fn allocate(&self, inode: Inode, how: Allocate, offset: u64, bytes: u64) -> Result<(), TreeError> {
        self.allocate_at(inode, how, offset, bytes, self.now())
    }

    pub(super) fn allocate_at(
        &self,
        inode: Inode,
        how: Allocate,
        offset: u64,
        bytes: u64,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        let end = offset.checked_add(bytes).filter(|end| *end <= FILE_BYTES_MAX).ok_or(TreeError::TooBig)?;
        if bytes == 0 {
            return Err(TreeError::Invalid);
        }
        self.count(inode)?;
        self.with_chunks(|state, loaded| {
            let mut target = self.target_file(state, inode)?;
            if matches!(how, Allocate::Extend | Allocate::ZeroRange) {
                self.admit_size(state, &target, end)?;
            }
            if matches!(how, Allocate::PunchHole | Allocate::ZeroRange | Allocate::ZeroRangeKeepSize)
                && let Attempt::Needs(needs) = self.zero(state, &mut target, offset, end, loaded)?
            {
                return Ok(Attempt::Needs(needs));
            }
            let grows = matches!(how, Allocate::Extend | Allocate::ZeroRange) && end > target.record.size;
            if grows && let Attempt::Needs(needs) = self.try_truncate(state, &mut target, end, loaded)? {
                return Ok(Attempt::Needs(needs));
            }
            finish(state, target, now);
            state.note(inode, now, &Intent::Allocate { inode, how, offset, bytes });
            Ok(Attempt::Done(()))
        })
    }

    /// Zeros a range as far as the file has it.
    fn zero(
        &self,
        state: &mut State,
        target: &mut Target,
        offset: u64,
        end: u64,
        loaded: &Loaded,
    ) -> Result<Attempt<()>, TreeError> {
        let end = end.min(target.record.size);
        if offset >= end {
            return Ok(Attempt::Done(()));
        }
        if let Some(inline) = &mut target.record.inline {
            debug_assert!(end <= INLINE_BYTES_MAX as u64);
            inline[offset as usize..end as usize].fill(0);
            return Ok(Attempt::Done(()));
        }
        let parts = parts(offset, end, unit_of(&target.record));
        let partial = parts.iter().filter(|part| !part.covers(&target.record)).map(|part| part.index);
        let needs = self.needs(state, target, partial, loaded)?;
        if !needs.is_empty() {
            return Ok(Attempt::Needs(needs));
        }
        for part in parts {
            if part.covers(&target.record) {
                state.put_slot(target.inode, target.block, part.index, Some(Slot::Hole));
            } else {
                self.make_dirty(state, target, part.index, false, loaded)?;
                clear(state, target, part.index, part.within(), part.bytes());
            }
        }
        Ok(Attempt::Done(()))
    }

    /// copy_file_range(2): how many bytes were copied; fewer than asked for at the source's end.
    pub fn copy_range(
        &self,
        from: Inode,
        from_offset: u64,
        to: Inode,
        to_offset: u64,
        bytes: u64,
    ) -> Result<u64, TreeError> {
        let size = self.read_view(|view| view.attr(from))?.size;
        let bytes = bytes.min(size.saturating_sub(from_offset));
        if from == to && from_offset.abs_diff(to_offset) < bytes {
            return Err(TreeError::Invalid);
        }
        let mut done = 0;
        while done < bytes {
            let step = COPY_STEP_BYTES.min(bytes - done);
            let data = self.read_live(from, from_offset + done, step as usize)?;
            if data.is_empty() {
                break;
            }
            self.write(to, to_offset + done, &data)?;
            done += data.len() as u64;
        }
        Ok(done)
    }
}
