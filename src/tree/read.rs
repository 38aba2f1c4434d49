//! Reading files: what to read is decided under the lock, opening happens outside it.

use super::attr::Whence;
use super::block::Shared;
use super::error::TreeError;
use super::inode::{InodeRecord, RecordSize};
use super::layer::Pointer;
use super::live::Tree;
use super::source::fetch_error;
use super::view::{Chunk, Origin, View};
use crate::base::{BlockNumber, Inode, Place};
use crate::crypt::SealKeys;
use crate::map::{Fetch, FetchError, MapError};
use std::ops::Range;
use std::sync::Arc;

/// How often a read starts over when a chunk moved away under it.
const ATTEMPTS_MAX: usize = 4;

/// A sealed chunk, with all that it takes to open it without the lock.
pub(super) struct Wanted {
    pub(super) block: BlockNumber,
    pub(super) keys: SealKeys,
    pub(super) data_id: u64,
    pub(super) index: u64,
    pub(super) pointer: Pointer,
    pub(super) origin: Origin,
}

impl Wanted {
    /// The chunk's plaintext. `keep` says that more reads of it are likely.
    pub(super) fn open(&self, shared: &Shared, keep: bool) -> Result<Arc<Vec<u8>>, TreeError> {
        let Pointer { id, place } = self.pointer;
        if let Some(known) = shared.chunks.get(&id) {
            return Ok(known);
        }
        self.check_length()?;
        let sealed = match &self.origin {
            Origin::Image(source) => source.fetch(place),
            Origin::Draft(draft) => draft.read(place).map_err(|error| fetch_error(place, error)),
        };
        let sealed = sealed.map_err(|error| self.unreadable(error))?;
        let opened = self.keys.open_chunk_in_place(self.data_id, self.index, &id, sealed);
        let plain = Arc::new(opened.map_err(|_| self.tampered())?);
        if keep {
            shared.chunks.put(id, plain.clone());
        }
        Ok(plain)
    }

    /// Appends the plaintext to `out`, opened there. To be used where nobody will ask for it soon.
    fn open_onto(&self, out: &mut Vec<u8>, shared: &Shared) -> Result<(), TreeError> {
        let Pointer { id, place } = self.pointer;
        let source = match &self.origin {
            Origin::Image(source) if shared.chunks.get(&id).is_none() => source,
            _ => {
                out.extend_from_slice(&self.open(shared, false)?);
                return Ok(());
            }
        };
        self.check_length()?;
        let start = out.len();
        out.resize(start + place.length as usize, 0);
        let sealed = &mut out[start..];
        source.read_into(place, sealed).map_err(|error| self.unreadable(error))?;
        let opened = self.keys.open_chunk_where_it_lies(self.data_id, self.index, &id, sealed);
        opened.map_err(|_| self.tampered())
    }

    fn tampered(&self) -> TreeError {
        TreeError::Tampered { block: self.block, place: self.pointer.place }
    }

    fn check_length(&self) -> Result<(), TreeError> {
        let most = 1 << RecordSize::LARGE.log2();
        if self.pointer.place.length as usize > most { Err(self.tampered()) } else { Ok(()) }
    }

    fn unreadable(&self, error: FetchError) -> TreeError {
        match error {
            FetchError::OutOfRange(_) => self.tampered(),
            other => TreeError::from(MapError::Fetch(other)),
        }
    }
}

/// A part of the answer to a read.
enum Piece {
    Zeros(usize),
    /// Of these bytes; zeros behind their end.
    Bytes(Arc<Vec<u8>>, Range<usize>),
    Sealed(Wanted, Range<usize>),
}

/// Bytes of a chunk of an undecided file in memory, and of the largest chunk.
pub(super) const STAGING: RecordSize = RecordSize::LARGE;

/// Bytes of a chunk of the file.
pub(super) fn unit_of(record: &InodeRecord) -> u64 {
    let size = if record.record_size.is_decided() { record.record_size } else { STAGING };
    1 << size.log2()
}

impl View<'_> {
    fn plan(&self, inode: Inode, offset: u64, bytes: usize) -> Result<Vec<Piece>, TreeError> {
        let stack = self.stack(inode)?;
        let record = stack.record()?;
        if !record.is_file() {
            return Err(if record.is_directory() { TreeError::IsDirectory } else { TreeError::Invalid });
        }
        let end = offset.saturating_add(bytes as u64).min(record.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        if let Some(inline) = &record.inline {
            let range = offset as usize..end as usize;
            return Ok(vec![Piece::Bytes(Arc::new(inline.to_vec()), range)]);
        }
        let unit = unit_of(&record);
        let mut pieces = Vec::new();
        for index in offset / unit..end.div_ceil(unit) {
            let start = index * unit;
            let range = (offset.max(start) - start) as usize..(end.min(start + unit) - start) as usize;
            pieces.push(match stack.chunk(index)? {
                Chunk::Hole => Piece::Zeros(range.len()),
                Chunk::Dirty(bytes) => Piece::Bytes(bytes, range),
                Chunk::Sealed(pointer, origin) => Piece::Sealed(
                    Wanted {
                        block: stack.block,
                        keys: stack.keys.clone(),
                        data_id: record.data_id,
                        index,
                        pointer,
                        origin,
                    },
                    range,
                ),
            });
        }
        Ok(pieces)
    }

    /// The first data, or the first hole, from an offset on.
    pub(super) fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, TreeError> {
        let stack = self.stack(inode)?;
        let record = stack.record()?;
        if !record.is_file() {
            return Err(TreeError::Invalid);
        }
        if offset >= record.size {
            return Err(TreeError::NoSuchOffset);
        }
        if record.inline.is_some() {
            return Ok(if whence == Whence::Data { offset } else { record.size });
        }
        let unit = unit_of(&record);
        let mut index = offset / unit;
        if whence == Whence::Data {
            let next = stack.next_chunk(index)?.map(|next| offset.max(next * unit));
            return next.filter(|at| *at < record.size).ok_or(TreeError::NoSuchOffset);
        }
        while index * unit < record.size && stack.next_chunk(index)? == Some(index) {
            index += 1;
        }
        Ok(offset.max(index * unit).min(record.size))
    }
}

fn append(out: &mut Vec<u8>, bytes: &[u8], range: Range<usize>) {
    let end = out.len() + range.len();
    out.extend_from_slice(&bytes[range.start.min(bytes.len())..range.end.min(bytes.len())]);
    out.resize(end, 0);
}

/// Puts the pieces together.
fn assemble(pieces: Vec<Piece>, shared: &Shared) -> Result<Vec<u8>, TreeError> {
    let mut out = Vec::with_capacity(pieces.iter().map(Piece::bytes).sum());
    for piece in pieces {
        match piece {
            Piece::Zeros(count) => out.resize(out.len() + count, 0),
            Piece::Bytes(bytes, range) => append(&mut out, &bytes, range),
            Piece::Sealed(wanted, range) if covers(&wanted, &range) => {
                let end = out.len() + range.len();
                wanted.open_onto(&mut out, shared)?;
                out.resize(end, 0);
            }
            Piece::Sealed(wanted, range) => append(&mut out, &wanted.open(shared, true)?, range),
        }
    }
    Ok(out)
}

/// Whether a read takes all of a chunk: then nobody will ask for the rest of it soon.
fn covers(wanted: &Wanted, range: &Range<usize>) -> bool {
    range.start == 0 && range.end >= wanted.pointer.place.length as usize
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Piece::Zeros(count) => *count,
            Piece::Bytes(_, range) | Piece::Sealed(_, range) => range.len(),
        }
    }
}

/// Reads from a state that stays as it is.
pub(super) fn read_still(
    view: View<'_>,
    inode: Inode,
    offset: u64,
    bytes: usize,
) -> Result<Vec<u8>, TreeError> {
    assemble(view.plan(inode, offset, bytes)?, view.shared)
}

impl Tree {
    pub(super) fn read_live(&self, inode: Inode, offset: u64, bytes: usize) -> Result<Vec<u8>, TreeError> {
        for _ in 1..ATTEMPTS_MAX {
            let pieces = self.read_view(|view| view.plan(inode, offset, bytes))?;
            match assemble(pieces, &self.bench.shared) {
                // A chunk that was replaced, or moved by a flush, may be gone; one that is still in use may not.
                Err(TreeError::Tampered { .. }) => self.await_flush(),
                done => return done,
            }
        }
        assemble(self.read_view(|view| view.plan(inode, offset, bytes))?, &self.bench.shared)
    }

    /// Where the sealed chunks of a part of a file lie, as far as they are in an image.
    pub fn places(&self, inode: Inode, offset: u64, bytes: u64) -> Result<Vec<Place>, TreeError> {
        let pieces =
            self.read_view(|view| view.plan(inode, offset, usize::try_from(bytes).unwrap_or(usize::MAX)))?;
        let places = |piece: Piece| match piece {
            Piece::Sealed(Wanted { pointer, origin: Origin::Image(source), .. }, _) => {
                source.places(pointer.place)
            }
            _ => Vec::new(),
        };
        Ok(pieces.into_iter().flat_map(places).collect())
    }

    /// Returns when no flush is under way.
    pub(super) fn await_flush(&self) {
        drop(self.flushing.lock());
    }

    /// The first data, or the first hole, from `offset` on. A hole follows the last byte.
    pub fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, TreeError> {
        self.read_view(|view| view.seek(inode, offset, whence))
    }
}
