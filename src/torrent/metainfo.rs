//! The info dictionary of a database's torrent: one file named `database`, and nothing else.

use super::bencode::{Bencoded, write_integer, write_string};
use crate::base::{InfoHash, PieceHash, PieceHashes, PieceLength, REGION_BYTES};
use sha1::{Digest, Sha1};

/// Largest metainfo that is looked at: 8 MiB are the hashes of 419,000 pieces.
pub const METAINFO_BYTES_MAX: usize = 8 << 20;

const NAME: &[u8] = b"database";
const HASH_BYTES: usize = 20;

/// What a receiver puts up with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest metainfo in bytes.
    pub metainfo_bytes_max: usize,
    /// Largest image in bytes.
    pub image_bytes_max: u64,
}

/// Why a metainfo is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// More bytes than are looked at.
    #[error("the metainfo has {bytes} bytes and the limit is {max}: another version is tried")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes are not the one encoding of a database's torrent.
    #[error("the metainfo is not that of a database ({0}): another version is tried")]
    NotOurs(&'static str),
    /// The image is larger than the receiver takes.
    #[error(
        "the image has {bytes} bytes and the limit is {max}: raise the limit or free some space to take it"
    )]
    ImageTooLarge {
        /// Its bytes.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The piece length does not suit the image.
    #[error("pieces of {bytes} bytes do not suit an image of {image_bytes}: another version is tried")]
    PieceLength {
        /// Bytes of a piece.
        bytes: u64,
        /// Bytes of the image.
        image_bytes: u64,
    },
}

/// The metainfo of one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    /// Everything in it that varies.
    pub hashes: PieceHashes,
}

impl Metainfo {
    /// The bencoded info dictionary.
    pub fn info_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(100 + self.hashes.hashes.len() * HASH_BYTES);
        out.push(b'd');
        write_string(&mut out, b"length");
        write_integer(&mut out, self.hashes.image_bytes);
        write_string(&mut out, b"name");
        write_string(&mut out, NAME);
        write_string(&mut out, b"piece length");
        write_integer(&mut out, self.hashes.length.bytes());
        write_string(&mut out, b"pieces");
        write_string(&mut out, self.hashes.hashes.as_flattened());
        out.push(b'e');
        out
    }

    /// SHA-1 of the info dictionary (BEP 3).
    pub fn infohash(&self) -> InfoHash {
        InfoHash(Sha1::digest(self.info_bytes()).into())
    }

    /// A torrent file with nothing but the info dictionary.
    pub fn torrent_bytes(&self) -> Vec<u8> {
        let mut out = b"d".to_vec();
        write_string(&mut out, b"info");
        out.extend_from_slice(&self.info_bytes());
        out.push(b'e');
        out
    }

    /// Parses an info dictionary, or a torrent file around one (whose other keys are skipped). The dictionary must be
    /// byte for byte what [`Metainfo::info_bytes`] would make, of an image and piece length that the limits and the
    /// rule for piece lengths allow.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Metainfo, MetainfoError> {
        if bytes.len() > limits.metainfo_bytes_max {
            return Err(MetainfoError::TooLarge { bytes: bytes.len(), max: limits.metainfo_bytes_max });
        }
        let info = if bytes.starts_with(b"d6:length") {
            bytes
        } else {
            find_info(bytes).ok_or(MetainfoError::NotOurs("no info dictionary in it"))?
        };
        let (image_bytes, piece_bytes, pieces) =
            read_info(info).ok_or(MetainfoError::NotOurs("its keys are not the four of a single file"))?;
        if image_bytes == 0 || image_bytes % REGION_BYTES != 0 {
            return Err(MetainfoError::NotOurs("its length is no multiple of a region"));
        }
        if image_bytes > limits.image_bytes_max {
            return Err(MetainfoError::ImageTooLarge { bytes: image_bytes, max: limits.image_bytes_max });
        }
        let length = PieceLength::from_bytes(piece_bytes)
            .filter(|length| length.adapted_to(image_bytes) == *length)
            .ok_or(MetainfoError::PieceLength { bytes: piece_bytes, image_bytes })?;
        if pieces.len() as u64 != image_bytes.div_ceil(piece_bytes) {
            return Err(MetainfoError::NotOurs("it has another number of pieces than its length asks for"));
        }
        Ok(Metainfo { hashes: PieceHashes { length, image_bytes, hashes: pieces.to_vec() } })
    }
}

/// The info dictionary inside a torrent file.
fn find_info(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Bencoded(bytes);
    reader.token(b'd')?;
    let mut info = None;
    while reader.0.first()? != &b'e' {
        let key = reader.string()?;
        let value = reader.value()?;
        if key == b"info" && info.replace(value).is_some() {
            return None;
        }
    }
    reader.token(b'e')?;
    if reader.0.is_empty() { info } else { None }
}

/// Length, piece length and piece hashes of an info dictionary with exactly our keys.
fn read_info(info: &[u8]) -> Option<(u64, u64, &[PieceHash])> {
    let mut reader = Bencoded(info);
    let key = |reader: &mut Bencoded<'_>, name: &[u8]| (reader.string()? == name).then_some(());
    reader.token(b'd')?;
    key(&mut reader, b"length")?;
    let image_bytes = reader.integer()?;
    key(&mut reader, b"name")?;
    key(&mut reader, NAME)?;
    key(&mut reader, b"piece length")?;
    let piece_bytes = reader.integer()?;
    key(&mut reader, b"pieces")?;
    let (pieces, rest) = reader.string()?.as_chunks::<HASH_BYTES>();
    reader.token(b'e')?;
    (rest.is_empty() && reader.0.is_empty()).then_some((image_bytes, piece_bytes, pieces))
}

#[cfg(test)]
#[path = "metainfo_tests.rs"]
mod tests;
