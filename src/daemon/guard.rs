//! What is equal by id and place is skipped when versions are compared. That is only sound where both images show the
//! same bytes at that place: a forged version could keep an old root and put garbage below it.

use super::error::EngineError;
use crate::base::{BlockNumber, RegionIndex};
use crate::image::{Image, Store};
use crate::map::{Descend, MapError, Visit};
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;
use crate::tree::verify::open_changed;
use crate::tree::version::Version;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const COMPARED_BYTES: usize = 64 << 10;

/// The regions in which `new` does not begin with the bytes that `old` shows there.
pub fn diverging(store: &Arc<Store>, old: &Image, new: &Image) -> Result<BTreeSet<RegionIndex>, EngineError> {
    let mut diverging = BTreeSet::new();
    for (index, region) in old.iter() {
        let other = if index.0 < new.regions() { Some(new.region(index)) } else { None };
        let same = match other {
            _ if region.live == 0 || region.fill == 0 => true,
            Some(other) if other.slot == region.slot && other.fill >= region.fill => true,
            Some(other) if other.fill < region.fill => false,
            Some(_) => same_bytes(store, old, new, index, region.fill)?,
            None => false,
        };
        if !same {
            diverging.insert(index);
        }
    }
    Ok(diverging)
}

fn same_bytes(
    store: &Arc<Store>,
    old: &Image,
    new: &Image,
    index: RegionIndex,
    fill: u32,
) -> Result<bool, EngineError> {
    let (mut one, mut other) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut done = 0;
    while done < fill as usize {
        let count = COMPARED_BYTES.min(fill as usize - done);
        let offset = index.start() + done as u64;
        store.read(old, offset, &mut one[..count])?;
        store.read(new, offset, &mut other[..count])?;
        if one[..count] != other[..count] {
            return Ok(false);
        }
        done += count;
    }
    Ok(true)
}

/// Opens every node of a block's map, and every chunk that lies in one of `regions`.
pub fn open_all(
    block: BlockNumber,
    version: &Version<'_>,
    image_bytes: u64,
    regions: &BTreeSet<RegionIndex>,
) -> Result<(), String> {
    let unopened = |error: &dyn std::fmt::Display| format!("it does not open: {error}");
    open_changed(block, None, version, image_bytes).map_err(|error| unopened(&error))?;
    let mut data_ids = HashMap::new();
    let mut bad = None;
    let walked = version.map.walk::<MapError>(version.root.as_ref(), &mut |visit| {
        let Visit::Entry(entry) = visit else { return Ok(Descend::Yes) };
        match (Key::decode(&entry.key), entry.place) {
            (Ok(Key::Inode(inode)), _) => {
                if let Ok(record) = InodeRecord::decode(&entry.value) {
                    data_ids.insert(inode, record.data_id);
                }
            }
            (Ok(Key::Chunk(inode, index)), Some(place))
                if regions.contains(&RegionIndex::of(place.offset)) =>
            {
                let id = <[u8; 32]>::try_from(entry.value.as_ref()).map(crate::base::Id);
                let data_id = data_ids.get(&inode).copied().unwrap_or(inode.0);
                let sealed = version.source.fetch(place)?;
                if !id.is_ok_and(|id| version.keys.open_chunk(data_id, index, &id, &sealed).is_ok()) {
                    bad = Some(place);
                }
            }
            _ => {}
        }
        Ok(Descend::Yes)
    });
    walked.map_err(|error| unopened(&error))?;
    match bad {
        Some(place) => Err(format!("it does not open: the chunk at {}", place.offset)),
        None => Ok(()),
    }
}
