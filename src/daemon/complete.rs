//! Fetching the rest of what is shown already, in the background: on devices that are to have everything.

use super::demand::blocking;
use super::drive::{Driver, Net};
use super::error::EngineError;
use super::transfer::{STALL_DEADLINE, missing_bytes};
use super::versions::Version as KeptVersion;
use crate::net::NetError;
use crate::torrent::Metainfo;
use std::sync::Arc;
use std::time::Duration;

/// Nobody had the rest: they are asked again after so long.
const AGAIN_PAUSE: Duration = Duration::from_secs(5);

impl Driver {
    /// Fetches what the head still lacks, unless that is under way or not wanted.
    pub(super) fn complete_soon(self: &Arc<Self>) {
        if self.core.settings.on_demand || !self.facts.lock().demand.completing.want() {
            return;
        }
        let driver = self.clone();
        tokio::spawn(async move {
            while driver.facts.lock().demand.completing.goes_on() {
                if let Err(error) = driver.complete().await {
                    tracing::warn!(%error, "the rest of the newest version is not being fetched");
                }
            }
        });
    }

    async fn complete(self: &Arc<Self>) -> Result<(), EngineError> {
        while let Some(version) = self.lacking_head() {
            let Some(net) = self.net() else { return Ok(()) };
            let whole = self.complete_version(net, &version).await?;
            if !whole && self.lacking_head().is_some_and(|head| head.reference == version.reference) {
                tokio::time::sleep(AGAIN_PAUSE).await;
            }
        }
        Ok(())
    }

    /// The version on which the working head stands, if not all of it is here.
    pub(super) fn lacking_head(&self) -> Option<KeptVersion> {
        let inner = self.core.inner();
        let head = inner.versions.get(&inner.state.head?.infohash)?;
        (!self.core.store.is_whole(&head.image)).then(|| head.clone())
    }

    /// Whether all of a version is here now.
    async fn complete_version(
        self: &Arc<Self>,
        net: &Net,
        version: &KeptVersion,
    ) -> Result<bool, EngineError> {
        let infohash = version.reference.infohash;
        let supply = self.supply(version).await?;
        let metainfo = Metainfo { hashes: supply.hashes().clone() };
        let missing = missing_bytes(&supply);
        self.facts.lock().transfers.insert(infohash, (supply.clone(), missing));
        // What a reader brings the torrent would bring once more: neighbours are asked for the rest, as he asks them.
        self.seed(net, &metainfo, version.image.clone()).await;
        let is_head = || self.lacking_head().is_some_and(|head| head.reference == version.reference);
        let hauled = self.haul(net, infohash, &supply, &is_head).await;
        if !matches!(hauled, Ok(false)) {
            self.facts.lock().transfers.remove(&infohash);
            hauled?;
            return self.completed(net, &metainfo, version).await;
        }
        let mut peers = self.neighbouring_peers(net);
        peers.extend(self.find_peers(net).await);
        let fetched = net.swarm.fetch(&metainfo, &supply, &peers, STALL_DEADLINE).await;
        self.facts.lock().transfers.remove(&infohash);
        match fetched {
            Ok(()) => {}
            Err(NetError::NoSource(_)) => {
                net.swarm.remove(infohash).await;
                return Ok(false);
            }
            Err(error) => {
                net.swarm.remove(infohash).await;
                tracing::debug!(%error, "the rest of a version did not come");
                return Ok(false);
            }
        }
        self.completed(net, &metainfo, version).await
    }

    async fn completed(
        self: &Arc<Self>,
        net: &Net,
        metainfo: &Metainfo,
        version: &KeptVersion,
    ) -> Result<bool, EngineError> {
        self.keep_presence().await;
        self.facts.lock().demand.forget();
        let whole = self.core.store.is_whole(&version.image);
        if whole {
            self.seed(net, metainfo, version.image.clone()).await;
            self.tell_what_is_kept(net, None);
            tracing::info!("all of the newest version is here");
        }
        Ok(whole)
    }

    /// Makes what has come in survive a crash, if anything has.
    pub(super) async fn keep_presence(&self) {
        if self.core.store.presence_is_durable() {
            return;
        }
        let core = self.core.clone();
        let kept = blocking(move || Ok(core.save(&core.inner())?)).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "what has come in is not durable yet");
        }
    }
}
