//! A node of the mainline DHT: mutable items (BEP 44), peers and announcements (BEP 5).

use super::NetError;
use crate::base::{InfoHash, PublicKey, Signature};
use crate::record::SignedItem;
use futures_util::StreamExt;
use mainline::errors::{PutMutableError, PutQueryError};
use mainline::{Id, MutableItem, PutOutcome, async_dht::AsyncDht};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

/// How a node finds the DHT and where it listens.
#[derive(Clone, Debug)]
pub struct DhtOptions {
    /// `host:port` of the nodes to begin with; empty for those of the public DHT.
    pub bootstrap: Vec<String>,
    /// The address to listen on; `None` for all.
    pub bind: Option<Ipv4Addr>,
    /// The UDP port; `None` for any.
    pub port: Option<u16>,
    /// How long one node may take to answer.
    pub request_timeout: Duration,
}

impl Default for DhtOptions {
    fn default() -> DhtOptions {
        DhtOptions { bootstrap: Vec::new(), bind: None, port: None, request_timeout: REQUEST_TIMEOUT }
    }
}

/// How long one node may take to answer: three tries of a slow home connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a whole lookup or store may take; a lookup in the public DHT takes 2–6 s.
const OPERATION_DEADLINE: Duration = Duration::from_secs(20);
/// A lookup of peers ends this long after the last new one, so that it does not wait for silent nodes.
const PEERS_SETTLE: Duration = Duration::from_millis(500);
/// More peers than this are of no use to one fetch.
const PEERS_MAX: usize = 200;
/// More values than this of one item are somebody's game.
const ITEMS_MAX: usize = 16;
/// A bencoded value must stay below 1000 bytes for every implementation (BEP 44); `996:` costs four.
const ITEM_VALUE_BYTES_MAX: usize = 995;
/// The old table's nodes that a rebuilt node tries besides the bootstrap list: few, for it asks them at every lookup.
const CARRIED_NODES_MAX: usize = 8;
/// The shortest time between two rebuilds of the node; doubles while there is silence.
const REBUILD_PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest time between two rebuilds.
const REBUILD_PAUSE_MAX: Duration = Duration::from_secs(120);
/// How often, and at what distance, a rebuilt node tries to get its old port again.
const REBIND_TRIES: u32 = 20;
const REBIND_PAUSE: Duration = Duration::from_millis(50);

/// What a lookup of a mutable item found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Every distinct value whose signature verifies, newest seq first; more than one when writers met.
    pub items: Vec<SignedItem>,
    /// Nodes that answered, with a value or without.
    pub answered: u32,
    /// Nodes that did not answer in time: one of them may hold something newer.
    pub silent: u32,
}

/// One DHT node; clones share it. It rebuilds itself when nobody answers any more.
#[derive(Clone)]
pub struct Dht(Arc<Inner>);

struct Inner {
    options: DhtOptions,
    /// `None` only while a new node is being built.
    node: Mutex<Option<AsyncDht>>,
    rebuilding: tokio::sync::Mutex<Rebuilding>,
    /// One operation a target at a time: `mainline` merges queries for the same target, whatever they ask for.
    turns: Mutex<HashMap<Id, Arc<tokio::sync::Mutex<()>>>>,
}

struct Rebuilding {
    not_before: Instant,
    pause: Duration,
}

impl Dht {
    /// Starts a node; returns as soon as its socket is bound, before it knows anybody.
    pub async fn start(options: DhtOptions) -> Result<Dht, NetError> {
        let address = (options.bind.unwrap_or(Ipv4Addr::UNSPECIFIED), options.port.unwrap_or(0)).into();
        let node = build(&options, Vec::new()).await.map_err(|source| NetError::Bind { address, source })?;
        let rebuilding = Rebuilding { not_before: Instant::now(), pause: REBUILD_PAUSE_MIN };
        Ok(Dht(Arc::new(Inner {
            options,
            node: Mutex::new(Some(node)),
            rebuilding: tokio::sync::Mutex::new(rebuilding),
            turns: Mutex::default(),
        })))
    }

    /// The address that the node listens on, or `None` while it is being rebuilt.
    pub async fn address(&self) -> Option<SocketAddr> {
        let node = self.node().ok()?;
        timeout(OPERATION_DEADLINE, node.info()).await.ok().map(|info| info.local_addr().into())
    }

    /// Looks the item of `key` up. With `more_recent_than` nodes that hold nothing above that seq send no value, so
    /// another value of the *same* seq stays unseen: ask for one less to see it. Fails only if nobody answered.
    pub async fn get(&self, key: &PublicKey, more_recent_than: Option<i64>) -> Result<Found, NetError> {
        let target = MutableItem::target_from_key(&key.0, None);
        let _turn = self.turn(target).await;
        self.look_up(key, more_recent_than).await
    }

    /// Stores an item at the nodes closest to its key; `cas` is the seq that this one replaces. Tells how many nodes
    /// stored it. A minority that refused does not show: read back afterwards.
    pub async fn put(&self, item: &SignedItem, cas: Option<i64>) -> Result<u32, NetError> {
        if item.value.len() > ITEM_VALUE_BYTES_MAX {
            return Err(NetError::ItemTooLarge(item.value.len()));
        }
        let SignedItem { key, seq, value, signature } = item;
        let item = MutableItem::new_signed_unchecked(key.0, signature.0, value, *seq, None);
        let _turn = self.turn(*item.target()).await;
        for attempt in 0..2 {
            let put = self.node()?;
            match timeout(OPERATION_DEADLINE, put.put_mutable(item.clone(), cas)).await {
                Ok(Ok(PutOutcome { stored_at, .. })) => return Ok(stored_at),
                Ok(Err(PutMutableError::Concurrency(refusal))) => {
                    debug!(%refusal, "put refused");
                    return Err(NetError::Superseded);
                }
                Ok(Err(PutMutableError::Query(failure))) => debug!(%failure, attempt, "put failed"),
                Err(_) => break,
            }
            // The nodes that it remembered are gone or have forgotten the token: a lookup finds others.
            self.look_up(key, None).await?;
        }
        self.note_silence().await;
        Err(NetError::Unreachable)
    }

    /// The peers announced under `infohash`: all that are found before `deadline`, or until no more turn up.
    pub async fn peers(&self, infohash: InfoHash, deadline: Duration) -> Vec<SocketAddr> {
        let target = Id::from(infohash.0);
        let end = Instant::now() + deadline;
        let Ok(_turn) = timeout_at(end, self.turn(target)).await else { return Vec::new() };
        let Ok(node) = self.node() else { return Vec::new() };
        let mut found = BTreeSet::new();
        let mut answers = node.get_peers(target);
        let mut until = end;
        while let Ok(Some(peers)) = timeout_at(until, answers.next()).await {
            for peer in peers.into_iter().filter(is_usable) {
                if found.len() < PEERS_MAX && found.insert(SocketAddr::V4(peer)) {
                    until = end.min(Instant::now() + PEERS_SETTLE);
                }
            }
        }
        found.into_iter().collect()
    }

    /// Announces that this host serves `infohash` at TCP port `port`; the DHT takes the IP address from the packet.
    pub async fn announce(&self, infohash: InfoHash, port: u16) -> Result<(), NetError> {
        let target = Id::from(infohash.0);
        let _turn = self.turn(target).await;
        for attempt in 0..2 {
            let node = self.node()?;
            match timeout(OPERATION_DEADLINE, node.announce_peer(target, Some(port))).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(PutQueryError::NoClosestNodes)) | Err(_) => break,
                Ok(Err(failure)) => debug!(%failure, attempt, "announce failed"),
            }
            // As for `put`: the tokens may be stale, and a lookup fetches new ones.
            let _ = timeout(OPERATION_DEADLINE, node.get_closest_nodes(target)).await;
        }
        self.note_silence().await;
        Err(NetError::Unreachable)
    }

    fn node(&self) -> Result<AsyncDht, NetError> {
        self.0.node.lock().clone().ok_or(NetError::Unreachable)
    }

    async fn turn(&self, target: Id) -> Turn {
        let lock = self.0.turns.lock().entry(target).or_default().clone();
        let guard = lock.lock_owned().await;
        Turn { inner: self.0.clone(), target, guard: Some(guard) }
    }

    async fn look_up(&self, key: &PublicKey, more_recent_than: Option<i64>) -> Result<Found, NetError> {
        // Held to the end: a lookup whose node goes while it is rebuilt panics.
        let node = self.node()?;
        let mut lookup = node.get_mutable_detailed(&key.0, None, more_recent_than);
        let end = Instant::now() + OPERATION_DEADLINE;
        let mut items: Vec<SignedItem> = Vec::new();
        while let Ok(Some(item)) = timeout_at(end, lookup.items.next()).await {
            let item = signed(&item);
            // `mainline` verifies less strictly than devices must agree on.
            if items.len() < ITEMS_MAX && !items.contains(&item) && item.key == *key && item.verify() {
                items.push(item);
            }
        }
        let outcome = timeout_at(end, lookup.outcome.recv()).await.unwrap_or_default();
        drop(node);
        if outcome.responded() == 0 && items.is_empty() {
            self.note_silence().await;
            return Err(NetError::Unreachable);
        }
        if let Ok(mut rebuilding) = self.0.rebuilding.try_lock() {
            rebuilding.pause = REBUILD_PAUSE_MIN;
        }
        items.sort_by(|a, b| (b.seq, &b.value).cmp(&(a.seq, &a.value)));
        Ok(Found { items, answered: outcome.responded().max(1), silent: outcome.timed_out() })
    }

    /// Called when an operation got no answer at all. `mainline` goes back to its bootstrap list only when its table is
    /// smaller than that list, so a table full of the dead stays dead: a new node starts over.
    async fn note_silence(&self) {
        let Ok(mut rebuilding) = self.0.rebuilding.try_lock() else { return };
        if Instant::now() < rebuilding.not_before {
            return;
        }
        rebuilding.not_before = Instant::now() + rebuilding.pause;
        rebuilding.pause = (rebuilding.pause * 2).min(REBUILD_PAUSE_MAX);
        debug!("no DHT node answers: starting over from the bootstrap nodes");
        // The old node gives its port free when its last handle goes.
        let old = self.0.node.lock().take();
        let mut carried = match old {
            Some(node) => timeout(REQUEST_TIMEOUT, node.to_bootstrap()).await.unwrap_or_default(),
            None => Vec::new(),
        };
        carried.truncate(CARRIED_NODES_MAX);
        match rebuild(&self.0.options, carried).await {
            Ok(node) => *self.0.node.lock() = Some(node),
            Err(error) => warn!(%error, "the DHT node could not be rebuilt; trying again later"),
        }
    }
}

/// The right to work on one target; the next in line gets it on drop.
struct Turn {
    inner: Arc<Inner>,
    target: Id,
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut turns = self.inner.turns.lock();
        if turns.get(&self.target).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            turns.remove(&self.target);
        }
    }
}

fn signed(item: &MutableItem) -> SignedItem {
    SignedItem {
        key: PublicKey(*item.key()),
        seq: item.seq(),
        value: item.value().to_vec(),
        signature: Signature(*item.signature()),
    }
}

fn is_usable(peer: &SocketAddrV4) -> bool {
    let ip = peer.ip();
    peer.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
}

/// Builds a node off the runtime's threads: names of bootstrap nodes are resolved on the way, which may take seconds.
async fn build(options: &DhtOptions, carried: Vec<String>) -> std::io::Result<AsyncDht> {
    let DhtOptions { bootstrap, bind, port, request_timeout } = options.clone();
    let building = tokio::task::spawn_blocking(move || {
        let mut builder = mainline::Dht::builder();
        builder.port(port.unwrap_or(0)).request_timeout(request_timeout);
        if let Some(bind) = bind {
            builder.bind_address(bind);
        }
        if bootstrap.is_empty() {
            builder.bootstrap(&mainline::DEFAULT_BOOTSTRAP_NODES);
        } else {
            builder.bootstrap(&bootstrap);
        }
        builder.extra_bootstrap(&carried);
        builder.build().map(mainline::Dht::as_async)
    });
    building.await.map_err(std::io::Error::other)?
}

async fn rebuild(options: &DhtOptions, carried: Vec<String>) -> std::io::Result<AsyncDht> {
    for _ in 0..REBIND_TRIES {
        match build(options, carried.clone()).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(REBIND_PAUSE).await
            }
            other => return other,
        }
    }
    // Somebody holds the old port, perhaps a lookup of ours that has not ended: any other serves as well.
    build(&DhtOptions { port: None, ..options.clone() }, carried).await
}

#[cfg(test)]
#[path = "dht_tests.rs"]
mod tests;
