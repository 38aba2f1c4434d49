//! Bytes of slots: taking, reading, writing them and giving them back.

use super::error::StoreError;
use super::presence::bytes_of;
use super::slots::SlotPin;
use super::store::Store;
use crate::base::{REGION_BYTES, SlotIndex};

impl Store {
    /// A free slot that reads as zero.
    pub(super) fn take_slot(&self) -> Result<SlotPin, StoreError> {
        let full = || StoreError::Full { file: self.file.clone(), action: "for another slot of" };
        let (pin, dirty) = self.slots.take().ok_or_else(full)?;
        if dirty {
            self.discard_tail(pin.index(), 0)?;
        }
        Ok(pin)
    }

    /// Makes all of a slot behind `fill` read as zero.
    pub(super) fn discard_tail(&self, slot: SlotIndex, fill: u32) -> Result<(), StoreError> {
        let offset = slot_offset(slot) + u64::from(fill);
        let outcome = self.disk.discard(offset, REGION_BYTES - u64::from(fill));
        outcome.map_err(|error| StoreError::io(&self.file, "discarding a part of", offset, error))
    }

    /// Reads from a slot that shows `fill` bytes; the rest, or all of no slot, is zero. Fails with
    /// [`StoreError::NotHere`], and the offset in the slot, where any byte of these is absent.
    pub(super) fn read_slot(
        &self,
        slot: Option<SlotIndex>,
        fill: u32,
        start: u32,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        let written = buffer.len().min(fill.saturating_sub(start) as usize);
        let (written, zeros) = buffer.split_at_mut(if slot.is_some() { written } else { 0 });
        zeros.fill(0);
        match slot {
            Some(slot) if !written.is_empty() => self.read_present(slot, start, written),
            _ => Ok(()),
        }
    }

    fn read_present(&self, slot: SlotIndex, start: u32, buffer: &mut [u8]) -> Result<(), StoreError> {
        let presence = &self.slots.presence;
        let part = start..start + buffer.len() as u32;
        let offset = slot_offset(slot) + u64::from(start);
        loop {
            let epoch = presence.epoch();
            if let Some(unit) = presence.first_absent(slot, part.clone()) {
                return Err(StoreError::NotHere { offset: u64::from(bytes_of(unit).start) });
            }
            let outcome = self.disk.read_at(offset, buffer);
            outcome.map_err(|error| StoreError::io(&self.file, "reading", offset, error))?;
            if presence.epoch() == epoch {
                return Ok(());
            }
        }
    }

    /// Writes into a slot; the caller has the right to these bytes.
    pub(super) fn write_slot(&self, slot: SlotIndex, start: u32, bytes: &[u8]) -> Result<(), StoreError> {
        debug_assert!(u64::from(start) + bytes.len() as u64 <= REGION_BYTES);
        self.write_at(slot_offset(slot) + u64::from(start), bytes)
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.disk
            .write_at(offset, bytes)
            .map_err(|error| StoreError::io(&self.file, "writing to", offset, error))
    }

    /// Makes the file reach to the end of a slot that is the caller's.
    pub(super) fn reach(&self, slot: SlotIndex) -> Result<(), StoreError> {
        let end = slot_offset(slot) + REGION_BYTES;
        let length = self.disk.length().map_err(|error| StoreError::io(&self.file, "measuring", 0, error))?;
        // Written, not set: others may be growing the file too.
        if length < end { self.write_at(end - 1, &[0]) } else { Ok(()) }
    }

    /// Gives the space of free slots back. The commit that freed them stands, so failing here is no error.
    pub(super) fn reclaim(&self) {
        let cut = self.slots.trim(|count| {
            let bytes = u64::from(count) * REGION_BYTES;
            if self.disk.length()? > bytes { self.disk.set_length(bytes) } else { Ok(()) }
        });
        if let Err(error) = cut {
            tracing::warn!(file = %self.file, %error, "the free end of the store could not be cut off");
        }
        let dirty = self.slots.take_dirty();
        for run in dirty.chunk_by(|a, b| a.0 + 1 == b.0) {
            let bytes = run.len() as u64 * REGION_BYTES;
            let outcome = self.disk.discard(slot_offset(run[0]), bytes);
            self.slots.put_back(run, outcome.is_ok());
            if let Err(error) = outcome {
                tracing::warn!(file = %self.file, %error, "free slots could not be given back to the disk");
            }
        }
    }
}

pub(super) fn slot_offset(slot: SlotIndex) -> u64 {
    u64::from(slot.0) * REGION_BYTES
}
