//! What goes through the swarm: versions, fetched and seeded.

use super::absent::absent_place;
use super::delta::Arrival;
use super::demand::{TAKES_MAX, blocking};
use super::drive::{Driver, Net, error_chain};
use super::error::EngineError;
use super::report::short;
use super::take::Taken;
use super::versions::Version as KeptVersion;
use crate::base::{InfoHash, PieceHashes};
use crate::image::{Image, Incoming};
use crate::net::NetError;
use crate::net::gossip::Delta;
use crate::record::{Policy, VersionRef};
use crate::sync::{Fetched, Input};
use crate::torrent::{Limits, Metainfo, MetainfoError};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const METAINFO_BYTES_MAX: usize = 8 << 20;
const METAINFO_DEADLINE: Duration = Duration::from_secs(8);
/// Neighbours answer soon or not at all.
const NEIGHBOUR_DEADLINE: Duration = Duration::from_secs(3);
/// A fetch that neighbours complete in this time needs nobody else.
const SEEK_PAUSE: Duration = Duration::from_millis(500);
/// A transfer that brings nothing for so long has no source.
pub(super) const STALL_DEADLINE: Duration = Duration::from_secs(12);
/// An image may grow by so much over the last one before its commit has opened and verified.
const GROWTH_BYTES_MAX: u64 = 1 << 30;
/// What is fetched on demand need not fit the disk; but each region costs some memory, whoever says that it is there.
const ON_DEMAND_BYTES_MAX: u64 = 1 << 40;
/// How long the kernel may take to hand over what programs changed through mappings.
const PULL_PATIENCE: Duration = Duration::from_secs(2);
/// So many kept versions are looked through for pieces that need not be fetched.
const BASES_MAX: usize = 2;

impl Driver {
    pub(super) async fn fetch(
        self: &Arc<Self>,
        net: &Net,
        version: VersionRef,
    ) -> Result<Fetched, EngineError> {
        // One whose commit does not open was damaged here: its bytes are fetched again.
        let opens = |known: &&KeptVersion| known.commit.is_some() || self.core.tree.is_none();
        let known =
            self.core.inner().versions.get(&version.infohash).filter(opens).map(|known| known.image.clone());
        let image = match known {
            Some(image) => image,
            None => match self.transfer(net, version).await? {
                Ok(image) => image,
                Err(outcome) => return Ok(outcome),
            },
        };
        let policy = self.facts.lock().policies.get(&version.infohash).cloned();
        let policy = policy.unwrap_or_else(|| self.core.inner().state.policy.clone());
        let policy = self.core.highest_policy(policy);
        let Taken { outcome, changes } = self.take(version, image, policy).await?;
        self.make_again(changes).await?;
        self.complete_soon();
        self.fetch_pinned();
        self.tell_what_is_kept(net, None);
        self.tell_on(net, version.infohash);
        if outcome == Fetched::Refused && self.core.lacks_blocks() {
            self.supplement(net, version).await?;
        }
        // What several neighbours told of it holds slots and is of no more use.
        drop(self.facts.lock().exchanged.take(&version.infohash));
        self.keep_within_quota(net).await;
        self.drop_old(net).await;
        Ok(outcome)
    }

    /// Takes a version; bytes that this turns out to need are fetched first.
    async fn take(
        self: &Arc<Self>,
        version: VersionRef,
        image: Image,
        policy: Policy,
    ) -> Result<Taken, EngineError> {
        for _ in 0..TAKES_MAX {
            let (core, image, policy, mounted) =
                (self.core.clone(), image.clone(), policy.clone(), self.mounted());
            let taken = blocking(move || {
                // What programs changed through a mapping is a change like any other: it must be seen before the merge.
                if mounted.is_some_and(|mounted| !mounted.pull_mapped_pages(PULL_PATIENCE)) {
                    tracing::warn!("the kernel did not hand over mapped pages in time");
                }
                core.take(version, image, &policy)
            });
            match taken.await {
                Err(error) => match absent_place(&error) {
                    Some(place)
                        if self.fault(place, None, tokio::time::Instant::now() + STALL_DEADLINE).await? => {}
                    _ => return Err(error),
                },
                taken => return taken,
            }
        }
        Ok(Taken::plain(Fetched::Later))
    }

    /// A block of the newest version was refused, and this device has no state of its own for it: the older versions
    /// of the record may hold a valid one.
    pub(super) async fn supplement(
        self: &Arc<Self>,
        net: &Net,
        refused: VersionRef,
    ) -> Result<(), EngineError> {
        let named = self.core.named_versions(&self.core.inner());
        for version in named.into_iter().filter(|version| version.infohash != refused.infohash) {
            let Ok(image) = self.transfer(net, version).await? else { continue };
            let core = self.core.clone();
            let filled = tokio::task::spawn_blocking(move || core.supplement(version, image));
            match filled.await.map_err(|error| EngineError::Other(error.to_string()))? {
                Ok(changes) => self.notify(changes),
                Err(error) => {
                    tracing::debug!(version = %version.infohash, %error, "nothing to be had from an older version")
                }
            }
            if !self.core.lacks_blocks() {
                break;
            }
        }
        Ok(())
    }

    /// Brings a version's bytes here; the inner error is an outcome that is no failure of ours.
    pub(super) async fn transfer(
        self: &Arc<Self>,
        net: &Net,
        version: VersionRef,
    ) -> Result<Result<Image, Fetched>, EngineError> {
        let infohash = version.infohash;
        if self.stays_unfit(net, infohash).await? {
            return Ok(Err(Fetched::NoRoom));
        }
        let arrival = self.facts.lock().exchanged.take(&infohash);
        let (metainfo, incoming, peers) = match arrival {
            Some(Arrival { metainfo, incoming }) => {
                let incoming = self.refreshed(incoming).await?;
                (metainfo, incoming, self.neighbouring_peers(net))
            }
            None => {
                let (found, peers) = self.metainfo_nearby(net, infohash).await?;
                let metainfo = match found {
                    Ok(metainfo) => metainfo,
                    Err(outcome) => return Ok(Err(outcome)),
                };
                let incoming = self.incoming(&metainfo.hashes).await?;
                (metainfo, incoming, peers)
            }
        };
        if !self.has_room(net, infohash, &incoming).await? {
            return Ok(Err(Fetched::NoRoom));
        }
        if incoming.complete() {
            let image = incoming.finish()?;
            self.core.cache.remember(&infohash, &metainfo);
            self.seed_soon(metainfo, image.clone());
            return Ok(Ok(image));
        }
        if self.may_begin(&incoming)
            && let Some(image) = self.begin(net, &version, &metainfo, &incoming).await?
        {
            // Where the rest is fetched in the background, that serves it too.
            if self.core.settings.on_demand {
                self.seed_soon(metainfo, image.clone());
            }
            return Ok(Ok(image));
        }
        let missing = missing_bytes(&incoming);
        self.keep_begun(&metainfo, &incoming).await?;
        self.facts.lock().transfers.insert(infohash, (incoming.clone(), missing));
        let fetched = match self.haul_first(net, infohash, &incoming).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.seek_more(infohash);
                net.swarm.fetch(&metainfo, &incoming, &peers, STALL_DEADLINE).await
            }
            Err(error) => {
                self.facts.lock().transfers.remove(&infohash);
                self.core.forget_begun(&infohash);
                return Err(error);
            }
        };
        self.facts.lock().transfers.remove(&infohash);
        if let Err(error) = fetched {
            net.swarm.remove(infohash).await;
            return match error {
                NetError::NoSource(_) => {
                    self.keep_begun(&metainfo, &incoming).await?;
                    Ok(Err(Fetched::NoSource))
                }
                other => {
                    self.core.forget_begun(&infohash);
                    Err(EngineError::Network(error_chain(&other)))
                }
            };
        }
        let image = incoming.finish()?;
        self.core.cache.remember(&infohash, &metainfo);
        self.seed(net, &metainfo, image.clone()).await;
        Ok(Ok(image))
    }

    /// A version's metainfo: from neighbours, who need not be looked for; else from whom the DHT names.
    pub(super) async fn metainfo_nearby(
        &self,
        net: &Net,
        infohash: InfoHash,
    ) -> Result<(Result<Metainfo, Fetched>, Vec<SocketAddr>), EngineError> {
        let near = self.neighbouring_peers(net);
        if !near.is_empty() {
            let found = self.metainfo_within(net, infohash, &near, NEIGHBOUR_DEADLINE).await?;
            if found != Err(Fetched::NoSource) {
                return Ok((found, near));
            }
        }
        let peers = self.find_peers(net).await;
        Ok((self.metainfo_from(net, infohash, &peers).await?, peers))
    }

    /// Names the peers that the DHT knows for a fetch that has begun with neighbours.
    fn seek_more(self: &Arc<Self>, infohash: InfoHash) {
        let driver = self.clone();
        tokio::spawn(async move {
            let Some(net) = driver.net() else { return };
            tokio::time::sleep(SEEK_PAUSE).await;
            if driver.facts.lock().transfers.contains_key(&infohash) {
                let peers = driver.find_peers(net).await;
                net.swarm.add_peers(infohash, &peers);
            }
        });
    }

    /// Seeds a version without keeping anybody waiting.
    fn seed_soon(self: &Arc<Self>, metainfo: Metainfo, image: Image) {
        let driver = self.clone();
        tokio::spawn(async move {
            let Some(net) = driver.net() else { return };
            // What is no longer kept goes when it has been taken: until then nobody keeps this one.
            driver.seed(net, &metainfo, image).await;
        });
    }

    /// A version's metainfo from peers, within our limits and of its name.
    pub(super) async fn metainfo_from(
        &self,
        net: &Net,
        infohash: InfoHash,
        peers: &[SocketAddr],
    ) -> Result<Result<Metainfo, Fetched>, EngineError> {
        self.metainfo_within(net, infohash, peers, METAINFO_DEADLINE).await
    }

    async fn metainfo_within(
        &self,
        net: &Net,
        infohash: InfoHash,
        peers: &[SocketAddr],
        deadline: Duration,
    ) -> Result<Result<Metainfo, Fetched>, EngineError> {
        let bytes = match net.swarm.metainfo(infohash, peers, deadline).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(version = %infohash, peers = peers.len(), error = %error_chain(&error), "no metainfo");
                return Ok(Err(Fetched::NoSource));
            }
        };
        let limits = Limits { metainfo_bytes_max: METAINFO_BYTES_MAX, image_bytes_max: self.image_limit() };
        match Metainfo::parse(&bytes, &limits) {
            Ok(metainfo) if metainfo.infohash() == infohash => Ok(Ok(metainfo)),
            Ok(_) => Ok(Err(Fetched::Broken)),
            Err(error) => {
                if let MetainfoError::ImageTooLarge { bytes, .. } = error
                    && (!self.room_for(net, infohash, bytes, bytes).await?
                        || self.outgrows_disk(infohash, bytes))
                {
                    return Ok(Err(Fetched::NoRoom));
                }
                tracing::warn!(version = %infohash, %error, "refused before it was fetched");
                Ok(Err(Fetched::Broken))
            }
        }
    }

    /// The shared start of a transfer: everything that kept versions already hold.
    pub(super) async fn incoming(&self, hashes: &PieceHashes) -> Result<Arc<Incoming>, EngineError> {
        let (core, hashes) = (self.core.clone(), hashes.clone());
        let made = tokio::task::spawn_blocking(move || {
            let kept: Vec<_> = core.inner().versions.iter().cloned().collect();
            let mut bases = Vec::new();
            let begun: Vec<_> = core.inner().begun.iter().cloned().collect();
            for version in kept.iter().take(BASES_MAX) {
                // What is here in part cannot be hashed anew in pieces of another length.
                let known = core.cache.hashes(&version.reference.infohash);
                if known.is_none_or(|known| known.length != hashes.length)
                    && !core.store.is_whole(&version.image)
                {
                    continue;
                }
                bases.push((version.image.clone(), core.hashes_at(version, hashes.length)?));
            }
            bases.extend(begun.into_iter().filter_map(|(infohash, image)| {
                let known = core.cache.hashes(&infohash)?;
                (known.length == hashes.length).then_some((image, known))
            }));
            Ok::<_, EngineError>(Arc::new(core.store.incoming(hashes, &bases)?))
        });
        made.await.map_err(|error| EngineError::Other(error.to_string()))?
    }

    /// What news have begun, with what has come since: versions that were on their way then may hold most of the rest.
    async fn refreshed(&self, begun: Arc<Incoming>) -> Result<Arc<Incoming>, EngineError> {
        if begun.complete() {
            return Ok(begun);
        }
        let fresh = self.incoming(begun.hashes()).await?;
        let filled = tokio::task::spawn_blocking(move || {
            for piece in fresh.missing().into_iter().filter(|piece| begun.has(*piece)) {
                let mut bytes = vec![0; fresh.hashes().bytes_of(piece) as usize];
                begun.read(fresh.hashes().length.start_of(piece), &mut bytes)?;
                fresh.accept(piece, &bytes)?;
            }
            Ok::<_, EngineError>(fresh)
        });
        filled.await.map_err(|error| EngineError::Other(error.to_string()))?
    }

    pub(super) fn image_limit(&self) -> u64 {
        let settings = &self.core.settings;
        let usual = if settings.on_demand { ON_DEMAND_BYTES_MAX } else { self.disk_bytes() };
        settings.image_bytes_max.unwrap_or(usual).min(self.growth_limit())
    }

    /// How large the next version may be, beside those that are here.
    pub(super) fn growth_limit(&self) -> u64 {
        let inner = self.core.inner();
        let last = inner.versions.iter().next().map(|version| version.image.bytes());
        last.map_or(u64::MAX, |bytes| bytes.saturating_mul(2).saturating_add(GROWTH_BYTES_MAX))
    }

    pub(super) async fn publish(self: &Arc<Self>, net: &Net) -> Input {
        if let Err(error) = self.know_hashes_of_head().await {
            tracing::warn!(%error, "nothing is published yet");
            return Input::Published(Err(()));
        }
        let core = self.core.clone();
        let made = tokio::task::spawn_blocking(move || {
            let Some(made) = core.publish()? else { return Ok(None) };
            let delta = made.base.as_ref().and_then(|base| core.delta_of(&made, base).transpose());
            Ok::<_, EngineError>(Some((made, delta.transpose()?)))
        });
        let outcome = match made.await {
            Ok(Ok(Some((made, delta)))) => {
                self.facts.lock().demand.hashed();
                // What carries all its bytes can be told before it can be fetched.
                let carried = delta.as_ref().is_some_and(Delta::carries_bytes);
                self.facts.lock().exchanged.made = delta.map(Arc::new);
                if carried {
                    self.seed_soon(made.metainfo, made.image);
                } else {
                    self.seed(net, &made.metainfo, made.image).await;
                    self.drop_old(net).await;
                }
                self.tell_what_is_kept(net, None);
                if let Some(rest) = self.core.said.0.due(Instant::now()) {
                    let version = short(&made.reference.infohash);
                    tracing::info!(%version, "published what was changed here{rest}");
                }
                Ok(Some(made.reference))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(EngineError::Withheld)) => return Input::Withheld,
            Ok(Err(error @ EngineError::NoPolicyYet)) => {
                tracing::debug!(%error, "nothing was published");
                Err(())
            }
            Ok(Err(error)) => {
                match absent_place(&error) {
                    Some(place) => self.bring_for_hashing(place).await,
                    None => tracing::error!(error = %error_chain(&error), "nothing was published"),
                }
                Err(())
            }
            Err(error) => {
                tracing::error!(%error, "publishing ended abnormally");
                Err(())
            }
        };
        Input::Published(outcome)
    }

    pub(super) async fn seed(&self, net: &Net, metainfo: &Metainfo, image: Image) {
        let infohash = metainfo.infohash();
        match net.swarm.seed(metainfo, &self.core.store, &image).await {
            Ok(()) => _ = self.facts.lock().seeded.insert(infohash),
            Err(error) => tracing::warn!(version = %infohash, error = %error_chain(&error), "not seeded"),
        }
    }

    pub(super) async fn seed_kept(self: Arc<Self>) {
        let Some(net) = self.net() else { return };
        self.keep_within_quota(net).await;
        let kept: Vec<_> = self.core.inner().versions.iter().cloned().collect();
        self.complete_soon();
        self.pin(self.core.settings.pins.iter().map(|path| path.clone().into_bytes()).collect());
        for version in kept {
            if !self.core.store.is_whole(&version.image) {
                // It cannot be hashed; and where the rest is being fetched that serves it.
                let known = self.core.cache.hashes(&version.reference.infohash);
                if let Some(hashes) = known.filter(|_| self.core.settings.on_demand) {
                    self.seed(net, &Metainfo { hashes }, version.image).await;
                }
                continue;
            }
            let core = self.core.clone();
            let hashing = version.clone();
            let hashes = tokio::task::spawn_blocking(move || core.hashes_of(&hashing)).await;
            match hashes {
                Ok(Ok(hashes)) => self.seed(net, &Metainfo { hashes }, version.image).await,
                Ok(Err(error)) => tracing::error!(%error, "a kept version is not seeded"),
                Err(error) => tracing::error!(%error, "hashing ended abnormally"),
            }
        }
    }

    /// Stops seeding what is no longer kept.
    pub(super) async fn drop_old(&self, net: &Net) {
        let kept: BTreeSet<InfoHash> =
            self.core.inner().versions.iter().map(|version| version.reference.infohash).collect();
        let old: Vec<InfoHash> = {
            let mut facts = self.facts.lock();
            let old = facts.seeded.difference(&kept).copied().collect();
            facts.seeded.retain(|infohash| kept.contains(infohash));
            old
        };
        for infohash in old {
            net.swarm.remove(infohash).await;
        }
    }
}

/// Bytes that a transfer still misses.
pub(super) fn missing_bytes(incoming: &Incoming) -> u64 {
    incoming.missing().into_iter().map(|piece| incoming.hashes().bytes_of(piece)).sum()
}
