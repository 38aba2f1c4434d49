//! Putting back, seen over many databases of one device.

use super::{Effect, Heard, Input, Machine, Millis, Poll, Role, Timing};
use crate::base::{Id, InfoHash, Locator, Place};
use crate::record::VersionRef;

const MACHINES: u64 = 100;
const MINUTE: Millis = 60_000;

/// The minutes in which the machines of one device put their records back, when all were started at once and the
/// DHT keeps everything.
fn reputs(minutes: u64) -> Vec<u64> {
    let commit = Locator { place: Place { offset: 0, length: 64 }, id: Id([1; 32]) };
    let versions = vec![VersionRef { infohash: InfoHash([1; 20]), commit }];
    let heard = Heard { seq: 3, digest: Id([2; 32]), versions, sound: true };
    let role = Role { publishes: false, keeps_all: true };
    let mut at = Vec::new();
    for number in 0..MACHINES {
        let timing = Timing::for_poll(30_000);
        let mut machine = Machine::new(timing, role, Some(heard.clone()), heard.versions.first().copied());
        let mut dice = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for minute in 0..minutes {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let effects = machine.handle(Input::Tick, minute * MINUTE, dice >> 33);
            if effects.contains(&Effect::Reput) {
                at.push(minute);
            }
        }
    }
    at
}

#[test]
fn many_databases_of_one_device_put_back_at_different_times() {
    let at = reputs(121);
    let in_minute = |minute: u64| at.iter().filter(|found| **found == minute).count();
    let most = (0..121).map(in_minute).max().unwrap_or(0);
    assert!(most < MACHINES as usize / 4, "{most} in one minute");
    // Each does so about every half hour: often enough for nodes that forget after an hour.
    let count = at.len() as u64;
    assert!((3 * MACHINES..=5 * MACHINES).contains(&count), "{count} in two hours");
}

fn record(seq: i64) -> Heard {
    let commit = Locator { place: Place { offset: 0, length: 64 }, id: Id([1; 32]) };
    let versions = vec![VersionRef { infohash: InfoHash([seq as u8; 20]), commit }];
    Heard { seq, digest: Id([seq as u8; 32]), versions, sound: true }
}

/// How often a device puts back what a neighbour tells of a storm of a minute, a record each quarter of a second, while
/// the DHT shows at each look what `stored` makes of the number that was told last.
fn reputs_in_a_storm(stored: impl Fn(i64) -> i64) -> usize {
    let role = Role { publishes: true, keeps_all: false };
    let mut machine = Machine::new(Timing::for_poll(500), role, Some(record(1)), None);
    let (mut count, mut told) = (0, 1);
    let mut inputs = vec![Input::Neighbours(1)];
    for now in (1..MINUTE).step_by(50) {
        if now % 250 == 1 {
            told += 1;
            inputs.push(Input::Heard(record(told)));
        }
        inputs.push(Input::Tick);
        let mut answers = Vec::new();
        for input in inputs.drain(..) {
            for effect in machine.handle(input, now, now) {
                match effect {
                    Effect::Poll | Effect::Glance(_) => {
                        answers.push(Input::Polled(Poll::Heard(vec![record(stored(told))])));
                    }
                    Effect::Reput => count += 1,
                    _ => {}
                }
            }
        }
        inputs = answers;
    }
    count
}

#[test]
fn what_its_maker_is_putting_is_not_put_back_by_others() {
    assert_eq!(reputs_in_a_storm(|told| told - 3), 0, "the DHT is a little behind, as always");
    // Its maker reaches neighbours only: they see to it that others hear of it.
    assert!(reputs_in_a_storm(|_| 1) > 5);
}
