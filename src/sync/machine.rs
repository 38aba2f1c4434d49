//! The machine: polls, falls back down the five versions, publishes when a burst of changes is over, puts with
//! compare-and-swap, re-puts what the DHT has lost.
//!
//! Invariants: at most one poll, one fetch, one publication and one put are under way; a version is told to others
//! only after the daemon has seeded it; `seq` only grows; nothing is put before the record that it stands on has been
//! looked at.

use super::signals::{Effect, Fetched, Heard, Input, Poll, PutOutcome, Role};
use super::{Millis, Timing};
use crate::base::InfoHash;
use crate::record::VersionRef;
use std::collections::HashMap;

/// The patience with a version that nobody serves is doubled at most so often.
const REPLACED_MAX: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Here and covered by the head.
    Here,
    /// Nobody served it; to be tried again at the given time.
    Dead { again: Millis },
    /// It is here, but another device had better merge it; to be looked at again at the given time.
    Waiting { again: Millis },
    /// Not a version of ours. Never tried again.
    Broken,
}

/// One device's view of one database.
pub struct Machine {
    pub(super) timing: Timing,
    pub(super) role: Role,
    /// The highest `seq` and all its values.
    pub(super) accepted: Vec<Heard>,
    /// By torrent and commit: a record may name the torrent of an honest version with a commit that is not in it.
    pub(super) known: HashMap<VersionRef, Known>,
    /// Versions that nobody serves.
    pub(super) missed: HashMap<VersionRef, Missed>,
    /// The newest version made or adopted here.
    pub(super) head: Option<VersionRef>,
    /// The head ought to become the newest of the record, not before the given time.
    pub(super) unput: Option<Millis>,
    /// What stands first in the record is of no use to anybody: the head replaces it, not before the given time.
    pub(super) mending: Option<Millis>,
    pub(super) pending: Option<Burst>,
    pub(super) polling: bool,
    pub(super) fetching: Option<VersionRef>,
    pub(super) publishing: bool,
    pub(super) putting: bool,
    pub(super) reachable: bool,
    pub(super) polls_done: u64,
    pub(super) next_poll: Millis,
    pub(super) next_put: Millis,
    pub(super) next_publish: Millis,
    pub(super) next_reput: Millis,
    pub(super) next_announce: Millis,
    pub(super) backoff: Millis,
    pub(super) hurry: bool,
}

/// A version that was wanted in vain.
#[derive(Clone, Copy)]
pub(super) struct Missed {
    pub(super) since: Millis,
    /// How often another one was put in its place: each time the next is given twice as long.
    pub(super) replaced: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Burst {
    pub(super) first: Millis,
    pub(super) last: Millis,
}

impl Machine {
    /// A machine that knows `accepted` (the record it last accepted, if any) and `head` from before.
    pub fn new(timing: Timing, role: Role, accepted: Option<Heard>, head: Option<VersionRef>) -> Machine {
        let mut machine = Machine {
            backoff: timing.backoff,
            timing,
            role,
            accepted: accepted.into_iter().collect(),
            known: HashMap::new(),
            missed: HashMap::new(),
            head: None,
            unput: None,
            mending: None,
            pending: None,
            polling: false,
            fetching: None,
            publishing: false,
            putting: false,
            reachable: false,
            polls_done: 0,
            next_poll: 0,
            next_put: 0,
            next_publish: 0,
            next_reput: 0,
            next_announce: 0,
            hurry: false,
        };
        if let Some(head) = head {
            machine.known.insert(head, Known::Here);
            machine.head = Some(head);
            if machine.first_accepted() != Some(head) && role.publishes {
                machine.unput = Some(0);
            }
        }
        machine
    }

    /// Marks a version as kept from an earlier run.
    pub fn keep(&mut self, version: VersionRef) {
        self.known.insert(version, Known::Here);
    }

    /// Notes a change from an earlier run that no record names.
    pub fn pend(&mut self) {
        self.changed(0);
    }

    /// Takes what happened at `now`; `dice` is a fresh random number, used for jitter only.
    pub fn handle(&mut self, input: Input, now: Millis, dice: u64) -> Vec<Effect> {
        match input {
            Input::Tick => {}
            Input::Changed => self.changed(now),
            Input::Polled(poll) => self.polled(poll, now, dice),
            Input::Fetched(infohash, outcome) => self.fetched(infohash, outcome, now, dice),
            Input::Published(outcome) => self.published(outcome, now),
            Input::Put(outcome) => self.put(outcome, now),
            Input::Hurry => {
                self.hurry = true;
                self.next_poll = now;
                self.next_put = now;
                self.next_publish = now;
                self.known.retain(|_, known| !matches!(known, Known::Dead { .. } | Known::Waiting { .. }));
            }
        }
        self.decide(now)
    }

    /// When to call [`Machine::handle`] with a tick at the latest.
    pub fn deadline(&self) -> Millis {
        let mut at = if self.polling { Millis::MAX } else { self.next_poll };
        at = at.min(self.next_announce).min(self.next_reput);
        if self.may_publish() {
            if let Some(burst) = self.pending {
                at = at.min(self.publish_at(burst));
            }
            if let Some(put) = self.put_at() {
                at = at.min(put.max(self.next_put));
            }
        }
        if self.fetching.is_none() && !self.publishing {
            for known in self.known.values() {
                if let Known::Dead { again } | Known::Waiting { again } = known {
                    at = at.min(*again);
                }
            }
        }
        at
    }

    /// Nothing is pending, under way or unheard; `polls` is [`Machine::polls_done`] at the time of asking.
    pub fn settled_since(&self, polls: u64) -> bool {
        self.polls_done > polls && self.idle() && self.next_wanted(Millis::MAX).is_none()
    }

    /// A burst of changes is under way: its end is looked for without being told of each change.
    pub fn awaits_quiet(&self) -> bool {
        self.pending.is_some()
    }

    /// Nothing local waits for a put.
    pub fn published_all(&self) -> bool {
        self.pending.is_none() && self.unput.is_none() && !self.publishing && !self.putting
    }

    /// How many polls were answered.
    pub fn polls_done(&self) -> u64 {
        self.polls_done
    }

    /// Whether the last poll or put was answered.
    pub fn reachable(&self) -> bool {
        self.reachable
    }

    /// The highest accepted record; the first where several share its `seq`.
    pub fn accepted(&self) -> Option<&Heard> {
        self.accepted.first()
    }

    /// Whether a version is here.
    pub fn is_here(&self, version: &VersionRef) -> bool {
        self.known.get(version) == Some(&Known::Here)
    }

    /// The newest version made or adopted here.
    pub fn head(&self) -> Option<&VersionRef> {
        self.head.as_ref()
    }

    pub(super) fn idle(&self) -> bool {
        self.published_all() && !self.polling && self.fetching.is_none()
    }

    pub(super) fn first_accepted(&self) -> Option<VersionRef> {
        self.accepted.first()?.versions.first().copied()
    }

    pub(super) fn seq(&self) -> Option<i64> {
        Some(self.accepted.first()?.seq)
    }

    fn changed(&mut self, now: Millis) {
        let first = self.pending.map_or(now, |burst| burst.first);
        self.pending = Some(Burst { first, last: now });
    }

    fn polled(&mut self, poll: Poll, now: Millis, dice: u64) {
        self.polling = false;
        self.hurry = false;
        self.next_poll = now + self.timing.poll;
        match poll {
            Poll::Unreachable => {
                self.reachable = false;
                return;
            }
            Poll::Nothing => self.lost(now, dice),
            Poll::Heard(all) => {
                let highest = all.iter().map(|heard| heard.seq).max();
                match highest.cmp(&self.seq()) {
                    std::cmp::Ordering::Less => self.lost(now, dice),
                    std::cmp::Ordering::Equal => self.widen(all),
                    std::cmp::Ordering::Greater => {
                        self.accepted.clear();
                        self.widen(all.into_iter().filter(|heard| Some(heard.seq) == highest).collect());
                    }
                }
                self.mend(now, dice % self.timing.poll.max(1));
            }
        }
        self.reachable = true;
        self.polls_done += 1;
    }

    /// The DHT has forgotten the record, or has an older one: everyone may put back what is signed. The first put is
    /// at once, since a record that is nowhere helps nobody; jitter would only delay it.
    fn lost(&mut self, now: Millis, _dice: u64) {
        if !self.accepted.is_empty() {
            self.next_reput = now;
        }
        self.next_announce = now;
    }

    fn widen(&mut self, all: Vec<Heard>) {
        for heard in all {
            if self.accepted.iter().any(|known| known.digest == heard.digest) {
                continue;
            }
            // Somebody put an older version first again: the next look at it tells whether the head stands above it.
            if let Some(first) = heard.versions.first().filter(|first| self.head.as_ref() != Some(*first))
                && self.is_here(first)
            {
                self.known.remove(first);
            }
            self.accepted.push(heard);
        }
    }

    fn fetched(&mut self, infohash: InfoHash, outcome: Fetched, now: Millis, dice: u64) {
        let Some(version) = self.fetching.take_if(|version| version.infohash == infohash) else { return };
        let jitter = dice % self.timing.poll.max(1);
        let is_first = self.first_accepted() == Some(version);
        let known = match outcome {
            Fetched::Later => Known::Waiting { again: now + self.timing.put_spacing + jitter },
            Fetched::NoSource => Known::Dead { again: now + self.timing.retry_dead },
            Fetched::Broken => Known::Broken,
            Fetched::Current | Fetched::Behind | Fetched::Merged | Fetched::Refused => Known::Here,
        };
        self.known.insert(version, known);
        if outcome == Fetched::NoSource {
            // Where nobody is found, this device may not be found either.
            self.next_announce = self.next_announce.min(now + self.timing.put_spacing);
            self.missed.entry(version).or_insert(Missed { since: now, replaced: 0 });
        } else {
            self.missed.remove(&version);
        }
        match outcome {
            Fetched::Current if is_first || self.head.is_none() || self.above(&version) => {
                self.head = Some(version);
                if is_first {
                    self.unput = None;
                }
            }
            Fetched::Behind if self.role.publishes && is_first => {
                self.unput.get_or_insert(now + jitter);
            }
            Fetched::Merged => self.changed(now),
            Fetched::Refused if self.role.publishes => self.changed(now),
            _ => {}
        }
        self.forget();
        self.mend(now, jitter);
    }

    /// Lets go what is known of versions that neither stand here nor in the record.
    fn forget(&mut self) {
        let (accepted, head) = (&self.accepted, self.head);
        let named = |version: &VersionRef| accepted.iter().any(|heard| heard.versions.contains(version));
        self.known.retain(|version, _| head == Some(*version) || named(version));
        self.missed.retain(|version, _| named(version));
    }

    /// Whether `version` stands before the head in the record: it is the newer of the two.
    fn above(&self, version: &VersionRef) -> bool {
        let Some(head) = &self.head else { return true };
        let Some(heard) = self.accepted.first() else { return true };
        let rank = |wanted: &VersionRef| heard.versions.iter().position(|version| version == wanted);
        match (rank(version), rank(head)) {
            (Some(one), Some(other)) => one < other,
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// A record that leads nowhere is replaced by one that has the head first, so that others need not try: at once
    /// where it is forged, after a while where only nobody serves what it has first.
    fn mend(&mut self, now: Millis, jitter: Millis) {
        let at = self.mend_at(now).map(|at| at + jitter);
        self.mending = at.map(|at| self.mending.map_or(at, |earlier| earlier.min(at)));
    }

    fn mend_at(&self, now: Millis) -> Option<Millis> {
        if !self.role.publishes || self.head.is_none() || self.accepted.is_empty() {
            return None;
        }
        if self.accepted.iter().any(|heard| !heard.sound) {
            return Some(now);
        }
        let Some(first) = self.first_accepted() else { return Some(now) };
        match self.known.get(&first) {
            Some(Known::Broken) => Some(now),
            Some(Known::Dead { .. }) => {
                let missed = self.missed.get(&first).copied().unwrap_or(Missed { since: now, replaced: 0 });
                let patience = self.timing.patience << missed.replaced.min(REPLACED_MAX);
                Some((missed.since + patience).max(now))
            }
            _ => None,
        }
    }

    fn published(&mut self, outcome: Result<Option<VersionRef>, ()>, now: Millis) {
        self.publishing = false;
        match outcome {
            Ok(Some(version)) => {
                self.known.insert(version, Known::Here);
                self.head = Some(version);
                self.unput = Some(now);
            }
            Ok(None) => {}
            Err(()) => {
                self.changed(now);
                self.next_publish = now + self.timing.poll;
            }
        }
    }

    fn put(&mut self, outcome: PutOutcome, now: Millis) {
        self.putting = false;
        match outcome {
            PutOutcome::Done(heard) => {
                self.reachable = true;
                self.backoff = self.timing.backoff;
                if self.head.as_ref() == heard.versions.first() {
                    self.unput = None;
                    self.mending = None;
                }
                if self.seq() == Some(heard.seq) {
                    self.widen(vec![heard]);
                } else {
                    self.accepted = vec![heard];
                }
                self.next_put = now + self.timing.put_spacing;
                self.next_reput = now + self.timing.reput;
                // Refusals surface only where most nodes refuse: read back soon.
                self.next_poll = self.next_poll.min(now + self.timing.put_spacing);
            }
            PutOutcome::Superseded => {
                self.reachable = true;
                self.next_poll = now;
                self.next_put = now + self.backoff;
            }
            PutOutcome::Unreachable => {
                self.reachable = false;
                self.next_put = now + self.backoff;
                self.backoff = (self.backoff * 2).min(self.timing.poll.max(self.timing.backoff));
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
