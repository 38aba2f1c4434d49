//! How much passes in one direction over all connections together: counted, and held to the limit that somebody set.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Of a limit so much passes at a time: one part in so many of a second's.
const STEPS_A_SECOND: f64 = 16.0;
/// And no less than this, in bytes.
const STEP_BYTES_MIN: usize = 16 << 10;
/// What is shorter is waited for with what comes next: even to sleep for no time at all lasts until the next millisecond.
const WAIT_MIN: Duration = Duration::from_millis(3);

/// One direction.
pub(super) struct Pace {
    bytes: AtomicU64,
    limit: Option<Mutex<Allowance>>,
}

impl Pace {
    /// A direction in which nothing has passed yet, with a limit in bytes a second or without.
    pub(super) fn new(limit: Option<u32>) -> Pace {
        let allowance = |limit: u32| {
            let limit = f64::from(limit.max(1));
            Mutex::new(Allowance::full(limit, limit))
        };
        Pace { bytes: AtomicU64::new(0), limit: limit.map(allowance) }
    }

    /// Another limit from now on, where there is one.
    pub(super) fn renew(&self, a_second: u32) {
        self.limit.iter().for_each(|limit| limit.lock().renew(a_second));
    }

    /// Bytes that passed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many bytes to pass at a time: what is long goes at the limit's pace, instead of at once and then not at all.
    pub(super) fn step(&self) -> usize {
        let of = |limit: &Mutex<Allowance>| (limit.lock().a_second / STEPS_A_SECOND) as usize;
        self.limit.as_ref().map_or(usize::MAX, of).max(STEP_BYTES_MIN)
    }

    /// Notes that bytes passed; returns how long to wait before more may.
    pub(super) fn note(&self, bytes: usize) -> Duration {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.limit.as_ref().map_or(Duration::ZERO, |limit| limit.lock().spend(bytes))
    }

    /// The same, and waits.
    pub(super) async fn pass(&self, bytes: usize) {
        let wait = self.note(bytes);
        if wait >= WAIT_MIN {
            sleep(wait).await;
        }
    }
}

/// How much may pass without waiting, of bytes or of messages.
pub(super) struct Allowance {
    left: f64,
    burst: f64,
    a_second: f64,
    at: Instant,
}

impl Allowance {
    /// An allowance that is used up by nobody yet.
    pub(super) fn full(a_second: f64, burst: f64) -> Allowance {
        Allowance { left: burst, burst, a_second, at: Instant::now() }
    }

    fn renew(&mut self, a_second: u32) {
        let a_second = f64::from(a_second.max(1));
        (self.a_second, self.burst) = (a_second, a_second);
        self.left = self.left.min(a_second);
    }

    /// Takes from it; returns how long to wait before that may be passed. What was taken is owed, however much it is.
    pub(super) fn spend(&mut self, count: usize) -> Duration {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.left = (self.left + passed * self.a_second).min(self.burst) - count as f64;
        Duration::from_secs_f64((-self.left / self.a_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_owed_however_much_it_is() {
        const LIMIT: u32 = 32 << 10;
        let pace = Pace::new(Some(LIMIT));
        let waits: Vec<f64> = (0..3).map(|_| pace.note(4 << 20).as_secs_f64()).collect();
        for (number, wait) in waits.iter().enumerate() {
            let owed = 128.0 * (number + 1) as f64 - 1.0;
            assert!(*wait > owed - 5.0 && *wait <= owed, "{wait} s for what takes {owed}");
        }
        assert_eq!(pace.bytes(), 12 << 20);
        pace.renew(2 * LIMIT);
        assert!(pace.note(0).as_secs_f64() < 384.0 / 2.0);
    }

    #[test]
    fn steps_grow_with_the_limit() {
        assert_eq!(Pace::new(Some(100 << 20)).step(), (100 << 20) / 16);
        assert_eq!(Pace::new(Some(32 << 10)).step(), STEP_BYTES_MIN);
        let free = Pace::new(None);
        assert_eq!((free.step(), free.note(1 << 30)), (usize::MAX, Duration::ZERO));
    }
}
