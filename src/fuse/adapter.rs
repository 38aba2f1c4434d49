//! The kernel's requests, one method each: decode, call, reply. Nothing else happens here.

use super::acl;
use super::attr::{chosen_time, kind, to_kernel};
use super::attributes::Namespace;
use super::errno::{Refusal, errno};
use super::files::{Caller, Opened};
use super::host::Reading;
use super::init;
use super::names::{Maker, node_kind};
use super::reply::{self, GENERATION};
use super::shared::Shared;
use super::shelf::Audience;
use crate::base::Inode;
use crate::tree::inode::MODE_MASK;
use crate::tree::key::NAME_BYTES_MAX;
use crate::tree::{Attr, Owner, SetAttr, SetTime, TreeError};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Block size that statvfs(3) reports, in bytes.
const BLOCK_BYTES: u32 = 4096;

/// What the library calls.
pub(super) struct Adapter(pub Arc<Shared>);

fn inode(number: INodeNo) -> Inode {
    Inode(number.0)
}

fn owner(request: &Request) -> Owner {
    Owner { uid: request.uid(), gid: request.gid() }
}

fn maker(request: &Request, mode: u32, umask: u32) -> Maker {
    Maker { mode: permissions(mode), umask: permissions(umask), owner: owner(request) }
}

fn caller(request: &Request) -> Caller {
    if request.uid() == 0 { Caller::Privileged } else { Caller::Ordinary }
}

fn permissions(mode: u32) -> u16 {
    mode as u16 & MODE_MASK
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> std::io::Result<()> {
        init::configure(kernel);
        if self.0.namespace == Namespace::UsersAndLists { acl::ask_for(kernel) } else { Ok(()) }
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply::entry(reply, &self.0.owners, self.0.lookup(inode(parent), name.as_bytes()));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.0.forget(inode(number), lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply::attr(reply, &self.0.owners, self.0.attr(inode(number)));
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let time = |time: TimeOrNow| chosen_time(time).map_or(SetTime::Now, SetTime::At);
        let mode = mode.map(permissions);
        let change = SetAttr { mode, uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) };
        let (shared, number, caller) = (self.0.clone(), inode(number), caller(request));
        self.0.when_here(
            move |shared| shared.set_attr(number, change, caller),
            move |set| reply::attr(reply, &shared.owners, set),
        );
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        reply::data(reply, self.0.read_link(inode(number)));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = node_kind(mode, device).ok_or(Refusal::Tree(TreeError::Invalid)).and_then(|kind| {
            self.0.make_node(inode(parent), name.as_bytes(), kind, maker(request, mode, umask))
        });
        reply::entry(reply, &self.0.owners, made);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        reply::entry(
            reply,
            &self.0.owners,
            self.0.make_dir(inode(parent), name.as_bytes(), maker(request, mode, umask)),
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(reply, self.0.unlink(inode(parent), name.as_bytes()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(reply, self.0.remove_dir(inode(parent), name.as_bytes()));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        let made = self.0.make_symlink(inode(parent), name.as_bytes(), target, owner(request));
        reply::entry(reply, &self.0.owners, made);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((inode(parent), name.as_bytes()), (inode(new_parent), new_name.as_bytes()));
        reply::empty(reply, self.0.rename(from, to, flags));
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply::entry(reply, &self.0.owners, self.0.link(inode(number), inode(parent), name.as_bytes()));
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open(inode(number), flags, caller(request)) {
            Ok(Opened { handle, flags }) => reply.opened(handle, flags),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let maker = maker(request, mode, umask);
        match self.0.create(inode(parent), name.as_bytes(), maker, OpenFlags(flags)) {
            Ok((attr, Opened { handle, flags })) => {
                let attr = to_kernel(&self.0.owners.shown(attr));
                reply.created(&init::CACHE_FOR, &attr, GENERATION, handle, flags);
            }
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let number = inode(number);
        self.0.when_read(
            Reading { inode: number, begin: offset, end: offset.saturating_add(bytes.into()) },
            move |shared| shared.read(number, handle, offset, bytes),
            move |read| reply::data(reply, read),
        );
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (shared, number) = (self.0.clone(), inode(number));
        let bytes = u32::try_from(data.len()).expect("a request is shorter than 4 GiB");
        let answer = move |written| match written {
            Ok(()) => shared.acknowledge(bytes, reply),
            Err(refusal) => reply.error(errno(&refusal)),
        };
        match self.0.write(number, offset, data, how, flags) {
            Ok(()) => answer(Ok(())),
            refused => {
                let data = data.to_vec();
                let attempt = move |shared: &Shared| shared.write(number, offset, &data, how, flags);
                self.0.again_when_here(refused, attempt, answer);
            }
        }
    }

    /// Told once that there is nothing to do, the kernel saves itself a round trip at every close.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.release(inode(number), handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.persist(inode(number), reply);
    }

    /// Told once, the kernel opens directories by itself and caches what is in them.
    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let visit = &mut |name: &[u8], cookie, attr: &Attr| {
            reply.add(INodeNo(attr.inode.0), cookie, kind(attr.file_type), OsStr::from_bytes(name))
        };
        match self.0.read_dir(inode(number), offset, Audience::Names, visit) {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let lasting = self.0.listing_lasts(inode(number));
        let visit = &mut |name: &[u8], cookie, attr: &Attr| {
            let name = OsStr::from_bytes(name);
            let shown = to_kernel(&self.0.owners.shown(*attr));
            reply.add(INodeNo(attr.inode.0), cookie, name, &lasting, &shown, GENERATION)
        };
        match self.0.read_dir(inode(number), offset, Audience::Inodes, visit) {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.persist(inode(number), reply);
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        match self.0.room(inode(number)) {
            Ok(room) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
                let (total, free) = (blocks(room.total_bytes), blocks(room.free_bytes));
                reply.statfs(
                    total,
                    free,
                    free,
                    room.files,
                    room.free_files,
                    BLOCK_BYTES,
                    NAME_BYTES_MAX as u32,
                    BLOCK_BYTES,
                );
            }
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let who = (caller(request), request.gid());
        reply::empty(reply, self.0.set_xattr(inode(number), name.as_bytes(), value, flags, who));
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        reply::xattr(reply, room, self.0.xattr(inode(number), name.as_bytes()));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, room: u32, reply: ReplyXattr) {
        reply::xattr(reply, room, self.0.xattrs(inode(number)));
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(reply, self.0.remove_xattr(inode(number), name.as_bytes()));
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (number, caller) = (inode(number), caller(request));
        self.0.when_here(
            move |shared| shared.allocate(number, (offset, bytes), mode, caller),
            move |done| reply::empty(reply, done),
        );
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.0.seek(inode(number), offset, whence) {
            Ok(found) => reply.offset(found),
            Err(refusal) => reply.error(errno(&refusal)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        bytes: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to, caller) = ((inode(from), from_offset), (inode(to), to_offset), caller(request));
        self.0.when_here(
            move |shared| shared.copy(from, to, bytes, caller),
            move |copied| match copied {
                Ok(copied) => reply.written(copied),
                Err(refusal) => reply.error(errno(&refusal)),
            },
        );
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready; told once, the kernel asks no more.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
