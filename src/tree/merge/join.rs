//! Append mode: a block is a set of whole files that only grows, and two states of it become their union.
//!
//! No base is needed: a key that one side lacks is never a deletion. The union of what honest devices made is the same
//! whoever makes it and in whatever order, and a state joined with one that holds it already is that one, so nothing
//! goes to and fro.
//!
//! 1. What an inode is (record, chunks, attributes, target) is as the side has it that *stands*: what was accepted
//!    first stays. What the other side made of it is left out.
//! 2. What has a name in the side that stands keeps it; a further name that the other side gives it is left out.
//! 3. Two that claim one name: a directory before anything else, then what was made first, then the smaller inode. The
//!    other one is called `name.conflict-<session>-<time>.ext` after its own birth. What is still its writer's own
//!    yields to everything. Two directories become one unless both sides have both.
//! 4. Of a directory that both have, the later times hold; subdirectories are counted, parents follow the names.

use super::copies::conflict_name;
use super::delta::{Location, differences, entry_of, record_of};
use super::union::{Contents, Side, Values};
use super::{Conflict, MergeEdit, MergeError, Source, Version, Which};
use crate::base::{BlockNumber, DeviceId, Inode};
use crate::map::Entry;
use crate::tree::inode::{FileType, InodeRecord};
use crate::tree::key::Key;
use crate::tree::value::DirEntry;
use std::collections::{BTreeMap, BTreeSet};

/// Names that are tried for one that lost its own.
const ATTEMPTS_MAX: u32 = 1 << 10;
/// Directories that become one may lie so deep in each other.
const DEPTH_MAX: usize = 1 << 12;

/// Two states of an append block to be joined on `there`'s image.
pub struct Join<'a> {
    /// The block.
    pub block: BlockNumber,
    /// This device's state.
    pub here: Version<'a>,
    /// The other one.
    pub there: Version<'a>,
    /// Whether what is here stands; else what is there does.
    pub here_stands: bool,
    /// Inodes that are here and are their writers' own still.
    pub own: &'a BTreeSet<Inode>,
    /// What was published or accepted of `here`.
    pub accepted: Option<Version<'a>>,
}

/// What a join comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Joined {
    /// What turns `there` into the union, in ascending order of keys. Empty: it is the union.
    pub edits: Vec<MergeEdit>,
    /// Names that were contested and are resolved here, in order.
    pub conflicts: Vec<Conflict>,
    /// `there` lacks something that was accepted, or has another name for it.
    pub lacks: bool,
    /// The side that does not stand has something else under an inode of the one that does.
    pub differs: bool,
}

/// Joins two states. Absent objects are an error.
pub fn join_block(join: &Join<'_>) -> Result<Joined, MergeError> {
    Joining::load(join)?.finish()
}

/// Who claims a name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Claim {
    entry: DirEntry,
    by: Side,
}

type Claims = BTreeMap<Location, Vec<Claim>>;
/// Directories that became part of another one.
type Merged = BTreeMap<Inode, Inode>;

struct Joining<'a> {
    join: &'a Join<'a>,
    contents: Contents<'a>,
    /// By name: what each side has there, where that differs.
    entries: BTreeMap<Location, [Option<DirEntry>; 2]>,
}

impl<'a> Joining<'a> {
    fn load(join: &'a Join<'a>) -> Result<Joining<'a>, MergeError> {
        let mut values: Values = BTreeMap::new();
        let mut entries = BTreeMap::new();
        differences(&join.here, &join.there, &mut |key, here, there| {
            match Key::decode(key).map_err(|_| MergeError::Malformed)? {
                Key::Entry(directory, name) => {
                    let read = |entry: Option<&Entry>| entry.map(entry_of).transpose();
                    entries.insert((directory, name.to_vec()), [read(here)?, read(there)?]);
                }
                other => {
                    let both = [here.cloned(), there.cloned()];
                    values.entry(other.inode()).or_default().insert(key.into(), both);
                }
            }
            Ok(())
        })?;
        let contents = Contents::new(&join.here, &join.there, values);
        Ok(Joining { join, contents, entries })
    }

    fn stands(&self) -> Side {
        if self.join.here_stands { Side::Here } else { Side::There }
    }

    fn record(&self, inode: Inode) -> Result<Option<InodeRecord>, MergeError> {
        let standing = self.contents.record(self.stands(), inode)?;
        Ok(if standing.is_some() { standing } else { self.contents.record(self.stands().other(), inode)? })
    }

    fn is_shared(&self, inode: Inode) -> Result<bool, MergeError> {
        Ok(self.contents.has(Side::Here, inode)? && self.contents.has(Side::There, inode)?)
    }

    fn displaced(&self, name: &[u8], inode: Inode, attempt: u32) -> Result<Vec<u8>, MergeError> {
        let born = self.record(inode)?.map_or(0, |record| record.crtime.seconds);
        let mut session = [0; DeviceId::BYTES];
        session[..8].copy_from_slice(&inode.0.to_be_bytes());
        Ok(conflict_name(name, &DeviceId(session), born, attempt))
    }

    /// For each inode that both have: the names that differ, by side.
    fn differing_names(&self) -> BTreeMap<Inode, [BTreeSet<&Location>; 2]> {
        let mut names: BTreeMap<Inode, [BTreeSet<&Location>; 2]> = BTreeMap::new();
        for (location, sides) in &self.entries {
            if let [Some(here), Some(there)] = sides
                && here.inode == there.inode
            {
                continue;
            }
            for (at, entry) in sides.iter().enumerate() {
                if let Some(entry) = entry {
                    names.entry(entry.inode).or_default()[at].insert(location);
                }
            }
        }
        names
    }

    /// The names that a side's contests took from what both sides have, with those that it claims instead.
    fn given_back(&self) -> Result<[BTreeMap<&Location, &Location>; 2], MergeError> {
        let mut back = [BTreeMap::new(), BTreeMap::new()];
        for (inode, names) in self.differing_names() {
            for (loser, keeper) in [(0, 1), (1, 0)] {
                for location in &names[loser] {
                    for original in names[keeper].iter().filter(|original| original.0 == location.0) {
                        if self.displaced(&original.1, inode, 0)? == location.1 {
                            back[loser].insert(*location, *original);
                        }
                    }
                }
            }
        }
        Ok(back)
    }

    fn claims(&self, merged: &Merged) -> Result<Claims, MergeError> {
        let back = self.given_back()?;
        let mut claims = Claims::new();
        let mut moved = BTreeSet::new();
        for (location, sides) in &self.entries {
            for (by, entry) in [Side::Here, Side::There].into_iter().zip(sides) {
                let Some(entry) = entry.filter(|entry| !merged.contains_key(&entry.inode)) else { continue };
                if by != self.stands() && self.is_shared(entry.inode)? {
                    continue;
                }
                let (directory, name) = back[by as usize].get(location).copied().unwrap_or(location).clone();
                let place = (settled(merged, directory), name);
                if place != *location && !self.entries.contains_key(&place) {
                    moved.insert(place.clone());
                }
                add(&mut claims, place, Claim { entry, by });
            }
        }
        for place in moved {
            // Both sides have it, and neither changed it.
            if let Some(entry) = self.contents.entry(Side::There, &place)? {
                add(&mut claims, place, Claim { entry, by: Side::There });
            }
        }
        Ok(claims)
    }

    /// The smallest keeps the name.
    fn rank(&self, claim: &Claim) -> Result<impl Ord + use<>, MergeError> {
        let own = claim.by == Side::Here && self.join.own.contains(&claim.entry.inode);
        let born = self.record(claim.entry.inode)?.map(|record| record.crtime);
        Ok((own, claim.entry.file_type != FileType::Directory, born, claim.entry.inode))
    }

    fn ranked(&self, claims: &[Claim]) -> Result<Vec<Claim>, MergeError> {
        let mut ranked = claims
            .iter()
            .map(|claim| Ok((self.rank(claim)?, *claim)))
            .collect::<Result<Vec<_>, MergeError>>()?;
        ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(ranked.into_iter().map(|(_, claim)| claim).collect())
    }

    /// The directories that become part of others, until no more do.
    fn merge_directories(&self) -> Result<Merged, MergeError> {
        let mut merged = Merged::new();
        for _ in 0..DEPTH_MAX {
            let before = merged.len();
            for claimants in self.claims(&merged)?.values().filter(|claimants| claimants.len() > 1) {
                let directories: Vec<Claim> = self.ranked(claimants)?;
                let mut directories =
                    directories.iter().filter(|claim| claim.entry.file_type == FileType::Directory);
                let Some(first) = directories.next() else { continue };
                for other in directories {
                    if !self.is_shared(other.entry.inode)? {
                        merged.insert(other.entry.inode, first.entry.inode);
                    }
                }
            }
            if merged.len() == before {
                break;
            }
        }
        Ok(merged)
    }

    fn finish(self) -> Result<Joined, MergeError> {
        let merged = self.merge_directories()?;
        let mut joined = Joined::default();
        let (mut names, mut queue) = (BTreeMap::new(), Vec::new());
        for (place, claimants) in self.claims(&merged)? {
            let mut ranked = self.ranked(&claimants)?.into_iter();
            if let Some(first) = ranked.next() {
                queue.extend(ranked.map(|loser| (place.clone(), loser)));
                names.insert(place, first.entry);
            }
        }
        for (place, loser) in queue {
            let copy = self.free_name(&place, loser.entry, &names)?;
            let there = self.contents.entry(Side::There, &(place.0, copy.clone()))?;
            if there.map(|entry| entry.inode) != Some(loser.entry.inode) {
                let mut device = [0; DeviceId::BYTES];
                device[..8].copy_from_slice(&loser.entry.inode.0.to_be_bytes());
                let (directory, name, copy) = (place.0, place.1.clone(), copy.clone());
                joined.conflicts.push(Conflict { directory, name, copy, device: DeviceId(device) });
            }
            names.insert((place.0, copy), loser.entry);
        }
        self.edits_of(&merged, names, joined)
    }

    fn free_name(
        &self,
        (directory, name): &Location,
        loser: DirEntry,
        names: &BTreeMap<Location, DirEntry>,
    ) -> Result<Vec<u8>, MergeError> {
        for attempt in 0..ATTEMPTS_MAX {
            let copy = self.displaced(name, loser.inode, attempt)?;
            let place = (*directory, copy);
            let taken = match names.get(&place) {
                Some(entry) => Some(*entry),
                None if self.entries.contains_key(&place) => None,
                None => self.contents.entry(Side::There, &place)?,
            };
            if taken.is_none_or(|entry| entry.inode == loser.inode) {
                return Ok(place.1);
            }
        }
        Err(MergeError::Malformed)
    }

    fn accepted(&self, inode: Inode) -> Result<bool, MergeError> {
        let Some(accepted) = &self.join.accepted else { return Ok(false) };
        Ok(accepted.map.get(accepted.root.as_ref(), &Key::Inode(inode).encode())?.is_some())
    }

    fn edits_of(
        &self,
        merged: &Merged,
        names: BTreeMap<Location, DirEntry>,
        mut joined: Joined,
    ) -> Result<Joined, MergeError> {
        let mut edits = BTreeMap::new();
        let mut links: BTreeMap<Inode, i64> = BTreeMap::new();
        let mut parents: BTreeMap<Inode, Inode> = BTreeMap::new();
        let touched: BTreeSet<&Location> = self.entries.keys().chain(names.keys()).collect();
        for place in touched {
            let new = names.get(place);
            let old = match self.entries.get(place) {
                Some([_, there]) => *there,
                None => self.contents.entry(Side::There, place)?,
            };
            if let Some(entry) = new.filter(|entry| entry.file_type == FileType::Directory) {
                parents.insert(entry.inode, place.0);
            }
            if new == old.as_ref() {
                continue;
            }
            let subdirectory = |entry: Option<&DirEntry>| {
                i64::from(entry.is_some_and(|entry| entry.file_type == FileType::Directory))
            };
            *links.entry(place.0).or_default() += subdirectory(new) - subdirectory(old.as_ref());
            for entry in new.into_iter().chain(&old) {
                joined.lacks = joined.lacks || self.join.here_stands && self.accepted(entry.inode)?;
            }
            let change = new.map(|entry| (entry.encode(), None));
            edits.insert(Key::Entry(place.0, &place.1).encode(), change);
        }
        let inodes: BTreeSet<Inode> =
            self.contents.touched().chain(links.keys().copied()).chain(parents.keys().copied()).collect();
        for inode in inodes {
            let added = links.get(&inode).copied().unwrap_or(0);
            self.settle(inode, merged, added, parents.get(&inode), &mut edits, &mut joined)?;
        }
        let edit = |(key, change)| MergeEdit { key, change };
        joined.edits = edits.into_iter().map(edit).collect();
        joined
            .conflicts
            .sort_by(|one, other| (one.directory, &one.name).cmp(&(other.directory, &other.name)));
        Ok(joined)
    }

    /// What one inode comes to.
    fn settle(
        &self,
        inode: Inode,
        merged: &Merged,
        added: i64,
        parent: Option<&Inode>,
        edits: &mut Edits,
        joined: &mut Joined,
    ) -> Result<(), MergeError> {
        let [here, there] =
            [self.contents.record(Side::Here, inode)?, self.contents.record(Side::There, inode)?];
        let record_key = Key::Inode(inode).encode();
        if merged.contains_key(&inode) {
            for (key, [_, value]) in self.contents.values(inode) {
                if value.is_some() {
                    edits.insert(key.clone(), None);
                }
            }
            return Ok(());
        }
        let (source, differs) = match (&here, &there) {
            (Some(_), Some(_)) => (self.stands(), self.contents.differ(inode, &here, &there)),
            (Some(_), None) => (Side::Here, false),
            _ => (Side::There, false),
        };
        joined.differs |= differs;
        if differs || here.is_some() && there.is_none() {
            let stands = self.join.here_stands && here.is_some();
            joined.lacks = joined.lacks || stands && self.accepted(inode)?;
        }
        for (key, values) in self.contents.values(inode).filter(|_| source == Side::Here) {
            let value = values[0].as_ref();
            let source = |place| Source { which: Which::A, place };
            edits.insert(key.clone(), value.map(|entry| (entry.value.clone(), entry.place.map(source))));
        }
        let leading = if source == Side::Here { &here } else { &there };
        let Some(record) = leading.as_ref().filter(|record| record.is_directory()) else { return Ok(()) };
        let mut record = record.clone();
        let (one, other) = (here.as_ref(), there.as_ref().filter(|record| record.is_directory()));
        if let (Some(one), Some(other)) = (one.filter(|record| record.is_directory()), other) {
            record.mtime = one.mtime.max(other.mtime);
            record.ctime = one.ctime.max(other.ctime);
            if Contents::is_unclaimed(self.join.block, inode, one, other) {
                (record.uid, record.gid) = (one.uid, one.gid).min((other.uid, other.gid));
            }
        }
        let links = i64::from(other.map_or(2, |record| record.nlink)) + added;
        record.nlink = u32::try_from(links).unwrap_or(2);
        record.parent = parent.copied().unwrap_or(record.parent);
        if there.as_ref() == Some(&record) {
            edits.remove(&record_key);
        } else {
            edits.insert(record_key, Some((record.encode(), None)));
        }
        Ok(())
    }
}

type Edits = BTreeMap<Box<[u8]>, Option<super::NewValue>>;

fn settled(merged: &Merged, mut directory: Inode) -> Inode {
    for _ in 0..DEPTH_MAX {
        match merged.get(&directory) {
            Some(into) => directory = *into,
            None => break,
        }
    }
    directory
}

fn add(claims: &mut Claims, place: Location, claim: Claim) {
    let claimants = claims.entry(place).or_default();
    if !claimants.iter().any(|known| known.entry.inode == claim.entry.inode) {
        claimants.push(claim);
    }
}

/// The record that a value is, if it is one.
pub(super) fn record_in(entry: Option<&Entry>) -> Result<Option<InodeRecord>, MergeError> {
    entry.map(record_of).transpose()
}
