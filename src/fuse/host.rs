//! What the adapter asks of the engine behind the tree.

use crate::base::{BlockNumber, Inode, Place};
use crate::tree::{ReadTree, TreeError};
use std::sync::Arc;
use std::time::Instant;

/// What a program reads of a file of the working head: from one byte on, up to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The file.
    pub inode: Inode,
    /// Its first byte that is read.
    pub begin: u64,
    /// The one behind the last.
    pub end: u64,
}

/// The engine as a mount sees it. All calls come from the threads that answer the kernel: none may wait for the
/// network, for a notification to the kernel, or for longer than a disk takes.
pub trait Host: Send + Sync {
    /// Makes all that was written so far survive a power loss: fsync(2).
    fn persist(&self) -> Result<(), TreeError>;
    /// Something was changed. Called after every successful mutation, before its caller hears of it; must be cheap.
    fn mutated(&self);
    /// Brings the bytes at a place, which some version lacks, because of what is being read, if that is known. `then` is told whether they are here, by another thread and
    /// at the deadline at the latest.
    fn fault(
        &self,
        place: Place,
        reading: Option<Reading>,
        deadline: Instant,
        then: Box<dyn FnOnce(bool) + Send>,
    );
    /// The content of `.kilofs/status`: one JSON object.
    fn status(&self) -> String;
    /// The content of `.kilofs/conflicts`: one line a conflict.
    fn conflicts(&self) -> String;
    /// What `.kilofs/versions/` holds. One version must be the same `Arc` as long as it is listed.
    fn versions(&self) -> Vec<VersionEntry>;
    /// What `.kilofs/refused/` holds, always in one order. One tree must be the same `Arc` as long as it is listed.
    fn refused(&self) -> Vec<RefusedEntry>;
    /// What the virtual extended attributes of an inode say.
    fn provenance(&self, inode: Inode) -> Option<Provenance>;
}

/// A kept version: the directory `.kilofs/versions/INDEX`.
pub struct VersionEntry {
    /// 1 is the newest.
    pub index: u32,
    /// Its tree; `None` where its bytes are not here, and then it is not shown.
    pub tree: Option<Arc<dyn ReadTree>>,
}

/// Edits that a newer policy forbids: the directory `.kilofs/refused/BLOCK`, or `.kilofs/refused/BLOCK.N` for older ones.
pub struct RefusedEntry {
    /// The directory's name.
    pub name: String,
    /// The inode at which the directory starts: the root of the block.
    pub root: Inode,
    /// The block as it stood with them.
    pub tree: Arc<dyn ReadTree>,
}

/// Where a file stands: `user.kilofs.block`, `.mode`, `.version` and `.author`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provenance {
    /// The block's number.
    pub block: BlockNumber,
    /// What the policy says of the block: `rw`, `ro`, `owner` or `append`.
    pub mode: String,
    /// The version that is shown, in hexadecimal; empty while nothing was published.
    pub version: String,
    /// The device that signed the block's state, in hexadecimal; empty for what was never signed.
    pub author: String,
}

/// The names of the virtual extended attributes: readable, unlisted, never set.
pub(super) const VIRTUAL_XATTRS: &str = "user.kilofs.";

impl Provenance {
    /// The value of the virtual attribute `name`, if there is one.
    pub(super) fn value(&self, name: &[u8]) -> Option<String> {
        match name.strip_prefix(VIRTUAL_XATTRS.as_bytes())? {
            b"block" => Some(self.block.to_string()),
            b"mode" => Some(self.mode.clone()),
            b"version" => Some(self.version.clone()),
            b"author" => Some(self.author.clone()),
            _ => None,
        }
    }
}
