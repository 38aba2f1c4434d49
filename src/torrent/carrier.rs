//! A torrent that is its own content: the info dictionary carries the bytes under a key of ours, and the one file that it
//! describes is a single zero. Whoever asks peers for the metainfo (BEP 9) has everything.

use super::bencode::{Bencoded, write_integer, write_string};
use crate::base::InfoHash;
use sha1::{Digest, Sha1};

/// The content of the file.
pub const CARRIER_FILE: [u8; 1] = [0];
/// Bytes of its only piece: the least that clients take.
pub const CARRIER_PIECE_BYTES: u64 = 16 << 10;

const KEY: &[u8] = b"kilofs";
const NAME: &[u8] = b"announcement";

/// The bencoded info dictionary that carries `content`.
pub fn carrier_info(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 128);
    out.push(b'd');
    write_string(&mut out, KEY);
    write_string(&mut out, content);
    write_string(&mut out, b"length");
    write_integer(&mut out, CARRIER_FILE.len() as u64);
    write_string(&mut out, b"name");
    write_string(&mut out, NAME);
    write_string(&mut out, b"piece length");
    write_integer(&mut out, CARRIER_PIECE_BYTES);
    write_string(&mut out, b"pieces");
    write_string(&mut out, &Sha1::digest(CARRIER_FILE));
    out.push(b'e');
    out
}

/// What an info dictionary carries; none for any but the one form that [`carrier_info`] makes.
pub fn carried(info: &[u8]) -> Option<&[u8]> {
    let mut reader = Bencoded(info);
    reader.token(b'd')?;
    let content = (reader.string()? == KEY).then(|| reader.string()).flatten()?;
    (carrier_info(content) == info).then_some(content)
}

/// The infohash of an info dictionary (BEP 3).
pub fn infohash_of(info: &[u8]) -> InfoHash {
    InfoHash(Sha1::digest(info).into())
}

/// A torrent file with nothing but an info dictionary.
pub fn torrent_of(info: &[u8]) -> Vec<u8> {
    let mut out = b"d".to_vec();
    write_string(&mut out, b"info");
    out.extend_from_slice(info);
    out.push(b'e');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_has_one_form() {
        for content in [&b""[..], b"x", &[7; 5000]] {
            let info = carrier_info(content);
            assert_eq!(carried(&info), Some(content));
            for length in 0..info.len() {
                assert_eq!(carried(&info[..length]), None);
            }
            assert_eq!(carried(&[&info[..], b"e"].concat()), None);
        }
        let info = carrier_info(b"keys");
        for bit in 0..info.len() * 8 {
            let mut changed = info.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(carried(&changed), Some(&b"keys"[..]), "bit {bit}");
        }
    }
}
