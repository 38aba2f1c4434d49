//! The names of things. A newtype each, so that a device is never passed where an object is meant.

use data_encoding::HEXLOWER_PERMISSIVE;
use std::fmt;

macro_rules! byte_id {
    ($(#[$meta:meta])* $name:ident, $bytes:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The id whose hexadecimal form is `text` (any case); `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), HEXLOWER_PERMISSIVE.encode(&self.0[..4]))
            }
        }
    };
}

byte_id!(
    /// A keyed BLAKE3 of an object's logical plaintext: the Merkle link.
    Id, 32
);
byte_id!(
    /// SHA-1 of a torrent's bencoded info dictionary (BEP 3).
    InfoHash, 20
);
byte_id!(
    /// BLAKE3 of the first admin public key: what every signature and associated data names.
    DatabaseId, 32
);
byte_id!(
    /// A device's ed25519 public key.
    DeviceId, 32
);
byte_id!(
    /// An ed25519 public key that is not a device's: the admin's, or the DHT key of the record.
    PublicKey, 32
);
byte_id!(
    /// An ed25519 signature (RFC 8032).
    Signature, 64
);
byte_id!(
    /// Sixteen random bytes that tell one life of a block number from the next.
    Birth, 16
);
byte_id!(
    /// One incarnation of a store at one device: the unit of the version vector.
    SessionId, 16
);

/// A block's number; 0 is the root of the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNumber(pub u16);

impl BlockNumber {
    /// The root block.
    pub const ROOT: BlockNumber = BlockNumber(0);
    /// Not a block of the tree: the name under which catalogue, charter and commits are sealed.
    pub const CATALOGUE: BlockNumber = BlockNumber(u16::MAX);

    /// The inode of the block's root directory: number + 1.
    pub fn root_inode(self) -> Inode {
        Inode(u64::from(self.0) + 1)
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An inode number, unique across the blocks of a database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Inode(pub u64);

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a sealed object lies in an image: a run of bytes inside one region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// First byte, counted from the start of the image; below 2^48.
    pub offset: u64,
    /// Sealed length in bytes; below 2^24.
    pub length: u32,
}

impl Place {
    /// Encoded length: offset 6, length 3.
    pub const BYTES: usize = 9;
}

/// An object's id together with its place: enough to open it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Locator {
    /// Where its sealed bytes lie.
    pub place: Place,
    /// What they must open to.
    pub id: Id,
}

impl Locator {
    /// Encoded length: place 9, id 32.
    pub const BYTES: usize = Place::BYTES + Id::BYTES;
}
