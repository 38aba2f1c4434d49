//! Notifications to the kernel, byte by byte (`linux/fuse.h`). The library has no word for two of them.

use crate::base::Inode;
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// `FUSE_NOTIFY_INVAL_INODE`.
const DROP_INODE: i32 = 2;
/// `FUSE_NOTIFY_INVAL_ENTRY`.
const DROP_NAME: i32 = 3;
/// `FUSE_NOTIFY_INC_EPOCH` (ABI 7.44, Linux 6.16).
const DOUBT_ALL: i32 = 8;
/// `FUSE_EXPIRE_ONLY` (ABI 7.38, Linux 6.2); older kernels ignore it.
const EXPIRE_ONLY: u32 = 1;
/// Length u32, code i32, and zero u64 where a reply has its request's number.
const HEADER_BYTES: usize = 16;

/// What the kernel does with a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Asks again when it is used next. A directory that leads where it led keeps its users: their working
    /// directories, and what is mounted below.
    Doubted,
    /// Forgets it at once, and all below it that nobody uses.
    Dropped,
}

/// The way to the kernel: the mount's own `/dev/fuse`.
pub(super) struct Messenger(pub OwnedFd);

impl Messenger {
    /// Drops an inode's attributes and all its pages: a file's data, a directory's listing, a link's target. Waits
    /// for requests that are under way on them, and writes back what was changed through mappings.
    pub fn drop_inode(&self, inode: Inode) -> Result<(), Errno> {
        const FROM_START: [u8; 8] = 0i64.to_ne_bytes();
        const TO_END: [u8; 8] = 0i64.to_ne_bytes();
        self.send(DROP_INODE, &[&inode.0.to_ne_bytes(), &FROM_START, &TO_END])
    }

    /// Drops a name, or its absence. Waits for requests that are under way in the directory.
    pub fn drop_name(&self, parent: Inode, name: &[u8], fate: Fate) -> Result<(), Errno> {
        let bytes = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        let flags = if fate == Fate::Doubted { EXPIRE_ONLY } else { 0 };
        let parts = [&parent.0.to_ne_bytes()[..], &bytes.to_ne_bytes(), &flags.to_ne_bytes(), name, &[0]];
        self.send(DROP_NAME, &parts)
    }

    /// Makes every cached name be asked for anew when it is used next.
    pub fn doubt_all_names(&self) -> Result<(), Errno> {
        self.send(DOUBT_ALL, &[])
    }

    fn send(&self, code: i32, parts: &[&[u8]]) -> Result<(), Errno> {
        let body = parts.concat();
        let bytes = u32::try_from(HEADER_BYTES + body.len()).map_err(|_| Errno::INVAL)?;
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend_from_slice(&bytes.to_ne_bytes());
        message.extend_from_slice(&code.to_ne_bytes());
        message.extend_from_slice(&0u64.to_ne_bytes());
        message.extend_from_slice(&body);
        match rustix::io::write(&self.0, &message) {
            // The kernel did not have it, which is as good.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
