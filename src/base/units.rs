//! Units of the image as types; conversions have names.

/// Bytes of an image's region and of a store's slot.
pub const REGION_BYTES: u64 = 1 << 20;

/// A region of an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegionIndex(pub u32);

impl RegionIndex {
    /// The region in which the image's byte `offset` lies.
    pub fn of(offset: u64) -> RegionIndex {
        RegionIndex(u32::try_from(offset / REGION_BYTES).expect("offsets stay below 2^48"))
    }

    /// The image offset of its first byte.
    pub fn start(self) -> u64 {
        u64::from(self.0) * REGION_BYTES
    }
}

/// A slot of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotIndex(pub u32);

/// A piece of a torrent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(pub u32);

/// A torrent's piece length: a power of two between 16 KiB and 16 MiB, kept as its logarithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceLength(u8);

impl PieceLength {
    /// 16 KiB: the smallest that BitTorrent clients handle well (one request block).
    pub const MIN: PieceLength = PieceLength(14);
    /// 64 KiB: smaller pieces halve bulk throughput.
    pub const BULK: PieceLength = PieceLength(16);
    /// 16 MiB.
    pub const MAX: PieceLength = PieceLength(24);
    const BULK_IMAGE_BYTES: u64 = 64 << 20;

    /// A length from its base-two logarithm, if it is allowed.
    pub fn from_log2(log2: u8) -> Option<PieceLength> {
        (Self::MIN.0..=Self::MAX.0).contains(&log2).then_some(PieceLength(log2))
    }

    /// A length from its bytes, if it is an allowed power of two.
    pub fn from_bytes(bytes: u64) -> Option<PieceLength> {
        if !bytes.is_power_of_two() {
            return None;
        }
        Self::from_log2(bytes.trailing_zeros() as u8)
    }

    /// The power of two nearest to the square root of 20 × the image's bytes: what one change costs (a piece) and what
    /// all changes cost (20 bytes of hash a piece) meet there.
    pub fn for_image(bytes: u64) -> PieceLength {
        let ideal = ((bytes.max(1) as f64) * 20.0).sqrt().log2().round();
        let floor = if bytes >= Self::BULK_IMAGE_BYTES { Self::BULK.0 } else { Self::MIN.0 };
        PieceLength((ideal as u8).clamp(floor, Self::MAX.0))
    }

    /// Keeps `self` for an image of `bytes` unless it is off by more than a factor of two.
    pub fn adapted_to(self, bytes: u64) -> PieceLength {
        let ideal = Self::for_image(bytes);
        if ideal.0.abs_diff(self.0) > 1 { ideal } else { self }
    }

    /// Bytes of one piece.
    pub fn bytes(self) -> u64 {
        1 << self.0
    }

    /// Base-two logarithm.
    pub fn log2(self) -> u8 {
        self.0
    }

    /// The piece in which the image's byte `offset` lies.
    pub fn piece_of(self, offset: u64) -> PieceIndex {
        PieceIndex(u32::try_from(offset >> self.0).expect("pieces fit 32 bits"))
    }

    /// The image offset of a piece's first byte.
    pub fn start_of(self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) << self.0
    }

    /// How many pieces an image of `bytes` has.
    pub fn count(self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(self.bytes())).expect("pieces fit 32 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_length_follows_the_square_root() {
        assert_eq!(PieceLength::for_image(1 << 20), PieceLength::MIN);
        assert_eq!(PieceLength::for_image(64 << 20).bytes(), 64 << 10);
        assert_eq!(PieceLength::for_image(1 << 30).bytes(), 128 << 10);
        assert_eq!(PieceLength::for_image(20 << 30).bytes(), 512 << 10);
        assert_eq!(PieceLength::MIN.adapted_to(1 << 30).bytes(), 128 << 10);
        assert_eq!(PieceLength::BULK.adapted_to(1 << 30), PieceLength::BULK);
    }

    #[test]
    fn only_allowed_powers_of_two_are_piece_lengths() {
        assert_eq!(PieceLength::from_bytes(16 << 10), Some(PieceLength::MIN));
        for bad in [0, 1, 8 << 10, 48 << 10, 32 << 20, u64::MAX] {
            assert_eq!(PieceLength::from_bytes(bad), None, "{bad}");
        }
    }
}
