//! What a store stands on: eight calls that a file, memory, or a disk that crashes can answer.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Random access to the bytes of one store. All methods may be called from many threads at once.
pub trait Disk: Send + Sync {
    /// What messages call it: the path of a file.
    fn name(&self) -> String;
    /// Fills `buffer` from `offset` on; bytes beyond the end read as zero.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the disk where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts or grows (with zeros) to `bytes`.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
    /// Makes `bytes` bytes from `offset` on read as zero and gives their space back; never changes the length.
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Returns when everything written before the call survives a power cut.
    fn sync(&self) -> io::Result<()>;
    /// The room around the store.
    fn space(&self) -> io::Result<Space>;
}

/// The room in the filesystem that holds a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes that an ordinary user may still write.
    pub free_bytes: u64,
    /// Bytes of the whole filesystem.
    pub total_bytes: u64,
}

const PAGE_BYTES: u64 = 4096;

/// A sparse disk in memory, for tests and simulations.
#[derive(Default)]
pub struct MemoryDisk {
    content: RwLock<Content>,
}

#[derive(Default, Clone)]
struct Content {
    length: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES as usize]>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Bytes that are really held: what a sparse file would take.
    pub fn allocated_bytes(&self) -> u64 {
        self.content.read().pages.len() as u64 * PAGE_BYTES
    }
}

impl Clone for MemoryDisk {
    fn clone(&self) -> MemoryDisk {
        MemoryDisk { content: RwLock::new(self.content.read().clone()) }
    }
}

/// Splits a byte range at page boundaries: (page, first byte in the page, range in the caller's buffer).
fn pages_of(offset: u64, bytes: u64) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes {
            return None;
        }
        let at = offset + done;
        let start = at % PAGE_BYTES;
        let count = (PAGE_BYTES - start).min(bytes - done);
        let range = done as usize..(done + count) as usize;
        done += count;
        Some((at / PAGE_BYTES, start as usize, range))
    })
}

impl Disk for MemoryDisk {
    fn name(&self) -> String {
        "a disk in memory".to_owned()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.content.read();
        for (page, start, range) in pages_of(offset, buffer.len() as u64) {
            match content.pages.get(&page) {
                Some(bytes) => {
                    let count = range.len();
                    buffer[range].copy_from_slice(&bytes[start..start + count]);
                }
                None => buffer[range].fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content.write();
        content.length = content.length.max(offset + bytes.len() as u64);
        for (page, start, range) in pages_of(offset, bytes.len() as u64) {
            // As a sparse file does, it holds no zeros that nobody has to see.
            if !content.pages.contains_key(&page) && bytes[range.clone()].iter().all(|byte| *byte == 0) {
                continue;
            }
            let held = content.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(held)[start..start + range.len()].copy_from_slice(&bytes[range]);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.content.read().length)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let old = self.length()?;
        if bytes < old {
            self.discard(bytes, old - bytes)?;
        }
        self.content.write().length = bytes;
        Ok(())
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut content = self.content.write();
        let bytes = bytes.min(content.length.saturating_sub(offset));
        let end = offset + bytes;
        let whole = offset.div_ceil(PAGE_BYTES)..end / PAGE_BYTES;
        if whole.start < whole.end {
            let gone: Vec<u64> = content.pages.range(whole).map(|(page, _)| *page).collect();
            for page in gone {
                content.pages.remove(&page);
            }
        }
        for edge in [offset / PAGE_BYTES, end / PAGE_BYTES] {
            let from = offset.max(edge * PAGE_BYTES);
            let to = end.min((edge + 1) * PAGE_BYTES);
            if let Some(held) = content.pages.get_mut(&edge)
                && from < to
            {
                Arc::make_mut(held)[(from - edge * PAGE_BYTES) as usize..(to - edge * PAGE_BYTES) as usize]
                    .fill(0);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free_bytes: 1 << 40, total_bytes: 1 << 41 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_memory_disk_behaves_like_a_plain_vector() {
        let (disk, mut model) = (MemoryDisk::new(), vec![0u8; 40_000]);
        let mut seed = 7u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        disk.set_length(40_000).unwrap();
        for round in 0..500 {
            let offset = draw(30_000);
            let bytes = draw(10_000);
            let range = offset as usize..(offset + bytes) as usize;
            if draw(3) == 0 {
                disk.discard(offset, bytes).unwrap();
                model[range].fill(0);
            } else {
                disk.write_at(offset, &vec![round as u8; bytes as usize]).unwrap();
                model[range].fill(round as u8);
            }
            let mut all = vec![1; 40_000];
            disk.read_at(0, &mut all).unwrap();
            assert!(all == model, "round {round}");
        }
        disk.set_length(5).unwrap();
        disk.set_length(40_000).unwrap();
        let mut all = vec![1; 40_000];
        disk.read_at(0, &mut all).unwrap();
        assert!(all[..5] == model[..5] && all[5..].iter().all(|byte| *byte == 0));
    }
}
