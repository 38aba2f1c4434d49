//! Bytes on demand: a version is shown as soon as its structure is here, and the content of files is fetched from
//! neighbours when somebody reads it. What one read waits for goes before what it will probably want next.

use super::absent::absent_place;
use super::drive::{Driver, Net, error_chain};
use super::error::EngineError;
use super::flight::{Haste, InFlight, SHARED_PAUSE};
use super::transfer::missing_bytes;
use super::versions::Version as KeptVersion;
use crate::base::{InfoHash, PieceHashes, PieceIndex, Place, RegionIndex};
use crate::fuse::Reading;
use crate::image::{Image, Incoming};
use crate::net::gossip::NeighbourId;
use crate::record::VersionRef;
use crate::torrent::Metainfo;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A device that fetches on demand fetches changes up to this size at once.
const SMALL_BYTES_MAX: u64 = 4 << 20;
/// One question to neighbours gets so long.
const ASK_DEADLINE: Duration = Duration::from_secs(8);
/// Before a question is put again, somebody may have come.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// Levels of maps and restarts that bringing a structure may take.
const ROUNDS_MAX: usize = 64;
/// Times that taking a version may be put off for bytes that it turns out to need.
pub(super) const TAKES_MAX: usize = 4096;

/// What is being fetched on demand.
#[derive(Default)]
pub(super) struct Demand {
    /// Versions that lack bytes, as what comes in is added to them.
    supplies: BTreeMap<InfoHash, Arc<Incoming>>,
    pub(super) in_flight: InFlight,
    pub(super) rows: super::ahead::Rows,
    /// Fetching the rest of the head.
    pub(super) completing: Errand,
    pub(super) pins: Vec<Vec<u8>>,
    pub(super) pinning: Errand,
    pub(super) over_limit: super::quota::Over,
    /// Which versions each neighbour has all of and gives nothing of up.
    pub(super) keepers: BTreeMap<NeighbourId, Vec<InfoHash>>,
    /// Versions that nobody had when they were asked for last.
    pub(super) sourceless: BTreeSet<InfoHash>,
    /// When a region was fetched last, as a count.
    fetched: HashMap<RegionIndex, u64>,
    fetches: u64,
    /// Publications in a row that failed for want of bytes.
    unhashed: u32,
}

/// Publications that may fail for single pieces.
const UNHASHED_MAX: u32 = 3;

impl Demand {
    /// A version was published.
    pub(super) fn hashed(&mut self) {
        self.unhashed = 0;
    }

    /// Bytes were lacking to publish one. Whether that is so often that nothing but all of them will do.
    pub(super) fn lacked_for_hashing(&mut self) -> bool {
        self.unhashed += 1;
        self.unhashed > UNHASHED_MAX
    }

    /// Whether a publication waits for bytes.
    pub(super) fn is_hashing(&self) -> bool {
        self.unhashed > 0
    }

    /// Which regions were fetched before which others.
    pub(super) fn order(&self) -> HashMap<RegionIndex, u64> {
        self.fetched.clone()
    }

    fn note_fetched(&mut self, place: Place) {
        self.fetches += 1;
        self.fetched.insert(RegionIndex::of(place.offset), self.fetches);
    }

    /// Forgets what was known of which bytes are here.
    pub(super) fn forget(&mut self) {
        self.supplies.clear();
    }
}

impl Driver {
    /// Whether a version may be shown before all of it is here.
    pub(super) fn may_begin(&self, incoming: &Incoming) -> bool {
        if self.core.tree.is_none() || !self.core.settings.neighbours {
            return false;
        }
        // Only a mount can wait for single bytes.
        if self.mounted().is_none() && !self.core.settings.on_demand {
            return false;
        }
        let unknown = bytes_of(incoming, &incoming.unknown());
        // What is known to be absent below it as well is no reason to wait, and would be fetched a second time.
        self.core.settings.on_demand
            || unknown < missing_bytes(incoming)
            || unknown > self.core.settings.early_bytes_min
    }

    /// Brings what a version needs to be shown, and makes an image of it. None where neighbours did not bring that: then
    /// it has to be fetched whole.
    pub(super) async fn begin(
        self: &Arc<Self>,
        net: &Net,
        version: &VersionRef,
        metainfo: &Metainfo,
        incoming: &Arc<Incoming>,
    ) -> Result<Option<Image>, EngineError> {
        let infohash = version.infohash;
        let unknown = incoming.unknown();
        if !unknown.is_empty() && bytes_of(incoming, &unknown) <= SMALL_BYTES_MAX {
            self.bring_once(net, infohash, incoming, &unknown, Haste::Awaited, ASK_DEADLINE).await;
        }
        let finishing = incoming.clone();
        let image = blocking(move || Ok(finishing.finish_partial()?)).await?;
        for _ in 0..ROUNDS_MAX {
            let (core, reference, looked_at) = (self.core.clone(), *version, image.clone());
            let absent = match blocking(move || core.absent_structure(&reference, &looked_at)).await {
                Ok(absent) => absent,
                Err(error) => match absent_place(&error) {
                    Some(place) => vec![place],
                    // It is refused when it is taken.
                    None => break,
                },
            };
            if absent.is_empty() {
                self.remember_partial(infohash, metainfo).await;
                self.facts.lock().demand.supplies.insert(infohash, incoming.clone());
                return Ok(Some(image));
            }
            let pieces = together(absent.iter().flat_map(|place| incoming.missing_at(*place)), incoming);
            let left = self.bring_once(net, infohash, incoming, &pieces, Haste::Awaited, ASK_DEADLINE).await;
            if left.len() == pieces.len() {
                tracing::debug!(version = %infohash, pieces = left.len(), "no neighbour brings its structure");
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Brings the bytes at a place of whichever kept version lacks them, the newest first; whether none lacks them now.
    /// What follows what is being read is fetched ahead.
    pub(super) async fn fault(
        self: &Arc<Self>,
        place: Place,
        reading: Option<Reading>,
        deadline: Instant,
    ) -> Result<bool, EngineError> {
        while Instant::now() < deadline {
            let Some((infohash, supply)) = self.supply_at(place).await? else { return Ok(true) };
            let wanted = supply.missing_at(place);
            if wanted.is_empty() {
                return Ok(true);
            }
            let Some(net) = self.net() else { return Ok(false) };
            let mut mine = self.begin_flight(&supply, &wanted, Haste::Awaited);
            if mine.pieces.is_empty() {
                mine = self.overtake(&supply, &wanted);
            }
            if mine.pieces.is_empty() {
                tokio::time::sleep(SHARED_PAUSE).await;
                continue;
            }
            self.facts.lock().demand.note_fetched(place);
            self.fetch_ahead((infohash, &supply), &wanted, reading, ASK_DEADLINE);
            let patience = ASK_DEADLINE.min(deadline - Instant::now());
            let left = self.bring(net, infohash, &supply, &mine.pieces, patience).await;
            let asked = mine.pieces.len();
            drop(mine);
            if left.len() == asked {
                tokio::time::sleep(AGAIN_PAUSE).await;
            }
        }
        Ok(self.supply_at(place).await?.is_none())
    }

    /// [`Driver::fault`] for a request of the kernel; whether it can be done now.
    pub(super) async fn fault_for(
        self: &Arc<Self>,
        place: Place,
        reading: Option<Reading>,
        deadline: Instant,
    ) -> bool {
        match self.fault(place, reading, deadline).await {
            Ok(true) => true,
            Ok(false) => {
                tracing::warn!(
                    offset = place.offset,
                    bytes = place.length,
                    "a program gets an I/O error: it needs bytes that are not here, and no device that is connected brought them"
                );
                false
            }
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "a program gets an I/O error: bytes that it needs cannot be fetched");
                false
            }
        }
    }

    /// The newest kept version that lacks bytes at a place.
    async fn supply_at(
        self: &Arc<Self>,
        place: Place,
    ) -> Result<Option<(InfoHash, Arc<Incoming>)>, EngineError> {
        let lacking = {
            let inner = self.core.inner();
            let head = inner.state.head.map(|head| head.infohash);
            let mut kept: Vec<&KeptVersion> = inner.versions.iter().collect();
            kept.sort_by_key(|version| Some(version.reference.infohash) != head);
            kept.into_iter().find(|version| self.core.store.lacks(&version.image, place)).cloned()
        };
        if let Some(version) = lacking {
            return Ok(Some((version.reference.infohash, self.supply(&version).await?)));
        }
        // One that is about to be taken is not kept yet.
        let begun: Vec<_> = {
            let demand = &self.facts.lock().demand;
            demand.supplies.iter().map(|(infohash, supply)| (*infohash, supply.clone())).collect()
        };
        Ok(begun.into_iter().find(|(_, supply)| !supply.missing_at(place).is_empty()))
    }

    /// What a kept version's missing pieces are added to.
    pub(super) async fn supply(
        self: &Arc<Self>,
        version: &KeptVersion,
    ) -> Result<Arc<Incoming>, EngineError> {
        let infohash = version.reference.infohash;
        if let Some(known) = self.facts.lock().demand.supplies.get(&infohash) {
            return Ok(known.clone());
        }
        let hashes = self.hashes_of_partial(infohash).await?;
        let (core, image) = (self.core.clone(), version.image.clone());
        let made =
            blocking(move || Ok(Arc::new(core.store.incoming(hashes.clone(), &[(image, hashes)])?))).await?;
        Ok(self.facts.lock().demand.supplies.entry(infohash).or_insert(made).clone())
    }

    /// The piece hashes of a version that cannot be hashed here: from the cache, or from a peer if the cache lost them.
    async fn hashes_of_partial(self: &Arc<Self>, infohash: InfoHash) -> Result<PieceHashes, EngineError> {
        if let Some(hashes) = self.core.cache.hashes(&infohash) {
            return Ok(hashes);
        }
        let unreachable =
            || EngineError::Network("no peer has the piece hashes of a version that is here in part".into());
        let net = self.net().ok_or_else(unreachable)?;
        let (found, _) = self.metainfo_nearby(net, infohash).await?;
        let metainfo = found.map_err(|_| unreachable())?;
        self.remember_partial(infohash, &metainfo).await;
        Ok(metainfo.hashes)
    }

    /// The piece hashes of what is not here cannot be made anew: a crash should not lose them.
    async fn remember_partial(&self, infohash: InfoHash, metainfo: &Metainfo) {
        self.core.cache.remember(&infohash, metainfo);
        let core = self.core.clone();
        _ = tokio::task::spawn_blocking(move || core.cache.flush()).await;
    }

    /// Whatever stands on a version that is here in part needs that one's piece hashes.
    pub(super) async fn know_hashes_of_head(self: &Arc<Self>) -> Result<(), EngineError> {
        match self.lacking_head() {
            Some(head) => self.hashes_of_partial(head.reference.infohash).await.map(drop),
            None => Ok(()),
        }
    }
}

/// Work of which one run at a time is enough, and which is run again for who asked for it meanwhile.
#[derive(Default)]
pub(super) struct Errand {
    running: bool,
    wanted: bool,
}

impl Errand {
    /// Asks for a run; whether the caller is to begin it.
    pub(super) fn want(&mut self) -> bool {
        self.wanted = true;
        !std::mem::replace(&mut self.running, true)
    }

    /// Whether to run it once more; it has ended where not.
    pub(super) fn goes_on(&mut self) -> bool {
        self.running = std::mem::take(&mut self.wanted);
        self.running
    }
}

/// Runs what reads and writes the store off the threads that serve the network.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| EngineError::Other(error.to_string()))?
}

fn bytes_of(incoming: &Incoming, pieces: &[PieceIndex]) -> u64 {
    pieces.iter().map(|piece| incoming.hashes().bytes_of(*piece)).sum()
}

/// Pieces in order, each once, with those that lie between two near ones: nodes lie close together.
fn together(pieces: impl Iterator<Item = PieceIndex>, incoming: &Incoming) -> Vec<PieceIndex> {
    const GAP_MAX: u32 = 2;
    let wanted: BTreeSet<PieceIndex> = pieces.collect();
    let mut all: BTreeSet<PieceIndex> = BTreeSet::new();
    let mut last: Option<PieceIndex> = None;
    for piece in wanted {
        let from = last.filter(|last| piece.0 - last.0 <= GAP_MAX + 1).map_or(piece.0, |last| last.0 + 1);
        all.extend((from..=piece.0).map(PieceIndex).filter(|piece| !incoming.has(*piece)));
        last = Some(piece);
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_an_errand_ends_is_not_forgotten() {
        let mut errand = Errand::default();
        assert!(errand.want() && errand.goes_on());
        assert!(!errand.want(), "it is under way");
        assert!(errand.goes_on() && !errand.goes_on());
        assert!(errand.want());
    }
}
