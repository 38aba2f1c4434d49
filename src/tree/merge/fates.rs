//! Which inodes live, and under which names (rules 1–5).

use super::MergeError;
use super::delta::{Group, Location, Rank};
use super::record;
use super::state::{Standing, State};
use crate::base::Inode;
use std::collections::{BTreeMap, BTreeSet};

impl State<'_> {
    /// Decides who lives and gives the living their names; claims of several to one name are left to a later step.
    pub(super) fn settle_fates(&mut self) -> Result<(), MergeError> {
        let inodes: Vec<Inode> = self.groups.keys().copied().collect();
        for &inode in &inodes {
            if self.lives_by_itself(inode) {
                self.alive.insert(inode);
            }
        }
        for inode in inodes {
            self.restore_moved(inode);
        }
        for inode in self.alive.clone() {
            self.choose_places(inode);
        }
        self.keep_parents();
        Ok(())
    }

    fn lives_by_itself(&self, inode: Inode) -> bool {
        let Some(group) = self.groups.get(&inode) else { return false };
        match group.only_side() {
            Some(rank) => group.record.base.is_none() || self.edited(group, inode, rank),
            None => group.exists(Rank::Winner),
        }
    }

    /// Whether a side did more to an inode than take names from it.
    fn edited(&self, group: &Group, inode: Inode, rank: Rank) -> bool {
        let new_name = !self.names.of(rank, inode).is_subset(&self.names.in_base(inode));
        let record = match (&group.record.base, group.record.of(rank)) {
            (Some(old), Some(new)) => record::edited(old, new),
            _ => false,
        };
        new_name
            || record
            || group.chunks.values().any(|chunk| chunk.changed(rank))
            || group.xattrs.values().any(|xattr| xattr.changed(rank))
    }

    /// A directory that one side moved and the other deleted keeps all that the mover has in it.
    fn restore_moved(&mut self, inode: Inode) {
        let Some(rank) = self.groups.get(&inode).and_then(Group::only_side) else { return };
        let moved = self.names.of(rank, inode) != self.names.in_base(inode);
        if !moved || !self.is_directory(inode) || !self.alive.contains(&inode) {
            return;
        }
        let (mut directories, mut seen) = (vec![inode], BTreeSet::from([inode]));
        while let Some(directory) = directories.pop() {
            let children: Vec<Inode> = self
                .entries
                .range((directory, Vec::new())..)
                .take_while(|((parent, _), _)| *parent == directory)
                .filter_map(|(_, triple)| triple.of(rank).as_ref().map(|entry| entry.inode))
                .collect();
            for child in children {
                let deleted = self.groups.get(&child).and_then(Group::only_side) == Some(rank);
                if deleted && seen.insert(child) {
                    self.alive.insert(child);
                    if self.is_directory(child) {
                        directories.push(child);
                    }
                }
            }
        }
    }

    /// The names of one of the living.
    pub(super) fn choose_places(&mut self, inode: Inode) {
        let Some(group) = self.groups.get(&inode) else { return };
        let (winners, losers) = (self.names.of(Rank::Winner, inode), self.names.of(Rank::Loser, inode));
        let base = self.names.in_base(inode);
        let chosen: BTreeSet<Location> = match group.only_side() {
            Some(Rank::Winner) => winners.clone(),
            Some(Rank::Loser) => losers.clone(),
            None if single_named(group) => {
                if winners == base || group.is_later(Rank::Loser) {
                    losers.clone()
                } else {
                    winners.clone()
                }
            }
            None => {
                let kept = winners.intersection(&losers);
                let added = winners.union(&losers).filter(|location| !base.contains(*location));
                let names: BTreeSet<Location> = kept.chain(added).cloned().collect();
                if names.is_empty() && self.untouched_names(inode) == 0 { winners.clone() } else { names }
            }
        };
        let standing = |location: &Location| match (winners.contains(location), losers.contains(location)) {
            (true, true) => Standing::Both,
            (true, false) => Standing::Winner,
            _ => Standing::Loser,
        };
        let places: BTreeMap<Location, Standing> =
            chosen.into_iter().map(|location| (location.clone(), standing(&location))).collect();
        for (location, standing) in places {
            self.place(inode, location, standing);
        }
    }

    /// Brings back the directories in which something alive lies, and theirs. A name in a directory that nobody has
    /// is no name.
    pub(super) fn keep_parents(&mut self) {
        let mut waiting: Vec<Inode> = self.alive.iter().copied().collect();
        while let Some(inode) = waiting.pop() {
            let places: Vec<Location> =
                self.places.get(&inode).into_iter().flat_map(|p| p.keys().cloned()).collect();
            for location in places {
                let parent = location.0;
                if self.alive.contains(&parent) && self.is_directory(parent) {
                    continue;
                }
                if !self.is_directory(parent) {
                    self.unplace(inode, &location);
                    continue;
                }
                self.alive.insert(parent);
                self.choose_places(parent);
                waiting.push(parent);
            }
        }
    }
}

/// Whether an inode has exactly one name wherever it exists, so that another name means that it was moved.
fn single_named(group: &Group) -> bool {
    let records = [&group.record.base, &group.record.winner, &group.record.loser];
    records.into_iter().flatten().all(|record| record.is_directory() || record.nlink == 1)
}
