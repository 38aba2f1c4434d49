//! The lower floors of kilofs, without those that bring FUSE and the network along.

#[path = "../../src/base/mod.rs"]
pub mod base;
#[path = "../../src/crypt/mod.rs"]
pub mod crypt;
#[path = "../../src/image/mod.rs"]
pub mod image;
#[path = "../../src/map/mod.rs"]
pub mod map;
#[path = "../../src/net/gossip/message.rs"]
pub mod message;
/// Of the network, what reads messages.
pub mod net {
    /// See `kilofs::net::gossip`.
    pub mod gossip {
        pub use crate::message::{Delta, Message, News, Pieces, Run};
    }
}
#[path = "../../src/record/mod.rs"]
pub mod record;
#[path = "../../src/torrent/mod.rs"]
pub mod torrent;
#[path = "../../src/tree/mod.rs"]
pub mod tree;
