//! Fetching a version: keeps a torrent supplied with peers until nothing is missing.
//!
//! `librqbit` leaves a peer that failed alone for 10 s, then 60 s and longer, and takes no new peers once a torrent
//! runs. Deleting the torrent and adding it again with what has arrived costs milliseconds and forgets all that, so
//! this is how a fetch gets fresh peers, and how it comes back to one that was not ready.

use super::NetError;
use super::storage::{Content, Progress, Served};
use super::swarm::{Inner, PeerCounts, Swarm, Torrent, Wanting};
use crate::base::InfoHash;
use crate::image::Incoming;
use crate::torrent::Metainfo;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How often the peers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// The first pause before everybody is tried again when nobody is connected; doubles to the last.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(200);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A fetch that gets along takes new peers in at most this often: unfinished pieces are lost each time.
const REFRESH_PAUSE: Duration = Duration::from_secs(3);
/// Connected peers that deliver nothing for so long are given up, and all are tried again.
const STALL: Duration = Duration::from_secs(10);
/// More addresses than this are not remembered for one fetch.
const PEERS_MAX: usize = 400;

/// The peers that a running fetch knows.
#[derive(Default)]
pub(super) struct Sources {
    peers: Mutex<BTreeSet<SocketAddr>>,
    more: Notify,
}

impl Sources {
    /// Remembers peers; tells whether any was new.
    fn extend(&self, peers: &[SocketAddr]) -> bool {
        let mut known = self.peers.lock();
        let before = known.len();
        known.extend(peers.iter().take(PEERS_MAX.saturating_sub(before)));
        known.len() > before
    }

    fn list(&self) -> Vec<SocketAddr> {
        self.peers.lock().iter().copied().collect()
    }
}

impl Swarm {
    /// Fetches what `incoming` misses; returns when nothing is missing, and goes on serving it. Give the finished image
    /// to [`Swarm::seed`], or [`Swarm::remove`] the torrent. Fails when nothing arrived for `patience`; what did arrive
    /// stays in `incoming`. Dropping the future ends the fetch.
    pub async fn fetch(
        &self,
        metainfo: &Metainfo,
        incoming: &Arc<Incoming>,
        peers: &[SocketAddr],
        patience: Duration,
    ) -> Result<(), NetError> {
        let infohash = metainfo.infohash();
        let sources = self.0.begin(infohash).ok_or(NetError::Busy(infohash))?;
        sources.extend(peers);
        let mut fetch = Fetch {
            inner: self.0.clone(),
            infohash,
            sources,
            life: None,
            patience: Patience::new(patience),
            pause: RECONNECT_PAUSE_MIN,
        };
        // Whatever serves under this name has not got these bytes.
        self.0.end(infohash, None).await;
        let result = fetch.run(metainfo, incoming).await;
        if let Some(life) = fetch.life.take() {
            self.0.end(infohash, Some(life)).await;
        }
        result
    }

    /// Names more peers for a running fetch; nothing happens if there is none.
    pub fn add_peers(&self, infohash: InfoHash, peers: &[SocketAddr]) {
        if let Some(sources) = self.0.sources(infohash)
            && sources.extend(peers)
        {
            sources.more.notify_one();
        }
    }
}

struct Fetch {
    inner: Arc<Inner>,
    infohash: InfoHash,
    sources: Arc<Sources>,
    /// The torrent's current life in the session, which this fetch must end unless it succeeds.
    life: Option<usize>,
    patience: Patience,
    pause: Duration,
}

/// Why a life of the torrent ended.
enum Ended {
    Complete,
    Again,
}

impl Fetch {
    async fn run(&mut self, metainfo: &Metainfo, incoming: &Arc<Incoming>) -> Result<(), NetError> {
        loop {
            let served = Served::new(metainfo, Content::Incoming(incoming.clone()));
            let progress = served.progress();
            let torrent = self
                .inner
                .add(
                    self.infohash,
                    metainfo.torrent_bytes(),
                    served,
                    &incoming.have(),
                    Wanting::All(self.sources.list()),
                )
                .await?;
            self.life = Some(torrent.life);
            self.patience.new_life();
            match self.watch(&torrent, progress).await? {
                Ended::Complete => {
                    self.life = None;
                    return Ok(());
                }
                Ended::Again => {
                    // Somebody else took the name: then it is theirs.
                    if !self.inner.end(self.infohash, self.life.take()).await {
                        return Err(NetError::Busy(self.infohash));
                    }
                }
            }
        }
    }

    async fn watch(
        &mut self,
        torrent: &Torrent,
        mut progress: watch::Receiver<Progress>,
    ) -> Result<Ended, NetError> {
        let begun = Instant::now();
        let (mut fresh, mut pieces) = (false, 0);
        loop {
            let now = *progress.borrow_and_update();
            if now.failed {
                return Err(self.failure(torrent));
            }
            if now.complete {
                return Ok(Ended::Complete);
            }
            if let Some(failure) = torrent.failure() {
                return Err(NetError::Engine { what: "fetching", source: failure.into() });
            }
            let counts = torrent.peer_counts();
            if self.patience.note(now.pieces - pieces, counts.fetched) {
                self.pause = RECONNECT_PAUSE_MIN;
            }
            pieces = now.pieces;
            if self.patience.is_over() {
                return Err(NetError::NoSource(self.infohash));
            }
            if self.again(counts, fresh, begun.elapsed()) {
                return Ok(Ended::Again);
            }
            tokio::select! {
                _ = timeout(TICK, progress.changed()) => {}
                () = self.sources.more.notified() => fresh = true,
            }
        }
    }

    /// Whether everybody should be tried anew.
    fn again(&mut self, counts: PeerCounts, fresh: bool, age: Duration) -> bool {
        if counts.live == 0 && counts.coming == 0 {
            if !fresh && age < self.pause {
                return false;
            }
            self.pause = (self.pause * 2).min(RECONNECT_PAUSE_MAX);
            return true;
        }
        fresh && age >= REFRESH_PAUSE || age.min(self.patience.since()) >= STALL
    }

    fn failure(&self, torrent: &Torrent) -> NetError {
        match torrent.served.take_failure() {
            Some(source) => NetError::Storage { infohash: self.infohash, source: source.into() },
            None => NetError::Engine { what: "storing a piece", source: "no reason given".into() },
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.inner.finish(self.infohash);
        let (Some(life), Ok(runtime)) = (self.life, tokio::runtime::Handle::try_current()) else { return };
        let (inner, infohash) = (self.inner.clone(), self.infohash);
        runtime.spawn(async move { inner.end(infohash, Some(life)).await });
    }
}

/// Tells when a fetch has waited in vain for too long.
struct Patience {
    limit: Duration,
    /// When the last piece was accepted, or the fetch began.
    piece: Instant,
    /// When bytes last arrived in this life of the torrent. They count only while it lasts: a peer whose pieces are
    /// wrong is dropped, and its bytes must not keep the fetch alive.
    bytes: Option<Instant>,
    fetched: u64,
}

impl Patience {
    fn new(limit: Duration) -> Patience {
        Patience { limit, piece: Instant::now(), bytes: None, fetched: 0 }
    }

    fn new_life(&mut self) {
        (self.bytes, self.fetched) = (None, 0);
    }

    /// Notes how much has arrived; tells whether pieces were among it.
    fn note(&mut self, pieces: u64, fetched: u64) -> bool {
        if fetched > self.fetched {
            (self.bytes, self.fetched) = (Some(Instant::now()), fetched);
        }
        if pieces > 0 {
            self.piece = Instant::now();
        }
        pieces > 0
    }

    fn since(&self) -> Duration {
        self.bytes.map_or(self.piece, |bytes| bytes.max(self.piece)).elapsed()
    }

    fn is_over(&self) -> bool {
        self.since() >= self.limit
    }
}
