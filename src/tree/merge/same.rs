//! Whether two inodes hold the same, so that two devices that made the same file need no conflict (rule 7).

use super::delta::{self, Rank};
use super::state::State;
use super::{MergeError, Version};
use crate::base::Inode;
use crate::map::MapError;
use crate::tree::inode::{InodeRecord, RecordSize};
use crate::tree::key::Key;

/// A file as one side has it.
struct File<'a> {
    version: Version<'a>,
    inode: Inode,
    record: &'a InodeRecord,
    /// The chunk opened last.
    opened: Option<(u64, Vec<u8>)>,
}

impl File<'_> {
    /// The plain bytes of chunk `index`; empty for a hole.
    fn open(&self, index: u64) -> Result<Vec<u8>, MergeError> {
        let Version { map, root, keys, source } = &self.version;
        let Some(entry) = map.get(root.as_ref(), &Key::Chunk(self.inode, index).encode())? else {
            return Ok(Vec::new());
        };
        let (id, place) = (delta::chunk_of(&entry)?, entry.place.ok_or(MergeError::Malformed)?);
        let sealed = source.fetch(place).map_err(MapError::from)?;
        keys.open_chunk(self.record.data_id, index, &id, &sealed).map_err(|_| MergeError::Tampered(place))
    }

    /// `length` bytes from `offset`, both multiples of the smallest chunk; holes, and what is beyond the end, as zeros.
    fn window(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, MergeError> {
        let mut window = vec![0; length];
        if let Some(inline) = &self.record.inline {
            window[..inline.len()].copy_from_slice(inline);
        } else if self.record.record_size.is_decided() {
            let log2 = self.record.record_size.log2();
            let index = offset >> log2;
            if self.opened.as_ref().is_none_or(|(opened, _)| *opened != index) {
                self.opened = Some((index, self.open(index)?));
            }
            let within = (offset & ((1 << log2) - 1)) as usize;
            let chunk = self.opened.as_ref().map_or(&[][..], |(_, plain)| plain);
            let known = chunk.get(within..).unwrap_or_default();
            let count = known.len().min(length);
            window[..count].copy_from_slice(&known[..count]);
        }
        Ok(window)
    }
}

impl State<'_> {
    /// Whether two inodes are of one type and hold the same. Files of one size are read and compared, up to the first
    /// difference.
    pub(super) fn same_content(&self, one: Inode, other: Inode) -> Result<bool, MergeError> {
        let (Some((rank, one)), Some((other_rank, other))) = (self.locate(one), self.locate(other)) else {
            return Ok(false);
        };
        let (x, y) = (one.record, other.record);
        if x.file_type != y.file_type || x.size != y.size || x.rdev != y.rdev {
            return Ok(false);
        }
        if x.is_file() {
            same_data(one, other)
        } else {
            self.same_target((rank, one.inode), (other_rank, other.inode))
        }
    }

    /// The inode's data as the result has it.
    fn locate(&self, inode: Inode) -> Option<(Rank, File<'_>)> {
        let group = self.groups.get(&inode)?;
        let rank = group.data_side();
        let record = group.record.of(rank).as_ref()?;
        let inode = self.renumbered.get(&inode).copied().unwrap_or(inode);
        Some((rank, File { version: self.side(rank).version, inode, record, opened: None }))
    }

    fn same_target(&self, one: (Rank, Inode), other: (Rank, Inode)) -> Result<bool, MergeError> {
        let target = |(rank, inode): (Rank, Inode)| {
            let version = &self.side(rank).version;
            version.map.get(version.root.as_ref(), &Key::Link(inode).encode())
        };
        Ok(target(one)?.map(|entry| entry.value) == target(other)?.map(|entry| entry.value))
    }
}

fn same_data(mut one: File<'_>, mut other: File<'_>) -> Result<bool, MergeError> {
    let size = one.record.size;
    if size == 0 || one.record.inline.is_some() {
        return Ok(one.record.inline == other.record.inline);
    }
    let step = 1u64 << RecordSize::SMALL.log2();
    let mut offset = 0;
    while offset < size {
        if one.window(offset, step as usize)? != other.window(offset, step as usize)? {
            return Ok(false);
        }
        offset += step;
    }
    Ok(true)
}
