//! Append mode: a block is a set of whole files that only grows.

use super::delta::{Delta, Group, Location, Rank, Triple, record_of};
use super::{MergeError, Version};
use crate::base::Inode;
use crate::tree::inode::{FileType, InodeRecord};
use crate::tree::key::Key;
use crate::tree::value::DirEntry;
use std::collections::BTreeMap;

impl Delta {
    /// Takes back what the sides did to what the base has, but for the times and links of directories.
    pub(super) fn keep_base(&mut self, base: &Version<'_>) -> Result<(), MergeError> {
        let in_base = |inode: Inode| -> Result<Option<InodeRecord>, MergeError> {
            let entry = base.map.get(base.root.as_ref(), &Key::Inode(inode).encode())?;
            entry.as_ref().map(record_of).transpose()
        };
        for triple in self.entries.values_mut() {
            if triple.base.is_some() {
                keep(triple);
                continue;
            }
            for side in [&mut triple.winner, &mut triple.loser] {
                // A second name would be a change of the file that has the first.
                if let Some(entry) = side
                    && in_base(entry.inode)?.is_some()
                {
                    *side = None;
                }
            }
        }
        for (inode, group) in &mut self.groups {
            if let Some(record) = in_base(*inode)? {
                let [winner, loser] = Rank::BOTH.map(|rank| new_subdirectories(&self.entries, *inode, rank));
                group.keep_base(&record, winner, loser);
            }
        }
        Ok(())
    }
}

/// How many directories a side added to a directory.
fn new_subdirectories(entries: &BTreeMap<Location, Triple<DirEntry>>, directory: Inode, rank: Rank) -> u32 {
    let inside = entries.range((directory, Vec::new())..).take_while(|((parent, _), _)| *parent == directory);
    let added = inside.filter(|(_, triple)| triple.base.is_none());
    let directories = added.filter(|(_, triple)| {
        triple.of(rank).as_ref().is_some_and(|entry| entry.file_type == FileType::Directory)
    });
    directories.count() as u32
}

impl Group {
    fn keep_base(&mut self, base: &InodeRecord, new_in_winner: u32, new_in_loser: u32) {
        self.chunks.values_mut().for_each(keep);
        self.xattrs.values_mut().for_each(keep);
        self.link.iter_mut().for_each(keep);
        if !base.is_directory() {
            keep(&mut self.record);
            return;
        }
        for (side, added) in
            [(&mut self.record.winner, new_in_winner), (&mut self.record.loser, new_in_loser)]
        {
            let nlink = base.nlink.saturating_add(added);
            let times = side.as_ref().filter(|record| record.is_directory()).unwrap_or(base);
            let (mtime, ctime) = (times.mtime, times.ctime);
            *side = Some(InodeRecord { mtime, ctime, nlink, ..base.clone() });
        }
    }
}

/// What the base has, both have.
fn keep<T: Clone>(triple: &mut Triple<T>) {
    (triple.winner, triple.loser) = (triple.base.clone(), triple.base.clone());
}
