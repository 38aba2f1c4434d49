//! Cleaning: giving back regions in which little lives, by moving that to others. Ids stay; places change.

use crate::base::{Place, REGION_BYTES, RegionIndex};
use crate::image::{Draft, Region};
use crate::map::{Map, MapError, Relocate, Root};
use std::collections::BTreeSet;

/// A region of which less lives is cleaned, in percent of what is written in it.
const REGION_LIVE_PERCENT_MIN: u64 = 50;
/// More dead space than that in the whole image, in percent of what is written, and fuller regions are cleaned too.
const IMAGE_DEAD_PERCENT_MAX: u64 = 30;
/// Then regions of which less lives than that, in percent.
const REGION_LIVE_PERCENT_FULL: u64 = 80;
/// A region with less written in it is left alone: a stream may go on there.
const FILL_BYTES_MIN: u32 = (REGION_BYTES / 2) as u32;

/// One bounded step: which regions are to be emptied.
///
/// A step walks each block's map once, so it takes as many regions as its budget of moved bytes allows. Objects that no
/// block's map names (commits, charters, the catalogue) are moved by who keeps them. The regions are not emptied
/// here: one is when its last object has gone and its live bytes are none, so that an object that nobody moved, for
/// want of a key, stays where it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cleaning {
    regions: BTreeSet<RegionIndex>,
    /// The budget ended before what is due did.
    cut_short: bool,
}

impl Cleaning {
    /// Plans a step that moves at most `budget_bytes` of live bytes (and nodes above them).
    pub fn plan(draft: &Draft, budget_bytes: u64) -> Cleaning {
        let regions = (0..draft.regions()).map(RegionIndex);
        let closed = regions.filter(|index| !draft.is_open(*index));
        Cleaning::choose(closed.map(|index| (index, draft.region(index))), budget_bytes)
    }

    /// The regions of which the least lives, until the budget is used or no more are due.
    fn choose(regions: impl Iterator<Item = (RegionIndex, Region)>, budget_bytes: u64) -> Cleaning {
        let mut written: Vec<(RegionIndex, Region)> = regions.filter(|(_, region)| region.fill > 0).collect();
        let filled: u64 = written.iter().map(|(_, region)| u64::from(region.fill)).sum();
        let mut dead: u64 = written.iter().map(|(_, region)| u64::from(region.dead())).sum();
        written.retain(|(_, region)| region.live > 0 && region.fill >= FILL_BYTES_MIN);
        written.sort_by_key(|(index, region)| (live_percent(*region), *index));
        let mut chosen = Cleaning::default();
        let mut budget = budget_bytes;
        for (index, region) in written {
            let crowded = dead * 100 > filled * IMAGE_DEAD_PERCENT_MAX;
            let least = if crowded { REGION_LIVE_PERCENT_FULL } else { REGION_LIVE_PERCENT_MIN };
            if live_percent(region) >= least {
                break;
            }
            let Some(rest) = budget.checked_sub(u64::from(region.live)) else {
                chosen.cut_short = true;
                break;
            };
            budget = rest;
            dead = dead.saturating_sub(u64::from(region.dead()));
            chosen.regions.insert(index);
        }
        chosen
    }

    /// Whether more is due than the budget allowed.
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The regions to empty.
    pub fn regions(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        self.regions.iter().copied()
    }

    /// Whether an object has to leave its place.
    pub fn moves(&self, place: Place) -> bool {
        self.regions.contains(&RegionIndex::of(place.offset))
    }

    /// Moves what one map has in these regions. The root that comes back has the id that it had. `sink` appends to
    /// the cleaning stream, so that what is long-lived stays together.
    pub fn clean_map(&self, map: &Map<'_>, root: Root, sink: &mut dyn Relocate) -> Result<Root, MapError> {
        if self.is_empty() {
            return Ok(root);
        }
        map.relocate(root, &|place| self.moves(place), sink)
    }
}

/// How much of what is written in a region lives.
fn live_percent(region: Region) -> u64 {
    u64::from(region.live) * 100 / u64::from(region.fill.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SlotIndex;

    const FULL: u32 = REGION_BYTES as u32;

    fn plan(regions: &[(u32, u32)], budget_bytes: u64) -> Cleaning {
        let region = |(index, (fill, live)): (usize, &(u32, u32))| {
            let slot = Some(SlotIndex(index as u32));
            (RegionIndex(index as u32), Region { slot, fill: *fill, live: *live })
        };
        Cleaning::choose(regions.iter().enumerate().map(region), budget_bytes)
    }

    fn chosen(regions: &[(u32, u32)], budget_bytes: u64) -> Vec<u32> {
        plan(regions, budget_bytes).regions().map(|region| region.0).collect()
    }

    #[test]
    fn the_emptiest_go_first_within_the_budget() {
        let regions =
            [(FULL, FULL), (FULL, FULL / 4), (FULL, FULL / 8), (FULL, FULL), (FULL, FULL), (FULL, FULL)];
        assert_eq!(chosen(&regions, u64::MAX), [1, 2]);
        assert_eq!(chosen(&regions, u64::from(FULL / 8)), [2]);
        assert!(chosen(&regions, 100).is_empty());
        let cut = |budget_bytes| plan(&regions, budget_bytes).is_cut_short();
        assert!(cut(100) && cut(u64::from(FULL / 8)) && !cut(u64::MAX));
    }

    #[test]
    fn fuller_ones_are_cleaned_only_in_a_crowded_image() {
        assert!(chosen(&[(FULL, FULL / 10 * 6), (FULL, FULL), (FULL, FULL)], u64::MAX).is_empty());
        assert_eq!(chosen(&[(FULL, FULL / 10 * 6); 4], u64::MAX), [0, 1]);
    }

    #[test]
    fn empty_full_and_growing_regions_are_left_alone() {
        assert!(chosen(&[(0, 0), (FULL, FULL), (FULL, 0), (FULL / 4, 10)], u64::MAX).is_empty());
    }
}
