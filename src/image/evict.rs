//! Giving up bytes that others hold, to save room.
//!
//! Order: the units are marked absent, two commits make both superblocks say so, and only then their bytes are
//! discarded: whichever state a power cut leaves, it calls nothing present that is gone.

use super::error::StoreError;
use super::incoming::parts;
use super::presence::{UNIT_BYTES, bytes_of, units, units_touched};
use super::slot_io::slot_offset;
use super::store::Store;
use super::version::Image;
use crate::base::{RegionIndex, SlotIndex};
use std::collections::BTreeMap;
use std::ops::Range;

/// Units that are marked absent and whose bytes are still on the disk.
#[must_use = "their room is given back by `Store::discard_given_up`"]
pub struct GivenUp(BTreeMap<SlotIndex, u64>);

impl GivenUp {
    /// Bytes that will be free.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|units| u64::from(units.count_ones()) * UNIT_BYTES).sum()
    }
}

impl Store {
    /// Marks whole units of an image absent, those that lie in `ranges` and are here. The caller knows that others hold
    /// them. Left out is what another kept image shows a part of: nobody could fill that in for it alone.
    pub fn give_up(&self, image: &Image, ranges: &[Range<u64>]) -> Result<GivenUp, StoreError> {
        self.check_own(image)?;
        let kept = self.kept();
        let mut masks: BTreeMap<SlotIndex, u64> = BTreeMap::new();
        for range in ranges.iter().filter(|range| range.start < range.end.min(image.bytes())) {
            for (index, part) in parts(range.start, range.end.min(image.bytes())) {
                let region = image.region(index);
                let Some(slot) = region.slot else { continue };
                let whole = whole_units(&(part.start..part.end.min(region.fill)));
                let torn =
                    kept.iter().map(|kept| torn_unit(&kept.image, index, slot)).fold(0, |all, one| all | one);
                *masks.entry(slot).or_default() |= whole & !torn & !self.slots().presence.absent(slot);
            }
        }
        masks.retain(|_, mask| *mask != 0);
        for (slot, mask) in &masks {
            self.slots().presence.lose(*slot, *mask);
        }
        Ok(GivenUp(masks))
    }

    /// Gives the room of units back; two commits must have been made since they were marked. What was filled in again
    /// meanwhile stays.
    pub fn discard_given_up(&self, given_up: &GivenUp) -> Result<(), StoreError> {
        let presence = &self.slots().presence;
        presence.about_to_discard();
        for (slot, mask) in &given_up.0 {
            let _alone = presence.filling.lock();
            for run in runs(presence.absent(*slot) & mask) {
                let offset = slot_offset(*slot) + u64::from(run.start);
                let outcome = self.disk().discard(offset, u64::from(run.end - run.start));
                outcome.map_err(|error| StoreError::io(&self.file, "discarding a part of", offset, error))?;
            }
        }
        Ok(())
    }
}

/// The units that lie in a part of a slot whole.
fn whole_units(part: &Range<u32>) -> u64 {
    let unit = UNIT_BYTES as u32;
    let whole = part.start.div_ceil(unit) * unit..part.end / unit * unit;
    if whole.start < whole.end { units_touched(&whole) } else { 0 }
}

/// The unit of which an image shows a part, if it shows this slot in this region.
fn torn_unit(image: &Image, index: RegionIndex, slot: SlotIndex) -> u64 {
    let region = image.region(index);
    let unit = UNIT_BYTES as u32;
    if region.slot != Some(slot) || region.fill.is_multiple_of(unit) {
        return 0;
    }
    units_touched(&(region.fill - 1..region.fill))
}

/// Neighbouring units of a mask as ranges of bytes.
fn runs(mask: u64) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for unit in units(mask).map(bytes_of) {
        match runs.last_mut() {
            Some(last) if last.end == unit.start => last.end = unit.end,
            _ => runs.push(unit),
        }
    }
    runs
}
