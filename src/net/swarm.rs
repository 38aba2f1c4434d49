//! One `librqbit` session: seeds images, and finds metainfo by infohash alone. Fetching is in [`super::fetch`].

use super::NetError;
use super::fetch::Sources;
use super::nodelay::Nodelay;
use super::session::{SwarmOptions, bitfield, clear, rate, session_options};
use super::storage::{Content, Served};
use crate::base::InfoHash;
use crate::image::{Image, Store};
use crate::torrent::Metainfo;
use librqbit::api::TorrentIdOrHash;
use librqbit::{
    AddTorrent, AddTorrentOptions, AddTorrentResponse, ManagedTorrent, ManagedTorrentState,
    PeerConnectionOptions, Session,
};
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

/// Bytes that went over the wire since the start, without protocol overhead.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Bytes of pieces that arrived, the useless ones too.
    pub payload_fetched: u64,
    /// Bytes of pieces sent.
    pub payload_sent: u64,
    /// Bytes of info dictionaries that arrived. (Those sent are not visible from outside `librqbit`.)
    pub metainfo_fetched: u64,
}

impl Traffic {
    /// Everything that arrived.
    pub fn fetched(&self) -> u64 {
        self.payload_fetched + self.metainfo_fetched
    }
}

/// A peer that is asked for metainfo has nothing to wait for.
const METAINFO_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a torrent whose bitfield is known may take to become live: a few pieces are read.
const LIVE_DEADLINE: Duration = Duration::from_secs(10);
const LIVE_PAUSE: Duration = Duration::from_micros(300);
const METAINFO_RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const METAINFO_RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// One session of the torrent engine; clones share it, and it ends with the last. Needs a multi-threaded runtime.
#[derive(Clone)]
pub struct Swarm(pub(super) Arc<Inner>);

pub(super) struct Inner {
    session: Arc<Session>,
    folder: PathBuf,
    listen: SocketAddr,
    peers_max: usize,
    nodelay: Nodelay,
    torrents: Mutex<HashMap<InfoHash, Torrent>>,
    fetches: Mutex<HashMap<InfoHash, Arc<Sources>>>,
    /// Adding and deleting, one at a time: each takes milliseconds, and `librqbit` gives two additions the same id.
    changing: tokio::sync::Mutex<()>,
    next_life: AtomicUsize,
    metainfo_fetched: AtomicU64,
}

/// One life of a torrent in the session: every addition is a new one.
#[derive(Clone)]
pub(super) struct Torrent {
    /// Also the session's id.
    pub(super) life: usize,
    pub(super) handle: Arc<ManagedTorrent>,
    pub(super) served: Arc<Served>,
}

impl Swarm {
    /// Starts a session that listens and does nothing else.
    pub async fn start(options: SwarmOptions) -> Result<Swarm, NetError> {
        clear(&options.folder).map_err(|source| NetError::Folder { path: options.folder.clone(), source })?;
        // Only to tell an address that is taken from other failures.
        let listener = std::net::TcpListener::bind(options.listen);
        drop(listener.map_err(|source| NetError::Bind { address: options.listen, source })?);
        let session = Session::new_with_opts(options.folder.clone(), session_options(&options))
            .await
            .map_err(|source| NetError::Engine { what: "starting", source: source.into() })?;
        let inner = Inner {
            listen: session.listen_addr().unwrap_or(options.listen),
            session,
            folder: options.folder,
            peers_max: options.peers_max,
            nodelay: Nodelay::start(),
            torrents: Mutex::default(),
            fetches: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            next_life: AtomicUsize::new(0),
            metainfo_fetched: AtomicU64::new(0),
        };
        Ok(Swarm(Arc::new(inner)))
    }

    /// The TCP port that peers connect to: the one to announce.
    pub fn port(&self) -> u16 {
        self.0.listen.port()
    }

    /// Serves what is here of a version, and fetches nothing; returns when peers that connect will be served. A torrent
    /// that has just been fetched goes on without interruption and takes its bytes from the image. Of a version that is
    /// here in part only the pieces are offered that are here now.
    pub async fn seed(&self, metainfo: &Metainfo, store: &Arc<Store>, image: &Image) -> Result<(), NetError> {
        let content = Content::Image(store.clone(), image.clone());
        let infohash = metainfo.infohash();
        if let Some(torrent) = self.0.torrent(infohash) {
            if torrent.served.progress().borrow().complete {
                torrent.served.replace(content);
                return Ok(());
            }
            self.0.end(infohash, Some(torrent.life)).await;
        }
        let have = store.have(image, metainfo.hashes.length);
        let served = Served::new(metainfo, content);
        let torrent = self.0.add(infohash, metainfo.torrent_bytes(), served, &have, Wanting::Nothing).await?;
        torrent.until_live().await
    }

    /// Serves a torrent file of one piece, and with it its info dictionary, to whoever asks.
    pub async fn carry(&self, infohash: InfoHash, torrent: Vec<u8>, file: &[u8]) -> Result<(), NetError> {
        if self.0.torrent(infohash).is_some() {
            return Ok(());
        }
        let served = Served::fixed(file.to_vec());
        self.0.add(infohash, torrent, served, &[true], Wanting::Nothing).await?.until_live().await
    }

    /// The bencoded info dictionary of `infohash`, from whichever of `peers` delivers it first. It hashes to the
    /// infohash; whether it is one of ours is for the caller to check. Refused connections are tried again.
    pub async fn metainfo(
        &self,
        infohash: InfoHash,
        peers: &[SocketAddr],
        deadline: Duration,
    ) -> Result<Vec<u8>, NetError> {
        let end = Instant::now() + deadline;
        let mut pause = METAINFO_RETRY_PAUSE_MIN;
        while !peers.is_empty() && Instant::now() < end {
            let add = self.0.session.add_torrent(
                AddTorrent::from_url(format!("magnet:?xt=urn:btih:{infohash}")),
                Some(AddTorrentOptions {
                    list_only: true,
                    initial_peers: Some(peers.to_vec()),
                    peer_opts: Some(PeerConnectionOptions {
                        read_write_timeout: Some(METAINFO_IDLE_TIMEOUT),
                        ..PeerConnectionOptions::default()
                    }),
                    ..AddTorrentOptions::default()
                }),
            );
            self.0.nodelay.opened();
            match timeout_at(end, add).await {
                Ok(Ok(AddTorrentResponse::ListOnly(listed))) => {
                    if let Some(info) = info_of(&listed.torrent_bytes, infohash) {
                        self.0.metainfo_fetched.fetch_add(info.len() as u64, Ordering::Relaxed);
                        return Ok(info.to_vec());
                    }
                    return Err(NetError::NoSource(infohash));
                }
                Ok(Ok(_)) | Err(_) => break,
                Ok(Err(failure)) => debug!(%infohash, %failure, "no metainfo yet"),
            }
            sleep(pause.min(end - Instant::now().min(end))).await;
            pause = (pause * 2).min(METAINFO_RETRY_PAUSE_MAX);
        }
        Err(NetError::NoSource(infohash))
    }

    /// Stops serving or fetching a torrent; nothing happens if there is none.
    pub async fn remove(&self, infohash: InfoHash) {
        self.0.end(infohash, None).await;
    }

    /// Limits what is sent, in bytes a second.
    pub fn limit_up(&self, bytes_a_second: u32) {
        self.0.session.ratelimits.set_upload_bps(rate(bytes_a_second));
    }

    /// Limits what is fetched, in bytes a second.
    pub fn limit_down(&self, bytes_a_second: u32) {
        self.0.session.ratelimits.set_download_bps(rate(bytes_a_second));
    }

    /// What has been transferred.
    pub fn traffic(&self) -> Traffic {
        let counters = self.0.session.stats_snapshot().counters;
        Traffic {
            payload_fetched: counters.fetched_bytes,
            payload_sent: counters.uploaded_bytes,
            metainfo_fetched: self.0.metainfo_fetched.load(Ordering::Relaxed),
        }
    }

    /// How many peers of a torrent are connected.
    pub fn peers(&self, infohash: InfoHash) -> usize {
        self.0.torrent(infohash).map_or(0, |torrent| torrent.peer_counts().live)
    }

    /// What is being served or fetched.
    pub fn torrents(&self) -> Vec<InfoHash> {
        self.0.torrents.lock().keys().copied().collect()
    }

    /// Ends the session: no connection and no task is left shortly after.
    pub async fn stop(&self) {
        for infohash in self.torrents() {
            self.remove(infohash).await;
        }
        self.0.session.cancellation_token().cancel();
    }
}

/// What a torrent is added for.
pub(super) enum Wanting {
    /// All that is missing, from these peers.
    All(Vec<SocketAddr>),
    /// Nothing: what is there is served. No file is selected, so that the session asks for no piece.
    Nothing,
}

/// Peers of one torrent by what they are at.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct PeerCounts {
    pub(super) live: usize,
    /// Being connected, or about to be.
    pub(super) coming: usize,
    /// Bytes of pieces that arrived in this life of the torrent.
    pub(super) fetched: u64,
}

impl Torrent {
    pub(super) fn peer_counts(&self) -> PeerCounts {
        let Some(live) = self.handle.live() else { return PeerCounts { coming: 1, ..PeerCounts::default() } };
        let stats = live.stats_snapshot();
        PeerCounts {
            live: stats.peer_stats.live as usize,
            coming: (stats.peer_stats.queued + stats.peer_stats.connecting) as usize,
            fetched: stats.fetched_bytes,
        }
    }

    /// What stopped the torrent, if it is stopped.
    pub(super) fn failure(&self) -> Option<String> {
        self.handle.with_state(|state| match state {
            ManagedTorrentState::Error(error) => Some(format!("{error:#}")),
            _ => None,
        })
    }

    async fn until_live(&self) -> Result<(), NetError> {
        // The session's own wait may sleep through the change for 100 ms.
        let live = async {
            while self.handle.live().is_none() {
                if let Some(failure) = self.failure() {
                    return Err(NetError::Engine { what: "seeding", source: failure.into() });
                }
                sleep(LIVE_PAUSE).await;
            }
            Ok(())
        };
        match timeout(LIVE_DEADLINE, live).await {
            Ok(result) => result,
            Err(late) => Err(NetError::Engine { what: "seeding", source: late.into() }),
        }
    }
}

impl Inner {
    pub(super) fn torrent(&self, infohash: InfoHash) -> Option<Torrent> {
        self.torrents.lock().get(&infohash).cloned()
    }

    /// Registers the one fetch of a torrent; `None` if there is one.
    pub(super) fn begin(&self, infohash: InfoHash) -> Option<Arc<Sources>> {
        match self.fetches.lock().entry(infohash) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => Some(entry.insert(Arc::default()).clone()),
        }
    }

    pub(super) fn sources(&self, infohash: InfoHash) -> Option<Arc<Sources>> {
        self.fetches.lock().get(&infohash).cloned()
    }

    pub(super) fn finish(&self, infohash: InfoHash) {
        self.fetches.lock().remove(&infohash);
    }

    /// Adds a torrent of which exactly the pieces in `have` are there; the session believes it without checking.
    pub(super) async fn add(
        &self,
        infohash: InfoHash,
        torrent: Vec<u8>,
        served: Arc<Served>,
        have: &[bool],
        wanting: Wanting,
    ) -> Result<Torrent, NetError> {
        let _changing = self.changing.lock().await;
        let path = self.folder.join(format!("{infohash}.bitv"));
        std::fs::write(&path, bitfield(have)).map_err(|source| NetError::Folder { path, source })?;
        let life = self.next_life.fetch_add(1, Ordering::Relaxed);
        let (peers, files) = match wanting {
            Wanting::All(peers) => (peers, None),
            Wanting::Nothing => (Vec::new(), Some(Vec::new())),
        };
        let options = AddTorrentOptions {
            overwrite: true,
            initial_peers: Some(peers),
            only_files: files,
            peer_limit: Some(self.peers_max),
            preferred_id: Some(life),
            storage_factory: Some(served.factory()),
            ..AddTorrentOptions::default()
        };
        let added = self.session.add_torrent(AddTorrent::from_bytes(torrent), Some(options)).await;
        self.nodelay.opened();
        match added {
            Ok(AddTorrentResponse::Added(_, handle)) => {
                let torrent = Torrent { life, handle, served };
                self.torrents.lock().insert(infohash, torrent.clone());
                Ok(torrent)
            }
            Ok(_) => Err(NetError::Busy(infohash)),
            Err(error) => Err(NetError::Engine { what: "adding a torrent", source: error.into() }),
        }
    }

    /// Ends a torrent, or only the given life of it; tells whether it was there.
    pub(super) async fn end(&self, infohash: InfoHash, life: Option<usize>) -> bool {
        let _changing = self.changing.lock().await;
        let torrent = {
            let mut torrents = self.torrents.lock();
            match torrents.get(&infohash) {
                Some(torrent) if life.is_none_or(|life| life == torrent.life) => torrents.remove(&infohash),
                _ => None,
            }
        };
        let Some(torrent) = torrent else { return false };
        if let Err(error) = self.session.delete(TorrentIdOrHash::Id(torrent.life), false).await {
            debug!(%infohash, %error, "the session had lost a torrent");
        }
        true
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.session.cancellation_token().cancel();
    }
}

/// The info dictionary in a torrent file that `librqbit` wrote: the last entry, behind trackers that are empty.
fn info_of(torrent: &[u8], infohash: InfoHash) -> Option<&[u8]> {
    const KEY: &[u8] = b"4:info";
    let start = torrent.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let info = torrent.get(start..torrent.len().checked_sub(1)?)?;
    (<[u8; 20]>::from(Sha1::digest(info)) == infohash.0).then_some(info)
}

#[cfg(test)]
#[path = "swarm_tests.rs"]
mod tests;
