//! How fast a neighbour brings what it is asked for, and so how much of it is asked of that one at a time: who is slow
//! would else be waited for where others could bring the same.

use std::time::{Duration, Instant};

/// What is waited for from one neighbour at a time, in bytes: what it brings in so many seconds, within these bounds. Over a
/// line that loses packets nothing arrives for a second now and then; a window of one second shrinks there, and with it
/// what it is measured by.
const WINDOW_SECONDS: f64 = 4.0;
pub(super) const WINDOW_BYTES_MIN: u64 = 1 << 20;
pub(super) const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// How fast it was is forgotten by half after so long.
const PERIOD: Duration = Duration::from_secs(4);

/// What a neighbour has brought, and since when.
pub(super) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Of one who has just been asked for the first time.
    pub(super) fn start() -> Pace {
        Pace { since: Instant::now(), bytes: 0 }
    }

    /// So many bytes came.
    pub(super) fn note(&mut self, bytes: u64) {
        self.bytes += bytes;
        let passed = self.since.elapsed();
        if passed >= PERIOD {
            self.since += passed / 2;
            self.bytes /= 2;
        }
    }

    /// What may be under way, in bytes.
    pub(super) fn window(&self) -> u64 {
        let a_second = self.bytes as f64 / self.since.elapsed().as_secs_f64().max(0.001);
        ((a_second * WINDOW_SECONDS) as u64).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_slow_is_asked_for_less() {
        let at = |seconds: u64, bytes| Pace {
            since: Instant::now()
                .checked_sub(Duration::from_secs(seconds))
                .expect("the machine runs that long"),
            bytes,
        };
        assert_eq!(Pace::start().window(), WINDOW_BYTES_MIN);
        assert_eq!(at(3, 1 << 10).window(), WINDOW_BYTES_MIN);
        assert_eq!(at(1, 1 << 30).window(), WINDOW_BYTES_MAX);
        let window = at(2, 2 << 20).window();
        assert!((3_600 << 10..=4 << 20).contains(&window), "{window}");
        // A burst long ago says less than what comes now.
        let mut slowed = at(10, 100 << 20);
        slowed.note(0);
        assert_eq!(slowed.bytes, 50 << 20);
        assert!(slowed.since.elapsed() < Duration::from_secs(6));
    }
}
