//! Putting back, seen over many databases of one device.

use super::{Effect, Heard, Input, Machine, Millis, Role, Timing};
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
