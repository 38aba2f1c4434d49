//! Which entries are in force: those that the policy admits and whose state stands here, whatever the head version says.

use super::core::{Core, Inner, Listed};
use super::error::EngineError;
use super::floor::mode_of;
use super::versions::Version;
use crate::base::{BlockNumber, Id};
use crate::record::{BlockEntry, Charter, Policy, Refusal, admit};
use std::collections::{BTreeMap, BTreeSet};

/// What stands here of the head version after a start.
#[derive(Default)]
pub(super) struct Standing {
    pub entries: BTreeMap<BlockNumber, Listed>,
    /// Blocks of which the head version's state was not taken.
    pub spoilt: BTreeSet<BlockNumber>,
}

impl Core {
    /// Whether an entry counts under a policy.
    pub(super) fn admitted(
        &self,
        policy: &Policy,
        charter: &Charter,
        number: BlockNumber,
        entry: &BlockEntry,
    ) -> Result<(), Refusal> {
        let block = charter.blocks.get(&number).ok_or(Refusal::UnknownBlock)?;
        let mode = mode_of(policy, number);
        admit(entry, &self.keys.database, mode, block, &charter.members, &self.keys.admin_public)
    }

    /// Takes a version as the one that the working head was saved after. It stands on the commits that it stood on then, as far
    /// as they are kept; on the version's own where that is not known.
    pub(super) fn stand_on(&self, inner: &mut Inner, version: &Version) -> Result<(), EngineError> {
        let commit = version.commit.clone().ok_or(EngineError::Other("its commit does not open".into()))?;
        let (root, entries) = self.open_catalogue(&version.image, &commit)?;
        let standing = self.standing(inner, &entries)?;
        let saved = std::mem::take(&mut inner.state.heads);
        let kept = |id: &Id| {
            let kept = inner.versions.iter().find(|kept| kept.reference.commit.id == *id)?;
            Some((*id, kept.commit.clone()?))
        };
        inner.heads = saved.iter().filter_map(kept).collect();
        if inner.heads.is_empty() {
            inner.heads.push((version.reference.commit.id, commit.clone()));
        }
        inner.catalogue = root;
        (inner.entries, inner.spoilt) = (standing.entries, standing.spoilt);
        Ok(())
    }

    /// Finds the entries that were in force when the state was saved, among those that the head version told and
    /// those of older versions.
    pub(super) fn standing(
        &self,
        inner: &Inner,
        told: &BTreeMap<BlockNumber, Listed>,
    ) -> Result<Standing, EngineError> {
        let (policy, charter) = (&inner.state.policy, &inner.state.charter);
        let mut standing = Standing::default();
        let mut older = None;
        for number in charter.blocks.keys() {
            let counts = |listed: &Listed| self.admitted(policy, charter, *number, &listed.entry).is_ok();
            if self.is_closed(charter, *number) {
                // Nothing of it stands in the tree that could be compared.
                match told.get(number).filter(|listed| counts(listed)) {
                    Some(listed) => _ = standing.entries.insert(*number, listed.clone()),
                    None => _ = standing.spoilt.insert(*number),
                }
                continue;
            }
            let root = inner.state.roots.get(number).copied().flatten();
            let stands = |listed: &Listed| root_id(listed) == root.map(|root| root.id) && counts(listed);
            let told = told.get(number);
            if let Some(listed) = told.filter(|listed| stands(listed)) {
                standing.entries.insert(*number, listed.clone());
                if listed.place != root.map(|root| root.place) {
                    standing.spoilt.insert(*number);
                }
                continue;
            }
            let floor = charter.blocks.get(number).and_then(|block| self.at_floor(*number, block, root));
            if let Some(floor) = floor.filter(|_| told.is_none_or(|listed| !counts(listed))) {
                // Who told it last did not know the policy.
                let known = root.is_some() || told.is_some();
                standing.entries.extend(known.then_some((*number, floor)));
                standing.spoilt.extend(told.map(|_| *number));
                continue;
            }
            let catalogues = older.get_or_insert_with(|| self.catalogues(inner));
            let found = catalogues.iter().filter_map(|entries| entries.get(number)).find(|l| stands(l));
            if let Some(listed) = found {
                standing.entries.insert(*number, listed.clone());
                standing.spoilt.insert(*number);
            } else if let Some(listed) = told.filter(|listed| counts(listed)) {
                // What was changed here since stands on it.
                standing.entries.insert(*number, listed.clone());
            } else if told.is_some() {
                standing.spoilt.insert(*number);
            }
        }
        Ok(standing)
    }

    /// The catalogues of all kept versions, the newest first.
    fn catalogues(&self, inner: &Inner) -> Vec<BTreeMap<BlockNumber, Listed>> {
        let commits = inner.versions.iter().filter_map(|version| Some((version, version.commit.as_ref()?)));
        commits
            .filter_map(|(version, commit)| Some(self.open_catalogue(&version.image, commit).ok()?.1))
            .collect()
    }
}

fn root_id(listed: &Listed) -> Option<Id> {
    listed.entry.root.as_ref().map(|root| root.id)
}
