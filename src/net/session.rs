//! How a session of the torrent engine is set up, and what it keeps on disk.

use librqbit::limits::LimitsConfig;
use librqbit::{
    ConnectionOptions, ListenerMode, ListenerOptions, PeerConnectionOptions, SessionOptions,
    SessionPersistenceConfig,
};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PEERS_A_TORRENT_MAX: usize = 128;
/// One request of BitTorrent: a rate limit below it would never let one through.
const REQUEST_BYTES: u32 = 16 << 10;
/// Connecting to a host that is there takes far less; those that are gone should not hold a place for long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the 120 s between keep-alives, or peers that wait for a piece would lose each other.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);

/// How a swarm listens and how much it may transfer.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// The TCP address for peers; port 0 for any.
    pub listen: SocketAddr,
    /// A folder of its own for what the session wants on disk. Nothing in it outlives a start, and the session syncs
    /// small files there often: memory (a runtime directory) serves best.
    pub folder: PathBuf,
    /// Peers connected at once for one torrent.
    pub peers_max: usize,
    /// Bytes of payload a second sent at most; no limit below a request's 16 KiB is possible.
    pub upload_bytes_a_second_max: Option<u32>,
    /// Bytes of payload a second fetched at most; as above.
    pub download_bytes_a_second_max: Option<u32>,
}

impl SwarmOptions {
    /// Options without limits of speed.
    pub fn new(listen: SocketAddr, folder: PathBuf) -> SwarmOptions {
        let (upload_bytes_a_second_max, download_bytes_a_second_max) = (None, None);
        SwarmOptions {
            listen,
            folder,
            peers_max: PEERS_A_TORRENT_MAX,
            upload_bytes_a_second_max,
            download_bytes_a_second_max,
        }
    }
}

/// A limit of rate as the session takes it.
pub(super) fn rate(bytes_a_second: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(bytes_a_second.max(REQUEST_BYTES))
}

/// The session's options: no DHT, trackers, multicast or uTP of its own.
pub(super) fn session_options(options: &SwarmOptions) -> SessionOptions {
    let limit = |bytes: Option<u32>| bytes.and_then(rate);
    SessionOptions {
        dht: None,
        disable_trackers: true,
        disable_local_service_discovery: true,
        // Together these make it read the bitfield that we write; what it writes itself is cleared at the next start.
        fastresume: true,
        persistence: Some(SessionPersistenceConfig::Json { folder: Some(options.folder.clone()) }),
        listen: Some(ListenerOptions {
            // uTP stalls for seconds at times.
            mode: ListenerMode::TcpOnly,
            listen_addr: options.listen,
            ipv4_only: options.listen.is_ipv4(),
            ..ListenerOptions::default()
        }),
        connect: Some(ConnectionOptions {
            peer_opts: Some(PeerConnectionOptions {
                connect_timeout: Some(CONNECT_TIMEOUT),
                read_write_timeout: Some(IDLE_TIMEOUT),
                ..PeerConnectionOptions::default()
            }),
            ..ConnectionOptions::default()
        }),
        ratelimits: LimitsConfig {
            upload_bps: limit(options.upload_bytes_a_second_max),
            download_bps: limit(options.download_bytes_a_second_max),
        },
        // Peers of the other family may be named by hand or by neighbours: they are dialled all the same.
        ipv4_only: false,
        peer_limit: Some(options.peers_max),
        client_name_and_version: Some(format!("kilofs {}", env!("CARGO_PKG_VERSION"))),
        ..SessionOptions::default()
    }
}

/// Makes the folder and removes what an earlier session left: it would add its torrents again, over no storage.
pub(super) fn clear(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let ours = ["json", "bitv", "torrent", "tmp"];
        if path.extension().is_some_and(|extension| ours.iter().any(|own| extension == *own)) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A bit a piece, the first piece in the highest bit of the first byte (BEP 3).
pub(super) fn bitfield(have: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| {
        eight.iter().enumerate().fold(0, |byte, (i, have)| byte | u8::from(*have) << (7 - i))
    };
    have.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitfields_begin_with_the_highest_bit() {
        assert_eq!(bitfield(&[true, false, false, false, false, false, false, true, true]), [0x81, 0x80]);
        assert!(bitfield(&[]).is_empty());
    }
}
