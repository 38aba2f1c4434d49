//! Images that lack bytes: how a version comes into use before all of it is here, and how what it lacks is filled in.

use super::error::StoreError;
use super::incoming::{Incoming, State, parts};
use super::presence::{UNIT_BYTES, bytes_of, units, units_touched, units_within};
use super::store::Store;
use super::version::{Hints, Image, Region};
use crate::base::{PieceIndex, PieceLength, Place, REGION_BYTES, RegionIndex, SlotIndex};
use std::collections::BTreeSet;
use std::ops::Range;

impl Store {
    /// Whether an image lacks nothing.
    pub fn is_whole(&self, image: &Image) -> bool {
        self.slots().presence.is_whole() || image.iter().all(|(_, region)| self.absent_of(region) == 0)
    }

    /// Bytes that an image lacks, in whole units.
    pub fn absent_bytes(&self, image: &Image) -> u64 {
        if self.slots().presence.is_whole() {
            return 0;
        }
        image.iter().map(|(_, region)| u64::from(self.absent_of(region).count_ones()) * UNIT_BYTES).sum()
    }

    /// Which pieces of an image are here.
    pub fn have(&self, image: &Image, length: PieceLength) -> Vec<bool> {
        let count = length.count(image.bytes());
        if self.is_whole(image) {
            return vec![true; count as usize];
        }
        let here = |piece: u32| {
            let start = length.start_of(PieceIndex(piece));
            let bytes = length.bytes().min(image.bytes() - start);
            parts(start, start + bytes).all(|(index, part)| self.shows(&image.region(index), &part))
        };
        (0..count).map(here).collect()
    }

    /// Whether a commit has been made since bytes last came in. What is logged on top of others would have to be redone
    /// without them.
    pub fn presence_is_durable(&self) -> bool {
        self.slots().presence.is_durable()
    }

    /// Whether any byte of a place is absent in an image.
    pub fn lacks(&self, image: &Image, place: Place) -> bool {
        let end = place.offset.saturating_add(u64::from(place.length)).min(image.bytes());
        !self.slots().presence.is_whole()
            && place.offset < end
            && parts(place.offset, end).any(|(index, part)| !self.shows(&image.region(index), &part))
    }

    /// Whether bytes of a region, as far as they are written, are here.
    pub(super) fn shows(&self, region: &Region, part: &Range<u32>) -> bool {
        let written = part.start..part.end.min(region.fill);
        let absent = |slot| self.slots().presence.first_absent(slot, written.clone());
        written.is_empty() || region.slot.and_then(absent).is_none()
    }

    /// The absent units that a region shows.
    pub(super) fn absent_of(&self, region: Region) -> u64 {
        region.slot.map_or(0, |slot| self.slots().presence.absent(slot) & units_touched(&(0..region.fill)))
    }

    /// Fills in the absent units of a slot that `bytes` hold whole; the caller knows by hash that a region with this slot
    /// and fill shows them from `start` on. Whether all of that region's units there are here now.
    pub(super) fn supply(
        &self,
        slot: SlotIndex,
        fill: u32,
        start: u32,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let presence = &self.slots().presence;
        let _alone = presence.filling.lock();
        let part = start..(start + bytes.len() as u32).min(fill);
        let missing = presence.absent(slot) & units_within(&part, self.slots().high(slot));
        for unit in units(missing) {
            let unit = bytes_of(unit);
            let held = unit.start.max(part.start)..unit.end.min(part.end);
            let within = (held.start - start) as usize..(held.end - start) as usize;
            self.write_slot(slot, held.start, &bytes[within])?;
        }
        presence.gain(slot, missing);
        Ok(presence.first_absent(slot, part).is_none())
    }
}

impl Incoming {
    /// The image as far as it is here, to be used at once: what is missing is absent in it. Pieces are accepted as before
    /// and fill it in. Fills may be larger than what is really written, up to the end of a missing piece.
    pub fn finish_partial(&self) -> Result<Image, StoreError> {
        let mut state = self.state.write();
        if let Some(image) = &state.finished {
            return Ok(image.clone());
        }
        let missing: Vec<PieceIndex> = (0..state.present.len() as u32)
            .map(PieceIndex)
            .filter(|piece| !self.holds(&state, *piece))
            .collect();
        let unknown = missing.iter().filter(|piece| !state.equal[piece.0 as usize]);
        let regions: BTreeSet<RegionIndex> = unknown.flat_map(|piece| self.regions_of(*piece)).collect();
        for index in &regions {
            if !state.owns(*index) {
                self.diverge(&mut state, *index)?;
            }
        }
        let mut last = None;
        for piece in &missing {
            let start = self.hashes.length.start_of(*piece);
            for (index, part) in parts(start, start + self.hashes.bytes_of(*piece)) {
                // Other regions show a base's slot, where it is marked already.
                if !state.owns(index) {
                    continue;
                }
                let touched = state.touched.get_mut(&index).expect("an own region was touched");
                self.store.slots().presence.lose(touched.tail.slot(), units_touched(&part));
                touched.end = touched.end.max(part.end);
                last = last.max(Some(touched.tail.slot()));
            }
        }
        // The file must reach over slots into which nothing was written: a table that names them is refused else.
        if let Some(slot) = last {
            self.store.reach(slot)?;
        }
        let image = self.close(&mut state);
        // From now on all pieces are what its slots show, here or not.
        state.equal.fill(true);
        state.finished = Some(image.clone());
        Ok(image)
    }

    /// Pieces that are missing and that no base's slot is known to be going to show.
    pub fn unknown(&self) -> Vec<PieceIndex> {
        let state = self.state.read();
        let all = (0..state.present.len() as u32).map(PieceIndex);
        all.filter(|piece| !state.equal[piece.0 as usize] && !state.present[piece.0 as usize]).collect()
    }

    /// The pieces that a place touches and that are missing.
    pub fn missing_at(&self, place: Place) -> Vec<PieceIndex> {
        let end = place.offset.saturating_add(u64::from(place.length)).min(self.hashes.image_bytes);
        if place.offset >= end {
            return Vec::new();
        }
        let (first, last) = (self.hashes.length.piece_of(place.offset), self.hashes.length.piece_of(end - 1));
        let state = self.state.read();
        (first.0..=last.0).map(PieceIndex).filter(|piece| !self.holds(&state, *piece)).collect()
    }

    /// Whether a piece is here: it arrived, or the slots that show it have it by now.
    pub(super) fn holds(&self, state: &State, piece: PieceIndex) -> bool {
        let index = piece.0 as usize;
        state.present.get(index) == Some(&true)
            || state.equal.get(index) == Some(&true) && self.lies_here(state, piece)
    }

    /// Whether the slots of the bases have all of a piece that they are to show.
    pub(super) fn lies_here(&self, state: &State, piece: PieceIndex) -> bool {
        self.regions_of(piece).all(|index| {
            !state.owns(index) && self.store.shows(&state.table.get(index), &self.part_of(piece, index))
        })
    }

    /// Counts what others have filled in meanwhile; whether nothing is missing.
    pub(super) fn refresh(&self) -> bool {
        let mut state = self.state.write();
        for number in 0..state.present.len() {
            if !state.present[number] && self.holds(&state, PieceIndex(number as u32)) {
                state.present[number] = true;
                state.missing -= 1;
            }
        }
        state.missing == 0
    }

    /// Ends the filling: the image of all regions as they stand. Fills are inferred from the last byte that is not zero.
    pub(super) fn close(&self, state: &mut State) -> Image {
        for (index, touched) in std::mem::take(&mut state.touched) {
            let base = state.table.get(index);
            let fill = base.fill.max(touched.end);
            let region = if fill == 0 { Region::EMPTY } else { Region { slot: base.slot, fill, live: fill } };
            state.table.set(index, region);
        }
        Image::new(state.table.clone(), Hints::default())
    }

    /// The part of a region that a piece has.
    pub(super) fn part_of(&self, piece: PieceIndex, index: RegionIndex) -> Range<u32> {
        let start = self.hashes.length.start_of(piece);
        let end = start + self.hashes.bytes_of(piece);
        let within = |at: u64| at.clamp(index.start(), index.start() + REGION_BYTES) - index.start();
        within(start) as u32..within(end) as u32
    }

    fn regions_of(&self, piece: PieceIndex) -> impl Iterator<Item = RegionIndex> + use<> {
        let start = self.hashes.length.start_of(piece);
        parts(start, start + self.hashes.bytes_of(piece)).map(|(index, _)| index)
    }
}

impl State {
    /// Whether a region has a slot of its own, in which only what was written is known.
    pub(super) fn owns(&self, index: RegionIndex) -> bool {
        self.touched.contains_key(&index) && self.table.get(index).fill == 0
    }
}
