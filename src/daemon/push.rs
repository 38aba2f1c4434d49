//! News between neighbours: what is published goes out with the bytes that changed, what arrives is laid over what is
//! here and told on.
//!
//! Nothing that comes this way is believed: the record is signed, the patched hashes must give the infohash that it
//! names, every piece must have its hash. What does not fit is dropped, and the torrent brings it.

use super::core::Core;
use super::drive::{Driver, Net, error_chain};
use super::error::EngineError;
use super::publish::Made;
use super::versions::Version as KeptVersion;
use crate::base::{Id, InfoHash, PieceHashes, PieceIndex};
use crate::crypt::Purpose;
use crate::image::{Image, Incoming, zero_piece_hash};
use crate::net::gossip::{Delta, Event, Message, NEWS_BYTES_MAX, NeighbourId, News, PIECES_MAX};
use crate::record::{Record, SignedItem, VersionRef};
use crate::sync::{Heard, Input};
use crate::torrent::{Metainfo, difference};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Records of which it is remembered that they were told on.
const TOLD_MAX: usize = 64;
/// Versions that have arrived by news and wait to be taken.
const ARRIVALS_MAX: usize = 8;
/// How many runs of bytes a difference is made of at most.
const SPANS_MAX: usize = 10_000;
/// How long the base of a difference may take to be taken, and how often it is looked for.
const BASE_PATIENCE: Duration = Duration::from_millis(500);
const BASE_PAUSE: Duration = Duration::from_millis(2);
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
    waiting: VecDeque<(InfoHash, NeighbourId, Message)>,
}

/// A version that news brought.
pub(super) struct Arrival {
    pub metainfo: Metainfo,
    pub incoming: Arc<Incoming>,
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

    /// What news brought of a version; given once.
    pub fn take(&mut self, infohash: &InfoHash) -> Option<Arrival> {
        let at = self.arrivals.iter().position(|arrival| arrival.metainfo.infohash() == *infohash)?;
        self.arrivals.remove(at)
    }
}

impl Core {
    /// The difference of a version that was just made to the one before it; none where it is too large to be told.
    pub(super) fn delta_of(&self, made: &Made, base: &KeptVersion) -> Result<Option<Delta>, EngineError> {
        let old = self.hashes_of(base)?;
        self.delta(made.reference.infohash, &made.metainfo.hashes, &made.image, (base, &old))
    }

    fn delta(
        &self,
        infohash: InfoHash,
        new: &PieceHashes,
        image: &Image,
        (base, old): (&KeptVersion, &PieceHashes),
    ) -> Result<Option<Delta>, EngineError> {
        if new.length != old.length {
            return Ok(None);
        }
        let changed = difference(old, new);
        if changed.len() > PIECES_MAX {
            return Ok(None);
        }
        // Everybody has zeros: a region that was emptied costs its hashes only.
        let zeros = zero_piece_hash(new.length);
        let telling: Vec<PieceIndex> =
            changed.iter().copied().filter(|piece| new.hash_of(*piece) != Some(&zeros)).collect();
        let spans = changed_bytes(new, &telling, image.changed_since(&base.image));
        let bytes: u64 = spans.iter().map(|span| span.end - span.start).sum();
        let mut carried = Vec::new();
        if bytes <= NEWS_BYTES_MAX as u64 && spans.len() <= SPANS_MAX {
            for span in spans {
                let mut bytes = vec![0; (span.end - span.start) as usize];
                self.store.read(image, span.start, &mut bytes)?;
                carried.push((span.start, bytes));
            }
        }
        let hash = |piece: PieceIndex| Some((piece, *new.hash_of(piece)?));
        Ok(Some(Delta {
            base: base.reference.infohash,
            infohash,
            image_bytes: new.image_bytes,
            length: new.length,
            pieces: changed.into_iter().filter_map(hash).collect(),
            spans: carried,
        }))
    }

    /// Lays a difference over the version that it is to. None where that is not here, or where it does not lead to the
    /// version that it names.
    fn lay(&self, delta: &Delta, limit: u64) -> Result<Option<Arrival>, EngineError> {
        let Some(base) = self.inner().versions.get(&delta.base).cloned() else { return Ok(None) };
        if delta.image_bytes > limit {
            return Ok(None);
        }
        let mut hashes = self.hashes_of(&base)?;
        let old = hashes.clone();
        let count = delta.length.count(delta.image_bytes) as usize;
        if hashes.length != delta.length || count > hashes.hashes.len() + delta.pieces.len() {
            return Ok(None);
        }
        hashes.image_bytes = delta.image_bytes;
        hashes.hashes.resize(count, [0; 20]);
        for (piece, hash) in &delta.pieces {
            let Some(slot) = hashes.hashes.get_mut(piece.0 as usize) else { return Ok(None) };
            *slot = *hash;
        }
        let metainfo = Metainfo { hashes };
        if metainfo.infohash() != delta.infohash {
            return Ok(None);
        }
        let incoming = self.store.incoming(metainfo.hashes.clone(), &[(base.image, old)])?;
        for piece in incoming.missing() {
            let start = delta.length.start_of(piece);
            let mut bytes = incoming.basis(piece)?;
            overlay(&mut bytes, start, &delta.spans);
            // One that does not fit is fetched.
            let _ = incoming.accept(piece, &bytes);
        }
        Ok(Some(Arrival { metainfo, incoming: Arc::new(incoming) }))
    }
}

/// The parts of `ranges` that lie in pieces which differ.
fn changed_bytes(new: &PieceHashes, changed: &[PieceIndex], ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    let mut pieces = changed.iter().copied().peekable();
    for range in ranges {
        while let Some(piece) = pieces.peek().copied() {
            let start = new.length.start_of(piece);
            let end = start + new.bytes_of(piece);
            let (from, to) = (start.max(range.start), end.min(range.end));
            if from < to {
                match spans.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => spans.push(from..to),
                }
            }
            if end > range.end {
                break;
            }
            pieces.next();
        }
    }
    spans
}

/// Writes what of `spans` lies in the piece that begins at `start`.
fn overlay(piece: &mut [u8], start: u64, spans: &[(u64, Vec<u8>)]) {
    let end = start + piece.len() as u64;
    let first = spans.partition_point(|(offset, bytes)| offset + bytes.len() as u64 <= start);
    for (offset, bytes) in spans[first..].iter().take_while(|(offset, _)| *offset < end) {
        let (from, to) = ((*offset).max(start), (offset + bytes.len() as u64).min(end));
        let content = &bytes[(from - offset) as usize..(to - offset) as usize];
        piece[(from - start) as usize..(to - start) as usize].copy_from_slice(content);
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
            if inner.state.accepted.as_ref().is_none_or(|known| item.seq >= known.seq) {
                inner.state.accepted = Some(item.clone());
            }
        }
        let delta = delta.map(|delta| Delta::clone(&delta));
        let reached = net.gossip.tell(&Message::News(Box::new(News { item, delta })), None);
        tracing::debug!(seq, reached, version = %newest, "told");
        Some(heard)
    }

    /// Listens to neighbours until they are gone with the engine.
    pub(super) async fn converse(self: Arc<Self>, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let Some(net) = self.net() else { return };
            match event {
                Event::Met(id) => {
                    self.tell(Input::Neighbours(net.gossip.neighbours().len()));
                    self.say_accepted(net, id);
                }
                Event::Left(_) => self.tell(Input::Neighbours(net.gossip.neighbours().len())),
                Event::Said(from, Message::News(news)) => self.clone().news(net, from, *news).await,
                Event::Said(from, Message::Want { infohash, bases }) => {
                    self.clone().answer(net, from, infohash, bases).await;
                }
                Event::Said(_, Message::Kept(seq)) => self.tell(Input::Kept(seq)),
                Event::Said(..) => {}
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
            let mut facts = self.facts.lock();
            let waiting = &mut facts.exchanged.waiting;
            waiting.push_back((newest, from, message));
            if waiting.len() > ARRIVALS_MAX {
                waiting.pop_front();
            }
        }
        self.tell(Input::Heard(heard));
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
            core.delta(wanted, &new, &version.image, (&base, &old)).ok()?
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
            net.gossip.tell(&message, Some(from));
        }
    }

    /// Looks for neighbours under the rendezvous, and names those that were named by hand: there the gossip port is
    /// one above the torrent port, where that was free.
    pub(super) async fn seek_neighbours(&self, net: &Net) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use super::*;
    use crate::base::PieceLength;

    #[test]
    fn only_bytes_of_pieces_that_differ_are_carried() {
        let hashes = PieceHashes {
            length: PieceLength::from_log2(16).unwrap(),
            image_bytes: 1 << 20,
            hashes: vec![[0; 20]; 16],
        };
        let changed = [1, 2, 5].map(PieceIndex);
        let spans = changed_bytes(&hashes, &changed, vec![70_000..80_000, 100_000..400_000]);
        assert_eq!(spans, [70_000..80_000, 100_000..196_608, 327_680..393_216]);
        assert_eq!(changed_bytes(&hashes, &changed, vec![0..65_536]), []);
        assert_eq!(changed_bytes(&hashes, &changed, vec![0..1 << 20]), [65_536..196_608, 327_680..393_216]);
    }

    #[test]
    fn spans_are_laid_over_the_pieces_that_they_touch() {
        let spans = vec![(5, vec![1; 10]), (20, vec![2; 4]), (30, vec![3; 10])];
        let mut piece = vec![0; 12];
        overlay(&mut piece, 10, &spans);
        assert_eq!(piece, [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2]);
        overlay(&mut piece, 28, &spans);
        assert_eq!(piece[2..], [3; 10]);
    }
}
