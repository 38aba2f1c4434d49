//! The room that files fetched on demand may take: beyond it those are given up that came first, as long as a connected
//! neighbour says that it keeps the version whole.

use super::core::{Core, Listed};
use super::demand::blocking;
use super::drive::{Driver, Net};
use super::error::EngineError;
use super::versions::Version as KeptVersion;
use crate::base::{Place, REGION_BYTES, RegionIndex};
use crate::image::{Image, UNIT_BYTES};
use crate::map::{Map, Root};
use crate::net::gossip::{Message, NeighbourId};
use crate::torrent::Metainfo;
use crate::tree::ImageSource;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// How far below the limit the store is brought, in percent of it: not every read must be followed by this.
const DOWN_TO_PERCENT: u64 = 90;

impl Core {
    /// Bytes that the store takes on the disk, without what is absent.
    pub(super) fn present_bytes(&self) -> u64 {
        self.store_bytes().saturating_sub(self.store.all_absent_bytes())
    }

    /// The units of a version that its structure lies in, by region: they are never given up.
    fn structure(
        &self,
        version: &KeptVersion,
        spared: &mut BTreeMap<RegionIndex, u64>,
    ) -> Result<(), EngineError> {
        let Some(commit) = &version.commit else { return Ok(()) };
        spare(spared, version.reference.commit.place);
        spare(spared, commit.charter.place);
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let source = ImageSource::new(&self.store, &version.image);
        let catalogue = commit.catalogue.map(|(root, place)| Root { level: root.level, id: root.id, place });
        Map::new(keys, &source, &self.nodes)
            .each_node(catalogue.as_ref(), &mut |place| spare(spared, place))?;
        let Some(charter) = self.open_charter(&version.image, commit, &commit.charter.id) else {
            return Ok(());
        };
        for (number, listed) in self.open_catalogue(&version.image, commit)?.1 {
            let keys = charter.blocks.get(&number).and_then(|block| self.keys.block(number, block));
            if let (Some(keys), Some(root)) = (keys, Listed::root(&listed)) {
                let map = Map::new(&keys, &source, self.tree_nodes());
                map.each_node(Some(&root), &mut |place| spare(spared, place))?;
            }
        }
        Ok(())
    }

    /// Gives up so many bytes of a version, `order` telling which regions go last; how many that were.
    fn give_up(
        &self,
        head: &KeptVersion,
        bytes: u64,
        pins: &[Vec<u8>],
        order: &HashMap<RegionIndex, u64>,
    ) -> Result<u64, EngineError> {
        let _work = self.work.lock();
        let mut spared = BTreeMap::new();
        let kept: Vec<KeptVersion> = self.inner().versions.iter().cloned().collect();
        for version in &kept {
            self.structure(version, &mut spared)?;
        }
        self.content_below(pins)?.into_iter().for_each(|place| spare(&mut spared, place));
        let lacks = |offset| self.store.lacks(&head.image, Place { offset, length: UNIT_BYTES as u32 });
        let ranges = choose(&head.image, &spared, &lacks, order, bytes);
        let given_up = self.store.give_up(&head.image, &ranges)?;
        if given_up.bytes() == 0 {
            return Ok(0);
        }
        // The first of the two commits holds all that was written on top of these bytes so far; what is written from now
        // on fetches them first.
        self.commit()?;
        self.save(&self.inner())?;
        self.store.discard_given_up(&given_up)?;
        Ok(given_up.bytes())
    }
}

fn spare(spared: &mut BTreeMap<RegionIndex, u64>, place: Place) {
    let end = place.offset.saturating_add(u64::from(place.length).max(1));
    for unit in place.offset / UNIT_BYTES..end.div_ceil(UNIT_BYTES) {
        let offset = unit * UNIT_BYTES;
        *spared.entry(RegionIndex::of(offset)).or_default() |= 1 << (offset % REGION_BYTES / UNIT_BYTES);
    }
}

/// What to give up of an image to get so many bytes, the regions that came first before the others.
fn choose(
    image: &Image,
    spared: &BTreeMap<RegionIndex, u64>,
    lacks: &dyn Fn(u64) -> bool,
    order: &HashMap<RegionIndex, u64>,
    bytes: u64,
) -> Vec<Range<u64>> {
    let mut regions: Vec<RegionIndex> =
        image.iter().filter(|(_, region)| region.slot.is_some()).map(|(index, _)| index).collect();
    regions.sort_by_key(|index| (order.get(index).copied().unwrap_or(0), *index));
    let (mut ranges, mut chosen) = (Vec::new(), 0);
    for index in regions {
        let spared = spared.get(&index).copied().unwrap_or(0);
        for unit in (0..REGION_BYTES / UNIT_BYTES).filter(|unit| spared >> unit & 1 == 0) {
            let start = index.start() + unit * UNIT_BYTES;
            if !lacks(start) {
                ranges.push(start..start + UNIT_BYTES);
                chosen += UNIT_BYTES;
            }
        }
        if chosen >= bytes {
            break;
        }
    }
    ranges
}

impl Driver {
    /// Gives up what was fetched first where the store takes more than it may.
    pub(super) async fn keep_within_limit(self: &Arc<Self>) {
        let (Some(limit), Some(net)) = (self.core.settings.local_limit_bytes, self.net()) else { return };
        let present = self.core.present_bytes();
        // On a full disk the limit is what the disk leaves.
        let lacking = self.core.lacking_bytes().unwrap_or(0);
        let limit = if lacking > 0 { limit.min(present.saturating_sub(lacking)) } else { limit };
        // What was fetched to be hashed must stay until it was.
        if present <= limit || self.facts.lock().demand.is_hashing() {
            return;
        }
        let Some(head) = self.kept_elsewhere() else {
            tracing::debug!("nothing is given up: no neighbour says that it keeps the newest version");
            return;
        };
        let (pins, order) = {
            let demand = &mut self.facts.lock().demand;
            // Where all that is left is spared, looking for more does not find it.
            if !demand.over_limit.is_worth_it(present) {
                return;
            }
            (demand.pins.clone(), demand.order())
        };
        let (core, bytes) = (self.core.clone(), present - limit / 100 * DOWN_TO_PERCENT);
        let given_up = blocking(move || core.give_up(&head, bytes, &pins, &order)).await;
        match given_up {
            Ok(bytes) if bytes > 0 => {
                tracing::info!("{} KiB were given up to stay within the limit", bytes >> 10);
                self.facts.lock().demand.forget();
                self.offer_anew(net).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "nothing could be given up"),
        }
    }

    /// The published head, if a neighbour keeps all of it.
    pub(super) fn kept_elsewhere(&self) -> Option<KeptVersion> {
        let inner = self.core.inner();
        let head = inner.versions.get(&inner.state.head?.infohash)?.clone();
        drop(inner);
        let facts = self.facts.lock();
        let keeps = |kept: &Vec<crate::base::InfoHash>| kept.contains(&head.reference.infohash);
        facts.demand.keepers.values().any(keeps).then_some(head)
    }

    /// Peers were told of pieces that are gone: they are told anew.
    async fn offer_anew(&self, net: &Net) {
        let kept: Vec<KeptVersion> = self.core.inner().versions.iter().cloned().collect();
        for version in kept {
            let infohash = version.reference.infohash;
            if !self.core.store.is_whole(&version.image) && self.facts.lock().seeded.contains(&infohash) {
                net.swarm.remove(infohash).await;
                if let Some(hashes) = self.core.cache.hashes(&infohash) {
                    self.seed(net, &Metainfo { hashes }, version.image).await;
                }
            }
        }
    }

    /// Tells neighbours which versions of the record this device has and will keep, unless it gives things up itself.
    pub(super) fn tell_what_is_kept(&self, net: &Net, to: Option<NeighbourId>) {
        if self.core.settings.local_limit_bytes.is_some() {
            return;
        }
        let kept: Vec<_> = {
            let inner = self.core.inner();
            let whole = |version: &&KeptVersion| self.core.store.is_whole(&version.image);
            let named = self.core.named_versions(&inner);
            let head = inner.state.head.map(|head| head.infohash);
            let known = named.iter().map(|version| version.infohash).chain(head);
            known.filter(|infohash| inner.versions.get(infohash).as_ref().is_some_and(whole)).collect()
        };
        if kept.is_empty() {
            return;
        }
        let message = Message::Keeps(kept);
        match to {
            Some(to) => _ = net.gossip.say(to, &message),
            None => _ = net.gossip.tell(&message, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_lies_in_is_spared() {
        let mut spared = BTreeMap::new();
        spare(&mut spared, Place { offset: UNIT_BYTES - 1, length: 2 });
        spare(&mut spared, Place { offset: REGION_BYTES + 5 * UNIT_BYTES, length: 1 });
        assert_eq!(spared, BTreeMap::from([(RegionIndex(0), 3), (RegionIndex(1), 1 << 5)]));
    }
}
