//! The machine: polls, falls back down the five versions, publishes when a burst of changes is over, puts with
//! compare-and-swap, re-puts what the DHT has lost.
//!
//! Invariants: at most one poll, one fetch, one publication and one put are under way; a version is told to others
//! only after the daemon has seeded it; `seq` only grows; nothing is put before the record that it stands on has been
//! looked at.

use super::{Millis, Timing};
use crate::base::{Id, InfoHash};
use crate::record::{VERSIONS_MAX, VersionRef};
use std::collections::BTreeMap;

/// What a device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// It holds the database key.
    pub publishes: bool,
    /// It keeps every version of the record, not only the newest.
    pub keeps_all: bool,
}

/// A record that was heard: its signature, seal and policy are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// BEP 44 sequence number.
    pub seq: i64,
    /// Hash of the signed value: tells two values of one `seq` apart.
    pub digest: Id,
    /// Newest first.
    pub versions: Vec<VersionRef>,
}

/// What a poll brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// No node answered.
    Unreachable,
    /// Nodes answered, none has the record.
    Nothing,
    /// All distinct values with the highest `seq` that was seen.
    Heard(Vec<Heard>),
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is here, and the head covers it: it was adopted as it is, or was known already.
    Current,
    /// The head stands above it: the head ought to be in the record.
    Behind,
    /// It was merged with changes of this device; the result waits to be published.
    Merged,
    /// Parts of it were refused; the rest was taken. An honest version ought to follow.
    Refused,
    /// It is here, but not ready to be merged by this device yet: ask again.
    Later,
    /// Nobody served it.
    NoSource,
    /// It is not a version of this database, or does not open.
    Broken,
}

/// How a put ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// Stored by at least one node.
    Done(Heard),
    /// Somebody else was first.
    Superseded,
    /// No node answered.
    Unreachable,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// Something was changed locally.
    Changed,
    /// A poll ended.
    Polled(Poll),
    /// A fetch, and what followed from it, ended.
    Fetched(InfoHash, Fetched),
    /// A publication ended: the version that stands for the head, none if there was nothing to publish, or the
    /// failure to make one.
    Published(Result<Option<VersionRef>, ()>),
    /// A put ended.
    Put(PutOutcome),
    /// A person asked: poll and publish now.
    Hurry,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the DHT for the record.
    Poll,
    /// Fetch a version, verify it, adopt or merge it.
    Fetch(VersionRef),
    /// Freeze the head, seal, hash, seed.
    Publish,
    /// Sign these versions under `seq` and put them, expecting `cas` to be the newest.
    Put {
        /// Newest first.
        versions: Vec<VersionRef>,
        /// The number to sign.
        seq: i64,
        /// The number that must be the newest, if any was seen.
        cas: Option<i64>,
    },
    /// Put the signed item of the highest accepted record as it is.
    Reput,
    /// Announce under the rendezvous.
    Announce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Here and covered by the head.
    Here,
    /// Nobody served it; to be tried again at the given time.
    Dead { again: Millis },
    /// Not a version of ours. Never tried again.
    Broken,
}

/// One device's view of one database.
pub struct Machine {
    timing: Timing,
    role: Role,
    /// The highest `seq` and all its values.
    accepted: Vec<Heard>,
    known: BTreeMap<InfoHash, Known>,
    /// When a version was first wanted in vain.
    wanted_since: BTreeMap<InfoHash, Millis>,
    /// The newest version made or adopted here.
    head: Option<VersionRef>,
    /// The head ought to become the newest of the record, not before the given time.
    unput: Option<Millis>,
    pending: Option<Burst>,
    polling: bool,
    fetching: Option<InfoHash>,
    publishing: bool,
    putting: bool,
    reachable: bool,
    polls_done: u64,
    next_poll: Millis,
    next_put: Millis,
    next_publish: Millis,
    next_reput: Millis,
    next_announce: Millis,
    backoff: Millis,
    hurry: bool,
}

#[derive(Clone, Copy)]
struct Burst {
    first: Millis,
    last: Millis,
}

impl Machine {
    /// A machine that knows `accepted` (the record it last accepted, if any) and `head` from before.
    pub fn new(timing: Timing, role: Role, accepted: Option<Heard>, head: Option<VersionRef>) -> Machine {
        let mut machine = Machine {
            backoff: timing.backoff,
            timing,
            role,
            accepted: accepted.into_iter().collect(),
            known: BTreeMap::new(),
            wanted_since: BTreeMap::new(),
            head: None,
            unput: None,
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
            machine.known.insert(head.infohash, Known::Here);
            machine.head = Some(head);
            if machine.first_accepted() != Some(head.infohash) && role.publishes {
                machine.unput = Some(0);
            }
        }
        machine
    }

    /// Marks a version as kept from an earlier run.
    pub fn keep(&mut self, infohash: InfoHash) {
        self.known.insert(infohash, Known::Here);
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
                self.known.retain(|_, known| !matches!(known, Known::Dead { .. }));
            }
        }
        self.decide(now)
    }

    /// When to call [`Machine::handle`] with a tick at the latest.
    pub fn deadline(&self) -> Millis {
        let mut at = if self.polling { Millis::MAX } else { self.next_poll };
        at = at.min(self.next_announce).min(self.next_reput);
        if let Some(burst) = self.pending {
            at = at.min(self.publish_at(burst));
        }
        if let Some(unput) = self.unput {
            at = at.min(unput.max(self.next_put));
        }
        for known in self.known.values() {
            if let Known::Dead { again } = known {
                at = at.min(*again);
            }
        }
        at
    }

    /// Nothing is pending, under way or unheard; `polls` is [`Machine::polls_done`] at the time of asking.
    pub fn settled_since(&self, polls: u64) -> bool {
        self.polls_done > polls && self.idle() && self.next_wanted(Millis::MAX).is_none()
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
    pub fn is_here(&self, infohash: &InfoHash) -> bool {
        self.known.get(infohash) == Some(&Known::Here)
    }

    /// The newest version made or adopted here.
    pub fn head(&self) -> Option<&VersionRef> {
        self.head.as_ref()
    }

    fn idle(&self) -> bool {
        self.published_all() && !self.polling && self.fetching.is_none()
    }

    fn first_accepted(&self) -> Option<InfoHash> {
        Some(self.accepted.first()?.versions.first()?.infohash)
    }

    fn seq(&self) -> Option<i64> {
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
            if !self.accepted.iter().any(|known| known.digest == heard.digest) {
                self.accepted.push(heard);
            }
        }
    }

    fn fetched(&mut self, infohash: InfoHash, outcome: Fetched, now: Millis, dice: u64) {
        self.fetching = None;
        let version = self.find(&infohash);
        let jitter = dice % self.timing.poll.max(1);
        match outcome {
            Fetched::Current => {
                self.known.insert(infohash, Known::Here);
                let is_newest = self.first_accepted() == Some(infohash);
                if is_newest || self.head.is_none() || self.above(&infohash) {
                    self.head = version.or(self.head);
                }
                self.rescue(infohash, now, jitter);
            }
            Fetched::Behind => {
                self.known.insert(infohash, Known::Here);
                if self.role.publishes && self.first_accepted() == Some(infohash) {
                    self.unput.get_or_insert(now + jitter);
                }
                self.rescue(infohash, now, jitter);
            }
            Fetched::Merged => {
                self.known.insert(infohash, Known::Here);
                self.changed(now);
            }
            Fetched::Refused => {
                self.known.insert(infohash, Known::Here);
                if self.role.publishes {
                    self.changed(now);
                }
            }
            Fetched::Later => {
                self.known.insert(infohash, Known::Dead { again: now + self.timing.put_spacing + jitter });
            }
            Fetched::NoSource => {
                self.wanted_since.entry(infohash).or_insert(now);
                self.known.insert(infohash, Known::Dead { again: now + self.timing.retry_dead });
            }
            Fetched::Broken => {
                self.known.insert(infohash, Known::Broken);
            }
        }
        self.known.retain(|hash, known| {
            *known != Known::Here
                || self.head.is_some_and(|head| head.infohash == *hash)
                || self.accepted.iter().any(|heard| heard.versions.iter().any(|v| v.infohash == *hash))
        });
    }

    /// Whether `infohash` stands before the head in the record: it is the newer of the two.
    fn above(&self, infohash: &InfoHash) -> bool {
        let Some(head) = &self.head else { return true };
        let Some(heard) = self.accepted.first() else { return true };
        let rank = |wanted: &InfoHash| heard.versions.iter().position(|version| version.infohash == *wanted);
        match (rank(infohash), rank(&head.infohash)) {
            (Some(one), Some(other)) => one < other,
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// A version behind dead or broken ones proved complete: put it (or the head, if that stands above it) first
    /// again, so that others stop trying.
    fn rescue(&mut self, infohash: InfoHash, now: Millis, jitter: Millis) {
        if !self.role.publishes || self.first_accepted() == Some(infohash) {
            return;
        }
        let Some(first) = self.first_accepted() else { return };
        match self.known.get(&first) {
            Some(Known::Broken) => _ = self.unput.get_or_insert(now + jitter),
            Some(Known::Dead { .. }) => {
                let since = self.wanted_since.get(&first).copied().unwrap_or(now);
                let patient = since + self.timing.patience;
                self.unput.get_or_insert(patient.max(now) + jitter);
            }
            _ => {}
        }
    }

    fn published(&mut self, outcome: Result<Option<VersionRef>, ()>, now: Millis) {
        self.publishing = false;
        match outcome {
            Ok(Some(version)) => {
                self.known.insert(version.infohash, Known::Here);
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
                if self.head.map(|head| head.infohash) == heard.versions.first().map(|v| v.infohash) {
                    self.unput = None;
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

    fn decide(&mut self, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now >= self.next_announce {
            self.next_announce = now + self.timing.announce;
            effects.push(Effect::Announce);
        }
        if !self.polling && now >= self.next_poll {
            self.polling = true;
            effects.push(Effect::Poll);
        }
        if now >= self.next_reput {
            self.next_reput = now + self.timing.reput;
            if !self.accepted.is_empty() {
                effects.push(Effect::Reput);
            }
        }
        if self.fetching.is_none()
            && !self.publishing
            && let Some(version) = self.next_wanted(now)
        {
            self.fetching = Some(version.infohash);
            effects.push(Effect::Fetch(version));
        }
        self.decide_publish(now, &mut effects);
        effects
    }

    fn decide_publish(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let busy = self.publishing || self.putting || self.fetching.is_some();
        // Never before a first look at the DHT: what is there may be newer than what stands here.
        if !self.role.publishes || busy || !self.reachable {
            return;
        }
        if let Some(burst) = self.pending
            && now >= self.publish_at(burst)
        {
            self.pending = None;
            self.publishing = true;
            effects.push(Effect::Publish);
            return;
        }
        let due = self.unput.is_some_and(|at| now >= at.max(self.next_put));
        if due && let Some(head) = self.head {
            self.putting = true;
            let cas = self.seq();
            effects.push(Effect::Put { versions: self.list(head), seq: cas.unwrap_or(0) + 1, cas });
        }
    }

    fn publish_at(&self, burst: Burst) -> Millis {
        let quiet = (burst.last + self.timing.quiet).min(burst.first + self.timing.storm);
        quiet.max(self.next_publish).max(self.next_put)
    }

    /// The head, then what the record named and is not known to be broken.
    fn list(&self, head: VersionRef) -> Vec<VersionRef> {
        let mut versions = vec![head];
        for heard in &self.accepted {
            for version in &heard.versions {
                let listed = versions.iter().any(|known| known.infohash == version.infohash);
                if !listed && self.known.get(&version.infohash) != Some(&Known::Broken) {
                    versions.push(*version);
                }
            }
        }
        versions.truncate(VERSIONS_MAX);
        versions
    }

    /// For each accepted value the newest version that is not dead, if it is not here; for a mirror all of them.
    fn next_wanted(&self, now: Millis) -> Option<VersionRef> {
        for heard in &self.accepted {
            for version in &heard.versions {
                match self.known.get(&version.infohash) {
                    None => return Some(*version),
                    Some(Known::Dead { again }) if *again <= now && now != Millis::MAX => {
                        return Some(*version);
                    }
                    Some(Known::Dead { .. } | Known::Broken) => continue,
                    Some(Known::Here) if self.role.keeps_all => continue,
                    Some(Known::Here) => break,
                }
            }
        }
        None
    }

    fn find(&self, infohash: &InfoHash) -> Option<VersionRef> {
        let named = self.accepted.iter().flat_map(|heard| &heard.versions);
        named.into_iter().find(|version| version.infohash == *infohash).copied()
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
