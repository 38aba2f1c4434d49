//! Those of a database who are on the same cable: found by multicast, without DHT and without a way out.
//!
//! A datagram says nothing but a rendezvous infohash, which whoever watches the DHT sees as well, and two ports. It is sent
//! to a group that routers do not pass on. Nobody is answered in person, so nothing can be reflected to others, and what is
//! heard is only a place to try: who answers there has to prove that it knows the record key.

use crate::base::{InfoHash, Reader, Writer};
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, bind, netdevice, socket, sockopt};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// Administratively scoped (RFC 2365), and transient with link-local scope (RFC 4291).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 107, 102);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x6b66, 0x6c61);
/// The port of both groups.
pub const LAN_PORT: u16 = 27_495;

const MAGIC: &[u8; 8] = b"kilofsln";
const FORMAT: u8 = 1;
/// Magic, format, sender, infohash, two ports.
const DATAGRAM_BYTES: usize = 8 + 1 + 8 + 20 + 2 + 2;
/// Between two announcements that nobody asked for.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(300);
/// Between two announcements at least, whatever is heard.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);
/// How often to look for interfaces that came or went.
const INTERFACES_PERIOD: Duration = Duration::from_secs(10);
const INTERFACES_MAX: usize = 32;
/// Between two datagrams that are read; a flood is dropped by the kernel, not worked off.
const READ_PAUSE: Duration = Duration::from_millis(5);
/// Findings that wait to be looked at; more are dropped.
const FOUND_MAX: usize = 64;

/// What is announced, and where.
#[derive(Clone, Debug)]
pub struct LanOptions {
    /// Where neighbours are awaited.
    pub gossip_port: u16,
    /// Where torrents are served.
    pub torrent_port: u16,
    /// Where this engine listens: what is announced comes from there, in the families in which it can be reached. An
    /// address of loopback stays on this machine.
    pub listen: IpAddr,
    /// Announce on this port; [`LAN_PORT`] unless tests must not hear each other.
    pub port: u16,
}

/// Somebody who announced a rendezvous of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nearby {
    /// Where it awaits neighbours.
    pub gossip: SocketAddr,
    /// Where it serves torrents.
    pub torrents: SocketAddr,
}

/// Announces and listens until it is dropped.
pub struct Lan {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

struct Inner {
    options: LanOptions,
    /// Tells our own datagrams from those of others.
    sender: u64,
    rendezvous: Mutex<Vec<InfoHash>>,
    /// Something is to be announced soon.
    wanted: Notify,
    found: mpsc::Sender<Nearby>,
}

/// Two sockets of one family on one interface: what is bound to a group hears nothing else, and cannot choose from where it
/// speaks.
struct Ear {
    socket: UdpSocket,
    mouth: UdpSocket,
    group: SocketAddr,
}

impl Lan {
    /// Starts with nothing to announce. Must be called on a tokio runtime. That an interface, a family or all of them do
    /// not do multicast is no error: nobody is found there.
    pub fn start(options: LanOptions) -> (Lan, mpsc::Receiver<Nearby>) {
        let (found, receiver) = mpsc::channel(FOUND_MAX);
        let inner = Arc::new(Inner {
            options,
            sender: getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())),
            rendezvous: Mutex::default(),
            wanted: Notify::new(),
            found,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(inner.clone().run());
        (Lan { inner, _tasks: tasks }, receiver)
    }

    /// Announces these and listens for them, in place of those before.
    pub fn announce(&self, rendezvous: Vec<InfoHash>) {
        *self.inner.rendezvous.lock() = rendezvous;
        self.inner.wanted.notify_one();
    }
}

impl Inner {
    async fn run(self: Arc<Self>) {
        let mut interfaces = BTreeSet::new();
        let mut ears: Vec<Arc<Ear>> = Vec::new();
        let mut listening = JoinSet::new();
        let mut looked: Option<Instant> = None;
        let mut announced: Option<Instant> = None;
        loop {
            let mut changed = false;
            if looked.is_none_or(|at| at.elapsed() >= INTERFACES_PERIOD) {
                looked = Some(Instant::now());
                let present = interface_indices(self.options.listen.is_loopback());
                changed = present != interfaces;
                if changed {
                    listening.shutdown().await;
                    ears = present.iter().flat_map(|index| open_ears(*index, &self.options)).collect();
                    for ear in &ears {
                        listening.spawn(self.clone().listen(ear.clone()));
                    }
                    interfaces = present;
                }
            }
            if changed || announced.is_none_or(|at| at.elapsed() >= ANNOUNCE_PERIOD) {
                self.wanted.notify_one();
            }
            if tokio::time::timeout(INTERFACES_PERIOD, self.wanted.notified()).await.is_err() {
                continue;
            }
            if let Some(at) = announced {
                tokio::time::sleep(ANNOUNCE_PAUSE.saturating_sub(at.elapsed())).await;
            }
            announced = Some(Instant::now());
            self.say(&ears).await;
        }
    }

    async fn say(&self, ears: &[Arc<Ear>]) {
        let rendezvous = self.rendezvous.lock().clone();
        for infohash in rendezvous {
            let datagram = self.datagram(infohash);
            for ear in ears {
                if let Err(error) = ear.mouth.send_to(&datagram, ear.group).await {
                    tracing::debug!(group = %ear.group, %error, "not announced here");
                }
            }
        }
    }

    async fn listen(self: Arc<Self>, ear: Arc<Ear>) {
        let mut buffer = [0; DATAGRAM_BYTES + 1];
        let mut known = BTreeSet::new();
        loop {
            if let Ok((bytes, from)) = ear.socket.recv_from(&mut buffer).await
                && let Some(nearby) = self.understand(&buffer[..bytes], from)
            {
                // A newcomer has not heard us; one whom we know has.
                if known.insert(nearby.gossip) {
                    self.wanted.notify_one();
                }
                if known.len() > FOUND_MAX {
                    known.clear();
                }
                _ = self.found.try_send(nearby);
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    fn datagram(&self, infohash: InfoHash) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).u8(FORMAT).u64(self.sender).raw(&infohash.0);
        writer.u16(self.options.gossip_port).u16(self.options.torrent_port);
        writer.0
    }

    /// Who announces itself, if it is somebody else and announces what we look for.
    fn understand(&self, datagram: &[u8], from: SocketAddr) -> Option<Nearby> {
        let mut reader = Reader::new(datagram);
        let greeting: [u8; 9] = reader.array().ok()?;
        let sender = reader.u64().ok()?;
        let infohash = InfoHash(reader.array().ok()?);
        let (gossip, torrents) = (reader.u16().ok()?, reader.u16().ok()?);
        reader.end().ok()?;
        let ours = greeting[..8] == MAGIC[..] && greeting[8] == FORMAT && sender != self.sender;
        if !ours || gossip == 0 || torrents == 0 || !self.rendezvous.lock().contains(&infohash) {
            return None;
        }
        let at = |port| {
            let mut address = from;
            address.set_port(port);
            address
        };
        Some(Nearby { gossip: at(gossip), torrents: at(torrents) })
    }
}

/// The interfaces of the network that this process is in; those of others are not shown there.
fn interface_indices(loopback_only: bool) -> BTreeSet<u32> {
    let Ok(text) = std::fs::read_to_string("/proc/net/dev") else { return BTreeSet::new() };
    let Ok(any) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return BTreeSet::new() };
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let wanted = names.filter(|name| !loopback_only || *name == "lo");
    wanted.filter_map(|name| netdevice::name_to_index(&any, name).ok()).take(INTERFACES_MAX).collect()
}

fn open_ears(interface: u32, options: &LanOptions) -> Vec<Arc<Ear>> {
    let v4: SocketAddr = (GROUP_V4, options.port).into();
    let v6: SocketAddr = SocketAddrV6::new(GROUP_V6, options.port, 0, interface).into();
    let groups = match options.listen {
        IpAddr::V4(_) => vec![v4],
        IpAddr::V6(all) if all.is_unspecified() => vec![v4, v6],
        IpAddr::V6(_) => vec![v6],
    };
    let ear = |group| match open_ear(interface, group, options.listen) {
        Ok(ear) => Some(Arc::new(ear)),
        Err(error) => {
            tracing::debug!(interface, %group, %error, "no multicast here");
            None
        }
    };
    groups.into_iter().filter_map(ear).collect()
}

/// Several processes may listen to one group.
fn open_ear(interface: u32, group: SocketAddr, listen: IpAddr) -> io::Result<Ear> {
    let family = if group.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let any: IpAddr =
        if group.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = if listen.is_ipv4() == group.is_ipv4() { listen } else { any };
    let ear = socket(family, SocketType::DGRAM, None)?;
    let mouth = socket(family, SocketType::DGRAM, None)?;
    sockopt::set_socket_reuseaddr(&ear, true)?;
    bind(&ear, &group)?;
    if group.is_ipv4() {
        sockopt::set_ip_add_membership_with_ifindex(&ear, &GROUP_V4, &Ipv4Addr::UNSPECIFIED, interface)?;
        sockopt::set_ip_multicast_if_with_ifindex(&mouth, &GROUP_V4, &Ipv4Addr::UNSPECIFIED, interface)?;
    } else {
        sockopt::set_ipv6_add_membership(&ear, &GROUP_V6, interface)?;
    }
    bind(&mouth, &SocketAddr::new(from, 0))?;
    let [socket, mouth] = [ear, mouth].map(|fd| {
        let socket = std::net::UdpSocket::from(fd);
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    Ok(Ear { socket: socket?, mouth: mouth?, group })
}

#[cfg(test)]
#[path = "lan_tests.rs"]
mod tests;
