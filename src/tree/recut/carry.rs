//! Moving inodes with all that belongs to them from one map into another, some at a time.

use super::{Below, Bench, Part, RecutError};
use crate::base::{Inode, Place};
use crate::image::Stream;
use crate::map::{Edit, Entry, Map, MapError, Root};
use crate::tree::inode::{FileType, InodeRecord};
use crate::tree::key::{self, Key};
use crate::tree::source::emit_error;
use crate::tree::value::{DirEntry, chunk_id, chunk_value};
use std::collections::BTreeMap;

/// Changes of a map that are collected before they are applied, in bytes of keys and values.
const BATCH_BYTES: usize = 4 << 20;

/// A value with its place; none removes the key.
type Change = Option<(Box<[u8]>, Option<Place>)>;

/// A map that is being changed.
struct Target<'a> {
    bench: &'a Bench<'a>,
    part: Part<'a>,
    edits: BTreeMap<Box<[u8]>, Change>,
    bytes: usize,
}

impl<'a> Target<'a> {
    fn new(bench: &'a Bench<'a>, part: &Part<'a>) -> Target<'a> {
        Target { bench, part: *part, edits: BTreeMap::new(), bytes: 0 }
    }

    fn edit(&mut self, key: Box<[u8]>, change: Change) -> Result<(), MapError> {
        self.bytes += key.len() + change.as_ref().map_or(0, |(value, _)| value.len());
        self.edits.insert(key, change);
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.apply() }
    }

    fn apply(&mut self) -> Result<(), MapError> {
        let edits: Vec<Edit> =
            std::mem::take(&mut self.edits).into_iter().map(|(key, change)| Edit { key, change }).collect();
        self.bytes = 0;
        let source = self.bench.source();
        let map = Map::new(self.part.keys, &source, self.bench.nodes);
        self.part.root = map.apply(self.part.root, &edits, &mut self.bench.source())?;
        Ok(())
    }

    fn finish(mut self) -> Result<Option<Root>, MapError> {
        self.apply()?;
        Ok(self.part.root)
    }
}

impl Bench<'_> {
    /// Visits all keys of an inode.
    fn each_key(
        &self,
        part: &Part<'_>,
        inode: Inode,
        mut visit: impl FnMut(Entry) -> Result<(), RecutError>,
    ) -> Result<(), RecutError> {
        let source = self.source();
        let map = Map::new(part.keys, &source, self.nodes);
        let own = key::start_of(inode);
        let mut cursor = map.range(part.root.as_ref(), &own);
        while let Some(entry) = cursor.next()? {
            if !entry.key.starts_with(&own) {
                break;
            }
            visit(entry)?;
        }
        Ok(())
    }

    pub(super) fn record(&self, part: &Part<'_>, inode: Inode) -> Result<Option<InodeRecord>, RecutError> {
        let source = self.source();
        let map = Map::new(part.keys, &source, self.nodes);
        let found = map.get(part.root.as_ref(), &Key::Inode(inode).encode())?;
        let decode = |found: Entry| InodeRecord::decode(&found.value).map_err(RecutError::malformed(inode));
        found.map(decode).transpose()
    }

    /// Puts a directory's attributes, names and all below it into another map, at a directory whose parent there is known.
    /// What that directory has itself stays, but for its attributes.
    pub(super) fn carry(
        &self,
        (from, directory): (&Part<'_>, Inode),
        (to, target, parent): (&Part<'_>, Inode, Inode),
        below: &Below,
    ) -> Result<Option<Root>, RecutError> {
        let mut writer = Target::new(self, to);
        let there = self.record(to, target)?;
        let mut names = Vec::new();
        self.each_key(to, target, |entry| {
            match Key::decode(&entry.key).map_err(RecutError::malformed(target))? {
                Key::Entry(_, name) => names.push(name.to_vec()),
                Key::Xattr(..) => writer.edit(entry.key, None)?,
                _ => {}
            }
            Ok(())
        })?;
        let hidden = there.map_or(0, |record| record.nlink.saturating_sub(2));
        let mut record = self.record(from, directory)?.unwrap_or_else(InodeRecord::genesis);
        (record.parent, record.nlink) = (parent, record.nlink.saturating_add(hidden));
        writer.edit(Key::Inode(target).encode(), Some((record.encode(), None)))?;
        self.each_key(from, directory, |entry| {
            let key = match Key::decode(&entry.key).map_err(RecutError::malformed(directory))? {
                Key::Entry(_, name) if names.iter().any(|taken| taken == name) => {
                    return Err(RecutError::Occupied(String::from_utf8_lossy(name).into_owned()));
                }
                Key::Entry(_, name) => Key::Entry(target, name).encode(),
                Key::Xattr(_, name) => Key::Xattr(target, name).encode(),
                Key::Inode(_) => return Ok(()),
                Key::Chunk(..) | Key::Link(_) => return Err(RecutError::Malformed(directory)),
            };
            Ok(writer.edit(key, Some((entry.value, None)))?)
        })?;
        for (inode, (file_type, names)) in below {
            let mut data_id = None;
            self.each_key(from, *inode, |entry| {
                let malformed = RecutError::malformed(*inode);
                let change = match Key::decode(&entry.key).map_err(&malformed)? {
                    Key::Inode(_) => {
                        let mut record = InodeRecord::decode(&entry.value).map_err(&malformed)?;
                        if !record.is_directory() && record.nlink != *names {
                            return Err(RecutError::Crossing(*inode));
                        }
                        data_id = Some(record.data_id);
                        if record.parent == directory {
                            record.parent = target;
                        }
                        (record.encode(), None)
                    }
                    Key::Chunk(_, index) => {
                        let data_id = data_id.ok_or(RecutError::Malformed(*inode))?;
                        self.reseal(from, to, (data_id, index), &entry)?
                    }
                    _ => (entry.value, None),
                };
                Ok(writer.edit(entry.key, Some(change))?)
            })?;
            if data_id.is_none() {
                // Named, and not there.
                return Err(RecutError::Malformed(*inode));
            }
            debug_assert!(*file_type != FileType::Directory || *names == 1);
        }
        Ok(writer.finish()?)
    }

    /// A chunk under the key of another block.
    fn reseal(
        &self,
        from: &Part<'_>,
        to: &Part<'_>,
        (data_id, index): (u64, u64),
        entry: &Entry,
    ) -> Result<(Box<[u8]>, Option<Place>), RecutError> {
        let inode = Key::decode(&entry.key).map_or(Inode(0), |key| key.inode());
        let place = entry.place.ok_or(RecutError::Malformed(inode))?;
        let id = chunk_id(&entry.value).map_err(RecutError::malformed(inode))?;
        let sealed =
            self.draft.read(place).map_err(|error| super::super::source::fetch_error(place, error))?;
        let opened = from.keys.open_chunk_in_place(data_id, index, &id, sealed);
        let plain = opened.map_err(|_| RecutError::Tampered { block: from.block, place })?;
        let mut sealed = Vec::with_capacity(plain.len());
        let id = to.keys.seal_chunk(data_id, index, &plain, &mut sealed);
        let place = self.draft.append(Stream::Fresh, &sealed).map_err(emit_error)?;
        Ok((chunk_value(&id), Some(place)))
    }

    /// Takes all below a directory out of a map, and leaves the directory empty.
    pub(super) fn clear(
        &self,
        part: &Part<'_>,
        directory: Inode,
        below: &Below,
    ) -> Result<Option<Root>, RecutError> {
        let mut writer = Target::new(self, part);
        self.each_key(part, directory, |entry| {
            let change = match Key::decode(&entry.key).map_err(RecutError::malformed(directory))? {
                Key::Inode(_) => {
                    let record =
                        InodeRecord::decode(&entry.value).map_err(RecutError::malformed(directory))?;
                    Some((InodeRecord { nlink: 2, ..record }.encode(), None))
                }
                _ => None,
            };
            Ok(writer.edit(entry.key, change)?)
        })?;
        for inode in below.keys() {
            self.each_key(part, *inode, |entry| {
                entry.place.into_iter().for_each(|place| self.draft.free(place));
                Ok(writer.edit(entry.key, None)?)
            })?;
        }
        Ok(writer.finish()?)
    }

    /// Says that nothing of a block is used any more.
    pub(super) fn drop_all(&self, part: &Part<'_>, below: &Below) -> Result<(), RecutError> {
        for inode in below.keys() {
            self.each_key(part, *inode, |entry| {
                entry.place.into_iter().for_each(|place| self.draft.free(place));
                Ok(())
            })?;
        }
        let source = self.source();
        let map = Map::new(part.keys, &source, self.nodes);
        Ok(map.each_node(part.root.as_ref(), &mut |place| self.draft.free(place))?)
    }

    /// The block with one more, empty directory.
    pub(super) fn with_directory<'a>(
        &self,
        part: &Part<'a>,
        parent: Inode,
        name: &[u8],
        inode: Inode,
    ) -> Result<Part<'a>, RecutError> {
        let mut above = self.record(part, parent)?.unwrap_or_else(InodeRecord::genesis);
        if self.record(part, inode)?.is_some() {
            return Err(RecutError::Number(inode));
        }
        let source = self.source();
        let map = Map::new(part.keys, &source, self.nodes);
        if map.get(part.root.as_ref(), &Key::Entry(parent, name).encode())?.is_some() {
            // Something else than a directory has the name.
            return Err(RecutError::Occupied(String::from_utf8_lossy(name).into_owned()));
        }
        above.nlink = above.nlink.saturating_add(1);
        let made = InodeRecord { parent, ..InodeRecord::genesis() };
        let entry = DirEntry { inode, file_type: FileType::Directory };
        let edit = |key: Key<'_>, value| Edit { key: key.encode(), change: Some((value, None)) };
        let mut edits = vec![
            edit(Key::Inode(parent), above.encode()),
            edit(Key::Entry(parent, name), entry.encode()),
            edit(Key::Inode(inode), made.encode()),
        ];
        edits.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Part { root: map.apply(part.root, &edits, &mut self.source())?, ..*part })
    }
}
