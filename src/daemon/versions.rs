//! The versions that a device keeps besides its working head, and which of them to let go.

use super::begun::BEGUN_MAX;
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
pub(super) const STORM_SECONDS: u32 = 60;
const _: () = assert!(
    RECENT_OF_STORM_MAX + VERSIONS_MAX + AGES_SECONDS.len() + 4 + BEGUN_MAX < 64,
    "a commit keeps 64 at most"
);

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

    /// What the merge of `ours`, all heads of one state, with `theirs` starts from: the newest versions that are in both
    /// or that both stand on.
    pub fn bases(&self, ours: &[(Id, Arc<Commit>)], theirs: (Id, &Commit)) -> Vec<&Version> {
        let kept: Vec<_> =
            self.iter().filter_map(|version| Some((version, version.commit.as_deref()?))).collect();
        let commits: Vec<_> = kept.iter().map(|(version, commit)| (version.id(), *commit)).collect();
        let ours: Vec<_> = ours.iter().map(|(id, commit)| (*id, &**commit)).collect();
        shared(&commits, &ours, theirs).into_iter().map(|at| kept[at].0).collect()
    }

    /// The newest kept version that another one stands on; of several its own maker's, so that a merge differs from it in
    /// what it brought there. None where no such version is kept.
    pub fn before(&self, of: &Version) -> Option<&Version> {
        let of = of.commit.as_deref()?;
        let below: Vec<_> = self
            .iter()
            .filter_map(|version| Some((version, version.commit.as_deref()?)))
            .filter(|(_, commit)| of.covers(commit))
            .collect();
        let commits: Vec<_> = below.iter().map(|(version, commit)| (version.id(), *commit)).collect();
        let tops = newest(&commits);
        let own = tops.iter().find(|at| below[**at].1.device == of.device);
        own.or(tops.first()).map(|at| below[*at].0)
    }
}

/// Which commits are the newest that two states share. A state that is not published yet has several heads and holds what
/// any of them stands on.
fn shared(commits: &[(Id, &Commit)], ours: &[(Id, &Commit)], theirs: (Id, &Commit)) -> Vec<usize> {
    let holds = |head: &(Id, &Commit), at: usize| {
        let (id, commit) = commits[at];
        head.0 == id || head.1.covers(commit)
    };
    let mine = |at: usize| ours.is_empty() || ours.iter().any(|head| holds(head, at));
    let both: Vec<usize> = (0..commits.len()).filter(|at| holds(&theirs, *at) && mine(*at)).collect();
    let found: Vec<_> = both.iter().map(|at| commits[*at]).collect();
    newest(&found).into_iter().map(|at| both[at]).collect()
}

/// Which of some commits are the newest. Lamport counters only order those of which none stands on another: anybody can
/// write any number into a commit.
fn newest(commits: &[(Id, &Commit)]) -> Vec<usize> {
    let rank = |at: &usize| (commits[*at].1.lamport, commits[*at].0);
    let top = |at: &usize| !commits.iter().any(|(_, other)| other.covers(commits[*at].1));
    let mut tops: Vec<usize> = (0..commits.len()).filter(top).collect();
    if tops.is_empty() {
        // Of numbers given twice a circle can be made.
        tops.extend((0..commits.len()).max_by_key(rank));
    }
    tops.sort_by_key(|at| std::cmp::Reverse(rank(at)));
    tops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DatabaseId, DeviceId, Locator, Place, SessionId, Signature};
    use crate::crypt::DeviceKey;

    const DATABASE: DatabaseId = DatabaseId([9; 32]);

    fn commit(by: u8, counter: u64, lamport: u64, parents: &[&Commit]) -> Commit {
        let commit = Commit {
            catalogue: None,
            charter: Locator { place: Place { offset: 0, length: 1 }, id: Id([1; 32]) },
            policy_counter: 1,
            parents: Vec::new(),
            vector: Commit::vector_above(parents.iter().copied()),
            lamport,
            time: 0,
            device: DeviceId([0; 32]),
            session: SessionId([by; 16]),
            counter,
            signature: Signature([0; 64]),
        };
        commit.signed(&DATABASE, &DeviceKey::from_seed(&[by; 32]))
    }

    #[test]
    fn a_lamport_counter_does_not_make_an_older_commit_the_base() {
        let forged = commit(3, 1, u64::MAX, &[]);
        let after = commit(1, 1, 2, &[&forged]);
        let last = commit(2, 1, 3, &[&after]);
        let named = |commits: &[&Commit]| {
            newest(&commits.iter().zip(1..).map(|(commit, n)| (Id([n; 32]), *commit)).collect::<Vec<_>>())
        };
        assert_eq!(named(&[&forged, &after, &last]), [2]);
        assert_eq!(named(&[&last, &after, &forged]), [0]);
        assert_eq!(
            named(&[&commit(1, 5, 7, &[]), &commit(2, 5, 7, &[])]),
            [1, 0],
            "apart: the higher id first"
        );
        assert_eq!(named(&[]), [0; 0]);
    }

    #[test]
    fn a_state_with_two_heads_shares_what_either_stands_on() {
        let ground = commit(1, 1, 1, &[]);
        let own = commit(1, 2, 2, &[&ground]);
        let taken = commit(2, 1, 2, &[&ground]);
        let next = commit(2, 2, 3, &[&taken]);
        let merged = commit(3, 1, 4, &[&own, &taken]);
        let named = |n: u8, commit| (Id([n; 32]), commit);
        let all = [named(1, &ground), named(2, &own), named(3, &taken)];
        assert_eq!(shared(&all, &all[1..2], named(4, &next)), [0]);
        assert_eq!(shared(&all, &all[1..], named(4, &next)), [2], "what was taken is in the state");
        assert_eq!(shared(&all, &all[1..], named(5, &merged)), [2, 1], "both, the higher id first");
        assert_eq!(shared(&all[..1], &all[1..], named(5, &merged)), [0], "they were let go");
    }
}
