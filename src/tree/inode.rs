//! The inode record: all that `stat` tells, and how the data of a file is kept.

use crate::base::{Inode, Malformed, Reader, Writer};

/// A file of at most this many bytes lies inside its inode record and has no chunks.
pub const INLINE_BYTES_MAX: usize = 1024;

/// Largest file: what a signed 64-bit offset reaches, less room for whole chunks, in bytes.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64 & !0xf_ffff;

/// Permission bits with set-uid, set-gid and sticky.
pub const MODE_MASK: u16 = 0o7777;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// What kind of thing an inode is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

impl FileType {
    /// The byte that stands for it.
    pub fn code(self) -> u8 {
        match self {
            FileType::File => 1,
            FileType::Directory => 2,
            FileType::Symlink => 3,
            FileType::Fifo => 4,
            FileType::Socket => 5,
            FileType::Char => 6,
            FileType::Block => 7,
        }
    }

    /// The type that a byte stands for.
    pub fn from_code(code: u8) -> Option<FileType> {
        use FileType::*;
        [File, Directory, Symlink, Fifo, Socket, Char, Block].get(usize::from(code).wrapping_sub(1)).copied()
    }
}

/// A time since 1970 (UTC), to the nanosecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after them, below 10⁹.
    pub nanos: u32,
}

/// How a file's data is cut into chunks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RecordSize(u8);

impl RecordSize {
    /// Not chosen yet: the file has no chunk.
    pub const UNDECIDED: RecordSize = RecordSize(0);
    /// 16 KiB.
    pub const SMALL: RecordSize = RecordSize(14);
    /// 64 KiB.
    pub const LARGE: RecordSize = RecordSize(16);

    /// The size for a file of `bytes` at its first commit.
    pub fn for_file(bytes: u64) -> RecordSize {
        const LARGE_FROM_BYTES: u64 = 4 << 20;
        if bytes >= LARGE_FROM_BYTES { RecordSize::LARGE } else { RecordSize::SMALL }
    }

    /// Base-two logarithm; 0 while undecided.
    pub fn log2(self) -> u8 {
        self.0
    }

    /// The size of this logarithm, if files may have it.
    pub fn from_log2(log2: u8) -> Option<RecordSize> {
        matches!(log2, 0 | 14 | 16).then_some(RecordSize(log2))
    }

    /// Whether a choice was made.
    pub fn is_decided(self) -> bool {
        self.0 != 0
    }
}

/// All that is known of an inode but its names, chunks and extended attributes.
///
/// Invariants, which the decoder checks:
/// - a file of 1 to [`INLINE_BYTES_MAX`] bytes has all its data in `inline`; any other inode has none there;
/// - only a file longer than that has a decided `record_size` and chunks;
/// - `size` is 0 for all but files and symbolic links (there: the target's bytes); what `stat` shows for a directory
///   is a constant;
/// - `data_id` is 0 for all but files; `rdev` is 0 for all but devices;
/// - a directory's `nlink` is 2 + its subdirectories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeRecord {
    /// What it is.
    pub file_type: FileType,
    /// Permission bits, within [`MODE_MASK`].
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Access time: set when made and by hand only.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
    /// When it was made.
    pub crtime: Timestamp,
    /// Bytes of a file or of a link's target.
    pub size: u64,
    /// Names; for a directory 2 + its subdirectories.
    pub nlink: u32,
    /// Device number.
    pub rdev: u32,
    /// Chunk size of a file.
    pub record_size: RecordSize,
    /// What a file's chunks are sealed under: at first its inode number; conflict copies keep it.
    pub data_id: u64,
    /// The directory in which it lies: exact for directories, a hint for what can have several names; 0 for a root.
    pub parent: Inode,
    /// The data of a small file.
    pub inline: Option<Box<[u8]>>,
}

const ATIME_DIFFERS: u8 = 1;
const MTIME_DIFFERS: u8 = 2;
const CTIME_DIFFERS: u8 = 4;
const ALL_FLAGS: u8 = 7;

impl InodeRecord {
    /// The root directory of a block that was never written to: the same on every device.
    pub fn genesis() -> InodeRecord {
        InodeRecord::new(FileType::Directory, 0o755, Inode(0), Timestamp::default())
    }

    /// Something new, owned by root: no data, one name (two for a directory), all times alike.
    pub fn new(file_type: FileType, mode: u16, parent: Inode, now: Timestamp) -> InodeRecord {
        InodeRecord {
            file_type,
            mode: mode & MODE_MASK,
            uid: 0,
            gid: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            size: 0,
            nlink: if file_type == FileType::Directory { 2 } else { 1 },
            rdev: 0,
            record_size: RecordSize::UNDECIDED,
            data_id: 0,
            parent,
            inline: None,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type == FileType::File
    }

    /// type 1, flags 1, mode 2, uid, gid, crtime; those of atime, mtime, ctime that differ from it; nlink, parent 8;
    /// then by type: a file's size, data id 8, record size 1 or inline bytes; a link's size; a device's number.
    pub fn encode(&self) -> Box<[u8]> {
        let mut writer = Writer::new();
        let mut flags = 0;
        for (flag, time) in self.differing_times() {
            flags |= if time == self.crtime { 0 } else { flag };
        }
        writer.u8(self.file_type.code()).u8(flags).u16(self.mode);
        writer.varint(self.uid.into()).varint(self.gid.into());
        write_time(&mut writer, self.crtime);
        for (_, time) in self.differing_times().into_iter().filter(|(_, time)| *time != self.crtime) {
            write_time(&mut writer, time);
        }
        writer.varint(self.nlink.into()).u64(self.parent.0);
        match self.file_type {
            FileType::File => {
                writer.varint(self.size).u64(self.data_id);
                if self.size > INLINE_BYTES_MAX as u64 {
                    writer.u8(self.record_size.log2());
                } else {
                    let inline = self.inline.as_deref().unwrap_or_default();
                    debug_assert_eq!(inline.len() as u64, self.size, "small files lie in their record");
                    writer.raw(inline);
                }
            }
            FileType::Symlink => {
                writer.varint(self.size);
            }
            FileType::Char | FileType::Block => {
                writer.varint(self.rdev.into());
            }
            FileType::Directory | FileType::Fifo | FileType::Socket => {}
        }
        writer.0.into_boxed_slice()
    }

    fn differing_times(&self) -> [(u8, Timestamp); 3] {
        [(ATIME_DIFFERS, self.atime), (MTIME_DIFFERS, self.mtime), (CTIME_DIFFERS, self.ctime)]
    }

    /// Refuses what [`InodeRecord::encode`] would not write.
    pub fn decode(bytes: &[u8]) -> Result<InodeRecord, Malformed> {
        let mut reader = Reader::new(bytes);
        let file_type = FileType::from_code(reader.u8()?).ok_or(Malformed)?;
        let flags = reader.u8()?;
        let mode = reader.u16()?;
        if flags & !ALL_FLAGS != 0 || mode & !MODE_MASK != 0 {
            return Err(Malformed);
        }
        let (uid, gid) = (read_u32(&mut reader)?, read_u32(&mut reader)?);
        let crtime = read_time(&mut reader)?;
        let mut other_time = |flag: u8| match flags & flag {
            0 => Ok(crtime),
            _ => {
                read_time(&mut reader).and_then(|time| if time == crtime { Err(Malformed) } else { Ok(time) })
            }
        };
        let (atime, mtime, ctime) =
            (other_time(ATIME_DIFFERS)?, other_time(MTIME_DIFFERS)?, other_time(CTIME_DIFFERS)?);
        let nlink = read_u32(&mut reader)?;
        let parent = Inode(reader.u64()?);
        let mut record = InodeRecord::new(file_type, mode, parent, crtime);
        record = InodeRecord { uid, gid, atime, mtime, ctime, nlink, ..record };
        match file_type {
            FileType::File => record.decode_file(&mut reader)?,
            FileType::Symlink => {
                record.size = reader.bounded(super::value::LINK_TARGET_BYTES_MAX)? as u64;
            }
            FileType::Char | FileType::Block => record.rdev = read_u32(&mut reader)?,
            FileType::Directory | FileType::Fifo | FileType::Socket => {}
        }
        reader.end()?;
        Ok(record)
    }

    fn decode_file(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        self.size = reader.varint()?;
        self.data_id = reader.u64()?;
        if self.size > FILE_BYTES_MAX {
            return Err(Malformed);
        }
        if self.size > INLINE_BYTES_MAX as u64 {
            self.record_size = RecordSize::from_log2(reader.u8()?).ok_or(Malformed)?;
        } else if self.size > 0 {
            self.inline = Some(reader.raw(self.size as usize)?.into());
        }
        Ok(())
    }
}

fn read_u32(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(reader.varint()?).map_err(|_| Malformed)
}

/// Seconds as a zigzag varint, nanoseconds 4.
fn write_time(writer: &mut Writer, time: Timestamp) {
    writer.varint(((time.seconds << 1) ^ (time.seconds >> 63)) as u64).u32(time.nanos);
}

fn read_time(reader: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    let zigzag = reader.varint()?;
    let seconds = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    let nanos = reader.u32()?;
    if nanos < NANOS_PER_SECOND { Ok(Timestamp { seconds, nanos }) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<InodeRecord> {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let new = |file_type| InodeRecord::new(file_type, 0o640, Inode(9), at(1_700_000_000, 5));
        vec![
            InodeRecord::genesis(),
            InodeRecord { nlink: 7, mtime: at(-1, 999_999_999), ..new(FileType::Directory) },
            InodeRecord { size: 3, data_id: 77, inline: Some(b"abc"[..].into()), ..new(FileType::File) },
            InodeRecord { size: 0, data_id: u64::MAX, atime: at(i64::MIN, 0), ..new(FileType::File) },
            InodeRecord { size: 1 << 40, record_size: RecordSize::LARGE, ..new(FileType::File) },
            InodeRecord { size: 5000, ctime: at(i64::MAX, 1), ..new(FileType::File) },
            InodeRecord { size: 4095, uid: u32::MAX, gid: 1000, ..new(FileType::Symlink) },
            InodeRecord { rdev: 0x801, mode: 0o7777, ..new(FileType::Block) },
            new(FileType::Fifo),
        ]
    }

    #[test]
    fn records_survive() {
        for record in samples() {
            assert_eq!(InodeRecord::decode(&record.encode()), Ok(record.clone()), "{record:?}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for record in samples() {
            let bytes = record.encode();
            assert_eq!(InodeRecord::decode(&bytes[..bytes.len() - 1]), Err(Malformed));
            assert_eq!(InodeRecord::decode(&[&bytes[..], &[0]].concat()), Err(Malformed));
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut wrong = bytes.to_vec();
                    wrong[at] ^= 1 << bit;
                    if let Ok(other) = InodeRecord::decode(&wrong) {
                        assert_eq!(&*other.encode(), &wrong[..], "byte {at}");
                    }
                }
            }
        }
    }
}
