//! The result as edits on `b`'s map (rules 10, 11).

use super::delta::{Group, Location, Rank, Triple};
use super::state::State;
use super::{MergeEdit, MergeError, Merged, NewValue, Source, Which};
use crate::base::{Id, Inode};
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;
use crate::tree::value::DirEntry;
use std::collections::BTreeMap;

/// A value of the result.
enum Wanted {
    /// The value itself.
    Value(Box<[u8]>),
    /// A chunk, and the side and inode under which its bytes are found.
    Chunk(Id, Rank, Inode, u64),
}

/// The result under every key that the merge looked at; `None` is no key.
#[derive(Default)]
struct Contents(BTreeMap<Box<[u8]>, Option<Wanted>>);

impl Contents {
    fn put(&mut self, key: &Key<'_>, value: Option<impl Into<Box<[u8]>>>) {
        self.0.insert(key.encode(), value.map(|value| Wanted::Value(value.into())));
    }
}

impl State<'_> {
    /// Compares the result with `b`. `sides` says who the winner and the loser are.
    pub(super) fn into_merged(mut self, sides: [Which; 2]) -> Result<Merged, MergeError> {
        let which = |rank| if rank == Rank::Winner { sides[0] } else { sides[1] };
        let b = if sides[0] == Which::B { self.winner.version } else { self.loser.version };
        let mut edits_on_b = Vec::new();
        for (key, wanted) in self.contents().0 {
            let present = b.map.get(b.root.as_ref(), &key)?;
            let change = match (wanted, present) {
                (None, None) => continue,
                (None, Some(_)) => None,
                (Some(Wanted::Value(value)), present) => {
                    if present.is_some_and(|entry| *entry.value == *value) {
                        continue;
                    }
                    Some((value, None))
                }
                (Some(Wanted::Chunk(id, rank, inode, index)), present) => {
                    if present.is_some_and(|entry| *entry.value == id.0[..]) {
                        continue;
                    }
                    Some(self.chunk(id, rank, inode, index, &which)?)
                }
            };
            edits_on_b.push(MergeEdit { key, change });
        }
        self.conflicts.sort_by(|x, y| (x.directory, &x.name, &x.copy).cmp(&(y.directory, &y.name, &y.copy)));
        Ok(Merged { edits_on_b, conflicts: self.conflicts })
    }

    /// A chunk's value and where its bytes lie, in `b`'s image if they are there.
    fn chunk(
        &self,
        id: Id,
        rank: Rank,
        inode: Inode,
        index: u64,
        which: &dyn Fn(Rank) -> Which,
    ) -> Result<NewValue, MergeError> {
        let value: Box<[u8]> = id.0.into();
        let here = if which(rank) == Which::B { rank } else { rank.other() };
        for rank in [here, here.other()] {
            let version = &self.side(rank).version;
            let entry = version.map.get(version.root.as_ref(), &Key::Chunk(inode, index).encode())?;
            let place = entry.filter(|entry| entry.value == value).and_then(|entry| entry.place);
            if let Some(place) = place {
                return Ok((value, Some(Source { which: which(rank), place })));
            }
        }
        Err(MergeError::Malformed)
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for location in self.entries.keys().chain(self.claims.keys()) {
            let holder = self.claims.get(location).and_then(|claimants| claimants.first());
            let entry = holder.and_then(|inode| self.entry(*inode));
            contents.put(&Key::Entry(location.0, &location.1), entry.map(|entry| entry.encode()));
        }
        for (&inode, group) in &self.groups {
            if inode == self.block.root_inode() || self.alive.contains(&inode) {
                self.put_inode(inode, group, &mut contents);
            } else {
                self.put_nothing(inode, group, &mut contents);
            }
        }
        contents
    }

    /// What a directory says of a living inode.
    fn entry(&self, inode: Inode) -> Option<DirEntry> {
        let record = self.groups.get(&inode)?.leading_record()?;
        Some(DirEntry { inode, file_type: record.file_type })
    }

    fn put_nothing(&self, inode: Inode, group: &Group, contents: &mut Contents) {
        contents.put(&Key::Inode(inode), None::<Vec<u8>>);
        for index in group.chunks.keys() {
            contents.put(&Key::Chunk(inode, *index), None::<Vec<u8>>);
        }
        for name in group.xattrs.keys() {
            contents.put(&Key::Xattr(inode, name), None::<Vec<u8>>);
        }
        if group.link.is_some() {
            contents.put(&Key::Link(inode), None::<Vec<u8>>);
        }
    }

    fn put_inode(&self, inode: Inode, group: &Group, contents: &mut Contents) {
        let side = group.data_side();
        // The number under which the side knows it.
        let known_as = self.renumbered.get(&inode).or(self.copies.get(&inode)).copied().unwrap_or(inode);
        for (index, chunk) in &group.chunks {
            let wanted = chunk.of(side).map(|id| Wanted::Chunk(id, side, known_as, *index));
            contents.0.insert(Key::Chunk(inode, *index).encode(), wanted);
        }
        let only = group.only_side();
        fn chosen<T: Clone + PartialEq>(triple: &Triple<T>, only: Option<Rank>) -> Option<T> {
            only.map_or_else(|| triple.merged(), |rank| triple.of(rank)).clone()
        }
        for (name, xattr) in &group.xattrs {
            contents.put(&Key::Xattr(inode, name), chosen(xattr, only));
        }
        if let Some(link) = &group.link {
            contents.put(&Key::Link(inode), chosen(link, only));
        }
        let Some(record) = group.merged_record() else { return };
        let record = self.count_names(inode, group, record);
        // The root of a block that nobody wrote to has no record, and gets none.
        if group.touched || group.record.winner.as_ref() != Some(&record) {
            contents.put(&Key::Inode(inode), Some(record.encode()));
        }
    }

    /// Sets link count and parent by the names of the result.
    fn count_names(&self, inode: Inode, group: &Group, mut record: InodeRecord) -> InodeRecord {
        let rank = if group.exists(Rank::Winner) { Rank::Winner } else { Rank::Loser };
        let Some(known) = group.record.of(rank) else { return record };
        let places: Vec<&Location> =
            self.places.get(&inode).into_iter().flat_map(|places| places.keys()).collect();
        let (before, after) = if record.is_directory() {
            self.subdirectories(inode, rank)
        } else {
            (self.names.of(rank, inode).len() as u64, places.len() as u64)
        };
        let count = (u64::from(known.nlink) + after).saturating_sub(before);
        record.nlink = u32::try_from(count).unwrap_or(u32::MAX);
        record.parent = self.parent_for(inode, &record, &places);
        record
    }

    /// How many directories lie under touched names in a directory: in a side, and in the result.
    fn subdirectories(&self, directory: Inode, rank: Rank) -> (u64, u64) {
        let inside = |(parent, _): &Location| *parent == directory;
        let before = self
            .entries
            .range((directory, Vec::new())..)
            .take_while(|(location, _)| inside(location))
            .filter(|(_, triple)| {
                triple.of(rank).as_ref().is_some_and(|entry| self.is_directory(entry.inode))
            });
        let after = self
            .claims
            .range((directory, Vec::new())..)
            .take_while(|(location, _)| inside(location))
            .filter(|(_, claimants)| claimants.first().is_some_and(|inode| self.is_directory(*inode)));
        (before.count() as u64, after.count() as u64)
    }

    /// The directory that a record names: of a directory, where it lies; of others, one of the directories where it
    /// lies, by preference that of the side whose names the result has.
    fn parent_for(&self, inode: Inode, record: &InodeRecord, places: &[&Location]) -> Inode {
        let Some(first) = places.first() else { return record.parent };
        if record.is_directory() {
            return first.0;
        }
        let Some(group) = self.groups.get(&inode) else { return record.parent };
        let [winners, losers] = Rank::BOTH.map(|rank| self.names.of(rank, inode));
        if group.only_side().is_none() && winners == losers {
            return record.parent;
        }
        for (rank, names) in [(Rank::Winner, &winners), (Rank::Loser, &losers)] {
            let same_names = places.len() == names.len() && places.iter().all(|place| names.contains(*place));
            if let Some(side) = group.record.of(rank).as_ref().filter(|_| same_names) {
                return side.parent;
            }
        }
        let known = places.iter().any(|place| place.0 == record.parent) || self.untouched_names(inode) > 0;
        if known { record.parent } else { first.0 }
    }
}
