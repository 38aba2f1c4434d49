//! The veil: how the content of a private block lies in the block that everybody sees. That one holds a single file, whose
//! chunks are the bytes of an inner space; in it lie the nodes and chunks of the private map, sealed with the private keys.
//! Where the private map begins is said by the file's one extended attribute, sealed too.
//!
//! The inner space only grows: a place in it shows the same bytes as long as anything names it, so what was cleaned away
//! leaves a hole. To whoever has no private key, and to all that is done with blocks in general, it is a file like any other.

use super::chunk_cache::ChunkCache;
use super::inode::RecordSize;
use super::key::Key;
use super::source::ImageSource;
use super::view::pointer_of;
use crate::base::{BlockNumber, Id, Inode, Malformed, Place, REGION_BYTES, Reader, Writer};
use crate::crypt::{BlobKind, SealKeys};
use crate::map::{Fetch, FetchError, Map, MapError, NodeCache, Root};
use std::sync::Arc;

/// The inner space is cut into chunks of this size, which is that of the file.
pub(super) const CHUNK: RecordSize = RecordSize::SMALL;
/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: u64 = 1 << 14;
/// An object lies in one segment, and segments are given back as a whole.
pub(super) const SEGMENT_BYTES: u64 = REGION_BYTES;
/// The name of the file in the root of its block.
pub(super) const NAME: &[u8] = b"veil";
/// The name of the attribute that holds the front.
pub(super) const FRONT: &[u8] = b"user.kilofs.front";

const FRONT_FORMAT: u8 = 1;
/// First half of the inode numbers of veils; no session draws it.
const INODE_PREFIX: u64 = 0xffff_ffff;

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(CHUNK_BYTES));

/// The inode of a block's veil.
pub(super) fn file_of(block: BlockNumber) -> Inode {
    Inode(INODE_PREFIX << 32 | u64::from(block.0))
}

/// Whether a prefix of inode numbers belongs to veils.
pub fn is_reserved_prefix(prefix: u32) -> bool {
    u64::from(prefix) == INODE_PREFIX
}

/// What a private block begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Front {
    /// The root of the private map, in the inner space; none while it is empty.
    pub(super) root: Option<Root>,
    /// Where the inner space goes on.
    pub(super) tail: u64,
    /// How far the file reaches: behind the tail it holds what means nothing.
    pub(super) end: u64,
    /// Bytes before the tail that something names.
    pub(super) live: u64,
    /// Bytes before the tail that were given back.
    pub(super) holes: u64,
}

impl Front {
    /// Of one length whatever it says: format 1, whether there is a root 1, its level 1, id 32 and place 9, tail, end, live
    /// and holes 8 each.
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FRONT_FORMAT);
        let none = Root { level: 0, id: Id([0; 32]), place: Place { offset: 0, length: 0 } };
        let root = self.root.unwrap_or(none);
        writer.u8(u8::from(self.root.is_some())).u8(root.level).raw(&root.id.0).place(root.place);
        writer.u64(self.tail).u64(self.end).u64(self.live).u64(self.holes);
        writer.0
    }

    fn decode(bytes: &[u8]) -> Result<Front, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FRONT_FORMAT {
            return Err(Malformed);
        }
        let there = reader.u8()?;
        let root = Root { level: reader.u8()?, id: Id(reader.array()?), place: reader.place()? };
        let front = Front {
            root: (there != 0).then_some(root),
            tail: reader.u64()?,
            end: reader.u64()?,
            live: reader.u64()?,
            holes: reader.u64()?,
        };
        reader.end()?;
        let sound = front.tail <= front.end
            && front.end >> 47 == 0
            && front.live.checked_add(front.holes).is_some_and(|sum| sum <= front.tail);
        if sound && front.encode() == bytes { Ok(front) } else { Err(Malformed) }
    }

    /// The attribute's value: the id of the sealed front, then that.
    pub(super) fn seal(&self, inner: &SealKeys) -> Box<[u8]> {
        let mut sealed = Vec::new();
        let id = inner.seal_blob(BlobKind::Veil, &self.encode(), &mut sealed);
        [&id.0[..], &sealed].concat().into_boxed_slice()
    }

    /// Opens the attribute's value.
    pub(super) fn open(inner: &SealKeys, value: &[u8]) -> Option<Front> {
        let (id, sealed) = value.split_first_chunk()?;
        let plain = inner.open_blob(BlobKind::Veil, &Id(*id), sealed).ok()?;
        Front::decode(&plain).ok()
    }

    /// Bytes before the tail that nothing names.
    pub(super) fn dead(&self) -> u64 {
        self.tail.saturating_sub(self.holes).saturating_sub(self.live)
    }
}

/// Reads the inner space of one state of a block.
pub(super) struct Veil {
    outer: ImageSource,
    keys: SealKeys,
    root: Option<Root>,
    file: Inode,
    nodes: Arc<NodeCache>,
    chunks: Arc<ChunkCache>,
}

impl Veil {
    /// The inner space of a block, whose own map has this root in the image of `outer`.
    pub(super) fn new(
        block: BlockNumber,
        (keys, root): (&SealKeys, Option<Root>),
        outer: &ImageSource,
        nodes: &Arc<NodeCache>,
        chunks: &Arc<ChunkCache>,
    ) -> Veil {
        let (outer, keys) = (outer.clone(), keys.clone());
        Veil { outer, keys, root, file: file_of(block), nodes: nodes.clone(), chunks: chunks.clone() }
    }

    /// Reads what everybody sees.
    pub(super) fn outer(&self) -> &ImageSource {
        &self.outer
    }

    fn map(&self) -> Map<'_> {
        Map::new(&self.keys, &self.outer, &self.nodes)
    }

    /// The front; none where the block was never written to. An error without a front in what was written.
    pub(super) fn front(&self, inner: &SealKeys) -> Result<Front, MapError> {
        let Some(root) = &self.root else { return Ok(Front::default()) };
        let entry = self.map().get(Some(root), &Key::Xattr(self.file, FRONT).encode())?;
        entry.and_then(|entry| Front::open(inner, &entry.value)).ok_or(MapError::Tampered(root.place))
    }

    /// The plaintext of a chunk of the file: [`CHUNK_BYTES`].
    pub(super) fn chunk(&self, index: u64) -> Result<Arc<Vec<u8>>, FetchError> {
        let nowhere = || FetchError::OutOfRange(Place { offset: index * CHUNK_BYTES, length: 1 });
        let entry = self.map().get(self.root.as_ref(), &Key::Chunk(self.file, index).encode());
        let entry = entry.map_err(|error| match error {
            MapError::Fetch(error) => error,
            _ => nowhere(),
        })?;
        let pointer = entry.as_ref().and_then(pointer_of).ok_or_else(nowhere)?;
        if let Some(known) = self.chunks.get(&pointer.id) {
            return Ok(known);
        }
        if u64::from(pointer.place.length) != CHUNK_BYTES {
            return Err(nowhere());
        }
        let sealed = self.outer.fetch(pointer.place)?;
        let plain = self.keys.open_chunk_in_place(self.file.0, index, &pointer.id, sealed);
        let plain = Arc::new(plain.map_err(|_| nowhere())?);
        self.chunks.put(pointer.id, plain.clone());
        Ok(plain)
    }

    /// Fills a buffer with what lies at `offset` of the inner space.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FetchError> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let within = (at % CHUNK_BYTES) as usize;
            let count = rest.len().min(CHUNK_BYTES as usize - within);
            let chunk = self.chunk(at / CHUNK_BYTES)?;
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&chunk[within..within + count]);
            (at, rest) = (at + count as u64, later);
        }
        Ok(())
    }

    /// Where the chunks lie that an object of the inner space lies in.
    pub(super) fn places(&self, place: Place) -> Vec<Place> {
        let end = place.offset.saturating_add(u64::from(place.length));
        let chunks = place.offset / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES);
        let entry = |index| self.map().get(self.root.as_ref(), &Key::Chunk(self.file, index).encode());
        chunks.filter_map(|index| entry(index).ok().flatten()?.place).collect()
    }

    /// The chunks that there are, each with its place, in order.
    pub(super) fn each_chunk(&self, visit: &mut dyn FnMut(u64, Place)) -> Result<(), MapError> {
        let mut cursor = self.map().range(self.root.as_ref(), &Key::Chunk(self.file, 0).encode());
        while let Some(entry) = cursor.next()? {
            match (Key::decode(&entry.key), entry.place) {
                (Ok(Key::Chunk(file, index)), Some(place)) if file == self.file => visit(index, place),
                _ => break,
            }
        }
        Ok(())
    }
}

/// A private block's own map in an image, for who has its keys.
pub struct Inside {
    /// Reads the map's nodes and chunks.
    pub source: ImageSource,
    /// The map's root; none while it is empty.
    pub root: Option<Root>,
    /// How far its places reach.
    pub bytes: u64,
}

/// Opens a private block, whose visible map has `root` in the image of `outer` and is opened with `keys`.
pub fn look_inside(
    block: BlockNumber,
    (keys, root): (&SealKeys, Option<Root>),
    inner: &SealKeys,
    outer: &ImageSource,
    nodes: &Arc<NodeCache>,
) -> Result<Inside, MapError> {
    /// For who reads much and nothing twice.
    const CHUNKS_CACHE_BYTES: usize = 4 << 20;
    let chunks = Arc::new(ChunkCache::new(CHUNKS_CACHE_BYTES));
    let veil = Arc::new(Veil::new(block, (keys, root), outer, nodes, &chunks));
    let front = veil.front(inner)?;
    Ok(Inside { source: outer.behind(veil, Arc::default()), root: front.root, bytes: front.tail })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::{Birth, DatabaseId};
    use crate::crypt::{Life, PrivateKeys};

    fn keys() -> SealKeys {
        let life = Life { database: DatabaseId([1; 32]), block: BlockNumber(7), birth: Birth([2; 16]) };
        PrivateKeys::generate(life).seal_keys()
    }

    #[test]
    fn a_front_has_one_form_and_one_length() {
        let place = Place { offset: 70_000, length: 500 };
        let root = Some(Root { level: 2, id: Id([3; 32]), place });
        let full = Front { root, tail: 1 << 21, end: 1 << 22, live: 1 << 20, holes: 1 << 20 };
        let (inner, other) = (keys(), keys());
        for front in [Front::default(), full] {
            let value = front.seal(&inner);
            assert_eq!(value.len(), full.seal(&inner).len());
            assert_eq!(Front::open(&inner, &value), Some(front));
            assert_eq!(Front::open(&other, &value), None);
            for bit in 0..value.len() * 8 {
                let mut changed = value.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Front::open(&inner, &changed), None, "bit {bit}");
            }
        }
        for bad in [
            Front { live: full.live + 1, ..full },
            Front { end: full.tail - 1, ..full },
            Front { end: 1 << 47, ..full },
            Front { holes: u64::MAX, ..full },
        ] {
            assert_eq!(Front::decode(&bad.encode()), Err(Malformed), "{bad:?}");
        }
    }
}
