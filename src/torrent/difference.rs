//! Which pieces of a newer version are new.

use crate::base::{PieceHashes, PieceIndex};

/// The pieces of `new` that `old` does not have at the same place, ascending; with another piece length, all of them.
pub fn difference(old: &PieceHashes, new: &PieceHashes) -> Vec<PieceIndex> {
    let pieces = (0..new.hashes.len() as u32).map(PieceIndex);
    let same = |piece: &PieceIndex| {
        old.length == new.length
            && old.bytes_of(*piece) == new.bytes_of(*piece)
            && old.hash_of(*piece) == new.hash_of(*piece)
    };
    pieces.filter(|piece| !same(piece)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::PieceLength;

    fn hashes(log2: u8, image_bytes: u64, names: &[u8]) -> PieceHashes {
        let length = PieceLength::from_log2(log2).unwrap();
        PieceHashes { length, image_bytes, hashes: names.iter().map(|name| [*name; 20]).collect() }
    }

    #[test]
    fn changed_added_and_rescaled_pieces_differ() {
        let old = hashes(20, 3 << 20, &[1, 2, 3]);
        assert_eq!(difference(&old, &old), []);
        assert_eq!(difference(&old, &hashes(20, 4 << 20, &[1, 9, 3, 4])), [PieceIndex(1), PieceIndex(3)]);
        assert_eq!(difference(&old, &hashes(20, 1 << 20, &[1])), []);
        assert_eq!(difference(&old, &hashes(19, 1 << 20, &[1, 2])), [PieceIndex(0), PieceIndex(1)]);
        // The same hash under another length cannot be; it is not taken for the same piece either.
        assert_eq!(difference(&hashes(21, 3 << 20, &[1, 2]), &hashes(21, 4 << 20, &[1, 2])), [PieceIndex(1)]);
    }
}
