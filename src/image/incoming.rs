//! A version on its way in: slots shared with what is here, pieces written as they arrive.

use super::error::StoreError;
use super::pieces::{hash_piece, zero_hash};
use super::slots::{SlotPin, Tail};
use super::store::Store;
use super::table::Table;
use super::version::{Image, Region};
use crate::base::{PieceHashes, PieceIndex, REGION_BYTES, RegionIndex};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A version being fetched. Regions begin as what the best base has there; bytes behind its fill are added in its slot,
/// and a region that turns out to differ gets a slot of its own. Bytes of present pieces never change again.
///
/// A base may lack bytes itself: what is absent in a slot that both show is filled in there, for both.
pub struct Incoming {
    pub(super) store: Arc<Store>,
    pub(super) hashes: PieceHashes,
    /// For [`Incoming::basis`].
    base: Option<Image>,
    pub(super) state: RwLock<State>,
}

pub(super) struct State {
    /// Region → slot and fill of the base; a slot of our own has fill 0 until the end.
    pub(super) table: Table,
    /// Regions into which something was written.
    pub(super) touched: BTreeMap<RegionIndex, Touched>,
    pub(super) present: Vec<bool>,
    /// Pieces that are what the bases' slots show, here or not.
    pub(super) equal: Vec<bool>,
    pub(super) missing: usize,
    pub(super) finished: Option<Image>,
}

pub(super) struct Touched {
    pub(super) tail: Tail,
    /// One past the last non-zero byte written.
    pub(super) end: u32,
}

impl Store {
    /// Begins a version with these piece hashes. Pieces that a base has at the same place are present at once, and so
    /// are those of zeros; bases with another piece length bring nothing (hash them anew first). The live counts of
    /// the first base stay where its regions are taken over; elsewhere live is fill.
    pub fn incoming(
        self: &Arc<Store>,
        hashes: PieceHashes,
        bases: &[(Image, PieceHashes)],
    ) -> Result<Incoming, StoreError> {
        let regions = hashes.image_bytes / REGION_BYTES;
        let regular = hashes.image_bytes.is_multiple_of(REGION_BYTES)
            && u32::try_from(regions).is_ok()
            && hashes.hashes.len() as u64 == hashes.image_bytes.div_ceil(hashes.length.bytes());
        if !regular {
            let place = crate::base::Place { offset: hashes.image_bytes, length: 0 };
            return Err(StoreError::OutOfRange { place, image_bytes: regions * REGION_BYTES });
        }
        for (image, _) in bases {
            self.check_own(image)?;
        }
        let bases: Vec<&(Image, PieceHashes)> = bases
            .iter()
            .filter(|(image, known)| known.length == hashes.length && known.image_bytes == image.bytes())
            .collect();
        let mut table =
            bases.first().map_or_else(|| Table::empty(self.slots()), |(image, _)| image.table().clone());
        table.resize(regions as u32);
        let count = hashes.hashes.len();
        let base = bases.first().map(|(image, _)| image.clone());
        let state = State {
            table,
            touched: BTreeMap::new(),
            present: vec![false; count],
            equal: vec![false; count],
            missing: count,
            finished: None,
        };
        let incoming = Incoming { store: self.clone(), hashes, base, state: RwLock::new(state) };
        incoming.take_over(&bases)?;
        Ok(incoming)
    }
}

impl Incoming {
    /// The hashes it is to have.
    pub fn hashes(&self) -> &PieceHashes {
        &self.hashes
    }

    /// Which pieces are present.
    pub fn have(&self) -> Vec<bool> {
        let state = self.state.read();
        (0..state.present.len()).map(|piece| self.holds(&state, PieceIndex(piece as u32))).collect()
    }

    /// Whether one piece is present.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.holds(&self.state.read(), piece)
    }

    /// The pieces that are missing, ascending.
    pub fn missing(&self) -> Vec<PieceIndex> {
        let state = self.state.read();
        let all = (0..state.present.len() as u32).map(PieceIndex);
        all.filter(|piece| !self.holds(&state, *piece)).collect()
    }

    /// Whether nothing is missing.
    pub fn complete(&self) -> bool {
        self.state.read().missing == 0 || self.refresh()
    }

    /// Reads bytes of present pieces.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.hashes.image_bytes {
            let place = crate::base::Place { offset, length: buffer.len() as u32 };
            return Err(StoreError::OutOfRange { place, image_bytes: self.hashes.image_bytes });
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let mut rest = buffer;
        for (index, part) in parts(offset, end) {
            let state = self.state.read();
            for piece in self.pieces_in(index, &part) {
                if !self.holds(&state, piece) {
                    return Err(StoreError::Absent(piece));
                }
            }
            let region = state.region(index);
            // The leaf keeps the slot from being reused while it is read.
            let _leaf = state.table.leaf(index).cloned();
            drop(state);
            let (head, tail) = rest.split_at_mut((part.end - part.start) as usize);
            self.store.read_slot(region.slot, region.fill, part.start, head)?;
            rest = tail;
        }
        Ok(())
    }

    /// What the first base has in place of a piece (zeros where it has nothing): a delta is applied to that and the
    /// outcome accepted.
    pub fn basis(&self, piece: PieceIndex) -> Result<Vec<u8>, StoreError> {
        let start = self.hashes.length.start_of(piece);
        let mut bytes = vec![0; self.hashes.bytes_of(piece) as usize];
        if let Some(base) = &self.base
            && start < base.bytes()
        {
            let count = (base.bytes() - start).min(bytes.len() as u64);
            self.store.read(base, start, &mut bytes[..count as usize])?;
        }
        Ok(bytes)
    }

    /// Takes the bytes of a piece if they have its hash; says whether the version is complete now. A piece that is
    /// already present is left as it is.
    pub fn accept(&self, piece: PieceIndex, bytes: &[u8]) -> Result<bool, StoreError> {
        let sound = self.hashes.hash_of(piece).is_some_and(|hash| {
            bytes.len() as u64 == self.hashes.bytes_of(piece)
                && (self.has(piece) || hash_piece(bytes) == *hash)
        });
        if !sound {
            return Err(StoreError::WrongPiece(piece));
        }
        let mut state = self.state.write();
        self.place(&mut state, piece, bytes)?;
        Ok(state.missing == 0)
    }

    /// The image, once all pieces are here. Fills are inferred from the last non-zero byte.
    pub fn finish(&self) -> Result<Image, StoreError> {
        self.refresh();
        let mut state = self.state.write();
        if state.missing > 0 {
            return Err(StoreError::Incomplete { missing: state.missing });
        }
        if let Some(image) = &state.finished {
            return Ok(image.clone());
        }
        let image = self.close(&mut state);
        state.finished = Some(image.clone());
        Ok(image)
    }

    /// Shares what the bases have, then copies what only another base has.
    fn take_over(&self, bases: &[&(Image, PieceHashes)]) -> Result<(), StoreError> {
        let mut state = self.state.write();
        let from: Vec<usize> =
            (0..state.table.regions()).map(|index| self.best_base(RegionIndex(index), bases)).collect();
        for (index, base) in from.iter().enumerate().filter(|(_, base)| **base > 0) {
            let index = RegionIndex(index as u32);
            let region = bases[*base].0.region(index);
            state.table.set(index, Region { live: region.fill, ..region });
        }
        let mut copied: Vec<(PieceIndex, Vec<u8>)> = Vec::new();
        for (number, hash) in self.hashes.hashes.iter().enumerate() {
            let piece = PieceIndex(number as u32);
            let bytes = self.hashes.bytes_of(piece);
            let start = self.hashes.length.start_of(piece);
            let has = |base: &&(Image, PieceHashes)| {
                base.1.bytes_of(piece) == bytes && base.1.hash_of(piece) == Some(hash)
            };
            let shared = parts(start, start + bytes)
                .all(|(index, _)| bases.get(from[index.0 as usize]).is_some_and(has));
            if shared {
                state.equal[number] = true;
                if self.lies_here(&state, piece) {
                    state.present[number] = true;
                    state.missing -= 1;
                }
            } else if *hash == zero_hash(bytes) {
                copied.push((piece, Vec::new()));
            } else if let Some(base) = bases.iter().find(|base| has(base)) {
                let mut content = vec![0; bytes as usize];
                match self.store.read(&base.0, start, &mut content) {
                    Err(StoreError::NotHere { .. }) => continue,
                    outcome => outcome?,
                }
                // What a base promised is checked here: it is about to be written into a slot of its own.
                if hash_piece(&content) == *hash {
                    copied.push((piece, content));
                }
            }
        }
        for (piece, content) in copied {
            let zeros =
                if content.is_empty() { vec![0; self.hashes.bytes_of(piece) as usize] } else { content };
            self.place(&mut state, piece, &zeros)?;
        }
        Ok(())
    }

    /// The base with the most pieces of a region, those that are here before those that are not; the first, if none
    /// has any.
    fn best_base(&self, index: RegionIndex, bases: &[&(Image, PieceHashes)]) -> usize {
        let pieces = self.pieces_in(index, &(0..REGION_BYTES as u32));
        let score = |base: &(Image, PieceHashes)| {
            let equal = pieces.clone().filter(|piece| base.1.hash_of(*piece) == self.hashes.hash_of(*piece));
            equal
                .map(|piece| {
                    1 + usize::from(self.store.shows(&base.0.region(index), &self.part_of(piece, index)))
                })
                .sum()
        };
        let mut best = (0, 0usize);
        for (number, base) in bases.iter().enumerate() {
            let score = score(base);
            if score > best.1 {
                best = (number, score);
            }
        }
        best.0
    }

    /// The pieces that a part of a region touches.
    pub(super) fn pieces_in(
        &self,
        index: RegionIndex,
        part: &Range<u32>,
    ) -> impl Iterator<Item = PieceIndex> + Clone + use<> {
        let first = self.hashes.length.piece_of(index.start() + u64::from(part.start));
        let last = self.hashes.length.piece_of(index.start() + u64::from(part.end) - 1);
        (first.0..=last.0).map(PieceIndex)
    }

    fn place(&self, state: &mut State, piece: PieceIndex, bytes: &[u8]) -> Result<(), StoreError> {
        if state.present[piece.0 as usize] {
            return Ok(());
        }
        let start = self.hashes.length.start_of(piece);
        let mut rest = bytes;
        let mut whole = true;
        for (index, part) in parts(start, start + bytes.len() as u64) {
            let (head, tail) = rest.split_at((part.end - part.start) as usize);
            let region = state.table.get(index);
            match region.slot {
                // What the slot is to show there is known to be this.
                Some(slot) if state.equal[piece.0 as usize] && region.fill > 0 => {
                    whole &= self.store.supply(slot, region.fill, part.start, head)?;
                }
                _ => self.place_part(state, index, part.start, head)?,
            }
            rest = tail;
        }
        if whole {
            state.present[piece.0 as usize] = true;
            state.missing -= 1;
        }
        Ok(())
    }

    /// Writes one region's part of a piece: bytes below the shared fill must be there already, bytes behind it are
    /// written in place if the slot's tail is ours; else the region moves to a slot of its own.
    fn place_part(
        &self,
        state: &mut State,
        index: RegionIndex,
        start: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let region = state.table.get(index);
        let shared = (region.fill.saturating_sub(start) as usize).min(bytes.len());
        let mut held = vec![0; shared];
        let here = match self.store.read_slot(region.slot, region.fill, start, &mut held) {
            Err(StoreError::NotHere { .. }) => false,
            outcome => outcome.map(|()| true)?,
        };
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if here && held == bytes[..shared] {
            if end <= shared {
                return Ok(());
            }
            if state.touched.contains_key(&index) || self.claim(state, index)? {
                return self.write(state, index, start + shared as u32, &bytes[shared..end]);
            }
        }
        self.diverge(state, index)?;
        self.write(state, index, start, &bytes[..end])
    }

    /// Gets the right to write behind the shared fill of a region; a region without a slot gets one.
    fn claim(&self, state: &mut State, index: RegionIndex) -> Result<bool, StoreError> {
        let region = state.table.get(index);
        let tail = match region.slot {
            None => {
                let pin = self.store.take_slot()?;
                self.own(state, index, &pin)
            }
            Some(slot) => match self.store.slots().claim_tail(slot, region.fill) {
                None => return Ok(false),
                Some(tail) => {
                    // A write that no commit kept may have left something there.
                    self.store.discard_tail(slot, region.fill)?;
                    tail
                }
            },
        };
        state.touched.insert(index, Touched { tail, end: 0 });
        Ok(true)
    }

    pub(super) fn own(&self, state: &mut State, index: RegionIndex, pin: &SlotPin) -> Tail {
        state.table.set(index, Region { slot: Some(pin.index()), fill: 0, live: 0 });
        self.store.slots().claim_tail(pin.index(), 0).expect("nobody knows a slot that was just taken")
    }

    /// Moves a region to a slot of its own, with the bytes of the pieces that are present.
    pub(super) fn diverge(&self, state: &mut State, index: RegionIndex) -> Result<(), StoreError> {
        let old = state.region(index);
        let mut bytes = vec![0; old.fill as usize];
        for piece in self.pieces_in(index, &(0..REGION_BYTES as u32)) {
            let part = self.part_of(piece, index);
            let part = part.start as usize..part.end.min(old.fill) as usize;
            if !part.is_empty() && self.holds(state, piece) {
                self.store.read_slot(old.slot, old.fill, part.start as u32, &mut bytes[part])?;
            }
        }
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let pin = self.store.take_slot()?;
        self.store.write_slot(pin.index(), 0, &bytes[..end])?;
        let tail = self.own(state, index, &pin);
        state.touched.insert(index, Touched { tail, end: end as u32 });
        Ok(())
    }

    fn write(
        &self,
        state: &mut State,
        index: RegionIndex,
        start: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let touched = state.touched.get_mut(&index).expect("a region is claimed before it is written");
        self.store.write_slot(touched.tail.slot(), start, bytes)?;
        touched.end = touched.end.max(start + bytes.len() as u32);
        Ok(())
    }
}

impl State {
    /// A region with all that has been written to it.
    pub(super) fn region(&self, index: RegionIndex) -> Region {
        let region = self.table.get(index);
        let end = self.touched.get(&index).map_or(0, |touched| touched.end);
        Region { fill: region.fill.max(end), ..region }
    }
}

/// Splits image bytes at region boundaries.
pub(super) fn parts(start: u64, end: u64) -> impl Iterator<Item = (RegionIndex, Range<u32>)> {
    let last = (end.max(start + 1) - 1) / REGION_BYTES;
    (start / REGION_BYTES..=last).map(move |number| {
        let base = number * REGION_BYTES;
        let part = (start.max(base) - base) as u32..(end.min(base + REGION_BYTES) - base) as u32;
        (RegionIndex(number as u32), part)
    })
}
