//! Two that claim one name (rule 7).

use super::MergeError;
use super::delta::{self, Location, Triple};
use super::state::{Standing, State};
use super::{Conflict, copies};
use crate::base::Inode;
use crate::tree::key::Key;
use std::collections::BTreeSet;

impl State<'_> {
    /// Leaves every name to one inode.
    pub(super) fn resolve_claims(&mut self) -> Result<(), MergeError> {
        self.join_directories()?;
        let contested: Vec<Location> = self
            .claims
            .iter()
            .filter(|(_, claimants)| claimants.len() > 1)
            .map(|(location, _)| location.clone())
            .collect();
        for location in contested {
            self.contest(&location)?;
        }
        Ok(())
    }

    /// Makes one of directories of one name, as long as that brings new ones together.
    fn join_directories(&mut self) -> Result<(), MergeError> {
        let mut waiting: BTreeSet<Location> = self
            .claims
            .iter()
            .filter(|(_, claimants)| claimants.len() > 1)
            .map(|(location, _)| location.clone())
            .collect();
        while let Some(location) = waiting.pop_first() {
            let mut directories = self.by_standing(&location);
            directories.retain(|inode| self.is_directory(*inode));
            directories.sort_by_key(|inode| self.is_new(*inode));
            let Some((keeper, others)) = directories.split_first() else { continue };
            for &other in others {
                if self.is_new(other) {
                    waiting.extend(self.dissolve(other, *keeper, &location)?);
                }
            }
        }
        Ok(())
    }

    /// Who claims a name, the best first.
    fn by_standing(&self, location: &Location) -> Vec<Inode> {
        let mut claimants: Vec<Inode> = self.claims.get(location).into_iter().flatten().copied().collect();
        claimants.sort_by_key(|inode| (std::cmp::Reverse(self.standing(*inode, location)), *inode));
        claimants
    }

    fn standing(&self, inode: Inode, location: &Location) -> Option<Standing> {
        self.places.get(&inode)?.get(location).copied()
    }

    /// Whether one side only has it, and made it.
    fn is_new(&self, inode: Inode) -> bool {
        self.groups
            .get(&inode)
            .is_some_and(|group| group.only_side().is_some() && group.record.base.is_none())
    }

    /// Moves what lies in a new directory into another, and lets it go. All that lies in it is touched, since one
    /// side only has it. Returns the names that are contested now.
    fn dissolve(
        &mut self,
        from: Inode,
        into: Inode,
        location: &Location,
    ) -> Result<Vec<Location>, MergeError> {
        let held: Vec<(Location, Inode)> = self
            .claims
            .range((from, Vec::new())..)
            .take_while(|((parent, _), _)| *parent == from)
            .flat_map(|(location, claimants)| claimants.iter().map(|inode| (location.clone(), *inode)))
            .collect();
        let mut contested = Vec::new();
        for (old, inode) in held {
            let new = (into, old.1.clone());
            self.draw_in_name(&new)?;
            if let Some(standing) = self.unplace(inode, &old) {
                self.place(inode, new.clone(), standing);
            }
            contested.push(new);
        }
        self.unplace(from, location);
        self.alive.remove(&from);
        Ok(contested)
    }

    /// Makes sure that what already has a name takes part in the contest for it. Returns whether the name is free.
    pub(super) fn draw_in_name(&mut self, location: &Location) -> Result<bool, MergeError> {
        if !self.entries.contains_key(location) {
            // Not in the differences, so both sides have the same, if they have it.
            let version = &self.winner.version;
            let key = Key::Entry(location.0, &location.1).encode();
            if let Some(found) = version.map.get(version.root.as_ref(), &key)? {
                let entry = delta::entry_of(&found)?;
                let inode = entry.inode;
                self.register(location.clone(), Triple::same(Some(entry)))?;
                self.alive.insert(inode);
                self.place(inode, location.clone(), Standing::Both);
            }
        }
        Ok(self.claims.get(location).is_none_or(BTreeSet::is_empty))
    }

    fn contest(&mut self, location: &Location) -> Result<(), MergeError> {
        let mut claimants = self.by_standing(location);
        // Paths hang on a directory's name.
        claimants.sort_by_key(|inode| !self.is_directory(*inode));
        let Some((keeper, others)) = claimants.split_first() else { return Ok(()) };
        for other in others {
            let Some(standing) = self.unplace(*other, location) else { continue };
            if self.is_spare(*other) && self.same_content(*keeper, *other)? {
                self.alive.remove(other);
                continue;
            }
            self.give_conflict_name(*other, location, standing)?;
        }
        Ok(())
    }

    /// Whether one side only has the inode, and under no other name: its keys are all touched, so it can be let go.
    fn is_spare(&self, inode: Inode) -> bool {
        let one_sided = self.groups.get(&inode).is_some_and(|group| group.only_side().is_some());
        one_sided
            && !self.is_directory(inode)
            && self.places.get(&inode).is_none_or(|places| places.is_empty())
            && self.untouched_names(inode) == 0
    }

    /// Places an inode beside the name that it lost, or would have had.
    pub(super) fn give_conflict_name(
        &mut self,
        inode: Inode,
        lost: &Location,
        standing: Standing,
    ) -> Result<(), MergeError> {
        let side = self.side(standing.rank());
        let (device, time) = (side.device, side.time);
        let mut attempt = 0;
        let copy = loop {
            let name = copies::conflict_name(&lost.1, &device, time, attempt);
            if self.draw_in_name(&(lost.0, name.clone()))? {
                break name;
            }
            attempt += 1;
        };
        self.place(inode, (lost.0, copy.clone()), standing);
        self.conflicts.push(Conflict { directory: lost.0, name: lost.1.clone(), copy, device });
        Ok(())
    }
}
