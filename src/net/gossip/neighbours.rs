//! Who is connected: dials candidates until there are enough neighbours, accepts others, and hands messages around.

use super::candidates::{Candidates, at_port};
use super::coming;
use super::doubt::Pulse;
use super::link::{self, Burden, Burdens, Incoming, Outgoing, Shared};
use super::message::{ADDRESSES_MAX, Hello, Message};
use super::options::{GossipOptions, Neighbour};
use super::own::{is_of_use, is_own, own_addresses};
use super::pace::Pace;
use super::queue::{Outlet, Queue};
use crate::crypt::Secret;
use crate::net::NetError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

/// So many connections are sought.
const WANTED: usize = 8;
/// So many are kept; beyond it nobody is let in.
pub(super) const NEIGHBOURS_MAX: usize = 24;
const DIAL_DEADLINE: Duration = Duration::from_secs(4);
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
const PING_PERIOD: Duration = Duration::from_secs(20);
const EVENTS_MAX: usize = 256;

/// One connected neighbour, as long as it stays connected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NeighbourId(u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A neighbour is connected: it does not know yet what this device knows.
    Met(NeighbourId),
    /// A neighbour is gone.
    Left(NeighbourId),
    /// A neighbour said something.
    Said(NeighbourId, Message),
    /// That was long: whoever asks is told that it is arriving until this is dropped.
    Heard(Burden),
}

/// The neighbours of one database at one device; clones share them, and all connections end with the last.
#[derive(Clone)]
pub struct Gossip(pub(super) Arc<Handle>);

pub(super) struct Handle {
    pub(super) inner: Arc<Inner>,
    stop: CancellationToken,
}

pub(super) struct Inner {
    own: Hello,
    pub(super) secret: Mutex<Secret>,
    listen: SocketAddr,
    events: mpsc::Sender<Event>,
    pub(super) state: Mutex<State>,
    pub(super) wake: Notify,
    next: AtomicU64,
    shared: Shared,
    stop: CancellationToken,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) neighbours: BTreeMap<NeighbourId, Connected>,
    pub(super) candidates: Candidates,
    /// Connections that have not greeted yet.
    pub(super) greeting: usize,
}

pub(super) struct Connected {
    hello: Hello,
    gossip: SocketAddr,
    torrents: SocketAddr,
    /// Where else it says that it can be reached.
    also: Vec<SocketAddr>,
    dialled: bool,
    since: Instant,
    pub(super) queue: Queue,
    /// What is known of its being alive.
    pub(super) pulse: Arc<Pulse>,
    pub(super) end: CancellationToken,
}

/// What became of a fresh connection.
enum Entry {
    Entered(NeighbourId),
    /// It leads to who is connected already: that one stays, if it lives.
    Twin(NeighbourId),
    Refused,
}

impl Gossip {
    /// Listens, and dials candidates as they are named. Events must be taken from the receiver.
    pub async fn start(options: GossipOptions) -> Result<(Gossip, mpsc::Receiver<Event>), NetError> {
        let listener = match TcpListener::bind(options.listen).await {
            Ok(listener) => listener,
            Err(_) => {
                let any = SocketAddr::new(options.listen.ip(), 0);
                TcpListener::bind(any).await.map_err(|source| NetError::Bind { address: any, source })?
            }
        };
        let listen =
            listener.local_addr().map_err(|source| NetError::Bind { address: options.listen, source })?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|error| NetError::Engine { what: "drawing an id", source: error.into() })?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            own: Hello { id, gossip_port: listen.port(), torrent_port: options.torrent_port },
            secret: Mutex::new(options.secret),
            listen,
            events,
            state: Mutex::default(),
            wake: Notify::new(),
            next: AtomicU64::new(0),
            shared: Shared {
                down: Arc::new(Pace::new(options.limit_down)),
                up: Arc::new(Pace::new(options.limit_up)),
                burdens: Burdens::default(),
            },
            stop: stop.clone(),
        });
        if options.meets {
            tokio::spawn(coming::accept_all(Arc::downgrade(&inner), listener, stop.clone()));
            tokio::spawn(coming::dial_all(Arc::downgrade(&inner), stop.clone()));
        }
        Ok((Gossip(Arc::new(Handle { inner, stop })), receiver))
    }

    /// Limits what is sent to all together, in bytes a second, where it was limited from the start.
    pub fn limit_up(&self, a_second: u32) {
        self.0.inner.shared.up.renew(a_second);
    }

    /// The same for what is fetched.
    pub fn limit_down(&self, a_second: u32) {
        self.0.inner.shared.down.renew(a_second);
    }

    /// Where neighbours connect: the port to announce.
    pub fn port(&self) -> u16 {
        self.0.inner.listen.port()
    }

    /// Addresses at which neighbours may be found. One that was named by hand is never given up.
    pub fn candidates(&self, addresses: impl IntoIterator<Item = SocketAddr>, by_hand: bool) {
        self.0.inner.add(addresses, by_hand);
    }

    /// Says something to all neighbours but one. Encoded once; never waits.
    pub fn tell(&self, message: &Message, except: Option<NeighbourId>) -> usize {
        let encoded = Arc::new(message.encode());
        let state = self.0.inner.state.lock();
        let others = state.neighbours.iter().filter(|(id, _)| Some(**id) != except);
        others.filter(|(_, neighbour)| neighbour.queue.offer(encoded.clone())).count()
    }

    /// Says something to one neighbour.
    pub fn say(&self, to: NeighbourId, message: &Message) -> bool {
        self.queue_of(to).is_some_and(|queue| queue.offer(Arc::new(message.encode())))
    }

    pub(super) fn queue_of(&self, to: NeighbourId) -> Option<Queue> {
        self.0.inner.state.lock().neighbours.get(&to).map(|neighbour| neighbour.queue.clone())
    }

    /// Ends the connection to a neighbour that lies.
    pub fn part(&self, from: NeighbourId) {
        if let Some(neighbour) = self.0.inner.state.lock().neighbours.get(&from) {
            neighbour.end.cancel();
        }
    }

    /// From now on neighbours hold another secret: those who are connected are left, and looked for again.
    pub fn rekey(&self, secret: Secret) {
        let inner = &self.0.inner;
        *inner.secret.lock() = secret;
        let mut state = inner.state.lock();
        let known: Vec<SocketAddr> = state.neighbours.values().map(|neighbour| neighbour.gossip).collect();
        state.neighbours.values().for_each(|neighbour| neighbour.end.cancel());
        for address in known {
            state.candidates.add(address, false);
        }
        state.candidates.afresh();
        drop(state);
        inner.wake.notify_one();
    }

    /// Who is connected.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        let state = self.0.inner.state.lock();
        let all = state.neighbours.iter();
        let neighbour = |(id, one): (&NeighbourId, &Connected)| Neighbour {
            id: *id,
            torrents: one.torrents,
            gossip: one.gossip,
            since: one.since,
        };
        all.map(neighbour).collect()
    }

    /// Whether a long message, most likely the bytes of a change, is arriving or has not been heard yet.
    pub fn hears_much(&self) -> bool {
        self.0.inner.shared.burdens.any()
    }

    /// Bytes that arrived and bytes that were sent, as they were on the wire.
    pub fn traffic(&self) -> (u64, u64) {
        let inner = &self.0.inner;
        (inner.shared.down.bytes(), inner.shared.up.bytes())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    fn add(&self, addresses: impl IntoIterator<Item = SocketAddr>, by_hand: bool) {
        let mut fresh = false;
        let mut state = self.state.lock();
        for address in addresses.into_iter().filter(|address| !is_own(self.listen, address)) {
            fresh |= state.candidates.add(address, by_hand);
        }
        drop(state);
        if fresh {
            self.wake.notify_one();
        }
    }

    /// A neighbour says where else it can be reached: of use when the present way is gone, and to others.
    fn learn(&self, id: NeighbourId, addresses: Vec<SocketAddr>) {
        let mut state = self.state.lock();
        let Some(neighbour) = state.neighbours.get_mut(&id) else { return };
        let new = |address: &SocketAddr| *address != neighbour.gossip && is_of_use(address);
        let also: Vec<SocketAddr> = addresses.into_iter().filter(new).collect();
        neighbour.also.clone_from(&also);
        let news = Arc::new(Message::Addresses(also.clone()).encode());
        for (_, other) in state.neighbours.iter().filter(|(other, _)| **other != id) {
            let _ = other.queue.offer(news.clone());
        }
        drop(state);
        self.add(also, false);
    }

    /// Candidates to dial now.
    pub(super) fn due(&self) -> Vec<SocketAddr> {
        let mut state = self.state.lock();
        let sure = state.neighbours.values().filter(|neighbour| !neighbour.pulse.is_doubted());
        let connected: Vec<(SocketAddr, [u8; 16])> =
            sure.map(|neighbour| (neighbour.gossip, neighbour.hello.id)).collect();
        state.candidates.due(&connected, WANTED)
    }

    pub(super) async fn dial(self: Arc<Self>, address: SocketAddr) {
        let began = Instant::now();
        let linked = async {
            let stream = timeout(DIAL_DEADLINE, TcpStream::connect(address)).await??;
            let secret = self.secret.lock().clone();
            link::dial(stream, &secret, self.shared()).await
        };
        let ended = match linked.await {
            Ok(link) => {
                self.state.lock().greeting += 1;
                self.clone().converse(link, address, true).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "a neighbour was not reached or is gone");
        }
        self.state.lock().candidates.ended(&address, began.elapsed());
    }

    /// Talks over a fresh channel until it ends.
    pub(super) async fn converse(
        self: Arc<Self>,
        (mut incoming, mut outgoing): (Incoming, Outgoing),
        from: SocketAddr,
        dialled: bool,
    ) -> io::Result<()> {
        let greeted = timeout(HELLO_DEADLINE, async {
            outgoing.greet(&Message::Hello(self.own).encode()).await?;
            incoming.greeting().await
        });
        let greeted = greeted.await;
        self.state.lock().greeting -= 1;
        let Some(Message::Hello(hello)) = greeted?? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not say who it is"));
        };
        let (queue, outlet) = Queue::new();
        let end = self.stop.child_token();
        let connected = Connected {
            hello,
            gossip: at_port(from, hello.gossip_port),
            torrents: at_port(from, hello.torrent_port),
            also: Vec::new(),
            dialled,
            since: Instant::now(),
            queue,
            pulse: Arc::default(),
            end: end.clone(),
        };
        let (pulse, queue) = (connected.pulse.clone(), connected.queue.clone());
        let Some(id) = self.enter_or_outlive(connected, from, dialled).await else { return Ok(()) };
        let _ = self.events.send(Event::Met(id)).await;
        let result = tokio::select! {
            result = self.listen_to(id, incoming, (&pulse, &queue)) => result,
            result = self.speak(outlet, outgoing) => result,
            () = end.cancelled() => Ok(()),
        };
        self.state.lock().neighbours.remove(&id);
        self.wake.notify_one();
        let _ = self.events.send(Event::Left(id)).await;
        result
    }

    /// Takes a neighbour in, in the place of its earlier connection if that turns out to be dead.
    async fn enter_or_outlive(
        &self,
        connected: Connected,
        from: SocketAddr,
        dialled: bool,
    ) -> Option<NeighbourId> {
        let (neighbour, mut connected) = (connected.hello.id, Some(connected));
        loop {
            match self.enter(&mut connected, from, dialled) {
                Entry::Entered(id) => return Some(id),
                Entry::Refused => return None,
                Entry::Twin(twin) if self.lives(twin).await => {
                    if dialled {
                        self.state.lock().candidates.leads_to(&from, neighbour);
                    }
                    return None;
                }
                Entry::Twin(twin) => self.bury(twin),
            }
        }
    }

    /// Of two connections between the same two, both ends keep the one that the lower id dialled; if one side dialled
    /// both, at two addresses of the other, the first.
    fn enter(&self, fresh: &mut Option<Connected>, from: SocketAddr, dialled: bool) -> Entry {
        let mut state = self.state.lock();
        let Some(connected) = fresh.take() else { return Entry::Refused };
        let hello = connected.hello;
        if hello.id == self.own.id {
            state.candidates.is_self(&from);
            return Entry::Refused;
        }
        let favoured = dialled == (self.own.id < hello.id);
        let twin = state.neighbours.iter().find(|(_, known)| known.hello.id == hello.id);
        if let Some((twin, known)) = twin {
            let other_way = known.dialled == dialled && known.gossip.ip() != from.ip();
            let (twin, end) = (*twin, known.end.clone());
            // One that said nothing while this one was dialled and greeted is slower than that, or gone.
            if (!favoured || other_way) && !known.pulse.is_doubted() {
                *fresh = Some(connected);
                return Entry::Twin(twin);
            }
            end.cancel();
            state.neighbours.remove(&twin);
        } else if state.neighbours.len() >= NEIGHBOURS_MAX {
            return Entry::Refused;
        }
        let ways = |known: &Connected| [&[known.gossip][..], &known.also].concat();
        let others = state.neighbours.values().flat_map(ways).filter(is_of_use).take(ADDRESSES_MAX);
        let _ = connected.queue.offer(Arc::new(Message::Addresses(others.collect()).encode()));
        let own = own_addresses(self.listen);
        if !own.is_empty() {
            let _ = connected.queue.offer(Arc::new(Message::Own(own).encode()));
        }
        let news = Arc::new(Message::Addresses(vec![connected.gossip]).encode());
        for known in state.neighbours.values() {
            let _ = known.queue.offer(news.clone());
        }
        let id = NeighbourId(self.next.fetch_add(1, Ordering::Relaxed));
        state.neighbours.insert(id, connected);
        Entry::Entered(id)
    }

    async fn listen_to(
        &self,
        id: NeighbourId,
        mut incoming: Incoming,
        (pulse, queue): (&Pulse, &Queue),
    ) -> io::Result<()> {
        loop {
            let message = incoming.read().await?;
            pulse.heard();
            match message {
                None | Some(Message::Pong | Message::Hello(_)) => {}
                Some(Message::Ping) => _ = queue.offer(Arc::new(Message::Pong.encode())),
                Some(Message::Addresses(addresses)) => self.add(addresses, false),
                Some(Message::Own(addresses)) => self.learn(id, addresses),
                Some(message) => {
                    if self.events.send(Event::Said(id, message)).await.is_err() {
                        return Ok(());
                    }
                    if let Some(burden) = incoming.burden() {
                        let _ = self.events.send(Event::Heard(burden)).await;
                    }
                }
            }
        }
    }

    async fn speak(&self, mut outlet: Outlet, mut outgoing: Outgoing) -> io::Result<()> {
        let mut ping = interval(PING_PERIOD);
        ping.tick().await;
        loop {
            tokio::select! {
                message = outlet.next() => match message {
                    Some(message) => outgoing.write(&message).await?,
                    None => return Ok(()),
                },
                _ = ping.tick() => outgoing.write(&Message::Ping.encode()).await?,
            }
        }
    }
}
