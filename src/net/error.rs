//! What can go wrong between this device and the network.

use crate::base::InfoHash;
use std::{error::Error, io, net::SocketAddr, path::PathBuf};

/// A failure of the DHT, of the swarm, or of the machine below them.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The socket could not be had.
    #[error(
        "cannot listen on {address}; `--listen` names another address and port, port 0 takes any that is free"
    )]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No DHT node answered in time: offline, firewalled, or the bootstrap nodes are gone.
    #[error("no DHT node answers; check the network connection and the bootstrap nodes")]
    Unreachable,
    /// The DHT holds a newer item than the one that this put was based on: read it, merge, put again.
    #[error("somebody else has published meanwhile")]
    Superseded,
    /// An item that the DHT would not store.
    #[error("an item of {0} bytes is too large for the DHT")]
    ItemTooLarge(usize),
    /// Nobody delivered anything for as long as the caller was willing to wait.
    #[error("no peer delivers torrent {0}")]
    NoSource(InfoHash),
    /// The same torrent is being fetched by another task.
    #[error("torrent {0} is already being fetched")]
    Busy(InfoHash),
    /// The swarm has been stopped.
    #[error("the swarm has been stopped")]
    Stopped,
    /// The folder that the session keeps its bitfields in does not work.
    #[error("cannot use {path}")]
    Folder {
        /// The folder or the file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Bytes that arrived could not be stored.
    #[error("cannot store what torrent {infohash} delivered")]
    Storage {
        /// The torrent that was being fetched.
        infohash: InfoHash,
        /// What the store said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The torrent engine refused.
    #[error("the torrent engine failed at {what}")]
    Engine {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}
