//! The machine: polls, falls back down the five versions, publishes when a burst of changes is over, puts with
//! compare-and-swap, re-puts what the DHT has lost.
//!
//! Where neighbours are connected each publication is told to them at once, under a number of its own, and only the
//! puts are spaced: the record that was told last is the one that is put. Its older versions are those that were put,
//! not those that were told, so that a burst of saves does not push out what a slow peer still fetches.
//!
//! Invariants: at most one poll, one fetch, one publication, one telling and one put are under way; a version is told
//! to others only after the daemon can serve it; `seq` only grows; nothing is put before the record that it stands on
//! has been looked at.

use super::signals::{Effect, Fetched, Heard, Input, Role};
use super::{Millis, Timing};
use crate::base::InfoHash;
use crate::record::VersionRef;
use std::collections::HashMap;

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
    /// The highest `seq` that the DHT was seen to have.
    pub(super) stored: Option<i64>,
    /// The highest `seq` that it ever had.
    pub(super) peak: Option<i64>,
    /// What the record that the DHT has names.
    pub(super) spread: Vec<VersionRef>,
    pub(super) neighbours: usize,
    /// Until then the record accepted last need not be in the DHT: who made it is about to put it.
    pub(super) fresh_until: Millis,
    /// Versions that nobody serves.
    pub(super) missed: HashMap<VersionRef, Missed>,
    /// The newest version made or adopted here.
    pub(super) head: Option<VersionRef>,
    /// The head ought to become the newest of the record, not before the given time.
    pub(super) unput: Option<Millis>,
    /// What stands first in the record is of no use to anybody: the head replaces it, not before the given time.
    pub(super) mending: Option<Millis>,
    /// The record of this number was signed long ago and is signed anew, not before the given time.
    pub(super) renewing: Option<(i64, Millis)>,
    pub(super) pending: Option<Burst>,
    pub(super) polling: bool,
    /// Glances since the last whole look at the record.
    pub(super) glances: u32,
    pub(super) fetching: Option<VersionRef>,
    /// When the fetch under way began, and what was the head then.
    pub(super) fetch_began: (Millis, Option<VersionRef>),
    /// The highest number that a record was signed with.
    pub(super) signed: Option<i64>,
    pub(super) publishing: bool,
    pub(super) published_since: Millis,
    pub(super) telling: bool,
    pub(super) putting: bool,
    pub(super) reachable: bool,
    pub(super) polls_done: u64,
    pub(super) next_poll: Millis,
    pub(super) next_put: Millis,
    pub(super) next_publish: Millis,
    pub(super) next_reput: Millis,
    /// The DHT does not have the record in force, and nobody seems to put it: it is put back then.
    pub(super) lost: Option<Millis>,
    pub(super) next_announce: Millis,
    pub(super) backoff: Millis,
    pub(super) next_tell: Millis,
    pub(super) hurry: bool,
    /// The last put was refused, and what was the highest number then, its own among them.
    pub(super) refused: Option<Option<i64>>,
    /// Nodes refuse for the sake of a record that nobody finds: they disagree among each other.
    pub(super) insists: bool,
    /// The time of the last input.
    pub(super) last: Millis,
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
        let spread = accepted.as_ref().map_or(Vec::new(), |heard| heard.versions.clone());
        let mut machine = Machine {
            stored: None,
            peak: None,
            spread,
            neighbours: 0,
            fresh_until: 0,
            published_since: 0,
            fetch_began: (0, None),
            signed: None,
            telling: false,
            backoff: timing.backoff,
            timing,
            role,
            accepted: accepted.into_iter().collect(),
            known: HashMap::new(),
            missed: HashMap::new(),
            head: None,
            unput: None,
            mending: None,
            renewing: None,
            pending: None,
            polling: false,
            glances: 0,
            fetching: None,
            publishing: false,
            putting: false,
            reachable: false,
            polls_done: 0,
            next_poll: 0,
            next_put: 0,
            next_publish: 0,
            next_reput: 0,
            lost: None,
            next_announce: 0,
            next_tell: 0,
            hurry: false,
            refused: None,
            insists: false,
            last: 0,
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
        self.last = now;
        if self.next_reput == 0 {
            // Many databases that are started at once do not all put at once; what the DHT has lost, the poll tells.
            let least = self.timing.reput / 4;
            self.next_reput = (now + least + dice % (3 * least).max(1)).max(1);
        }
        match input {
            Input::Tick => {}
            Input::Changed => self.changed(now),
            Input::Polled(poll) => self.polled(poll, now, dice),
            Input::Heard(heard) => self.heard(heard, now),
            Input::Neighbours(count) => self.neighbours = count,
            Input::Kept(seq) => self.kept(seq, now, dice),
            Input::Told(heard) => self.told(heard, now),
            Input::Fetched(infohash, outcome) => self.fetched(infohash, outcome, now, dice),
            Input::Published(outcome) => self.published(outcome, now),
            Input::Withheld => self.withheld(now),
            Input::Aged => self.renew(now, dice),
            Input::Put(outcome) => self.put(outcome, now),
            Input::Hurry => {
                self.hurry = true;
                self.next_poll = now;
                self.next_put = now;
                self.next_publish = now;
                self.known.retain(|_, known| !matches!(known, Known::Dead { .. } | Known::Waiting { .. }));
            }
        }
        self.decide(now, dice)
    }

    /// When to call [`Machine::handle`] with a tick at the latest.
    pub fn deadline(&self) -> Millis {
        let mut at = if self.polling { Millis::MAX } else { self.next_poll };
        at = at.min(self.next_announce).min(self.next_reput).min(self.lost.unwrap_or(Millis::MAX));
        let patient = self.fetch_began.0 + self.timing.long_fetch;
        if self.fetching.is_some() && self.last < patient {
            at = at.min(patient);
        }
        if self.may_publish(self.last) {
            if let Some(burst) = self.pending {
                at = at.min(self.publish_at(burst));
            }
            if self.may_tell(self.last) {
                at = 0;
            }
            if self.reachable
                && !self.putting
                && let Some(put) = self.put_at()
            {
                at = at.min(put.max(self.next_put));
            }
        }
        if self.fetching.is_none() && !self.publishing {
            // Only of what is still wanted: what has been passed over since is never looked at again.
            for version in self.wanted() {
                if let Some(Known::Dead { again } | Known::Waiting { again }) = self.known.get(&version) {
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
        let busy = self.publishing || self.telling || self.putting;
        self.pending.is_none() && self.unput.is_none() && !busy
    }

    /// What it is at, for logs and tests.
    pub fn outline(&self) -> String {
        format!(
            "seq {:?}, stored {:?}, head {:?}, first {:?}, unput {:?}, mending {:?}, pending {}, polling {}, fetching {:?}, \
             publishing {}, telling {}, putting {}, reachable {}, neighbours {}, next poll {}, put {}, publish {}, reput {}, last {}, deadline {}",
            self.seq(),
            self.stored,
            self.head.map(|head| head.infohash),
            self.first_accepted().map(|first| first.infohash),
            self.unput,
            self.mending,
            self.pending.is_some(),
            self.polling,
            self.fetching.map(|version| version.infohash),
            self.publishing,
            self.telling,
            self.putting,
            self.reachable,
            self.neighbours,
            self.next_poll,
            self.next_put,
            self.next_publish,
            self.next_reput,
            self.last,
            self.deadline(),
        )
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

    /// Several values share the highest `seq`, and not all have the head first.
    pub(super) fn disputed(&self) -> bool {
        let other = |heard: &Heard| heard.versions.first() != self.head.as_ref();
        self.accepted.len() > 1 && self.accepted.iter().any(other)
    }

    pub(super) fn seq(&self) -> Option<i64> {
        Some(self.accepted.first()?.seq)
    }

    pub(super) fn changed(&mut self, now: Millis) {
        // Who only reads merges, too, and tells nobody: nothing of that waits.
        let first = self.pending.map_or(now, |burst| burst.first);
        self.pending = self.role.publishes.then_some(Burst { first, last: now });
    }

    fn fetched(&mut self, infohash: InfoHash, outcome: Fetched, now: Millis, dice: u64) {
        let Some(version) = self.fetching.take_if(|version| version.infohash == infohash) else { return };
        let jitter = dice % self.timing.poll.max(1);
        let is_first = self.first_accepted() == Some(version);
        // Who only reads shows what it took last, also where two values of one number named two that are apart.
        let is_shown = !self.role.publishes && !self.role.keeps_all;
        // Something was published on top of it before word of it came here.
        let overtaken = self.head != self.fetch_began.1;
        let known = match outcome {
            Fetched::Later => Known::Waiting { again: now + self.timing.put_spacing + jitter },
            Fetched::NoRoom => Known::Waiting { again: now + self.timing.retry_room + jitter },
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
            Fetched::Current if overtaken => {}
            Fetched::Current if is_first || is_shown || self.head.is_none() || self.above(&version) => {
                self.head = Some(version);
                if is_first {
                    self.unput = None;
                }
            }
            Fetched::Behind if self.role.publishes && is_first => {
                self.unput.get_or_insert(now + jitter);
            }
            Fetched::Merged | Fetched::Refused => self.changed(now),
            _ => {}
        }
        if outcome == Fetched::Current && !is_first {
            self.reconsider_first();
        }
        if self.role.publishes && self.disputed() && self.next_wanted(Millis::MAX).is_none() {
            // Two values under one number: others hear only one of them. A higher one says what came of both.
            self.unput.get_or_insert(now + jitter);
        }
        if self.is_here(&version) {
            // What kept the last publication from being made may have come with it: a policy, a charter.
            self.next_publish = self.next_publish.min(now + self.timing.storm);
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

    fn published(&mut self, outcome: Result<Option<VersionRef>, ()>, now: Millis) {
        self.publishing = false;
        // At most a third of the time goes into publishing: a storm is batched by what it costs.
        self.next_publish = now + (2 * now.saturating_sub(self.published_since)).max(self.timing.spacing);
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
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
