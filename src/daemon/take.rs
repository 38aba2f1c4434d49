//! What happens when a version has arrived: its entries are checked, its nodes opened, and it becomes the head, or is
//! merged with what was changed here. Nothing of it is shown before it has opened; a block that is refused stays as
//! it was, with the bytes that this device already has.

use super::conflicts::note_conflicts;
use super::core::{Core, Inner, Listed, charter_id, now_seconds};
use super::error::EngineError;
use super::graft::graft;
use super::status::RefusalStatus;
use super::versions::Version;
use crate::base::{BlockNumber, DeviceId, Id, InfoHash, RegionIndex};
use crate::crypt::seal::BlobKind;
use crate::image::{Draft, Image, Stream};
use crate::map::{Map, Root};
use crate::record::{Charter, Commit, Mode, Policy, Refusal, VersionRef, admit};
use crate::sync::Fetched;
use crate::tree::merge::{Side, VersionMap, apply_merged, merge_block};
use crate::tree::verify::{LiveDelta, open_changed};
use crate::tree::{Changes, DraftSource, Head, ImageSource, Stale};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a merge is repeated because somebody went on writing meanwhile.
const RETRIES_MAX: usize = 20;

/// Commits that a head may stand on before it is published.
const HEADS_MAX: usize = 8;
/// So many times a merge that is others' business is left to them.
const POSTPONEMENTS_MAX: u32 = 3;

/// What taking a version led to.
pub struct Taken {
    /// For the machine.
    pub outcome: Fetched,
    /// For the kernel.
    pub changes: Changes,
}

impl Taken {
    fn plain(outcome: Fetched) -> Taken {
        Taken { outcome, changes: Changes::default() }
    }
}

/// A version that has been opened as far as its commit.
struct Arrived {
    reference: VersionRef,
    image: Image,
    commit: Arc<Commit>,
    catalogue: Option<Root>,
    entries: BTreeMap<BlockNumber, Listed>,
}

/// What each block becomes.
struct Plan {
    /// The entries in force from now on.
    entries: BTreeMap<BlockNumber, Listed>,
    /// Blocks whose new state comes from the arrived version as it is.
    theirs: Vec<BlockNumber>,
    refusals: Vec<RefusalStatus>,
    live: LiveDelta,
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
        let mut changes = self.follow_policy(&arrived, policy)?;
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
        self.keep(&mut inner, Version { reference, time: now_seconds(), image, commit: None });
        self.save(&inner)?;
        Core::count(&self.done.adopted);
        Ok(Taken::plain(Fetched::Current))
    }

    fn open_arrived(&self, reference: VersionRef, image: Image) -> Result<Arrived, EngineError> {
        let commit = Arc::new(self.open_commit(&image, &reference)?);
        let (catalogue, entries) = self.open_catalogue(&image, &commit)?;
        Ok(Arrived { reference, image, commit, catalogue, entries })
    }

    /// Takes a newer policy, if the version carries the charter that it names.
    fn follow_policy(&self, arrived: &Arrived, policy: &Policy) -> Result<Changes, EngineError> {
        let known = self.inner().state.policy.clone();
        if !policy.supersedes(&known) {
            return Ok(Changes::default());
        }
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let current = self.inner().state.charter.clone();
        let charter = if charter_id(keys, &current) == policy.charter {
            current
        } else {
            let locator = arrived.commit.charter;
            let sealed = ImageSource::new(&self.store, &arrived.image).bytes(locator.place);
            let opened = sealed
                .ok()
                .and_then(|sealed| keys.open_blob(BlobKind::Charter, &policy.charter, &sealed).ok());
            match opened.and_then(|plain| Charter::decode(&plain).ok()) {
                Some(charter) => charter,
                None => {
                    tracing::warn!(
                        counter = policy.counter,
                        "a newer policy names a charter that did not come with it; the old one stays in force"
                    );
                    return Ok(Changes::default());
                }
            }
        };
        self.enact(policy.clone(), charter)
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
            let below = heads
                .iter()
                .any(|(_, head)| head.covers(arrived.commit.session, arrived.commit.counter, &id));
            if below {
                self.keep_arrived(&mut inner, arrived, arrived.image.clone());
                return Ok(Taken::plain(Fetched::Behind));
            }
        }
        let plan = match self.plan(arrived)? {
            Some(plan) => plan,
            None => return Ok(Taken::plain(Fetched::Broken)),
        };
        for _ in 0..RETRIES_MAX {
            if let Some(taken) = self.attempt(arrived, &plan)? {
                return Ok(taken);
            }
        }
        Ok(Taken::plain(Fetched::Later))
    }

    fn keep_arrived(&self, inner: &mut Inner, arrived: &Arrived, image: Image) {
        let commit = Some(arrived.commit.clone());
        self.keep(inner, Version { reference: arrived.reference, time: now_seconds(), image, commit });
    }

    /// Checks every entry and opens every node that is new. None where nothing at all could be taken.
    fn plan(&self, arrived: &Arrived) -> Result<Option<Plan>, EngineError> {
        let inner = self.inner();
        let (policy, charter) = (inner.state.policy.clone(), inner.state.charter.clone());
        let known = inner.entries.clone();
        let old_image =
            inner.state.head.and_then(|head| inner.versions.get(&head.infohash)).map(|v| v.image.clone());
        drop(inner);
        let mut plan = Plan {
            entries: BTreeMap::new(),
            theirs: Vec::new(),
            refusals: Vec::new(),
            live: LiveDelta::default(),
        };
        let mut good = 0;
        for (number, block) in &charter.blocks {
            let ours = known.get(number).filter(|listed| listed.entry.birth == block.birth);
            let Some(theirs) = arrived.entries.get(number).filter(|listed| listed.entry.birth == block.birth)
            else {
                if let Some(ours) = ours {
                    plan.entries.insert(*number, ours.clone());
                }
                continue;
            };
            let checked =
                self.check_entry(theirs, ours, (&policy, &charter), *number, arrived, old_image.as_ref());
            match checked {
                Ok(live) => {
                    good += 1;
                    plan.live.add(&live);
                    plan.entries.insert(*number, theirs.clone());
                    plan.theirs.push(*number);
                }
                Err(refused) => {
                    let status = refusal_status(
                        *number,
                        &block.path,
                        refused,
                        theirs.entry.signature_valid(&self.keys.database).then_some(theirs.entry.signer),
                    );
                    tracing::warn!(block = number.0, reason = %status.reason, "refused");
                    plan.refusals.push(status);
                    if let Some(ours) = ours {
                        plan.entries.insert(*number, ours.clone());
                    }
                }
            }
        }
        if !plan.refusals.is_empty() {
            let mut inner = self.inner();
            inner.state.refusals.extend(plan.refusals.iter().cloned());
            self.save(&inner)?;
        }
        Ok((good > 0 || plan.refusals.is_empty()).then_some(plan))
    }

    /// An entry counts if the policy allows its signer, and if its map opens.
    fn check_entry(
        &self,
        theirs: &Listed,
        ours: Option<&Listed>,
        (policy, charter): (&Policy, &Charter),
        number: BlockNumber,
        arrived: &Arrived,
        old_image: Option<&Image>,
    ) -> Result<LiveDelta, String> {
        let block = charter.blocks.get(&number).ok_or("the charter has no such block")?;
        let keys = self.keys.block(number, block).ok_or("no key")?;
        if theirs.entry.commitment != keys.commitment() {
            return Err(Refusal::WrongCommitment.to_string());
        }
        if ours.is_none_or(|ours| ours.entry != theirs.entry) {
            let mode = policy.modes.get(usize::from(number.0)).copied().unwrap_or(Mode::ReadWrite);
            admit(&theirs.entry, &self.keys.database, mode, block, &charter.members, &self.keys.admin_public)
                .map_err(|refusal| refusal.to_string())?;
            let older = ours.is_some_and(|ours| theirs.entry.counter < ours.entry.counter);
            if matches!(mode, Mode::ReadOnly | Mode::Owner) && older {
                return Err("it is older than what is here".into());
            }
        }
        let new_source = ImageSource::new(&self.store, &arrived.image);
        let new = VersionMap { map: Map::new(&keys, &new_source, self.tree_nodes()), root: theirs.root() };
        let delta = match (old_image, ours) {
            (Some(image), Some(ours)) => {
                let source = ImageSource::new(&self.store, image);
                let old = VersionMap { map: Map::new(&keys, &source, self.tree_nodes()), root: ours.root() };
                open_changed(Some(&old), &new, number, arrived.image.bytes())
            }
            _ => open_changed(None, &new, number, arrived.image.bytes()),
        };
        delta.map_err(|error| format!("it does not open: {error}"))
    }

    /// Both heads are others': whose commit is in one of them merges. Only where nobody does, this device does.
    fn postpone(&self, infohash: InfoHash) -> bool {
        let mut postponed = self.postponed.lock();
        let times = postponed.entry(infohash).or_insert(0);
        *times += 1;
        *times <= POSTPONEMENTS_MAX
    }

    /// Fills blocks that nothing valid is known of from an older version of the record.
    pub fn supplement(&self, reference: VersionRef, image: Image) -> Result<Changes, EngineError> {
        let _work = self.work.lock();
        let tree = self.tree()?;
        let arrived = self.open_arrived(reference, image)?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let (policy, charter) = (inner.state.policy.clone(), inner.state.charter.clone());
        let known = inner.entries.clone();
        drop(inner);
        let draft = Arc::new(self.store.draft(&head.image)?);
        let (mut roots, mut found) = (head.roots.clone(), Vec::new());
        for (number, block) in charter.blocks.iter().filter(|(number, _)| !known.contains_key(number)) {
            let Some(theirs) = arrived.entries.get(number).filter(|listed| listed.entry.birth == block.birth) else {
                continue;
            };
            if self.check_entry(theirs, None, (&policy, &charter), *number, &arrived, None).is_err() {
                continue;
            }
            let (Some(root), Some(keys)) = (theirs.root(), self.keys.block(*number, block)) else { continue };
            let root = graft(&self.store, &keys, self.tree_nodes(), &arrived.image, root, &draft)?;
            roots.insert(*number, Some(root));
            found.push((*number, Listed { entry: theirs.entry.clone(), place: Some(root.place) }));
        }
        if found.is_empty() {
            return Ok(Changes::default());
        }
        let views = self.views(&policy, &charter, &roots);
        let next = Head { image: draft.snapshot()?, roots, generation: head.generation, changed: Default::default() };
        drop(draft);
        let Ok(changes) = tree.adopt(head.generation, next, views) else { return Ok(Changes::default()) };
        let head = tree.flush()?;
        let mut inner = self.inner();
        inner.entries.extend(found);
        inner.published = Some(head.generation);
        self.install(&mut inner, &head);
        self.keep_arrived(&mut inner, &arrived, arrived.image.clone());
        self.save(&inner)?;
        Ok(changes)
    }

    /// Blocks of the charter that nothing valid is known of.
    pub fn lacks_blocks(&self) -> bool {
        let inner = self.inner();
        inner.state.charter.blocks.keys().any(|number| !inner.entries.contains_key(number))
    }

    fn tree_nodes(&self) -> &crate::map::NodeCache {
        self.tree.as_ref().map_or(&self.nodes, |tree| tree.node_cache())
    }

    /// One try: none if somebody wrote meanwhile.
    fn attempt(&self, arrived: &Arrived, plan: &Plan) -> Result<Option<Taken>, EngineError> {
        let tree = self.tree()?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let state = inner.state.clone();
        let covered =
            inner.heads.iter().all(|(id, commit)| arrived.commit.covers(commit.session, commit.counter, id));
        let dirty: Vec<BlockNumber> = self
            .next_entries(&inner, &head)?
            .into_iter()
            .filter(|(number, listed)| {
                inner.entries.get(number).map(|known| &known.entry) != Some(&listed.entry)
            })
            .map(|(number, _)| number)
            .collect();
        let mine = inner.heads.iter().any(|(_, commit)| commit.device == self.keys.device.public());
        let other_merges = self.keys.publishes() && !mine && dirty.is_empty();
        if !covered && other_merges && self.postpone(arrived.reference.infohash) {
            return Ok(Some(Taken::plain(Fetched::Later)));
        }
        let merges = !covered && self.keys.publishes() || !dirty.is_empty();
        let base = if covered {
            inner.state.head.and_then(|head| inner.versions.get(&head.infohash)).cloned()
        } else {
            let heads: Vec<_> = inner.heads.iter().map(|(_, commit)| commit.clone()).collect();
            inner.versions.base(&heads, &arrived.commit).cloned()
        };
        let (our_entries, our_heads) = (inner.entries.clone(), inner.heads.clone());
        drop(inner);

        let image = self.with_live(arrived, plan)?;
        let draft = Arc::new(self.store.draft(&image)?);
        let base_entries = match base.as_ref().and_then(|version| Some((version, version.commit.as_ref()?))) {
            Some((version, commit)) => self.open_catalogue(&version.image, commit)?.1,
            None => BTreeMap::new(),
        };
        let mut roots = BTreeMap::new();
        let mut merged_any = false;
        for (number, block) in &state.charter.blocks {
            let ours = head.roots.get(number).copied().flatten();
            let theirs = plan.theirs.contains(number).then(|| plan.entries.get(number)).flatten();
            let Some(keys) = self.keys.block(*number, block) else { continue };
            let changed_here = dirty.contains(number)
                || !covered
                    && our_entries.get(number).map(|l| &l.entry)
                        != base_entries.get(number).map(|l| &l.entry);
            let root = match theirs {
                Some(theirs) if !changed_here || !merges => theirs.root(),
                Some(theirs) if !self.may_write(&state.policy, &state.charter, *number) => theirs.root(),
                Some(theirs) => {
                    let base_root = base_entries.get(number).and_then(Listed::root);
                    let base = base.as_ref().map(|version| (&version.image, base_root));
                    let merged = self.merge(
                        &keys,
                        arrived,
                        theirs,
                        &head,
                        ours,
                        base,
                        &our_heads,
                        dirty.contains(number),
                        &draft,
                    )?;
                    merged_any |= merged.map(|root| root.id) != theirs.root().map(|root| root.id);
                    merged
                }
                None => match ours {
                    Some(root) => {
                        Some(graft(&self.store, &keys, self.tree_nodes(), &head.image, root, &draft)?)
                    }
                    None => None,
                },
            };
            roots.insert(*number, root);
        }
        draft.truncate_empty();
        let image_now = draft.snapshot()?;
        drop(draft);
        let same_as_theirs = roots.iter().all(|(number, root)| {
            let theirs = arrived.entries.get(number).and_then(Listed::root).map(|root| root.id);
            theirs == root.map(|root| root.id)
        });
        let views = self.views(&state.policy, &state.charter, &roots);
        let next = Head { image: image_now, roots, generation: head.generation, changed: Default::default() };
        let changes = match tree.adopt(head.generation, next, views) {
            Ok(changes) => changes,
            Err(Stale) => return Ok(None),
        };
        self.settle(arrived, plan, image, changes, (covered, same_as_theirs, merged_any), our_heads).map(Some)
    }

    /// Remembers what the tree now stands on.
    fn settle(
        &self,
        arrived: &Arrived,
        plan: &Plan,
        image: Image,
        changes: Changes,
        (covered, same_as_theirs, merged_any): (bool, bool, bool),
        our_heads: Vec<(Id, Arc<Commit>)>,
    ) -> Result<Taken, EngineError> {
        let tree = self.tree()?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        let theirs = (arrived.reference.commit.id, arrived.commit.clone());
        inner.heads = vec![theirs];
        if !covered && self.keys.publishes() {
            inner.heads.extend(our_heads);
            inner.heads.truncate(HEADS_MAX);
        }
        inner.catalogue = arrived.catalogue;
        inner.entries = plan.entries.clone();
        inner.state.head = Some(arrived.reference);
        inner.state.lamport = inner.state.lamport.max(arrived.commit.lamport);
        inner.published = same_as_theirs.then_some(head.generation);
        note_conflicts(&mut inner, tree, &changes);
        self.install(&mut inner, &head);
        self.keep_arrived(&mut inner, arrived, image);
        self.save(&inner)?;
        let outcome = if merged_any || !same_as_theirs && plan.refusals.is_empty() {
            Core::count(&self.done.merged);
            Fetched::Merged
        } else if !plan.refusals.is_empty() {
            Fetched::Refused
        } else {
            Core::count(&self.done.adopted);
            Fetched::Current
        };
        Ok(Taken { outcome, changes })
    }

    /// The arrived image with live counts: those of the old head, less what is gone, plus what is new.
    fn with_live(&self, arrived: &Arrived, plan: &Plan) -> Result<Image, EngineError> {
        let inner = self.inner();
        let old = inner.state.head.and_then(|head| inner.versions.get(&head.infohash)).cloned();
        drop(inner);
        let mut live: BTreeMap<RegionIndex, i64> = BTreeMap::new();
        if let Some(old) = &old {
            for index in (0..old.image.regions()).map(RegionIndex) {
                live.insert(index, i64::from(old.image.region(index).live));
            }
        }
        let mut delta = plan.live.clone();
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        if let Some(old) = &old
            && let Some(commit) = &old.commit
        {
            delta.remove(old.reference.commit.place);
            delta.remove(commit.charter.place);
            let source = ImageSource::new(&self.store, &old.image);
            let root = commit.catalogue.as_ref().map(|(root, place)| Root {
                level: root.level,
                id: root.id,
                place: *place,
            });
            Map::new(keys, &source, &self.nodes)
                .each_node(root.as_ref(), &mut |place| delta.remove(place))?;
        }
        delta.insert(arrived.reference.commit.place);
        delta.insert(arrived.commit.charter.place);
        let source = ImageSource::new(&self.store, &arrived.image);
        Map::new(keys, &source, &self.nodes)
            .each_node(arrived.catalogue.as_ref(), &mut |place| delta.insert(place))?;
        for (region, bytes) in delta.regions() {
            *live.entry(region).or_default() += bytes;
        }
        let counts =
            live.into_iter().map(|(region, bytes)| (region, u32::try_from(bytes.max(0)).unwrap_or(u32::MAX)));
        Ok(arrived.image.with_live(&counts.collect()))
    }

    #[allow(clippy::too_many_arguments)]
    fn merge(
        &self,
        keys: &crate::crypt::seal::SealKeys,
        arrived: &Arrived,
        theirs: &Listed,
        head: &Head,
        ours: Option<Root>,
        base: Option<(&Image, Option<Root>)>,
        our_heads: &[(Id, Arc<Commit>)],
        dirty: bool,
        draft: &Arc<Draft>,
    ) -> Result<Option<Root>, EngineError> {
        let nodes = self.tree_nodes();
        let their_source = ImageSource::new(&self.store, &arrived.image);
        let our_source = ImageSource::new(&self.store, &head.image);
        let their_map = VersionMap { map: Map::new(keys, &their_source, nodes), root: theirs.root() };
        let our_map = VersionMap { map: Map::new(keys, &our_source, nodes), root: ours };
        let base_source = base.map(|(image, root)| (ImageSource::new(&self.store, image), root));
        let base_map = base_source
            .as_ref()
            .map(|(source, root)| VersionMap { map: Map::new(keys, source, nodes), root: *root });
        let our_side = self.our_side(our_heads, dirty);
        let their_side = Side {
            lamport: arrived.commit.lamport,
            commit: arrived.reference.commit.id,
            device: arrived.commit.device,
            time: arrived.commit.time,
        };
        let merged = merge_block(base_map.as_ref(), (&our_map, &our_side), (&their_map, &their_side))?;
        let mut sink = DraftSource::new(draft.clone(), Stream::Fresh);
        Ok(apply_merged(&their_map, &merged, &our_map, &mut sink)?)
    }

    /// Who stands behind this device's side of a merge: the newest commit below the head, or, where there are changes
    /// that no commit holds yet, the commit that the next one would be.
    fn our_side(&self, heads: &[(Id, Arc<Commit>)], dirty: bool) -> Side {
        let newest = heads.iter().max_by_key(|(id, commit)| (commit.lamport, *id));
        match newest {
            Some((id, commit)) if !dirty => {
                Side { lamport: commit.lamport, commit: *id, device: commit.device, time: commit.time }
            }
            _ => {
                let inner = self.inner();
                let own = [&inner.state.session.0[..], &inner.state.counter_reserved.to_le_bytes()].concat();
                Side {
                    lamport: newest.map_or(0, |(_, commit)| commit.lamport) + 1,
                    commit: Id(*blake3::hash(&own).as_bytes()),
                    device: self.keys.device.public(),
                    time: i64::from(now_seconds()),
                }
            }
        }
    }
}

fn refusal_status(
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
