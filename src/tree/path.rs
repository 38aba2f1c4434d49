//! From an inode to its path: for reports to people, not for use by the tree itself.

use super::inode::InodeRecord;
use super::key::{self, Key};
use super::value::DirEntry;
use super::version::Version;
use crate::base::{BlockNumber, Inode};
use crate::map::MapError;

/// Deeper directories are shown by their number.
const DEPTH_MAX: usize = 256;

/// The path of a directory within its block, without a leading slash; empty for the block's root. `None` if the root
/// is not found above it. Reads each directory on the way up to the name that leads down.
pub fn directory_path(
    block: BlockNumber,
    version: &Version<'_>,
    directory: Inode,
) -> Result<Option<Vec<u8>>, MapError> {
    let mut names = Vec::new();
    let mut at = directory;
    while at != block.root_inode() {
        let Some(parent) = parent_of(version, at)?.filter(|_| names.len() < DEPTH_MAX) else {
            return Ok(None);
        };
        let Some(name) = name_in(version, parent, at)? else { return Ok(None) };
        names.push(name);
        at = parent;
    }
    names.reverse();
    Ok(Some(names.join(&b'/')))
}

fn parent_of(version: &Version<'_>, inode: Inode) -> Result<Option<Inode>, MapError> {
    let entry = version.map.get(version.root.as_ref(), &Key::Inode(inode).encode())?;
    Ok(entry.and_then(|entry| InodeRecord::decode(&entry.value).ok()).map(|record| record.parent))
}

fn name_in(version: &Version<'_>, directory: Inode, inode: Inode) -> Result<Option<Vec<u8>>, MapError> {
    let mut cursor = version.map.range(version.root.as_ref(), &key::entries_start(directory));
    while let Some(entry) = cursor.next()? {
        match Key::decode(&entry.key) {
            Ok(Key::Entry(parent, name)) if parent == directory => {
                if DirEntry::decode(&entry.value).is_ok_and(|entry| entry.inode == inode) {
                    return Ok(Some(name.to_vec()));
                }
            }
            _ => break,
        }
    }
    Ok(None)
}
