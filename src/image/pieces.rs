//! The piece hashes of an image, from those of another where nothing changed.

use super::error::StoreError;
use super::store::Store;
use super::version::{Image, changed_part};
use crate::base::{PieceHash, PieceHashes, PieceIndex, PieceLength, REGION_BYTES, RegionIndex};
use sha1::{Digest, Sha1};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What hashing has cost so far.
#[derive(Default, Debug)]
pub struct Counters {
    /// Pieces read and hashed.
    pub pieces_hashed: AtomicU64,
    /// Their bytes.
    pub bytes_hashed: AtomicU64,
}

/// Below this much to hash a second thread costs more than it brings.
const PARALLEL_BYTES_MIN: u64 = 4 << 20;
const THREADS_MAX: usize = 8;

/// SHA-1 of a piece (BEP 3).
pub fn hash_piece(bytes: &[u8]) -> PieceHash {
    Sha1::digest(bytes).into()
}

/// The hash of a whole piece of zeros.
pub fn zero_piece_hash(length: PieceLength) -> PieceHash {
    static HASHES: [OnceLock<PieceHash>; 32] = [const { OnceLock::new() }; 32];
    *HASHES[usize::from(length.log2())].get_or_init(|| hash_piece(&vec![0; length.bytes() as usize]))
}

/// The hash of `bytes` zeros: a whole piece, or what is left for the last.
pub(super) fn zero_hash(bytes: u64) -> PieceHash {
    PieceLength::from_bytes(bytes).map_or_else(|| hash_piece(&vec![0; bytes as usize]), zero_piece_hash)
}

/// Hashes an image in pieces of `length`. With a base of the same piece length only pieces in which an image's slot or
/// fill differs are read; without one, or with another length, all that are not behind the fills. Zeros are never read.
pub fn hash_pieces(
    store: &Store,
    image: &Image,
    length: PieceLength,
    base: Option<(&Image, &PieceHashes)>,
    counters: &Counters,
) -> Result<PieceHashes, StoreError> {
    store.check_own(image)?;
    let image_bytes = image.bytes();
    let count = length.count(image_bytes);
    let usable = |(base, known): &(&Image, &PieceHashes)| {
        known.length == length
            && known.image_bytes == base.bytes()
            && known.hashes.len() == length.count(base.bytes()) as usize
    };
    let base = base.filter(usable);
    let mut hashes = base.map_or_else(Vec::new, |(_, known)| known.hashes.clone());
    let mut dirty = match base {
        Some((base, _)) => changed_pieces(image, base, length),
        None => written_pieces(image, length),
    };
    hashes.resize(count as usize, zero_piece_hash(length));
    // A short last piece of an image that grew, shrank or is new has bytes of its own even if they are zero.
    if base.is_none_or(|(base, _)| base.bytes() != image_bytes) {
        for bytes in [base.map_or(0, |(base, _)| base.bytes()), image_bytes] {
            if bytes % length.bytes() != 0 {
                push_pieces(&mut dirty, length, bytes - 1..bytes);
            }
        }
    }
    dirty.retain(|piece| piece.0 < count);
    dirty.sort_unstable();
    dirty.dedup();
    let job = Job { store, image, length, counters };
    for (piece, hash) in job.hash_all(&dirty)? {
        hashes[piece.0 as usize] = hash;
    }
    Ok(PieceHashes { length, image_bytes, hashes })
}

/// The pieces that regions changed since `base` touch.
fn changed_pieces(image: &Image, base: &Image, length: PieceLength) -> Vec<PieceIndex> {
    let mut pieces = Vec::new();
    for (index, new, old) in image.table().differing(base.table()) {
        let changed = changed_part(new, old);
        push_pieces(
            &mut pieces,
            length,
            index.start() + u64::from(changed.start)..index.start() + u64::from(changed.end),
        );
    }
    pieces
}

/// The pieces into which anything was written.
fn written_pieces(image: &Image, length: PieceLength) -> Vec<PieceIndex> {
    let mut pieces = Vec::new();
    for (index, region) in image.iter() {
        push_pieces(&mut pieces, length, index.start()..index.start() + u64::from(region.fill));
    }
    pieces
}

/// Adds the pieces that image bytes touch.
fn push_pieces(pieces: &mut Vec<PieceIndex>, length: PieceLength, bytes: Range<u64>) {
    if !bytes.is_empty() {
        pieces.extend((length.piece_of(bytes.start).0..=length.piece_of(bytes.end - 1).0).map(PieceIndex));
    }
}

struct Job<'a> {
    store: &'a Store,
    image: &'a Image,
    length: PieceLength,
    counters: &'a Counters,
}

impl Job<'_> {
    fn hash_all(&self, pieces: &[PieceIndex]) -> Result<Vec<(PieceIndex, PieceHash)>, StoreError> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(PieceIndex, PieceHash)>, StoreError> {
            let mut done = Vec::new();
            let mut buffer = Vec::new();
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((*piece, self.hash(*piece, &mut buffer)?));
            }
            Ok(done)
        };
        let bytes = pieces.len() as u64 * self.length.bytes();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if bytes < PARALLEL_BYTES_MIN || cores == 1 {
            return work();
        }
        let threads = cores.min(THREADS_MAX).min(pieces.len());
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::with_capacity(pieces.len());
            for thread in running {
                all.extend(thread.join().expect("hashing does not panic")?);
            }
            Ok(all)
        })
    }

    fn hash(&self, piece: PieceIndex, buffer: &mut Vec<u8>) -> Result<PieceHash, StoreError> {
        let start = self.length.start_of(piece);
        let bytes = self.length.bytes().min(self.image.bytes() - start);
        if self.shows_zeros(start, start + bytes) {
            return Ok(zero_hash(bytes));
        }
        buffer.resize(bytes as usize, 0);
        self.store.read(self.image, start, buffer)?;
        self.counters.pieces_hashed.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_hashed.fetch_add(bytes, Ordering::Relaxed);
        Ok(hash_piece(buffer))
    }

    /// Whether the bytes lie behind the fills of their regions.
    fn shows_zeros(&self, start: u64, end: u64) -> bool {
        (RegionIndex::of(start).0..=RegionIndex::of(end - 1).0).map(RegionIndex).all(|index| {
            let written = index.start() + u64::from(self.image.region(index).fill);
            written <= start.max(index.start())
        })
    }
}

const _: () = assert!(REGION_BYTES.is_power_of_two(), "pieces and regions nest in each other");
