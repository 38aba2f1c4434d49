//! Makes an arrived version, or its merge with what was changed here, the working head.

use super::allowance::limit;
use super::aside::Lost;
use super::conflicts::{note_conflicts, plural};
use super::core::{Core, Inner, Listed, now_seconds};
use super::error::EngineError;
use super::genesis::charter_id;
use super::graft::graft;
use super::join::only_grows;
use super::recut::Across;
use super::state::State;
use super::take::{Arrived, Plan, Taken};
use super::versions::Version as KeptVersion;
use crate::base::{BlockNumber, DeviceId, Id, InfoHash};
use crate::image::{Draft, Image, Stream};
use crate::map::{Map, Root};
use crate::record::{BlockCharter, Commit};
use crate::sync::Fetched;
use crate::tree::merge::{Crossed, Side, apply_merged, merge_block};
use crate::tree::version::Version;
use crate::tree::{Changes, DraftSource, Head, ImageSource, Stale};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Commits that a head may stand on before it is published.
const HEADS_MAX: usize = 8;
/// Commits that a merge starts from, of which none stands on another.
const BASES_MAX: usize = 4;
/// So many times a merge that is others' business is left to them.
const POSTPONEMENTS_MAX: u32 = 3;

/// What this device stands on when a version arrives.
pub(super) struct Ours {
    pub head: Head,
    pub state: State,
    pub entries: BTreeMap<BlockNumber, Listed>,
    pub heads: Vec<(Id, Arc<Commit>)>,
    /// Blocks with changes that no version holds.
    pub dirty: BTreeSet<BlockNumber>,
    /// The arrived version stands on all of [`Ours::heads`].
    pub covered: bool,
    /// The base of a merge, unless nobody has it; then, in pairs, what crossed it and what that one and the base stand on.
    pub bases: Vec<Base>,
    /// Changes that a policy which comes with the version forbids.
    pub aside: Lost,
}

/// A version that a merge starts from.
pub(super) struct Base {
    pub image: Image,
    pub entries: BTreeMap<BlockNumber, Listed>,
    pub roots: BTreeMap<BlockNumber, Option<Root>>,
}

impl Ours {
    /// Whether a device made this device's side of a block what it is.
    pub(super) fn is_by(&self, number: &BlockNumber, device: &DeviceId) -> bool {
        let signer = self.entries.get(number).map(|listed| &listed.entry.signer);
        self.dirty.contains(number) || signer == Some(device)
    }

    /// Whether an entry is no news here.
    fn is_known(&self, number: &BlockNumber, theirs: &Listed) -> bool {
        let base = self.bases.first().and_then(|base| base.entries.get(number));
        let known = [base, self.entries.get(number)];
        known.into_iter().flatten().any(|known| known.entry == theirs.entry)
    }

    /// Whether this device's side of a block has moved since the base.
    pub(super) fn moved(&self, number: &BlockNumber) -> bool {
        let entry = |listed: Option<&Listed>| listed.map(|listed| listed.entry.clone());
        let base = self.bases.first().and_then(|base| base.entries.get(number));
        self.dirty.contains(number) || !self.covered && entry(self.entries.get(number)) != entry(base)
    }
}

/// How the new head relates to the arrived version.
struct Relation {
    same_as_theirs: bool,
    merged: bool,
    /// A block that only grows was changed in it.
    broken: bool,
    /// Blocks of which one side was left out, since both together would hold too much.
    overflow: Overflow,
}

/// Which sides of merges were left out. What is left out is not stood upon: who made it finds it missing.
#[derive(Default, Clone, Copy)]
struct Overflow {
    ours: bool,
    theirs: bool,
}

/// What a merge of one block comes to.
enum Merge {
    Made(Option<Root>),
    /// Both together hold more than is tolerated: the later side stays.
    TooMuch {
        ours_stays: bool,
    },
}

impl Core {
    /// One try: none if somebody wrote meanwhile. Until `patience` files that are empty get time to be written.
    pub(super) fn adopt(
        &self,
        arrived: &Arrived,
        plan: &Plan,
        patience: Instant,
        across: Option<&Across>,
    ) -> Result<Option<Taken>, EngineError> {
        let tree = self.tree()?;
        let mut ours = self.ours(arrived, patience)?;
        if let Some(across) = across {
            ours.aside = self.bring_across(&mut ours, arrived, plan, across)?;
        }
        let mine = ours.heads.iter().any(|(_, commit)| commit.device == self.keys.device.public());
        let others_business = self.keys.publishes() && !mine && ours.dirty.is_empty();
        if !ours.covered && others_business && self.postpone(arrived.reference.infohash) {
            return Ok(Some(Taken::plain(Fetched::Later)));
        }
        let image = self.with_live(arrived, plan)?;
        let draft = Arc::new(self.store.draft(&image)?);
        let mut roots = BTreeMap::new();
        let (mut merged, mut broken, mut overflow) = (false, false, Overflow::default());
        let (mut aside, mut whole, mut changed) = (Lost::new(), Lost::new(), Lost::new());
        for (number, block) in &ours.state.charter.blocks {
            let Some(keys) = self.keys.block(*number, block) else { continue };
            let theirs = plan.theirs.contains(number).then(|| plan.entries.get(number)).flatten();
            let own = ours.head.roots.get(number).copied().flatten();
            // A block that begins empty has no entry: what does not count any more would stay in it.
            let forbidden =
                || ours.aside.iter().any(|(aside, _)| aside == number) || self.is_void(&ours, number);
            let own = own.filter(|_| theirs.is_some() || !forbidden());
            let carried = |root| graft(&self.store, &keys, self.tree_nodes(), &ours.head.image, root, &draft);
            let root = match (theirs, own) {
                (Some(theirs), _) if only_grows(&ours.state.policy, *number) => {
                    let union = self.join((*number, block), &keys, (arrived, theirs), &ours, &draft)?;
                    merged |= union.root.map(|root| root.id) != theirs.root().map(|root| root.id);
                    broken |= union.insists;
                    changed.extend(union.gives_way.then_some((*number, own)));
                    union.root
                }
                (Some(theirs), _) if !self.merges(&ours, number) => theirs.root(),
                (Some(theirs), own) if block.private.is_some() => {
                    let stays = ours.is_known(number, theirs);
                    whole.extend((!stays).then_some((*number, own)));
                    merged |= stays && id_of(own) != id_of(theirs.root());
                    if stays { own.map(carried).transpose()? } else { theirs.root() }
                }
                (Some(theirs), _) => {
                    match self.merge((*number, block), &keys, arrived, theirs, &ours, &draft)? {
                        Merge::Made(root) => {
                            merged |= root.map(|root| root.id) != theirs.root().map(|root| root.id);
                            root
                        }
                        Merge::TooMuch { ours_stays: true } => {
                            overflow.theirs = true;
                            own.map(carried).transpose()?
                        }
                        Merge::TooMuch { ours_stays: false } => {
                            overflow.ours = true;
                            let by_us = self.has_own_work(&ours, *number, arrived)?;
                            aside.extend(by_us.then_some((*number, own)));
                            theirs.root()
                        }
                    }
                }
                (None, own) => own.map(carried).transpose()?,
            };
            roots.insert(*number, root);
        }
        draft.truncate_empty();
        let head_image = draft.snapshot()?;
        drop(draft);
        let same_as_theirs = roots
            .iter()
            .all(|(number, root)| id_of(arrived.entries.get(number).and_then(Listed::root)) == id_of(*root));
        let views = self.views(&ours.state.policy, &ours.state.charter, &roots);
        let next = Head {
            image: head_image,
            roots,
            generation: ours.head.generation,
            changed: Default::default(),
            mark: Default::default(),
        };
        // Before the tree lets go of them: whatever fails from here on, the edits are kept.
        let before = self.keep_aside(&mut ours, aside, whole, changed)?;
        let _turn = self.turn.lock();
        match tree.adopt(ours.head.generation, next, views) {
            Ok(changes) => {
                let relation = Relation { same_as_theirs, merged, broken, overflow };
                self.settle(arrived, plan, image, changes, relation, ours).map(Some)
            }
            Err(Stale) => {
                self.inner().forget_since(before);
                Ok(None)
            }
        }
    }

    fn ours(&self, arrived: &Arrived, patience: Instant) -> Result<Ours, EngineError> {
        let head = self.head_to_merge(patience)?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let entry_of = |listed: Option<&Listed>| listed.map(|listed| listed.entry.clone());
        let next = self.next_entries(&inner, &head.roots)?;
        let changed = next
            .iter()
            .filter(|(number, listed)| entry_of(inner.entries.get(number)) != entry_of(Some(listed)));
        let dirty = changed.map(|(number, _)| *number).collect();
        let covered = inner.heads.iter().all(|(_, commit)| arrived.commit.covers(commit));
        let theirs = (arrived.reference.commit.id, &*arrived.commit);
        let mut found: Vec<_> =
            inner.versions.bases(&inner.heads, theirs).into_iter().take(BASES_MAX).cloned().collect();
        if covered && found.is_empty() {
            found.extend(inner.state.head.and_then(|head| inner.versions.get(&head.infohash)).cloned());
        }
        let bases = self.open_bases(&inner, &found)?;
        let (state, entries, heads) = (inner.state.clone(), inner.entries.clone(), inner.heads.clone());
        drop(inner);
        Ok(Ours { head, state, entries, heads, dirty, covered, bases, aside: Lost::new() })
    }

    /// Opens what a merge starts from. A version that crossed the base counts where the newest that both stand on is here.
    fn open_bases(&self, inner: &Inner, found: &[KeptVersion]) -> Result<Vec<Base>, EngineError> {
        let Some((base, others)) = found.split_first() else {
            // Without any commit of its own this device stands on the empty tree, as everybody did at first.
            let image = Image::empty(&self.store);
            let empty = || Base { image, entries: BTreeMap::new(), roots: BTreeMap::new() };
            return Ok(inner.heads.is_empty().then(empty).into_iter().collect());
        };
        let mut bases = vec![self.open_base(base)?];
        let Some(head) = base.commit.as_ref().map(|commit| (base.id(), commit.clone())) else {
            return Ok(bases);
        };
        for other in others {
            let commit = other.commit.as_deref();
            let below =
                commit.map(|commit| inner.versions.bases(std::slice::from_ref(&head), (other.id(), commit)));
            if let Some(below) = below.as_ref().and_then(|below| below.first()) {
                // The base alone costs a conflict at most.
                if let (Ok(other), Ok(below)) = (self.open_base(other), self.open_base(below)) {
                    bases.extend([other, below]);
                }
            }
        }
        Ok(bases)
    }

    fn open_base(&self, version: &KeptVersion) -> Result<Base, EngineError> {
        let entries = match &version.commit {
            Some(commit) => self.open_catalogue(&version.image, commit)?.1,
            None => BTreeMap::new(),
        };
        let roots = entries.iter().map(|(number, listed)| (*number, listed.root())).collect();
        Ok(Base { image: version.image.clone(), entries, roots })
    }

    /// Whether a block is merged here, rather than taken as it came.
    fn merges(&self, ours: &Ours, number: &BlockNumber) -> bool {
        ours.moved(number) && self.may_write(&ours.state.policy, &ours.state.charter, *number)
    }

    /// Both heads are others': whose commit is in one of them merges. Only where nobody does, this device does.
    fn postpone(&self, infohash: InfoHash) -> bool {
        let mut postponed = self.postponed.lock();
        let times = postponed.entry(infohash).or_insert(0);
        *times += 1;
        *times <= POSTPONEMENTS_MAX
    }

    /// Remembers what the tree now stands on.
    fn settle(
        &self,
        arrived: &Arrived,
        plan: &Plan,
        image: Image,
        changes: Changes,
        relation: Relation,
        ours: Ours,
    ) -> Result<Taken, EngineError> {
        let tree = self.tree()?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        let State { policy, charter, .. } = &ours.state;
        if policy.supersedes(&inner.state.policy) {
            (inner.state.policy, inner.state.charter) = (policy.clone(), charter.clone());
            limit(tree, charter);
            self.say_what_is_closed(&inner);
        }
        let arrived_head = (arrived.reference.commit.id, arrived.commit.clone());
        let left_out = plan.unaware || relation.overflow.theirs;
        self.joins.arrives(ours.heads.is_empty() && inner.state.head.is_none());
        let stands_on_it = !left_out || ours.heads.is_empty();
        inner.heads = stands_on_it.then_some(arrived_head).into_iter().collect();
        let stays = !relation.overflow.ours
            && !self.leaves_others_behind(&ours, &arrived.commit, arrived.reference.commit.id);
        if !stands_on_it || !ours.covered && self.keys.publishes() && stays {
            inner.heads.extend(ours.heads);
            inner.heads.truncate(HEADS_MAX);
        }
        inner.catalogue = arrived.catalogue;
        inner.entries = plan.entries.clone();
        inner.spoilt = plan.refusals.iter().map(|refusal| BlockNumber(refusal.block)).collect();
        inner.state.head = Some(arrived.reference);
        inner.state.lamport = inner.state.lamport.max(arrived.commit.lamport);
        // Not the generation of the flush above: somebody may have written since the adoption.
        let outdated = self.is_outdated(&inner, &arrived.commit)?;
        let complete = relation.same_as_theirs && plan.is_sound() && !outdated;
        inner.published = (complete || relation.same_as_theirs && !self.keys.publishes())
            .then_some(ours.head.generation + 1);
        let conflicts = note_conflicts(&mut inner, tree, &changes);
        if conflicts > 0 {
            tracing::warn!(
                "conflict: {conflicts} file{} edited on two devices; both edits are kept, `kilofs status` names the copies",
                plural(conflicts)
            );
        }
        self.install(&mut inner, &head);
        self.keep_arrived(&mut inner, arrived, image);
        self.save(&inner)?;
        drop(inner);
        self.say_taken(arrived, &relation, &changes);
        let outcome = if !plan.is_sound() || relation.broken {
            Fetched::Refused
        } else if relation.merged || !relation.same_as_theirs || outdated && self.keys.publishes() {
            Core::count(&self.done.merged);
            Fetched::Merged
        } else {
            Core::count(&self.done.adopted);
            Fetched::Current
        };
        Ok(Taken { outcome, changes })
    }

    /// One line on what came, from whom and where.
    fn say_taken(&self, arrived: &Arrived, relation: &Relation, changes: &Changes) {
        let Some(rest) = self.said.1.due(Instant::now()) else { return };
        let from = self.called(&arrived.commit.device);
        let version = super::report::short(&arrived.reference.infohash);
        // Names stay out of the log: it is not sealed.
        let what = match (changes.too_many, changes.entries.len(), changes.inodes.len()) {
            (true, ..) => "very much".into(),
            (false, 0, 0) => "nothing that shows".into(),
            (false, 0, files) => format!("{files} file{}", plural(files)),
            (false, names, _) => format!("{names} name{}", plural(names)),
        };
        let how = if relation.merged { "merged with what was changed here" } else { "taken" };
        tracing::info!(%version, "changes of {from} {how}: {what}{rest}");
    }

    /// Whether a version was made before the policy in force was known to who made it: it carries an older charter, and
    /// who joins would look for the newer one in vain. It has to be followed by another.
    fn is_outdated(&self, inner: &Inner, commit: &Commit) -> Result<bool, EngineError> {
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let state = &inner.state;
        let charter = charter_id(keys, &state.charter);
        let older = commit.policy_counter < state.policy.counter || commit.charter.id != charter;
        Ok(state.policy.counter > 0 && older)
    }

    pub(super) fn keep_arrived(&self, inner: &mut Inner, arrived: &Arrived, image: Image) {
        let commit = Some(arrived.commit.clone());
        self.keep(inner, KeptVersion { reference: arrived.reference, time: now_seconds(), image, commit });
    }

    fn merge(
        &self,
        (number, block): (BlockNumber, &BlockCharter),
        keys: &crate::crypt::SealKeys,
        arrived: &Arrived,
        theirs: &Listed,
        ours: &Ours,
        draft: &Arc<Draft>,
    ) -> Result<Merge, EngineError> {
        let nodes = self.tree_nodes();
        let their_source = ImageSource::new(&self.store, &arrived.image);
        let our_source = ImageSource::new(&self.store, &ours.head.image);
        let sources: Vec<_> =
            ours.bases.iter().map(|base| ImageSource::new(&self.store, &base.image)).collect();
        let their_map = Map::new(keys, &their_source, nodes);
        let our_map = Map::new(keys, &our_source, nodes);
        let maps: Vec<_> = sources.iter().map(|source| Map::new(keys, source, nodes)).collect();
        let root = |base: &Base| base.roots.get(&number).copied().flatten();
        let all = maps.iter().zip(&sources).zip(&ours.bases);
        let bases: Vec<_> =
            all.map(|((map, source), base)| Version { map, root: root(base), keys, source }).collect();
        let (base, others) =
            bases.split_first().map_or((None, &[][..]), |(base, others)| (Some(*base), others));
        let crossed = others.chunks_exact(2).map(|pair| Crossed { version: pair[0], below: pair[1] });
        let crossed: Vec<_> = crossed.collect();
        let our_root = ours.head.roots.get(&number).copied().flatten();
        let our_version = Version { map: &our_map, root: our_root, keys, source: &our_source };
        let their_version = Version { map: &their_map, root: theirs.root(), keys, source: &their_source };
        let our_side = self.our_side(our_version, &ours.heads, ours.dirty.contains(&number));
        let their_side = Side {
            version: their_version,
            lamport: arrived.commit.lamport,
            commit: arrived.reference.commit.id,
            device: arrived.commit.device,
            time: arrived.commit.time,
        };
        let merged = merge_block(number, base, &crossed, &our_side, &their_side)?;
        let sink = |draft: &Arc<Draft>| DraftSource::new(draft.clone(), Stream::Fresh);
        let apply = |sink: &mut DraftSource| apply_merged(&their_version, &merged, &our_source, sink);
        if !block.quota.is_none() {
            // Tried beside the draft: a merge frees what it replaces, and where it holds too much that stays, and must live.
            let trial = Arc::new(self.store.draft(&draft.snapshot()?)?);
            let root = apply(&mut sink(&trial))?;
            let is_known = [theirs.root(), our_root].map(id_of).contains(&id_of(root));
            if !is_known && self.overflows(number, block, (&trial.snapshot()?, root))?.is_some() {
                return Ok(Merge::TooMuch { ours_stays: our_side.wins_over(&their_side) });
            }
        }
        Ok(Merge::Made(apply(&mut sink(draft))?))
    }

    /// Who stands behind this device's side of a merge: the newest commit below the head, or, where there are changes
    /// that no commit holds yet, the commit that the next one would be.
    fn our_side<'a>(&self, version: Version<'a>, heads: &[(Id, Arc<Commit>)], dirty: bool) -> Side<'a> {
        let newest = heads.iter().max_by_key(|(id, commit)| (commit.lamport, *id));
        match newest {
            Some((id, commit)) if !dirty => Side {
                version,
                lamport: commit.lamport,
                commit: *id,
                device: commit.device,
                time: commit.time,
            },
            _ => {
                let inner = self.inner();
                let own = [&inner.state.session.0[..], &inner.state.counter_reserved.to_le_bytes()].concat();
                Side {
                    version,
                    lamport: newest.map_or(0, |(_, commit)| commit.lamport).saturating_add(1),
                    commit: Id(*blake3::hash(&own).as_bytes()),
                    device: self.keys.device.public(),
                    time: i64::from(now_seconds()),
                }
            }
        }
    }
}

fn id_of(root: Option<Root>) -> Option<Id> {
    root.map(|root| root.id)
}
