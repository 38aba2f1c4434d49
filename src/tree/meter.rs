//! How much a block holds, for blocks that may hold only so much. Blocks without a quota are never counted; one with a
//! quota is counted through once, when somebody first wants to put something into it, and from then on by what changes.

use super::block::Shared;
use super::error::TreeError;
use super::inode::InodeRecord;
use super::key::Key;
use super::layer::Node;
use super::live::Tree;
use super::state::State;
use super::version::Version;
use crate::base::{BlockNumber, Inode};
use crate::map::{Entry, Map, MapError, Root};
use crate::record::Quota;
use std::collections::{BTreeMap, HashMap};

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Usage {
    /// Sum of the sizes of its files, holes included, in bytes. Two files can pass what 64 bits hold.
    pub bytes: i128,
    /// Inodes, without the block's root.
    pub files: i128,
}

impl Usage {
    /// Both together.
    pub fn plus(self, other: Usage) -> Usage {
        Usage { bytes: self.bytes + other.bytes, files: self.files + other.files }
    }

    /// What remains of it without the other.
    pub fn minus(self, other: Usage) -> Usage {
        Usage { bytes: self.bytes - other.bytes, files: self.files - other.files }
    }

    /// Whether it is more than `times` a quota.
    pub fn exceeds(&self, quota: &Quota, times: i128) -> bool {
        let over =
            |used: i128, limit: Option<u64>| limit.is_some_and(|limit| used > i128::from(limit) * times);
        over(self.bytes, quota.bytes) || over(self.files, quota.files)
    }
}

/// One block's quota, and what it holds now, where that was counted.
pub(super) struct Meter {
    quota: Quota,
    /// Which life of the number; another one holds something else.
    commitment: crate::base::Id,
    used: Option<Usage>,
}

/// The meters of all blocks that have a quota.
pub(super) type Meters = HashMap<BlockNumber, Meter>;

/// What one inode adds.
fn weight(block: BlockNumber, inode: Inode, record: &InodeRecord) -> Usage {
    let bytes = if record.is_file() { i128::from(record.size) } else { 0 };
    Usage { bytes, files: i128::from(inode != block.root_inode()) }
}

fn weight_of(block: BlockNumber, entry: &Entry) -> Usage {
    let Ok(Key::Inode(inode)) = Key::decode(&entry.key) else { return Usage::default() };
    let record = InodeRecord::decode(&entry.value);
    record.map_or(Usage::default(), |record| weight(block, inode, &record))
}

/// Counts a block through. Its nodes must have been verified.
pub fn usage(block: BlockNumber, map: &Map<'_>, root: Option<&Root>) -> Result<Usage, MapError> {
    let mut used = Usage::default();
    let mut cursor = map.range(root, &[]);
    while let Some(entry) = cursor.next()? {
        used = used.plus(weight_of(block, &entry));
    }
    Ok(used)
}

/// By how much `new` holds more than `old`; what both share is not looked at.
pub fn growth(block: BlockNumber, old: &Version<'_>, new: &Version<'_>) -> Result<Usage, MapError> {
    let mut grown = Usage::default();
    old.map.diff_with::<MapError>(
        old.root.as_ref(),
        new.map,
        new.root.as_ref(),
        &mut |_, before, after| {
            let of = |entry: Option<&Entry>| entry.map_or(Usage::default(), |entry| weight_of(block, entry));
            grown = grown.plus(of(after)).minus(of(before));
            Ok(())
        },
    )?;
    Ok(grown)
}

impl State {
    /// Refuses what would take a block beyond its quota.
    pub(super) fn admit(&self, block: BlockNumber, bytes: u64, files: u64) -> Result<(), TreeError> {
        let meter = self.meters.get(&block).filter(|_| !self.replaying);
        let Some((quota, used)) = meter.and_then(|meter| Some((meter.quota, meter.used?))) else {
            return Ok(());
        };
        // What is beyond its quota already may change in all that does not grow.
        let over = |used: i128, more: u64, limit: Option<u64>| {
            more > 0 && limit.is_some_and(|limit| used + i128::from(more) > i128::from(limit))
        };
        let full = over(used.bytes, bytes, quota.bytes) || over(used.files, files, quota.files);
        if full { Err(TreeError::QuotaExceeded(block)) } else { Ok(()) }
    }

    /// A file changes its size.
    pub(super) fn resized(&mut self, inode: Inode, block: BlockNumber, before: u64, after: u64) {
        if before != after && !self.orphans.contains_key(&inode) {
            self.weigh(block, Usage { bytes: i128::from(after) - i128::from(before), files: 0 });
        }
    }

    /// Something is new, or gone.
    pub(super) fn counted(&mut self, inode: Inode, block: BlockNumber, record: &InodeRecord, is_new: bool) {
        let weight = weight(block, inode, record);
        self.weigh(block, if is_new { weight } else { Usage::default().minus(weight) });
    }

    fn weigh(&mut self, block: BlockNumber, change: Usage) {
        if let Some(used) = self.meters.get_mut(&block).and_then(|meter| meter.used.as_mut()) {
            *used = used.plus(change);
        }
    }

    /// What the layers add to the flushed state of a block.
    fn above(&self, block: BlockNumber, shared: &Shared) -> Result<Usage, TreeError> {
        let mut added = Usage::default();
        let base = self.base.block(block)?;
        let map = self.base.map(base, shared);
        let frozen = self.frozen.iter().flat_map(|layer| layer.iter());
        let nodes: BTreeMap<Inode, &Node> = frozen
            .chain(&self.active)
            .filter(|(_, node)| node.block == block)
            .map(|(i, n)| (*i, n))
            .collect();
        for (inode, newest) in nodes {
            let older = self.frozen.as_ref().and_then(|layer| layer.get(&inode));
            let now = match (newest.removed, &newest.record) {
                (true, _) => None,
                (false, Some(record)) => Some(record),
                // What is only renamed into or sealed keeps the record that it had.
                (false, None) => {
                    match older.filter(|older| !older.removed).and_then(|older| older.record.as_ref()) {
                        Some(record) => Some(record),
                        None => continue,
                    }
                }
            };
            let below = map.get(base.root.as_ref(), &Key::Inode(inode).encode());
            let below = below.map_err(|error| TreeError::in_block(block, error))?;
            let of = |record: &InodeRecord| weight(block, inode, record);
            added = added.plus(now.map_or(Usage::default(), of));
            added = added.minus(below.map_or(Usage::default(), |entry| weight_of(block, &entry)));
        }
        Ok(added)
    }
}

impl Tree {
    /// Says what blocks may hold: all that have a quota. It holds at once, whatever a block holds already.
    pub fn set_quotas(&self, quotas: &BTreeMap<BlockNumber, Quota>) {
        let mut state = self.bench.state.write();
        let mut old = std::mem::take(&mut state.meters);
        let limited = quotas.iter().filter(|(_, quota)| !quota.is_none());
        state.meters = limited
            .filter_map(|(number, quota)| {
                let commitment = state.base.blocks.get(number)?.keys.commitment();
                let used = old.remove(number).filter(|meter| meter.commitment == commitment);
                let used = used.and_then(|meter| meter.used);
                Some((*number, Meter { quota: *quota, commitment, used }))
            })
            .collect();
    }

    /// What the block of an inode holds, if it has a quota, with that; counted if that was not done yet.
    pub fn quota_of(&self, inode: Inode) -> Result<Option<(Quota, Usage)>, TreeError> {
        self.count(inode)?;
        let state = self.bench.state.read();
        let block = state.view(&self.bench.shared).block_of(inode)?;
        Ok(state.meters.get(&block).and_then(|meter| Some((meter.quota, meter.used?))))
    }

    /// What a block holds, where that was counted already.
    pub fn counted(&self, block: BlockNumber) -> Option<Usage> {
        self.bench.state.read().meters.get(&block)?.used
    }

    /// Counts the block of an inode through, if it has a quota and was not counted yet. Others go on meanwhile.
    pub(super) fn count(&self, inode: Inode) -> Result<(), TreeError> {
        let shared = &self.bench.shared;
        loop {
            let (base, number) = {
                let state = self.bench.state.read();
                // What is done again was admitted before: an opening does not count anything through.
                if state.meters.is_empty() || state.replaying {
                    return Ok(());
                }
                let Ok(number) = state.view(shared).block_of(inode) else { return Ok(()) };
                if state.meters.get(&number).is_none_or(|meter| meter.used.is_some()) {
                    return Ok(());
                }
                (state.base.clone(), number)
            };
            let block = base.block(number)?;
            let below = usage(number, &base.map(block, shared), block.root.as_ref());
            let below = below.map_err(|error| TreeError::in_block(number, error))?;
            let mut state = self.bench.state.write();
            let id = |root: Option<Root>| root.map(|root| root.id);
            if state.base.blocks.get(&number).is_none_or(|now| id(now.root) != id(block.root)) {
                continue;
            }
            let used = below.plus(state.above(number, shared)?);
            if let Some(meter) = state.meters.get_mut(&number) {
                meter.used = Some(used);
            }
            return Ok(());
        }
    }

    /// By how much what is counted changes when the state `new` takes the place of `old`, which has no layers above it;
    /// none where that cannot be told.
    pub(super) fn recount(
        &self,
        old: &super::block::Base,
        new: &super::block::Base,
    ) -> Vec<(BlockNumber, Option<Usage>)> {
        let shared = &self.bench.shared;
        let counted: Vec<BlockNumber> = self.bench.state.read().meters.keys().copied().collect();
        let change = |number: &BlockNumber| {
            let (before, after) = (old.blocks.get(number)?, new.blocks.get(number)?);
            if before.keys.commitment() != after.keys.commitment() {
                return None;
            }
            let (from, to) = (old.map(before, shared), new.map(after, shared));
            let (source, other) = (old.source_of(*number), new.source_of(*number));
            let before = Version { map: &from, root: before.root, keys: &before.keys, source };
            let after = Version { map: &to, root: after.root, keys: &after.keys, source: other };
            growth(*number, &before, &after).ok()
        };
        counted.into_iter().map(|number| (number, change(&number))).collect()
    }
}

impl State {
    /// Takes over what [`Tree::recount`] found.
    pub(super) fn take_recount(&mut self, changes: Vec<(BlockNumber, Option<Usage>)>) {
        for (number, change) in changes {
            if let Some(meter) = self.meters.get_mut(&number) {
                meter.used = meter.used.zip(change).map(|(used, change)| used.plus(change));
            }
        }
    }
}
