//! Lines of the log that a storm would make many of: said at most once a second, with how many were left out.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Default)]
pub(super) struct Sparing(Mutex<(Option<Instant>, u32)>);

impl Sparing {
    /// What to append to the line that is due now; none if none is.
    pub fn due(&self, now: Instant) -> Option<String> {
        let mut state = self.0.lock();
        let (last, left_out) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        match std::mem::take(left_out) {
            0 => Some(String::new()),
            count => Some(format!(" ({count} before it were not logged)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_one_line_a_second() {
        let (sparing, start) = (Sparing::default(), Instant::now());
        let said: Vec<String> =
            (0..30).filter_map(|tenth| sparing.due(start + Duration::from_millis(tenth * 100))).collect();
        let rest = " (9 before it were not logged)";
        assert_eq!(said, ["", rest, rest]);
    }
}
