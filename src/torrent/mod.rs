//! Floor 2: the metainfo of an image, made from piece hashes alone, and what differs between two; and torrents
//! that carry a message.

mod bencode;
mod carrier;
mod difference;
mod metainfo;

pub use carrier::{CARRIER_FILE, CARRIER_PIECE_BYTES, carried, carrier_info, infohash_of, torrent_of};
pub use difference::difference;
pub use metainfo::{Limits, METAINFO_BYTES_MAX, Metainfo, MetainfoError};
