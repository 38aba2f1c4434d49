//! Writing files: bytes go into chunks in memory; a chunk of which only a part is written is opened first.

use super::block::Shared;
use super::error::TreeError;
use super::inode::{FILE_BYTES_MAX, INLINE_BYTES_MAX, InodeRecord, RecordSize, Timestamp};
use super::intent::Intent;
use super::layer::Slot;
use super::live::Tree;
use super::read::{STAGING, Wanted, unit_of};
use super::state::State;
use super::view::Chunk;
use crate::base::{BlockNumber, Id, Inode};
use std::collections::HashMap;
use std::sync::Arc;

/// Chunks that were opened because a part of them is to be changed.
pub(super) type Loaded = HashMap<Id, Arc<Vec<u8>>>;

/// What an attempt to change chunks under the lock comes to.
pub(super) enum Attempt<T> {
    Done(T),
    /// These must be opened first; nothing was changed.
    Needs(Vec<Wanted>),
}

/// How often a write starts over when a chunk moved away under it.
const ATTEMPTS_MAX: usize = 16;

/// A file about to be changed.
pub(super) struct Target {
    pub(super) inode: Inode,
    pub(super) block: BlockNumber,
    pub(super) record: InodeRecord,
    /// The size that it has until it is finished.
    pub(super) size_before: u64,
}

impl Tree {
    /// Writes `data` at `offset`; the file grows as needed.
    pub fn write(&self, inode: Inode, offset: u64, data: &[u8]) -> Result<(), TreeError> {
        self.write_unpaced(inode, offset, data)?;
        self.make_room();
        Ok(())
    }

    /// The same, however much waits in memory: who calls it does not go on before [`Tree::make_room`].
    pub fn write_unpaced(&self, inode: Inode, offset: u64, data: &[u8]) -> Result<(), TreeError> {
        self.write_at(inode, offset, data, self.now())
    }

    /// Whether more waits to be sealed than should.
    pub fn is_crowded(&self) -> bool {
        self.bench.is_crowded()
    }

    /// Helps to seal, and waits, while more waits to be sealed than should; not for ever.
    pub fn make_room(&self) {
        if self.bench.is_crowded() {
            self.bench.make_room();
        }
        // What belongs to private blocks is sealed by a flush only.
        if self.bench.is_crowded()
            && !self.bench.state.read().base.insides.is_empty()
            && let Err(error) = self.flush()
        {
            tracing::warn!(%error, "written data waits in memory");
        }
    }

    pub(super) fn write_at(
        &self,
        inode: Inode,
        offset: u64,
        data: &[u8],
        now: Timestamp,
    ) -> Result<(), TreeError> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(TreeError::TooBig)?;
        self.count(inode)?;
        self.with_chunks(|state, loaded| {
            let mut target = self.target_file(state, inode)?;
            self.admit_size(state, &target, end)?;
            self.admit_on_disk(state, data.len())?;
            let parts = parts(offset, end, unit_of(&target.record));
            let partial = parts.iter().filter(|part| !part.covers(&target.record)).map(|part| part.index);
            let needs = self.needs(state, &target, partial, loaded)?;
            if !needs.is_empty() {
                return Ok(Attempt::Needs(needs));
            }
            self.stage(state, &mut target);
            let node = state.node_mut(inode, target.block);
            let goes_on = std::mem::replace(&mut node.written_to, end) == offset;
            for part in parts {
                let whole = part.covers(&target.record);
                self.make_dirty(state, &target, part.index, whole, loaded)?;
                let from = (part.start - offset) as usize;
                patch(state, &target, part.index, part.within(), &data[from..from + part.bytes()]);
                let ends = part.end == (part.index + 1) * part.unit && target.record.record_size.is_decided();
                if ends && (goes_on || whole) {
                    state.full.push_back((inode, part.index));
                }
            }
            target.record.size = target.record.size.max(end);
            finish(state, target, now);
            state.note(inode, now, &Intent::Write { inode, offset, data });
            Ok(Attempt::Done(()))
        })?;
        self.bench.after_write();
        Ok(())
    }

    /// Runs `attempt` under the lock, outside of which the chunks that it needs are opened.
    pub(super) fn with_chunks<T>(
        &self,
        mut attempt: impl FnMut(&mut State, &Loaded) -> Result<Attempt<T>, TreeError>,
    ) -> Result<T, TreeError> {
        let mut loaded = Loaded::new();
        let mut failure = TreeError::Busy;
        for _ in 0..ATTEMPTS_MAX {
            let needs = match attempt(&mut self.bench.state.write(), &loaded)? {
                Attempt::Done(done) => return Ok(done),
                Attempt::Needs(needs) => needs,
            };
            for wanted in needs {
                match wanted.open(&self.bench.shared, false) {
                    Ok(plain) => _ = loaded.insert(wanted.pointer.id, plain),
                    // It may have been replaced, or moved by a flush.
                    Err(error @ TreeError::Tampered { .. }) => {
                        failure = error;
                        self.await_flush();
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(failure)
    }

    /// A file that this device may write to.
    pub(super) fn target_file(&self, state: &State, inode: Inode) -> Result<Target, TreeError> {
        let view = state.view(&self.bench.shared);
        let record = view.record(inode)?;
        let block = view.block_of(inode)?;
        state.check_changeable(inode, block)?;
        if !record.is_file() {
            return Err(if record.is_directory() { TreeError::IsDirectory } else { TreeError::Invalid });
        }
        let size_before = record.size;
        Ok(Target { inode, block, record, size_before })
    }

    /// Refuses to let a file grow beyond what its block may hold. One without a name is not its block's any more.
    pub(super) fn admit_size(&self, state: &State, target: &Target, size: u64) -> Result<(), TreeError> {
        let growth = size.saturating_sub(target.size_before);
        if state.orphans.contains_key(&target.inode) { Ok(()) } else { state.admit(target.block, growth, 0) }
    }

    /// Which of these chunks lie sealed and are not loaded.
    pub(super) fn needs(
        &self,
        state: &State,
        target: &Target,
        indexes: impl Iterator<Item = u64>,
        loaded: &Loaded,
    ) -> Result<Vec<Wanted>, TreeError> {
        let mut needs = Vec::new();
        if target.record.inline.is_some() {
            return Ok(needs);
        }
        let view = state.view(&self.bench.shared);
        for index in indexes {
            let stack = view.stack(target.inode)?;
            if let Chunk::Sealed(pointer, origin) = stack.chunk(index)?
                && !loaded.contains_key(&pointer.id)
            {
                let (block, data_id) = (stack.block, target.record.data_id);
                needs.push(Wanted { block, keys: stack.keys.clone(), data_id, index, pointer, origin });
            }
        }
        Ok(needs)
    }

    /// Moves inline data into a chunk, where it can be written to.
    pub(super) fn stage(&self, state: &mut State, target: &mut Target) {
        if let Some(inline) = target.record.inline.take() {
            state.cut_chunks(target.inode, target.block, 0);
            let slot = Slot::Dirty(Arc::new(inline.into_vec()));
            state.put_slot(target.inode, target.block, 0, Some(slot));
            state.partial.push_back((target.inode, 0));
            state.put_record(target.inode, target.block, target.record.clone());
        }
    }

    /// Gives the newest layer its own plaintext of a chunk; `whole` says that all of it will be overwritten.
    pub(super) fn make_dirty(
        &self,
        state: &mut State,
        target: &Target,
        index: u64,
        whole: bool,
        loaded: &Loaded,
    ) -> Result<(), TreeError> {
        let own = state.node_mut(target.inode, target.block).chunks.get(&index);
        if matches!(own, Some(Slot::Dirty(_))) {
            return Ok(());
        }
        let bytes =
            if whole { Arc::default() } else { prior(state, target, index, loaded, &self.bench.shared)? };
        state.put_slot(target.inode, target.block, index, Some(Slot::Dirty(bytes)));
        state.partial.push_back((target.inode, index));
        Ok(())
    }

    /// Cuts or grows a file, under the lock.
    pub(super) fn try_truncate(
        &self,
        state: &mut State,
        target: &mut Target,
        size: u64,
        loaded: &Loaded,
    ) -> Result<Attempt<()>, TreeError> {
        if size > FILE_BYTES_MAX {
            return Err(TreeError::TooBig);
        }
        self.admit_size(state, target, size)?;
        if let Some(inline) = &mut target.record.inline
            && size <= INLINE_BYTES_MAX as u64
        {
            let mut bytes = std::mem::take(inline).into_vec();
            bytes.resize(size as usize, 0);
            target.record.inline = (size > 0).then(|| bytes.into_boxed_slice());
            target.record.size = size;
            return Ok(Attempt::Done(()));
        }
        self.stage(state, target);
        if size < target.record.size {
            let unit = unit_of(&target.record);
            let (tail, within) = (size / unit, (size % unit) as usize);
            let tails = if within > 0 { tail..tail + 1 } else { tail..tail };
            let needs = self.needs(state, target, tails.clone(), loaded)?;
            if !needs.is_empty() {
                return Ok(Attempt::Needs(needs));
            }
            for index in tails {
                self.make_dirty(state, target, index, false, loaded)?;
                cut_buffer(state, target, index, within);
            }
            state.cut_chunks(target.inode, target.block, size.div_ceil(unit));
            if size <= INLINE_BYTES_MAX as u64 && target.record.record_size.is_decided() {
                self.undecide(state, target);
            }
        }
        target.record.size = size;
        Ok(Attempt::Done(()))
    }

    /// A file that has become small enough for its record gets its chunk size anew when it grows again.
    fn undecide(&self, state: &mut State, target: &mut Target) {
        let node = state.node_mut(target.inode, target.block);
        let first = match node.chunks.get(&0) {
            Some(Slot::Dirty(bytes)) => Some(Slot::Dirty(bytes.clone())),
            _ => None,
        };
        state.cut_chunks(target.inode, target.block, 0);
        if let Some(first) = first {
            state.put_slot(target.inode, target.block, 0, Some(first));
            state.partial.push_back((target.inode, 0));
        }
        target.record.record_size = RecordSize::UNDECIDED;
    }
}

/// Writes a changed file's record back.
pub(super) fn finish(state: &mut State, mut target: Target, now: Timestamp) {
    (target.record.mtime, target.record.ctime) = (now, now);
    if !target.record.record_size.is_decided()
        && RecordSize::for_file(target.record.size) == STAGING
        && target.record.inline.is_none()
    {
        decide(state, &mut target);
    }
    state.resized(target.inode, target.block, target.size_before, target.record.size);
    state.put_record(target.inode, target.block, target.record);
}

/// Chooses an undecided file's chunk size and cuts what is staged into such chunks.
pub(super) fn decide(state: &mut State, target: &mut Target) {
    target.record.record_size = RecordSize::for_file(target.record.size);
    let inode = target.inode;
    let node = state.node_mut(inode, target.block);
    if target.record.record_size != STAGING {
        resplit(&mut node.chunks, target.record.record_size);
    }
    let unit = 1usize << target.record.record_size.log2();
    let full = |slot: &Slot| matches!(slot, Slot::Dirty(bytes) if bytes.len() == unit);
    let (whole, rest): (Vec<_>, Vec<_>) = node.chunks.iter().partition(|(_, slot)| full(slot));
    let (whole, rest): (Vec<u64>, Vec<u64>) = (
        whole.into_iter().map(|(index, _)| *index).collect(),
        rest.into_iter().map(|(index, _)| *index).collect(),
    );
    state.full.extend(whole.into_iter().map(|index| (inode, index)));
    state.partial.extend(rest.into_iter().map(|index| (inode, index)));
}

/// Cuts staged chunks into those of a smaller size.
pub(super) fn resplit(chunks: &mut std::collections::BTreeMap<u64, Slot>, size: RecordSize) {
    let unit = 1usize << size.log2();
    let factor = 1u64 << (STAGING.log2() - size.log2());
    for (index, slot) in std::mem::take(chunks) {
        match slot {
            Slot::Dirty(bytes) if bytes.len() <= unit => {
                _ = chunks.insert(index * factor, Slot::Dirty(bytes))
            }
            Slot::Dirty(bytes) => {
                for (part, piece) in (index * factor..).zip(bytes.chunks(unit)) {
                    chunks.insert(part, Slot::Dirty(Arc::new(piece.to_vec())));
                }
            }
            // An undecided file has nothing sealed.
            Slot::Hole | Slot::Sealed(_) | Slot::Kept(..) => {}
        }
    }
}

/// The bytes that a chunk has so far.
fn prior(
    state: &State,
    target: &Target,
    index: u64,
    loaded: &Loaded,
    shared: &Shared,
) -> Result<Arc<Vec<u8>>, TreeError> {
    match state.view(shared).stack(target.inode)?.chunk(index)? {
        Chunk::Hole => Ok(Arc::default()),
        Chunk::Dirty(bytes) => Ok(bytes),
        Chunk::Sealed(pointer, _) => {
            let bytes = loaded.get(&pointer.id).cloned();
            bytes.ok_or(TreeError::Tampered { block: target.block, place: pointer.place })
        }
    }
}

/// Writes into a dirty chunk.
pub(super) fn patch(state: &mut State, target: &Target, index: u64, at: usize, data: &[u8]) {
    change_buffer(state, target, index, |buffer| {
        if buffer.len() < at {
            buffer.resize(at, 0);
        }
        let over = data.len().min(buffer.len() - at);
        buffer[at..at + over].copy_from_slice(&data[..over]);
        buffer.extend_from_slice(&data[over..]);
    });
}

/// Zeros a part of a dirty chunk.
pub(super) fn clear(state: &mut State, target: &Target, index: u64, at: usize, bytes: usize) {
    change_buffer(state, target, index, |buffer| {
        let (from, to) = (at.min(buffer.len()), (at + bytes).min(buffer.len()));
        buffer[from..to].fill(0);
    });
}

fn cut_buffer(state: &mut State, target: &Target, index: u64, bytes: usize) {
    change_buffer(state, target, index, |buffer| buffer.truncate(bytes));
}

fn change_buffer(state: &mut State, target: &Target, index: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let slot = state.node_mut(target.inode, target.block).chunks.get_mut(&index);
    if let Some(Slot::Dirty(bytes)) = slot {
        let before = bytes.len() as u64;
        let buffer = Arc::make_mut(bytes);
        change(buffer);
        let after = buffer.len() as u64;
        state.dirty_bytes = state.dirty_bytes + after - before;
    }
}

/// The part of a byte range that lies in one chunk.
pub(super) struct Part {
    pub(super) index: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) unit: u64,
}

impl Part {
    /// Its offset in the chunk.
    pub(super) fn within(&self) -> usize {
        (self.start - self.index * self.unit) as usize
    }

    pub(super) fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it covers all that the file has of the chunk.
    pub(super) fn covers(&self, record: &InodeRecord) -> bool {
        let has = record.size.min((self.index + 1) * self.unit);
        self.start == self.index * self.unit && self.end >= has
    }
}

/// Splits a byte range at chunk boundaries.
pub(super) fn parts(start: u64, end: u64, unit: u64) -> Vec<Part> {
    let indexes = start / unit..end.div_ceil(unit);
    indexes
        .map(|index| Part { index, start: start.max(index * unit), end: end.min((index + 1) * unit), unit })
        .collect()
}
