//! A subtree goes from one block into another: out of the block around it into one that hangs at its place, or back.
//!
//! Names, inode numbers and data ids stay, only the directory itself changes its number: the root of a block has one of its
//! own. Content is opened and sealed again, since each block has its own key. What comes out is decided by what goes in
//! alone, so a state that was made before a border was moved can be brought behind it and merged as if it had been made there.
//!
//! Cutting out leaves the directory behind as the empty one under the mountpoint; putting back fills it again, and gives
//! the map that was there before, bit for bit, if nothing else was changed.

mod carry;
#[cfg(test)]
mod tests;

use super::key::{self, Key};
use super::source::DraftSource;
use super::value::DirEntry;
use crate::base::{BlockNumber, Inode, Malformed, Place};
use crate::crypt::SealKeys;
use crate::image::{Draft, Stream};
use crate::map::{EmitError, FetchError, Map, MapError, NodeCache, Root};
use crate::tree::inode::FileType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a border cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum RecutError {
    /// Hard links do not go from block to block.
    #[error(
        "a file has names both inside of the directory and outside (inode {0}): hard links do not cross the border of a block; remove one of the names, or copy the file"
    )]
    Crossing(Inode),
    /// What was hidden by the block's mountpoint has the same name.
    #[error("below the mountpoint of the block lies something called {0}, too")]
    Occupied(String),
    /// The directory in which the block hangs is none of the block around it.
    #[error("the directory above the block is not there in the block around it; make it first")]
    NotThere,
    /// An inode number that both blocks use.
    #[error("inode {0} is in both blocks")]
    Number(Inode),
    /// Content that does not open.
    #[error("block {block}: the object at {} does not open", place.offset)]
    Tampered {
        /// The block that it is of.
        block: BlockNumber,
        /// Where it lies.
        place: Place,
    },
    /// A value in a form that no device writes.
    #[error("inode {0} is malformed")]
    Malformed(Inode),
    /// A map could not be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl RecutError {
    fn malformed(inode: Inode) -> impl Fn(Malformed) -> RecutError {
        move |_| RecutError::Malformed(inode)
    }
}

impl From<EmitError> for RecutError {
    fn from(error: EmitError) -> RecutError {
        RecutError::Map(error.into())
    }
}

impl From<FetchError> for RecutError {
    fn from(error: FetchError) -> RecutError {
        RecutError::Map(error.into())
    }
}

/// One block as it stands in the draft.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// Its number.
    pub block: BlockNumber,
    /// Its keys.
    pub keys: &'a SealKeys,
    /// The root of its map.
    pub root: Option<Root>,
}

/// What becomes of two blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recut {
    /// The root of the block around.
    pub outer: Option<Root>,
    /// The root of the block inside; none where it is gone.
    pub inner: Option<Root>,
}

/// Where the work is done: all maps lie in the draft, and go on in it. If something fails, the draft is of no use.
pub struct Bench<'a> {
    /// Holds both blocks.
    pub draft: Arc<Draft>,
    /// Decoded nodes.
    pub nodes: &'a NodeCache,
}

/// The files and directories below a directory, with how many names each has there.
type Below = BTreeMap<Inode, (FileType, u32)>;

impl Bench<'_> {
    /// Moves what is below `path` of the block around into the block inside, which is empty. None where there is no such
    /// directory.
    pub fn cut_out(
        &self,
        outer: Part<'_>,
        inner: Part<'_>,
        path: &[u8],
    ) -> Result<Option<Recut>, RecutError> {
        let (parents, last) = split(path);
        let directory = match self.resolve(&outer, parents)? {
            Some(parent) => self.child(&outer, parent, last)?,
            None => None,
        };
        let Some(directory) = directory else { return Ok(None) };
        let below = self.below(&outer, directory)?;
        let filled = self.carry((&outer, directory), (&inner, inner.block.root_inode(), Inode(0)), &below)?;
        let emptied = self.clear(&outer, directory, &below)?;
        Ok(Some(Recut { outer: emptied, inner: filled }))
    }

    /// Moves all of the block inside to `path` of the block around. Where that has no directory there one is made, of the
    /// number `spare`.
    pub fn put_back(
        &self,
        outer: Part<'_>,
        inner: Part<'_>,
        path: &[u8],
        spare: Inode,
    ) -> Result<Recut, RecutError> {
        if inner.root.is_none() {
            return Ok(Recut { outer: outer.root, inner: None });
        }
        let (parents, last) = split(path);
        let parent = self.resolve(&outer, parents)?.ok_or(RecutError::NotThere)?;
        let from = inner.block.root_inode();
        let below = self.below(&inner, from)?;
        let (outer, directory) = match self.child(&outer, parent, last)? {
            Some(directory) => (outer, directory),
            None => (self.with_directory(&outer, parent, last, spare)?, spare),
        };
        for inode in below.keys() {
            if self.record(&outer, *inode)?.is_some() {
                return Err(RecutError::Number(*inode));
            }
        }
        let filled = self.carry((&inner, from), (&outer, directory, parent), &below)?;
        self.drop_all(&inner, &below)?;
        Ok(Recut { outer: filled, inner: None })
    }

    fn source(&self) -> DraftSource {
        DraftSource::new(self.draft.clone(), Stream::Fresh)
    }

    /// The directory that a path leads to in one block.
    fn resolve(&self, part: &Part<'_>, path: &[u8]) -> Result<Option<Inode>, RecutError> {
        let mut at = part.block.root_inode();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.child(part, at, name)? {
                Some(inode) => at = inode,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The directory of a name, if that is what it leads to.
    fn child(&self, part: &Part<'_>, directory: Inode, name: &[u8]) -> Result<Option<Inode>, RecutError> {
        let source = self.source();
        let map = Map::new(part.keys, &source, self.nodes);
        let found = map.get(part.root.as_ref(), &Key::Entry(directory, name).encode())?;
        let Some(found) = found else { return Ok(None) };
        let entry = DirEntry::decode(&found.value).map_err(RecutError::malformed(directory))?;
        Ok((entry.file_type == FileType::Directory).then_some(entry.inode))
    }

    /// All that lies below a directory. A directory that lies within itself, or in two places, is refused.
    fn below(&self, part: &Part<'_>, directory: Inode) -> Result<Below, RecutError> {
        let source = self.source();
        let map = Map::new(part.keys, &source, self.nodes);
        let (mut below, mut open) = (Below::new(), vec![directory]);
        while let Some(at) = open.pop() {
            let mut cursor = map.range(part.root.as_ref(), &key::entries_start(at));
            while let Some(found) = cursor.next()? {
                let malformed = RecutError::malformed(at);
                let Key::Entry(inode, _) = Key::decode(&found.key).map_err(&malformed)? else { break };
                if inode != at {
                    break;
                }
                let entry = DirEntry::decode(&found.value).map_err(&malformed)?;
                let names = &mut below.entry(entry.inode).or_insert((entry.file_type, 0)).1;
                *names += 1;
                if entry.file_type == FileType::Directory {
                    if *names > 1 || entry.inode == directory {
                        return Err(RecutError::Malformed(entry.inode));
                    }
                    open.push(entry.inode);
                }
            }
        }
        Ok(below)
    }
}

/// A path without its last name, and that name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}
