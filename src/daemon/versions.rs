//! The versions that a device keeps besides its working head, and which of them to let go.

use crate::base::{Id, InfoHash};
use crate::image::Image;
use crate::record::{Commit, VERSIONS_MAX, VersionRef};
use std::sync::Arc;

const HOUR_SECONDS: u32 = 3_600;
/// Besides the five of the record: the newest version that is older than each of these.
const AGES_SECONDS: [u32; 3] = [HOUR_SECONDS, 24 * HOUR_SECONDS, 7 * 24 * HOUR_SECONDS];
/// Versions that were published or adopted here last are kept as possible merge bases.
const RECENT_MAX: usize = 6;
/// While this device and another one both write, each publishes many versions before it hears what the other made of one
/// of them: the one that both stand on must still be here then, or files that nobody else touched look like conflicts.
const RECENT_OF_STORM_MAX: usize = 48;
/// A busy machine may be so much behind with merging.
const STORM_SECONDS: u32 = 60;
const _: () =
    assert!(RECENT_OF_STORM_MAX + VERSIONS_MAX + AGES_SECONDS.len() + 4 < 64, "a commit keeps 64 at most");

/// One kept version.
#[derive(Clone)]
pub struct Version {
    /// Its torrent and the locator of its commit.
    pub reference: VersionRef,
    /// When it came to be here, in seconds since 1970.
    pub time: u32,
    /// Its bytes.
    pub image: Image,
    /// Its commit, where this device can read.
    pub commit: Option<Arc<Commit>>,
}

impl Version {
    /// The id of its commit.
    pub fn id(&self) -> Id {
        self.reference.commit.id
    }
}

/// Kept versions, in the order in which they came; the newest last.
#[derive(Clone, Default)]
pub struct Versions(Vec<Version>);

impl Versions {
    /// Adds one, or replaces one of the same torrent.
    pub fn add(&mut self, version: Version) {
        self.0.retain(|known| known.reference.infohash != version.reference.infohash);
        self.0.push(version);
    }

    /// Lets one go.
    pub fn remove(&mut self, infohash: &InfoHash) {
        self.0.retain(|version| version.reference.infohash != *infohash);
    }

    /// The version of a torrent.
    pub fn get(&self, infohash: &InfoHash) -> Option<&Version> {
        self.0.iter().find(|version| version.reference.infohash == *infohash)
    }

    /// All, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Version> {
        self.0.iter().rev()
    }

    /// Lets go what neither the record names, nor the head stands on, nor is a likely merge base, nor is the newest
    /// of its age. `others` tells whether a version was made by another device: the newest such is a likely base.
    pub fn trim(&mut self, named: &[InfoHash], now: u32, others: impl Fn(&Version) -> bool) {
        let mut keep: Vec<InfoHash> = named.to_vec();
        let fresh = |version: &&Version| now.saturating_sub(version.time) <= STORM_SECONDS;
        let (mut own, mut foreign) = (false, false);
        for version in self.iter().take_while(fresh) {
            *if others(version) { &mut foreign } else { &mut own } = true;
        }
        let storm =
            if own && foreign { self.iter().take(RECENT_OF_STORM_MAX).take_while(fresh).count() } else { 0 };
        let recent = self.iter().take(storm.max(RECENT_MAX));
        keep.extend(recent.map(|version| version.reference.infohash));
        keep.extend(self.iter().find(|version| others(version)).map(|version| version.reference.infohash));
        for age in AGES_SECONDS {
            let old = self.iter().find(|version| now.saturating_sub(version.time) >= age);
            keep.extend(old.map(|version| version.reference.infohash));
        }
        self.0.retain(|version| keep.contains(&version.reference.infohash));
    }

    /// The newest version that all of `ours` and `theirs` are or stand on: the base of their merge.
    pub fn base(&self, ours: &[(Id, Arc<Commit>)], theirs: (Id, &Commit)) -> Option<&Version> {
        let below = |version: &&Version| {
            let Some(commit) = &version.commit else { return false };
            let id = version.id();
            let under = |above_id: Id, above: &Commit| {
                above_id == id || above.covers(commit.session, commit.counter, &id)
            };
            ours.iter().all(|(above_id, above)| under(*above_id, above)) && under(theirs.0, theirs.1)
        };
        self.iter().filter(below).max_by_key(|version| {
            let lamport = version.commit.as_ref().map_or(0, |commit| commit.lamport);
            (lamport, version.id())
        })
    }
}
