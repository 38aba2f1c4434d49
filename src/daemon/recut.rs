//! A subtree goes into a block of its own and back. The admin's engine makes the maps of both blocks before the policy is
//! signed whose floors name them; whoever hears of that later brings what was changed here meanwhile behind the new border
//! and merges it there.

use super::adopt::Ours;
use super::aside::Lost;
use super::borders::{Border, Way, borders};
use super::control::{Ground, GroundBlock, Recutting};
use super::core::{Core, Listed};
use super::error::EngineError;
use super::genesis::charter_id;
use super::take::{Arrived, Plan, Taken};
use crate::base::{BlockNumber, Id};
use crate::image::{Draft, Image};
use crate::map::Root;
use crate::record::{Charter, Commit, Floor, Policy, next_floor};
use crate::sync::Fetched;
use crate::tree::UNWRITTEN_MAX;
use crate::tree::recut::{Bench, Part, RecutError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// How often an adoption is repeated because somebody went on writing meanwhile.
const RETRIES_MAX: usize = 20;

type Roots = BTreeMap<BlockNumber, Option<Root>>;

/// What the next policy is to bring, ready to be signed.
pub(super) struct Prepared {
    ground: Ground,
    borders: Vec<Border>,
    pub(super) floors: BTreeMap<BlockNumber, Floor>,
    pub(super) image: Image,
    pub(super) roots: Roots,
}

impl Prepared {
    /// Whether a charter says just that.
    fn fits(&self, ground: &Ground, old: &Charter, new: &Charter) -> bool {
        let fits = |(number, floor): (&BlockNumber, &Floor)| {
            new.blocks.get(number).is_some_and(|block| block.floor == *floor)
        };
        // The borders hold what is fixed about blocks, floors included: those are compared by themselves.
        let shape = |borders: &[Border]| -> Vec<_> {
            borders.iter().map(|border| (border.way, border.sides(), border.inner.1.birth)).collect()
        };
        self.ground == *ground
            && shape(&self.borders) == shape(&borders(old, new))
            && self.floors.iter().all(fits)
    }
}

/// What a newer charter brings with it when a version is taken.
pub(super) struct Across {
    pub(super) policy: Policy,
    pub(super) charter: Charter,
    borders: Vec<Border>,
}

/// A charter with the epoch of another one. Where the database moved to new keys after a border did, both sides of that lie
/// under the keys from before: what is brought behind it is compared with what is there.
fn as_sealed_here(here: &Charter, charter: &Charter) -> Charter {
    let mut charter = charter.clone();
    let epoch = here.blocks.get(&BlockNumber::ROOT).map_or(0, |root| root.epoch);
    charter.blocks.values_mut().for_each(|block| block.epoch = epoch);
    charter
}

impl Core {
    /// Makes the maps that a charter asks for in which borders have moved. The floors that it needs are the answer.
    pub fn prepare_recut(&self, wanted: &Charter) -> Result<Recutting, EngineError> {
        let _work = self.work.lock();
        let tree = self.tree()?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let ground = self.ground_of(&inner, &head)?;
        let entries = self.next_entries(&inner, &head.roots)?;
        let current = inner.state.charter.clone();
        drop(inner);
        let borders = borders(&current, wanted);
        let draft = Arc::new(self.store.draft(&tree.draft().snapshot()?)?);
        let mut roots = head.roots.clone();
        if !self.move_borders(&draft, &mut roots, &borders)? {
            return Err(EngineError::Usage("there is no directory at that path".into()));
        }
        let image = draft.snapshot()?;
        let mut floors = BTreeMap::new();
        for number in borders.iter().flat_map(Border::sides) {
            let Some(block) = wanted.blocks.get(&number) else { continue };
            let lives = current.blocks.get(&number).is_some_and(|known| known.birth == block.birth);
            let known = entries.get(&number).map_or(0, |listed| listed.entry.counter);
            // Whoever does not know of the new border yet has no state that comes as high.
            let counter = if lives { next_floor(known.max(block.floor.counter)) } else { Some(1) };
            let counter = counter.ok_or_else(|| {
                EngineError::Other(format!("block {number} has had as many states as there can be"))
            })?;
            let root = roots.get(&number).copied().flatten().map(|root| root.id);
            floors.insert(number, Floor { counter, root });
        }
        let told = floors.iter().map(|(number, floor)| GroundBlock {
            number: number.0,
            counter: floor.counter,
            root: floor.root.map(|root| root.to_string()),
        });
        let answer = Recutting { ground: ground.clone(), floors: told.collect() };
        *self.recut.lock() = Some(Prepared { ground, borders, floors, image, roots });
        Ok(answer)
    }

    /// What was prepared for this charter; an error where it asks for what nobody prepared.
    pub(super) fn prepared(
        &self,
        ground: &Ground,
        charter: &Charter,
    ) -> Result<Option<Prepared>, EngineError> {
        let prepared = self.recut.lock().take();
        let current = self.inner().state.charter.clone();
        let prepared = prepared.filter(|prepared| prepared.fits(ground, &current, charter));
        let born = |border: &Border| border.way == Way::Into && border.inner.1.floor.root.is_some();
        if prepared.is_none() && borders(&current, charter).iter().any(born) {
            return Err(EngineError::Moved);
        }
        Ok(prepared)
    }

    /// Moves borders within a draft. False where one was to be drawn around a directory that is not there.
    fn move_borders(
        &self,
        draft: &Arc<Draft>,
        roots: &mut Roots,
        borders: &[Border],
    ) -> Result<bool, RecutError> {
        let mut all = true;
        for border in borders {
            let ((outer, around), (inner, inside)) = (&border.outer, &border.inner);
            let keys = self.keys.block(*outer, around).zip(self.keys.block(*inner, inside));
            let Some((outer_keys, inner_keys)) = &keys else { continue };
            let bench = Bench { draft: draft.clone(), nodes: self.tree_nodes() };
            let root = |number: &BlockNumber| roots.get(number).copied().flatten();
            let outer_part = Part { block: *outer, keys: outer_keys, root: root(outer) };
            let inner_part = Part { block: *inner, keys: inner_keys, root: root(inner) };
            match border.way {
                Way::Into => {
                    let part = Part { root: None, ..inner_part };
                    let done = bench.cut_out(outer_part, part, &border.path)?;
                    all &= done.is_some();
                    roots.insert(*outer, done.map_or(outer_part.root, |done| done.outer));
                    roots.insert(*inner, done.and_then(|done| done.inner));
                }
                Way::Back => {
                    let done = bench.put_back(outer_part, inner_part, &border.path, border.spare())?;
                    roots.insert(*outer, done.outer);
                    roots.remove(inner);
                }
            }
        }
        Ok(all)
    }

    /// A state that was made before the borders moved, as if it had been made behind them.
    fn brought(
        &self,
        image: &Image,
        roots: &Roots,
        borders: &[Border],
    ) -> Result<(Image, Roots), EngineError> {
        // What is alive in it is not known of every kept version: nothing of it may be written over.
        let filled = image.iter().map(|(index, region)| (index, region.fill)).collect();
        let draft = Arc::new(self.store.draft(&image.with_live(&filled))?);
        let mut roots = roots.clone();
        self.move_borders(&draft, &mut roots, borders)?;
        Ok((draft.snapshot()?, roots))
    }

    /// The blocks that a policy which does not hold cut, or filled, at a border that `charter` does not have. Their counters
    /// leaped as well: taken as they are, what was cut out would look removed by everybody.
    pub(super) fn cut_elsewhere(&self, arrived: &Arrived, charter: &Charter) -> BTreeSet<BlockNumber> {
        let (image, commit) = (&arrived.image, &arrived.commit);
        let Some(theirs) = self.open_charter(image, commit, &commit.charter.id) else {
            return BTreeSet::new();
        };
        let floor = |charter: &Charter, number: BlockNumber| {
            charter.blocks.get(&number).map_or(0, |block| block.floor.counter)
        };
        let outer = borders(&theirs, charter).into_iter().map(|border| border.outer.0);
        outer.filter(|number| floor(&theirs, *number) > floor(charter, *number)).collect()
    }

    /// Takes a version whose policy moves borders, in one step with that policy: both blocks of each border or neither.
    /// None where there is nothing of the kind to do.
    pub(super) fn take_across(
        &self,
        arrived: &Arrived,
        policy: &Policy,
    ) -> Result<Option<Taken>, EngineError> {
        let state = {
            let inner = self.inner();
            let known = |(id, commit): &(Id, Arc<Commit>)| {
                *id == arrived.reference.commit.id || commit.covers(&arrived.commit)
            };
            if !policy.supersedes(&inner.state.policy) || inner.heads.iter().any(known) {
                return Ok(None);
            }
            inner.state.clone()
        };
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let Some(charter) = self.open_charter(&arrived.image, &arrived.commit, &policy.charter) else {
            return Ok(None);
        };
        let borders = borders(&state.charter, &as_sealed_here(&state.charter, &charter));
        if borders.is_empty()
            || state.roots.values().all(Option::is_none)
            || charter_id(keys, &charter) != policy.charter
        {
            return Ok(None);
        }
        let Some(plan) = self.plan_under(arrived, policy, &charter)? else {
            return Ok(Some(Taken::plain(Fetched::Broken)));
        };
        let taken = |number: &BlockNumber| plan.theirs.contains(number);
        let whole = |border: &Border| {
            let (inner, inside) = &border.inner;
            taken(&border.outer.0) && (border.way == Way::Back || inside.floor.root.is_none() || taken(inner))
        };
        if !borders.iter().all(whole) {
            tracing::warn!(
                version = %arrived.reference.infohash,
                "a border between blocks has moved, and this version does not have both of its sides: it is left out"
            );
            return Ok(Some(Taken::plain(Fetched::Broken)));
        }
        let across = Across { policy: policy.clone(), charter, borders };
        let patience = Instant::now() + UNWRITTEN_MAX;
        for _ in 0..RETRIES_MAX {
            if let Some(taken) = self.adopt(arrived, &plan, patience, Some(&across))? {
                tracing::info!(
                    "policy {} is in force, {} block(s)",
                    policy.counter,
                    across.charter.blocks.len()
                );
                self.note_in_force(policy, &across.charter)?;
                return Ok(Some(taken));
            }
        }
        Ok(Some(Taken::plain(Fetched::Later)))
    }

    /// Brings this device's side of a merge, and what both sides come from, behind the new borders. What may not be
    /// written there is told: it is to be set aside.
    pub(super) fn bring_across(
        &self,
        ours: &mut Ours,
        arrived: &Arrived,
        plan: &Plan,
        across: &Across,
    ) -> Result<Lost, EngineError> {
        let sides: BTreeSet<BlockNumber> = across.borders.iter().flat_map(Border::sides).collect();
        let moved: BTreeSet<BlockNumber> =
            sides.iter().filter(|number| ours.moved(number)).copied().collect();
        if !moved.is_empty() {
            let (image, roots) = self.brought(&ours.head.image, &ours.head.roots, &across.borders)?;
            (ours.head.image, ours.head.roots) = (image, roots);
            for base in &mut ours.bases {
                (base.image, base.roots) = self.brought(&base.image, &base.roots, &across.borders)?;
            }
            let id = |roots: &Roots, number: &BlockNumber| {
                roots.get(number).copied().flatten().map(|root| root.id)
            };
            for number in &sides {
                let base = ours.bases.first().map(|base| id(&base.roots, number));
                let own = id(&ours.head.roots, number);
                let differs = base.map_or(own.is_some(), |base| base != own);
                if differs {
                    ours.dirty.insert(*number)
                } else {
                    ours.dirty.remove(number)
                };
            }
        }
        (ours.state.policy, ours.state.charter) = (across.policy.clone(), across.charter.clone());
        let published = self.own_work(&self.inner(), arrived)?;
        let mut aside = Lost::new();
        for number in across.charter.blocks.keys() {
            let own = ours.head.roots.get(number).copied().flatten();
            let theirs = plan.entries.get(number).and_then(Listed::root);
            let known = ours.entries.get(number).map(|listed| &listed.entry);
            let counts = |entry| self.still_counts(&across.policy, &across.charter, *number, entry);
            // What this device published counts no more than what it did not come to publish.
            let lost = published.contains(number) && !known.is_some_and(counts);
            let changed = (ours.dirty.contains(number) || lost)
                && own.map(|root| root.id) != theirs.map(|root| root.id);
            if changed && !self.may_write(&across.policy, &across.charter, *number) {
                aside.push((*number, own));
            }
        }
        Ok(aside)
    }
}
