//! Files that were made or emptied to be written, and have not been yet: most programs save in these two steps, and
//! what stands between them is nothing that another device should see, or merge with.

use crate::base::Inode;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A file is waited for so long at most: it may be meant to be empty.
pub const UNWRITTEN_MAX: Duration = Duration::from_secs(1);

/// Which files are awaited. Whoever opens files for others keeps it: only he knows who has one open for writing.
#[derive(Default)]
pub struct Unwritten {
    inner: Mutex<Inner>,
    written: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Operations under way that may leave an empty file.
    emptying: usize,
    /// Since when each file waits for its first bytes.
    files: HashMap<Inode, Instant>,
}

impl Inner {
    fn awaits(&mut self, now: Instant) -> bool {
        self.files.retain(|_, since| now.saturating_duration_since(*since) < UNWRITTEN_MAX);
        self.emptying > 0 || !self.files.is_empty()
    }
}

impl Unwritten {
    /// A file is about to be made or emptied: from before that is done until it is known which one, all wait.
    pub fn begin(&self) -> Emptying<'_> {
        self.inner.lock().emptying += 1;
        Emptying(self)
    }

    /// A file has got bytes, or nobody is left who could write any.
    pub fn settle(&self, inode: Inode) {
        let mut inner = self.inner.lock();
        if inner.files.remove(&inode).is_some() {
            self.tell(&inner);
        }
    }

    /// Whether there is a file at `now` that is worth waiting for.
    pub fn awaits(&self, now: Instant) -> bool {
        self.inner.lock().awaits(now)
    }

    /// Waits until there is none, or until `end`.
    pub fn wait(&self, end: Instant) {
        let mut inner = self.inner.lock();
        while inner.awaits(Instant::now()) {
            let oldest = inner.files.values().min().map_or(end, |since| *since + UNWRITTEN_MAX);
            if self.written.wait_until(&mut inner, oldest.min(end)).timed_out() && Instant::now() >= end {
                return;
            }
        }
    }

    fn tell(&self, inner: &Inner) {
        if inner.emptying == 0 && inner.files.is_empty() {
            self.written.notify_all();
        }
    }
}

/// An operation that leaves an empty file if it succeeds.
pub struct Emptying<'a>(&'a Unwritten);

impl Emptying<'_> {
    /// It has: `inode` is empty since `now`.
    pub fn done(self, inode: Inode, now: Instant) {
        self.0.inner.lock().files.insert(inode, now);
    }
}

impl Drop for Emptying<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.emptying -= 1;
        self.0.tell(&inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Inode = Inode(1 << 40);
    const OTHER: Inode = Inode(2 << 40);

    #[test]
    fn a_file_is_awaited_from_before_it_is_emptied_until_it_is_written() {
        let unwritten = Unwritten::default();
        let now = Instant::now();
        assert!(!unwritten.awaits(now));
        let (one, other) = (unwritten.begin(), unwritten.begin());
        assert!(unwritten.awaits(now), "it may be empty already");
        one.done(ONE, now);
        other.done(OTHER, now);
        unwritten.settle(ONE);
        assert!(unwritten.awaits(now));
        unwritten.settle(OTHER);
        assert!(!unwritten.awaits(now));
        drop(unwritten.begin());
        assert!(!unwritten.awaits(now), "what failed has emptied nothing");
    }

    #[test]
    fn a_file_that_stays_empty_is_not_awaited_for_ever() {
        let unwritten = Unwritten::default();
        let now = Instant::now();
        unwritten.begin().done(ONE, now);
        let last = now + UNWRITTEN_MAX - Duration::from_nanos(1);
        assert!(unwritten.awaits(last));
        assert!(!unwritten.awaits(now + UNWRITTEN_MAX));
        assert!(!unwritten.awaits(last), "nor again");
        // Emptied once more, it is awaited once more.
        unwritten.begin().done(ONE, last);
        assert!(unwritten.awaits(now + UNWRITTEN_MAX));
    }

    #[test]
    fn who_waits_goes_on_when_the_last_is_written_or_time_is_up() {
        let unwritten = Unwritten::default();
        let far = Instant::now() + Duration::from_secs(3_600);
        for inode in [ONE, OTHER] {
            // A time to come: only being written ends the wait.
            unwritten.begin().done(inode, far);
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| unwritten.wait(far));
            unwritten.settle(ONE);
            unwritten.settle(OTHER);
            waiting.join().expect("it ends");
        });
        unwritten.begin().done(ONE, far);
        unwritten.wait(Instant::now() + Duration::from_millis(1));
        assert!(unwritten.awaits(Instant::now()));
    }
}
