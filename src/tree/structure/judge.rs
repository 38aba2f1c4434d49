//! Judging inodes by all that changed of them.

use super::{Defect, Flaw, Stopped, Touched};
use crate::base::{BlockNumber, Inode};
use crate::map::{Cursor, MapError};
use crate::tree::inode::{FileType, InodeRecord};
use crate::tree::key::{self, Key};
use crate::tree::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Holds what changed against the records of both states.
pub(super) struct Judge<'r, 'v> {
    root: Inode,
    old: Option<&'v Version<'v>>,
    new: &'v Version<'v>,
    /// Directories that the root reaches.
    rooted: BTreeSet<Inode>,
    report: &'r mut dyn FnMut(Flaw) -> Result<(), Stopped>,
}

/// `Err` within `Ok`: the flaw that was found.
type Verdict = Result<Result<(), Defect>, MapError>;

impl<'r, 'v> Judge<'r, 'v> {
    /// A judge of what lies between two states.
    pub(super) fn new(
        block: BlockNumber,
        old: Option<&'v Version<'v>>,
        new: &'v Version<'v>,
        report: &'r mut dyn FnMut(Flaw) -> Result<(), Stopped>,
    ) -> Judge<'r, 'v> {
        let root = block.root_inode();
        Judge { root, old, new, rooted: BTreeSet::from([root]), report }
    }

    /// Judges every touched inode.
    pub(super) fn all(&mut self, touched: &BTreeMap<Inode, Touched>) -> Result<(), Stopped> {
        for (&inode, touched) in touched {
            if let Err(defect) = self.inode(inode, touched)? {
                (self.report)(Flaw { inode, defect })?;
            }
        }
        Ok(())
    }

    fn record(&self, version: &Version<'_>, inode: Inode) -> Result<Option<InodeRecord>, MapError> {
        let entry = version.map.get(version.root.as_ref(), &Key::Inode(inode).encode())?;
        Ok(entry.and_then(|entry| InodeRecord::decode(&entry.value).ok()))
    }

    fn inode(&mut self, inode: Inode, touched: &Touched) -> Verdict {
        let old = match self.old {
            Some(old) => self.record(old, inode)?,
            None => None,
        };
        // How many names the new state has for it, by the count that the old state vouches for.
        let before = match &old {
            Some(_) if inode == self.root => 0,
            Some(old) if old.is_directory() => 1,
            Some(old) => u64::from(old.nlink),
            None => 0,
        };
        let Some(names) = (before + touched.added_in.len() as u64).checked_sub(touched.removed) else {
            return Ok(Err(Defect::Links));
        };
        let Some(new) = self.record(self.new, inode)? else {
            return Ok(if names > 0 {
                Err(Defect::Entry)
            } else if self
                .first_from(&key::start_of(inode))?
                .is_some_and(|key| key.starts_with(&key::start_of(inode)))
            {
                Err(Defect::NoRecord)
            } else {
                Ok(())
            });
        };
        let retyped = old.as_ref().is_some_and(|old| old.file_type != new.file_type);
        let old_name_is_left = retyped && before > touched.removed;
        if old_name_is_left || touched.named_as.iter().any(|named| *named != new.file_type) {
            return Ok(Err(Defect::Entry));
        }
        if let Err(defect) = self.contents(inode, touched, old.as_ref(), &new)? {
            return Ok(Err(defect));
        }
        if new.is_directory() {
            return self.directory(
                inode,
                touched,
                old.filter(InodeRecord::is_directory).as_ref(),
                &new,
                names,
            );
        }
        Ok(if names == u64::from(new.nlink) && names > 0 { Ok(()) } else { Err(Defect::Links) })
    }

    /// The first key of the new state from `from` on.
    fn first_from(&self, from: &[u8]) -> Result<Option<Box<[u8]>>, MapError> {
        Ok(self.cursor(from).next()?.map(|entry| entry.key))
    }

    fn cursor(&self, from: &[u8]) -> Cursor<'v> {
        self.new.map.range(self.new.root.as_ref(), from)
    }

    /// Whether what lies under an inode goes with its type, size and chunk size.
    fn contents(
        &self,
        inode: Inode,
        touched: &Touched,
        old: Option<&InodeRecord>,
        new: &InodeRecord,
    ) -> Verdict {
        let same_type = old.filter(|old| old.file_type == new.file_type);
        if old.is_some() && same_type.is_none() && self.has_foreign_keys(inode, new)? {
            return Ok(Err(Defect::Contents));
        }
        let is_link = new.file_type == FileType::Symlink;
        let target = touched.target.or(same_type.map(|old| old.size));
        let fits = if is_link { target == Some(new.size) } else { touched.target.unwrap_or(0) == 0 };
        if !fits || (touched.has_entries && !new.is_directory()) {
            return Ok(Err(Defect::Contents));
        }
        self.chunks(inode, touched, same_type, new)
    }

    /// Whether an inode that changed its type has keys of another.
    fn has_foreign_keys(&self, inode: Inode, record: &InodeRecord) -> Result<bool, MapError> {
        let mut cursor = self.cursor(&key::start_of(inode));
        while let Some(entry) = cursor.next()? {
            let foreign = match Key::decode(&entry.key) {
                Ok(key) if key.inode() != inode => return Ok(false),
                Ok(Key::Entry(..)) => !record.is_directory(),
                Ok(Key::Chunk(..)) => !record.is_file(),
                Ok(Key::Link(_)) => record.file_type != FileType::Symlink,
                Ok(Key::Inode(_) | Key::Xattr(..)) => false,
                Err(_) => true,
            };
            if foreign {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether no chunk is longer than the file's chunk size, or beyond its end.
    fn chunks(
        &self,
        inode: Inode,
        touched: &Touched,
        old: Option<&InodeRecord>,
        new: &InodeRecord,
    ) -> Verdict {
        let chunk_bytes = if new.record_size.is_decided() { 1u64 << new.record_size.log2() } else { 0 };
        let longest = match old {
            Some(old) if old.record_size != new.record_size => self.longest_chunk(inode)?,
            _ => touched.longest_chunk,
        };
        let end = if chunk_bytes == 0 { 0 } else { new.size.div_ceil(chunk_bytes) };
        let beyond = self.first_from(&Key::Chunk(inode, end).encode())?;
        let beyond =
            beyond.is_some_and(|key| matches!(Key::decode(&key), Ok(Key::Chunk(other, _)) if other == inode));
        Ok(if beyond || longest > chunk_bytes { Err(Defect::Chunk) } else { Ok(()) })
    }

    /// Bytes of the longest chunk of a file.
    fn longest_chunk(&self, inode: Inode) -> Result<u64, MapError> {
        let mut cursor = self.cursor(&Key::Chunk(inode, 0).encode());
        let mut longest = 0;
        while let Some(entry) = cursor.next()? {
            match (Key::decode(&entry.key), entry.place) {
                (Ok(Key::Chunk(other, _)), Some(place)) if other == inode => {
                    longest = longest.max(u64::from(place.length));
                }
                _ => break,
            }
        }
        Ok(longest)
    }

    /// Whether a directory lies in one place, under the root, and counts its subdirectories.
    fn directory(
        &mut self,
        inode: Inode,
        touched: &Touched,
        old: Option<&InodeRecord>,
        new: &InodeRecord,
        names: u64,
    ) -> Verdict {
        let genesis = (inode == self.root).then(InodeRecord::genesis);
        let old = old.or(genesis.as_ref());
        let links = i64::from(old.map_or(2, |old| old.nlink)) + touched.subdirectories;
        if i64::from(new.nlink) != links {
            return Ok(Err(Defect::Links));
        }
        let in_place = match (touched.added_in.as_slice(), old) {
            ([], Some(old)) => new.parent == old.parent && names == u64::from(inode != self.root),
            ([parent], _) => new.parent == *parent && names == 1 && inode != self.root,
            _ => false,
        };
        if !in_place {
            return Ok(Err(Defect::Parent));
        }
        if touched.added_in.is_empty() || self.reaches_root(inode)? {
            Ok(Ok(()))
        } else {
            Ok(Err(Defect::Cycle))
        }
    }

    /// Whether the parents of a directory lead to the root.
    fn reaches_root(&mut self, inode: Inode) -> Result<bool, MapError> {
        let mut path = BTreeSet::new();
        let mut at = inode;
        while !self.rooted.contains(&at) {
            let record = self.record(self.new, at)?.filter(InodeRecord::is_directory);
            let Some(record) = record.filter(|_| path.insert(at)) else { return Ok(false) };
            at = record.parent;
        }
        self.rooted.extend(path);
        Ok(true)
    }
}
