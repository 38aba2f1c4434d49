//! What is being fetched from neighbours, by whom: no bytes come twice because a reader, the rest of a version and the
//! next version want them at once.

use super::drive::{Driver, Net};
use crate::base::{InfoHash, PieceHash, PieceHashes, PieceIndex};
use crate::image::{Incoming, StoreError};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Others are asking for the same bytes: how often to look whether they have come.
pub(super) const SHARED_PAUSE: Duration = Duration::from_millis(5);

/// What is being fetched, by the hashes of the pieces: versions share most of them, and the slots that they come into.
#[derive(Default)]
pub(super) struct InFlight(HashSet<PieceHash>);

/// Pieces that one caller fetches. Whichever way that ends, others may fetch them afterwards.
pub(super) struct Flight {
    driver: Arc<Driver>,
    hashes: Vec<PieceHash>,
    pub(super) pieces: Vec<PieceIndex>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let in_flight = &mut self.driver.facts.lock().demand.in_flight.0;
        self.hashes.iter().for_each(|hash| _ = in_flight.remove(hash));
    }
}

impl Driver {
    /// Of these pieces the ones that nobody is fetching; they are this caller's until the flight is dropped.
    pub(super) fn begin_flight(self: &Arc<Self>, hashes: &PieceHashes, pieces: &[PieceIndex]) -> Flight {
        let in_flight = &mut self.facts.lock().demand.in_flight.0;
        let mut claimed = Vec::new();
        let mut free = |piece: &PieceIndex| {
            let hash = hashes.hash_of(*piece).filter(|hash| in_flight.insert(**hash));
            claimed.extend(hash);
            hash.is_some()
        };
        let pieces = pieces.iter().copied().filter(|piece| free(piece)).collect();
        Flight { driver: self.clone(), hashes: claimed, pieces }
    }

    /// Brings pieces, those that somebody else is bringing already by waiting for them; returns those that did not come.
    pub(super) async fn bring_once(
        self: &Arc<Self>,
        net: &Net,
        infohash: InfoHash,
        incoming: &Arc<Incoming>,
        pieces: &[PieceIndex],
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
            let mine = self.begin_flight(incoming.hashes(), &wanted);
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
