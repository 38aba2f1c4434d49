//! What is to be done next, given what the machine knows.

use super::Millis;
use super::machine::{Burst, Known, Machine, Missed};
use super::signals::{Effect, Heard};
use crate::record::{VERSIONS_MAX, VersionRef};

impl Machine {
    pub(super) fn decide(&mut self, now: Millis, dice: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now >= self.next_announce {
            self.next_announce = now + self.timing.announce;
            effects.push(Effect::Announce);
        }
        if !self.polling && now >= self.next_poll {
            self.polling = true;
            effects.push(self.next_look());
        }
        if now >= self.next_reput || self.lost.is_some_and(|at| now >= at) {
            self.lost = None;
            let (least, spread) = (self.timing.reput / 4 * 3, self.timing.reput / 2);
            self.next_reput = now + least + dice % spread.max(1);
            if !self.accepted.is_empty() {
                effects.push(Effect::Reput);
            }
        }
        // A version that was tried in vain waits until what is due is published, or a record full of versions that
        // nobody serves would keep this device from ever publishing again.
        let again = self.next_wanted(now).is_some_and(|version| self.known.contains_key(&version));
        if again {
            self.decide_publish(now, &mut effects);
        }
        if self.fetching.is_none()
            && !self.publishing
            && let Some(version) = self.next_wanted(now)
        {
            self.fetching = Some(version);
            self.fetch_began = (now, self.head);
            effects.push(Effect::Fetch(version));
        }
        if !again {
            self.decide_publish(now, &mut effects);
        }
        effects
    }

    /// Most looks only ask for what is newer. Nothing is seen that way of a DHT that has forgotten the record, nor of
    /// another value under its number: every few looks, and where something is open, the record itself is asked for.
    fn next_look(&mut self) -> Effect {
        let open = self.hurry || self.refused.is_some() || self.insists || self.disputed();
        let waits = self.unput.is_some() || self.mending.is_some() || self.head.is_none();
        match self.seq().filter(|_| !open && !waits && self.stored == self.seq()) {
            Some(above) if self.glances < self.timing.glances_max => {
                self.glances += 1;
                Effect::Glance(above)
            }
            _ => {
                self.glances = 0;
                Effect::Poll
            }
        }
    }

    /// Until the next look. Who has many neighbours leaves some looks to them: what one finds it tells the others. No two
    /// look at one time for long.
    pub(super) fn pause(&self, dice: u64) -> Millis {
        let share = (self.neighbours as Millis / 2).clamp(1, self.timing.share_max);
        self.timing.poll * share - dice % (self.timing.poll / 8).max(1)
    }

    pub(super) fn decide_publish(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if !self.may_publish(now) {
            return;
        }
        if let Some(burst) = self.pending
            && now >= self.publish_at(burst)
        {
            self.pending = None;
            self.publishing = true;
            self.published_since = now;
            effects.push(Effect::Publish);
            return;
        }
        if self.may_tell(now)
            && let Some(head) = self.head
            && let Some(seq) = self.next_seq()
        {
            self.telling = true;
            self.signed = Some(seq);
            effects.push(Effect::Tell { versions: self.list(head), seq });
            return;
        }
        if self.reachable
            && !self.putting
            && self.put_at().is_some_and(|at| now >= at.max(self.next_put))
            && let Some(head) = self.head
            && let Some(seq) = self.next_seq()
        {
            self.putting = true;
            // What was told the DHT does not have: it has what it was seen to have, if anything.
            let seen = if self.is_told() { self.stored } else { self.stored.or(self.seq()) };
            let cas = seen.filter(|_| !self.insists);
            if let Some(first) = self.first_accepted()
                && let Some(missed) = self.missed.get_mut(&first)
            {
                *missed = Missed { since: now, replaced: missed.replaced + 1 };
            }
            effects.push(if self.is_told() {
                Effect::PutTold { cas }
            } else {
                self.signed = Some(seq);
                Effect::Put { versions: self.list(head), seq, cas }
            });
        }
    }

    /// Never before a first look at the DHT or at what a neighbour knows: it may be newer than what stands here.
    /// A put takes a while and does not keep neighbours from being told what is newer; nor does a fetch that lasts.
    pub(super) fn may_publish(&self, now: Millis) -> bool {
        let putting = self.putting && self.neighbours == 0;
        let fetching = self.fetching.is_some() && now < self.fetch_began.0 + self.timing.long_fetch;
        let busy = self.publishing || self.telling || putting || fetching;
        let asked = self.reachable || self.neighbours > 0 && !self.accepted.is_empty();
        self.role.publishes && asked && !busy
    }

    /// The head waits for its put, and the neighbours have not heard of it.
    pub(super) fn may_tell(&self, now: Millis) -> bool {
        self.may_publish(now)
            && self.neighbours > 0
            && now >= self.next_tell
            && self.unput.is_some()
            && self.next_seq().is_some()
            && (self.first_accepted() != self.head || self.disputed())
    }

    /// What stands in the accepted record is the head, and the DHT does not have it.
    fn is_told(&self) -> bool {
        self.accepted.len() == 1
            && self.first_accepted() == self.head
            && self.seq() > self.stored
            && self.accepted.iter().all(|heard| heard.sound)
    }

    pub(super) fn put_at(&self) -> Option<Millis> {
        self.next_seq()?;
        [self.unput, self.mending, self.renew_at()].into_iter().flatten().min()
    }

    /// None where somebody who holds the database key has burnt `seq` to its end: nothing can be put any more.
    pub(super) fn next_seq(&self) -> Option<i64> {
        self.seq().max(self.signed).unwrap_or(0).checked_add(1)
    }

    /// Costs nothing and counts as nothing: the burst goes on.
    pub(super) fn withheld(&mut self, now: Millis) {
        self.publishing = false;
        self.changed(now);
    }

    pub(super) fn publish_at(&self, burst: Burst) -> Millis {
        let quiet = (burst.last + self.timing.quiet).min(burst.first + self.timing.storm);
        // Without neighbours nobody hears of it before the put.
        let put = if self.neighbours > 0 { 0 } else { self.next_put };
        quiet.max(self.next_publish).max(put)
    }

    /// The head, then what the record in the DHT named and is not known to be broken.
    pub(super) fn list(&self, head: VersionRef) -> Vec<VersionRef> {
        let mut versions = vec![head];
        let rivals = self.accepted.iter().skip(1).flat_map(|heard| &heard.versions);
        for version in self.spread.iter().chain(rivals) {
            let listed = versions.iter().any(|known| known.infohash == version.infohash);
            if !listed && self.known.get(version) != Some(&Known::Broken) {
                versions.push(*version);
            }
        }
        versions.truncate(VERSIONS_MAX);
        versions
    }

    /// For each accepted value the newest version that was not tried yet, then the newest that may be tried again;
    /// nothing below one that is here, but for a mirror.
    pub(super) fn next_wanted(&self, now: Millis) -> Option<VersionRef> {
        let is_new = |version: &VersionRef| !self.known.contains_key(version);
        let is_due = |version: &VersionRef| match self.known.get(version) {
            Some(Known::Dead { again } | Known::Waiting { again }) => *again <= now && now != Millis::MAX,
            _ => false,
        };
        let wanted = self.wanted();
        wanted.iter().copied().find(is_new).or_else(|| wanted.iter().copied().find(is_due))
    }

    /// The versions of each accepted value, newest first, down to one that is here.
    pub(super) fn wanted(&self) -> Vec<VersionRef> {
        let open = |heard: &'_ Heard| {
            let here = |version: &VersionRef| self.is_here(version) && !self.role.keeps_all;
            let end = heard.versions.iter().position(here).unwrap_or(heard.versions.len());
            heard.versions[..end].to_vec()
        };
        self.accepted.iter().flat_map(open).collect()
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
