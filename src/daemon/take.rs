//! What happens when a version has arrived: its entries are checked, its nodes opened, and it becomes the head, or is
//! merged with what was changed here. Nothing of it is shown before it has opened; a block that is refused stays as
//! it was, with the bytes that this device already has.

use super::absent::Unfit;
use super::core::{Core, Listed, now_seconds};
use super::error::EngineError;
use super::floor::is_protected;
use super::genesis::charter_id;
use super::guard::{Diverging, diverging, open_all, open_new_chunks};
use super::status::RefusalStatus;
use super::versions::Version as KeptVersion;
use crate::base::{BlockNumber, DeviceId, Id, Place, RegionIndex};
use crate::crypt::BlobKind;
use crate::image::Image;
use crate::map::{Map, NodeCache, Root};
use crate::record::{Charter, Commit, Policy, Refusal, VersionRef, rank};
use crate::sync::Fetched;
use crate::tree::verify::{LiveDelta, open_changed};
use crate::tree::version::Version;
use crate::tree::{Changes, ImageSource, TreeError, UNWRITTEN_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// How often a merge is repeated because somebody went on writing meanwhile.
const RETRIES_MAX: usize = 20;

/// What taking a version led to.
pub struct Taken {
    /// For the machine.
    pub outcome: Fetched,
    /// For the kernel.
    pub changes: Changes,
}

impl Taken {
    pub(super) fn plain(outcome: Fetched) -> Taken {
        Taken { outcome, changes: Changes::default() }
    }
}

/// A version that has been opened as far as its commit.
pub(super) struct Arrived {
    pub reference: VersionRef,
    pub image: Image,
    pub commit: Arc<Commit>,
    pub catalogue: Option<Root>,
    pub entries: BTreeMap<BlockNumber, Listed>,
}

/// The version below the working head, as it was published.
pub(super) struct OldHead {
    pub image: Option<Image>,
    /// Regions in which the arrived image does not go on from it.
    diverging: Diverging,
    pub told: BTreeMap<BlockNumber, Listed>,
}

/// What each block becomes.
pub(super) struct Plan {
    /// The entries in force from now on.
    pub entries: BTreeMap<BlockNumber, Listed>,
    /// Blocks whose new state comes from the arrived version as it is.
    pub theirs: Vec<BlockNumber>,
    pub refusals: Vec<RefusalStatus>,
    pub live: LiveDelta,
    /// The version carries the charter that it names.
    pub charter_stands: bool,
    /// It holds work of its maker's that did not come in because that one did not know the policy: what is made here
    /// does not stand on it, so that the maker finds its work missing.
    pub unaware: bool,
}

impl Plan {
    /// Whether the version may stay first in the record.
    pub fn is_sound(&self) -> bool {
        self.refusals.is_empty() && self.charter_stands
    }
}

impl Core {
    /// Takes a complete version. `policy` is the one of the record that named it.
    pub fn take(&self, reference: VersionRef, image: Image, policy: &Policy) -> Result<Taken, EngineError> {
        let _work = self.work.lock();
        if self.tree.is_none() {
            return self.take_as_mirror(reference, image, policy);
        }
        let arrived = match self.open_arrived(reference, image) {
            Ok(arrived) => arrived,
            Err(error) => {
                tracing::warn!(version = %reference.infohash, %error, "refused: not a version of this database");
                return Ok(Taken::plain(Fetched::Broken));
            }
        };
        if let Some(taken) = self.take_across(&arrived, policy)? {
            return Ok(taken);
        }
        let Some(mut changes) = self.follow_policy(&arrived, policy)? else {
            return Ok(Taken::plain(Fetched::Later));
        };
        let mut taken = self.take_arrived(&arrived)?;
        changes.extend(std::mem::take(&mut taken.changes));
        Ok(Taken { changes, ..taken })
    }

    fn take_as_mirror(
        &self,
        reference: VersionRef,
        image: Image,
        policy: &Policy,
    ) -> Result<Taken, EngineError> {
        let mut inner = self.inner();
        if policy.supersedes(&inner.state.policy) {
            inner.state.policy = policy.clone();
        }
        let newest =
            self.named_versions(&inner).first().is_none_or(|first| first.infohash == reference.infohash);
        if newest || inner.state.head.is_none() {
            inner.state.head = Some(reference);
            inner.image = image.clone();
        }
        self.keep(&mut inner, KeptVersion { reference, time: now_seconds(), image, commit: None });
        self.save(&inner)?;
        Core::count(&self.done.adopted);
        Ok(Taken::plain(Fetched::Current))
    }

    pub(super) fn open_arrived(&self, reference: VersionRef, image: Image) -> Result<Arrived, EngineError> {
        let commit = Arc::new(self.open_commit(&image, &reference)?);
        let (catalogue, entries) = self.open_catalogue(&image, &commit)?;
        Ok(Arrived { reference, image, commit, catalogue, entries })
    }

    /// Takes a newer policy with the charter that it names. None where the version does not carry that: whether its
    /// entries count is not to be told then.
    fn follow_policy(&self, arrived: &Arrived, policy: &Policy) -> Result<Option<Changes>, EngineError> {
        let known = self.inner().state.policy.clone();
        if !policy.supersedes(&known) {
            return Ok(Some(Changes::default()));
        }
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let current = self.inner().state.charter.clone();
        let charter = if charter_id(keys, &current) == policy.charter {
            current
        } else {
            match self.open_charter(&arrived.image, &arrived.commit, &policy.charter) {
                Some(charter) => charter,
                None => {
                    tracing::warn!(
                        counter = policy.counter,
                        "a newer policy names a charter that did not come with it; the old one stays in force"
                    );
                    return Ok(None);
                }
            }
        };
        let own = self.own_work(&self.inner(), arrived)?;
        self.enact(policy.clone(), charter, &own).map(Some)
    }

    /// The charter that a commit locates, if it is the one of this id.
    pub(super) fn open_charter(&self, image: &Image, commit: &Commit, id: &Id) -> Option<Charter> {
        let sealed = ImageSource::new(&self.store, image).bytes(commit.charter.place).ok()?;
        let plain = self.keys.catalogue.as_ref()?.open_blob(BlobKind::Charter, id, &sealed).ok()?;
        Charter::decode(&plain).ok()
    }

    fn take_arrived(&self, arrived: &Arrived) -> Result<Taken, EngineError> {
        let id = arrived.reference.commit.id;
        {
            let mut inner = self.inner();
            let heads = &inner.heads;
            if heads.iter().any(|(head, _)| *head == id) {
                self.keep_arrived(&mut inner, arrived, arrived.image.clone());
                return Ok(Taken::plain(Fetched::Current));
            }
            if heads.iter().any(|(_, head)| head.covers(&arrived.commit)) {
                self.keep_arrived(&mut inner, arrived, arrived.image.clone());
                return Ok(Taken::plain(Fetched::Behind));
            }
        }
        let plan = match self.plan(arrived)? {
            Some(plan) => plan,
            None => return Ok(Taken::plain(Fetched::Broken)),
        };
        let patience = Instant::now() + UNWRITTEN_MAX;
        for _ in 0..RETRIES_MAX {
            if let Some(taken) = self.adopt(arrived, &plan, patience, None)? {
                return Ok(taken);
            }
        }
        Ok(Taken::plain(Fetched::Later))
    }

    fn plan(&self, arrived: &Arrived) -> Result<Option<Plan>, EngineError> {
        let (policy, charter) = {
            let inner = self.inner();
            (inner.state.policy.clone(), inner.state.charter.clone())
        };
        self.plan_under(arrived, &policy, &charter)
    }

    /// Checks every entry and opens every node that is new. None where nothing at all could be taken.
    pub(super) fn plan_under(
        &self,
        arrived: &Arrived,
        policy: &Policy,
        charter: &Charter,
    ) -> Result<Option<Plan>, EngineError> {
        let inner = self.inner();
        let known = inner.entries.clone();
        let head = inner.state.head.and_then(|head| inner.versions.get(&head.infohash));
        let image = head.map(|version| version.image.clone());
        let heads = inner.heads.clone();
        let apart = !heads.iter().all(|(_, commit)| arrived.commit.covers(commit));
        let behind = self.is_behind(&arrived.commit, policy, charter);
        let common = if behind { self.common_entries(&inner, arrived)? } else { BTreeMap::new() };
        let elsewhere = if behind { self.cut_elsewhere(arrived, charter) } else { BTreeSet::new() };
        let mut told = self.told_entries(&inner)?;
        told.retain(|number, _| !inner.spoilt.contains(number));
        drop(inner);
        let diverging = match &image {
            Some(image) => diverging(&self.store, image, &arrived.image)?,
            None => Diverging::default(),
        };
        let old = OldHead { image, diverging, told };
        let mut plan = Plan {
            entries: BTreeMap::new(),
            theirs: Vec::new(),
            refusals: Vec::new(),
            live: LiveDelta::default(),
            unaware: false,
            charter_stands: self
                .open_charter(&arrived.image, &arrived.commit, &arrived.commit.charter.id)
                .is_some(),
        };
        let (mut good, mut outdated) = (0, BTreeSet::new());
        plan.unaware = arrived.entries.iter().any(|(number, theirs)| {
            let known = common.get(number).is_some_and(|common| common.entry == theirs.entry);
            behind
                && !(known && theirs.entry.is_unsigned())
                && self.is_unaware((policy, charter), *number, &theirs.entry, &arrived.commit, &heads)
        });
        // The protected ones first: the others are held against them.
        let mut blocks: Vec<_> = charter.blocks.iter().collect();
        blocks.sort_by_key(|(number, _)| !is_protected(policy, **number));
        for (number, block) in blocks {
            let ours = known.get(number).filter(|listed| listed.entry.birth == block.birth);
            let Some(theirs) = arrived.entries.get(number).filter(|listed| listed.entry.birth == block.birth)
            else {
                let begins_empty = block.floor.root.is_none();
                let counts = |ours: &&Listed| self.still_counts(policy, charter, *number, &ours.entry);
                let ours = ours.filter(|ours| !begins_empty || counts(ours));
                if ours.is_some() || !begins_empty {
                    let reason = "it leaves the block out".into();
                    plan.refusals.push(refusal_status(*number, &block.path, reason, None));
                }
                plan.entries.extend(ours.map(|ours| (*number, ours.clone())));
                continue;
            };
            if elsewhere.contains(number) {
                good += 1;
                plan.unaware = true;
                plan.entries.extend(ours.map(|ours| (*number, ours.clone())));
                continue;
            }
            let rules = (policy, charter);
            if let Some(ours) = ours
                && self.outranks(rules, *number, (ours, theirs), &arrived.commit, apart)
            {
                good += 1;
                plan.entries.insert(*number, ours.clone());
                continue;
            }
            let mut checked = self.check_entry(theirs, ours, rules, *number, arrived, Some(&old));
            if checked.is_ok()
                && let Some(collision) = self.collision(rules, *number, arrived, &old, &plan)?
            {
                checked = Err(Unfit::Refused(collision));
            }
            if checked.is_ok()
                && let Some(excess) = self.excess(*number, charter, arrived)?
            {
                plan.unaware |= behind;
                checked = Err(Unfit::Refused(excess));
            }
            match checked {
                Ok(live) => {
                    good += 1;
                    plan.live.join(&live);
                    plan.entries.insert(*number, theirs.clone());
                    plan.theirs.push(*number);
                }
                Err(Unfit::Absent(place)) => return Err(TreeError::Absent(place).into()),
                Err(Unfit::Refused(refused)) => {
                    // Before a joiner has any state: a version from before the policy is nobody's misdeed.
                    if ours.is_none() && behind && theirs.entry.counter <= block.floor.counter {
                        outdated.insert(number.0);
                    }
                    let status = refusal_status(
                        *number,
                        &block.path,
                        refused,
                        theirs.entry.signature_valid(&self.keys.database).then_some(theirs.entry.signer),
                    );
                    // It is met again with every version that stands on it.
                    if !outdated.contains(&number.0) && !self.inner().state.refusals.contains(&status) {
                        let by = match &status.signer {
                            Some(_) => self.called(&theirs.entry.signer),
                            None => "somebody who cannot be told".into(),
                        };
                        tracing::warn!(
                            "refused: what {by} changed in block {number} does not count: {}",
                            status.reason
                        );
                    }
                    plan.refusals.push(status);
                    if let Some(ours) = ours {
                        plan.entries.insert(*number, ours.clone());
                    }
                }
            }
        }
        if !plan.refusals.is_empty() {
            let mut inner = self.inner();
            for refusal in plan.refusals.iter().filter(|refusal| !outdated.contains(&refusal.block)) {
                inner.state.refuse(refusal.clone());
            }
            self.save(&inner)?;
        }
        Ok((good > 0 || plan.refusals.is_empty()).then_some(plan))
    }

    /// An entry counts if the policy allows its signer, and if its map opens.
    pub(super) fn check_entry(
        &self,
        theirs: &Listed,
        ours: Option<&Listed>,
        (policy, charter): (&Policy, &Charter),
        number: BlockNumber,
        arrived: &Arrived,
        old: Option<&OldHead>,
    ) -> Result<LiveDelta, Unfit> {
        let block = charter.blocks.get(&number).ok_or("the charter has no such block")?;
        // Who may change a block is judged without its key, too: a device that cannot open it still hands on no forged one
        // as the state in force.
        let keys = self.keys.block(number, block);
        if keys.as_ref().is_some_and(|keys| theirs.entry.commitment != keys.commitment()) {
            return Err(Refusal::WrongCommitment.to_string().into());
        }
        let protected = is_protected(policy, number);
        let admitted = |entry| self.admitted(policy, charter, number, entry);
        // What the policy no longer allows is no measure of what comes.
        let ours = ours.filter(|ours| self.still_counts(policy, charter, number, &ours.entry));
        if ours.is_none_or(|ours| ours.entry != theirs.entry) {
            admitted(&theirs.entry).map_err(|refusal| refusal.to_string())?;
            if protected && ours.is_some_and(|ours| rank(&theirs.entry) < rank(&ours.entry)) {
                return Err("it is older than what is here".into());
            }
        }
        let Some(keys) = keys else { return Ok(LiveDelta::default()) };
        let new_source = ImageSource::new(&self.store, &arrived.image);
        let new_map = Map::new(&keys, &new_source, self.tree_nodes());
        let new = Version { map: &new_map, root: theirs.root(), keys: &keys, source: &new_source };
        // The difference is taken to what the head version itself shows, if that is what is in force here.
        let told = old.and_then(|old| Some((old, old.image.as_ref()?, old.told.get(&number)?)));
        let delta = match told {
            // Under new keys another entry may stand over the same state.
            Some((old, image, told))
                if ours.is_some_and(|ours| ours.entry == told.entry || ours.root() == told.root()) =>
            {
                let source = ImageSource::new(&self.store, image);
                let map = Map::new(&keys, &source, self.tree_nodes());
                // Looking there costs a walk over the whole map. A member may write what it likes into what is not protected,
                // so there only what has opened here is held on to.
                let Diverging { known, unseen } = &old.diverging;
                if !known.is_empty() || protected && !unseen.is_empty() {
                    let there = |place: Place| {
                        let region = RegionIndex::of(place.offset);
                        known.contains(&region) || protected && unseen.contains(&region)
                    };
                    open_all(number, &new, arrived.image.bytes(), &there, true)?;
                }
                let old = Version { map: &map, root: told.root(), keys: &keys, source: &source };
                if protected {
                    open_new_chunks(&old, &new)?;
                }
                open_changed(number, Some(&old), &new, arrived.image.bytes())
            }
            _ => {
                // A copy that has opened is not given up for one that has not, nor is anything protected taken.
                if protected || ours.is_some() {
                    open_all(number, &new, arrived.image.bytes(), &|_| true, false)?;
                }
                open_changed(number, None, &new, arrived.image.bytes())
            }
        };
        delta.map_err(Unfit::stopped)
    }

    pub(super) fn tree_nodes(&self) -> &NodeCache {
        self.tree.as_ref().map_or(&self.nodes, |tree| tree.node_cache())
    }
}

pub(super) fn refusal_status(
    number: BlockNumber,
    path: &[u8],
    reason: String,
    signer: Option<DeviceId>,
) -> RefusalStatus {
    RefusalStatus {
        block: number.0,
        path: format!("/{}", String::from_utf8_lossy(path)),
        kind: "remote".into(),
        signer: signer.map(|signer| signer.to_string()),
        reason,
    }
}
