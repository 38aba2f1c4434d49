//! Giving dead space back: what little lives in some regions is moved, and after big deletions what lies far out is
//! moved inwards, so that the image becomes shorter.

use super::block::Shared;
use super::clean::Cleaning;
use super::commit::Roots;
use super::error::TreeError;
use super::flush::{Flushing, Frozen};
use super::ledger::Ledger;
use super::live::Tree;
use super::source::ImageSource;
use crate::base::{Place, REGION_BYTES, RegionIndex};
use crate::image::{Draft, Region, Stream};
use crate::map::{Map, Root};

/// Dead bytes after which it is worth looking: a look goes over all regions, and a step over all nodes.
const AFTER_BYTES: u64 = 4 << 20;
/// Live bytes that one step moves at most, or as many as have died since the last one: cleaning keeps pace with dying.
const STEP_BYTES_MAX: u64 = 32 << 20;
/// No step is made while less than one byte in so many is dead: each one reads all nodes.
const DEAD_PART_MAX: u64 = 8;
/// An image is folded when it is longer than twice what lives in it and this.
const SLACK_BYTES: u64 = 4 << 20;

/// Cleans one step if enough has died since the last look; returns regions that were emptied. What fails is left as
/// it was.
pub(super) fn tidy(
    roots: &mut Roots,
    frozen: &Frozen,
    shared: &Shared,
    flushing: &mut Flushing,
) -> Vec<RegionIndex> {
    if flushing.freed_bytes < AFTER_BYTES && !flushing.behind {
        return Vec::new();
    }
    let budget_bytes = std::mem::take(&mut flushing.freed_bytes).max(STEP_BYTES_MAX);
    flushing.behind = false;
    let draft = &frozen.draft;
    let emptied = draft.truncate_empty();
    let done = clean(roots, frozen, shared, flushing, budget_bytes)
        .and_then(|()| fold(roots, frozen, shared, flushing));
    if let Err(error) = done {
        tracing::warn!(%error, "dead space was not given back; it is tried again later");
    }
    emptied
}

fn clean(
    roots: &mut Roots,
    frozen: &Frozen,
    shared: &Shared,
    flushing: &mut Flushing,
    budget_bytes: u64,
) -> Result<(), TreeError> {
    let draft = &frozen.draft;
    let regions = (0..draft.regions()).map(|index| draft.region(RegionIndex(index)));
    let sum = |(filled, dead): (u64, u64), region: Region| {
        (filled + u64::from(region.fill), dead + u64::from(region.dead()))
    };
    let (filled, dead) = regions.fold((0, 0), sum);
    if dead * DEAD_PART_MAX < filled {
        return Ok(());
    }
    let cleaning = Cleaning::plan(draft, budget_bytes);
    let live = |region: RegionIndex| draft.region(region).live;
    // What nobody could move last time will not move now.
    if cleaning.regions().all(|region| flushing.stubborn.get(&region) == Some(&live(region))) {
        return Ok(());
    }
    relocate(roots, frozen, shared, |place| cleaning.moves(place))?;
    let left = cleaning.regions().map(|region| (region, live(region))).filter(|(_, live)| *live > 0);
    flushing.stubborn = left.collect();
    flushing.behind = cleaning.is_cut_short();
    Ok(())
}

/// Moves what lies far out inwards, if the image is much longer than what lives in it.
fn fold(
    roots: &mut Roots,
    frozen: &Frozen,
    shared: &Shared,
    flushing: &mut Flushing,
) -> Result<(), TreeError> {
    let draft = &frozen.draft;
    let Some((first, cut_short)) = fold_from(draft) else { return Ok(()) };
    let regions = draft.regions();
    relocate(roots, frozen, shared, |place| RegionIndex::of(place.offset) >= first)?;
    // Where something stays that the maps do not name, another step would not get further.
    let moved = (first.0..regions).all(|index| draft.region(RegionIndex(index)).live == 0);
    flushing.behind |= cut_short && moved;
    Ok(())
}

/// From which region on everything should move inwards, and whether that is not all that should; `None` if the image
/// is short enough.
fn fold_from(draft: &Draft) -> Option<(RegionIndex, bool)> {
    let live: Vec<u64> =
        (0..draft.regions()).map(|index| u64::from(draft.region(RegionIndex(index)).live)).collect();
    let wanted = 2 * live.iter().sum::<u64>() + SLACK_BYTES;
    if draft.bytes() <= wanted {
        return None;
    }
    let (mut first, mut moved, mut cut_short) = (live.len(), 0, false);
    while first as u64 * REGION_BYTES > wanted / 2 {
        moved += live[first - 1];
        if moved > STEP_BYTES_MAX {
            cut_short = true;
            break;
        }
        first -= 1;
    }
    Some((RegionIndex(u32::try_from(first).ok()?), cut_short))
}

impl Tree {
    /// Whether dead space waits for another flush to be given back, even where nothing else has changed.
    pub fn is_untidy(&self) -> bool {
        // Whoever flushes now will know.
        self.flushing.try_lock().is_some_and(|flushing| flushing.behind)
    }
}

/// Moves all objects of the maps that lie where `must_move` says; ids stay.
fn relocate(
    roots: &mut Roots,
    frozen: &Frozen,
    shared: &Shared,
    must_move: impl Fn(Place) -> bool,
) -> Result<(), TreeError> {
    // A snapshot also ends the filling of regions, so that they can be emptied.
    let source = ImageSource::new(&shared.store, &frozen.draft.snapshot()?);
    for block in frozen.base.outer() {
        let Some(Some(root)) = roots.get(&block.number).copied() else { continue };
        let map = Map::new(&block.keys, &source, &shared.nodes);
        let mut ledger = Ledger::new(frozen.draft.clone(), Stream::Cleaning);
        let moved: Result<Root, _> = map.relocate(root, &must_move, &mut ledger);
        match moved {
            Ok(root) => {
                ledger.settle();
                roots.insert(block.number, Some(root));
            }
            Err(error) => {
                ledger.undo();
                return Err(TreeError::in_block(block.number, error));
            }
        }
    }
    Ok(())
}
