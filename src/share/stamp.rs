//! By what a file is known without reading it: one stamp for the folder's side, one for the tree's.

use crate::base::{Inode, Malformed, Reader, Writer};
use crate::tree::{Attr, FileType, Timestamp};
use rustix::fs::Stat;

/// What stands at a path, as far as it is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    /// A device, socket or pipe, or something on another file system: left alone on both sides.
    Special,
}

impl Kind {
    pub fn of(file_type: FileType) -> Kind {
        match file_type {
            FileType::File => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo | FileType::Socket | FileType::Char | FileType::Block => Kind::Special,
        }
    }

    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Result<Kind, Malformed> {
        let all = [Kind::File, Kind::Directory, Kind::Symlink, Kind::Special];
        all.into_iter().find(|kind| kind.code() == code).ok_or(Malformed)
    }
}

/// The folder's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Local {
    pub kind: Kind,
    pub number: u64,
    pub bytes: u64,
    pub mode: u16,
    pub mtime: Timestamp,
    /// The kernel's own time of the last change of anything: nobody can set it.
    pub ctime: Timestamp,
}

impl Local {
    /// From stat(2); `device` is that of the folder.
    pub fn of(stat: &Stat, device: u64) -> Local {
        let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            _ if stat.st_dev != device => Kind::Special,
            rustix::fs::FileType::RegularFile => Kind::File,
            rustix::fs::FileType::Directory => Kind::Directory,
            rustix::fs::FileType::Symlink => Kind::Symlink,
            _ => Kind::Special,
        };
        let time = |seconds: i64, nanos| Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
        Local {
            kind,
            number: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mode: (stat.st_mode & 0o7777) as u16,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// The same file with the same content, as far as its stamp tells; a rename changes nothing of that.
    pub fn is_same_content(&self, other: &Local) -> bool {
        let content = |local: &Local| (local.kind, local.number, local.bytes, local.mtime);
        content(self) == content(other)
    }

    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind.code()).u64(self.number).varint(self.bytes).u16(self.mode);
        put_time(writer, self.mtime);
        put_time(writer, self.ctime);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Local, Malformed> {
        Ok(Local {
            kind: Kind::from_code(reader.u8()?)?,
            number: reader.u64()?,
            bytes: reader.varint()?,
            mode: reader.u16()?,
            mtime: get_time(reader)?,
            ctime: get_time(reader)?,
        })
    }
}

/// The tree's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub kind: Kind,
    pub inode: Inode,
    pub bytes: u64,
    pub mode: u16,
    pub mtime: Timestamp,
    /// When anything of it was changed last, on whichever device.
    pub ctime: Timestamp,
}

impl Stamp {
    pub fn of(attr: &Attr) -> Stamp {
        Stamp {
            kind: Kind::of(attr.file_type),
            inode: attr.inode,
            bytes: attr.size,
            mode: attr.mode,
            mtime: attr.mtime,
            ctime: attr.ctime,
        }
    }

    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind.code()).u64(self.inode.0).varint(self.bytes).u16(self.mode);
        put_time(writer, self.mtime);
        put_time(writer, self.ctime);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Stamp, Malformed> {
        Ok(Stamp {
            kind: Kind::from_code(reader.u8()?)?,
            inode: Inode(reader.u64()?),
            bytes: reader.varint()?,
            mode: reader.u16()?,
            mtime: get_time(reader)?,
            ctime: get_time(reader)?,
        })
    }
}

fn put_time(writer: &mut Writer, time: Timestamp) {
    writer.u64(time.seconds.cast_unsigned()).u32(time.nanos);
}

fn get_time(reader: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    Ok(Timestamp { seconds: reader.u64()?.cast_signed(), nanos: reader.u32()? })
}
