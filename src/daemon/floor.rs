//! The state at which a block stood when its mode or owner last changed. The admin vouched for it in the charter, so nobody
//! has to sign it again: this is the one place that makes its entry, alike at every device.

use super::adopt::Ours;
use super::core::{Core, Inner, Listed};
use super::error::EngineError;
use super::genesis::charter_id;
use super::take::Arrived;
use crate::base::{BlockNumber, DeviceId, Id, Signature};
use crate::image::Image;
use crate::map::Root;
use crate::record::{
    BlockCharter, BlockEntry, Charter, Commit, Maker, Mode, Policy, RootRef, rank, still_counts,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The mode of a block.
pub fn mode_of(policy: &Policy, number: BlockNumber) -> Mode {
    policy.modes.get(usize::from(number.0)).copied().unwrap_or(Mode::ReadWrite)
}

/// Whether only some may write in a block: the state with the higher counter holds there, and nothing is merged but by
/// those who may write.
pub fn is_protected(policy: &Policy, number: BlockNumber) -> bool {
    matches!(mode_of(policy, number), Mode::ReadOnly | Mode::Owner)
}

/// Whether a commit stands on commits of makers such as these that none of `heads` stands on.
pub(super) fn brings(
    commit: &Commit,
    is_meant: impl Fn(&DeviceId) -> bool,
    heads: &[(Id, Arc<Commit>)],
) -> bool {
    let stood_on = |(_, head): &(Id, Arc<Commit>), maker: &Maker, counter: u64| {
        let below = head.vector.get(maker).is_some_and(|known| known.counter >= counter);
        below || (head.device, head.session) == (maker.device, maker.session) && head.counter >= counter
    };
    let makers = commit.vector.iter().filter(|(maker, _)| is_meant(&maker.device));
    makers.into_iter().any(|(maker, stamp)| !heads.iter().any(|head| stood_on(head, maker, stamp.counter)))
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

    /// Whether a commit was made without the policy in force: before it, or under one of the same number that lost.
    pub(super) fn is_behind(&self, commit: &Commit, policy: &Policy, charter: &Charter) -> bool {
        let id = || self.keys.catalogue.as_ref().map(|keys| charter_id(keys, charter));
        commit.policy_counter < policy.counter
            || commit.policy_counter == policy.counter && id().is_some_and(|id| id != commit.charter.id)
    }

    /// Whether an entry of a commit that is behind is work from before its maker knew the policy in force, which that one has
    /// yet to bring under it: sign it anew on the floor, or set it aside. The maker is the commit's, or one whose commits
    /// that one stands on and `heads` do not. The floor of a policy that lost names nobody, and holds the work of anybody.
    pub(super) fn is_unaware(
        &self,
        (policy, charter): (&Policy, &Charter),
        number: BlockNumber,
        entry: &BlockEntry,
        commit: &Commit,
        heads: &[(Id, Arc<Commit>)],
    ) -> bool {
        let by_signer = |device: &DeviceId| *device == entry.signer;
        let elsewhere =
            entry.is_unsigned() || entry.signer == commit.device || brings(commit, by_signer, heads);
        let Some(block) = charter.blocks.get(&number).filter(|block| block.birth == entry.birth) else {
            // The block is gone: what was in it belongs where its maker brings it.
            return elsewhere && entry.root.is_some();
        };
        elsewhere
            && entry.root.map(|root| root.id) != block.floor.root
            && !self.still_counts(policy, charter, number, entry)
    }

    /// Whether a block begins empty, and what is here of it does not count and is not to be written.
    pub(super) fn is_void(&self, ours: &Ours, number: &BlockNumber) -> bool {
        let (policy, charter) = (&ours.state.policy, &ours.state.charter);
        let begins_empty = charter.blocks.get(number).is_some_and(|block| block.floor.root.is_none());
        let entry = ours.entries.get(number).map(|listed| &listed.entry);
        begins_empty
            && !self.may_write(policy, charter, *number)
            && entry.is_some_and(|entry| !self.still_counts(policy, charter, *number, entry))
    }

    /// Whether this device's side has work of others in it that does not count any more, that `arrived` knows nothing of,
    /// and that this device may not bring in: then what it makes next must not stand on it, or its maker would never
    /// find it missing.
    pub(super) fn leaves_others_behind(&self, ours: &Ours, arrived: &Commit, id: Id) -> bool {
        let (policy, charter) = (&ours.state.policy, &ours.state.charter);
        let theirs = [(id, Arc::new(arrived.clone()))];
        let own = self.keys.device.public();
        let left = |(number, listed): (&BlockNumber, &Listed)| {
            let entry = &listed.entry;
            let Some(block) = charter.blocks.get(number) else { return false };
            // What was fixed by a policy that lost may be anybody's, unless it is what both sides come from.
            let nobodys = entry.is_unsigned();
            let is_meant = |device: &DeviceId| *device == entry.signer || nobodys && *device != own;
            let brings = |head: &Commit| nobodys && head.device != own || brings(head, is_meant, &theirs);
            let common = ours.bases.first().and_then(|base| base.entries.get(number));
            entry.signer != own
                && !(nobodys && common.is_some_and(|common| common.entry == *entry))
                && entry.birth == block.birth
                && entry.root.map(|root| root.id) != block.floor.root
                && !self.still_counts(policy, charter, *number, entry)
                && !self.may_write(policy, charter, *number)
                && ours.heads.iter().any(|(_, head)| !arrived.covers(head) && brings(head))
        };
        ours.entries.iter().any(left)
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
        let base = self.common_entries(inner, arrived)?;
        let device = self.keys.device.public();
        let below = self.own_below(inner, &inner.heads, arrived);
        let mut own = BTreeSet::new();
        for (number, listed) in &inner.entries {
            let known = base.get(number).map(|listed| &listed.entry);
            // A state that a policy fixed which lost against another one bears nobody's name, and may be this device's; so
            // may one that another device signed which merged.
            let signed = listed.entry.signer == device || listed.entry.is_unsigned();
            let merged = || below.as_ref().map_or(Ok(false), |below| self.touches(below, *number, known));
            if known != Some(&listed.entry) && (signed || merged()?) {
                own.insert(*number);
            }
        }
        Ok(own)
    }

    /// This device's commits that `heads` stand on and an arrived version does not, as far as their versions are kept. None
    /// where there is none.
    pub(super) fn own_below(
        &self,
        inner: &Inner,
        heads: &[(Id, Arc<Commit>)],
        arrived: &Arrived,
    ) -> Option<Vec<(Image, Arc<Commit>)>> {
        let device = self.keys.device.public();
        let theirs = [(arrived.reference.commit.id, arrived.commit.clone())];
        if !heads.iter().any(|(_, head)| brings(head, |maker| *maker == device, &theirs)) {
            return None;
        }
        let below = |commit: &Commit| {
            commit.device == device
                && !arrived.commit.covers(commit)
                && heads.iter().any(|(_, head)| **head == *commit || head.covers(commit))
        };
        let kept = inner.versions.iter().filter_map(|kept| Some((kept.image.clone(), kept.commit.clone()?)));
        Some(kept.filter(|(_, commit)| below(commit)).collect())
    }

    /// Whether one of these commits of this device's changed a block that comes from `base`.
    pub(super) fn touches(
        &self,
        below: &[(Image, Arc<Commit>)],
        number: BlockNumber,
        base: Option<&BlockEntry>,
    ) -> Result<bool, EngineError> {
        let device = self.keys.device.public();
        // Where none of them is kept any more it may have been this block.
        let mut found = true;
        for (image, commit) in below {
            let entries = self.open_catalogue(image, commit)?.1;
            let entry = entries.get(&number).map(|listed| &listed.entry);
            found = entry.is_some_and(|entry| entry.signer == device) && entry != base;
            if found {
                break;
            }
        }
        Ok(found)
    }

    /// The entries of the newest version that an arrived one and this device both stand on.
    pub(super) fn common_entries(
        &self,
        inner: &Inner,
        arrived: &Arrived,
    ) -> Result<BTreeMap<BlockNumber, Listed>, EngineError> {
        let theirs = (arrived.reference.commit.id, &*arrived.commit);
        let base = inner.versions.bases(&inner.heads, theirs).into_iter().next();
        Ok(match base.and_then(|base| Some((base, base.commit.as_ref()?))) {
            Some((base, commit)) => self.open_catalogue(&base.image, commit)?.1,
            None => BTreeMap::new(),
        })
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
            return self.is_behind(commit, policy, charter) && (same || carried);
        }
        apart
            && is_protected(policy, number)
            && rank(other) < rank(mine)
            && self.admitted(policy, charter, number, other).is_ok()
    }
}
