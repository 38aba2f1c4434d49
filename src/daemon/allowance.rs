//! What a block may hold, at whoever receives it. Writers keep to the quota; two of them may each have filled the rest of
//! it while apart, so twice as much is tolerated. Beyond that a state is refused, and a merge does not come about.

use super::adopt::Ours;
use super::control::Failure;
use super::core::{Core, Listed};
use super::error::EngineError;
use super::take::Arrived;
use crate::base::{BlockNumber, InfoHash};
use crate::image::Image;
use crate::map::{Map, Root};
use crate::record::{BlockCharter, Charter, Quota, VersionRef};
use crate::tree::meter::{Usage, growth, usage};
use crate::tree::version::Version;
use crate::tree::{ImageSource, Tree};
use std::collections::{BTreeMap, HashMap};

/// So many times its quota a block may hold, having come together from several devices.
const TOLERANCE: i128 = 2;

/// The versions of which a block was counted last, by block, and its root there: another state is counted by its
/// difference while that version is kept. To hold its image here would keep space in the store that is to be given back.
pub type Weighed = HashMap<BlockNumber, (InfoHash, Option<Root>, Usage)>;

/// The blocks that have a quota.
fn quotas(charter: &Charter) -> BTreeMap<BlockNumber, Quota> {
    let limited = charter.blocks.iter().filter(|(_, block)| !block.quota.is_none());
    limited.map(|(number, block)| (*number, block.quota)).collect()
}

/// Holds a tree to the quotas of a charter.
pub(super) fn limit(tree: &Tree, charter: &Charter) {
    tree.set_quotas(&quotas(charter));
}

impl Core {
    /// What a block holds in some state.
    pub(super) fn holds(
        &self,
        number: BlockNumber,
        block: &BlockCharter,
        (image, root): (&Image, Option<Root>),
    ) -> Result<Usage, EngineError> {
        let keys = self.keys.block(number, block).ok_or(EngineError::Capability("mirror"))?;
        let source = ImageSource::new(&self.store, image);
        let map = Map::new(&keys, &source, self.tree_nodes());
        let id = |root: Option<Root>| root.map(|root| root.id);
        let last = self.weighed.lock().get(&number).copied();
        let by_difference = last.and_then(|(version, from, used)| {
            if id(from) == id(root) {
                return Some(used);
            }
            let before = self.inner().versions.get(&version)?.image.clone();
            let old_source = ImageSource::new(&self.store, &before);
            let old_map = Map::new(&keys, &old_source, self.tree_nodes());
            let old = Version { map: &old_map, root: from, keys: &keys, source: &old_source };
            let new = Version { map: &map, root, keys: &keys, source: &source };
            // It may be an earlier block of this number.
            growth(number, &old, &new).ok().map(|grown| used.plus(grown))
        });
        match by_difference {
            Some(used) => Ok(used),
            None => Ok(usage(number, &map, root.as_ref())?),
        }
    }

    /// Counts on in a version that was published here, where blocks were counted before.
    pub(super) fn weigh_published(&self, version: &VersionRef, image: &Image) {
        let counted: Vec<BlockNumber> = self.weighed.lock().keys().copied().collect();
        for number in counted {
            let (block, root) = {
                let inner = self.inner();
                let root = inner.entries.get(&number).and_then(Listed::root);
                (inner.state.charter.blocks.get(&number).cloned(), root)
            };
            let used = block.filter(|block| !block.quota.is_none());
            let used = used.and_then(|block| self.holds(number, &block, (image, root)).ok());
            match used {
                Some(used) => _ = self.weighed.lock().insert(number, (version.infohash, root, used)),
                None => _ = self.weighed.lock().remove(&number),
            }
        }
    }

    /// What a block holds here, changes that were not published included.
    pub(super) fn holds_here(&self, number: BlockNumber) -> Result<Usage, EngineError> {
        let head = self.tree()?.flush()?;
        let block = self.inner().state.charter.blocks.get(&number).cloned();
        let block = block.ok_or_else(|| EngineError::Usage(format!("there is no block {number}")))?;
        self.holds(number, &block, (&head.image, head.roots.get(&number).copied().flatten()))
    }

    /// Whether a block with a quota would hold more in a state than is tolerated.
    pub(super) fn overflows(
        &self,
        number: BlockNumber,
        block: &BlockCharter,
        state: (&Image, Option<Root>),
    ) -> Result<Option<Usage>, EngineError> {
        // Without its key nobody can count it.
        if block.quota.is_none() || self.keys.block(number, block).is_none() {
            return Ok(None);
        }
        let used = self.holds(number, block, state)?;
        Ok(used.exceeds(&block.quota, TOLERANCE).then_some(used))
    }

    /// Whether this device's side of a block has work of its own in it that an arrived version does not stand on. Who signed
    /// the side does not tell: another device may have merged that work with its own, and its version was taken here.
    pub(super) fn has_own_work(
        &self,
        ours: &Ours,
        number: BlockNumber,
        arrived: &Arrived,
    ) -> Result<bool, EngineError> {
        let device = self.keys.device.public();
        if ours.is_by(&number, &device) {
            return Ok(true);
        }
        let Some(below) = self.own_below(&self.inner(), &ours.heads, arrived) else { return Ok(false) };
        let base = ours.bases.first().and_then(|base| base.entries.get(&number)).map(|listed| &listed.entry);
        self.touches(&below, number, base)
    }

    /// Why an arrived state of a block is refused beside what is here, if it is for what it holds.
    pub(super) fn excess(
        &self,
        number: BlockNumber,
        charter: &Charter,
        arrived: &Arrived,
    ) -> Result<Option<String>, EngineError> {
        let listed = arrived.entries.get(&number);
        let (Some(block), Some(listed)) = (charter.blocks.get(&number), listed) else { return Ok(None) };
        let root = listed.root();
        let is_floor = root.map(|root| root.id) == block.floor.root;
        if block.quota.is_none() || is_floor || self.is_closed(charter, number) {
            return Ok(None);
        }
        let (image, here) = {
            let inner = self.inner();
            (inner.image.clone(), inner.state.roots.get(&number).copied().flatten())
        };
        if here.map(|root| root.id) == root.map(|root| root.id) {
            return Ok(None);
        }
        if self.is_closed(charter, number) {
            return Ok(None);
        }
        let used = self.holds(number, block, (&arrived.image, root))?;
        if !used.exceeds(&block.quota, TOLERANCE) {
            self.weighed.lock().insert(number, (arrived.reference.infohash, root, used));
            return Ok(None);
        }
        // A quota may have become less than what was there. Then it counts who adds to that.
        let before = self.holds(number, block, (&image, here))?;
        let grows = used.bytes > before.bytes && over(used.bytes, block.quota.bytes)
            || used.files > before.files && over(used.files, block.quota.files);
        Ok(grows.then(|| {
            format!(
                "it holds {} bytes in {} files, more than {TOLERANCE} times its quota",
                used.bytes, used.files
            )
        }))
    }
}

fn over(used: i128, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| used > i128::from(limit) * TOLERANCE)
}

/// Refuses a quota below what a block could ever be brought back to: everybody would refuse the block as it is.
pub fn ensure_room(held: (u64, u64), quota: &Quota) -> Result<(), Failure> {
    let used = Usage { bytes: i128::from(held.0), files: i128::from(held.1) };
    if !used.exceeds(quota, TOLERANCE) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the block holds {} bytes in {} files, more than {TOLERANCE} times that quota: delete something first, or give it more",
        held.0, held.1
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_not_set_far_below_what_is_there() {
        let quota = |bytes, files| Quota { bytes, files };
        assert!(ensure_room((200, 20), &quota(Some(100), Some(10))).is_ok());
        assert!(ensure_room((201, 20), &quota(Some(100), Some(10))).is_err());
        assert!(ensure_room((200, 21), &quota(Some(100), Some(10))).is_err());
        assert!(ensure_room((u64::MAX, u64::MAX), &quota(None, None)).is_ok());
        assert!(ensure_room((u64::MAX, 0), &quota(Some(u64::MAX / 2 + 1), None)).is_ok());
    }
}
