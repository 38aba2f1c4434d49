//! Which parts of slots are not here: bytes of an adopted version that nobody has fetched yet, or that were given up to
//! save room.
//!
//! Presence is kept in units of 16 KiB, 64 to a slot, for slots that lack any. Two rules keep it true:
//! - a bit is cleared after the bytes were written, and a commit reads the masks before it syncs: what a durable mask
//!   calls present is durable;
//! - an image that shows a byte of an absent unit shows all that was written in that unit, so that the pieces of any
//!   such image can fill it. Nothing is appended to a slot that lacks a unit.

use super::slots::SLOTS_MAX;
use crate::base::{Malformed, REGION_BYTES, Reader, SlotIndex, Writer};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The unit of presence.
pub const UNIT_BYTES: u64 = REGION_BYTES / 64;
const _: () = assert!(UNIT_BYTES == 16 << 10, "a piece is one or more units");

/// Entries that fit one run of the list that a commit writes: gap, count, mask.
const ENTRY_BYTES_MAX: usize = 5 + 5 + 8;
const ENTRIES_PER_RUN: usize = REGION_BYTES as usize / ENTRY_BYTES_MAX;

/// Absent units by slot.
#[derive(Default)]
pub(super) struct Presence {
    /// Whether any mask may be set: most stores have all their bytes and ask only this.
    any: AtomicBool,
    masks: RwLock<BTreeMap<u32, u64>>,
    /// Whether bytes have come in that no commit calls present yet.
    gained: AtomicBool,
    /// Held while absent bytes are written, and while they are discarded.
    pub(super) filling: Mutex<()>,
    /// Grows before absent bytes are discarded: whoever read meanwhile reads again.
    epoch: AtomicU64,
}

impl Presence {
    /// Whether everything is here.
    pub(super) fn is_whole(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// The absent units of a slot, lowest bit first.
    pub(super) fn absent(&self, slot: SlotIndex) -> u64 {
        if self.is_whole() { 0 } else { self.masks.read().get(&slot.0).copied().unwrap_or(0) }
    }

    /// The first absent unit that a part of a slot touches.
    pub(super) fn first_absent(&self, slot: SlotIndex, part: Range<u32>) -> Option<u32> {
        let touched = self.absent(slot) & units_touched(&part);
        (touched != 0).then(|| touched.trailing_zeros())
    }

    /// Marks units as absent.
    pub(super) fn lose(&self, slot: SlotIndex, units: u64) {
        if units == 0 {
            return;
        }
        let mut masks = self.masks.write();
        self.any.store(true, Ordering::Release);
        *masks.entry(slot.0).or_default() |= units;
    }

    /// Marks units as present; their bytes were written before.
    pub(super) fn gain(&self, slot: SlotIndex, units: u64) {
        let mut masks = self.masks.write();
        if let Some(mask) = masks.get_mut(&slot.0) {
            self.gained.store(true, Ordering::Release);
            *mask &= !units;
            if *mask == 0 {
                masks.remove(&slot.0);
                self.any.store(!masks.is_empty(), Ordering::Release);
            }
        }
    }

    /// Forgets a slot that nothing names any more.
    pub(super) fn forget(&self, slot: u32) {
        if !self.is_whole() {
            self.gain(SlotIndex(slot), u64::MAX);
        }
    }

    /// Whether every byte that is present was so at the last commit.
    pub(super) fn is_durable(&self) -> bool {
        !self.gained.load(Ordering::Acquire)
    }

    /// A commit is about to list what is absent, or has failed to.
    pub(super) fn set_durable(&self, durable: bool) {
        self.gained.store(!durable, Ordering::Release);
    }

    /// For [`Presence::epoch`].
    pub(super) fn about_to_discard(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// A number that differs before and after bytes were discarded.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The list of masks as blobs, each of which fits a run: per group of neighbouring slots with one mask the gap to the
    /// group before, how many, the mask.
    pub(super) fn encode(&self) -> Vec<Vec<u8>> {
        if self.is_whole() {
            return Vec::new();
        }
        let mut groups: Vec<(u32, u32, u64)> = Vec::new();
        for (slot, mask) in self.masks.read().iter() {
            match groups.last_mut() {
                Some((first, count, same)) if *first + *count == *slot && same == mask => *count += 1,
                _ => groups.push((*slot, 1, *mask)),
            }
        }
        let blob = |groups: &[(u32, u32, u64)]| {
            let (mut writer, mut next) = (Writer::new(), 0);
            for (first, count, mask) in groups {
                writer.varint(u64::from(first - next)).varint(u64::from(*count)).u64(*mask);
                next = first + count;
            }
            writer.0
        };
        groups.chunks(ENTRIES_PER_RUN).map(blob).collect()
    }
}

/// Parses one blob of [`Presence::encode`].
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<(SlotIndex, u64)>, Malformed> {
    let mut reader = Reader::new(bytes);
    let (mut found, mut next) = (Vec::new(), 0u64);
    while reader.remaining() > 0 {
        let first = next + reader.varint()?.min(u64::from(SLOTS_MAX));
        let count = reader.varint()?.min(u64::from(SLOTS_MAX) + 1);
        let mask = reader.u64()?;
        next = first + count;
        if first == 0 || count == 0 || next > u64::from(SLOTS_MAX) || mask == 0 {
            return Err(Malformed);
        }
        found.extend((first..next).map(|slot| (SlotIndex(slot as u32), mask)));
    }
    Ok(found)
}

/// The units that a part of a slot touches.
pub(super) fn units_touched(part: &Range<u32>) -> u64 {
    if part.is_empty() {
        return 0;
    }
    let unit = UNIT_BYTES as u32;
    bits(part.start / unit..part.end.div_ceil(unit))
}

/// The units that a part of a slot holds whole, where all that is shown of the slot ends at `fill`.
pub(super) fn units_within(part: &Range<u32>, fill: u32) -> u64 {
    let unit = UNIT_BYTES as u32;
    let end = if part.end >= fill { part.end.div_ceil(unit) } else { part.end / unit };
    let first = part.start.div_ceil(unit);
    if first < end { bits(first..end) } else { 0 }
}

/// The bytes of a unit.
pub(super) fn bytes_of(unit: u32) -> Range<u32> {
    unit * UNIT_BYTES as u32..(unit + 1) * UNIT_BYTES as u32
}

/// The units of a mask, ascending.
pub(super) fn units(mask: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |unit| mask >> unit & 1 == 1)
}

fn bits(units: Range<u32>) -> u64 {
    let below = |count: u32| if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    below(units.end) & !below(units.start)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn units_are_counted_from_bytes() {
        let unit = UNIT_BYTES as u32;
        assert_eq!(units_touched(&(0..0)), 0);
        assert_eq!(units_touched(&(0..1)), 1);
        assert_eq!(units_touched(&(unit - 1..unit + 1)), 3);
        assert_eq!(units_touched(&(0..64 * unit)), u64::MAX);
        assert_eq!(units_within(&(1..unit), u32::MAX), 0);
        assert_eq!(units_within(&(0..unit + 5), u32::MAX), 1);
        assert_eq!(units_within(&(0..unit + 5), unit + 5), 3);
        assert_eq!(bytes_of(63).end, REGION_BYTES as u32);
        assert_eq!(units(5).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_list_has_one_form() {
        let presence = Presence::default();
        assert!(presence.is_whole() && presence.encode().is_empty());
        let marks = [(3, 7), (4, 7), (5, 7), (9, u64::MAX), (10, 1 << 63), (SLOTS_MAX - 1, 1)];
        for (slot, mask) in marks {
            presence.lose(SlotIndex(slot), mask);
        }
        let blobs = presence.encode();
        assert_eq!(blobs.len(), 1);
        let read: Vec<_> =
            decode(&blobs[0]).unwrap().into_iter().map(|(slot, mask)| (slot.0, mask)).collect();
        assert_eq!(read, marks);
        for cut in 1..blobs[0].len() {
            if let Ok(shorter) = decode(&blobs[0][..cut]) {
                assert!(shorter.len() < marks.len());
            }
        }
        for hostile in [
            &[0u8, 1, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(decode(hostile), Err(Malformed));
        }
        let mut wide = Writer::new();
        wide.varint(1).varint(u64::MAX).u64(1);
        assert_eq!(decode(&wide.0), Err(Malformed));
        for (slot, _) in marks {
            presence.forget(slot);
        }
        assert!(presence.is_whole());
    }

    #[test]
    fn more_than_one_run_can_be_filled() {
        let presence = Presence::default();
        let slots = ENTRIES_PER_RUN as u32 + 10;
        for slot in 1..=slots {
            presence.lose(SlotIndex(slot), u64::from(slot));
        }
        let blobs = presence.encode();
        assert_eq!(blobs.len(), 2);
        assert!(blobs.iter().all(|blob| blob.len() <= REGION_BYTES as usize));
        let read: Vec<_> = blobs.iter().flat_map(|blob| decode(blob).unwrap()).collect();
        assert_eq!(read.len(), slots as usize);
        assert!(read.iter().all(|(slot, mask)| u64::from(slot.0) == *mask));
    }
}
