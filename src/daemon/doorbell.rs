//! Tells the driver of local changes: once a burst, not once a change. A change that wakes another thread costs more than
//! all the rest of it.

use crate::sync::Millis;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// When something was changed last, and whether somebody looks at it by himself.
#[derive(Default)]
pub(super) struct Doorbell {
    /// The time of the last change that nobody has looked at yet, plus one; 0 if there is none.
    last: AtomicU64,
    /// The driver will look before the burst can be over: it need not be woken.
    watched: AtomicBool,
}

impl Doorbell {
    /// Something was changed. True if the driver must be woken.
    pub(super) fn ring(&self, now: Millis) -> bool {
        self.last.store(now + 1, Ordering::SeqCst);
        !self.watched.load(Ordering::SeqCst) && !self.watched.swap(true, Ordering::SeqCst)
    }

    /// When something was changed last, if anything was since the last look.
    pub(super) fn look(&self) -> Option<Millis> {
        self.last.swap(0, Ordering::SeqCst).checked_sub(1)
    }

    /// Nobody looks any more: the next change has to wake. False if one came meanwhile; then it is still to be looked at.
    pub(super) fn leave(&self) -> bool {
        self.watched.store(false, Ordering::SeqCst);
        self.last.load(Ordering::SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_wakes_once_and_tells_its_last_change() {
        let bell = Doorbell::default();
        assert!(bell.ring(0));
        assert!(!bell.ring(5));
        assert!(!bell.ring(7));
        assert_eq!(bell.look(), Some(7));
        assert_eq!(bell.look(), None);
        assert!(!bell.ring(9), "still watched");
        assert!(!bell.leave(), "a change came meanwhile");
        assert_eq!(bell.look(), Some(9));
        assert!(bell.leave());
        assert!(bell.ring(20));
    }

    #[test]
    fn no_change_is_lost_between_two_threads() {
        const CHANGES: Millis = 100_000;
        let bell = Doorbell::default();
        let (wake, woken) = crossbeam_channel::unbounded();
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..CHANGES).filter(|now| bell.ring(*now)).for_each(|_| _ = wake.send(()));
            });
            let mut seen = None;
            while seen != Some(CHANGES - 1) {
                if bell.leave() {
                    woken.recv().expect("the other side lives as long as this one");
                }
                seen = bell.look().or(seen);
            }
            seen
        });
        assert_eq!(seen, Some(CHANGES - 1));
    }
}
