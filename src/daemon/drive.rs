//! Performs what the sync machine decides: the only place where DHT, swarm, store and tree meet.

use super::begun::waiting_in_words;
use super::config::all_on_loopback;
use super::core::Core;
use super::doorbell::Doorbell;
use super::error::EngineError;
use super::life::{Life, first_machine};
use super::near::await_others;
use super::transfer::missing_bytes;
use crate::base::InfoHash;
use crate::fuse::Mounted;
use crate::image::Incoming;
use crate::net::gossip::{Event, Gossip, GossipOptions};
use crate::net::{Dht, DhtOptions, NetError, Swarm, SwarmOptions, Upnp};
use crate::record::Policy;
use crate::share::Share;
use crate::sync::{Effect, Fetched, Input, Machine, Millis};
use crate::tree::Changes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

const METER_PERIOD: Duration = Duration::from_secs(2);

/// The network half of an engine.
pub struct Driver {
    pub(super) core: Arc<Core>,
    net: Option<Net>,
    pub(super) machine: Mutex<Machine>,
    started: Instant,
    inputs: mpsc::UnboundedSender<Input>,
    doorbell: Doorbell,
    pub(super) awaits_whole: AtomicBool,
    settled: Notify,
    kernel: Mutex<Weak<Mounted>>,
    share: Mutex<Weak<Share>>,
    pub(super) facts: Mutex<Facts>,
    pub(super) life: Life,
}

/// DHT node and swarm.
pub(super) struct Net {
    pub dht: Dht,
    pub swarm: Swarm,
    pub gossip: Gossip,
    pub listen: SocketAddr,
    _upnp: Option<Upnp>,
}

/// What only status wants to know, and peers.
#[derive(Default)]
pub(super) struct Facts {
    pub fresh: super::fresh::Freshness,
    pub peers: HashMap<SocketAddr, Instant>,
    pub policies: BTreeMap<InfoHash, Policy>,
    pub transfers: BTreeMap<InfoHash, (Arc<Incoming>, u64)>,
    pub demand: super::demand::Demand,
    pub seeded: BTreeSet<InfoHash>,
    pub meters: (u64, u64),
    pub exchanged: super::push::Exchanged,
    /// Versions for which there is no room.
    pub unfit: BTreeMap<InfoHash, super::quota::Unfit>,
    pub over_quota: super::quota::Over,
    pub dht: super::contact::Contact,
    pub met: BTreeMap<crate::net::gossip::NeighbourId, String>,
}

impl Driver {
    /// Starts DHT node and swarm, seeds what is kept. Without network it only holds the machine.
    pub async fn start(
        core: Arc<Core>,
        network: bool,
    ) -> Result<(Arc<Driver>, mpsc::UnboundedReceiver<Input>), EngineError> {
        let connected =
            if network && !core.settings.offline { Some(Self::connect(&core).await?) } else { None };
        let (net, news) = connected.map_or((None, None), |(net, news)| (Some(net), Some(news)));
        let (inputs, receiver) = mpsc::unbounded_channel();
        let machine = first_machine(&core);
        let driver = Arc::new(Driver {
            machine: Mutex::new(machine),
            started: Instant::now(),
            inputs,
            doorbell: Doorbell::default(),
            awaits_whole: AtomicBool::new(false),
            settled: Notify::new(),
            kernel: Mutex::default(),
            share: Mutex::default(),
            life: Life::default(),
            facts: Mutex::new(Facts {
                meters: (core.cache.meter("fetched"), core.cache.meter("sent")),
                ..Facts::default()
            }),
            core,
            net,
        });
        if let Some(news) = news {
            tokio::spawn(driver.clone().converse(news));
            driver.look_around();
        }
        Ok((driver, receiver))
    }

    async fn connect(core: &Core) -> Result<(Net, mpsc::Receiver<Event>), EngineError> {
        let failed = |error: NetError| EngineError::Network(error_chain(&error));
        let listen = available(core.settings.listen);
        let bind = match listen.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
            _ if all_on_loopback(&core.settings.bootstrap) => Some(Ipv4Addr::LOCALHOST),
            _ => None,
        };
        let dht =
            Dht::start(DhtOptions { bootstrap: core.settings.bootstrap.clone(), bind, ..Default::default() });
        let dht = dht.await.map_err(failed)?;
        let address = match bind {
            Some(ip) if listen.ip().is_unspecified() => SocketAddr::from((ip, listen.port())),
            _ => listen,
        };
        let options = SwarmOptions {
            upload_bytes_a_second_max: core.settings.limit_up,
            download_bytes_a_second_max: core.settings.limit_down,
            ..SwarmOptions::new(address, core.paths.torrents.clone())
        };
        let swarm = Swarm::start(options).await.map_err(failed)?;
        let listen = SocketAddr::new(address.ip(), swarm.port());
        let above = listen.port().checked_add(1).unwrap_or_default();
        let options = GossipOptions {
            meets: core.settings.neighbours,
            listen: SocketAddr::new(listen.ip(), above),
            torrent_port: listen.port(),
            secret: core.keys.record.gossip_secret(),
            limit_up: core.settings.limit_up,
            limit_down: core.settings.limit_down,
        };
        let (gossip, news) = Gossip::start(options).await.map_err(failed)?;
        let upnp = await_others(&core.settings, listen, &gossip);
        Ok((Net { dht, swarm, gossip, listen, _upnp: upnp }, news))
    }

    /// Runs until `stop` is notified.
    pub async fn run(self: Arc<Self>, mut inputs: mpsc::UnboundedReceiver<Input>, stop: Arc<Notify>) {
        tokio::spawn(self.clone().seed_kept());
        self.keep_limits();
        let mut meter = tokio::time::interval(METER_PERIOD);
        loop {
            let (at, awaiting) = {
                let machine = self.machine.lock();
                (machine.deadline(), machine.awaits_quiet())
            };
            let unheard = self.net.is_some() && !awaiting && !self.doorbell.leave();
            let pause = Duration::from_millis(at.saturating_sub(self.now()).clamp(1, 60_000));
            let input = tokio::select! {
                input = inputs.recv() => input.unwrap_or(Input::Tick),
                () = tokio::time::sleep(pause), if !unheard => Input::Tick,
                () = std::future::ready(()), if unheard => Input::Tick,
                _ = meter.tick() => {
                    self.write_meters();
                    tokio::spawn(self.clone().look_after_store());
                    continue
                }
                () = stop.notified() => break,
            };
            if self.net.is_none() {
                continue;
            }
            let mut effects = Vec::new();
            if let Some(at) = self.doorbell.look() {
                effects = self.machine.lock().handle(Input::Changed, at, dice());
            }
            effects.extend(self.machine.lock().handle(input, self.now(), dice()));
            self.settled.notify_waiters();
            for effect in effects {
                tracing::debug!(?effect);
                tokio::spawn(self.clone().perform(effect, self.life.now()));
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

    /// Something was changed through the mount. Cheap: it may be called for every change.
    pub fn changed(&self) {
        if self.doorbell.ring(self.now()) {
            self.tell(Input::Changed);
        }
    }

    pub(super) fn net(&self) -> Option<&Net> {
        self.net.as_ref()
    }

    /// The mount that hears of changes from others.
    pub fn set_kernel(&self, mounted: Weak<Mounted>) {
        *self.kernel.lock() = mounted;
    }

    /// The shared folder that hears of changes from others.
    pub fn set_share(&self, share: Weak<Share>) {
        *self.share.lock() = share;
    }

    pub(super) fn mounted(&self) -> Option<Arc<Mounted>> {
        self.kernel.lock().upgrade()
    }

    pub(super) fn notify(&self, changes: Changes) {
        let share = self.share.lock().upgrade();
        if let Some(share) = share {
            share.notify(changes.clone());
        }
        if let Some(mounted) = self.mounted() {
            mounted.notify(changes);
            mounted.retire();
        }
    }

    async fn perform(self: Arc<Self>, effect: Effect, life: u64) {
        let Some(net) = &self.net else { return };
        match effect {
            Effect::Poll => {
                let poll = self.poll(net, None).await;
                self.tell_of(life, Input::Polled(poll));
            }
            Effect::Glance(above) => {
                let poll = self.poll(net, Some(above)).await;
                self.tell_of(life, Input::Polled(poll));
            }
            Effect::Fetch(version) => {
                if !self.life.looked(life).await {
                    return;
                }
                self.await_news(net, version.infohash).await;
                let fetched = self.fetch(net, version).await;
                self.note_source(version.infohash, matches!(fetched, Ok(Fetched::NoSource)));
                let outcome = fetched.unwrap_or_else(|error| {
                    tracing::warn!(version = %version.infohash, error = %error_chain(&error), "a version was not taken");
                    Fetched::NoSource
                });
                tracing::debug!(version = %version.infohash, ?outcome, "fetched");
                self.tell_of(life, Input::Fetched(version.infohash, outcome));
            }
            Effect::Publish => {
                // Who was left out by a rotation must not be told what was changed here while this device was away.
                if !self.life.looked(life).await {
                    return;
                }
                tokio::time::sleep(self.core.breath()).await;
                let input = self.publish(net).await;
                self.publish_again_when_whole();
                self.tell_of(life, input);
            }
            Effect::Tell { versions, seq } => {
                let told = self.tell_neighbours(net, &versions, seq);
                self.tell_of(life, Input::Told(told));
            }
            Effect::PutTold { cas } => {
                let outcome = self.put_told(net, cas).await;
                self.tell_of(life, Input::Put(outcome));
            }
            Effect::Put { versions, seq, cas } => {
                let outcome = self.put(net, versions, seq, cas).await;
                self.tell_of(life, Input::Put(outcome));
            }
            Effect::Reput => self.reput(net).await,
            Effect::Announce => {
                // None waits for another: each may take seconds where nodes are silent.
                tokio::join!(self.announce(net), self.seek_neighbours(net), self.keep_lifeline(net));
            }
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
            let settled_now = self.machine.lock().settled_since(polls) && self.core.pending_bytes() == 0;
            let waiting = waiting_in_words(&self.core.inner(), self);
            if settled_now && waiting.is_none() {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if let Some(waiting) = waiting.filter(|_| self.core.pending_bytes() == 0) {
                    return Err(EngineError::Network(waiting));
                }
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

    /// Puts a lifeline that was just signed, without waiting for the next announcement.
    pub fn announce_again(self: &Arc<Self>) {
        let driver = self.clone();
        tokio::runtime::Handle::current().spawn(async move {
            if let Some(net) = driver.net() {
                driver.keep_lifeline(net).await;
            }
        });
    }

    /// Tells the kernel of changes that a command made past the mount.
    pub fn told(&self, changes: Changes) {
        self.notify(changes);
    }

    /// Seconds since this engine started.
    pub fn uptime_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Peers heard of lately.
    pub fn peers(&self) -> usize {
        let mut peers: BTreeSet<SocketAddr> = self.facts.lock().peers.keys().copied().collect();
        peers.extend(self.net.iter().flat_map(|net| self.neighbouring_peers(net)));
        peers.len()
    }

    /// Neighbours connected.
    pub fn neighbours(&self) -> usize {
        self.net.as_ref().map_or(0, |net| net.gossip.neighbours().len())
    }

    /// Whether the DHT answered when it was last asked.
    pub fn dht_answers(&self) -> Option<bool> {
        self.facts.lock().dht.answers()
    }

    /// From where each of them takes part, and for how many seconds.
    pub fn connected(&self) -> Vec<(SocketAddr, f64)> {
        let neighbours = self.net.as_ref().map_or(Vec::new(), |net| net.gossip.neighbours());
        neighbours.iter().map(|one| (one.gossip, one.since.elapsed().as_secs_f64())).collect()
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
        let (heard, told) = net.gossip.traffic();
        (fetched + traffic.fetched() + heard, sent + traffic.payload_sent + told)
    }

    fn write_meters(&self) {
        let (fetched, sent) = self.meters();
        self.core.cache.set_meter("fetched", fetched);
        self.core.cache.set_meter("sent", sent);
    }
}

/// Both families, or where the system has no IPv6, the other.
fn available(listen: SocketAddr) -> SocketAddr {
    let all_v6 = listen.is_ipv6() && listen.ip().is_unspecified();
    if all_v6 && std::net::TcpListener::bind((listen.ip(), 0)).is_err() {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()));
    }
    listen
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
