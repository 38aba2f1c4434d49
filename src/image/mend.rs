//! Repairing a store: bytes that a disk has lost are put back, and a store whose tables are damaged is opened all the
//! same, to save what they still lead to.

use super::disk::Disk;
use super::error::StoreError;
use super::store::Store;
use super::version::Image;
use crate::base::{REGION_BYTES, RegionIndex};
use std::sync::Arc;

impl Store {
    /// Writes back what `image` showed from `offset` on; what lies behind the fill of its regions is left out. The caller
    /// knows by hash or seal that these are the right bytes. They are durable with the next commit.
    ///
    /// The one exception to the rule that what a version shows is never overwritten: it has stopped showing it.
    pub fn mend(&self, image: &Image, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_own(image)?;
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let start = (at % REGION_BYTES) as u32;
            let (part, tail) = rest.split_at(rest.len().min((REGION_BYTES - u64::from(start)) as usize));
            let region = image.region(RegionIndex::of(at));
            let shown = part.len().min(region.fill.saturating_sub(start) as usize);
            if let Some(slot) = region.slot
                && shown > 0
            {
                self.write_slot(slot, start, &part[..shown])?;
            }
            (at, rest) = (at + part.len() as u64, tail);
        }
        Ok(())
    }

    /// Opens a store of which no state is sound. Where a table block is damaged, another version's regions stand in for
    /// those that it named, or none do: their objects do not open, which whoever reads them finds out. Nothing is written
    /// before the next commit. [`Store::rescued`] says what is damaged; where that is the state itself, opening fails.
    pub fn rescue(disk: Arc<dyn Disk>) -> Result<Arc<Store>, StoreError> {
        match Store::open(disk.clone()) {
            Err(StoreError::Damaged { .. }) => Store::from_remains(disk),
            other => other,
        }
    }
}
