//! Much of a version at a time, from all neighbours that have it: faster than the swarm, which pays for every 16 KiB, and
//! kept apart from what readers bring by the flights. The swarm fetches what no neighbour brings.

use super::demand::blocking;
use super::drive::{Driver, Net, error_chain};
use super::error::EngineError;
use super::flight::{Flight, Haste, SHARED_PAUSE};
use super::transfer::missing_bytes;
use crate::base::{InfoHash, PieceIndex};
use crate::image::{Incoming, StoreError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Where less is missing the swarm is as fast.
const HAUL_BYTES_MIN: u64 = 16 << 20;
/// Who has just started may not have met its neighbours yet.
const MEET_PATIENCE: Duration = Duration::from_secs(1);
const MEET_PAUSE: Duration = Duration::from_millis(10);

/// A haul under way.
struct Load<'a> {
    driver: &'a Arc<Driver>,
    incoming: &'a Arc<Incoming>,
    goes_on: &'a (dyn Fn() -> bool + Send + Sync),
    /// What is to be asked for, in this order.
    ahead: Mutex<VecDeque<PieceIndex>>,
    /// What is asked for: nobody else asks for it meanwhile.
    claimed: Mutex<BTreeMap<PieceIndex, Flight>>,
    /// Others are bringing some of it.
    shared: AtomicBool,
    failed: Mutex<Option<StoreError>>,
}

impl Load<'_> {
    /// More pieces, of about so many bytes; none when there are no more.
    fn draw(&self, bytes: u64) -> Vec<PieceIndex> {
        if !(self.goes_on)() || self.failed.lock().is_some() {
            return Vec::new();
        }
        let (mut drawn, mut drawn_bytes) = (Vec::new(), 0);
        while drawn_bytes < bytes
            && let Some(piece) = { self.ahead.lock().pop_front() }
        {
            if self.incoming.has(piece) {
                continue;
            }
            let flight = self.driver.begin_flight(self.incoming, &[piece], Haste::Ahead);
            if flight.pieces.is_empty() {
                self.shared.store(true, Ordering::Relaxed);
            } else {
                drawn_bytes += self.incoming.hashes().bytes_of(piece);
                drawn.push(piece);
                self.claimed.lock().insert(piece, flight);
            }
        }
        drawn
    }

    /// Takes a piece; false if the bytes do not have its hash.
    fn accept(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        match self.incoming.accept(piece, bytes) {
            Ok(_) => {}
            Err(StoreError::WrongPiece(_)) => return false,
            Err(error) => _ = self.failed.lock().get_or_insert(error),
        }
        self.claimed.lock().remove(&piece);
        true
    }
}

impl Driver {
    /// Brings all that a version lacks from neighbours, for as long as `goes_on` says so. Whether nothing is missing
    /// now, or it does not go on; false where no neighbour brings the rest.
    pub(super) async fn haul(
        self: &Arc<Self>,
        net: &Net,
        infohash: InfoHash,
        incoming: &Arc<Incoming>,
        goes_on: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<bool, EngineError> {
        loop {
            let looked_at = incoming.clone();
            let missing = blocking(move || Ok(looked_at.missing())).await?;
            if missing.is_empty() || !goes_on() {
                return Ok(true);
            }
            if net.gossip.neighbours().is_empty() {
                return Ok(false);
            }
            let count = missing.len();
            let load = Load {
                driver: self,
                incoming,
                goes_on,
                ahead: Mutex::new(from_anywhere(missing)),
                claimed: Mutex::default(),
                shared: AtomicBool::new(false),
                failed: Mutex::default(),
            };
            let (draw, accept) = (|bytes| load.draw(bytes), |piece, bytes: &[u8]| load.accept(piece, bytes));
            let left = self.ask_for_all(net, infohash, incoming.hashes(), &draw, &accept).await;
            if let Some(error) = load.failed.lock().take() {
                return Err(error.into());
            }
            let waits = left.is_empty() && load.shared.load(Ordering::Relaxed);
            drop(load);
            if waits {
                tokio::time::sleep(SHARED_PAUSE).await;
            } else if incoming.missing().len() == count && goes_on() {
                return Ok(false);
            }
        }
    }

    /// Hauls a version that lacks much, before the swarm is asked for it. Whether nothing is missing now.
    pub(super) async fn haul_first(
        self: &Arc<Self>,
        net: &Net,
        infohash: InfoHash,
        incoming: &Arc<Incoming>,
    ) -> Result<bool, EngineError> {
        if missing_bytes(incoming) < HAUL_BYTES_MIN || !self.core.settings.neighbours {
            return Ok(false);
        }
        let end = Instant::now() + MEET_PATIENCE;
        while net.gossip.neighbours().is_empty() && Instant::now() < end {
            tokio::time::sleep(MEET_PAUSE).await;
        }
        let begun = Instant::now();
        let before = missing_bytes(incoming);
        let all = self.haul(net, infohash, incoming, &|| true).await;
        let hauled = before.saturating_sub(missing_bytes(incoming));
        tracing::debug!(version = %infohash, hauled, took = ?begun.elapsed(), "from neighbours");
        if let Err(error) = &all {
            tracing::warn!(version = %infohash, error = %error_chain(error), "what neighbours sent could not be stored");
        }
        all.map(|all| all && incoming.complete())
    }
}

/// Devices that join at the same time begin at different places, so that each soon has what others lack.
fn from_anywhere(mut missing: Vec<PieceIndex>) -> VecDeque<PieceIndex> {
    let start = getrandom::u64().unwrap_or(0) % missing.len().max(1) as u64;
    missing.rotate_left(start as usize);
    missing.into()
}
