//! What of a flushed state may be published: append blocks without what is not whole yet.

use super::block::Base;
use super::error::TreeError;
use super::flush::{Head, Held};
use super::growing::Unfinished;
use super::inode::InodeRecord;
use super::key::{Key, start_of};
use super::source::DraftSource;
use super::value::DirEntry;
use super::verify::{LiveDelta, live_delta};
use super::version::Version;
use crate::base::{BlockNumber, Inode, Place};
use crate::image::{Draft, Image, Stream};
use crate::map::{Edit, Emit, EmitError, Map, Root};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// A flushed state, and what of it is whole.
pub struct Whole {
    /// All of it.
    pub head: Head,
    /// The roots without what is not whole.
    pub roots: BTreeMap<BlockNumber, Option<Root>>,
    /// How the live bytes of what is whole differ from those of the head.
    delta: LiveDelta,
    /// Something was left out.
    pub waits: bool,
}

impl Whole {
    /// A state in which everything is whole.
    pub fn all(head: Head) -> Whole {
        Whole { roots: head.roots.clone(), head, delta: LiveDelta::default(), waits: false }
    }

    /// An image of the head with the counts of what is whole.
    pub fn counted(&self, image: Image) -> Image {
        if self.delta.regions().is_empty() {
            image
        } else {
            image.with_live_since(&image, self.delta.regions())
        }
    }
}

impl Held<'_> {
    /// Flushes and fixes what is whole at `now`. None if `written` is asked for and a file waits for its first bytes.
    pub fn flush_whole(&mut self, now: Instant, written: bool) -> Result<Option<Whole>, TreeError> {
        self.flushing.settle = Some(now);
        let head = if written { self.flush_written(now) } else { self.flush().map(Some) };
        self.flushing.settle = None;
        let Some(head) = head? else { return Ok(None) };
        let unfinished = std::mem::take(&mut self.flushing.unfinished);
        if unfinished.inodes.is_empty() {
            return Ok(Some(Whole::all(head)));
        }
        self.without(head, &unfinished).map(Some)
    }

    fn without(&self, head: Head, unfinished: &Unfinished) -> Result<Whole, TreeError> {
        let draft = self.draft();
        let base = self.tree.bench.state.read().base.clone();
        let mut whole = Whole { waits: true, ..Whole::all(head) };
        for (number, inodes) in &unfinished.inodes {
            let root = whole.roots.get(number).copied().flatten();
            let (root, delta) = self.block_without(&base, &draft, (*number, root), inodes, unfinished)?;
            whole.roots.insert(*number, root);
            whole.delta.join(&delta);
        }
        Ok(whole)
    }

    fn block_without(
        &self,
        base: &Base,
        draft: &Arc<Draft>,
        (number, root): (BlockNumber, Option<Root>),
        inodes: &BTreeSet<Inode>,
        unfinished: &Unfinished,
    ) -> Result<(Option<Root>, LiveDelta), TreeError> {
        let in_block = |error| TreeError::in_block(number, error);
        let keys = &base.block(number)?.keys;
        let source = DraftSource::new(draft.clone(), Stream::Fresh);
        let map = Map::new(keys, &source, self.tree.node_cache());
        let edits = leave_out(&map, root, inodes, unfinished).map_err(in_block)?;
        let mut beside = Beside { draft, emitted: HashSet::new() };
        let done = map.apply(root, &edits, &mut beside).map_err(in_block)?;
        let version = |root| Version { map: &map, root, keys, source: &source };
        let delta = live_delta(Some(&version(root)), &version(done)).map_err(in_block);
        // The head does without what was made for the version alone.
        beside.emitted.iter().for_each(|place| draft.free(*place));
        Ok((done, delta?))
    }
}

/// The edits that take inodes and their names out of a map.
fn leave_out(
    map: &Map<'_>,
    root: Option<Root>,
    inodes: &BTreeSet<Inode>,
    unfinished: &Unfinished,
) -> Result<Vec<Edit>, crate::map::MapError> {
    let mut edits: BTreeMap<Box<[u8]>, Option<Box<[u8]>>> = BTreeMap::new();
    let mut subdirectories: BTreeMap<Inode, u32> = BTreeMap::new();
    for inode in inodes {
        let own = start_of(*inode);
        let mut cursor = map.range(root.as_ref(), &own);
        while let Some(entry) = cursor.next()?.filter(|entry| entry.key.starts_with(&own)) {
            edits.insert(entry.key, None);
        }
    }
    let names = unfinished
        .names
        .iter()
        .filter(|(directory, _, inode)| inodes.contains(inode) && !inodes.contains(directory));
    for (directory, name, inode) in names {
        let key = Key::Entry(*directory, name).encode();
        let Some(found) = map.get(root.as_ref(), &key)? else { continue };
        let Some(found) = DirEntry::decode(&found.value).ok().filter(|found| found.inode == *inode) else {
            continue;
        };
        if found.file_type == super::inode::FileType::Directory {
            *subdirectories.entry(*directory).or_default() += 1;
        }
        edits.insert(key, None);
    }
    for (directory, count) in subdirectories {
        let key = Key::Inode(directory).encode();
        let record = map.get(root.as_ref(), &key)?.and_then(|entry| InodeRecord::decode(&entry.value).ok());
        if let Some(record) = record {
            let nlink = record.nlink.saturating_sub(count).max(2);
            edits.insert(key, Some(InodeRecord { nlink, ..record }.encode()));
        }
    }
    let edit =
        |(key, value): (Box<[u8]>, Option<Box<[u8]>>)| Edit { key, change: value.map(|value| (value, None)) };
    Ok(edits.into_iter().map(edit).collect())
}

/// Grows a draft by nodes beside those of the head, of which none dies.
struct Beside<'a> {
    draft: &'a Arc<Draft>,
    emitted: HashSet<Place>,
}

impl Emit for Beside<'_> {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        let place = self.draft.append(Stream::Fresh, sealed).map_err(super::source::emit_error)?;
        self.emitted.insert(place);
        Ok(place)
    }

    fn free(&mut self, place: Place) {
        if self.emitted.remove(&place) {
            self.draft.free(place);
        }
    }
}
