//! What is being fetched from neighbours, by whom: no bytes come twice because a reader, the rest of a version and the
//! next version want them at once.

use super::drive::{Driver, Net};
use crate::base::{InfoHash, PieceHash, PieceIndex};
use crate::image::{Incoming, StoreError};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Others are asking for the same bytes: how often to look whether they have come.
pub(super) const SHARED_PAUSE: Duration = Duration::from_millis(5);

/// So long a reader waits for what is fetched ahead of somebody: then it asks too, and what it asks for goes first.
const OVERTAKE_AFTER: Duration = Duration::from_secs(1);

/// What is being fetched, by the hashes of the pieces: versions share most of them, and the slots that they come into.
#[derive(Default)]
pub(super) struct InFlight {
    claims: HashMap<PieceHash, Claim>,
    flights: u64,
}

/// Who fetches a piece.
struct Claim {
    flight: u64,
    haste: Haste,
    since: Instant,
}

/// Whether somebody waits for what is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Haste {
    /// A reader does. Nobody gains by asking once more.
    Awaited,
    /// It is fetched for later.
    Ahead,
}

impl InFlight {
    /// Claims those pieces that nobody has claimed.
    fn claim(&mut self, flight: u64, hash: PieceHash, haste: Haste, now: Instant) -> bool {
        match self.claims.entry(hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(Claim { flight, haste, since: now });
                true
            }
        }
    }

    /// Takes a claim over from who fetches a piece for later, once it has had its time.
    fn overtake(&mut self, flight: u64, hash: PieceHash, now: Instant) -> bool {
        let slow = |claim: &&mut Claim| claim.haste == Haste::Ahead && now - claim.since >= OVERTAKE_AFTER;
        let Some(claim) = self.claims.get_mut(&hash).filter(slow) else { return false };
        *claim = Claim { flight, haste: Haste::Awaited, since: now };
        true
    }

    fn release(&mut self, flight: u64, hash: &PieceHash) {
        if self.claims.get(hash).is_some_and(|claim| claim.flight == flight) {
            self.claims.remove(hash);
        }
    }
}

/// Pieces that one caller fetches. Whichever way that ends, others may fetch them afterwards.
pub(super) struct Flight {
    driver: Arc<Driver>,
    id: u64,
    hashes: Vec<PieceHash>,
    pub(super) pieces: Vec<PieceIndex>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let in_flight = &mut self.driver.facts.lock().demand.in_flight;
        self.hashes.iter().for_each(|hash| in_flight.release(self.id, hash));
    }
}

impl Driver {
    /// Of these pieces the ones that are not here and that nobody is fetching; they are this caller's until the flight
    /// is dropped.
    pub(super) fn begin_flight(
        self: &Arc<Self>,
        incoming: &Incoming,
        pieces: &[PieceIndex],
        haste: Haste,
    ) -> Flight {
        self.fly(incoming, pieces, |in_flight, id, hash, now| in_flight.claim(id, hash, haste, now))
    }

    /// Of these pieces the ones that are not here and that somebody has been fetching for later, for long enough. A
    /// neighbour that has not begun to send them sends them first now; what is on its way comes twice, once.
    pub(super) fn overtake(self: &Arc<Self>, incoming: &Incoming, pieces: &[PieceIndex]) -> Flight {
        self.fly(incoming, pieces, InFlight::overtake)
    }

    fn fly(
        self: &Arc<Self>,
        incoming: &Incoming,
        pieces: &[PieceIndex],
        claim: impl Fn(&mut InFlight, u64, PieceHash, Instant) -> bool,
    ) -> Flight {
        let mut flight = {
            let in_flight = &mut self.facts.lock().demand.in_flight;
            in_flight.flights += 1;
            let (id, now) = (in_flight.flights, Instant::now());
            let mut claimed = |piece: &PieceIndex| {
                let hash = *incoming.hashes().hash_of(*piece)?;
                claim(in_flight, id, hash, now).then_some((hash, *piece))
            };
            let (hashes, pieces) = pieces.iter().filter_map(&mut claimed).unzip();
            Flight { driver: self.clone(), id, hashes, pieces }
        };
        // What was being fetched when the caller looked may have come, and its claim been given up, before this one.
        flight.pieces.retain(|piece| !incoming.has(*piece));
        flight
    }

    /// Brings pieces, those that somebody else is bringing already by waiting for them; returns those that did not come.
    pub(super) async fn bring_once(
        self: &Arc<Self>,
        net: &Net,
        infohash: InfoHash,
        incoming: &Arc<Incoming>,
        pieces: &[PieceIndex],
        haste: Haste,
        patience: Duration,
    ) -> Vec<PieceIndex> {
        let end = Instant::now() + patience;
        loop {
            let wanted: Vec<PieceIndex> =
                pieces.iter().copied().filter(|piece| !incoming.has(*piece)).collect();
            let left = end.saturating_duration_since(Instant::now());
            if wanted.is_empty() || left.is_zero() {
                return wanted;
            }
            let mine = self.begin_flight(incoming, &wanted, haste);
            if mine.pieces.is_empty() {
                tokio::time::sleep(SHARED_PAUSE).await;
                continue;
            }
            let missing = self.bring(net, infohash, incoming, &mine.pieces, left).await;
            if missing.len() == mine.pieces.len() {
                return wanted;
            }
        }
    }

    /// Asks neighbours for pieces and adds them; returns those that did not come.
    pub(super) async fn bring(
        &self,
        net: &Net,
        infohash: InfoHash,
        incoming: &Arc<Incoming>,
        pieces: &[PieceIndex],
        patience: Duration,
    ) -> Vec<PieceIndex> {
        let accept = |piece: PieceIndex, bytes: &[u8]| match incoming.accept(piece, bytes) {
            Ok(_) => true,
            Err(StoreError::WrongPiece(_)) => false,
            Err(error) => {
                tracing::warn!(%error, "what a neighbour sent could not be stored");
                true
            }
        };
        let asked = self.ask(net, infohash, incoming.hashes(), pieces, patience, &accept).await;
        asked.into_iter().filter(|piece| !incoming.has(*piece)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_slowly_is_overtaken_once_and_what_a_reader_fetches_never() {
        let (early, awaited): (PieceHash, PieceHash) = ([1; 20], [2; 20]);
        let mut flights = InFlight::default();
        let now = Instant::now();
        assert!(flights.claim(1, early, Haste::Ahead, now) && flights.claim(1, awaited, Haste::Awaited, now));
        assert!(!flights.claim(2, early, Haste::Awaited, now) && !flights.overtake(2, early, now));
        let now = now + OVERTAKE_AFTER;
        assert!(flights.overtake(2, early, now) && !flights.overtake(2, awaited, now));
        let now = now + OVERTAKE_AFTER;
        assert!(!flights.overtake(3, early, now));
        // Who was overtaken gives up what is no more its own.
        flights.release(1, &early);
        assert!(!flights.claim(3, early, Haste::Awaited, now));
        flights.release(2, &early);
        assert!(flights.claim(3, early, Haste::Awaited, now));
    }
}
