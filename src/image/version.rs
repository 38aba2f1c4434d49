//! An image: the linear byte space of one version.

use super::slots::{Run, Slots};
use super::store::Store;
use super::table::Table;
use crate::base::{REGION_BYTES, RegionIndex, SlotIndex};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// One region of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The slot that holds its bytes; without one it reads as zero.
    pub slot: Option<SlotIndex>,
    /// How many bytes are written; all behind them reads as zero.
    pub fill: u32,
    /// How many of them belong to objects that the version still uses.
    pub live: u32,
}

impl Region {
    /// A region of zeros.
    pub const EMPTY: Region = Region { slot: None, fill: 0, live: 0 };

    /// Written bytes that no object uses any more.
    pub fn dead(self) -> u32 {
        self.fill.saturating_sub(self.live)
    }
}

/// An immutable region table. Cloning is cheap; while any clone lives, its bytes stay what they are.
#[derive(Clone)]
pub struct Image(Arc<Inner>);

struct Inner {
    table: Table,
    hints: Hints,
    /// Where the list of its leaves lies on disk, once a commit has written it.
    index: OnceLock<Run>,
}

/// Where a draft had left off, per stream; not kept on disk.
pub(super) type Hints = [Option<RegionIndex>; 2];

impl Image {
    pub(super) fn new(table: Table, hints: Hints) -> Image {
        Image::loaded(table, hints, OnceLock::new())
    }

    /// An image whose list of leaves may lie on disk already.
    pub(super) fn loaded(table: Table, hints: Hints, index: OnceLock<Run>) -> Image {
        Image(Arc::new(Inner { table, hints, index }))
    }

    /// An image of no regions.
    pub fn empty(store: &Store) -> Image {
        Image::none(store.slots())
    }

    pub(super) fn none(slots: &Arc<Slots>) -> Image {
        Image::new(Table::empty(slots), Hints::default())
    }

    pub(super) fn table(&self) -> &Table {
        &self.0.table
    }

    pub(super) fn hints(&self) -> Hints {
        self.0.hints
    }

    pub(super) fn index(&self) -> &OnceLock<Run> {
        &self.0.index
    }

    /// How many regions it has.
    pub fn regions(&self) -> u32 {
        self.0.table.regions()
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.regions()) * REGION_BYTES
    }

    /// One region; behind the end all are empty.
    pub fn region(&self, index: RegionIndex) -> Region {
        self.0.table.get(index)
    }

    /// All regions, in order.
    pub fn iter(&self) -> impl Iterator<Item = (RegionIndex, Region)> + '_ {
        self.0.table.iter()
    }

    /// Bytes of objects in use.
    pub fn live_bytes(&self) -> u64 {
        self.iter().map(|(_, region)| u64::from(region.live)).sum()
    }

    /// Bytes written, in use or not.
    pub fn filled_bytes(&self) -> u64 {
        self.iter().map(|(_, region)| u64::from(region.fill)).sum()
    }

    /// Whether both are one image, not merely equal.
    pub fn same(&self, other: &Image) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The image with other counts of live bytes in the regions named; the rest keep theirs.
    pub fn with_live(&self, live: &BTreeMap<RegionIndex, u32>) -> Image {
        let mut table = self.0.table.clone();
        for (index, live) in live {
            set_live(&mut table, *index, u64::from(*live));
        }
        Image::new(table, self.0.hints)
    }

    /// The image with the live bytes of an older one, changed by `delta`: for a version that was received, after the
    /// objects that only one of the two uses were counted. A region named by neither and shared with the older image
    /// keeps the older one's count.
    pub fn with_live_since(&self, old: &Image, delta: &BTreeMap<RegionIndex, i64>) -> Image {
        let mut table = self.0.table.clone();
        let differing: Vec<_> = table.differing(&old.0.table).map(|(index, ..)| index).collect();
        for index in differing.into_iter().chain(delta.keys().copied()) {
            let change = delta.get(&index).copied().unwrap_or(0);
            let live = i64::from(old.region(index).live).saturating_add(change);
            set_live(&mut table, index, u64::try_from(live).unwrap_or(0));
        }
        Image::new(table, self.0.hints)
    }

    /// The byte ranges in which this image may differ from `base`, ascending, at most one a region: what was appended to
    /// a shared slot, or all of a region that has another slot.
    pub fn changed_since(&self, base: &Image) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for (index, new, old) in self.0.table.differing(&base.0.table) {
            let changed = changed_part(new, old);
            if index.0 < self.regions() && !changed.is_empty() {
                ranges.push(index.start() + u64::from(changed.start)..index.start() + u64::from(changed.end));
            }
        }
        ranges
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} regions)", self.regions())
    }
}

/// The part of a region whose bytes may differ: slots only ever grow, so one slot differs behind the shorter fill alone.
pub(super) fn changed_part(a: Region, b: Region) -> Range<u32> {
    let shared = if a.slot == b.slot { a.fill.min(b.fill) } else { 0 };
    shared..a.fill.max(b.fill)
}

fn set_live(table: &mut Table, index: RegionIndex, live: u64) {
    let region = table.get(index);
    if index.0 < table.regions() && region.slot.is_some() {
        // Counts come from maps that others wrote: two entries may name one object. More than is written cannot live.
        table.set(index, Region { live: live.min(u64::from(region.fill)) as u32, ..region });
    }
}
