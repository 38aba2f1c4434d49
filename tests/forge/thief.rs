//! The thief: a device that joined with the write link, opened in this process.

use super::harness::{Device, NAME, World};
use super::process::{PATIENCE, wait_until};
use kilofs::base::{InfoHash, SessionId};
use kilofs::crypt::Purpose;
use kilofs::crypt::keyring::{self, Factors};
use kilofs::crypt::keys::AdminKey;
use kilofs::daemon::config::Options;
use kilofs::daemon::core::{Core, now_seconds};
use kilofs::daemon::home::{Home, Name};
use kilofs::image::Image;
use kilofs::net::gossip::{Event, Gossip, GossipOptions};
use kilofs::net::{Dht, DhtOptions, Swarm, SwarmOptions};
use kilofs::record::{Policy, Record, SignedItem, VersionRef};
use kilofs::torrent::{Limits, Metainfo};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const SECONDS_A_DAY: u32 = 86_400;
const STALL: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits { metainfo_bytes_max: 8 << 20, image_bytes_max: 1 << 32 };

/// A device that keeps no rule.
pub struct Thief {
    // The order matters: the network lets go of the store before the core does.
    pub swarm: Swarm,
    dht: Dht,
    pub core: Core,
    /// An admin key that is not the database's.
    pub admin: AdminKey,
    pub session: SessionId,
    runtime: Runtime,
    _device: Device,
}

impl Thief {
    /// Joins with the write link that `victim` gave away.
    pub fn join(world: &World, victim: &Device) -> Thief {
        let device = world.device("thief");
        device.join(&victim.link("write"));
        let name = Name::new(NAME).unwrap();
        let paths = Home::at(&device.home).prepare(&name).unwrap();
        let keyring = keyring::open(&std::fs::read(&paths.keyring).unwrap(), &Factors::default()).unwrap();
        let settings = Options::read(&paths.config).unwrap().settle();
        let folder = paths.torrents.clone();
        let held = keyring.capability.kind();
        let core = Core::open(name, paths, keyring, held, settings, false).unwrap();
        let runtime = Runtime::new().unwrap();
        let (dht, swarm) = runtime.block_on(async {
            let options = DhtOptions {
                bootstrap: vec![world.bootstrap()],
                bind: Some(Ipv4Addr::LOCALHOST),
                ..DhtOptions::default()
            };
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            (
                Dht::start(options).await.unwrap(),
                Swarm::start(SwarmOptions::new(listen, folder)).await.unwrap(),
            )
        });
        let session = SessionId(rand());
        let thief =
            Thief { swarm, dht, core, admin: AdminKey::generate(), session, runtime, _device: device };
        thief.announce(thief.swarm.port());
        thief.catch_up();
        thief
    }

    /// Says under the rendezvous that a port serves versions.
    pub fn announce(&self, port: u16) {
        for rendezvous in self.rendezvous() {
            self.runtime.block_on(self.dht.announce(rendezvous, port)).unwrap();
        }
    }

    /// Announces ports that lead nowhere, each from a node of its own: nodes keep one port for whoever asks.
    pub fn squat(&self, world: &World, ports: Vec<u16>) -> Vec<Dht> {
        let day = now_seconds() / SECONDS_A_DAY;
        let start = async |port| {
            let options = DhtOptions {
                bootstrap: vec![world.bootstrap()],
                bind: Some(Ipv4Addr::LOCALHOST),
                ..DhtOptions::default()
            };
            let dht = Dht::start(options).await.unwrap();
            for day in [day - 1, day, day + 1] {
                for purpose in [Purpose::Torrent, Purpose::Gossip] {
                    dht.announce(self.core.keys.record.rendezvous(day, purpose), port).await.unwrap();
                }
            }
            dht
        };
        ports.into_iter().map(|port| self.runtime.block_on(start(port))).collect()
    }

    /// Takes part among neighbours.
    pub fn gossip(&self) -> (Gossip, mpsc::Receiver<Event>) {
        let options = GossipOptions {
            meets: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            torrent_port: self.swarm.port(),
            secret: self.core.keys.record.gossip_secret(),
            limit_up: None,
            limit_down: None,
        };
        let day = now_seconds() / SECONDS_A_DAY;
        self.runtime.block_on(async {
            let (gossip, events) = Gossip::start(options).await.unwrap();
            for day in [day - 1, day, day + 1] {
                let rendezvous = self.core.keys.record.rendezvous(day, Purpose::Gossip);
                gossip.candidates(self.dht.peers(rendezvous, Duration::from_secs(2)).await, true);
            }
            (gossip, events)
        })
    }

    /// Runs what is asynchronous.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn rendezvous(&self) -> impl Iterator<Item = InfoHash> {
        let day = now_seconds() / SECONDS_A_DAY;
        [day - 1, day, day + 1].into_iter().map(|day| self.core.keys.record.rendezvous(day, Purpose::Torrent))
    }

    /// The newest item in the DHT, with its record if it opens.
    pub fn heard(&self) -> Option<(i64, Option<Record>)> {
        let found = self.runtime.block_on(self.dht.get(&self.core.keys.database_public, None)).ok()?;
        let item = found.items.first()?;
        Some((item.seq, Record::decode(&self.core.keys.record, &item.value).ok()))
    }

    /// The newest item in the DHT, as it was signed.
    pub fn item(&self) -> SignedItem {
        let found = self.runtime.block_on(self.dht.get(&self.core.keys.database_public, None)).unwrap();
        found.items.into_iter().next().unwrap()
    }

    /// The newest record, which opens.
    pub fn record(&self) -> Record {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some((_, Some(record))) = self.heard() {
                return record;
            }
            assert!(Instant::now() < end, "no record in the DHT opens");
        }
    }

    /// Takes the newest version, as an honest device would.
    pub fn catch_up(&self) {
        let record = self.record();
        let newest = record.versions[0];
        if self.core.inner().state.head == Some(newest) {
            return;
        }
        let mut image = None;
        wait_until("the thief has the newest version", || {
            image = self.fetch(newest);
            image.is_some()
        });
        self.core.take(newest, image.unwrap(), &record.policy).unwrap();
        assert_eq!(self.core.inner().state.head, Some(newest), "the newest version is taken");
        assert_eq!(self.core.inner().state.policy, record.policy);
    }

    /// Takes the newest version of a record if it can be had; says whether that is what the thief stands on now.
    pub fn try_to_take(&self, record: &Record) -> bool {
        let newest = record.versions[0];
        if self.core.inner().state.head != Some(newest) {
            let Some(image) = self.fetch(newest) else { return false };
            self.core.take(newest, image, &record.policy).unwrap();
        }
        self.core.inner().state.head == Some(newest)
    }

    fn fetch(&self, version: VersionRef) -> Option<Image> {
        self.runtime.block_on(async {
            let mut peers = Vec::new();
            for rendezvous in self.rendezvous() {
                peers.extend(self.dht.peers(rendezvous, Duration::from_secs(2)).await);
            }
            peers.retain(|peer| peer.port() != self.swarm.port());
            let info = self.swarm.metainfo(version.infohash, &peers, STALL).await.ok()?;
            let metainfo = Metainfo::parse(&info, &LIMITS).unwrap();
            let incoming = Arc::new(self.core.store.incoming(metainfo.hashes.clone(), &[]).unwrap());
            self.swarm.fetch(&metainfo, &incoming, &peers, STALL).await.ok()?;
            self.swarm.remove(version.infohash).await;
            Some(incoming.finish().unwrap())
        })
    }

    /// Serves an image.
    pub fn seed(&self, metainfo: &Metainfo, image: &Image) {
        self.runtime.block_on(self.swarm.seed(metainfo, &self.core.store, image)).unwrap();
    }

    /// Puts a record above whatever is there; says under which number.
    pub fn put(&self, versions: Vec<VersionRef>, policy: Policy) -> i64 {
        let record = Record { time: now_seconds(), flags: 0, versions, policy };
        self.put_value(&record.encode_sealed(&self.core.keys.record))
    }

    /// The item under the admin's key.
    pub fn lifeline(&self) -> Option<SignedItem> {
        let found = self.runtime.block_on(self.dht.get(&self.core.keys.admin_public, None)).ok()?;
        found.items.into_iter().next()
    }

    /// Puts garbage under the last number that there is.
    pub fn burn(&self) {
        let key = self.core.keys.database_key.as_ref().unwrap();
        let item = SignedItem::sign(key, i64::MAX, vec![7; 995]);
        wait_until("the last number is in the DHT", || {
            self.runtime.block_on(self.dht.put(&item, None)).is_ok()
        });
    }

    /// Puts any value above whatever is there; says under which number.
    pub fn put_value(&self, value: &[u8]) -> i64 {
        let mut seq = 0;
        wait_until("the thief's record is in the DHT", || {
            let Some((newest, _)) = self.heard() else { return false };
            seq = newest + 1;
            self.tries_to_put(seq, value)
        });
        seq
    }

    /// Puts any value under any number.
    pub fn put_under(&self, seq: i64, value: &[u8]) {
        wait_until("the thief's record is in the DHT", || self.tries_to_put(seq, value));
    }

    fn tries_to_put(&self, seq: i64, value: &[u8]) -> bool {
        let key = self.core.keys.database_key.as_ref().unwrap();
        let item = SignedItem::sign(key, seq, value.to_vec());
        self.runtime.block_on(self.dht.put(&item, None)).is_ok()
    }
}

/// Random bytes.
pub fn rand<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
