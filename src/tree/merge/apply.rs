//! Putting a merge's result on `b`'s image.

use super::{MergeError, Merged, Source, Version, Which};
use crate::base::Place;
use crate::map::{Edit, Emit, Fetch, MapError, Root};
use crate::tree::source::DraftSource;
use std::collections::BTreeMap;

/// A growing image that may let one object be pointed to twice.
pub trait Target: Emit {
    /// Counts one more pointer to the object at `place` as live bytes of its region, so that it outlives the other.
    /// `false` if the region's count has no room for it: the object is then copied.
    fn retain(&mut self, place: Place) -> bool {
        let _ = place;
        false
    }
}

impl Target for DraftSource {}

/// Applies `merged` to `b`: sealed chunks of the other side are copied as they are, those of `b`'s own image are
/// pointed to once more, or copied if they cannot be. Frees the chunks that the result no longer points to.
/// Returns the result's root.
pub fn apply_merged(
    b: &Version<'_>,
    merged: &Merged,
    fetch_a: &dyn Fetch,
    target: &mut dyn Target,
) -> Result<Option<Root>, MergeError> {
    let mut dropped = dropped_places(b, merged)?;
    let mut edits = Vec::with_capacity(merged.edits_on_b.len());
    for edit in &merged.edits_on_b {
        let change = match &edit.change {
            None => None,
            Some((value, None)) => Some((value.clone(), None)),
            Some((value, Some(source))) => {
                Some((value.clone(), Some(settle(*source, b, fetch_a, &mut dropped, target)?)))
            }
        };
        edits.push(Edit { key: edit.key.clone(), change });
    }
    for (place, count) in dropped {
        for _ in 0..count {
            target.free(place);
        }
    }
    Ok(b.map.apply(b.root, &edits, target)?)
}

/// The objects to which keys of `b` point that the result changes, with how many do.
fn dropped_places(b: &Version<'_>, merged: &Merged) -> Result<BTreeMap<Place, u32>, MergeError> {
    let mut dropped = BTreeMap::new();
    for edit in &merged.edits_on_b {
        let place = b.map.get(b.root.as_ref(), &edit.key)?.and_then(|entry| entry.place);
        if let Some(place) = place {
            *dropped.entry(place).or_insert(0) += 1;
        }
    }
    Ok(dropped)
}

/// Where a chunk lies in the result's image.
fn settle(
    source: Source,
    b: &Version<'_>,
    fetch_a: &dyn Fetch,
    dropped: &mut BTreeMap<Place, u32>,
    target: &mut dyn Target,
) -> Result<Place, MergeError> {
    let fetch = match source.which {
        Which::A => fetch_a,
        Which::B => b.source,
    };
    if source.which == Which::B {
        // The pointer moves from one key to another: nothing to count.
        if let Some(count) = dropped.get_mut(&source.place).filter(|count| **count > 0) {
            *count -= 1;
            return Ok(source.place);
        }
        if target.retain(source.place) {
            return Ok(source.place);
        }
    }
    let sealed = fetch.fetch(source.place).map_err(MapError::from)?;
    Ok(target.emit(&sealed).map_err(MapError::from)?)
}
