//! Carries one block's map from one image into another: what both show from the same slot stays where it is, all
//! else is copied as it is sealed.

use super::error::EngineError;
use crate::base::{Place, RegionIndex};
use crate::crypt::SealKeys;
use crate::image::{Draft, Image, Store, Stream};
use crate::map::{Map, NodeCache, Root};
use crate::tree::{DraftSource, ImageSource};
use std::sync::Arc;

/// Whether a place shows the same bytes in both images because they share its slot.
pub fn same_bytes(one: &Image, other: &Image, place: Place) -> bool {
    let index = RegionIndex::of(place.offset);
    if index.0 >= one.regions() || index.0 >= other.regions() {
        return false;
    }
    let (one, other) = (one.region(index), other.region(index));
    let end = place.offset - index.start() + u64::from(place.length);
    one.slot.is_some() && one.slot == other.slot && end <= u64::from(one.fill.min(other.fill))
}

/// Whether little else is alive in the region of a place: what lies there had better move.
pub fn is_sparse(draft: &Draft, place: Place) -> bool {
    let index = RegionIndex::of(place.offset);
    let region = draft.region(index);
    !draft.is_open(index) && u64::from(region.live) * 2 < u64::from(region.fill)
}

/// Makes `root`, which lies in `from`, openable in the draft; returns it with its new place.
pub fn graft(
    store: &Arc<Store>,
    keys: &SealKeys,
    nodes: &NodeCache,
    from: &Image,
    root: Root,
    draft: &Arc<Draft>,
) -> Result<Root, EngineError> {
    let target = draft.snapshot()?;
    let source = ImageSource::new(store, from);
    let map = Map::new(keys, &source, nodes);
    let mut sink = DraftSource::copying(draft.clone(), Stream::Fresh, source.clone());
    Ok(map.relocate(root, &|place| !same_bytes(from, &target, place), &mut sink)?)
}
