//! What a torrent knows of an image: its length and the SHA-1 of each piece.

use super::{PieceIndex, PieceLength};

/// SHA-1 of one piece (BEP 3).
pub type PieceHash = [u8; 20];

/// The piece hashes of one image, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceHashes {
    /// Length of every piece but a shorter last one.
    pub length: PieceLength,
    /// Bytes of the image, a multiple of the region.
    pub image_bytes: u64,
    /// One hash a piece.
    pub hashes: Vec<PieceHash>,
}

impl PieceHashes {
    /// Bytes of one piece: the length, or what is left for the last.
    pub fn bytes_of(&self, piece: PieceIndex) -> u64 {
        let start = self.length.start_of(piece);
        self.length.bytes().min(self.image_bytes.saturating_sub(start))
    }

    /// The hash of a piece, if the image has it.
    pub fn hash_of(&self, piece: PieceIndex) -> Option<&PieceHash> {
        self.hashes.get(piece.0 as usize)
    }
}
