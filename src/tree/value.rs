//! Values of a block's map that are not inode records: directory entries, chunk pointers, and their limits.

use super::inode::FileType;
use crate::base::{Id, Inode, Malformed, Reader, Writer};

/// Longest value of an extended attribute, in bytes (Linux's XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// Longest target of a symbolic link, in bytes (Linux's PATH_MAX without the closing NUL).
pub const LINK_TARGET_BYTES_MAX: usize = 4095;

/// What a directory says of one name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DirEntry {
    /// The inode that bears the name.
    pub inode: Inode,
    /// Its type, as its record has it.
    pub file_type: FileType,
}

impl DirEntry {
    /// inode u64 ‖ type u8.
    pub fn encode(&self) -> Box<[u8]> {
        let mut writer = Writer::new();
        writer.u64(self.inode.0).u8(self.file_type.code());
        writer.0.into_boxed_slice()
    }

    /// Refuses what [`DirEntry::encode`] would not write.
    pub fn decode(bytes: &[u8]) -> Result<DirEntry, Malformed> {
        let mut reader = Reader::new(bytes);
        let entry = DirEntry {
            inode: Inode(reader.u64()?),
            file_type: FileType::from_code(reader.u8()?).ok_or(Malformed)?,
        };
        reader.end()?;
        if entry.inode.0 == 0 { Err(Malformed) } else { Ok(entry) }
    }
}

/// The id in a chunk pointer. The map entry's place says where the chunk lies; its sealed length tells the plain one.
pub fn chunk_id(value: &[u8]) -> Result<Id, Malformed> {
    value.try_into().map(Id).map_err(|_| Malformed)
}

/// The value of a chunk pointer.
pub fn chunk_value(id: &Id) -> Box<[u8]> {
    id.0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_one_form() {
        let entry = DirEntry { inode: Inode(1 << 40), file_type: FileType::Symlink };
        let bytes = entry.encode();
        assert_eq!(DirEntry::decode(&bytes), Ok(entry));
        assert_eq!(DirEntry::decode(&bytes[..8]), Err(Malformed));
        assert_eq!(DirEntry::decode(&[&bytes[..], &[0]].concat()), Err(Malformed));
        assert_eq!(DirEntry::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 9]), Err(Malformed));
        assert_eq!(DirEntry::decode(&[0, 0, 0, 0, 0, 0, 0, 0, 1]), Err(Malformed));
    }
}
