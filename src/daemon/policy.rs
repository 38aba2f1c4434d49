//! A newer policy comes into force: write access changes at once, local edits that it forbids are set aside.

use super::allowance::limit;
use super::commands::bytes;
use super::control::{Ground, GroundBlock, Listing};
use super::core::{Core, Inner};
use super::error::EngineError;
use super::genesis::charter_id;
use super::graft::graft;
use super::moves::{Announced, Followed};
use super::recut::Prepared;
use crate::base::BlockNumber;
use crate::record::{Charter, Lifeline, Policy, SignedItem};
use crate::tree::{Changes, Head, Stale};
use data_encoding::HEXLOWER;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const RETRIES_MAX: usize = 20;

impl Core {
    /// What an admin makes the next policy from.
    pub fn ground(&self) -> Result<Ground, EngineError> {
        let _work = self.work.lock();
        let head = self.tree()?.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        self.ground_of(&inner, &head)
    }

    /// The devices whose commits the head stands on, hexadecimal.
    pub fn makers(&self) -> BTreeSet<String> {
        let inner = self.inner();
        let commits = inner.heads.iter().map(|(_, commit)| commit);
        let makers = commits
            .flat_map(|commit| commit.vector.iter().map(|(maker, _)| maker.device).chain([commit.device]));
        makers.map(|device| device.to_string()).collect()
    }

    pub(super) fn ground_of(&self, inner: &Inner, head: &Head) -> Result<Ground, EngineError> {
        let entries = self.next_entries(inner, &head.roots)?;
        let blocks = entries.iter().map(|(number, listed)| GroundBlock {
            number: number.0,
            counter: listed.entry.counter,
            root: listed.entry.root.as_ref().map(|root| root.id.to_string()),
        });
        Ok(Ground {
            policy_hex: HEXLOWER.encode(&inner.state.policy.encode()),
            charter_hex: HEXLOWER.encode(&inner.state.charter.encode()),
            blocks: blocks.collect(),
            lifeline_hex: inner.state.lifeline.as_ref().map(|item| HEXLOWER.encode(&item.encode())),
        })
    }

    /// Takes a policy, its charter and its lifeline, encoded, as [`Core::enact_own`] does.
    pub fn enact_encoded(
        &self,
        (policy, charter, lifeline): (&str, &str, &str),
        ground: &Ground,
        listing: &Listing,
    ) -> Result<Changes, EngineError> {
        let malformed = |_| EngineError::Usage("the policy, its charter or its lifeline is malformed".into());
        let policy = Policy::decode(&bytes(policy)?).map_err(malformed)?;
        let charter = Charter::decode(&bytes(charter)?).map_err(malformed)?;
        let lifeline = SignedItem::decode(&bytes(lifeline)?)
            .map_err(|_| EngineError::Usage("the lifeline is malformed".into()))?;
        self.enact_own(policy, charter, ground, listing, lifeline)
    }

    /// Takes a policy that this device's admin signed, if nothing moved since its ground was asked for.
    pub fn enact_own(
        &self,
        policy: Policy,
        charter: Charter,
        ground: &Ground,
        listing: &Listing,
        lifeline: SignedItem,
    ) -> Result<Changes, EngineError> {
        let _work = self.work.lock();
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let signed = policy.verify(&self.keys.database, &self.keys.admin_public);
        if !signed || policy.charter != charter_id(keys, &charter) {
            return Err(EngineError::Usage("the policy is not signed by this database's admin key".into()));
        }
        let head = self.tree()?.flush()?;
        {
            let mut inner = self.inner();
            self.install(&mut inner, &head);
            if !policy.supersedes(&inner.state.policy) || self.ground_of(&inner, &head)? != *ground {
                return Err(EngineError::Moved);
            }
        }
        // Before it is in force: whatever happens then, it is known what was wanted.
        self.note_made(&policy, &charter, listing)?;
        let enacted = self.enact_prepared(&policy, &charter, ground);
        if enacted.is_err() {
            self.note_unmade(&policy)?;
        }
        let changes = enacted?;
        self.note_lifeline(lifeline)?;
        Ok(changes)
    }

    fn enact_prepared(
        &self,
        policy: &Policy,
        charter: &Charter,
        ground: &Ground,
    ) -> Result<Changes, EngineError> {
        let Some(prepared) = self.prepared(ground, charter)? else {
            return self.enact(policy.clone(), charter.clone(), &BTreeSet::new());
        };
        let enacted = self.try_enact(policy, charter, &BTreeSet::new(), Some(&prepared))?;
        tracing::info!("policy {} is in force, {} block(s)", policy.counter, charter.blocks.len());
        enacted.ok_or(EngineError::Moved)
    }

    /// Takes a rotation that this device's admin announced, if nothing moved since its ground was asked for.
    pub fn rotate(&self, announced: &Announced, ground: &Ground) -> Result<Changes, EngineError> {
        let _work = self.work.lock();
        let head = self.tree()?.flush()?;
        {
            let mut inner = self.inner();
            self.install(&mut inner, &head);
            if self.ground_of(&inner, &head)? != *ground {
                return Err(EngineError::Moved);
            }
        }
        match self.follow_now(announced, true)? {
            Followed::Turned(changes) => Ok(changes),
            Followed::LeftOut(_) => {
                Err(EngineError::Usage("the new keys are not sealed to this device".into()))
            }
            Followed::Nothing => {
                Err(EngineError::Usage("the rotation is not signed by this database's admin key".into()))
            }
        }
    }

    /// Keeps a lifeline if it is the admin's and newer than the one that is known; tells what is new then.
    pub fn note_lifeline(&self, item: SignedItem) -> Result<Option<Lifeline>, EngineError> {
        let Some(told) = self.keys.open_lifeline(&item) else { return Ok(None) };
        let mut inner = self.inner();
        let known = inner.state.lifeline.as_ref().and_then(|item| self.keys.open_lifeline(item));
        if known.is_some_and(|known| !told.supersedes(&known)) {
            return Ok(None);
        }
        inner.state.lifeline = Some(item);
        self.save(&inner)?;
        Ok(Some(told))
    }

    /// What the lifeline says that is known here.
    pub fn lifeline(&self) -> Option<Lifeline> {
        self.inner().state.lifeline.as_ref().and_then(|item| self.keys.open_lifeline(item))
    }

    /// The higher of two: a record's policy, and that of the lifeline.
    pub fn highest_policy(&self, told: Policy) -> Policy {
        let known = self.inner().state.policy.clone();
        if known.counter == told.counter && known.supersedes(&told) {
            self.note_rival(told.counter);
        }
        let known = self.lifeline().and_then(|lifeline| lifeline.policy);
        known.filter(|known| known.supersedes(&told)).unwrap_or(told)
    }

    /// Brings a verified policy with its charter into force. The caller holds `work`. `own` are the blocks in which this
    /// device published what the policy does not stand on.
    pub(super) fn enact(
        &self,
        policy: Policy,
        charter: Charter,
        own: &BTreeSet<BlockNumber>,
    ) -> Result<Changes, EngineError> {
        for _ in 0..RETRIES_MAX {
            if let Some(changes) = self.try_enact(&policy, &charter, own, None)? {
                tracing::info!("policy {} is in force, {} block(s)", policy.counter, charter.blocks.len());
                return Ok(changes);
            }
        }
        Err(EngineError::Moved)
    }

    /// `prepared` is what the charter's new borders are made of, if it has any.
    fn try_enact(
        &self,
        policy: &Policy,
        charter: &Charter,
        own: &BTreeSet<BlockNumber>,
        prepared: Option<&Prepared>,
    ) -> Result<Option<Changes>, EngineError> {
        let tree = self.tree()?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let upcoming = self.next_entries(&inner, &head.roots)?;
        let mut entries = inner.entries.clone();
        let mut roots = BTreeMap::new();
        let mut aside = Vec::new();
        // Behind the last flush lie the catalogue and the commit of the last publication: the next ones build on them.
        let ground = match prepared {
            Some(prepared) => prepared.image.clone(),
            None => tree.draft().snapshot()?,
        };
        let standing = prepared.map_or(&head.roots, |prepared| &prepared.roots);
        let draft = Arc::new(self.store.draft(&ground)?);
        for (number, block) in &charter.blocks {
            if prepared.is_some_and(|prepared| prepared.floors.contains_key(number)) {
                let root = standing.get(number).copied().flatten();
                let entry = self.at_floor(*number, block, root).ok_or(EngineError::Moved)?;
                entries.insert(*number, entry);
                roots.insert(*number, root);
                continue;
            }
            let before = inner.state.charter.blocks.get(number).filter(|before| before.birth == block.birth);
            let same_life = before.is_some();
            let rekeyed = before.is_some_and(|before| before.epoch != block.epoch);
            let root = standing.get(number).copied().flatten().filter(|_| same_life);
            if !same_life {
                entries.remove(number);
            }
            let edited = same_life
                && upcoming.get(number).map(|l| &l.entry) != inner.entries.get(number).map(|l| &l.entry);
            let known = inner.entries.get(number).filter(|_| same_life);
            let counts =
                known.is_none_or(|listed| self.still_counts(policy, charter, *number, &listed.entry));
            if (known.is_some() && !counts || known.is_none() && root.is_some())
                && let Some(floor) = self.at_floor(*number, block, root)
            {
                entries.insert(*number, floor);
                roots.insert(*number, root);
                continue;
            }
            // Under new keys it is signed anew, or comes from others.
            if rekeyed {
                entries.remove(number);
            }
            let forbidden = !self.may_write(policy, charter, *number);
            if forbidden && (edited || !counts && own.contains(number)) {
                aside.push((*number, root));
            }
            if forbidden && !counts && block.floor.root.is_none() {
                // It began empty, and versions say nothing of it: what does not count any more would stay.
                roots.insert(*number, None);
                continue;
            }
            let root = match forbidden && edited {
                true => self.published_root(&inner, *number, block, &draft)?,
                false => root,
            };
            roots.insert(*number, root);
        }
        entries.retain(|number, _| charter.blocks.contains_key(number));
        let views = self.views(policy, charter, &roots);
        let next = Head {
            image: draft.snapshot()?,
            roots,
            generation: head.generation,
            changed: Default::default(),
            mark: Default::default(),
        };
        drop(draft);
        // Before the tree lets go of them: whatever fails from here on, the edits are kept.
        let before = inner.aside_before();
        const WHY: &str = "the policy no longer lets this device write here";
        self.set_aside(&mut inner, charter, &head.image, aside, WHY)?;
        drop(inner);
        let _turn = self.turn.lock();
        let changes = match tree.adopt(head.generation, next, views) {
            Ok(changes) => changes,
            Err(Stale) => {
                self.inner().forget_since(before);
                return Ok(None);
            }
        };
        limit(tree, charter);
        let now = tree.flush()?;
        let mut inner = self.inner();
        inner.state.policy = policy.clone();
        inner.state.charter = charter.clone();
        inner.entries = entries;
        inner.published = None;
        self.say_what_is_closed(&inner);
        self.install(&mut inner, &now);
        self.save(&inner)?;
        drop(inner);
        self.note_in_force(policy, charter)?;
        Ok(Some(changes))
    }

    /// The state of a block that the entry in force names, carried into the draft.
    fn published_root(
        &self,
        inner: &Inner,
        number: BlockNumber,
        block: &crate::record::BlockCharter,
        draft: &Arc<crate::image::Draft>,
    ) -> Result<Option<crate::map::Root>, EngineError> {
        let root = inner.entries.get(&number).and_then(|listed| listed.root());
        let version = inner.state.head.and_then(|head| inner.versions.get(&head.infohash));
        let keys = self.keys.block(number, block);
        match (root, version, keys, &self.tree) {
            (Some(root), Some(version), Some(keys), Some(tree)) => {
                graft(&self.store, &keys, tree.node_cache(), &version.image, root, draft).map(Some)
            }
            _ => Ok(None),
        }
    }
}
