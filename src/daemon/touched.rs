//! What a version changed, as paths: taken from the difference to the version before it when somebody asks, and
//! remembered, since neither of the two ever changes.

use super::core::Core;
use super::error::EngineError;
use super::versions::Version;
use crate::base::Inode;
use crate::map::{Map, MapError};
use crate::tree::ImageSource;
use crate::tree::key::Key;
use std::collections::{BTreeMap, BTreeSet};

/// Paths that are named; of the others only the number is told.
const PATHS_MAX: usize = 8;
/// Differences that are looked at.
const KEYS_MAX: usize = 500;

/// What a version changed.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Paths from the database's root, sorted; at most a few.
    pub paths: Vec<String>,
    /// How many more there are at least.
    pub more: usize,
}

enum Stop {
    Enough,
    Failed(MapError),
}

impl From<MapError> for Stop {
    fn from(error: MapError) -> Stop {
        Stop::Failed(error)
    }
}

#[derive(Default)]
struct Collected {
    entries: BTreeSet<(Inode, Vec<u8>)>,
    inodes: BTreeSet<Inode>,
}

impl Core {
    /// What `newer` changed since `older`; without `older`, everything that it holds.
    pub(super) fn touched(&self, older: Option<&Version>, newer: &Version) -> Result<Touched, EngineError> {
        if let Some(known) = self.touched.lock().get(&newer.id()) {
            return Ok(known.clone());
        }
        let mut collected = Collected::default();
        let mut left = KEYS_MAX;
        let before = match older.and_then(|version| Some((version, version.commit.as_ref()?))) {
            Some((version, commit)) => self.open_catalogue(&version.image, commit)?.1,
            None => BTreeMap::new(),
        };
        let commit = newer.commit.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let after = self.open_catalogue(&newer.image, commit)?.1;
        let charter = self.inner().state.charter.clone();
        let new_source = ImageSource::new(&self.store, &newer.image);
        let old_source = older.map(|version| ImageSource::new(&self.store, &version.image));
        for (number, block) in &charter.blocks {
            let Some(keys) = self.keys.block(*number, block) else { continue };
            let of_life = |entries: &BTreeMap<_, super::core::Listed>| {
                entries.get(number).filter(|listed| listed.entry.birth == block.birth).and_then(|l| l.root())
            };
            let (old, new) = (of_life(&before), of_life(&after));
            // Its visible map tells how the content lies, not what it is.
            if block.private.is_some() {
                if old.map(|root| root.id) != new.map(|root| root.id) {
                    collected.inodes.insert(number.root_inode());
                }
                continue;
            }
            let new_map = Map::new(&keys, &new_source, self.tree_nodes());
            let old_map = Map::new(&keys, old_source.as_ref().unwrap_or(&new_source), self.tree_nodes());
            let compared = old_map.diff_with(old.as_ref(), &new_map, new.as_ref(), &mut |key, _, _| {
                left = left.checked_sub(1).ok_or(Stop::Enough)?;
                collected.take(key);
                Ok(())
            });
            match compared {
                Ok(()) => {}
                Err(Stop::Enough) => break,
                Err(Stop::Failed(error)) => return Err(EngineError::Other(error.to_string())),
            }
        }
        let touched = self.named(collected)?;
        self.touched.lock().insert(newer.id(), touched.clone());
        Ok(touched)
    }

    /// Paths as they are now; what is gone from its directory is named all the same.
    fn named(&self, collected: Collected) -> Result<Touched, EngineError> {
        let tree = self.tree()?;
        let mut paths = BTreeSet::new();
        let mut count = 0;
        for (parent, name) in &collected.entries {
            count += 1;
            if paths.len() < PATHS_MAX
                && let Some(directory) = tree.path_of(*parent)
            {
                let path =
                    format!("{}/{}", String::from_utf8_lossy(&directory), String::from_utf8_lossy(name));
                paths.insert(path.replace("//", "/"));
            }
        }
        // A directory in which names came or went is not named again, nor is a file that is new under its name.
        let parents: BTreeSet<Inode> = collected.entries.iter().map(|(parent, _)| *parent).collect();
        for inode in collected.inodes.difference(&parents).take(KEYS_MAX) {
            let Some(path) = tree.path_of(*inode) else { continue };
            let path = String::from_utf8_lossy(&path).into_owned();
            if paths.contains(&path) {
                continue;
            }
            count += 1;
            if paths.len() < PATHS_MAX {
                paths.insert(path);
            }
        }
        let paths: Vec<String> = paths.into_iter().collect();
        Ok(Touched { more: count - paths.len().min(count), paths })
    }
}

impl Collected {
    fn take(&mut self, key: &[u8]) {
        match Key::decode(key) {
            Ok(Key::Entry(parent, name)) => _ = self.entries.insert((parent, name.to_vec())),
            Ok(other) => _ = self.inodes.insert(other.inode()),
            Err(_) => {}
        }
    }
}
