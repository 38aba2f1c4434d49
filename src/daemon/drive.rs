//! Performs what the sync machine decides: the only place where DHT, swarm, store and tree meet.

use super::core::{Core, now_seconds};
use super::error::EngineError;
use super::take::Taken;
use crate::base::{Id, InfoHash, PieceHashes};
use crate::crypt::record_key::Purpose;
use crate::image::{Image, Incoming};
use crate::net::{Dht, DhtOptions, NetError, Swarm, SwarmOptions};
use crate::record::{Policy, Record, SignedItem, VersionRef};
use crate::sync::{Effect, Fetched, Heard, Input, Machine, Millis, Poll, PutOutcome, Role, Timing};
use crate::torrent::{Limits, Metainfo};
use crate::tree::Changes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

const METAINFO_BYTES_MAX: usize = 8 << 20;
const METAINFO_DEADLINE: Duration = Duration::from_secs(8);
const PEERS_DEADLINE: Duration = Duration::from_secs(4);
/// A transfer that brings nothing for so long has no source.
const STALL_DEADLINE: Duration = Duration::from_secs(12);
/// An image may grow by so much over the last one before its commit has opened and verified.
const GROWTH_BYTES_MAX: u64 = 1 << 30;
const SECONDS_A_DAY: u32 = 86_400;
/// Around midnight, clocks disagree on the day.
const MIDNIGHT_SECONDS: u32 = 3_600;
const METER_PERIOD: Duration = Duration::from_secs(2);

/// Told of changes that came from others: invalidates what the kernel has cached.
pub type Notifier = Box<dyn Fn(Changes) + Send + Sync>;

/// The network half of an engine.
pub struct Driver {
    core: Arc<Core>,
    net: Option<Net>,
    machine: Mutex<Machine>,
    started: Instant,
    inputs: mpsc::UnboundedSender<Input>,
    settled: Notify,
    notifier: Mutex<Option<Notifier>>,
    facts: Mutex<Facts>,
}

struct Net {
    dht: Dht,
    swarm: Swarm,
    listen: SocketAddr,
}

/// What only status wants to know, and peers.
#[derive(Default)]
struct Facts {
    confirmed: Option<Instant>,
    peers: HashMap<SocketAddr, Instant>,
    policies: BTreeMap<InfoHash, Policy>,
    transfers: BTreeMap<InfoHash, (Arc<Incoming>, u64)>,
    seeded: BTreeSet<InfoHash>,
    meters: (u64, u64),
}

/// A peer that was not heard of for so long is forgotten.
const PEER_LIFE: Duration = Duration::from_secs(1_800);

impl Driver {
    /// Starts DHT node and swarm, seeds what is kept. Without network it only holds the machine.
    pub async fn start(
        core: Arc<Core>,
        network: bool,
    ) -> Result<(Arc<Driver>, mpsc::UnboundedReceiver<Input>), EngineError> {
        let net = if network && !core.settings.offline { Some(Self::connect(&core).await?) } else { None };
        let (inputs, receiver) = mpsc::unbounded_channel();
        let machine = first_machine(&core);
        let driver = Arc::new(Driver {
            machine: Mutex::new(machine),
            started: Instant::now(),
            inputs,
            settled: Notify::new(),
            notifier: Mutex::new(None),
            facts: Mutex::new(Facts {
                meters: (core.cache.meter("fetched"), core.cache.meter("sent")),
                ..Facts::default()
            }),
            core,
            net,
        });
        driver.seed_kept().await;
        Ok((driver, receiver))
    }

    async fn connect(core: &Core) -> Result<Net, EngineError> {
        let failed = |error: NetError| EngineError::Network(error_chain(&error));
        let listen = core.settings.listen;
        let bind = match listen.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
            _ if core.settings.bootstrap.iter().all(|node| is_loopback(node)) => Some(Ipv4Addr::LOCALHOST),
            _ => None,
        };
        let dht =
            Dht::start(DhtOptions { bootstrap: core.settings.bootstrap.clone(), bind, ..Default::default() });
        let dht = dht.await.map_err(failed)?;
        let address = bind.map_or(listen, |ip| SocketAddr::from((ip, listen.port())));
        let options = SwarmOptions {
            upload_bytes_a_second_max: core.settings.limit_up,
            download_bytes_a_second_max: core.settings.limit_down,
            ..SwarmOptions::new(address, core.paths.torrents.clone())
        };
        let swarm = Swarm::start(options).await.map_err(failed)?;
        let listen = SocketAddr::new(address.ip(), swarm.port());
        Ok(Net { dht, swarm, listen })
    }

    /// Runs until `stop` is notified.
    pub async fn run(self: Arc<Self>, mut inputs: mpsc::UnboundedReceiver<Input>, stop: Arc<Notify>) {
        let mut meter = tokio::time::interval(METER_PERIOD);
        loop {
            let at = self.machine.lock().deadline();
            let pause = Duration::from_millis(at.saturating_sub(self.now()).max(1).min(60_000));
            let input = tokio::select! {
                input = inputs.recv() => input.unwrap_or(Input::Tick),
                () = tokio::time::sleep(pause) => Input::Tick,
                _ = meter.tick() => { self.write_meters(); continue }
                () = stop.notified() => break,
            };
            if self.net.is_none() {
                continue;
            }
            let effects = self.machine.lock().handle(input, self.now(), dice());
            self.settled.notify_waiters();
            for effect in effects {
                tracing::debug!(?effect);
                tokio::spawn(self.clone().perform(effect));
            }
        }
        self.write_meters();
        self.core.cache.flush();
    }

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells the machine.
    pub fn tell(&self, input: Input) {
        let _ = self.inputs.send(input);
    }

    /// Who hears of changes from others.
    pub fn set_notifier(&self, notifier: Notifier) {
        *self.notifier.lock() = Some(notifier);
    }

    fn notify(&self, changes: Changes) {
        if let Some(notifier) = &*self.notifier.lock() {
            notifier(changes);
        }
    }

    async fn perform(self: Arc<Self>, effect: Effect) {
        let Some(net) = &self.net else { return };
        match effect {
            Effect::Poll => {
                let poll = self.poll(net).await;
                self.tell(Input::Polled(poll));
            }
            Effect::Fetch(version) => {
                let outcome = self.fetch(net, version).await.unwrap_or_else(|error| {
                    tracing::warn!(version = %version.infohash, error = %error_chain(&error), "a version was not taken");
                    Fetched::NoSource
                });
                tracing::debug!(version = %version.infohash, ?outcome, "fetched");
                self.tell(Input::Fetched(version.infohash, outcome));
            }
            Effect::Publish => {
                let outcome = self.publish(net).await;
                self.tell(Input::Published(outcome));
            }
            Effect::Put { versions, seq, cas } => {
                let outcome = self.put(net, versions, seq, cas).await;
                self.tell(Input::Put(outcome));
            }
            Effect::Reput => self.reput(net).await,
            Effect::Announce => self.announce(net).await,
        }
    }

    async fn poll(&self, net: &Net) -> Poll {
        let key = self.core.keys.database_public;
        let found = match net.dht.get(&key, None).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "poll");
                return Poll::Unreachable;
            }
        };
        let accepted = self.core.inner().state.accepted.as_ref().map(|item| item.seq);
        let highest = found.items.iter().map(|item| item.seq).max();
        let Some(highest) = highest else {
            return if found.answered > 0 { Poll::Nothing } else { Poll::Unreachable };
        };
        if Some(highest) >= accepted {
            self.facts.lock().confirmed = Some(Instant::now());
        }
        let heard: Vec<Heard> = found.items.iter().filter_map(|item| self.hear(item)).collect();
        if heard.is_empty() { Poll::Nothing } else { Poll::Heard(heard) }
    }

    /// Checks an item and remembers it if it is the highest so far. One that does not open, or whose policy is not
    /// signed by the admin, names no versions: it only says how high `seq` has been driven.
    fn hear(&self, item: &SignedItem) -> Option<Heard> {
        if item.key != self.core.keys.database_public || !item.verify() {
            return None;
        }
        let digest = Id(*blake3::hash(&item.value).as_bytes());
        let keys = &self.core.keys;
        let record = Record::decode(&keys.record, &item.value)
            .ok()
            .filter(|record| record.policy.verify(&keys.database, &keys.admin_public));
        let Some(record) = record else {
            tracing::warn!(
                seq = item.seq,
                "a record of this database does not open or carries a policy that its admin did not sign: ignored"
            );
            return Some(Heard { seq: item.seq, digest, versions: Vec::new() });
        };
        let below_link = item.seq < keys.floor.1 || record.policy.counter < keys.floor.0;
        let mut inner = self.core.inner();
        if inner.state.accepted.as_ref().is_none_or(|known| item.seq > known.seq) && !below_link {
            inner.state.accepted = Some(item.clone());
            if let Err(error) = self.core.save(&inner) {
                tracing::error!(%error, "the store does not take the record");
            }
        }
        drop(inner);
        let mut facts = self.facts.lock();
        for version in &record.versions {
            facts.policies.insert(version.infohash, record.policy.clone());
        }
        Some(Heard { seq: item.seq, digest, versions: if below_link { Vec::new() } else { record.versions } })
    }

    async fn fetch(&self, net: &Net, version: VersionRef) -> Result<Fetched, EngineError> {
        let known = self.core.inner().versions.get(&version.infohash).map(|version| version.image.clone());
        let image = match known {
            Some(image) => image,
            None => match self.transfer(net, version).await? {
                Ok(image) => image,
                Err(outcome) => return Ok(outcome),
            },
        };
        let policy = self.facts.lock().policies.get(&version.infohash).cloned();
        let policy = policy.unwrap_or_else(|| self.core.inner().state.policy.clone());
        let core = self.core.clone();
        let taken = tokio::task::spawn_blocking(move || core.take(version, image, &policy));
        let Taken { outcome, changes } =
            taken.await.map_err(|error| EngineError::Other(error.to_string()))??;
        self.notify(changes);
        if outcome == Fetched::Refused && self.core.lacks_blocks() {
            self.supplement(net, version).await?;
        }
        self.drop_old(net).await;
        Ok(outcome)
    }

    /// A block of the newest version was refused, and this device has no state of its own for it: the older versions
    /// of the record may hold a valid one.
    async fn supplement(&self, net: &Net, refused: VersionRef) -> Result<(), EngineError> {
        let named = self.core.named_versions(&self.core.inner());
        for version in named.into_iter().filter(|version| version.infohash != refused.infohash) {
            let Ok(image) = self.transfer(net, version).await? else { continue };
            let core = self.core.clone();
            let filled = tokio::task::spawn_blocking(move || core.supplement(version, image));
            match filled.await.map_err(|error| EngineError::Other(error.to_string()))? {
                Ok(changes) => self.notify(changes),
                Err(error) => tracing::debug!(version = %version.infohash, %error, "nothing to be had from an older version"),
            }
            if !self.core.lacks_blocks() {
                break;
            }
        }
        Ok(())
    }

    /// Brings a version's bytes here; the inner error is an outcome that is no failure of ours.
    async fn transfer(&self, net: &Net, version: VersionRef) -> Result<Result<Image, Fetched>, EngineError> {
        let infohash = version.infohash;
        let peers = self.find_peers(net).await;
        let bytes = match net.swarm.metainfo(infohash, &peers, METAINFO_DEADLINE).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(version = %infohash, peers = peers.len(), error = %error_chain(&error), "no metainfo");
                return Ok(Err(Fetched::NoSource));
            }
        };
        let limits = Limits { metainfo_bytes_max: METAINFO_BYTES_MAX, image_bytes_max: self.image_limit() };
        let metainfo = match Metainfo::parse(&bytes, &limits) {
            Ok(metainfo) if metainfo.infohash() == infohash => metainfo,
            Ok(_) => return Ok(Err(Fetched::Broken)),
            Err(error) => {
                tracing::warn!(version = %infohash, %error, "refused before it was fetched");
                return Ok(Err(Fetched::Broken));
            }
        };
        let incoming = self.incoming(&metainfo.hashes).await?;
        let missing = missing_bytes(&incoming);
        self.facts.lock().transfers.insert(infohash, (incoming.clone(), missing));
        let fetched = net.swarm.fetch(&metainfo, &incoming, &peers, STALL_DEADLINE).await;
        self.facts.lock().transfers.remove(&infohash);
        if let Err(error) = fetched {
            net.swarm.remove(infohash).await;
            return match error {
                NetError::NoSource(_) => Ok(Err(Fetched::NoSource)),
                other => Err(EngineError::Network(error_chain(&other))),
            };
        }
        let image = incoming.finish()?;
        self.core.cache.remember(&infohash, &metainfo);
        self.seed(net, &metainfo, image.clone()).await;
        Ok(Ok(image))
    }

    /// The shared start of a transfer: everything that kept versions already hold.
    async fn incoming(&self, hashes: &PieceHashes) -> Result<Arc<Incoming>, EngineError> {
        let (core, hashes) = (self.core.clone(), hashes.clone());
        let made = tokio::task::spawn_blocking(move || {
            let kept: Vec<_> = core.inner().versions.iter().cloned().collect();
            let mut bases = Vec::new();
            for version in kept.iter().take(2) {
                bases.push((version.image.clone(), core.hashes_of(version)?));
            }
            Ok::<_, EngineError>(Arc::new(core.store.incoming(hashes, &bases)?))
        });
        made.await.map_err(|error| EngineError::Other(error.to_string()))?
    }

    fn image_limit(&self) -> u64 {
        let free = self.core.store.space().map_or(u64::MAX, |space| space.free_bytes);
        let configured = self.core.settings.image_bytes_max.unwrap_or(free);
        let inner = self.core.inner();
        match inner.versions.iter().next() {
            Some(version) => configured.min(2 * version.image.bytes() + GROWTH_BYTES_MAX),
            None => configured,
        }
    }

    async fn publish(&self, net: &Net) -> Result<Option<VersionRef>, ()> {
        let core = self.core.clone();
        let made = tokio::task::spawn_blocking(move || core.publish()).await;
        match made {
            Ok(Ok(Some(made))) => {
                self.seed(net, &made.metainfo, made.image).await;
                self.drop_old(net).await;
                tracing::info!(version = %made.reference.infohash, "published");
                Ok(Some(made.reference))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => {
                tracing::error!(error = %error_chain(&error), "nothing was published");
                Err(())
            }
            Err(error) => {
                tracing::error!(%error, "publishing ended abnormally");
                Err(())
            }
        }
    }

    async fn put(&self, net: &Net, versions: Vec<VersionRef>, seq: i64, cas: Option<i64>) -> PutOutcome {
        let Some(item) = self.sign(&versions, seq) else { return PutOutcome::Unreachable };
        // A lost answer must not lead to a second value under this number: the item is remembered before it is sent.
        match net.dht.put(&item, cas).await {
            Ok(stored) => {
                tracing::info!(seq, stored, "record put");
                let mut inner = self.core.inner();
                if inner.state.accepted.as_ref().is_none_or(|known| item.seq >= known.seq) {
                    inner.state.accepted = Some(item.clone());
                }
                if let Err(error) = self.core.save(&inner) {
                    tracing::error!(%error, "the store does not take the record");
                }
                self.facts.lock().confirmed = Some(Instant::now());
                PutOutcome::Done(Heard { seq, digest: Id(*blake3::hash(&item.value).as_bytes()), versions })
            }
            Err(NetError::Superseded) => PutOutcome::Superseded,
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "the record was not put");
                PutOutcome::Unreachable
            }
        }
    }

    fn sign(&self, versions: &[VersionRef], seq: i64) -> Option<SignedItem> {
        let key = self.core.keys.database_key.as_ref()?;
        let policy = self.core.inner().state.policy.clone();
        if policy.counter == 0 {
            return None;
        }
        let record = Record { time: now_seconds(), flags: 0, versions: versions.to_vec(), policy };
        Some(SignedItem::sign(key, seq, record.encode_sealed(&self.core.keys.record)))
    }

    async fn reput(&self, net: &Net) {
        let item = self.core.inner().state.accepted.clone();
        if let Some(item) = item {
            match net.dht.put(&item, None).await {
                Ok(stored) => tracing::info!(seq = item.seq, stored, "record put back"),
                Err(error) => tracing::debug!(error = %error_chain(&error), "the record was not put back"),
            }
        }
    }

    async fn announce(&self, net: &Net) {
        for day in days(now_seconds()) {
            let infohash = self.core.keys.record.rendezvous(day, Purpose::Torrent);
            if let Err(error) = net.dht.announce(infohash, net.listen.port()).await {
                tracing::debug!(error = %error_chain(&error), "not announced");
            }
        }
    }

    async fn find_peers(&self, net: &Net) -> Vec<SocketAddr> {
        let mut found: BTreeSet<SocketAddr> = self.core.settings.peers.iter().copied().collect();
        for day in days(now_seconds()) {
            let infohash = self.core.keys.record.rendezvous(day, Purpose::Torrent);
            found.extend(net.dht.peers(infohash, PEERS_DEADLINE).await);
        }
        found.retain(|peer| !self.is_self(net, peer));
        let mut facts = self.facts.lock();
        let now = Instant::now();
        facts.peers.extend(found.into_iter().map(|peer| (peer, now)));
        facts.peers.retain(|_, seen| now.duration_since(*seen) < PEER_LIFE);
        facts.peers.keys().copied().collect()
    }

    fn is_self(&self, net: &Net, peer: &SocketAddr) -> bool {
        peer.port() == net.listen.port() && (peer.ip() == net.listen.ip() || peer.ip().is_loopback())
    }

    async fn seed(&self, net: &Net, metainfo: &Metainfo, image: Image) {
        let infohash = metainfo.infohash();
        match net.swarm.seed(metainfo, &self.core.store, &image).await {
            Ok(()) => _ = self.facts.lock().seeded.insert(infohash),
            Err(error) => tracing::warn!(version = %infohash, error = %error_chain(&error), "not seeded"),
        }
    }

    async fn seed_kept(&self) {
        let Some(net) = &self.net else { return };
        let kept: Vec<_> = self.core.inner().versions.iter().cloned().collect();
        for version in kept {
            let core = self.core.clone();
            let hashing = version.clone();
            let hashes = tokio::task::spawn_blocking(move || core.hashes_of(&hashing)).await;
            match hashes {
                Ok(Ok(hashes)) => self.seed(net, &Metainfo { hashes }, version.image).await,
                Ok(Err(error)) => tracing::error!(%error, "a kept version is not seeded"),
                Err(error) => tracing::error!(%error, "hashing ended abnormally"),
            }
        }
    }

    /// Stops seeding what is no longer kept.
    async fn drop_old(&self, net: &Net) {
        let kept: BTreeSet<InfoHash> =
            self.core.inner().versions.iter().map(|version| version.reference.infohash).collect();
        let old: Vec<InfoHash> = {
            let mut facts = self.facts.lock();
            let old = facts.seeded.difference(&kept).copied().collect();
            facts.seeded.retain(|infohash| kept.contains(infohash));
            old
        };
        for infohash in old {
            net.swarm.remove(infohash).await;
        }
    }

    /// Publishes and fetches until nothing is left to do.
    pub async fn sync(&self, timeout: Duration) -> Result<(), EngineError> {
        if self.net.is_none() {
            return Err(EngineError::Network("this engine runs offline; start it without --offline".into()));
        }
        let polls = self.machine.lock().polls_done();
        let end = Instant::now() + timeout;
        self.mutated_if_pending();
        self.tell(Input::Hurry);
        loop {
            let settled = self.settled.notified();
            if self.machine.lock().settled_since(polls) && self.core.pending_bytes() == 0 {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reachable = self.machine.lock().reachable();
                let why = if reachable {
                    "not everything could be published or fetched in time"
                } else {
                    "no DHT node answered"
                };
                return Err(EngineError::Network(format!("{why}; what is pending is kept and tried again")));
            }
            let _ = tokio::time::timeout(left.min(Duration::from_millis(100)), settled).await;
            self.mutated_if_pending();
        }
    }

    /// A change that was made before this engine's driver listened.
    fn mutated_if_pending(&self) {
        let machine = self.machine.lock();
        let nobody_knows = machine.published_all();
        drop(machine);
        if nobody_knows && self.core.keys.publishes() && self.core.pending_bytes() > 0 {
            self.tell(Input::Changed);
        }
    }

    /// Waits until nothing local waits for a put, at most so long. Says whether it came to that.
    pub async fn drain(&self, timeout: Duration) -> bool {
        if !self.core.keys.publishes()
            || self.core.pending_bytes() == 0 && self.machine.lock().published_all()
        {
            return true;
        }
        if self.net.is_none() {
            return false;
        }
        let _ = self.sync(timeout).await;
        self.core.pending_bytes() == 0 && self.machine.lock().published_all()
    }

    /// Where peers are awaited.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.net.as_ref().map(|net| net.listen)
    }

    /// Whether nothing local waits for a put.
    pub fn published_all(&self) -> bool {
        self.machine.lock().published_all()
    }

    /// Tells the kernel of changes that a command made past the mount.
    pub fn told(&self, changes: Changes) {
        self.notify(changes);
    }

    /// Seconds since the DHT last confirmed that nothing is newer.
    pub fn confirmed_seconds_ago(&self) -> Option<f64> {
        Some(self.facts.lock().confirmed?.elapsed().as_secs_f64())
    }

    /// Peers heard of lately.
    pub fn peers(&self) -> usize {
        self.facts.lock().peers.len()
    }

    /// Peers connected for a version.
    pub fn peers_of(&self, infohash: InfoHash) -> usize {
        self.net.as_ref().map_or(0, |net| net.swarm.peers(infohash))
    }

    /// Infohash, bytes missing at the start, bytes still missing: of each transfer under way.
    pub fn transfers(&self) -> Vec<(InfoHash, u64, u64)> {
        let facts = self.facts.lock();
        facts
            .transfers
            .iter()
            .map(|(hash, (incoming, total))| (*hash, *total, missing_bytes(incoming)))
            .collect()
    }

    /// Bytes fetched and sent, cumulative over restarts.
    pub fn meters(&self) -> (u64, u64) {
        let (fetched, sent) = self.facts.lock().meters;
        let Some(net) = &self.net else { return (fetched, sent) };
        let traffic = net.swarm.traffic();
        (fetched + traffic.fetched(), sent + traffic.payload_sent)
    }

    fn write_meters(&self) {
        let (fetched, sent) = self.meters();
        self.core.cache.set_meter("fetched", fetched);
        self.core.cache.set_meter("sent", sent);
    }
}

fn first_machine(core: &Core) -> Machine {
    let inner = core.inner();
    let poll = u64::try_from(core.settings.poll_interval.as_millis()).unwrap_or(u64::MAX);
    let role = Role { publishes: core.keys.publishes(), keeps_all: core.tree.is_none() };
    let accepted = inner.state.accepted.as_ref().and_then(|item| {
        let record = Record::decode(&core.keys.record, &item.value).ok()?;
        let digest = Id(*blake3::hash(&item.value).as_bytes());
        Some(Heard { seq: item.seq, digest, versions: record.versions })
    });
    let head = inner.state.head.filter(|head| inner.versions.get(&head.infohash).is_some());
    let mut machine = Machine::new(Timing::for_poll(poll), role, accepted, head);
    for version in inner.versions.iter() {
        machine.keep(version.reference.infohash);
    }
    if inner.state.pending || inner.state.head.is_none() && core.keys.publishes() {
        machine.handle(Input::Changed, 0, 0);
    }
    machine
}

/// The days under whose rendezvous peers meet at a time: one, or around midnight two.
fn days(seconds: u32) -> Vec<u32> {
    let day = seconds / SECONDS_A_DAY;
    let into = seconds % SECONDS_A_DAY;
    if into < MIDNIGHT_SECONDS {
        vec![day, day - 1]
    } else if into > SECONDS_A_DAY - MIDNIGHT_SECONDS {
        vec![day, day + 1]
    } else {
        vec![day]
    }
}

fn is_loopback(node: &str) -> bool {
    let host = node.rsplit_once(':').map_or(node, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn missing_bytes(incoming: &Incoming) -> u64 {
    incoming.missing().into_iter().map(|piece| incoming.hashes().bytes_of(piece)).sum()
}

fn dice() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// An error with all that caused it, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
