//! What the machine is asked for belongs to the keys that it was begun under: once the database has moved to others, what is
//! still under way counts no longer, and a machine begins that knows of no record.

use super::core::Core;
use super::drive::Driver;
use crate::base::Id;
use crate::record::{Commit, Record, VersionRef};
use crate::sync::{Heard, Input, Machine, Role, Timing};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Nothing is taken or published before the lifeline was looked at, or could not be for so long: what comes from somebody who was
/// left out must not be what a device moves with, and what is made here must not go to them.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);

/// Which keys the machine's orders were given under, and whether the lifeline was looked at.
pub(super) struct Life {
    number: AtomicU64,
    looked: watch::Sender<bool>,
    rival: AtomicBool,
}

impl Default for Life {
    fn default() -> Life {
        Life { number: AtomicU64::new(0), looked: watch::Sender::new(false), rival: AtomicBool::new(false) }
    }
}

impl Life {
    /// The present one.
    pub fn now(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// The next one begins.
    pub fn renew(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// There is another rotation of the same number.
    pub fn meet_rival(&self) {
        if !self.rival.swap(true, Ordering::Relaxed) {
            tracing::warn!("{}", super::report::RIVAL);
        }
    }

    /// Whether one was met since the engine started.
    pub fn met_rival(&self) -> bool {
        self.rival.load(Ordering::Relaxed)
    }

    /// The lifeline was looked at, or could not be.
    pub fn look_is_over(&self) {
        self.looked.send_replace(true);
    }

    /// Waits for the first look; says whether it is still the same life.
    pub async fn looked(&self, life: u64) -> bool {
        let mut looked = self.looked.subscribe();
        _ = tokio::time::timeout(LOOK_PATIENCE, looked.wait_for(|looked| *looked)).await;
        self.now() == life
    }
}

impl Driver {
    /// Tells the machine what came of something that it asked for, unless that was under other keys.
    pub(super) fn tell_of(&self, life: u64, input: Input) {
        if self.life.now() == life {
            self.tell(input);
        }
    }

    /// Begins anew, under other keys: what the machine knows is of records that count no longer.
    pub(super) fn renew_machine(&self) {
        let mut machine = self.machine.lock();
        self.life.renew();
        let polls = machine.polls_done();
        *machine = first_machine(&self.core);
        machine.count_polls_from(polls);
        drop(machine);
        self.tell(Input::Hurry);
    }
}

/// A machine that knows what the state says.
pub(super) fn first_machine(core: &Core) -> Machine {
    let inner = core.inner();
    let poll = u64::try_from(core.settings.poll_interval.as_millis()).unwrap_or(u64::MAX);
    let role = Role { publishes: core.keys.publishes(), keeps_all: core.keeps_all() };
    let accepted = inner.state.accepted.as_ref().and_then(|item| {
        let record = Record::decode(&core.keys.record, &item.value).ok()?;
        let digest = Id(*blake3::hash(&item.value).as_bytes());
        let sound = !inner.state.policy.supersedes(&record.policy);
        Some(Heard { seq: item.seq, digest, versions: record.versions, sound })
    });
    let head = inner.state.head.filter(|head| inner.versions.get(&head.infohash).is_some());
    // What was made under the keys before the last rotation is no version of the record under these.
    let outdated = |head: &VersionRef| {
        let commit = inner.versions.get(&head.infohash).and_then(|version| version.commit.as_ref());
        let earlier = |commit: &Arc<Commit>| commit.policy_counter < inner.state.policy.counter;
        core.awaits_terms(&inner) || commit.is_none_or(earlier)
    };
    let moved = accepted.is_none() && core.keys.generation() > 0;
    let head = head.filter(|head| !moved || !outdated(head));
    let mut machine = Machine::new(Timing::for_poll(poll), role, accepted, head);
    for version in inner.versions.iter() {
        machine.keep(version.reference);
    }
    if inner.state.pending || inner.state.head.is_none() && core.keys.publishes() {
        machine.pend();
    }
    machine
}
