//! What both directions need: reading to the end, taking note of what is in step, and changing the tree between two
//! adoptions.

use super::base::Entry;
use super::error::ShareError;
use super::folder::split;
use super::reconcile::Hand;
use super::stamp::{Kind, Local, Stamp};
use super::xattr::{self, Xattrs};
use crate::base::Inode;
use crate::tree::{Attr, FileType, Owner, ReadTree as _, Tree, TreeError, UNWRITTEN_MAX};
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Times on a disk tick in steps of some milliseconds: what was written less than that ago, in nanoseconds, may be written
/// again and keep its time.
const RACY_NANOS: i128 = 100_000_000;
const STEP_BYTES: usize = 1 << 20;
const DIRECTORY_MODE: u16 = 0o755;

impl Hand {
    /// Changes the tree while no version is adopted: what `act` finds there stays until it has changed it.
    pub(super) fn steady<T>(
        &self,
        act: impl FnOnce(&Tree) -> Result<T, ShareError>,
    ) -> Result<T, ShareError> {
        let (mut act, mut done) = (Some(act), None);
        self.host.steadily(&mut || {
            if let Some(act) = act.take() {
                done = Some(act(&self.tree));
            }
        });
        done.unwrap_or(Err(ShareError::Moved))
    }

    /// Both sides are in step at a path.
    pub(super) fn record(
        &mut self,
        path: &[u8],
        local: &Local,
        attr: &Attr,
        digest: [u8; 32],
        xattrs: &Xattrs,
    ) {
        let racy = Self::is_racy(local);
        let xattrs = xattr::digest(xattrs);
        self.base
            .put(path, Entry { local: *local, tree: Stamp::of(attr), digest, xattrs, racy, left: false });
    }

    /// Whether a file was written to so lately that its time tells nothing.
    pub(super) fn is_racy(local: &Local) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let time = i128::from(local.mtime.seconds) * 1_000_000_000 + i128::from(local.mtime.nanos);
        let ago = i128::try_from(now).unwrap_or(0) - time;
        local.kind == Kind::File && ago.abs() < RACY_NANOS
    }

    /// Whether a file was made or emptied just now, to be written as it seems: what others have of it is no news to them.
    pub(super) fn is_unwritten(&self, path: &[u8], local: &Local, attr: Option<&Attr>) -> bool {
        let empty = local.kind == Kind::File && local.bytes == 0;
        if !empty || self.ending || self.closed.contains(path) || attr.is_some_and(|attr| attr.size == 0) {
            return false;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = u64::try_from(local.ctime.seconds).unwrap_or(0);
        let since = now.checked_sub(Duration::new(changed, local.ctime.nanos));
        since.is_some_and(|since| since < UNWRITTEN_MAX)
    }

    /// Who owns what is made in the tree.
    pub(super) fn owner(&self) -> Owner {
        Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }

    /// The content of a file, or of a symlink, and its extended attributes. It must be what was looked at before.
    pub(super) fn digest_local(&self, path: &[u8], local: &Local) -> Result<([u8; 32], Xattrs), ShareError> {
        if local.kind == Kind::Symlink {
            let target = self.folder.read_link(path)?;
            return Ok((*blake3::hash(&target).as_bytes(), Xattrs::new()));
        }
        let mut file = self.folder.read(path)?;
        if self.folder.stat(&file)? != *local {
            return Err(ShareError::Moved);
        }
        let xattrs = xattr::of_file(&file)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; STEP_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => _ = hasher.update(&buffer[..count]),
            }
        }
        if self.folder.stat(&file)? != *local {
            return Err(ShareError::Moved);
        }
        Ok((*hasher.finalize().as_bytes(), xattrs))
    }

    /// The same of what the tree has.
    pub(super) fn digest_tree(&self, attr: &Attr) -> Result<[u8; 32], ShareError> {
        if attr.file_type == FileType::Symlink {
            return Ok(*blake3::hash(&self.tree.read_link(attr.inode)?).as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < attr.size {
            let bytes = self.tree.read(attr.inode, at, STEP_BYTES)?;
            if bytes.is_empty() {
                return Err(ShareError::Moved);
            }
            hasher.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The directory at a path of the tree; it and what leads to it are made where they are missing.
    pub(super) fn directory_in_tree(&mut self, path: &[u8]) -> Result<Inode, ShareError> {
        match self.tree.resolve(path) {
            Ok(attr) if attr.file_type == FileType::Directory => return Ok(attr.inode),
            Ok(_) | Err(TreeError::NotDirectory) => return Err(ShareError::Moved),
            Err(TreeError::NotFound) if !path.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
        let parent = self.directory_in_tree(split(path).0)?;
        let local = self.folder.look(path)?;
        let mode = local.map_or(DIRECTORY_MODE, |local| local.mode);
        let owner = self.owner();
        let attr = self.steady(|tree| match tree.make_dir(parent, split(path).1, mode, owner) {
            Err(TreeError::Exists) => Err(ShareError::Moved),
            other => Ok(other?),
        })?;
        self.host.mutated();
        if let Some(local) = local {
            self.record(path, &local, &attr, [0; 32], &Xattrs::new());
        }
        Ok(attr.inode)
    }
}
