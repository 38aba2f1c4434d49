//! Signing anew what has not changed. A record says when it was signed; where somebody that may sign is online it is never
//! much older than a day, so who is shown an old one can tell.

use super::Millis;
use super::machine::Machine;

impl Machine {
    /// The record in force was signed long ago: it is put once more under the next number, after a while of which the
    /// length is drawn, unless somebody else does so before.
    pub(super) fn renew(&mut self, now: Millis, dice: u64) {
        if let Some(seq) = self.seq().filter(|_| self.role.publishes) {
            let at = now + dice % self.timing.renew_spread.max(1);
            self.renewing = Some((seq, at));
        }
    }

    /// When to do so; only while nothing else is to be said.
    pub(super) fn renew_at(&self) -> Option<Millis> {
        let (seq, at) = self.renewing?;
        let still = self.seq() == Some(seq) && self.accepted.len() == 1;
        (still && self.head.is_some() && self.first_accepted() == self.head).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::signals::{Effect, Heard, Input, Poll, PutOutcome, Role};
    use super::super::{Machine, Millis, Timing};
    use crate::base::{Id, InfoHash, Locator, Place};
    use crate::record::VersionRef;

    fn heard(seq: i64) -> Heard {
        let commit = Locator { place: Place { offset: 0, length: 64 }, id: Id([1; 32]) };
        let versions = vec![VersionRef { infohash: InfoHash([1; 20]), commit }];
        Heard { seq, digest: Id([seq as u8; 32]), versions, sound: true }
    }

    fn machine(publishes: bool) -> Machine {
        let role = Role { publishes, keeps_all: false };
        let known = heard(7);
        let head = known.versions[0];
        let mut machine = Machine::new(Timing::for_poll(30_000), role, Some(known.clone()), Some(head));
        machine.handle(Input::Tick, 0, 0);
        machine.handle(Input::Polled(Poll::Heard(vec![known])), 1, 0);
        machine
    }

    fn puts(machine: &mut Machine, from: Millis, until: Millis) -> Vec<i64> {
        let effects = (from..until).step_by(1_000).flat_map(|now| machine.handle(Input::Tick, now, 0));
        let seq = |effect| match effect {
            Effect::Put { seq, .. } => Some(seq),
            _ => None,
        };
        effects.filter_map(seq).collect()
    }

    #[test]
    fn what_was_signed_long_ago_is_signed_anew_once() {
        let mut machine = machine(true);
        assert_eq!(puts(&mut machine, 1_000, 2_000_000).len(), 0, "nothing is due");
        machine.handle(Input::Aged, 2_000_000, 400_000);
        assert_eq!(puts(&mut machine, 2_000_000, 2_399_000).len(), 0, "not all do it at once");
        assert_eq!(puts(&mut machine, 2_400_000, 2_500_000), [8]);
        machine.handle(Input::Put(PutOutcome::Done(heard(8))), 2_500_000, 0);
        assert_eq!(puts(&mut machine, 2_501_000, 9_000_000).len(), 0);
    }

    #[test]
    fn who_is_second_leaves_it() {
        let mut machine = machine(true);
        machine.handle(Input::Aged, 2_000, 400_000);
        machine.handle(Input::Heard(heard(8)), 3_000, 0);
        assert_eq!(puts(&mut machine, 4_000, 3_000_000).len(), 0);
    }

    #[test]
    fn who_may_not_sign_does_not() {
        let mut machine = machine(false);
        machine.handle(Input::Aged, 2_000, 0);
        assert_eq!(puts(&mut machine, 2_000, 3_000_000).len(), 0);
    }
}
