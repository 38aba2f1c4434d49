//! Directories that the two sides moved into each other (rule 6).

use super::MergeError;
use super::delta::{Location, Rank};
use super::state::{Standing, State};
use crate::base::Inode;
use std::collections::{BTreeMap, BTreeSet};

impl State<'_> {
    /// Puts directories back until every one of them is reached from the block's root.
    ///
    /// Neither side alone has a cycle, so each cycle has a directory that the winner has elsewhere, and none is put
    /// back twice. A cycle without one comes from versions that verification would refuse: it is cut all the same.
    pub(super) fn break_cycles(&mut self) -> Result<(), MergeError> {
        let mut untouched = BTreeMap::new();
        while let Some(cycle) = self.find_cycle(&mut untouched)? {
            self.put_back(&cycle);
            self.keep_parents();
        }
        Ok(())
    }

    /// The directories of some cycle that the merge has placed.
    fn find_cycle(
        &self,
        untouched: &mut BTreeMap<Inode, Option<Inode>>,
    ) -> Result<Option<BTreeSet<Inode>>, MergeError> {
        let mut rooted = BTreeSet::from([self.block.root_inode()]);
        for &start in self.places.keys().filter(|inode| self.is_directory(**inode)) {
            let (mut path, mut on_path) = (Vec::new(), BTreeSet::new());
            let mut next = Some(start);
            while let Some(inode) = next.filter(|inode| !rooted.contains(inode)) {
                if !on_path.insert(inode) {
                    let cycle = path.into_iter().skip_while(|other| *other != inode);
                    let placed: BTreeSet<Inode> =
                        cycle.filter(|inode| self.first_place(*inode).is_some()).collect();
                    if !placed.is_empty() {
                        return Ok(Some(placed));
                    }
                    break;
                }
                path.push(inode);
                next = self.parent_of(inode, untouched)?;
            }
            rooted.extend(on_path);
        }
        Ok(None)
    }

    /// The first name that the merge gave to an inode.
    pub(super) fn first_place(&self, inode: Inode) -> Option<&Location> {
        self.places.get(&inode)?.keys().next()
    }

    /// The directory in which a directory lies in the result; `None` for the root and for what has no place.
    fn parent_of(
        &self,
        inode: Inode,
        untouched: &mut BTreeMap<Inode, Option<Inode>>,
    ) -> Result<Option<Inode>, MergeError> {
        if let Some((parent, _)) = self.first_place(inode) {
            return Ok(Some(*parent));
        }
        if self.groups.contains_key(&inode) && self.untouched_names(inode) == 0 {
            return Ok(None);
        }
        if let Some(parent) = untouched.get(&inode) {
            return Ok(*parent);
        }
        let record = self.record_in(Rank::Winner, inode)?;
        let parent = record.map(|record| record.parent).filter(|parent| *parent != inode);
        untouched.insert(inode, parent);
        Ok(parent)
    }

    fn put_back(&mut self, cycle: &BTreeSet<Inode>) {
        let elsewhere_in_winner = |inode: &Inode| {
            let loser_moved_it =
                self.places.get(inode)?.values().all(|standing| *standing == Standing::Loser);
            let place = self.names.of(Rank::Winner, *inode).into_iter().next();
            place.filter(|_| loser_moved_it).map(|place| (*inode, place))
        };
        let cut = cycle.iter().find_map(elsewhere_in_winner);
        let Some(inode) = cut.as_ref().map(|(inode, _)| *inode).or_else(|| cycle.first().copied()) else {
            return;
        };
        for location in self.places.get(&inode).cloned().unwrap_or_default().keys() {
            self.unplace(inode, location);
        }
        if let Some((inode, place)) = cut {
            self.place(inode, place, Standing::Winner);
        }
    }
}
