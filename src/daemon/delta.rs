//! The difference of two versions, as news carry it: made of hashes that are known already and of bytes that were appended,
//! laid over what is here. Whether it leads to the version that it names is seen by the infohash and piece by piece.

use super::core::Core;
use super::error::EngineError;
use super::publish::Made;
use super::versions::Version as KeptVersion;
use crate::base::{InfoHash, PieceHashes, PieceIndex};
use crate::image::{Image, Incoming, StoreError, zero_piece_hash};
use crate::net::gossip::{Delta, NEWS_BYTES_MAX, PIECES_MAX};
use crate::torrent::{Metainfo, difference};
use std::ops::Range;
use std::sync::Arc;

/// How many runs of bytes a difference is made of at most.
const SPANS_MAX: usize = 10_000;

/// A version that news brought.
pub(super) struct Arrival {
    pub metainfo: Metainfo,
    pub incoming: Arc<Incoming>,
}

impl Core {
    /// The difference of a version that was just made to the one before it; none where it is too large to be told.
    pub(super) fn delta_of(&self, made: &Made, base: &KeptVersion) -> Result<Option<Delta>, EngineError> {
        let old = self.hashes_of(base)?;
        self.delta(made.reference.infohash, &made.metainfo.hashes, &made.image, (base, &old), NEWS_BYTES_MAX)
    }

    /// The difference of two versions, with the bytes that changed where those are no more than `bytes_max`.
    pub(super) fn delta(
        &self,
        infohash: InfoHash,
        new: &PieceHashes,
        image: &Image,
        (base, old): (&KeptVersion, &PieceHashes),
        bytes_max: usize,
    ) -> Result<Option<Delta>, EngineError> {
        if new.length != old.length {
            return Ok(None);
        }
        let changed = difference(old, new);
        if changed.len() > PIECES_MAX {
            return Ok(None);
        }
        // Everybody has zeros: a region that was emptied costs its hashes only.
        let zeros = zero_piece_hash(new.length);
        let telling: Vec<PieceIndex> =
            changed.iter().copied().filter(|piece| new.hash_of(*piece) != Some(&zeros)).collect();
        let spans = changed_bytes(new, &telling, image.changed_since(&base.image));
        let bytes: u64 = spans.iter().map(|span| span.end - span.start).sum();
        let mut carried = Vec::new();
        if bytes <= bytes_max as u64 && spans.len() <= SPANS_MAX {
            for span in spans {
                let mut bytes = vec![0; (span.end - span.start) as usize];
                match self.store.read(image, span.start, &mut bytes) {
                    // What is not here cannot be told: the hashes alone do it.
                    Err(StoreError::NotHere { .. }) => {
                        carried.clear();
                        break;
                    }
                    outcome => outcome?,
                }
                carried.push((span.start, bytes));
            }
        }
        let hash = |piece: PieceIndex| Some((piece, *new.hash_of(piece)?));
        Ok(Some(Delta {
            base: base.reference.infohash,
            infohash,
            image_bytes: new.image_bytes,
            length: new.length,
            pieces: changed.into_iter().filter_map(hash).collect(),
            spans: carried,
        }))
    }

    /// Lays a difference over the version that it is to. None where that is not here, or where it does not lead to the
    /// version that it names.
    pub(super) fn lay(&self, delta: &Delta, limit: u64) -> Result<Option<Arrival>, EngineError> {
        let Some(base) = self.inner().versions.get(&delta.base).cloned() else { return Ok(None) };
        if delta.image_bytes > limit {
            return Ok(None);
        }
        let mut hashes = self.hashes_of(&base)?;
        let old = hashes.clone();
        let count = delta.length.count(delta.image_bytes) as usize;
        if hashes.length != delta.length || count > hashes.hashes.len() + delta.pieces.len() {
            return Ok(None);
        }
        hashes.image_bytes = delta.image_bytes;
        hashes.hashes.resize(count, [0; 20]);
        for (piece, hash) in &delta.pieces {
            let Some(slot) = hashes.hashes.get_mut(piece.0 as usize) else { return Ok(None) };
            *slot = *hash;
        }
        let metainfo = Metainfo { hashes };
        if metainfo.infohash() != delta.infohash {
            return Ok(None);
        }
        let incoming = self.store.incoming(metainfo.hashes.clone(), &[(base.image, old)])?;
        // All others are what the base shows, here or not.
        for piece in delta.pieces.iter().map(|(piece, _)| *piece).filter(|piece| !incoming.has(*piece)) {
            let start = delta.length.start_of(piece);
            let mut bytes = match incoming.basis(piece) {
                Err(StoreError::NotHere { .. }) => continue,
                basis => basis?,
            };
            overlay(&mut bytes, start, &delta.spans);
            // One that does not fit is fetched.
            let _ = incoming.accept(piece, &bytes);
        }
        Ok(Some(Arrival { metainfo, incoming: Arc::new(incoming) }))
    }
}

/// The parts of `ranges` that lie in pieces which differ.
fn changed_bytes(new: &PieceHashes, changed: &[PieceIndex], ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    let mut pieces = changed.iter().copied().peekable();
    for range in ranges {
        while let Some(piece) = pieces.peek().copied() {
            let start = new.length.start_of(piece);
            let end = start + new.bytes_of(piece);
            let (from, to) = (start.max(range.start), end.min(range.end));
            if from < to {
                match spans.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => spans.push(from..to),
                }
            }
            if end > range.end {
                break;
            }
            pieces.next();
        }
    }
    spans
}

/// Writes what of `spans` lies in the piece that begins at `start`.
fn overlay(piece: &mut [u8], start: u64, spans: &[(u64, Vec<u8>)]) {
    let end = start + piece.len() as u64;
    let first = spans.partition_point(|(offset, bytes)| offset + bytes.len() as u64 <= start);
    for (offset, bytes) in spans[first..].iter().take_while(|(offset, _)| *offset < end) {
        let (from, to) = ((*offset).max(start), (offset + bytes.len() as u64).min(end));
        let content = &bytes[(from - offset) as usize..(to - offset) as usize];
        piece[(from - start) as usize..(to - start) as usize].copy_from_slice(content);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use super::*;
    use crate::base::PieceLength;

    #[test]
    fn only_bytes_of_pieces_that_differ_are_carried() {
        let hashes = PieceHashes {
            length: PieceLength::from_log2(16).unwrap(),
            image_bytes: 1 << 20,
            hashes: vec![[0; 20]; 16],
        };
        let changed = [1, 2, 5].map(PieceIndex);
        let spans = changed_bytes(&hashes, &changed, vec![70_000..80_000, 100_000..400_000]);
        assert_eq!(spans, [70_000..80_000, 100_000..196_608, 327_680..393_216]);
        assert_eq!(changed_bytes(&hashes, &changed, vec![0..65_536]), []);
        assert_eq!(changed_bytes(&hashes, &changed, vec![0..1 << 20]), [65_536..196_608, 327_680..393_216]);
    }

    #[test]
    fn spans_are_laid_over_the_pieces_that_they_touch() {
        let spans = vec![(5, vec![1; 10]), (20, vec![2; 4]), (30, vec![3; 10])];
        let mut piece = vec![0; 12];
        overlay(&mut piece, 10, &spans);
        assert_eq!(piece, [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2]);
        overlay(&mut piece, 28, &spans);
        assert_eq!(piece[2..], [3; 10]);
    }
}
