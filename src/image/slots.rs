//! Which slots and pages of the store's file are in use, and by how many.
//!
//! Everything that names a slot holds a reference that it gives back when dropped. A slot without references is *dirty*
//! until its bytes were discarded, then *clean*: only clean slots are handed out, so a new slot reads as zero.
//! Tables and other small blobs lie in *runs* of pages inside slots of their own.

use super::log::RING_SLOTS;
use super::presence::Presence;
use crate::base::{REGION_BYTES, SlotIndex};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Unit in which tables and blobs are kept.
pub(super) const PAGE_BYTES: u64 = 4096;
const PAGES_IN_SLOT: u32 = (REGION_BYTES / PAGE_BYTES) as u32;
/// Slot numbers have 22 bits in a table: 4 TiB of slots.
pub(super) const SLOTS_MAX: u32 = 1 << 22;
/// The head of the file, where the superblocks lie, counts as slot 0; a table says "no slot" with it.
pub(super) const HEAD_SLOT: SlotIndex = SlotIndex(0);

/// The book of one store's slots.
pub(super) struct Slots {
    inner: Mutex<Inner>,
    /// What of the slots is not here.
    pub(super) presence: Presence,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Slot>,
    clean: BTreeSet<u32>,
    dirty: BTreeSet<u32>,
    /// Slots that hold pages, with a bit for each page in use.
    pages: BTreeMap<u32, PageBits>,
}

#[derive(Default, Clone, Copy)]
struct Slot {
    references: u32,
    /// One past the last byte that any image shows.
    high: u32,
    /// Somebody is writing behind `high`.
    claimed: bool,
}

type PageBits = [u64; PAGES_IN_SLOT as usize / 64];

/// What a table says and the slots cannot confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two owners for slot {0}, or none such")]
pub(super) struct Contradiction(u32);

impl Slots {
    /// The book of a file with `count` slots (head included), all but the head free and unknown in content.
    pub(super) fn new(count: u32) -> Arc<Slots> {
        let mut inner = Inner { dirty: (1..count).collect(), ..Inner::default() };
        inner.slots.resize(count.max(1) as usize, Slot::default());
        inner.slots[0].references = 1;
        Arc::new(Slots { inner: Mutex::new(inner), presence: Presence::default() })
    }

    /// Takes the lowest free slot; the flag says that its content must be discarded before use. `None`: all are taken.
    pub(super) fn take(self: &Arc<Slots>) -> Option<(SlotPin, bool)> {
        let (index, dirty) = self.inner.lock().take()?;
        Some((SlotPin { slots: self.clone(), index: SlotIndex(index) }, dirty))
    }

    /// Adds references for table entries, each with the fill that the entry shows.
    pub(super) fn refer(&self, entries: impl Iterator<Item = (SlotIndex, u32)>) {
        let mut inner = self.inner.lock();
        for (slot, fill) in entries {
            let held = &mut inner.slots[slot.0 as usize];
            held.references += 1;
            held.high = held.high.max(fill);
        }
    }

    /// Adds references for entries of a table read from disk: slots must exist and must not hold pages.
    pub(super) fn adopt(&self, entries: &[(SlotIndex, u32)]) -> Result<(), Contradiction> {
        let mut inner = self.inner.lock();
        for (slot, _) in entries {
            if *slot == HEAD_SLOT || slot.0 as usize >= inner.slots.len() || inner.pages.contains_key(&slot.0)
            {
                return Err(Contradiction(slot.0));
            }
        }
        for (slot, fill) in entries {
            inner.dirty.remove(&slot.0);
            let held = &mut inner.slots[slot.0 as usize];
            held.references += 1;
            held.high = held.high.max(*fill);
        }
        Ok(())
    }

    /// Gives references back.
    pub(super) fn release(&self, slots: impl Iterator<Item = SlotIndex>) {
        let mut inner = self.inner.lock();
        for slot in slots {
            if inner.release(slot.0) {
                self.presence.forget(slot.0);
            }
        }
    }

    /// The right to write behind the first `fill` bytes of a slot: given only if no image shows more than these, if they
    /// are here, and to one owner at a time. The caller keeps the slot referenced meanwhile.
    pub(super) fn claim_tail(self: &Arc<Slots>, slot: SlotIndex, fill: u32) -> Option<Tail> {
        let mut inner = self.inner.lock();
        let held = &mut inner.slots[slot.0 as usize];
        if held.claimed || held.high != fill || self.presence.absent(slot) != 0 {
            return None;
        }
        held.claimed = true;
        held.references += 1;
        Some(Tail { pin: SlotPin { slots: self.clone(), index: slot } })
    }

    /// Pages for `bytes` bytes in one run; `None`: no slot is left. They may hold anything.
    pub(super) fn take_pages(self: &Arc<Slots>, bytes: u32, hash: [u8; 32]) -> Option<Run> {
        let count = bytes.div_ceil(PAGE_BYTES as u32);
        debug_assert!(0 < count && count <= PAGES_IN_SLOT);
        let mut inner = self.inner.lock();
        let fitting = inner.pages.iter().find_map(|(slot, bits)| Some((*slot, first_gap(bits, count)?)));
        let (slot, first) = match fitting {
            Some(found) => found,
            None => {
                let (slot, _) = inner.take()?;
                inner.pages.insert(slot, PageBits::default());
                (slot, 0)
            }
        };
        let bits = inner.pages.get_mut(&slot).expect("the slot was found among those with pages");
        set_pages(bits, first, count, true);
        let at = RunRef { page: slot * PAGES_IN_SLOT + first, bytes, hash };
        Some(Run { slots: self.clone(), at })
    }

    /// Marks the pages of a run that a superblock leads to. Each run is adopted once.
    pub(super) fn adopt_run(self: &Arc<Slots>, at: RunRef) -> Result<Run, Contradiction> {
        let (slot, first, count) = at.pages().ok_or(Contradiction(at.page / PAGES_IN_SLOT))?;
        let mut inner = self.inner.lock();
        if slot == HEAD_SLOT.0 || slot as usize >= inner.slots.len() {
            return Err(Contradiction(slot));
        }
        let mut bits = match inner.pages.get(&slot) {
            Some(bits) => *bits,
            None if inner.slots[slot as usize].references == 0 => PageBits::default(),
            None => return Err(Contradiction(slot)),
        };
        if (first..first + count).any(|page| bits[page as usize / 64] >> (page % 64) & 1 == 1) {
            return Err(Contradiction(slot));
        }
        set_pages(&mut bits, first, count, true);
        if inner.pages.insert(slot, bits).is_none() {
            inner.dirty.remove(&slot);
            inner.slots[slot as usize].references = 1;
        }
        Ok(Run { slots: self.clone(), at })
    }

    /// Takes all dirty slots out of circulation, so that their bytes can be discarded.
    pub(super) fn take_dirty(&self) -> Vec<SlotIndex> {
        std::mem::take(&mut self.inner.lock().dirty).into_iter().map(SlotIndex).collect()
    }

    /// Puts slots from [`Slots::take_dirty`] back, clean or not.
    pub(super) fn put_back(&self, slots: &[SlotIndex], clean: bool) {
        let mut inner = self.inner.lock();
        let set = if clean { &mut inner.clean } else { &mut inner.dirty };
        set.extend(slots.iter().map(|slot| slot.0));
    }

    /// Drops the free slots at the end of the file; `cut` is told how many slots remain, while none can be handed out.
    pub(super) fn trim<E>(&self, cut: impl FnOnce(u32) -> Result<(), E>) -> Result<(), E> {
        let mut inner = self.inner.lock();
        let mut count = inner.slots.len() as u32;
        while count > 1 && (inner.clean.contains(&(count - 1)) || inner.dirty.contains(&(count - 1))) {
            count -= 1;
        }
        cut(count)?;
        inner.slots.truncate(count as usize);
        inner.clean.split_off(&count);
        inner.dirty.split_off(&count);
        Ok(())
    }

    /// Whether so much of the file is free that it could be shorter if a ring did not reach up to `highest`.
    pub(super) fn is_roomy(&self, highest: SlotIndex) -> bool {
        let inner = self.inner.lock();
        let below = inner.clean.range(..highest.0).count() + inner.dirty.range(..highest.0).count();
        below > 4 * RING_SLOTS
    }

    /// Takes the free slot that is nearest to the file's head, whatever it holds.
    pub(super) fn take_lowest(self: &Arc<Slots>) -> Option<SlotPin> {
        let mut inner = self.inner.lock();
        let (clean, dirty) = (inner.clean.first().copied(), inner.dirty.first().copied());
        let index = match (clean, dirty) {
            (Some(clean), Some(dirty)) if dirty < clean => inner.take_dirty_slot(dirty),
            (None, Some(dirty)) => inner.take_dirty_slot(dirty),
            _ => inner.take()?.0,
        };
        drop(inner);
        Some(SlotPin { slots: self.clone(), index: SlotIndex(index) })
    }

    /// References for slots that a manifest read from disk gives to the log: they must exist and hold nothing else.
    pub(super) fn adopt_ring(self: &Arc<Slots>, ring: &[SlotIndex]) -> Result<Vec<SlotPin>, Contradiction> {
        let taken = |slot: &&SlotIndex| {
            self.inner.lock().slots.get(slot.0 as usize).is_some_and(|held| held.references > 0)
        };
        if let Some(taken) = ring.iter().find(taken) {
            return Err(Contradiction(taken.0));
        }
        let entries: Vec<(SlotIndex, u32)> = ring.iter().map(|slot| (*slot, REGION_BYTES as u32)).collect();
        let mut sorted = ring.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Contradiction(twice[0].0));
        }
        self.adopt(&entries)?;
        Ok(ring.iter().map(|slot| SlotPin { slots: self.clone(), index: *slot }).collect())
    }

    /// Which slots something refers to.
    pub(super) fn referred(&self) -> Vec<bool> {
        self.inner.lock().slots.iter().map(|slot| slot.references > 0).collect()
    }

    /// One past the last byte that any image shows of a slot.
    pub(super) fn high(&self, slot: SlotIndex) -> u32 {
        self.inner.lock().slots[slot.0 as usize].high
    }

    /// How many slots are in use for regions, in use for tables, and free.
    pub(super) fn counts(&self) -> (u32, u32, u32) {
        let inner = self.inner.lock();
        let tables = inner.pages.len() as u32;
        let used = inner.slots.iter().skip(1).filter(|slot| slot.references > 0).count() as u32;
        (used - tables, tables, inner.slots.len() as u32 - 1 - used)
    }
}

impl Inner {
    fn take_dirty_slot(&mut self, index: u32) -> u32 {
        self.dirty.remove(&index);
        self.slots[index as usize] = Slot { references: 1, high: 0, claimed: false };
        index
    }

    fn take(&mut self) -> Option<(u32, bool)> {
        let (index, dirty) = if let Some(index) = self.clean.pop_first() {
            (index, false)
        } else if let Some(index) = self.dirty.pop_first() {
            (index, true)
        } else if (self.slots.len() as u32) < SLOTS_MAX {
            self.slots.push(Slot::default());
            (self.slots.len() as u32 - 1, false)
        } else {
            return None;
        };
        self.slots[index as usize] = Slot { references: 1, high: 0, claimed: false };
        Some((index, dirty))
    }

    /// Whether that was the last reference.
    fn release(&mut self, index: u32) -> bool {
        let held = &mut self.slots[index as usize];
        held.references -= 1;
        let free = held.references == 0;
        if free {
            *held = Slot::default();
            self.dirty.insert(index);
        }
        free
    }
}

fn first_gap(bits: &PageBits, count: u32) -> Option<u32> {
    let mut free = 0;
    for page in 0..PAGES_IN_SLOT {
        free = if bits[page as usize / 64] >> (page % 64) & 1 == 0 { free + 1 } else { 0 };
        if free == count {
            return Some(page + 1 - count);
        }
    }
    None
}

fn set_pages(bits: &mut PageBits, first: u32, count: u32, used: bool) {
    for page in first..first + count {
        let mask = 1u64 << (page % 64);
        if used {
            bits[page as usize / 64] |= mask;
        } else {
            bits[page as usize / 64] &= !mask;
        }
    }
}

/// One reference to a slot.
pub(super) struct SlotPin {
    slots: Arc<Slots>,
    index: SlotIndex,
}

impl SlotPin {
    /// The slot.
    pub(super) fn index(&self) -> SlotIndex {
        self.index
    }
}

impl Clone for SlotPin {
    fn clone(&self) -> SlotPin {
        self.slots.refer(std::iter::once((self.index, 0)));
        SlotPin { slots: self.slots.clone(), index: self.index }
    }
}

impl Drop for SlotPin {
    fn drop(&mut self) {
        self.slots.release(std::iter::once(self.index));
    }
}

/// The right to write behind what images show of a slot, and a reference to it.
pub(super) struct Tail {
    pin: SlotPin,
}

impl Tail {
    /// The slot with a reference of its own.
    pub(super) fn pin(&self) -> &SlotPin {
        &self.pin
    }

    /// The slot.
    pub(super) fn slot(&self) -> SlotIndex {
        self.pin.index
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.pin.slots.inner.lock().slots[self.pin.index.0 as usize].claimed = false;
    }
}

/// Where a run of pages lies and what it must hash to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RunRef {
    /// First page, counted from the start of the file.
    pub(super) page: u32,
    /// Bytes of the blob.
    pub(super) bytes: u32,
    /// BLAKE3 of the blob.
    pub(super) hash: [u8; 32],
}

impl RunRef {
    /// Where its bytes lie in the file.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.page) * PAGE_BYTES
    }

    /// (slot, first page in it, count), if it is not empty and lies inside one slot.
    fn pages(&self) -> Option<(u32, u32, u32)> {
        let (slot, first) = (self.page / PAGES_IN_SLOT, self.page % PAGES_IN_SLOT);
        let count = u32::try_from(u64::from(self.bytes).div_ceil(PAGE_BYTES)).ok()?;
        (count > 0 && count <= PAGES_IN_SLOT - first).then_some((slot, first, count))
    }
}

/// A run of pages in use; they are free again when it is dropped.
pub(super) struct Run {
    slots: Arc<Slots>,
    at: RunRef,
}

impl Run {
    /// Where it lies.
    pub(super) fn at(&self) -> RunRef {
        self.at
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (slot, first, count) = self.at.pages().expect("a run lies inside one slot");
        let mut inner = self.slots.inner.lock();
        let bits = inner.pages.get_mut(&slot).expect("a run's slot holds pages");
        set_pages(bits, first, count, false);
        if bits.iter().all(|word| *word == 0) {
            inner.pages.remove(&slot);
            inner.release(slot);
        }
    }
}
