//! Extended attributes of the namespace that users share, on both sides.

use super::error::ShareError;
use crate::base::Inode;
use crate::tree::{ReadTree as _, SetXattr, Tree, TreeError};
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::AsFd;

pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

const BYTES_MAX: usize = 64 << 10;

/// Shared are those of users, but not the virtual ones of a mount.
fn is_shared(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !name.starts_with(b"user.kilofs.")
}

/// Those of an open file or directory; none on a file system without them.
pub(super) fn of_file(file: impl AsFd) -> Result<Xattrs, ShareError> {
    let mut names = vec![0; BYTES_MAX];
    let count = match flistxattr(&file, &mut names[..]) {
        Ok(count) => count,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Xattrs::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Xattrs::new();
    for name in names[..count].split(|byte| *byte == 0).filter(|name| is_shared(name)) {
        let mut value = vec![0; BYTES_MAX];
        match fgetxattr(&file, name, &mut value[..]) {
            Ok(bytes) => {
                value.truncate(bytes);
                found.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Makes those of an open file what they should be.
pub(super) fn set_on_file(file: impl AsFd, wanted: &Xattrs) -> Result<(), ShareError> {
    let there = of_file(&file)?;
    for (name, value) in wanted.iter().filter(|(name, value)| there.get(*name) != Some(value)) {
        match fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            // The file is worth more than what this file system cannot hold of it.
            Err(Errno::NOTSUP | Errno::NOSPC | Errno::RANGE | Errno::TOOBIG) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        match fremovexattr(&file, name.as_slice()) {
            Err(Errno::NODATA) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Those of an inode.
pub(super) fn of_inode(tree: &Tree, inode: Inode) -> Result<Xattrs, TreeError> {
    let names = tree.list_xattr(inode)?.into_iter().filter(|name| is_shared(name));
    names.map(|name| tree.get_xattr(inode, &name).map(|value| (name, value))).collect()
}

/// Makes those of an inode what they should be; says whether something was to be done.
pub(super) fn set_on_inode(tree: &Tree, inode: Inode, wanted: &Xattrs) -> Result<bool, TreeError> {
    let there = of_inode(tree, inode)?;
    for (name, value) in wanted.iter().filter(|(name, value)| there.get(*name) != Some(value)) {
        tree.set_xattr(inode, name, value, SetXattr::Any)?;
    }
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        tree.remove_xattr(inode, name)?;
    }
    Ok(there != *wanted)
}

/// What tells two sets apart.
pub(super) fn digest(xattrs: &Xattrs) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}
