//! One limit of rate for neighbours and the swarm together: each keeps it by itself, so while both are at work each gets
//! half of it.

use super::drive::{Driver, Net};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often to look who is at work.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Who did nothing for so long is no longer at work.
const REST_AFTER: Duration = Duration::from_secs(2);
/// Less than one part in so many of the limit is talk, not work.
const TALK_PART: f64 = 20.0;

/// One direction.
struct Lane {
    limit: u32,
    /// Bytes so far, of neighbours and of the swarm, and when each was at work last.
    seen: [u64; 2],
    worked: [Option<Instant>; 2],
    halved: bool,
}

impl Lane {
    fn new(limit: Option<u32>) -> Option<Lane> {
        Some(Lane { limit: limit?, seen: [0; 2], worked: [None; 2], halved: false })
    }

    /// What each may have from now on, where that has changed.
    fn look(&mut self, now: Instant, bytes: [u64; 2]) -> Option<u32> {
        let talk = f64::from(self.limit) * LOOK_PERIOD.as_secs_f64() / TALK_PART;
        for ((bytes, seen), worked) in bytes.iter().zip(self.seen).zip(&mut self.worked) {
            if bytes.saturating_sub(seen) as f64 > talk {
                *worked = Some(now);
            }
        }
        self.seen = bytes;
        let halved = self.worked.iter().all(|at| at.is_some_and(|at| now.duration_since(at) < REST_AFTER));
        let changed = std::mem::replace(&mut self.halved, halved) != halved;
        changed.then(|| if halved { (self.limit / 2).max(1) } else { self.limit })
    }
}

impl Driver {
    /// Keeps the limits of rate for neighbours and swarm together, as long as the driver lives.
    pub(super) fn keep_limits(self: &Arc<Self>) {
        let settings = &self.core.settings;
        let (up, down) = (Lane::new(settings.limit_up), Lane::new(settings.limit_down));
        if self.net().is_some() && (up.is_some() || down.is_some()) {
            tokio::spawn(balance(Arc::downgrade(self), up, down));
        }
    }
}

async fn balance(driver: Weak<Driver>, mut up: Option<Lane>, mut down: Option<Lane>) {
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        let Some(driver) = driver.upgrade() else { return };
        let Some(Net { swarm, gossip, .. }) = driver.net() else { return };
        let (traffic, (heard, told)) = (swarm.traffic(), gossip.traffic());
        let now = Instant::now();
        if let Some(each) = up.as_mut().and_then(|up| up.look(now, [told, traffic.payload_sent])) {
            gossip.limit_up(each);
            swarm.limit_up(each);
        }
        if let Some(each) = down.as_mut().and_then(|down| down.look(now, [heard, traffic.fetched()])) {
            gossip.limit_down(each);
            swarm.limit_down(each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_half_while_both_are_at_work() {
        let mut lane = Lane::new(Some(1_000_000)).expect("there is a limit");
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(lane.look(at(0), [200_000, 100]), None, "one alone has all of it");
        assert_eq!(lane.look(at(250), [400_000, 200_000]), Some(500_000));
        assert_eq!(lane.look(at(500), [500_000, 300_000]), None);
        assert_eq!(lane.look(at(2_000), [800_000, 300_100]), None, "it may only have paused");
        assert_eq!(lane.look(at(2_600), [900_000, 300_200]), Some(1_000_000));
        assert!(Lane::new(None).is_none());
    }
}
