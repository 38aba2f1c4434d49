//! Files: opening, reading, writing, holes, copies, durability.

use super::errno::{Refusal, of_inode};
use super::names::{Maker, is_openable};
use super::notify::Notice;
use super::reply;
use super::shared::Shared;
use super::shelf;
use crate::base::Inode;
use crate::tree::{Allocate, Attr, NodeKind, ReadTree as _, TreeError, Whence};
use fuser::{FileHandle, FopenFlags, OpenAccMode, OpenFlags, ReplyEmpty, ReplyWrite, WriteFlags};
use std::time::Instant;

/// Bytes that one copy request moves at most, so that it does not keep a thread for long; the caller asks again.
const COPY_BYTES_MAX: u64 = 16 << 20;
/// The handle of a file that was opened for reading only. Handles carry nothing else.
const READER: FileHandle = FileHandle(0);
/// The handle of a file that was opened for writing.
const WRITER: FileHandle = FileHandle(1);

/// The handle of a program that is executed.
const PROGRAM: FileHandle = FileHandle(2);
/// How the kernel marks an open for execve(2) (`__FMODE_EXEC`, `linux/fs.h`).
const EXECUTES: i32 = 0x20;

/// Who changes a file. The kernel's own word on that reaches us with writes only; else the user tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Privileged,
    Ordinary,
}

/// An open file as the kernel is told of it.
pub(super) struct Opened {
    pub handle: FileHandle,
    pub flags: FopenFlags,
}

fn writes(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

fn has(flags: OpenFlags, flag: i32) -> bool {
    flags.0 & flag != 0
}

impl Shared {
    pub fn open(&self, inode: Inode, flags: OpenFlags, caller: Caller) -> Result<Opened, Refusal> {
        let truncate = has(flags, libc::O_TRUNC);
        if shelf::holds(inode) {
            if writes(flags) || truncate {
                return Err(Refusal::ReadOnlyShelf);
            }
            return Ok(match self.shelf.open(inode)? {
                Some(text) => Opened { handle: FileHandle(text), flags: FopenFlags::FOPEN_DIRECT_IO },
                None => Opened { handle: READER, flags: FopenFlags::FOPEN_KEEP_CACHE },
            });
        }
        // The kernel refuses to write to a program that runs, but notices `O_RDONLY | O_TRUNC` too late.
        if truncate && self.programs.has(inode) {
            return Err(Refusal::Running);
        }
        let emptying = (truncate && writes(flags)).then(|| self.tree.unwritten().begin());
        self.tree.open(inode, writes(flags), truncate).map_err(of_inode)?;
        let opened = self.opened(inode, flags);
        if let Some(emptying) = emptying {
            emptying.done(inode, Instant::now());
        }
        if truncate {
            self.changed_by(inode, caller)?;
        }
        Ok(opened)
    }

    fn opened(&self, inode: Inode, flags: OpenFlags) -> Opened {
        let handle = match writes(flags) {
            true => WRITER,
            false if has(flags, EXECUTES) => PROGRAM,
            false => READER,
        };
        match handle {
            WRITER => self.writers.begin(inode),
            PROGRAM => self.programs.begin(inode),
            _ => {}
        }
        Opened { handle, flags: FopenFlags::FOPEN_KEEP_CACHE }
    }

    pub fn create(
        &self,
        parent: Inode,
        name: &[u8],
        maker: Maker,
        flags: OpenFlags,
    ) -> Result<(Attr, Opened), Refusal> {
        self.changeable(parent, name)?;
        self.note_name(parent, name);
        let (mode, acl) = self.birth(parent, maker.mode, maker.umask)?;
        let owner = self.owners.stored(maker.owner);
        let emptying = self.tree.unwritten().begin();
        let (attr, truncate, empty) = match self.tree.make_node(parent, name, NodeKind::File, mode, owner) {
            Ok(made) => (self.hand_down(made, acl)?, false, true),
            // Made elsewhere, and the kernel does not know yet.
            Err(TreeError::Exists) if !has(flags, libc::O_EXCL) => {
                let attr = self.tree.lookup(parent, name)?;
                is_openable(&attr)?;
                let truncate = has(flags, libc::O_TRUNC);
                (attr, truncate, truncate)
            }
            Err(error) => return Err(error.into()),
        };
        self.host.mutated();
        self.tree.open(attr.inode, writes(flags), truncate)?;
        let attr = if truncate { self.tree.attr(attr.inode)? } else { attr };
        self.known.remember(attr.inode);
        let opened = self.opened(attr.inode, flags);
        if empty && writes(flags) {
            emptying.done(attr.inode, Instant::now());
        }
        Ok((attr, opened))
    }

    pub fn release(&self, inode: Inode, handle: FileHandle) {
        if shelf::holds(inode) {
            self.shelf.close(inode, handle.0);
            return;
        }
        match handle {
            WRITER => {
                self.writers.end(inode);
                if self.tree.close_writer(inode) {
                    self.host.mutated();
                }
                if !self.writers.has(inode) {
                    self.tree.unwritten().settle(inode);
                }
            }
            PROGRAM => self.programs.end(inode),
            _ => {}
        }
        self.tree.close(inode);
    }

    pub fn read(
        &self,
        inode: Inode,
        handle: FileHandle,
        offset: u64,
        bytes: u32,
    ) -> Result<Vec<u8>, Refusal> {
        if shelf::holds(inode) {
            return Ok(self.shelf.read(inode, handle.0, offset, bytes)?);
        }
        Ok(self.tree.read(inode, offset, bytes as usize)?)
    }

    pub fn write(
        &self,
        inode: Inode,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
    ) -> Result<(), Refusal> {
        if shelf::holds(inode) {
            return Err(Refusal::ReadOnlyShelf);
        }
        let appends = has(flags, libc::O_APPEND) && !how.contains(WriteFlags::FUSE_WRITE_CACHE);
        let end = if appends { self.tree.attr(inode)?.size } else { offset };
        self.tree.write_unpaced(inode, end, data)?;
        self.tree.unwritten().settle(inode);
        let strips = how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.changed_by(inode, if strips { Caller::Ordinary } else { Caller::Privileged })?;
        if end != offset {
            // The kernel appends at the end that it knows. The file has grown or shrunk elsewhere while somebody
            // held it open: what was appended lies at the real end, so the kernel must forget where it put it.
            let _ = self.notices.send(Notice::Inode(inode));
        }
        Ok(())
    }

    pub fn allocate(
        &self,
        inode: Inode,
        (offset, bytes): (u64, u64),
        mode: i32,
        caller: Caller,
    ) -> Result<(), Refusal> {
        if shelf::holds(inode) {
            return Err(Refusal::ReadOnlyShelf);
        }
        let how = allocation(mode).ok_or(TreeError::Unsupported)?;
        self.tree.allocate(inode, how, offset, bytes)?;
        self.tree.unwritten().settle(inode);
        self.changed_by(inode, caller)
    }

    pub fn seek(&self, inode: Inode, offset: i64, whence: i32) -> Result<i64, Refusal> {
        let what = match whence {
            libc::SEEK_DATA => Whence::Data,
            libc::SEEK_HOLE => Whence::Hole,
            _ => return Err(TreeError::Invalid.into()),
        };
        let from = u64::try_from(offset).map_err(|_| TreeError::NoSuchOffset)?;
        let found = if shelf::holds(inode) {
            let size = self.shelf.attr(inode)?.0.size;
            match what {
                _ if from >= size => return Err(TreeError::NoSuchOffset.into()),
                Whence::Data => from,
                Whence::Hole => size,
            }
        } else {
            self.tree.seek(inode, from, what)?
        };
        Ok(i64::try_from(found).map_err(|_| TreeError::TooBig)?)
    }

    /// Copies inside the tree; returns how many bytes.
    pub fn copy(
        &self,
        from: (Inode, u64),
        to: (Inode, u64),
        bytes: u64,
        caller: Caller,
    ) -> Result<u32, Refusal> {
        if shelf::holds(to.0) {
            return Err(Refusal::ReadOnlyShelf);
        }
        if shelf::holds(from.0) {
            return Err(TreeError::CrossBlock.into());
        }
        let copied = self.tree.copy_range(from.0, from.1, to.0, to.1, bytes.min(COPY_BYTES_MAX))?;
        if copied > 0 {
            self.tree.unwritten().settle(to.0);
            self.changed_by(to.0, caller)?;
        }
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }

    /// After a file's data were changed: set-user-id does not survive that, unless it was root's doing.
    pub fn changed_by(&self, inode: Inode, caller: Caller) -> Result<(), Refusal> {
        self.host.mutated();
        match caller {
            Caller::Privileged => Ok(()),
            Caller::Ordinary => Ok(self.tree.strip_privileges(inode)?),
        }
    }

    /// Makes all that was written so far durable, then replies. Of several that wait, the first does it for all.
    pub fn persist(&self, inode: Inode, reply: ReplyEmpty) {
        if shelf::holds(inode) {
            return reply.ok();
        }
        let host = self.host.clone();
        self.syncs.run(move || reply::empty(reply, host.persist().map_err(Refusal::from)));
    }

    /// Replies to a write that was done: at once, or when memory has room again.
    pub fn acknowledge(&self, bytes: u32, reply: ReplyWrite) {
        if !self.tree.is_crowded() {
            return reply.written(bytes);
        }
        let tree = self.tree.clone();
        self.writes.run(move || {
            tree.make_room();
            reply.written(bytes);
        });
    }
}

/// What fallocate(2) asks for; `None` for what we do not do.
fn allocation(mode: i32) -> Option<Allocate> {
    const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP_SIZE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Some(Allocate::Extend),
        libc::FALLOC_FL_KEEP_SIZE => Some(Allocate::KeepSize),
        PUNCH_HOLE => Some(Allocate::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Some(Allocate::ZeroRange),
        ZERO_KEEP_SIZE => Some(Allocate::ZeroRangeKeepSize),
        _ => None,
    }
}
