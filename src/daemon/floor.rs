//! The state at which a block stood when its mode or owner last changed. The admin vouched for it in the charter, so nobody
//! has to sign it again: this is the one place that makes its entry, alike at every device.

use super::core::{Core, Inner, Listed};
use super::error::EngineError;
use super::take::Arrived;
use crate::base::{BlockNumber, DeviceId, Signature};
use crate::map::Root;
use crate::record::{BlockCharter, BlockEntry, Charter, Commit, Mode, Policy, RootRef, rank, still_counts};
use std::collections::{BTreeMap, BTreeSet};

/// The mode of a block.
pub fn mode_of(policy: &Policy, number: BlockNumber) -> Mode {
    policy.modes.get(usize::from(number.0)).copied().unwrap_or(Mode::ReadWrite)
}

/// Whether only some may write in a block: the state with the higher counter holds there, and nothing is merged but by
/// those who may write.
pub fn is_protected(policy: &Policy, number: BlockNumber) -> bool {
    matches!(mode_of(policy, number), Mode::ReadOnly | Mode::Owner)
}

impl Core {
    /// The entry of a block whose floor is this root; none where it is another one.
    pub(super) fn at_floor(
        &self,
        number: BlockNumber,
        block: &BlockCharter,
        root: Option<Root>,
    ) -> Option<Listed> {
        if root.map(|root| root.id) != block.floor.root {
            return None;
        }
        let entry = BlockEntry {
            number,
            birth: block.birth,
            epoch: block.epoch,
            counter: block.floor.counter,
            parents: Vec::new(),
            root: root.map(|root| RootRef { level: root.level, id: root.id }),
            commitment: self.keys.block(number, block)?.commitment(),
            inode_prefix: 0,
            signer: DeviceId([0; DeviceId::BYTES]),
            signature: Signature([0; Signature::BYTES]),
        };
        Some(Listed { entry, place: root.map(|root| root.place) })
    }

    /// Whether an entry that has counted still does.
    pub(super) fn still_counts(
        &self,
        policy: &Policy,
        charter: &Charter,
        number: BlockNumber,
        entry: &BlockEntry,
    ) -> bool {
        let mode = mode_of(policy, number);
        charter
            .blocks
            .get(&number)
            .is_some_and(|block| still_counts(entry, mode, block, &charter.members, &self.keys.admin_public))
    }

    /// Whether a device may write in a block.
    pub(super) fn allows(
        &self,
        policy: &Policy,
        charter: &Charter,
        number: BlockNumber,
        device: &DeviceId,
    ) -> bool {
        match mode_of(policy, number) {
            Mode::ReadOnly => false,
            Mode::Owner => charter.blocks.get(&number).and_then(|block| block.owner) == Some(*device),
            Mode::ReadWrite | Mode::Append => charter.members.include(device),
        }
    }

    /// Whether an arrived entry is work of its maker's from before it knew the policy in force, which that one has yet to
    /// bring under it: sign it anew on the floor, or set it aside.
    pub(super) fn is_unaware(
        &self,
        (policy, charter): (&Policy, &Charter),
        number: BlockNumber,
        entry: &BlockEntry,
        commit: &Commit,
    ) -> bool {
        let Some(block) = charter.blocks.get(&number) else { return false };
        commit.policy_counter < policy.counter
            && entry.signer == commit.device
            && entry.root.map(|root| root.id) != block.floor.root
            && !self.still_counts(policy, charter, number, entry)
    }

    /// The blocks in which this device has published something that an arrived version does not stand on.
    pub(super) fn own_work(
        &self,
        inner: &Inner,
        arrived: &Arrived,
    ) -> Result<BTreeSet<BlockNumber>, EngineError> {
        if inner.heads.iter().all(|(_, head)| arrived.commit.covers(head)) {
            return Ok(BTreeSet::new());
        }
        let theirs = (arrived.reference.commit.id, &*arrived.commit);
        let base = inner.versions.bases(&inner.heads, theirs).into_iter().next();
        let base = base.and_then(|base| Some((base, base.commit.as_ref()?)));
        let base = match base {
            Some((base, commit)) => self.open_catalogue(&base.image, commit)?.1,
            None => BTreeMap::new(),
        };
        let device = self.keys.device.public();
        let is_own = |(number, listed): &(&BlockNumber, &Listed)| {
            let known = base.get(number).map(|listed| &listed.entry);
            listed.entry.signer == device && known != Some(&listed.entry)
        };
        Ok(inner.entries.iter().filter(is_own).map(|(number, _)| *number).collect())
    }

    /// Whether what is here of a block stays, and what has come of it in `commit` is passed over without blame: who
    /// published that did not know better. `apart`: it does not stand on what is here.
    pub(super) fn outranks(
        &self,
        (policy, charter): (&Policy, &Charter),
        number: BlockNumber,
        (ours, theirs): (&Listed, &Listed),
        commit: &Commit,
        apart: bool,
    ) -> bool {
        let (mine, other) = (&ours.entry, &theirs.entry);
        let Some(block) = charter.blocks.get(&number) else { return false };
        let same_life = mine.birth == other.birth && mine.epoch == other.epoch;
        if mine == other || !same_life || !self.still_counts(policy, charter, number, mine) {
            return false;
        }
        if other.counter <= block.floor.counter && !self.still_counts(policy, charter, number, other) {
            // Only its own state is held against a maker, and only where it may not sign it anew.
            let carried =
                other.signer != commit.device || self.allows(policy, charter, number, &other.signer);
            let same = mine.root.map(|root| root.id) == other.root.map(|root| root.id);
            return commit.policy_counter < policy.counter && (same || carried);
        }
        apart
            && is_protected(policy, number)
            && rank(other) < rank(mine)
            && self.admitted(policy, charter, number, other).is_ok()
    }
}
