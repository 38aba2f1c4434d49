//! The merge in progress: what was touched, what lives, and under which names.

use super::delta::{Delta, Group, Location, Rank, Triple};
use super::{Conflict, Crossed, MergeError, Side, Version, delta};
use crate::base::{BlockNumber, Inode};
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;
use crate::tree::value::DirEntry;
use std::collections::{BTreeMap, BTreeSet};

/// Who put something under a name. The greater keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Standing {
    /// The loser alone.
    Loser,
    /// The winner alone.
    Winner,
    /// Both have it there.
    Both,
}

impl Standing {
    /// The side whose commit names the copy when this one has to give way.
    pub(super) fn rank(self) -> Rank {
        if self == Standing::Loser { Rank::Loser } else { Rank::Winner }
    }
}

/// Touched names of inodes, in each version.
#[derive(Default)]
pub(super) struct Names {
    base: BTreeMap<Inode, BTreeSet<Location>>,
    winner: BTreeMap<Inode, BTreeSet<Location>>,
    loser: BTreeMap<Inode, BTreeSet<Location>>,
}

impl Names {
    /// In the base.
    pub(super) fn in_base(&self, inode: Inode) -> BTreeSet<Location> {
        self.base.get(&inode).cloned().unwrap_or_default()
    }

    /// In one side.
    pub(super) fn of(&self, rank: Rank, inode: Inode) -> BTreeSet<Location> {
        let names = if rank == Rank::Winner { &self.winner } else { &self.loser };
        names.get(&inode).cloned().unwrap_or_default()
    }

    /// Adds one entry.
    fn insert(&mut self, location: &Location, triple: &Triple<DirEntry>) {
        let slots = [
            (&mut self.base, &triple.base),
            (&mut self.winner, &triple.winner),
            (&mut self.loser, &triple.loser),
        ];
        for (names, entry) in slots {
            if let Some(entry) = entry {
                names.entry(entry.inode).or_default().insert(location.clone());
            }
        }
    }
}

impl<'e> FromIterator<(&'e Location, &'e Triple<DirEntry>)> for Names {
    fn from_iter<I: IntoIterator<Item = (&'e Location, &'e Triple<DirEntry>)>>(entries: I) -> Names {
        let mut names = Names::default();
        for (location, triple) in entries {
            names.insert(location, triple);
        }
        names
    }
}

/// Everything that the steps of a merge read and write.
pub(super) struct State<'a> {
    pub(super) block: BlockNumber,
    pub(super) winner: Side<'a>,
    pub(super) loser: Side<'a>,
    /// By inode: all that are touched or named by a touched entry.
    pub(super) groups: BTreeMap<Inode, Group>,
    /// By name: all that are touched or wanted by something that was moved.
    pub(super) entries: BTreeMap<Location, Triple<DirEntry>>,
    /// The names in `entries` by inode.
    pub(super) names: Names,
    /// The inodes of `groups` that the result has.
    pub(super) alive: BTreeSet<Inode>,
    /// The names that the living have in the result, of those in `entries` and new ones.
    pub(super) places: BTreeMap<Inode, BTreeMap<Location, Standing>>,
    /// The same by name.
    pub(super) claims: BTreeMap<Location, BTreeSet<Inode>>,
    /// Inodes of the loser under their new number, with the old one.
    pub(super) renumbered: BTreeMap<Inode, Inode>,
    /// Copies of files that both edited, with the file.
    pub(super) copies: BTreeMap<Inode, Inode>,
    pub(super) conflicts: Vec<Conflict>,
}

impl<'a> State<'a> {
    /// Reads what differs.
    pub(super) fn load(
        block: BlockNumber,
        (base, crossed): (Option<Version<'a>>, &[Crossed<'_>]),
        winner: &Side<'a>,
        loser: &Side<'a>,
    ) -> Result<State<'a>, MergeError> {
        let mut delta = Delta::load(base.as_ref(), &winner.version, &loser.version)?;
        for crossed in crossed {
            // One that cannot be read is left out: the base alone costs a conflict at most.
            _ = base.as_ref().map(|base| delta.cross(base, crossed));
        }
        let Delta { groups, entries } = delta;
        let mut state = State {
            block,
            winner: *winner,
            loser: *loser,
            groups: BTreeMap::new(),
            entries: BTreeMap::new(),
            names: Names::default(),
            alive: BTreeSet::new(),
            places: BTreeMap::new(),
            claims: BTreeMap::new(),
            renumbered: BTreeMap::new(),
            copies: BTreeMap::new(),
            conflicts: Vec::new(),
        };
        for (inode, mut group) in groups {
            if !group.touched {
                group.record = Triple::same(state.record_in(Rank::Winner, inode)?);
            }
            state.groups.insert(inode, group);
        }
        state.draw_in(block.root_inode())?;
        state.root_exists();
        for (location, triple) in entries {
            state.register(location, triple)?;
        }
        Ok(state)
    }

    /// A block that was never written to has a root all the same.
    fn root_exists(&mut self) {
        let root = self.groups.entry(self.block.root_inode()).or_default();
        for slot in [&mut root.record.base, &mut root.record.winner, &mut root.record.loser] {
            slot.get_or_insert_with(InodeRecord::genesis);
        }
    }

    /// One of the two sides.
    pub(super) fn side(&self, rank: Rank) -> &Side<'a> {
        match rank {
            Rank::Winner => &self.winner,
            Rank::Loser => &self.loser,
        }
    }

    /// An inode's record in one side.
    pub(super) fn record_in(&self, rank: Rank, inode: Inode) -> Result<Option<InodeRecord>, MergeError> {
        let version = &self.side(rank).version;
        let entry = version.map.get(version.root.as_ref(), &Key::Inode(inode).encode())?;
        entry.as_ref().map(delta::record_of).transpose()
    }

    /// Makes sure that the record of `inode` is known. One that is not in the differences is the same everywhere.
    pub(super) fn draw_in(&mut self, inode: Inode) -> Result<(), MergeError> {
        if !self.groups.contains_key(&inode) {
            let record = Triple::same(self.record_in(Rank::Winner, inode)?);
            self.groups.insert(inode, Group { record, ..Group::default() });
        }
        Ok(())
    }

    /// Takes an entry in, with the inodes that it names.
    pub(super) fn register(
        &mut self,
        location: Location,
        triple: Triple<DirEntry>,
    ) -> Result<(), MergeError> {
        self.draw_in(location.0)?;
        let named =
            [&triple.base, &triple.winner, &triple.loser].map(|entry| entry.as_ref().map(|e| e.inode));
        for inode in named.into_iter().flatten() {
            self.draw_in(inode)?;
        }
        self.names.insert(&location, &triple);
        self.entries.insert(location, triple);
        Ok(())
    }

    /// How many names a side's inode has that are not in `entries`, and so are in the result too.
    pub(super) fn untouched_names(&self, inode: Inode) -> u64 {
        let Some(group) = self.groups.get(&inode) else { return 0 };
        let rank = if group.exists(Rank::Winner) { Rank::Winner } else { Rank::Loser };
        let Some(record) = group.record.of(rank) else { return 0 };
        let all = if record.is_directory() { 1 } else { u64::from(record.nlink) };
        all.saturating_sub(self.names.of(rank, inode).len() as u64)
    }

    /// Whether the living `inode` is a directory.
    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        let record = self.groups.get(&inode).and_then(Group::leading_record);
        record.is_some_and(InodeRecord::is_directory)
    }

    /// Gives the living `inode` a name.
    pub(super) fn place(&mut self, inode: Inode, location: Location, standing: Standing) {
        self.claims.entry(location.clone()).or_default().insert(inode);
        self.places.entry(inode).or_default().insert(location, standing);
    }

    /// Takes a name from it.
    pub(super) fn unplace(&mut self, inode: Inode, location: &Location) -> Option<Standing> {
        if let Some(claimants) = self.claims.get_mut(location) {
            claimants.remove(&inode);
        }
        self.places.get_mut(&inode).and_then(|places| places.remove(location))
    }
}
