//! What a block must be like to be a filesystem, checked where it changed.
//!
//! A map's decoder vouches for its nodes, not for what they say: a member's device may have written entries without
//! inodes, wrong link counts, directories within themselves. The check is by induction: if the old state is sound, and
//! what changed passes here, the new state is sound. From the empty state it checks everything.

mod judge;
#[cfg(test)]
mod tests;

use crate::base::{BlockNumber, Inode, Place, REGION_BYTES, RegionIndex};
use crate::map::{Entry, MapError};
use crate::tree::inode::{FileType, InodeRecord};
use crate::tree::key::Key;
use crate::tree::value::{DirEntry, LINK_TARGET_BYTES_MAX, XATTR_VALUE_BYTES_MAX, chunk_id};
use crate::tree::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers below are not drawn; of these a block holds its root's only.
const FIRST_DRAWN_INODE: u64 = 1 << 32;

/// Something that no device of ours writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("inode {inode}: {defect}")]
pub struct Flaw {
    /// Where.
    pub inode: Inode,
    /// What.
    pub defect: Defect,
}

/// Kinds of flaws.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Defect {
    /// A key or value that does not decode.
    #[error("a key or value in no form that is ever written")]
    Malformed,
    /// The number is reserved, or another block's root.
    #[error("a number that is never drawn")]
    Number,
    /// Keys without an inode record.
    #[error("something of an inode that is not there")]
    NoRecord,
    /// Entries, chunks or a target where the type has none; a link without its target.
    #[error("contents that do not go with its type")]
    Contents,
    /// A chunk beyond the end, of a wrong length, or in no place of the image; or a place where none belongs.
    #[error("a chunk that does not fit the file or the image")]
    Chunk,
    /// An entry of another type than its inode, or that names nothing.
    #[error("a name with nothing of its type behind it")]
    Entry,
    /// The link count is not the number of names, or of subdirectories and two.
    #[error("a link count that does not match its names")]
    Links,
    /// A directory with no name or several, or that names another parent.
    #[error("a directory that does not lie in one place")]
    Parent,
    /// A directory that the root does not reach.
    #[error("a directory within itself")]
    Cycle,
}

/// Why a check stopped: the map could not be read, or who asked has heard enough.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Reading failed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The first flaw was one too many.
    #[error(transparent)]
    Flaw(#[from] Flaw),
}

/// Checks what differs from `old`, or everything. `image_bytes` bounds the places of chunks. Each flaw is shown to
/// `report`, which may stop the check by failing.
pub fn check_structure(
    block: BlockNumber,
    old: Option<&Version<'_>>,
    new: &Version<'_>,
    image_bytes: u64,
    report: &mut dyn FnMut(Flaw) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut changes =
        Changes { root: block.root_inode(), image_bytes, touched: BTreeMap::new(), report: &mut *report };
    let (map, root) = old.map_or((new.map, None), |old| (old.map, old.root));
    map.diff_with(root.as_ref(), new.map, new.root.as_ref(), &mut |key, old, new| {
        changes.take(key, old, new)
    })?;
    let Changes { touched, .. } = changes;
    judge::Judge::new(block, old, new, report).all(&touched)
}

/// What changed of one inode.
#[derive(Default)]
struct Touched {
    /// The directories in which names of it were added.
    added_in: Vec<Inode>,
    /// How many names of it were removed.
    removed: u64,
    /// The types that added names give it.
    named_as: BTreeSet<FileType>,
    /// Subdirectories added less removed.
    subdirectories: i64,
    /// Has entries among its new keys.
    has_entries: bool,
    /// The new chunk of the largest index, and the longest, in plain bytes.
    last_chunk: Option<u64>,
    longest_chunk: u64,
    /// Length of a symbolic link's new target; 0 if it was removed.
    target: Option<u64>,
}

/// Gathers what changed, and judges each key by itself.
struct Changes<'r> {
    root: Inode,
    image_bytes: u64,
    touched: BTreeMap<Inode, Touched>,
    report: &'r mut dyn FnMut(Flaw) -> Result<(), Stopped>,
}

impl Changes<'_> {
    fn take(&mut self, key: &[u8], old: Option<&Entry>, new: Option<&Entry>) -> Result<(), Stopped> {
        let Ok(decoded) = Key::decode(key) else {
            let inode = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            return (self.report)(Flaw { inode: Inode(inode), defect: Defect::Malformed });
        };
        let inode = decoded.inode();
        if inode.0 < FIRST_DRAWN_INODE && inode != self.root {
            return (self.report)(Flaw { inode, defect: Defect::Number });
        }
        self.touched.entry(inode).or_default();
        if let (Key::Entry(..), Some(entry)) = (&decoded, old)
            && let Ok(entry) = DirEntry::decode(&entry.value)
        {
            self.removed(inode, &entry);
        }
        if let (Key::Link(_), None) = (&decoded, new) {
            self.touched.entry(inode).or_default().target = Some(0);
        }
        let Some(new) = new else { return Ok(()) };
        match self.put(&decoded, new) {
            Ok(()) => Ok(()),
            Err(defect) => (self.report)(Flaw { inode, defect }),
        }
    }

    fn removed(&mut self, directory: Inode, entry: &DirEntry) {
        self.touched.entry(entry.inode).or_default().removed += 1;
        if entry.file_type == FileType::Directory {
            self.touched.entry(directory).or_default().subdirectories -= 1;
        }
    }

    fn put(&mut self, key: &Key<'_>, new: &Entry) -> Result<(), Defect> {
        let inode = key.inode();
        if new.place.is_some() && !matches!(key, Key::Chunk(..)) {
            return Err(Defect::Chunk);
        }
        let image_bytes = self.image_bytes;
        let touched = self.touched.entry(inode).or_default();
        match key {
            Key::Inode(_) => {
                InodeRecord::decode(&new.value).map_err(|_| Defect::Malformed)?;
            }
            Key::Entry(..) => {
                let entry = DirEntry::decode(&new.value).map_err(|_| Defect::Malformed)?;
                touched.has_entries = true;
                touched.subdirectories += i64::from(entry.file_type == FileType::Directory);
                let named = self.touched.entry(entry.inode).or_default();
                named.added_in.push(inode);
                named.named_as.insert(entry.file_type);
            }
            Key::Chunk(_, index) => {
                chunk_id(&new.value).map_err(|_| Defect::Malformed)?;
                let place =
                    new.place.filter(|place| lies_within(*place, image_bytes)).ok_or(Defect::Chunk)?;
                touched.longest_chunk = touched.longest_chunk.max(u64::from(place.length));
                touched.last_chunk = touched.last_chunk.max(Some(*index));
            }
            Key::Xattr(..) if new.value.len() > XATTR_VALUE_BYTES_MAX => return Err(Defect::Malformed),
            Key::Xattr(..) => {}
            Key::Link(_) => {
                let target = &new.value;
                if target.is_empty() || target.len() > LINK_TARGET_BYTES_MAX || target.contains(&0) {
                    return Err(Defect::Malformed);
                }
                touched.target = Some(target.len() as u64);
            }
        }
        Ok(())
    }
}

/// Whether an object can lie there: in one region of the image.
fn lies_within(place: Place, image_bytes: u64) -> bool {
    let end = place.offset.saturating_add(u64::from(place.length));
    let region = RegionIndex::of(place.offset.min(image_bytes)).start();
    place.length > 0 && end <= image_bytes && end - region <= REGION_BYTES
}
