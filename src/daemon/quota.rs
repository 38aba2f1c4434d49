//! What the store of a mirror may take. Kept versions go before a newer one is left out; the newest version that is
//! here, the working head and edits that were set aside never go.

use super::core::{Core, Inner};
use super::drive::{Driver, Net};
use super::error::EngineError;
use crate::base::{InfoHash, PieceIndex, PieceLength, REGION_BYTES, SlotIndex};
use crate::image::{Image, Incoming};
use crate::net::gossip::Delta;
use crate::record::VersionRef;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// What the ring of the intent log takes, which devices with a read key have.
const LOG_BYTES: u64 = 8 << 20;
/// More versions than that are never kept.
const STEPS_MAX: usize = 32;
/// So often a file that stays too large is looked at.
const LOOKS_MAX: u32 = 5;

/// A version for which there was no room.
#[derive(Clone, Debug)]
pub struct Unfit {
    /// The length of its image.
    image_bytes: u64,
    /// What it would add to the store.
    need_bytes: u64,
    /// What may be had for it.
    room_bytes: u64,
}

/// What one step of making room came to.
enum Step {
    Fits,
    Never { room_bytes: u64 },
    Dropped(InfoHash),
}

impl Core {
    /// What the store takes, in whole slots.
    pub fn store_bytes(&self) -> u64 {
        let slots = |found: crate::image::Statistics| u64::from(found.slots_used + found.slots_of_tables);
        self.store.statistics().map_or(0, slots) * REGION_BYTES
    }

    /// What the store may take; none where this is no mirror, or has no quota.
    pub fn quota_bytes(&self) -> Option<u64> {
        self.settings.mirror_quota_bytes.filter(|_| self.settings.mirrors)
    }

    /// Whether every version of the record is fetched. A mirror that publishes has its own heads to look after.
    pub fn keeps_all(&self) -> bool {
        self.tree.is_none() || self.settings.mirrors && !self.keys.publishes()
    }

    /// What the images of these versions take with all that is never let go.
    pub(super) fn bytes_with<'a>(&self, inner: &'a Inner, versions: impl Iterator<Item = &'a Image>) -> u64 {
        let mut slots: BTreeSet<SlotIndex> = BTreeSet::new();
        let set_aside = inner.set_aside.iter().map(|aside| &aside.image);
        let begun = inner.begun.iter().map(|(_, image)| image);
        for image in versions.chain(set_aside).chain(begun).chain([&inner.image]) {
            slots.extend(image.iter().filter_map(|(_, region)| region.slot));
        }
        let tables = self.store.statistics().map_or(0, |found| u64::from(found.slots_of_tables));
        let log = if self.log.is_some() { LOG_BYTES } else { 0 };
        (slots.len() as u64 + tables) * REGION_BYTES + log
    }

    /// The newest version that is here, and the head.
    fn spared(&self, inner: &Inner) -> Vec<InfoHash> {
        let named = self.named_versions(inner);
        let here = |version: &&VersionRef| inner.versions.get(&version.infohash).is_some();
        let newest =
            named.iter().find(here).or_else(|| inner.versions.iter().next().map(|known| &known.reference));
        newest.into_iter().chain(&inner.state.head).map(|version| version.infohash).collect()
    }

    /// Lets one version go if `need` bytes more do not fit and would fit without those that may go.
    fn step(&self, need: u64, may_drop: bool) -> Result<Step, EngineError> {
        let _work = self.work.lock();
        let mut inner = self.inner();
        let quota = self.quota_bytes().unwrap_or(u64::MAX);
        let free = self.store.space().map_or(u64::MAX, |space| space.free_bytes);
        let used = self.bytes_with(&inner, inner.versions.iter().map(|version| &version.image));
        if used.saturating_add(need) <= quota && need <= free {
            return Ok(Step::Fits);
        }
        let spared = self.spared(&inner);
        let stay = inner.versions.iter().filter(|version| spared.contains(&version.reference.infohash));
        let least = self.bytes_with(&inner, stay.map(|version| &version.image));
        let room_bytes = match may_drop {
            true => quota.saturating_sub(least).min(free.saturating_add(used.saturating_sub(least))),
            false => quota.saturating_sub(used).min(free),
        };
        if !may_drop || need > 0 && need > room_bytes {
            return Ok(Step::Never { room_bytes });
        }
        // What the record does not name goes first, the oldest before the others; then the oldest of the record.
        let named = self.named_versions(&inner);
        let rank = |infohash: &InfoHash| named.iter().position(|version| version.infohash == *infohash);
        let may_go = inner.versions.iter().filter(|version| !spared.contains(&version.reference.infohash));
        let victim = may_go.max_by_key(|version| {
            (rank(&version.reference.infohash).unwrap_or(usize::MAX), u32::MAX - version.time)
        });
        let Some(victim) = victim.map(|version| version.reference.infohash) else {
            return Ok(Step::Never { room_bytes });
        };
        inner.versions.remove(&victim);
        self.remember_kept(&inner);
        self.save(&inner)?;
        Ok(Step::Dropped(victim))
    }

    /// Gives the space of what was let go back: the commit before the last one may lead to it still.
    fn commit_twice(&self) -> Result<(), EngineError> {
        let inner = self.inner();
        self.save(&inner)?;
        Ok(self.save(&inner)?)
    }
}

/// How large the file was when it was last too large, and how often in a row it was so.
#[derive(Default)]
pub(super) struct Over {
    bytes: u64,
    looks: u32,
}

impl Over {
    /// Whether another look may help: commits cost, and a newest version that is too large stays so.
    pub(super) fn is_worth_it(&mut self, bytes: u64) -> bool {
        self.looks = if self.bytes == bytes { self.looks + 1 } else { 1 };
        self.bytes = bytes;
        self.looks <= LOOKS_MAX
    }
}

impl Driver {
    /// Makes room for what a version adds, or notes that there is none. Older versions go for the newest alone.
    pub(super) async fn has_room(
        &self,
        net: &Net,
        infohash: InfoHash,
        incoming: &Arc<Incoming>,
    ) -> Result<bool, EngineError> {
        if !self.core.settings.mirrors {
            return Ok(true);
        }
        let hashes = incoming.hashes();
        let begun = {
            let begun = &mut self.core.inner().begun;
            begun.retain(|known| *known == infohash);
            begun.iter().next().is_some()
        };
        // One that has begun has the room that it takes.
        let missing = if begun { Vec::new() } else { incoming.missing() };
        let need_bytes = bytes_of_regions(hashes.length, hashes.image_bytes, missing.into_iter());
        self.room_for(net, infohash, hashes.image_bytes, need_bytes).await
    }

    /// The same for a difference that a neighbour told, before any of it is written.
    pub(super) async fn has_room_for_news(&self, net: &Net, delta: &Delta) -> bool {
        let pieces = delta.pieces.iter().map(|(piece, _)| *piece);
        let need_bytes = bytes_of_regions(delta.length, delta.image_bytes, pieces);
        self.room_for(net, delta.infohash, delta.image_bytes, need_bytes).await.unwrap_or(false)
    }

    /// The same for a known number of bytes.
    pub(super) async fn room_for(
        &self,
        net: &Net,
        infohash: InfoHash,
        image_bytes: u64,
        need_bytes: u64,
    ) -> Result<bool, EngineError> {
        if !self.core.settings.mirrors {
            self.facts.lock().unfit.remove(&infohash);
            return Ok(true);
        }
        let named = self.core.named_versions(&self.core.inner());
        let is_newest = named.first().is_none_or(|first| first.infohash == infohash);
        let room = self.make_room(net, need_bytes, is_newest).await?;
        let mut facts = self.facts.lock();
        facts.unfit.retain(|known, _| named.iter().any(|version| version.infohash == *known));
        let Err(room_bytes) = room else {
            facts.unfit.remove(&infohash);
            return Ok(true);
        };
        let is_news = facts.unfit.insert(infohash, Unfit { image_bytes, need_bytes, room_bytes }).is_none();
        drop(facts);
        if is_news && is_newest {
            tracing::warn!(version = %infohash, image_bytes, need_bytes, room_bytes, "not fetched: there is no room for it");
        } else if is_news {
            tracing::info!(version = %infohash, need_bytes, room_bytes, "an older version is left out for want of room");
        }
        Ok(false)
    }

    /// What the disk can hold: what the store has already need not be free once more.
    pub(super) fn disk_bytes(&self) -> u64 {
        let free = self.core.store.space().map_or(u64::MAX, |space| space.free_bytes);
        free.saturating_add(self.core.store_bytes())
    }

    /// Whether a version that is to be here whole is larger than the disk; then that is said, and it is tried again later.
    pub(super) fn outgrows_disk(&self, infohash: InfoHash, image_bytes: u64) -> bool {
        let room_bytes = self.disk_bytes();
        // One that grows without measure is a lie, not a matter of room.
        let fits = image_bytes <= room_bytes || image_bytes > self.growth_limit();
        if self.core.settings.on_demand || fits {
            return false;
        }
        let unfit = Unfit { image_bytes, need_bytes: image_bytes, room_bytes };
        if self.facts.lock().unfit.insert(infohash, unfit).is_none() {
            tracing::warn!(
                version = %infohash, image_bytes, room_bytes,
                "not fetched: it is larger than the disk; `kilofs mount --on-demand` fetches what is read"
            );
        }
        true
    }

    /// Whether there is still no room for a version that did not fit before: answered without asking anybody.
    pub(super) async fn stays_unfit(&self, net: &Net, infohash: InfoHash) -> Result<bool, EngineError> {
        let known = self.facts.lock().unfit.get(&infohash).cloned();
        match known {
            Some(unfit) => Ok(!self.room_for(net, infohash, unfit.image_bytes, unfit.need_bytes).await?),
            None => Ok(false),
        }
    }

    /// What has to be looked at from time to time: what has come in is made durable, and the quota is kept.
    pub(super) async fn look_after_store(self: Arc<Self>) {
        self.keep_fresh();
        self.keep_presence().await;
        self.make_room_on_disk().await;
        self.keep_within_limit().await;
        self.look_after_quota().await;
    }

    /// What was let go may have been served still, or be read, when its space was to be given back: looks again until
    /// the file is within its quota, or nothing changes any more.
    async fn look_after_quota(&self) {
        let (Some(net), Some(quota)) = (self.net(), self.core.quota_bytes()) else { return };
        let on_disk = std::fs::metadata(&self.core.paths.store).map_or(0, |found| found.blocks() * 512);
        let taken = self.core.store_bytes().max(on_disk);
        {
            let facts = &mut *self.facts.lock();
            if taken <= quota || !facts.over_quota.is_worth_it(taken) {
                return;
            }
            facts.exchanged.forget_arrivals();
        }
        self.keep_within_quota(net).await;
        self.drop_old(net).await;
        let core = self.core.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || core.commit_twice()).await {
            tracing::error!(%error, "space could not be given back");
        }
    }

    /// Lets older versions go until the store is within its quota.
    pub(super) async fn keep_within_quota(&self, net: &Net) {
        if self.core.quota_bytes().is_none() {
            return;
        }
        match self.make_room(net, 0, true).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::warn!("the newest version alone takes more than the quota; it is kept"),
            Err(error) => tracing::error!(%error, "the quota could not be looked after"),
        }
    }

    /// The inner error is what may be had at most.
    async fn make_room(&self, net: &Net, need: u64, may_drop: bool) -> Result<Result<(), u64>, EngineError> {
        let mut dropped = false;
        for _ in 0..STEPS_MAX {
            let core = self.core.clone();
            let step = tokio::task::spawn_blocking(move || core.step(need, may_drop)).await;
            match step.map_err(|error| EngineError::Other(error.to_string()))?? {
                Step::Dropped(infohash) => {
                    tracing::info!(version = %infohash, "let go for want of room");
                    self.drop_old(net).await;
                    dropped = true;
                }
                Step::Fits if dropped => return self.give_back().await.map(Ok),
                Step::Fits => return Ok(Ok(())),
                Step::Never { room_bytes } => {
                    if dropped {
                        self.give_back().await?;
                    }
                    return Ok(Err(room_bytes));
                }
            }
        }
        Ok(Err(0))
    }

    /// Gives the space of what was let go back.
    pub(super) async fn give_back(&self) -> Result<(), EngineError> {
        let core = self.core.clone();
        let settled = tokio::task::spawn_blocking(move || core.commit_twice()).await;
        settled.map_err(|error| EngineError::Other(error.to_string()))?
    }

    /// For `status`: why the newest version is not here, if that is for want of room.
    pub fn unfit_in_words(&self, newest: &InfoHash) -> Option<String> {
        let Unfit { image_bytes, need_bytes, room_bytes } = self.facts.lock().unfit.get(newest)?.clone();
        let mib = |bytes: u64| bytes.div_ceil(REGION_BYTES);
        let limit = match self.core.quota_bytes() {
            Some(quota) => format!("the quota of {} MiB and the disk leave", quota / REGION_BYTES),
            None => "the disk leaves".into(),
        };
        let then = if self.core.settings.mirrors {
            "what is here is kept and passed on"
        } else {
            "make room, or mount it with --on-demand, which fetches what is read"
        };
        Some(format!(
            "the newest version is not fetched: of its {} MiB it would add {} MiB, and {limit} {} MiB; {then}",
            mib(image_bytes),
            mib(need_bytes),
            room_bytes / REGION_BYTES,
        ))
    }
}

/// What the regions take in which pieces lie. A region that goes on from another one's slot adds less; that is known
/// only when it is here.
fn bytes_of_regions(length: PieceLength, image_bytes: u64, pieces: impl Iterator<Item = PieceIndex>) -> u64 {
    let (mut regions, mut next) = (0, 0);
    for piece in pieces {
        // They come in order: a region is counted once.
        let start = length.start_of(piece).min(image_bytes);
        let end = (start + length.bytes()).min(image_bytes);
        let (first, behind) = ((start / REGION_BYTES).max(next), end.div_ceil(REGION_BYTES));
        regions += behind.saturating_sub(first);
        next = next.max(behind);
    }
    regions * REGION_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_region_is_counted_once_however_many_pieces_it_has() {
        let count = |log2, image_mib: u64, pieces: &[u32]| {
            let length = PieceLength::from_log2(log2).unwrap();
            bytes_of_regions(length, image_mib << 20, pieces.iter().map(|piece| PieceIndex(*piece))) >> 20
        };
        assert_eq!(count(14, 8, &[]), 0);
        assert_eq!(count(14, 8, &[0, 1, 63]), 1);
        assert_eq!(count(14, 8, &[0, 63, 64, 200]), 3);
        assert_eq!(count(22, 9, &[0, 2]), 5, "the last piece is shorter");
        assert_eq!(count(22, 9, &[7]), 0, "behind the end there is nothing");
    }
}
