//! What is equal by id and place is skipped when versions are compared. That is only sound where both images show the
//! same bytes at that place: a forged version could keep an old root and put garbage below it.

use super::absent::Unfit;
use super::error::EngineError;
use crate::base::{BlockNumber, Inode, Place, RegionIndex};
use crate::image::{Image, Store, StoreError, UNIT_BYTES};
use crate::map::{Descend, Entry, FetchError, MapError, Visit, Which};
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;
use crate::tree::value::chunk_id;
use crate::tree::verify::open_changed;
use crate::tree::version::Version;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Regions in which an image does not go on from an older one, as far as that can be told.
#[derive(Default)]
pub struct Diverging {
    /// Where bytes that are here would be given up for others, or for none.
    pub known: BTreeSet<RegionIndex>,
    /// Where the older one has bytes that are not here, so that nobody can compare them: no node, and nothing that was ever
    /// opened.
    pub unseen: BTreeSet<RegionIndex>,
}

/// The regions in which `new` does not begin with the bytes that `old` shows there.
pub fn diverging(store: &Arc<Store>, old: &Image, new: &Image) -> Result<Diverging, EngineError> {
    let mut diverging = Diverging::default();
    for (index, region) in old.iter() {
        let other = if index.0 < new.regions() { Some(new.region(index)) } else { None };
        let likeness = match other {
            _ if region.live == 0 || region.fill == 0 => Likeness::Same,
            Some(other) if other.slot == region.slot && other.fill >= region.fill => Likeness::Same,
            Some(other) if other.fill < region.fill => Likeness::Different,
            Some(_) => likeness(store, old, new, index, region.fill)?,
            None => Likeness::Different,
        };
        match likeness {
            Likeness::Same => {}
            Likeness::Unseen => drop(diverging.unseen.insert(index)),
            Likeness::Different => drop(diverging.known.insert(index)),
        }
    }
    Ok(diverging)
}

enum Likeness {
    Same,
    /// All that is here is the same.
    Unseen,
    Different,
}

/// Compares what two images show of a region, one unit of presence after the other.
fn likeness(
    store: &Arc<Store>,
    old: &Image,
    new: &Image,
    index: RegionIndex,
    fill: u32,
) -> Result<Likeness, EngineError> {
    let (mut one, mut other) = ([0; UNIT_BYTES as usize], [0; UNIT_BYTES as usize]);
    let mut likeness = Likeness::Same;
    for start in (0..fill).step_by(UNIT_BYTES as usize) {
        let count = (fill - start).min(UNIT_BYTES as u32);
        let (one, other) = (&mut one[..count as usize], &mut other[..count as usize]);
        let offset = index.start() + u64::from(start);
        match store.read(old, offset, one) {
            Err(StoreError::NotHere { .. }) => {
                likeness = Likeness::Unseen;
                continue;
            }
            read => read?,
        }
        match store.read(new, offset, other) {
            // What is here is not given up for what is not, unopened.
            Err(StoreError::NotHere { .. }) => return Ok(Likeness::Different),
            read => read?,
        }
        if one != other {
            return Ok(Likeness::Different);
        }
    }
    Ok(likeness)
}

/// Opens every node of a block's map, and every chunk that lies `where_to_look`. Chunks that are not here are `wanted`
/// first, or are left to who reads them.
pub fn open_all(
    block: BlockNumber,
    version: &Version<'_>,
    image_bytes: u64,
    where_to_look: &dyn Fn(Place) -> bool,
    wanted: bool,
) -> Result<(), Unfit> {
    open_changed(block, None, version, image_bytes).map_err(Unfit::stopped)?;
    let mut chunks = Chunks::of(version, wanted);
    let mut opened = Ok(());
    let walked = version.map.walk::<MapError>(version.root.as_ref(), &mut |visit| {
        if let Visit::Entry(entry) = visit
            && opened.is_ok()
        {
            opened = chunks.open(entry, where_to_look);
        }
        Ok(if opened.is_ok() { Descend::Yes } else { Descend::Skip })
    });
    walked.map_err(Unfit::unopened)?;
    opened
}

/// Opens every chunk that `new` has in a node of its own.
pub fn open_new_chunks(old: &Version<'_>, new: &Version<'_>) -> Result<(), Unfit> {
    let mut found = Vec::new();
    let (from, to) = (old.root.as_ref(), new.root.as_ref());
    let visited = old.map.nodes_changed_with::<MapError>(from, new.map, to, &mut |changed| {
        if changed.which == Which::New && changed.root.level == 0 {
            found.extend(changed.entries.iter().filter(|entry| entry.place.is_some()).cloned());
        }
        Ok(())
    });
    visited.map_err(Unfit::unopened)?;
    let mut chunks = Chunks::of(new, true);
    found.iter().try_for_each(|entry| chunks.open(entry, &|_| true))
}

/// Opens the chunks of one version.
struct Chunks<'v> {
    version: &'v Version<'v>,
    /// Under what the chunks of the last inode are sealed.
    last: Option<(Inode, u64)>,
    /// Whether one that is not here has to be fetched.
    wanted: bool,
}

impl<'v> Chunks<'v> {
    fn of(version: &'v Version<'v>, wanted: bool) -> Chunks<'v> {
        Chunks { version, last: None, wanted }
    }

    fn open(&mut self, entry: &Entry, where_to_look: &dyn Fn(Place) -> bool) -> Result<(), Unfit> {
        let Some(place) = entry.place.filter(|place| where_to_look(*place)) else { return Ok(()) };
        let Ok(Key::Chunk(inode, index)) = Key::decode(&entry.key) else { return Ok(()) };
        let bad = || Unfit::Refused(format!("it does not open: the chunk at {}", place.offset));
        let data_id = self.data_id(inode).ok_or_else(bad)?;
        let sealed = match self.version.source.fetch(place) {
            Err(FetchError::Absent(_)) if self.wanted => return Err(Unfit::Absent(place)),
            Err(FetchError::Absent(_)) => return Ok(()),
            sealed => sealed.map_err(|_| bad())?,
        };
        let id = chunk_id(&entry.value).map_err(|_| bad())?;
        self.version.keys.open_chunk(data_id, index, &id, &sealed).map(drop).map_err(|_| bad())
    }

    fn data_id(&mut self, inode: Inode) -> Option<u64> {
        if let Some((_, data_id)) = self.last.filter(|(last, _)| *last == inode) {
            return Some(data_id);
        }
        let key = Key::Inode(inode).encode();
        let entry = self.version.map.get(self.version.root.as_ref(), &key).ok()??;
        let data_id = InodeRecord::decode(&entry.value).ok()?.data_id;
        self.last = Some((inode, data_id));
        Some(data_id)
    }
}
