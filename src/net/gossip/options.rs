//! How a device takes part, and what it knows of those whom it meets.

use super::neighbours::NeighbourId;
use crate::crypt::Secret;
use std::net::SocketAddr;
use tokio::time::Instant;

/// How to take part.
#[derive(Clone)]
pub struct GossipOptions {
    /// Where to listen; another port is taken if this one is not free.
    pub listen: SocketAddr,
    /// Whether anybody is to be met: without, nobody is dialled or let in.
    pub meets: bool,
    /// Where peers find this device's torrents.
    pub torrent_port: u16,
    /// What all neighbours hold.
    pub secret: Secret,
    /// Bytes a second sent to all neighbours.
    pub limit_up: Option<u32>,
    /// Bytes a second read from all of them.
    pub limit_down: Option<u32>,
}

/// A neighbour, for status and as a source of torrents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The connection.
    pub id: NeighbourId,
    /// Where it serves torrents.
    pub torrents: SocketAddr,
    /// From where it takes part.
    pub gossip: SocketAddr,
    /// Since when.
    pub since: Instant,
}
