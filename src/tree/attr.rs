//! What `stat` shows, what `setattr` sets, and the words for making things.

use super::inode::{FileType, InodeRecord, Timestamp};
use crate::base::Inode;

/// What a directory's size is said to be, in bytes: a constant, so it is the same on every device.
pub const DIRECTORY_BYTES: u64 = 4096;

/// Unit of [`Attr::blocks`], in bytes.
const STAT_BLOCK_BYTES: u64 = 512;

const WRITE_BITS: u16 = 0o222;
/// Set-user-id.
pub(super) const SET_UID: u16 = 0o4000;
/// Set-group-id.
pub(super) const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// The attributes of an inode, as `stat` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Its number.
    pub inode: Inode,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits; write bits are masked where the policy does not let this device write.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Access time.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
    /// When it was made.
    pub crtime: Timestamp,
    /// Bytes.
    pub size: u64,
    /// 512-byte units.
    pub blocks: u64,
    /// Names.
    pub nlink: u32,
    /// Device number.
    pub rdev: u32,
}

impl Attr {
    /// The attributes that a record gives an inode.
    pub(super) fn new(inode: Inode, record: &InodeRecord, writable: bool) -> Attr {
        let size = if record.is_directory() { DIRECTORY_BYTES } else { record.size };
        Attr {
            inode,
            file_type: record.file_type,
            mode: if writable { record.mode } else { record.mode & !WRITE_BITS },
            uid: record.uid,
            gid: record.gid,
            atime: record.atime,
            mtime: record.mtime,
            ctime: record.ctime,
            crtime: record.crtime,
            size,
            blocks: size.div_ceil(STAT_BLOCK_BYTES),
            nlink: record.nlink,
            rdev: record.rdev,
        }
    }
}

/// Who something belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What `make_node` makes; a device with its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Char(u32),
    /// A block device.
    Block(u32),
}

impl NodeKind {
    /// The type of what is made.
    pub fn file_type(self) -> FileType {
        match self {
            NodeKind::File => FileType::File,
            NodeKind::Fifo => FileType::Fifo,
            NodeKind::Socket => FileType::Socket,
            NodeKind::Char(_) => FileType::Char,
            NodeKind::Block(_) => FileType::Block,
        }
    }
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The tree's clock.
    Now,
    /// This one.
    At(Timestamp),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// What a rename does with a target that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameFlags {
    /// Replaces it.
    Replace,
    /// Fails.
    NoReplace,
    /// Swaps the two; the target must exist.
    Exchange,
}

/// Whether an extended attribute must or must not exist before it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetXattr {
    /// Either.
    Any,
    /// It must not.
    Create,
    /// It must.
    Replace,
}

/// What fallocate(2) does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Grows the file to the range's end if it is shorter.
    Extend,
    /// Reserves without growing: nothing to do here.
    KeepSize,
    /// Makes a hole; the size stays.
    PunchHole,
    /// Zeros, growing the file to the range's end if it is shorter.
    ZeroRange,
    /// Zeros; the size stays.
    ZeroRangeKeepSize,
}

/// What `seek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    /// The next data.
    Data,
    /// The next hole, of which there is one at the end of every file.
    Hole,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirItem {
    /// The name; `.` and `..` are listed.
    pub name: Vec<u8>,
    /// The inode.
    pub inode: Inode,
    /// Its type.
    pub file_type: FileType,
    /// Where a listing goes on behind this entry.
    pub cookie: u64,
    /// Its attributes.
    pub attr: Attr,
}

/// Whether a record carries bits that a write by an ordinary user takes away.
pub(super) fn is_privileged(record: &InodeRecord) -> bool {
    stripped(record.mode) != record.mode && !record.is_directory()
}

/// The mode without set-user-id, and without set-group-id where it means that.
pub(super) fn stripped(mode: u16) -> u16 {
    let drop_group = if mode & GROUP_EXECUTE != 0 { SET_GID } else { 0 };
    mode & !(SET_UID | drop_group)
}
