//! News between neighbours: what is published goes out with the bytes that changed, what arrives is laid over what is
//! here and told on.
//!
//! Nothing that comes this way is believed: the record is signed, the patched hashes must give the infohash that it
//! names, every piece must have its hash. What does not fit is dropped, and the torrent brings it.

use super::delta::Arrival;
use super::drive::{Driver, Net, error_chain};
use crate::base::{Id, InfoHash};
use crate::crypt::Purpose;
use crate::net::gossip::{Delta, Event, Message, NeighbourId, News};
use crate::record::{Record, SignedItem, VersionRef};
use crate::sync::{Heard, Input};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Records of which it is remembered that they were told on.
const TOLD_MAX: usize = 64;
/// Versions that have arrived by news and wait to be taken.
const ARRIVALS_MAX: usize = 8;
/// How long the base of a difference may take to be taken, and how often it is looked for.
const BASE_PATIENCE: Duration = Duration::from_millis(500);
const BASE_PAUSE: Duration = Duration::from_millis(2);
/// Bytes that an answer brings along. Who asks for the difference has missed versions, or is about to hear of others: what is
/// more is fetched when it is known which version is taken, and comes once.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a fetch waits for what a neighbour is telling, which may be what is to be fetched.
const NEWS_PATIENCE: Duration = Duration::from_secs(20);
/// And for that to begin, where neighbours are connected and none of them has told the record that the DHT brought: it takes
/// as long to seal the bytes of a change as to look a record up.
const NEWS_GRACE: Duration = Duration::from_millis(300);
const NEWS_PAUSE: Duration = Duration::from_millis(5);
const RENDEZVOUS_DEADLINE: Duration = Duration::from_secs(4);

/// What is on its way between neighbours.
#[derive(Default)]
pub(super) struct Exchanged {
    /// The difference that the version made last is to the one before it.
    pub made: Option<Arc<Delta>>,
    /// Versions whose hashes, and perhaps bytes, came with news.
    arrivals: VecDeque<Arrival>,
    /// The last versions that came whole: several neighbours tell the same.
    laid: VecDeque<InfoHash>,
    /// Values that were told on, or need not be.
    told: VecDeque<Id>,
    /// News that are told on once their version can be served from here.
    waiting: VecDeque<(InfoHash, Option<NeighbourId>, Message)>,
    /// Pieces that are asked for.
    pub asks: super::ask::Asks,
}

impl Exchanged {
    /// Whether a value is seen for the first time.
    fn is_new(&mut self, digest: Id) -> bool {
        if self.told.contains(&digest) {
            return false;
        }
        self.told.push_back(digest);
        if self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
        true
    }

    /// Whether all of a version has come by news already.
    fn has_all_of(&self, infohash: &InfoHash) -> bool {
        self.laid.contains(infohash)
    }

    fn wait(&mut self, version: InfoHash, from: Option<NeighbourId>, message: Message) {
        self.waiting.push_back((version, from, message));
        if self.waiting.len() > ARRIVALS_MAX {
            self.waiting.pop_front();
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let infohash = arrival.metainfo.infohash();
        if arrival.incoming.complete() {
            self.laid.push_back(infohash);
            if self.laid.len() > TOLD_MAX {
                self.laid.pop_front();
            }
        }
        self.arrivals.retain(|known| known.metainfo.infohash() != infohash);
        self.arrivals.push_back(arrival);
        if self.arrivals.len() > ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
    }

    /// Lets go what news brought and nobody has taken: it holds slots of the store, and can be fetched.
    pub fn forget_arrivals(&mut self) {
        self.arrivals.clear();
        self.laid.clear();
    }

    /// What news brought of a version; given once.
    pub fn take(&mut self, infohash: &InfoHash) -> Option<Arrival> {
        let at = self.arrivals.iter().position(|arrival| arrival.metainfo.infohash() == *infohash)?;
        self.arrivals.remove(at)
    }
}

impl Driver {
    /// Signs a record over the head and tells all neighbours.
    pub(super) fn tell_neighbours(&self, net: &Net, versions: &[VersionRef], seq: i64) -> Option<Heard> {
        let item = self.sign(versions, seq)?;
        let newest = versions.first()?.infohash;
        let heard = self.heard_of(&item);
        let delta = {
            let mut facts = self.facts.lock();
            facts.exchanged.is_new(heard.digest);
            facts.exchanged.made.clone().filter(|delta| delta.infohash == newest)
        };
        // Saved with the next commit: a number that is used twice after a power cut leads to a merge, not to a loss.
        {
            let mut inner = self.core.inner();
            let current = item.key == self.core.keys.database_public;
            if current && inner.state.accepted.as_ref().is_none_or(|known| item.seq >= known.seq) {
                inner.state.accepted = Some(item.clone());
            }
        }
        let delta = delta.map(|delta| Delta::clone(&delta));
        let reached = net.gossip.tell(&Message::News(Box::new(News { item, delta })), None);
        tracing::debug!(seq, reached, version = %newest, "told");
        Some(heard)
    }

    /// Listens to neighbours until they are gone with the engine.
    pub(super) async fn converse(self: Arc<Self>, events: mpsc::Receiver<Event>) {
        let mut events = self.sift(events);
        while let Some(event) = events.recv().await {
            let Some(net) = self.net() else { return };
            match event {
                Event::Met(id) => {
                    self.tell(Input::Neighbours(net.gossip.neighbours().len()));
                    self.note_neighbour(net, id);
                    self.say_accepted(net, id);
                    self.tell_what_is_kept(net, Some(id));
                }
                Event::Left(id) => {
                    self.tell(Input::Neighbours(net.gossip.neighbours().len()));
                    self.note_parting(id);
                    self.facts.lock().demand.keepers.remove(&id);
                }
                Event::Said(from, Message::Keeps(kept)) => {
                    self.facts.lock().demand.keepers.insert(from, kept);
                }
                Event::Said(from, Message::News(news)) => self.clone().news(net, from, *news).await,
                Event::Said(from, Message::Want { infohash, bases }) => {
                    self.clone().answer(net, from, infohash, bases).await;
                }
                Event::Said(_, Message::Kept(seq)) => self.tell(Input::Kept(seq)),
                Event::Said(_, Message::Moved(moved)) => self.hear_of_move(net, *moved).await,
                Event::Said(..) | Event::Heard(_) => {}
            }
        }
    }

    fn say_accepted(&self, net: &Net, to: NeighbourId) {
        let item = self.core.inner().state.accepted.clone();
        if let Some(item) = item {
            net.gossip.say(to, &Message::News(Box::new(News { item, delta: None })));
        }
    }

    async fn news(self: Arc<Self>, net: &Net, from: NeighbourId, news: News) {
        let known = self.core.inner().state.accepted.as_ref().map(|item| item.seq);
        if known > Some(news.item.seq) {
            self.say_accepted(net, from);
            return;
        }
        let Some(heard) = self.overhear(&news.item) else {
            tracing::debug!("a neighbour told a record that is not signed with the database's key");
            net.gossip.part(from);
            return;
        };
        let Some(newest) = heard.versions.first().map(|version| version.infohash) else {
            self.tell(Input::Heard(heard));
            return;
        };
        self.facts.lock().exchanged.asks.has(from, newest);
        let is_new = self.facts.lock().exchanged.is_new(heard.digest);
        let here = self.core.inner().versions.get(&newest).is_some()
            || self.facts.lock().exchanged.has_all_of(&newest);
        let mut complete = false;
        if !here && let Some(delta) = &news.delta {
            if delta.infohash == newest {
                complete = self.lay_down(net, from, delta.clone()).await;
            } else {
                net.gossip.part(from);
                return;
            }
        } else if !here {
            self.want(net, from, newest);
        }
        let message = Message::News(Box::new(news));
        if is_new && (complete || here) {
            net.gossip.tell(&message, Some(from));
        } else if is_new {
            self.facts.lock().exchanged.wait(newest, Some(from), message);
        }
        self.tell(Input::Heard(heard));
    }

    /// Lets neighbours end what they are telling: a record that the DHT brings meanwhile is most likely the same one, and its
    /// bytes would come twice.
    pub(super) async fn await_news(&self, net: &Net, infohash: InfoHash) {
        let begun = Instant::now();
        let asks = self.facts.lock().exchanged.asks.clone();
        // What is here is waited for by the news that stand on it.
        let here = || {
            self.facts.lock().exchanged.has_all_of(&infohash)
                || self.core.inner().versions.get(&infohash).is_some()
        };
        let untold =
            || begun.elapsed() < NEWS_GRACE && !net.gossip.neighbours().is_empty() && !asks.is_had(&infohash);
        while (net.gossip.hears_much() || untold()) && !here() && begun.elapsed() < NEWS_PATIENCE {
            tokio::time::sleep(NEWS_PAUSE).await;
        }
    }

    /// What a look at the DHT brought is told to the neighbours, who leave some looks to each other: at once if it can
    /// be fetched from here, else when it can.
    pub(super) fn tell_found(&self, net: &Net, item: &SignedItem, heard: &Heard) {
        let Some(newest) = heard.versions.first().map(|version| version.infohash) else { return };
        let here = self.core.inner().versions.get(&newest).is_some();
        let mut facts = self.facts.lock();
        if !facts.exchanged.is_new(heard.digest) {
            return;
        }
        let message = Message::News(Box::new(News { item: item.clone(), delta: None }));
        if here {
            drop(facts);
            net.gossip.tell(&message, None);
        } else {
            facts.exchanged.wait(newest, None, message);
        }
    }

    /// Checks an item as a poll does, but leaves it to the next commit to make it durable.
    fn overhear(&self, item: &SignedItem) -> Option<Heard> {
        self.hear_and(item, false)
    }

    /// Asks for the difference to something that is here.
    fn want(&self, net: &Net, from: NeighbourId, infohash: InfoHash) {
        let bases: Vec<InfoHash> =
            self.core.inner().versions.iter().map(|version| version.reference.infohash).take(8).collect();
        if !bases.is_empty() {
            net.gossip.say(from, &Message::Want { infohash, bases });
        }
    }

    /// Whether the base of a difference is here. One that has come by news just before is about to be taken: asking for
    /// another difference instead would bring its bytes once more.
    async fn await_base(&self, base: &InfoHash) -> bool {
        let end = Instant::now() + BASE_PATIENCE;
        loop {
            if self.core.inner().versions.get(base).is_some() {
                return true;
            }
            if !self.facts.lock().exchanged.has_all_of(base) || Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(BASE_PAUSE).await;
        }
    }

    /// Whether all of the version is here now.
    async fn lay_down(&self, net: &Net, from: NeighbourId, delta: Delta) -> bool {
        let infohash = delta.infohash;
        let (core, limit) = (self.core.clone(), self.image_limit());
        if !self.await_base(&delta.base).await {
            self.want(net, from, infohash);
            return false;
        }
        if !self.has_room_for_news(net, &delta).await {
            return false;
        }
        match tokio::task::spawn_blocking(move || core.lay(&delta, limit)).await {
            Ok(Ok(Some(arrival))) => {
                let complete = arrival.incoming.complete();
                self.facts.lock().exchanged.arrived(arrival);
                complete
            }
            Ok(Ok(None)) => {
                tracing::debug!(version = %infohash, "a difference does not lead to the version that it names");
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(version = %infohash, error = %error_chain(&error), "news could not be laid down");
                false
            }
            Err(error) => {
                tracing::error!(%error, "laying news down ended abnormally");
                false
            }
        }
    }

    /// Tells a neighbour the difference to something that it has.
    async fn answer(self: Arc<Self>, net: &Net, to: NeighbourId, wanted: InfoHash, bases: Vec<InfoHash>) {
        let item = self.core.inner().state.accepted.clone();
        let Some(item) = item else { return };
        let record = Record::decode(&self.core.keys.record, &item.value);
        if record.is_ok_and(|record| record.versions.first().is_none_or(|first| first.infohash != wanted)) {
            return;
        }
        let core = self.core.clone();
        let made = tokio::task::spawn_blocking(move || {
            let (version, base) = {
                let inner = core.inner();
                let base = inner.versions.iter().find(|version| bases.contains(&version.reference.infohash));
                (inner.versions.get(&wanted)?.clone(), base?.clone())
            };
            let (new, old) = (core.hashes_of(&version).ok()?, core.hashes_of(&base).ok()?);
            core.delta(wanted, &new, &version.image, (&base, &old), ANSWER_BYTES_MAX).ok()?
        });
        if let Ok(Some(delta)) = made.await {
            net.gossip.say(to, &Message::News(Box::new(News { item, delta: Some(delta) })));
        }
    }

    /// Tells on what waited for this version to be here.
    pub(super) fn tell_on(&self, net: &Net, infohash: InfoHash) {
        let mut facts = self.facts.lock();
        let waiting = std::mem::take(&mut facts.exchanged.waiting);
        let (ready, rest): (VecDeque<_>, _) = waiting.into_iter().partition(|(waits, ..)| *waits == infohash);
        facts.exchanged.waiting = rest;
        drop(facts);
        for (_, from, message) in ready {
            net.gossip.tell(&message, from);
        }
    }

    /// Looks for neighbours under the rendezvous, and names those that were named by hand: there the gossip port is
    /// one above the torrent port, where that was free.
    pub(super) async fn seek_neighbours(&self, net: &Net) {
        if !self.core.settings.neighbours {
            return;
        }
        let above = |peer: &SocketAddr| Some(SocketAddr::new(peer.ip(), peer.port().checked_add(1)?));
        net.gossip.candidates(self.core.settings.peers.iter().filter_map(above), true);
        for day in super::exchange::days(super::core::now_seconds()) {
            let infohash = self.core.keys.record.rendezvous(day, Purpose::Gossip);
            let found: BTreeSet<SocketAddr> =
                net.dht.peers(infohash, RENDEZVOUS_DEADLINE).await.into_iter().collect();
            net.gossip.candidates(found, false);
        }
    }

    /// Where connected neighbours serve torrents.
    pub(super) fn neighbouring_peers(&self, net: &Net) -> Vec<SocketAddr> {
        net.gossip.neighbours().into_iter().map(|neighbour| neighbour.torrents).collect()
    }
}
