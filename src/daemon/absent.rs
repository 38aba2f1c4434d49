//! What a version lacks before it can be shown, and which bytes were missing when something failed for want of them.

use super::core::{Core, Listed};
use super::error::EngineError;
use crate::base::Place;
use crate::image::{Image, StoreError};
use crate::map::{FetchError, Map, MapError, Root};
use crate::record::VersionRef;
use crate::tree::merge::MergeError;
use crate::tree::recut::RecutError;
use crate::tree::verify::Stopped;
use crate::tree::{ImageSource, TreeError};

impl Core {
    /// Places that have to be fetched before a version can be taken: its commit, then what that leads to, a level of the
    /// maps at a time. None are left when all is here but for the content of files.
    pub(super) fn absent_structure(
        &self,
        reference: &VersionRef,
        image: &Image,
    ) -> Result<Vec<Place>, EngineError> {
        let mut absent = Vec::new();
        let lacks = |place: Place| self.store.lacks(image, place);
        if lacks(reference.commit.place) {
            return Ok(vec![reference.commit.place]);
        }
        let commit = self.open_commit(image, reference)?;
        absent.extend(Some(commit.charter.place).filter(|place| lacks(*place)));
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let source = ImageSource::new(&self.store, image);
        let catalogue = commit.catalogue.map(|(root, place)| Root { level: root.level, id: root.id, place });
        let map = Map::new(keys, &source, &self.nodes);
        map.each_absent(catalogue.as_ref(), &lacks, &mut |place| absent.push(place))?;
        if !absent.is_empty() {
            return Ok(absent);
        }
        let Some(charter) = self.open_charter(image, &commit, &commit.charter.id) else { return Ok(absent) };
        let (_, entries) = self.open_catalogue(image, &commit)?;
        for (number, listed) in entries {
            let Some(block) = charter.blocks.get(&number) else { continue };
            let (Some(keys), Some(root)) = (self.keys.block(number, block), Listed::root(&listed)) else {
                continue;
            };
            let map = Map::new(&keys, &source, self.tree_nodes());
            // What does not open is refused, with its reason, when the version is taken.
            let walked = map.each_absent(Some(&root), &lacks, &mut |place| absent.push(place));
            if let Err(error) = walked {
                tracing::debug!(block = number.0, %error, "a map is not sound");
            }
        }
        Ok(absent)
    }
}

/// Why a block of an arrived version is not taken.
pub enum Unfit {
    /// It is not as it must be.
    Refused(String),
    /// That cannot be told before these bytes are here.
    Absent(Place),
}

impl Unfit {
    /// Something in it could not be read or opened.
    pub fn unopened(error: MapError) -> Unfit {
        match of_map(&error) {
            Some(place) => Unfit::Absent(place),
            None => Unfit::Refused(format!("it does not open: {error}")),
        }
    }

    /// Its structure is not sound, or could not be read.
    pub fn stopped(stopped: Stopped) -> Unfit {
        match stopped {
            Stopped::Map(error) => Unfit::unopened(error),
            other => Unfit::Refused(format!("it does not open: {other}")),
        }
    }
}

impl From<String> for Unfit {
    fn from(refused: String) -> Unfit {
        Unfit::Refused(refused)
    }
}

impl From<&str> for Unfit {
    fn from(refused: &str) -> Unfit {
        Unfit::Refused(refused.to_owned())
    }
}

fn of_map(error: &MapError) -> Option<Place> {
    match error {
        MapError::Fetch(FetchError::Absent(place)) => Some(*place),
        _ => None,
    }
}

/// The bytes for want of which something failed.
pub fn absent_place(error: &EngineError) -> Option<Place> {
    match error {
        EngineError::Store(error) | EngineError::Tree(TreeError::Store(error)) => of_store(error),
        EngineError::Map(error)
        | EngineError::Merge(MergeError::Map(error))
        | EngineError::Recut(RecutError::Map(error)) => of_map(error),
        EngineError::Tree(TreeError::Absent(place)) => Some(*place),
        EngineError::Tree(TreeError::Map(error)) => of_map(error),
        _ => None,
    }
}

fn of_store(error: &StoreError) -> Option<Place> {
    match error {
        StoreError::NotHere { offset } => Some(Place { offset: *offset, length: 1 }),
        _ => None,
    }
}
