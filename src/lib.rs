//! kilofs: shared folders that need no server and no account.
//!
//! The floors, each of which may use those below it and nothing else:
//!
//! | floor | modules |
//! |---|---|
//! | 6 | [`cli`] |
//! | 5 | [`daemon`] |
//! | 4 | [`fuse`], [`share`], [`net`] |
//! | 3 | [`tree`], [`sync`] |
//! | 2 | [`map`], [`record`], [`image`], [`torrent`] |
//! | 1 | [`crypt`] |
//! | 0 | [`base`] |

pub mod base;
pub mod cli;
pub mod crypt;
pub mod daemon;
pub mod fuse;
pub mod image;
pub mod map;
pub mod net;
pub mod record;
pub mod share;
pub mod sync;
pub mod torrent;
pub mod tree;
