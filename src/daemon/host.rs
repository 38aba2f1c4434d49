//! What the mount asks of the engine.

use super::aside::SetAside;
use super::commands::Desk;
use super::history;
use crate::base::{Id, InfoHash, Inode, Place};
use crate::fuse::{Host, Provenance, Reading, RefusedEntry, VersionEntry};
use crate::tree::{ReadTree, TreeError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// How many versions `.kilofs/versions` shows.
const SHOWN_MAX: usize = 5;

/// What was set aside: block, time, root.
type Refused = (u16, u32, Option<Id>);

/// The engine as its mount sees it.
pub struct EngineHost {
    desk: Arc<Desk>,
    runtime: Handle,
    /// Trees that were handed out, so that one version stays one tree.
    versions: Mutex<HashMap<InfoHash, Arc<dyn ReadTree>>>,
    refused: Mutex<HashMap<Refused, Arc<dyn ReadTree>>>,
}

impl EngineHost {
    /// A host for the mount of `desk`.
    /// To be called where the engine's tasks run.
    pub fn new(desk: Arc<Desk>) -> EngineHost {
        EngineHost { desk, runtime: Handle::current(), versions: Mutex::default(), refused: Mutex::default() }
    }

    fn refused_tree(&self, aside: &SetAside) -> Option<Arc<dyn ReadTree>> {
        let mut trees = self.refused.lock();
        let key = (aside.block.0, aside.time, aside.root.map(|root| root.id));
        if let Some(tree) = trees.get(&key) {
            return Some(tree.clone());
        }
        let tree = self.desk.core.set_aside_tree(aside).ok()?;
        trees.insert(key, tree.clone());
        Some(tree)
    }
}

impl Host for EngineHost {
    fn persist(&self) -> Result<(), TreeError> {
        self.desk.core.persist()
    }

    fn mutated(&self) {
        self.desk.driver.changed();
    }

    fn fault(
        &self,
        place: Place,
        reading: Option<Reading>,
        deadline: Instant,
        then: Box<dyn FnOnce(bool) + Send>,
    ) {
        let driver = self.desk.driver.clone();
        self.runtime.spawn(async move {
            let came = driver.fault_for(place, reading, deadline.into()).await;
            tokio::task::spawn_blocking(move || then(came));
        });
    }

    fn status(&self) -> String {
        serde_json::to_string_pretty(&self.desk.status()).unwrap_or_default() + "\n"
    }

    fn conflicts(&self) -> String {
        let Some(tree) = &self.desk.core.tree else { return String::new() };
        let conflicts = super::conflicts::existing_conflicts(&mut self.desk.core.inner(), tree);
        conflicts.iter().map(|conflict| format!("{}\t{}\n", conflict.device, conflict.path)).collect()
    }

    fn versions(&self) -> Vec<VersionEntry> {
        let listed = history::listed(&self.desk.core);
        let mut trees = self.versions.lock();
        trees.retain(|infohash, _| listed.iter().any(|version| version.reference.infohash == *infohash));
        let mut entries = Vec::new();
        for (index, version) in (1..).zip(listed.iter().take(SHOWN_MAX)) {
            let infohash = version.reference.infohash;
            if !trees.contains_key(&infohash)
                && let Ok(tree) = history::version_tree(&self.desk.core, version)
            {
                trees.insert(infohash, tree);
            }
            entries.push(VersionEntry { index, tree: trees.get(&infohash).cloned() });
        }
        entries
    }

    fn refused(&self) -> Vec<RefusedEntry> {
        let all = self.desk.core.inner().set_aside.clone();
        let entry = |(name, aside): (String, &SetAside)| {
            let root = aside.block.root_inode();
            Some(RefusedEntry { name, root, tree: self.refused_tree(aside)? })
        };
        SetAside::names(&all).into_iter().zip(&all).filter_map(entry).collect()
    }

    fn provenance(&self, inode: Inode) -> Option<Provenance> {
        let block = self.desk.core.tree.as_ref()?.block_of(inode)?;
        let inner = self.desk.core.inner();
        let mode =
            inner.state.policy.modes.get(usize::from(block.0)).map_or("rw".into(), ToString::to_string);
        let author = inner.entries.get(&block).map(|listed| &listed.entry);
        let author = author.filter(|entry| !entry.is_unsigned()).map(|entry| entry.signer.to_string());
        Some(Provenance {
            block,
            mode,
            version: inner.state.head.map(|head| head.infohash.to_string()).unwrap_or_default(),
            author: author.unwrap_or_default(),
        })
    }
}
