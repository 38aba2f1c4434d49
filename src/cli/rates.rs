//! How fast a count grows, from what was seen in the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is older is no longer how it is now.
const WINDOW: Duration = Duration::from_secs(6);

/// One growing count.
#[derive(Clone, Debug, Default)]
pub struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// The count was this at that time.
    pub fn note(&mut self, at: Instant, count: u64) {
        // It began anew.
        if self.0.back().is_some_and(|(_, last)| *last > count) {
            self.0.clear();
        }
        self.0.push_back((at, count));
        while self.0.len() > 2 && self.0.front().is_some_and(|(first, _)| at.duration_since(*first) > WINDOW)
        {
            self.0.pop_front();
        }
    }

    /// Growth a second; nothing before there are two counts.
    pub fn per_second(&self) -> f64 {
        let (Some((from, first)), Some((to, last))) = (self.0.front(), self.0.back()) else { return 0.0 };
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds > 0.0 { (last - first) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        for second in 0..20 {
            rate.note(start + Duration::from_secs(second), second * 100);
        }
        assert_eq!(rate.per_second(), 100.0);
        for second in 20..40 {
            rate.note(start + Duration::from_secs(second), 1900);
        }
        assert_eq!(rate.per_second(), 0.0);
        rate.note(start + Duration::from_secs(40), 5);
        assert_eq!(rate.per_second(), 0.0, "a count that began anew");
    }
}
