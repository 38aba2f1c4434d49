//! What FUSE itself allows on this machine: a filesystem in memory, without crypto, history or network, that agrees with
//! the kernel on exactly what a kilofs mount agrees on. Its figures bound ours from above.
//!
//!     ceiling DIRECTORY [--writeback]
//!
//! Ends when the directory is unmounted.

#[path = "../../src/fuse/init.rs"]
mod init;

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use init::{CACHE_FOR, READ_AHEAD_KIB, THREADS};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

const GENERATION: Generation = Generation(0);
const BLOCK_BYTES: u32 = 4096;
/// Entries of a listing have cookies from here on; `.` and `..` lie below.
const FIRST_COOKIE: u64 = 3;

struct Node {
    attr: RwLock<FileAttr>,
    data: RwLock<Vec<u8>>,
    names: RwLock<Names>,
}

/// A directory: by name, and in the order in which names were given, which is the order of its listing.
#[derive(Default)]
struct Names {
    by_name: HashMap<OsString, (u64, Arc<Node>)>,
    in_order: BTreeMap<u64, OsString>,
    given: u64,
}

impl Names {
    fn insert(&mut self, name: &OsStr, node: Arc<Node>) {
        self.remove(name);
        self.given += 1;
        let cookie = FIRST_COOKIE + self.given;
        self.in_order.insert(cookie, name.to_owned());
        self.by_name.insert(name.to_owned(), (cookie, node));
    }

    fn remove(&mut self, name: &OsStr) -> Option<Arc<Node>> {
        let (cookie, node) = self.by_name.remove(name)?;
        self.in_order.remove(&cookie);
        Some(node)
    }
}

/// Inodes that nobody names stay until the end: a benchmark is short.
struct Ceiling {
    nodes: RwLock<HashMap<u64, Arc<Node>>>,
    drawn: AtomicU64,
    writeback: bool,
}

impl Ceiling {
    fn new(writeback: bool) -> Ceiling {
        let ceiling = Ceiling { nodes: RwLock::default(), drawn: AtomicU64::new(1), writeback };
        ceiling.new_node(FileType::Directory, 0o755, (0, 0));
        ceiling
    }

    fn node(&self, number: INodeNo) -> Result<Arc<Node>, Errno> {
        self.nodes.read().get(&number.0).cloned().ok_or(Errno::ENOENT)
    }

    fn new_node(&self, kind: FileType, mode: u32, (uid, gid): (u32, u32)) -> Arc<Node> {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now();
        let attr = FileAttr {
            ino: INodeNo(number),
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm: (mode & 0o7777) as u16,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid,
            gid,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        };
        let node = Node { attr: RwLock::new(attr), data: RwLock::default(), names: RwLock::default() };
        let node = Arc::new(node);
        self.nodes.write().insert(number, node.clone());
        node
    }

    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: FileType,
        mode: u32,
    ) -> Result<Arc<Node>, Errno> {
        let parent = self.node(parent)?;
        let mut names = parent.names.write();
        if names.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let node = self.new_node(kind, mode, (request.uid(), request.gid()));
        names.insert(name, node.clone());
        touch(&parent);
        Ok(node)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let parent = self.node(parent)?;
        let mut names = parent.names.write();
        let (_, node) = names.by_name.get(name).ok_or(Errno::ENOENT)?;
        if !node.names.read().by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        if let Some(node) = names.remove(name) {
            let mut attr = node.attr.write();
            attr.nlink = attr.nlink.saturating_sub(1);
        }
        touch(&parent);
        Ok(())
    }

    fn list(
        &self,
        number: INodeNo,
        cookie: u64,
        mut add: impl FnMut(&OsStr, u64, &FileAttr) -> bool,
    ) -> Result<(), Errno> {
        let directory = self.node(number)?;
        let own = *directory.attr.read();
        for (at, name) in [(1, "."), (2, "..")] {
            if cookie < at && add(OsStr::new(name), at, &own) {
                return Ok(());
            }
        }
        let names = directory.names.read();
        for (at, name) in names.in_order.range(cookie + 1..) {
            let attr = *names.by_name[name].1.attr.read();
            if add(name, *at, &attr) {
                break;
            }
        }
        Ok(())
    }
}

fn touch(node: &Node) {
    let mut attr = node.attr.write();
    attr.mtime = SystemTime::now();
    attr.ctime = attr.mtime;
}

fn resize(node: &Node, bytes: u64) {
    node.data.write().resize(bytes as usize, 0);
    let mut attr = node.attr.write();
    (attr.size, attr.blocks) = (bytes, bytes.div_ceil(512));
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => time,
    }
}

fn entry(reply: ReplyEntry, made: Result<Arc<Node>, Errno>) {
    match made {
        Ok(node) => reply.entry(&CACHE_FOR, &node.attr.read(), GENERATION),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Ceiling {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> std::io::Result<()> {
        init::configure(kernel);
        if self.writeback {
            let refused = |_| std::io::Error::other("no writeback cache in this kernel");
            kernel.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE).map_err(refused)?;
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Ok(parent) = self.node(parent) else { return reply.error(Errno::ENOENT) };
        match parent.names.read().by_name.get(name) {
            Some((_, node)) => reply.entry(&CACHE_FOR, &node.attr.read(), GENERATION),
            None => {
                let nothing = FileAttr { ino: INodeNo(0), ..*parent.attr.read() };
                reply.entry(&CACHE_FOR, &nothing, GENERATION);
            }
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, _: u64) {
        // Looked up, as one who counts would have to.
        let gone = self.node(number).is_ok_and(|node| node.attr.read().nlink == 0);
        if gone {
            self.nodes.write().remove(&number.0);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(number) {
            Ok(node) => reply.attr(&CACHE_FOR, &node.attr.read()),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
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
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let Ok(node) = self.node(number) else { return reply.error(Errno::ENOENT) };
        if let Some(bytes) = size {
            resize(&node, bytes);
        }
        let mut attr = node.attr.write();
        attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
        (attr.uid, attr.gid) = (uid.unwrap_or(attr.uid), gid.unwrap_or(attr.gid));
        (attr.atime, attr.mtime) = (atime.map_or(attr.atime, time), mtime.map_or(attr.mtime, time));
        attr.ctime = SystemTime::now();
        reply.attr(&CACHE_FOR, &attr);
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.node(number) {
            Ok(node) => reply.data(&node.data.read()),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make(request, parent, name, FileType::Directory, mode));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &std::path::Path,
        reply: ReplyEntry,
    ) {
        let made = self.make(request, parent, name, FileType::Symlink, 0o777).inspect(|node| {
            *node.data.write() = target.as_os_str().as_encoded_bytes().to_vec();
            node.attr.write().size = target.as_os_str().len() as u64;
        });
        entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (Ok(from), Ok(to)) = (self.node(parent), self.node(new_parent)) else {
            return reply.error(Errno::ENOENT);
        };
        let Some(node) = from.names.write().remove(name) else { return reply.error(Errno::ENOENT) };
        node.attr.write().ctime = SystemTime::now();
        to.names.write().insert(new_name, node);
        touch(&from);
        touch(&to);
        reply.ok();
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.node(number).and_then(|node| {
            let parent = self.node(parent)?;
            parent.names.write().insert(name, node.clone());
            node.attr.write().nlink += 1;
            Ok(node)
        });
        entry(reply, linked);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Ok(node) = self.node(number) else { return reply.error(Errno::ENOENT) };
        if flags.0 & libc::O_TRUNC != 0 {
            resize(&node, 0);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(request, parent, name, FileType::RegularFile, mode) {
            Ok(node) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&CACHE_FOR, &node.attr.read(), GENERATION, FileHandle(0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Ok(node) = self.node(number) else { return reply.error(Errno::ENOENT) };
        let data = node.data.read();
        let from = data.len().min(offset as usize);
        reply.data(&data[from..data.len().min(from + bytes as usize)]);
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Ok(node) = self.node(number) else { return reply.error(Errno::ENOENT) };
        let mut data = node.data.write();
        let from = offset as usize;
        if data.len() < from {
            data.resize(from, 0);
        }
        let over = bytes.len().min(data.len() - from);
        data[from..from + over].copy_from_slice(&bytes[..over]);
        data.extend_from_slice(&bytes[over..]);
        let mut attr = node.attr.write();
        (attr.size, attr.blocks) = (data.len() as u64, data.len().div_ceil(512) as u64);
        attr.mtime = SystemTime::now();
        attr.ctime = attr.mtime;
        reply.written(bytes.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, cookie: u64, mut reply: ReplyDirectory) {
        match self.list(number, cookie, |name, at, attr| reply.add(attr.ino, at, attr.kind, name)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let add =
            |name: &OsStr, at, attr: &FileAttr| reply.add(attr.ino, at, name, &CACHE_FOR, attr, GENERATION);
        match self.list(number, cookie, add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 24, 1 << 23, 1 << 23, 1 << 24, 1 << 23, BLOCK_BYTES, 255, BLOCK_BYTES);
    }

    /// As a filesystem that has attributes answers for files without any.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, room: u32, reply: ReplyXattr) {
        if room == 0 { reply.size(0) } else { reply.data(&[]) }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let directory =
        arguments.next().ok_or_else(|| anyhow::anyhow!("usage: ceiling DIRECTORY [--writeback]"))?;
    let writeback = arguments.next().is_some_and(|word| word == "--writeback");
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config.acl = SessionACL::Owner;
    config.mount_options = vec![
        MountOption::FSName("ceiling".into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    let session = Session::new(Ceiling::new(writeback), &directory, &config)?;
    let background = session.spawn()?;
    // Answered by now, so the directory is ours. As a mount does, where that is allowed.
    let device = std::fs::metadata(&directory)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let _ =
        std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB.to_string());
    Ok(background.join()?)
}
