//! Floor 0: ids and units as types, and the one little-endian codec that every format uses.

pub mod codec;
pub mod ids;
pub mod pieces;
pub mod shown;
pub mod units;

pub use codec::{Malformed, Reader, Writer};
pub use ids::{
    Birth, BlockNumber, DatabaseId, DeviceId, Id, InfoHash, Inode, Locator, Place, PublicKey, SessionId,
    Signature,
};
pub use pieces::{PieceHash, PieceHashes};
pub use shown::{is_active, shown};
pub use units::{PieceIndex, PieceLength, REGION_BYTES, RegionIndex, SlotIndex};
