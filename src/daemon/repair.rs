//! Repairing a database: bytes are put back from kept versions and from peers, by their hashes; what nobody has any more
//! is left out, with what hung on it, and named.
//!
//! A repair that left something out no longer stands on what it stood on before. The next meeting with a device that
//! still has everything is a merge of strangers, in which what is only there comes back; a repaired tree that went on
//! from the damaged version would carry its losses to everybody.

use super::answers::{CheckFinding, Checked};
use super::core::{Core, now_timestamp, random};
use super::demand::blocking;
use super::drive::{Driver, Net};
use super::error::EngineError;
use super::history;
use super::inspect::{damaged_pieces, hashes_now, inspect_kept, measures};
use super::versions::Version as KeptVersion;
use crate::base::{BlockNumber, PieceHashes, PieceIndex, SessionId};
use crate::image::{Draft, Image, Incoming, Stream};
use crate::map::{Map, Root};
use crate::net::NetError;
use crate::torrent::Metainfo;
use crate::tree::check::check_block;
use crate::tree::repair::Repair;
use crate::tree::verify::{LiveDelta, live_delta};
use crate::tree::version::Version;
use crate::tree::{Changes, DraftSource, Head, ImageSource, ReplayError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A peer that sends nothing for so long has nothing.
const STALL_DEADLINE: Duration = Duration::from_secs(12);
/// Writers may come between a repair and its adoption so often.
const RETRIES_MAX: usize = 20;

impl Driver {
    /// Checks everything and puts right what is wrong.
    pub async fn repair(&self) -> Result<Checked, EngineError> {
        let core = self.core.clone();
        let before = blocking(move || Ok(history::check(&core))).await?;
        if before.findings.is_empty() {
            let core = self.core.clone();
            return blocking(move || {
                let lost = core.recover_late()?.iter().map(lost_change).collect();
                Ok(Checked { repaired: lost, ..before })
            })
            .await;
        }
        let mut repaired = Vec::new();
        let core = self.core.clone();
        let kept: Vec<KeptVersion> = core.inner().versions.iter().cloned().collect();
        for version in kept {
            let core = self.core.clone();
            let looked_at = version.clone();
            let damaged = blocking(move || core.is_damaged(&looked_at)).await?;
            if damaged && let Some(done) = self.mend(&version).await? {
                repaired.push(done);
            }
        }
        let core = self.core.clone();
        let (changes, after) = blocking(move || {
            let _work = core.work.lock();
            // Changes that only the log holds are made again on what stands there now.
            repaired.extend(core.recover_late()?.iter().map(lost_change));
            repaired.extend(core.mend_chunks()?);
            let changes = core.leave_out(&mut repaired)?;
            core.drop_damaged(&mut repaired)?;
            // Twice: both superblocks are written anew.
            core.save(&core.inner())?;
            core.save(&core.inner())?;
            let after = history::check(&core);
            Ok((changes, Checked { repaired, ..after }))
        })
        .await?;
        self.told(changes);
        self.tell(crate::sync::Input::Changed);
        Ok(after)
    }

    /// Puts a version's pieces back from other versions and from peers.
    async fn mend(&self, version: &KeptVersion) -> Result<Option<CheckFinding>, EngineError> {
        let infohash = version.reference.infohash;
        let (core, known) = (self.core.clone(), version.clone());
        let hashes = blocking(move || Ok(core.hashes_of(&known).ok())).await?;
        let hashes = match (hashes, self.net()) {
            (Some(hashes), _) => hashes,
            (None, Some(net)) => match self.metainfo(net, version.reference).await {
                Some(metainfo) => metainfo.hashes,
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let (core, known, wanted) = (self.core.clone(), version.clone(), hashes.clone());
        let (bad, incoming) = blocking(move || core.begin_mending(&known, &wanted)).await?;
        if let Some(net) = self.net()
            && !incoming.complete()
        {
            let metainfo = Metainfo { hashes: hashes.clone() };
            let peers = self.find_peers(net).await;
            match net.swarm.fetch(&metainfo, &incoming, &peers, STALL_DEADLINE).await {
                Ok(()) | Err(NetError::NoSource(_)) => {}
                Err(error) => tracing::warn!(version = %infohash, %error, "pieces were not fetched again"),
            }
            net.swarm.remove(infohash).await;
        }
        let complete = incoming.complete();
        let (core, known, wanted) = (self.core.clone(), version.clone(), hashes.clone());
        let count = blocking(move || core.finish_mending(known, &wanted, &bad, &incoming)).await?;
        let mended = self.core.inner().versions.get(&infohash).map(|version| version.image.clone());
        if let (true, Some(net), Some(image)) = (complete, self.net(), mended) {
            self.seed(net, &Metainfo { hashes }, image).await;
        }
        Ok((count > 0).then(|| CheckFinding {
            block: None,
            subject: format!("version {infohash}"),
            what: format!("{count} damaged pieces were put back"),
        }))
    }

    /// A version's metainfo from peers.
    async fn metainfo(&self, net: &Net, version: crate::record::VersionRef) -> Option<Metainfo> {
        let peers = self.find_peers(net).await;
        self.metainfo_from(net, version.infohash, &peers).await.ok()?.ok()
    }
}

impl Core {
    fn is_damaged(&self, version: &KeptVersion) -> Result<bool, EngineError> {
        // Pieces say more than objects: others are served from what nothing here uses, too.
        let pieces = self.hashes_of(version).and_then(|known| damaged_pieces(self, &version.image, &known));
        Ok(pieces.map_or(true, |bad| !bad.is_empty()) || !inspect_kept(self, version).findings.is_empty())
    }

    /// What of a version is damaged, and a transfer of it that has all that other versions have.
    fn begin_mending(
        &self,
        version: &KeptVersion,
        hashes: &PieceHashes,
    ) -> Result<(Vec<PieceIndex>, Arc<Incoming>), EngineError> {
        let bad = damaged_pieces(self, &version.image, hashes)?;
        let as_it_is = |image: &Image| -> Result<(Image, PieceHashes), EngineError> {
            Ok((image.clone(), hashes_now(self, image, hashes)?))
        };
        let mut bases = vec![as_it_is(&version.image)?];
        let others: Vec<Image> = {
            let inner = self.inner();
            let others = inner.versions.iter().filter(|other| other.id() != version.id());
            others.map(|other| other.image.clone()).chain([inner.image.clone()]).collect()
        };
        let comparable = |image: &&Image| image.bytes() == hashes.image_bytes && self.store.is_whole(image);
        for image in others.iter().filter(comparable) {
            bases.push(as_it_is(image)?);
        }
        Ok((bad, Arc::new(self.store.incoming(hashes.clone(), &bases)?)))
    }

    /// Writes what came into the place of what was damaged; says how much.
    fn finish_mending(
        &self,
        version: KeptVersion,
        hashes: &PieceHashes,
        bad: &[PieceIndex],
        incoming: &Incoming,
    ) -> Result<usize, EngineError> {
        let mut mended = 0;
        for piece in bad.iter().copied().filter(|piece| incoming.has(*piece)) {
            let (offset, mut bytes) =
                (hashes.length.start_of(piece), vec![0; hashes.bytes_of(piece) as usize]);
            incoming.read(offset, &mut bytes)?;
            self.store.mend(&version.image, offset, &bytes)?;
            mended += 1;
        }
        // Where the table itself was lost, the place of a piece is not what it was.
        if incoming.complete() && !damaged_pieces(self, &version.image, hashes)?.is_empty() {
            let image = incoming.finish()?;
            let commit = self.open_commit(&image, &version.reference).ok().map(Arc::new);
            self.inner().versions.add(KeptVersion { image, commit, ..version });
        }
        self.cache.remember(&version.reference.infohash, &Metainfo { hashes: hashes.clone() });
        Ok(mended)
    }

    /// Puts chunks of the working head back that another version has elsewhere.
    fn mend_chunks(&self) -> Result<Vec<CheckFinding>, EngineError> {
        let inner = self.inner();
        let (image, roots, charter) =
            (inner.image.clone(), inner.state.roots.clone(), inner.state.charter.clone());
        let versions: Vec<KeptVersion> = inner.versions.iter().cloned().collect();
        drop(inner);
        let mut mended = Vec::new();
        for (number, root) in &roots {
            let Some(block) = charter.blocks.get(number) else { continue };
            let Some(keys) = self.keys.block(*number, block) else { continue };
            let source = ImageSource::new(&self.store, &image);
            let map = Map::new(&keys, &source, self.tree_nodes());
            let state = Version { map: &map, root: *root, keys: &keys, source: &source };
            let report = check_block(*number, &state, image.bytes(), true);
            for lost in report.findings.iter().filter_map(|finding| finding.chunk()) {
                for version in &versions {
                    let Some(commit) = &version.commit else { continue };
                    let Ok((_, entries)) = self.open_catalogue(&version.image, commit) else { continue };
                    let Some(other) = entries.get(number).and_then(|listed| listed.root()) else { continue };
                    let other_source = ImageSource::new(&self.store, &version.image);
                    let other_map = Map::new(&keys, &other_source, self.tree_nodes());
                    if let Some(bytes) = lost.find_in(&other_map, &other, &other_source, &keys) {
                        self.store.mend(&image, lost.place.offset, &bytes)?;
                        mended.push(CheckFinding {
                            block: Some(number.0),
                            subject: format!("inode {}", lost.inode),
                            what: format!("chunk {} was put back from an older version", lost.index),
                        });
                        break;
                    }
                }
            }
        }
        Ok(mended)
    }

    /// Makes of each damaged block of the working head what is left of it.
    fn leave_out(&self, repaired: &mut Vec<CheckFinding>) -> Result<Changes, EngineError> {
        let Some(tree) = &self.tree else { return Ok(Changes::default()) };
        for _ in 0..RETRIES_MAX {
            let head = tree.flush().map_err(|error| {
                let what = "what was changed last stands on what is lost here, and no peer that has it was reached";
                EngineError::Other(format!("{what} ({error}): try again with a peer; or move {} away, and what peers have comes back", self.paths.store.display()))
            })?;
            let draft = Arc::new(self.store.draft(&head.image)?);
            let mut said = Vec::new();
            let roots = self.leave_out_of(&head, &draft, &mut said)?;
            if said.is_empty() {
                return Ok(Changes::default());
            }
            let image = self.with_counted(&draft.snapshot()?, &roots)?;
            drop(draft);
            let inner = self.inner();
            let views = self.views(&inner.state.policy, &inner.state.charter, &roots);
            drop(inner);
            let next = Head { image, roots, ..head.clone() };
            let _turn = self.turn.lock();
            let Ok(changes) = tree.adopt(head.generation, next, views) else { continue };
            repaired.extend(said);
            self.uproot()?;
            let head = tree.flush()?;
            let mut inner = self.inner();
            self.install(&mut inner, &head);
            return Ok(changes);
        }
        Err(EngineError::Other(
            "programs went on writing while it was repaired: unmount, and try again".into(),
        ))
    }

    fn leave_out_of(
        &self,
        head: &Head,
        draft: &Arc<Draft>,
        said: &mut Vec<CheckFinding>,
    ) -> Result<BTreeMap<BlockNumber, Option<Root>>, EngineError> {
        let inner = self.inner();
        let (policy, charter) = (inner.state.policy.clone(), inner.state.charter.clone());
        drop(inner);
        let mut roots = head.roots.clone();
        for (number, root) in &mut roots {
            let Some(block) = charter.blocks.get(number) else { continue };
            let Some(keys) = self.keys.block(*number, block) else { continue };
            let source = ImageSource::new(&self.store, &head.image);
            let map = Map::new(&keys, &source, self.tree_nodes());
            let version = Version { map: &map, root: *root, keys: &keys, source: &source };
            // Where this device may not write it waits for whoever has the block.
            let writes = self.may_write(&policy, &charter, *number);
            if !writes || check_block(*number, &version, head.image.bytes(), true).found == 0 {
                continue;
            }
            let repair = Repair::plan(*number, &version, now_timestamp());
            let mut sink = DraftSource::new(draft.clone(), Stream::Fresh);
            *root = repair.apply(&version, &mut sink)?;
            said.extend(measures(*number, &block.path, &repair.measures));
        }
        Ok(roots)
    }

    /// The image with the live bytes that these roots use: what was lost uses none.
    fn with_counted(
        &self,
        image: &Image,
        roots: &BTreeMap<BlockNumber, Option<Root>>,
    ) -> Result<Image, EngineError> {
        let charter = self.inner().state.charter.clone();
        let mut live = LiveDelta::default();
        for (number, root) in roots {
            let Some(block) = charter.blocks.get(number) else { continue };
            let Some(keys) = self.keys.block(*number, block) else { continue };
            let source = ImageSource::new(&self.store, image);
            let map = Map::new(&keys, &source, self.tree_nodes());
            let version = Version { map: &map, root: *root, keys: &keys, source: &source };
            match live_delta(None, &version) {
                Ok(counted) => live.join(&counted),
                // A block that has to wait keeps all that it may use.
                Err(_) => return Ok(image.clone()),
            }
        }
        let counted =
            |index| u32::try_from(live.regions().get(&index).copied().unwrap_or(0)).unwrap_or(u32::MAX);
        Ok(image.with_live(&image.iter().map(|(index, _)| (index, counted(index))).collect()))
    }

    /// The working head goes on from no version that anybody knows.
    pub(super) fn uproot(&self) -> Result<(), EngineError> {
        let session = SessionId(random()?);
        let mut inner = self.inner();
        inner.state.session = session;
        inner.state.head = None;
        inner.heads.clear();
        inner.catalogue = None;
        inner.entries.clear();
        inner.spoilt.clear();
        inner.published = None;
        inner.state.pending = self.keys.publishes();
        Ok(())
    }

    /// Lets versions go that are still damaged: whoever has them may serve them again.
    fn drop_damaged(&self, repaired: &mut Vec<CheckFinding>) -> Result<(), EngineError> {
        let kept: Vec<KeptVersion> = self.inner().versions.iter().cloned().collect();
        for version in kept {
            if inspect_kept(self, &version).findings.is_empty() {
                continue;
            }
            let infohash = version.reference.infohash;
            let is_head = self.inner().state.head.is_some_and(|head| head.infohash == infohash);
            if is_head {
                self.uproot()?;
            }
            self.inner().versions.remove(&infohash);
            repaired.push(CheckFinding {
                block: None,
                subject: format!("version {infohash}"),
                what: "it is let go; it comes back from a peer that has it".into(),
            });
        }
        Ok(())
    }
}

/// A change that was synced and cannot be done again.
fn lost_change(error: &ReplayError) -> CheckFinding {
    CheckFinding { block: None, subject: "the intent log".into(), what: format!("{error}: it is lost") }
}
