//! Single pieces of versions over the connections that neighbours keep anyway: asked for, answered, and handed over.
//!
//! Nothing that comes is believed: who asked compares each piece with its hash. Nothing is promised either: a neighbour
//! may lack a piece, be busy, or be of a kilofs that does not know the question and is silent.

mod asking;
mod call;
mod pace;
mod serving;
#[cfg(test)]
mod tests;

use super::drive::{Driver, Net};
use crate::base::{InfoHash, PieceHashes, PieceIndex};
use crate::image::hash_piece;
use crate::net::gossip::{Event, Gossip, Message, NeighbourId, RUN_BYTES_MAX};
use asking::Asking;
use call::Call;
use serving::{Serving, Shelf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

/// Events that wait for who handles what is not about pieces.
const PASSED_MAX: usize = 64;
/// Where a limit is set, what comes next waits behind a run for a quarter of a second at most.
const RUNS_A_SECOND: u32 = 4;
const RUN_BYTES_MIN: usize = 16 << 10;
/// What may be read from others before it is a neighbour's turn again.
const SLACK_BYTES: f64 = 8.0 * RUN_BYTES_MAX as f64;
/// Whoever brings all ends when nothing comes, not before.
const LONG: Duration = Duration::from_secs(24 * 3_600);

/// Takes a piece; false if the bytes do not have its hash.
pub(super) type Accept<'a> = &'a (dyn Fn(PieceIndex, &[u8]) -> bool + Send + Sync);
/// Gives more pieces to ask for, of about so many bytes; none when there are no more.
pub(super) type Draw<'a> = &'a (dyn Fn(u64) -> Vec<PieceIndex> + Send + Sync);

/// What is asked and answered at one device; clones share it.
#[derive(Clone, Default)]
pub(super) struct Asks {
    asking: Asking,
    serving: Serving,
}

impl Asks {
    /// Takes what is about pieces; the rest is given back.
    fn hear(&self, gossip: &Gossip, event: Event, shelf: &Arc<Shelf>) -> Option<Event> {
        match event {
            Event::Said(from, Message::Ask(asked)) => self.serving.serve(gossip, from, asked, shelf),
            Event::Said(from, Message::Piece(run)) => {
                if self.asking.came(from, run).is_err() {
                    gossip.part(from);
                }
            }
            Event::Said(from, Message::Lack(lacking)) => self.asking.lacks(from, &lacking),
            Event::Said(from, Message::Have(infohash)) => self.asking.has(from, infohash),
            other => {
                match &other {
                    Event::Met(id) => self.asking.met(*id),
                    Event::Left(id) => {
                        self.asking.left(*id);
                        self.serving.left(*id);
                    }
                    Event::Said(from, Message::Want { bases, .. }) => {
                        bases.iter().for_each(|base| self.asking.has(*from, *base));
                    }
                    Event::Said(..) | Event::Heard(_) => {}
                }
                return Some(other);
            }
        }
        None
    }

    /// Whether a neighbour is known to have a version.
    pub fn is_had(&self, infohash: &InfoHash) -> bool {
        self.asking.lock().is_had(infohash)
    }

    /// A neighbour has told a record that names this version first: it can serve it, or will soon.
    pub fn has(&self, from: NeighbourId, infohash: InfoHash) {
        self.asking.has(from, infohash);
    }
}

impl Driver {
    /// Asks connected neighbours for pieces of a version, and hands over each as it arrives whole, unverified. `accept`
    /// says false where the bytes do not have the piece's hash: who sent them is asked no more in this call. Returns
    /// the pieces that nobody brought before the deadline, ascending; early only if none is left. Neighbours that
    /// connect meanwhile are asked too. Several calls may run at once, and for the same pieces.
    pub(super) async fn ask(
        &self,
        net: &Net,
        infohash: InfoHash,
        hashes: &PieceHashes,
        pieces: &[PieceIndex],
        deadline: Duration,
        accept: Accept<'_>,
    ) -> Vec<PieceIndex> {
        let asking = self.facts.lock().exchanged.asks.asking.clone();
        Call::new(&net.gossip, &asking, infohash, hashes, pieces).run(deadline, accept).await
    }

    /// The same for as much as `draw` gives, with more under way at a time. Returns the pieces that nobody brings; ends
    /// when there is nobody to ask, or nothing comes any more.
    pub(super) async fn ask_for_all(
        &self,
        net: &Net,
        infohash: InfoHash,
        hashes: &PieceHashes,
        draw: Draw<'_>,
        accept: Accept<'_>,
    ) -> Vec<PieceIndex> {
        let asking = self.facts.lock().exchanged.asks.asking.clone();
        let slack = self.core.settings.limit_down.map_or(Duration::ZERO, slack);
        Call::drawing(&net.gossip, &asking, infohash, hashes, draw, slack).run(LONG, accept).await
    }

    /// Takes what is about pieces as it comes, and passes everything else on: who waits for a piece does not wait for
    /// news to be laid down first.
    pub(super) fn sift(self: &Arc<Self>, mut events: mpsc::Receiver<Event>) -> mpsc::Receiver<Event> {
        let (others, passed) = mpsc::channel(PASSED_MAX);
        let driver = self.clone();
        let reader = self.clone();
        let limit = self.core.settings.limit_up;
        let run_bytes = limit.map_or(RUN_BYTES_MAX, |limit| {
            usize::try_from(limit / RUNS_A_SECOND).unwrap_or(0).clamp(RUN_BYTES_MIN, RUN_BYTES_MAX)
        });
        let read = Box::new(move |infohash, piece| reader.piece_here(infohash, piece));
        let shelf = Arc::new(Shelf { read, run_bytes });
        let asks = self.facts.lock().exchanged.asks.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Some(net) = driver.net() else { return };
                if let Some(other) = asks.hear(&net.gossip, event, &shelf)
                    && others.send(other).await.is_err()
                {
                    return;
                }
            }
        });
        passed
    }

    /// A piece of a kept version, or of one that is being fetched. None where it is not here, or not as it should be:
    /// who gave away what was damaged here would be taken for a liar. Nothing is hashed anew because somebody asks.
    fn piece_here(&self, infohash: InfoHash, piece: PieceIndex) -> Option<Vec<u8>> {
        let image = self.core.inner().versions.get(&infohash).map(|version| version.image.clone());
        let Some(image) = image else {
            let incoming =
                self.facts.lock().transfers.get(&infohash).map(|(incoming, _)| incoming.clone())?;
            let mut bytes = room_for(incoming.hashes(), piece)?;
            let start = incoming.hashes().length.start_of(piece);
            return incoming.read(start, &mut bytes).ok().map(|()| bytes);
        };
        let serving = self.facts.lock().exchanged.asks.serving.clone();
        let hashes = serving.hashes(infohash, || self.core.cache.hashes(&infohash))?;
        let mut bytes = room_for(&hashes, piece)?;
        self.core.store.read(&image, hashes.length.start_of(piece), &mut bytes).ok()?;
        (hashes.hash_of(piece) == Some(&hash_piece(&bytes))).then_some(bytes)
    }
}

/// How much longer neighbours may seem to be silent where a limit in bytes a second holds back what is read from them.
fn slack(limit_down: u32) -> Duration {
    Duration::from_secs_f64(SLACK_BYTES / f64::from(limit_down.max(1)))
}

/// Zeros in the length of a piece, if there is such a piece.
fn room_for(hashes: &PieceHashes, piece: PieceIndex) -> Option<Vec<u8>> {
    hashes.hash_of(piece).map(|_| vec![0; hashes.bytes_of(piece) as usize])
}

/// Lets other tasks go on elsewhere meanwhile, where there is an elsewhere.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
