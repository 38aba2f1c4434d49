//! Carries one block's map from one image into another: what both show from the same slot stays where it is, all
//! else is copied as it is sealed.

use super::error::EngineError;
use crate::crypt::seal::SealKeys;
use crate::image::{Draft, Image, Store, Stream};
use crate::map::{Map, NodeCache, Root};
use crate::tree::{DraftSource, ImageSource};
use std::sync::Arc;

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
    Ok(map.relocate(root, &|place| !from.shares(&target, place), &mut sink)?)
}
