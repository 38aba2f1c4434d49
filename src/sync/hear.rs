//! What the machine makes of records: heard from the DHT or from a neighbour, lost, forged, in need of replacement.

use super::Millis;
use super::machine::{Known, Machine, Missed};
use super::signals::{Heard, Poll, PutOutcome};

/// The patience with a version that nobody serves is doubled at most so often.
const REPLACED_MAX: u32 = 6;

impl Machine {
    /// Goes on counting polls from those of a machine before it: who waits for one more waits for this one's.
    pub fn count_polls_from(&mut self, polls: u64) {
        self.polls_done = polls;
    }

    pub(super) fn polled(&mut self, poll: Poll, now: Millis, dice: u64) {
        self.polling = false;
        self.hurry = false;
        self.next_poll = now + self.pause(dice);
        match poll {
            Poll::Unreachable => {
                self.reachable = false;
                return;
            }
            Poll::Unchanged => {}
            Poll::Nothing => {
                self.stored = None;
                self.lacks(now, dice);
            }
            Poll::Heard(all) => {
                let highest = all.iter().map(|heard| heard.seq).max();
                // In a storm the DHT is always behind what is told, but what its maker puts arrives: nothing is lost.
                let rises = self.peak.is_some() && highest > self.peak;
                self.stored = highest;
                self.peak = self.peak.max(highest);
                if let Some(sound) = all.iter().find(|heard| Some(heard.seq) == highest && heard.sound) {
                    self.spread.clone_from(&sound.versions);
                }
                match highest.cmp(&self.seq()) {
                    std::cmp::Ordering::Less if rises => self.lost = None,
                    std::cmp::Ordering::Less => self.lacks(now, dice),
                    std::cmp::Ordering::Equal => {
                        self.lost = None;
                        self.widen(all);
                    }
                    std::cmp::Ordering::Greater => {
                        self.lost = None;
                        self.accepted.clear();
                        self.widen(all.into_iter().filter(|heard| Some(heard.seq) == highest).collect());
                    }
                }
                self.mend(now, dice % self.timing.poll.max(1));
            }
        }
        // Nobody was first: some nodes have an older record than others, and expecting the newest would be refused for ever.
        if let Some(before) = self.refused.take() {
            self.insists = self.seq() <= before;
        }
        self.reachable = true;
        self.polls_done += 1;
    }

    /// A neighbour told a record: as good as a poll, but that the DHT need not have it yet.
    pub(super) fn heard(&mut self, heard: Heard, now: Millis) {
        match Some(heard.seq).cmp(&self.seq()) {
            std::cmp::Ordering::Less => return,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                self.accepted.clear();
                self.fresh_until = now + self.timing.grace;
            }
        }
        // Who tells it has it: one that nobody served is tried again.
        if let Some(first) = heard.versions.first()
            && matches!(self.known.get(first), Some(Known::Dead { .. }))
            && self.accepted.iter().all(|known| known.digest != heard.digest)
        {
            self.known.remove(first);
        }
        self.widen(vec![heard]);
        self.mend(now, 0);
    }

    /// One of the neighbours has put the record back: there is time until it must be done again.
    pub(super) fn kept(&mut self, seq: i64, now: Millis, dice: u64) {
        if Some(seq) >= self.seq() && !self.accepted.is_empty() {
            self.next_reput = now + self.timing.reput + dice % (self.timing.reput / 2).max(1);
            self.lost = None;
        }
    }

    pub(super) fn told(&mut self, heard: Option<Heard>, now: Millis) {
        self.telling = false;
        let Some(heard) = heard else {
            self.next_tell = now + self.timing.poll;
            return;
        };
        match self.seq().cmp(&Some(heard.seq)) {
            std::cmp::Ordering::Less => self.accepted.clear(),
            std::cmp::Ordering::Equal => {}
            // Something higher was heard meanwhile: the head is told again, above that.
            std::cmp::Ordering::Greater => return,
        }
        self.fresh_until = now + self.timing.grace;
        self.widen(vec![heard]);
    }

    /// The DHT has forgotten the record, or has an older one: everyone may put back what is signed. The first put is
    /// at once, since a record that is nowhere helps nobody; but one that was only just told is left to whoever made
    /// it, and where several devices know each other they do not all put it at one time.
    fn lacks(&mut self, now: Millis, dice: u64) {
        if !self.accepted.is_empty() {
            let spread = if self.neighbours > 0 { dice % self.timing.grace.max(1) } else { 0 };
            let at = if now < self.fresh_until { self.fresh_until + spread } else { now + spread };
            self.lost = Some(self.lost.map_or(at, |earlier| earlier.min(at)));
        }
        self.next_announce = now;
    }

    /// What became of a put.
    pub(super) fn put(&mut self, outcome: PutOutcome, now: Millis) {
        self.putting = false;
        match outcome {
            PutOutcome::Done(heard) => {
                self.reachable = true;
                self.insists = false;
                self.backoff = self.timing.backoff;
                if self.head.as_ref() == heard.versions.first() {
                    self.unput = None;
                    self.mending = None;
                }
                self.stored = Some(heard.seq);
                self.peak = self.peak.max(self.stored);
                self.spread.clone_from(&heard.versions);
                // Something newer may have been told while the put was under way.
                match self.seq().cmp(&Some(heard.seq)) {
                    std::cmp::Ordering::Less => self.accepted = vec![heard],
                    std::cmp::Ordering::Equal => self.widen(vec![heard]),
                    std::cmp::Ordering::Greater => {}
                }
                self.next_put = now + self.timing.put_spacing;
                self.next_reput = now + self.timing.reput;
                self.lost = None;
                // Refusals surface only where most nodes refuse: read back soon.
                self.next_poll = self.next_poll.min(now + self.timing.put_spacing);
            }
            PutOutcome::Superseded => {
                self.reachable = true;
                self.refused = Some(self.seq().max(self.signed));
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

    pub(super) fn widen(&mut self, all: Vec<Heard>) {
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

    /// Another version was taken that does not stand first, begun before the record in force was heard. Who only reads
    /// merges nothing: what does stand first is looked at again, or it would not be shown any more. A mirror shows nothing.
    pub(super) fn reconsider_first(&mut self) {
        if let (Some(first), 1) = (self.first_accepted(), self.accepted.len())
            && !self.role.publishes
            && !self.role.keeps_all
            && self.is_here(&first)
        {
            self.known.remove(&first);
        }
    }

    /// A record that leads nowhere is replaced by one that has the head first, so that others need not try: at once
    /// where it is forged, after a while where only nobody serves what it has first.
    pub(super) fn mend(&mut self, now: Millis, jitter: Millis) {
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
}
