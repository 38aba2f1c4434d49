//! For tests: an image in memory that knows which nodes live, keys, and a generator of numbers.
#![allow(clippy::unwrap_used)]

use super::{
    Descend, Edit, Emit, EmitError, Entry, Fetch, FetchError, Map, MapError, NODE_HEAD_BYTES, NodeCache,
    Relocate, Root, Visit,
};
use crate::base::{BlockNumber, DatabaseId, Place};
use crate::crypt::{Scope, SealKeys, Secret};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// What a map should hold.
pub(super) type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<Place>)>;

/// An image that only grows. The places of its living nodes are kept by what the map says.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) bytes: RefCell<Vec<u8>>,
    pub(super) live: RefCell<BTreeSet<Place>>,
    /// How many nodes it still takes; `None` is any number.
    pub(super) room: Cell<Option<usize>>,
    pub(super) emitted: Cell<usize>,
    pub(super) fetched: Cell<usize>,
}

impl Fetch for Memory {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        self.fetched.set(self.fetched.get() + 1);
        let start = usize::try_from(place.offset).unwrap();
        let bytes = self.bytes.borrow();
        let found = bytes.get(start..start + place.length as usize).ok_or(FetchError::OutOfRange(place))?;
        Ok(found.to_vec())
    }

    fn fetch_head(&self, place: Place, head: &mut [u8; NODE_HEAD_BYTES]) -> Result<(), FetchError> {
        let start = usize::try_from(place.offset).unwrap();
        let bytes = self.bytes.borrow();
        *head =
            *bytes.get(start..).and_then(|rest| rest.first_chunk()).ok_or(FetchError::OutOfRange(place))?;
        Ok(())
    }
}

/// The writing end of a memory.
pub(super) struct Sink<'m>(pub(super) &'m Memory);

impl Memory {
    pub(super) fn append(&self, sealed: &[u8]) -> Place {
        let mut bytes = self.bytes.borrow_mut();
        let place = Place { offset: bytes.len() as u64, length: u32::try_from(sealed.len()).unwrap() };
        bytes.extend_from_slice(sealed);
        place
    }
}

impl Emit for Sink<'_> {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        if let Some(room) = self.0.room.get() {
            self.0.room.set(Some(room.checked_sub(1).ok_or(EmitError::NoSpace)?));
        }
        self.0.emitted.set(self.0.emitted.get() + sealed.len());
        let place = self.0.append(sealed);
        self.0.live.borrow_mut().insert(place);
        Ok(place)
    }

    fn free(&mut self, place: Place) {
        assert!(self.0.live.borrow_mut().remove(&place), "{place:?} was freed twice, or never lived");
    }
}

impl Relocate for Sink<'_> {
    fn carry(&mut self, from: Place) -> Result<Place, MapError> {
        Ok(Place { offset: from.offset + (1 << 40), ..from })
    }
}

pub(super) fn keys() -> SealKeys {
    let scope = Scope { database: DatabaseId([1; 32]), block: BlockNumber(3), epoch: 0 };
    SealKeys::new(&Secret::new([9; 32]), scope)
}

/// SplitMix64: enough for tests, and every failure has its seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// The edits that make a map out of nothing.
pub(super) fn edits_of(model: &Model) -> Vec<Edit> {
    let edit = |(key, (value, place)): (&Vec<u8>, &(Vec<u8>, Option<Place>))| Edit {
        key: key.as_slice().into(),
        change: Some((value.as_slice().into(), *place)),
    };
    model.iter().map(edit).collect()
}

pub(super) fn entries_of(model: &Model) -> Vec<Entry> {
    let entry = |(key, (value, place)): (&Vec<u8>, &(Vec<u8>, Option<Place>))| Entry {
        key: key.as_slice().into(),
        value: value.as_slice().into(),
        place: *place,
    };
    model.iter().map(entry).collect()
}

/// Everything that a walk shows.
pub(super) fn walked(map: &Map<'_>, root: Option<&Root>) -> Result<(BTreeSet<Place>, Vec<Entry>), MapError> {
    let (mut places, mut entries) = (BTreeSet::new(), Vec::new());
    map.walk::<MapError>(root, &mut |visit| {
        match visit {
            Visit::Node { place, .. } => assert!(places.insert(place), "a place twice"),
            Visit::Entry(entry) => entries.push(entry.clone()),
        }
        Ok(Descend::Yes)
    })?;
    Ok((places, entries))
}

/// A map of `model` in an image of its own.
pub(super) fn built(keys: &SealKeys, model: &Model) -> (Memory, Option<Root>) {
    let (memory, cache) = (Memory::default(), NodeCache::new(0));
    let root = Map::new(keys, &memory, &cache).apply(None, &edits_of(model), &mut Sink(&memory)).unwrap();
    (memory, root)
}
