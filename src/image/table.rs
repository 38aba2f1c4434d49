//! The region table of an image: eight bytes a region, in leaves that versions share.

use super::slots::{HEAD_SLOT, Run, Slots};
use super::version::Region;
use crate::base::{REGION_BYTES, RegionIndex, SlotIndex};
use std::sync::{Arc, OnceLock};

/// Regions in one leaf: half a GiB of image in one page of table.
pub(super) const LEAF_REGIONS: u32 = 512;
/// Bytes of a leaf on disk.
pub(super) const LEAF_BYTES: u32 = LEAF_REGIONS * 8;

const FILL_BITS: u32 = 21;
const LIVE_BITS: u32 = 21;
const _: () = assert!(1 << FILL_BITS > REGION_BYTES && 1 << LIVE_BITS > REGION_BYTES);
const _: () = assert!(FILL_BITS + LIVE_BITS + 22 == 64, "slot numbers have the 22 bits that are left");

fn pack(region: Region) -> u64 {
    let slot = u64::from(region.slot.unwrap_or(HEAD_SLOT).0);
    slot << (FILL_BITS + LIVE_BITS) | u64::from(region.fill) << LIVE_BITS | u64::from(region.live)
}

fn unpack(entry: u64) -> Region {
    let slot = SlotIndex((entry >> (FILL_BITS + LIVE_BITS)) as u32);
    Region {
        slot: (slot != HEAD_SLOT).then_some(slot),
        fill: (entry >> LIVE_BITS) as u32 & ((1 << FILL_BITS) - 1),
        live: entry as u32 & ((1 << LIVE_BITS) - 1),
    }
}

/// The entries of 512 neighbouring regions; holds a reference to each slot that it names.
pub(super) struct Leaf {
    slots: Arc<Slots>,
    entries: [u64; LEAF_REGIONS as usize],
    /// Where it lies on disk, once a commit has written it.
    pub(super) run: OnceLock<Run>,
}

impl Leaf {
    fn empty(slots: &Arc<Slots>) -> Leaf {
        Leaf { slots: slots.clone(), entries: [0; LEAF_REGIONS as usize], run: OnceLock::new() }
    }

    fn named(&self) -> impl Iterator<Item = (SlotIndex, u32)> {
        self.entries.iter().filter_map(|entry| {
            let region = unpack(*entry);
            Some((region.slot?, region.fill))
        })
    }

    /// One of its regions, by its index in the whole table.
    pub(super) fn region(&self, index: RegionIndex) -> Region {
        unpack(self.entries[(index.0 % LEAF_REGIONS) as usize])
    }

    /// The bytes of the leaf's page.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    /// The leaf that a page holds, with its slots referenced; the reason if no encoder would have written it.
    pub(super) fn decode(
        slots: &Arc<Slots>,
        bytes: &[u8],
        file_bytes: u64,
        run: Run,
    ) -> Result<Leaf, String> {
        let mut leaf = Leaf::empty(slots);
        if bytes.len() != LEAF_BYTES as usize {
            return Err("a table block has the wrong length".to_owned());
        }
        for (entry, bytes) in leaf.entries.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        }
        let plausible = leaf.entries.iter().all(|entry| unpack(*entry).plausible(file_bytes));
        let named: Vec<_> = leaf.named().collect();
        let adopted = if plausible {
            slots.adopt(&named).map_err(|error| error.to_string())
        } else {
            Err(String::new())
        };
        if let Err(reason) = adopted {
            // Dropping a leaf gives back references, and this one got none.
            leaf.entries = [0; LEAF_REGIONS as usize];
            return Err(format!("a table block names impossible slots {reason}"));
        }
        leaf.run = OnceLock::from(run);
        Ok(leaf)
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Leaf {
        self.slots.refer(self.named());
        Leaf { slots: self.slots.clone(), entries: self.entries, run: OnceLock::new() }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.slots.release(self.named().map(|(slot, _)| slot));
    }
}

/// The whole table. Cloning shares all leaves; changing an entry copies its leaf if it is shared.
#[derive(Clone)]
pub(super) struct Table {
    slots: Arc<Slots>,
    regions: u32,
    leaves: Vec<Arc<Leaf>>,
}

impl Table {
    /// A table of no regions.
    pub(super) fn empty(slots: &Arc<Slots>) -> Table {
        Table { slots: slots.clone(), regions: 0, leaves: Vec::new() }
    }

    /// A table of leaves read from disk; the reason if entries stand behind the last region.
    pub(super) fn from_leaves(
        slots: &Arc<Slots>,
        regions: u32,
        leaves: Vec<Arc<Leaf>>,
    ) -> Result<Table, String> {
        let rest = (regions % LEAF_REGIONS) as usize;
        let tidy = leaves
            .last()
            .is_none_or(|last| rest == 0 || last.entries[rest..].iter().all(|entry| *entry == 0));
        if leaves.len() != regions.div_ceil(LEAF_REGIONS) as usize || !tidy {
            return Err("a table does not end where its image does".to_owned());
        }
        Ok(Table { slots: slots.clone(), regions, leaves })
    }

    /// Whether the table belongs to the store with these slots.
    pub(super) fn belongs_to(&self, slots: &Arc<Slots>) -> bool {
        Arc::ptr_eq(&self.slots, slots)
    }

    /// How many regions it has.
    pub(super) fn regions(&self) -> u32 {
        self.regions
    }

    /// The leaves, in order.
    pub(super) fn leaves(&self) -> &[Arc<Leaf>] {
        &self.leaves
    }

    /// One region; behind the end all are empty.
    pub(super) fn get(&self, index: RegionIndex) -> Region {
        let leaf = self.leaves.get((index.0 / LEAF_REGIONS) as usize);
        leaf.map_or(Region::EMPTY, |leaf| unpack(leaf.entries[(index.0 % LEAF_REGIONS) as usize]))
    }

    /// The leaf that holds a region: while it is kept, the region's slot stays what it is.
    pub(super) fn leaf(&self, index: RegionIndex) -> Option<&Arc<Leaf>> {
        self.leaves.get((index.0 / LEAF_REGIONS) as usize)
    }

    /// Replaces one region; it takes its own reference to the slot.
    pub(super) fn set(&mut self, index: RegionIndex, region: Region) {
        debug_assert!(index.0 < self.regions);
        let entry = pack(region);
        let shared = &mut self.leaves[(index.0 / LEAF_REGIONS) as usize];
        let at = (index.0 % LEAF_REGIONS) as usize;
        if shared.entries[at] == entry {
            return;
        }
        let leaf = Arc::make_mut(shared);
        let old = unpack(std::mem::replace(&mut leaf.entries[at], entry));
        // The copy on disk, if there is one, says something else from now on.
        leaf.run = OnceLock::new();
        self.slots.refer(region.slot.map(|slot| (slot, region.fill)).into_iter());
        self.slots.release(old.slot.into_iter());
    }

    /// Cuts off or adds (empty) regions at the end.
    pub(super) fn resize(&mut self, regions: u32) {
        for index in (regions..self.regions).take_while(|index| index % LEAF_REGIONS != 0) {
            self.set(RegionIndex(index), Region::EMPTY);
        }
        let slots = &self.slots;
        self.leaves.resize_with(regions.div_ceil(LEAF_REGIONS) as usize, || Arc::new(Leaf::empty(slots)));
        self.regions = regions;
    }

    /// The regions in which two tables differ in any way, in order; leaves that both share cost nothing.
    pub(super) fn differing<'a>(
        &'a self,
        other: &'a Table,
    ) -> impl Iterator<Item = (RegionIndex, Region, Region)> + 'a {
        let count = self.leaves.len().max(other.leaves.len());
        (0..count as u32).flat_map(move |number| {
            let same = match (self.leaves.get(number as usize), other.leaves.get(number as usize)) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            let regions = if same { 0 } else { LEAF_REGIONS };
            (0..regions).filter_map(move |at| {
                let index = RegionIndex(number * LEAF_REGIONS + at);
                let (a, b) = (self.get(index), other.get(index));
                (a != b).then_some((index, a, b))
            })
        })
    }

    /// All regions, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RegionIndex, Region)> + '_ {
        (0..self.regions).map(|index| (RegionIndex(index), self.get(RegionIndex(index))))
    }
}

impl Region {
    /// Whether a store of `file_bytes` can hold it.
    fn plausible(self, file_bytes: u64) -> bool {
        let sane = u64::from(self.fill) <= REGION_BYTES && u64::from(self.live) <= REGION_BYTES;
        match self.slot {
            None => self.fill == 0 && self.live == 0,
            Some(slot) => sane && u64::from(slot.0) * REGION_BYTES + u64::from(self.fill) <= file_bytes,
        }
    }
}
