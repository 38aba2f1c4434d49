//! Floor 2: the metainfo of an image, made from piece hashes alone, and what differs between two.

mod bencode;
mod difference;
mod metainfo;

pub use difference::difference;
pub use metainfo::{Limits, METAINFO_BYTES_MAX, Metainfo, MetainfoError};
