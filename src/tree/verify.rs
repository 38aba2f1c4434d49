//! Opening what a new version changed, before it is adopted.

pub use super::structure::Stopped;
use super::structure::check_structure;
use super::version::Version;
use crate::base::{BlockNumber, Place, RegionIndex};
use crate::map::{Changed, MapError, Which};
use std::collections::BTreeMap;

/// Sum of live bytes that a region gains and loses from one state to the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LiveDelta(BTreeMap<RegionIndex, i64>);

impl LiveDelta {
    /// Counts the object at `place` in.
    pub fn add(&mut self, place: Place) {
        *self.0.entry(RegionIndex::of(place.offset)).or_default() += i64::from(place.length);
    }

    /// Counts it out.
    pub fn remove(&mut self, place: Place) {
        *self.0.entry(RegionIndex::of(place.offset)).or_default() -= i64::from(place.length);
    }

    /// Adds the changes of another block.
    pub fn join(&mut self, other: &LiveDelta) {
        for (region, bytes) in &other.0 {
            *self.0.entry(*region).or_default() += bytes;
        }
    }

    /// By how much the live bytes of each region change.
    pub fn regions(&self) -> &BTreeMap<RegionIndex, i64> {
        &self.0
    }

    /// Bytes gained by each region; what [`crate::image::Image::with_live_since`] takes.
    pub fn by_region(&self) -> &BTreeMap<RegionIndex, i64> {
        &self.0
    }
}

/// Opens every node that `new` has and `old` has not, from the bytes of the new image, and checks that the block is
/// sound given that `old` is. With `old` = `None` everything is opened. Chunks are not: each is opened when read.
/// Returns how live bytes change. An error means that the version's block is refused, or cannot be judged yet when
/// it is an object that is not here.
pub fn open_changed(
    block: BlockNumber,
    old: Option<&Version<'_>>,
    new: &Version<'_>,
    image_bytes: u64,
) -> Result<LiveDelta, Stopped> {
    let live = live_delta(old, new)?;
    check_structure(block, old, new, image_bytes, &mut |flaw| Err(flaw.into()))?;
    Ok(live)
}

/// How live bytes change from `old`, or from nothing, to `new`: of nodes, and of the objects that entries point to.
pub fn live_delta(old: Option<&Version<'_>>, new: &Version<'_>) -> Result<LiveDelta, MapError> {
    let mut live = LiveDelta::default();
    let (map, root) = old.map_or((new.map, None), |old| (old.map, old.root));
    map.nodes_changed_with(root.as_ref(), new.map, new.root.as_ref(), &mut |changed: Changed<'_>| {
        let count = match changed.which {
            Which::Old => LiveDelta::remove,
            Which::New => LiveDelta::add,
        };
        count(&mut live, changed.root.place);
        if changed.root.level == 0 {
            changed.entries.iter().filter_map(|entry| entry.place).for_each(|place| count(&mut live, place));
        }
        Ok::<(), MapError>(())
    })?;
    Ok(live)
}
