//! Pinned paths: what lies below them is fetched before anybody reads it, and is not given up.

use super::core::Core;
use super::demand::blocking;
use super::drive::{Driver, Net};
use super::error::EngineError;
use super::flight::Haste;
use super::versions::Version as KeptVersion;
use crate::base::{Inode, PieceIndex, Place};
use crate::image::Incoming;
use crate::tree::{FileType, ReadTree, TreeError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pieces that are asked for at a time: a reader's own come in between.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of a file whose chunks are looked up at a time.
const WINDOW_BYTES: u64 = 64 << 20;

impl Core {
    /// Where the working head has the content of all files below these paths. A path that leads nowhere is passed over.
    pub(super) fn content_below(&self, paths: &[Vec<u8>]) -> Result<Vec<Place>, EngineError> {
        let tree = self.tree()?;
        let mut places = Vec::new();
        let mut seen: BTreeSet<Inode> = BTreeSet::new();
        let mut open: Vec<Inode> = Vec::new();
        for path in paths {
            match tree.resolve(path) {
                Ok(attr) => open.push(attr.inode),
                Err(TreeError::NotFound | TreeError::NotDirectory | TreeError::Closed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while let Some(inode) = open.pop() {
            if !seen.insert(inode) {
                continue;
            }
            let attr = match tree.attr(inode) {
                Err(TreeError::NotFound) => continue,
                attr => attr?,
            };
            match attr.file_type {
                FileType::Directory => {
                    let mut cookie = 0;
                    loop {
                        let items = match tree.read_dir(inode, cookie) {
                            Err(TreeError::Closed(_)) => break,
                            items => items?,
                        };
                        let Some(last) = items.last() else { break };
                        cookie = last.cookie;
                        let below = items.iter().filter(|item| item.name != b"." && item.name != b"..");
                        open.extend(below.map(|item| item.attr.inode));
                    }
                }
                FileType::File => {
                    for start in (0..attr.size).step_by(WINDOW_BYTES as usize) {
                        places.extend(tree.places(inode, start, WINDOW_BYTES)?);
                    }
                }
                _ => {}
            }
        }
        Ok(places)
    }
}

impl Driver {
    /// Takes the list of pinned paths; what is missing below them is fetched from now on.
    pub(super) fn pin(self: &Arc<Self>, paths: Vec<Vec<u8>>) {
        self.facts.lock().demand.pins = paths;
        self.fetch_pinned();
    }

    /// Fetches what pinned paths lack, unless that is under way.
    pub(super) fn fetch_pinned(self: &Arc<Self>) {
        {
            let demand = &mut self.facts.lock().demand;
            if demand.pins.is_empty() || !demand.pinning.want() {
                return;
            }
        }
        let driver = self.clone();
        tokio::spawn(async move {
            // A change that comes in the middle begins it anew.
            while driver.facts.lock().demand.pinning.goes_on() {
                if let Err(error) = driver.bring_pinned().await {
                    tracing::warn!(%error, "what is pinned is not all here");
                }
            }
        });
    }

    /// Brings what a version cannot be published without: bytes that share a piece with what is new, or, where the image
    /// has outgrown its piece length and all of it has to be hashed anew, everything.
    pub(super) async fn bring_for_hashing(self: &Arc<Self>, place: Place) {
        let all = self.facts.lock().demand.lacked_for_hashing();
        let brought = match (all, self.net(), self.lacking_head()) {
            (true, Some(net), Some(head)) => {
                tracing::info!(
                    "everything is fetched once: the database has outgrown the length of its pieces"
                );
                self.bring_all(net, &head).await
            }
            _ => self.fault(place, None, Instant::now() + BATCH_DEADLINE).await.map(drop),
        };
        if let Err(error) = brought {
            tracing::warn!(%error, "nothing is published yet: bytes that are not here have to be hashed for it");
        }
    }

    async fn bring_all(self: &Arc<Self>, net: &Net, head: &KeptVersion) -> Result<(), EngineError> {
        let supply = self.supply(head).await?;
        self.bring_batches(net, head, &supply, &supply.missing()).await
    }

    async fn bring_batches(
        self: &Arc<Self>,
        net: &Net,
        head: &KeptVersion,
        supply: &Arc<Incoming>,
        wanted: &[PieceIndex],
    ) -> Result<(), EngineError> {
        let batch = (BATCH_BYTES / supply.hashes().length.bytes()).max(1) as usize;
        for batch in wanted.chunks(batch) {
            let left = self
                .bring_once(net, head.reference.infohash, supply, batch, Haste::Ahead, BATCH_DEADLINE)
                .await;
            if left.len() == batch.len() {
                let why = "no neighbour brings what is missing; it is tried again with the next version";
                return Err(EngineError::Network(why.into()));
            }
        }
        Ok(())
    }

    async fn bring_pinned(self: &Arc<Self>) -> Result<(), EngineError> {
        let (Some(head), Some(net)) = (self.lacking_head(), self.net()) else { return Ok(()) };
        let paths = self.facts.lock().demand.pins.clone();
        let core = self.core.clone();
        let places = blocking(move || core.content_below(&paths)).await?;
        let supply = self.supply(&head).await?;
        let wanted: BTreeSet<PieceIndex> =
            places.iter().flat_map(|place| supply.missing_at(*place)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<PieceIndex> = wanted.into_iter().collect();
        self.bring_batches(net, &head, &supply, &wanted).await?;
        self.keep_presence().await;
        tracing::info!("what is pinned is here");
        Ok(())
    }
}
