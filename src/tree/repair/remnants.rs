//! What opens of a damaged block, and what is known to be missing.

use crate::base::{Id, Inode, Place};
use crate::map::{Entry, FetchError, Remains};
use crate::tree::inode::{FileType, INLINE_BYTES_MAX, InodeRecord, RecordSize, Timestamp};
use crate::tree::key::Key;
use crate::tree::value::{DirEntry, chunk_id};
use crate::tree::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Keys that were lost with a node: all after `after`, up to and with `last`, or to the end.
pub(super) struct Gap {
    pub(super) after: Box<[u8]>,
    pub(super) last: Option<Box<[u8]>>,
}

impl Gap {
    /// Whether a key between two others may have been.
    pub(super) fn may_meet(&self, from: &[u8], to: &[u8]) -> bool {
        &self.after[..] < to && self.last.as_deref().is_none_or(|last| last >= from)
    }

    /// The inodes of which something may have been.
    pub(super) fn inodes(&self) -> std::ops::RangeInclusive<Inode> {
        let inode = |key: &[u8]| {
            let mut bytes = [0; 8];
            let count = key.len().min(8);
            bytes[..count].copy_from_slice(&key[..count]);
            Inode(u64::from_be_bytes(bytes))
        };
        inode(&self.after)..=self.last.as_deref().map_or(Inode(u64::MAX), inode)
    }
}

/// A name, by directory and bytes.
pub(super) type Location = (Inode, Box<[u8]>);

/// What opens.
#[derive(Default)]
pub(super) struct Remnants {
    pub(super) records: BTreeMap<Inode, InodeRecord>,
    pub(super) names: BTreeMap<Location, DirEntry>,
    /// Symbolic links whose target is there.
    pub(super) targets: BTreeSet<Inode>,
    /// Chunks that do not open.
    pub(super) bad: BTreeMap<Inode, BTreeSet<u64>>,
    pub(super) gaps: Vec<Gap>,
    /// Inodes of which something is there, but no record.
    pub(super) headless: BTreeMap<Inode, Headless>,
    /// Files whose records were made up from their chunks.
    pub(super) rescued: BTreeSet<Inode>,
    /// Nodes do not end where they should, or do not open: the map has to be built anew.
    pub(super) broken: bool,
}

/// What is left of an inode without its record.
#[derive(Default)]
pub(super) struct Headless {
    pub(super) has_names: bool,
    chunks: Vec<(u64, Id, Place)>,
}

impl Remnants {
    /// Opens all that opens.
    pub(super) fn gather(version: &Version<'_>) -> Remnants {
        let mut remnants = Remnants::default();
        version.map.remains(version.root.as_ref(), &mut |remains| match remains {
            Remains::Node(_) => {}
            Remains::Misshapen(_) => remnants.broken = true,
            Remains::Lost { after, last, .. } => {
                remnants.broken = true;
                remnants.gaps.push(Gap { after: after.into(), last: last.map(Box::from) });
            }
            Remains::Entry(entry) => remnants.take(version, entry),
        });
        for (inode, headless) in std::mem::take(&mut remnants.headless) {
            match remnants.rescue(version, inode, &headless) {
                Some(record) => {
                    remnants.records.insert(inode, record);
                    remnants.rescued.insert(inode);
                }
                None => _ = remnants.headless.insert(inode, headless),
            }
        }
        remnants
    }

    fn take(&mut self, version: &Version<'_>, entry: &Entry) {
        let Ok(key) = Key::decode(&entry.key) else { return };
        let inode = key.inode();
        match key {
            Key::Inode(_) => {
                if let Ok(record) = InodeRecord::decode(&entry.value) {
                    self.records.insert(inode, record);
                }
                return;
            }
            Key::Entry(_, name) => {
                if let Ok(named) = DirEntry::decode(&entry.value) {
                    self.names.insert((inode, name.into()), named);
                }
            }
            Key::Link(_) => _ = self.targets.insert(inode),
            Key::Chunk(_, index) => {
                // All of an inode lies together, its record first.
                let data_id = self.records.get(&inode).map(|record| record.data_id);
                match (entry.place, chunk_id(&entry.value), data_id) {
                    (Some(place), Ok(id), None) => {
                        self.headless.entry(inode).or_default().chunks.push((index, id, place));
                    }
                    (Some(place), Ok(id), Some(data_id))
                        if chunk_bytes(version, data_id, index, &id, place) != Chunk::Lost => {}
                    _ => _ = self.bad.entry(inode).or_default().insert(index),
                }
            }
            Key::Xattr(..) => {}
        }
        if !self.records.contains_key(&inode) {
            let headless = self.headless.entry(inode).or_default();
            headless.has_names |= matches!(key, Key::Entry(..));
        }
    }

    /// A record for a file that has lost its own: its chunks tell which file they were sealed for.
    fn rescue(&mut self, version: &Version<'_>, inode: Inode, left: &Headless) -> Option<InodeRecord> {
        let (mut longest, mut end) = (0, 0);
        let mut bad = BTreeSet::new();
        for (index, id, place) in &left.chunks {
            // Until it is copied, a file's data goes by its own number.
            match chunk_bytes(version, inode.0, *index, id, *place) {
                Chunk::Lost => _ = bad.insert(*index),
                Chunk::Absent => {}
                Chunk::Bytes(bytes) => longest = longest.max(bytes),
            }
            end = end.max(index + 1);
        }
        if left.has_names || bad.len() == left.chunks.len() {
            return None;
        }
        let record_size =
            if longest > 1 << RecordSize::SMALL.log2() { RecordSize::LARGE } else { RecordSize::SMALL };
        let (_, _, last) = left.chunks.last()?;
        let last_bytes = u64::from(last.length);
        let size = ((end - 1) << record_size.log2()) + last_bytes;
        if !bad.is_empty() {
            self.bad.insert(inode, bad);
        }
        Some(InodeRecord {
            size: size.max(INLINE_BYTES_MAX as u64 + 1),
            record_size,
            data_id: inode.0,
            ..InodeRecord::new(FileType::File, 0o600, Inode(0), Timestamp::default())
        })
    }

    /// How many chunks of a file are lost: those that do not open, and those whose pointers went with a node.
    pub(super) fn lost_chunks(&self, inode: Inode, record: &InodeRecord) -> u64 {
        let mut lost = self.bad.get(&inode).map_or(0, |bad| bad.len() as u64);
        if !record.is_file() || !record.record_size.is_decided() {
            return lost;
        }
        let count = record.size.div_ceil(1 << record.record_size.log2());
        for gap in &self.gaps {
            let first = match Key::decode(&gap.after) {
                Ok(Key::Chunk(of, index)) if of == inode => index.saturating_add(1),
                _ if gap.after[..] < *Key::Chunk(inode, 0).encode() => 0,
                _ => continue,
            };
            let end = match gap.last.as_deref().map(Key::decode) {
                Some(Ok(Key::Chunk(of, index))) if of == inode => count.min(index.saturating_add(1)),
                _ if gap.last.as_deref().is_none_or(|last| *last > *Key::Chunk(inode, u64::MAX).encode()) => {
                    count
                }
                _ => continue,
            };
            lost += end.saturating_sub(first);
        }
        lost
    }
}

#[derive(PartialEq)]
enum Chunk {
    Bytes(u64),
    /// Not here yet, which is no damage.
    Absent,
    Lost,
}

fn chunk_bytes(version: &Version<'_>, data_id: u64, index: u64, id: &Id, place: Place) -> Chunk {
    match version.source.fetch(place) {
        Err(FetchError::Absent(_)) => Chunk::Absent,
        Err(_) => Chunk::Lost,
        Ok(sealed) => match version.keys.open_chunk(data_id, index, id, &sealed) {
            Ok(plain) => Chunk::Bytes(plain.len() as u64),
            Err(_) => Chunk::Lost,
        },
    }
}
