//! The machine alone: every test is a short story told in inputs.

use super::super::signals::{Poll, PutOutcome};
use super::*;
use crate::base::{Id, Locator, Place};

fn version(n: u8) -> VersionRef {
    let place = Place { offset: 0, length: 64 };
    VersionRef { infohash: InfoHash([n; 20]), commit: Locator { place, id: Id([n; 32]) } }
}

fn heard(seq: i64, versions: &[u8]) -> Heard {
    let digest = Id([versions[0] ^ seq as u8; 32]);
    Heard { seq, digest, versions: versions.iter().map(|n| version(*n)).collect(), sound: true }
}

fn writer() -> Machine {
    let role = Role { publishes: true, keeps_all: false };
    Machine::new(Timing::for_poll(1_000), role, None, None)
}

fn hash(n: u8) -> InfoHash {
    version(n).infohash
}

/// Runs ticks up to `until` and collects what they ask for.
fn run(machine: &mut Machine, from: Millis, until: Millis) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut now = from;
    while now <= until {
        effects.extend(machine.handle(Input::Tick, now, 0));
        now += 10;
    }
    effects
}

#[test]
fn nothing_is_put_before_the_dht_was_asked() {
    let mut machine = writer();
    assert_eq!(machine.handle(Input::Tick, 0, 0), [Effect::Announce, Effect::Poll]);
    assert!(machine.handle(Input::Changed, 1, 0).is_empty());
    assert!(!run(&mut machine, 10, 900).contains(&Effect::Publish));
    machine.handle(Input::Polled(Poll::Unreachable), 900, 0);
    assert!(!run(&mut machine, 900, 1_500).contains(&Effect::Publish), "unreachable: keep it");
    assert!(machine.handle(Input::Polled(Poll::Nothing), 1_950, 0).contains(&Effect::Publish));
}

#[test]
fn a_burst_of_changes_is_one_publication() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Nothing), 1, 0);
    let mut effects = Vec::new();
    for now in 2..20 {
        effects.extend(machine.handle(Input::Changed, now, 0));
    }
    effects.extend(run(&mut machine, 20, 200));
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Publish).count(), 1);
}

#[test]
fn a_storm_is_published_all_the_same() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Nothing), 1, 0);
    let effects: Vec<_> = (2..1_200).flat_map(|now| machine.handle(Input::Changed, now, 0)).collect();
    assert!(effects.contains(&Effect::Publish));
}

#[test]
fn the_head_is_put_above_what_the_record_names() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    let effects = machine.handle(Input::Polled(Poll::Heard(vec![heard(7, &[1, 2, 3, 4, 5])])), 1, 0);
    assert_eq!(effects, [Effect::Fetch(version(1))]);
    machine.handle(Input::Fetched(hash(1), Fetched::Current), 2, 0);
    machine.handle(Input::Changed, 3, 0);
    assert_eq!(run(&mut machine, 4, 100), [Effect::Publish]);
    let effects = machine.handle(Input::Published(Ok(Some(version(9)))), 100, 0);
    let versions = [9, 1, 2, 3, 4].map(version).to_vec();
    assert_eq!(effects, [Effect::Put { versions, seq: 8, cas: Some(7) }]);
    assert!(!machine.published_all());
    machine.handle(Input::Put(PutOutcome::Done(heard(8, &[9, 1, 2, 3, 4]))), 110, 0);
    assert!(machine.published_all());
}

#[test]
fn a_lost_race_looks_again_before_it_puts_again() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Nothing), 1, 0);
    machine.handle(Input::Changed, 2, 0);
    run(&mut machine, 3, 100);
    machine.handle(Input::Published(Ok(Some(version(9)))), 100, 0);
    let effects = machine.handle(Input::Put(PutOutcome::Superseded), 120, 0);
    assert_eq!(effects, [Effect::Poll]);
    let effects = machine.handle(Input::Polled(Poll::Heard(vec![heard(1, &[4])])), 130, 0);
    assert_eq!(effects, [Effect::Fetch(version(4))]);
    machine.handle(Input::Fetched(hash(4), Fetched::Merged), 140, 0);
    assert!(run(&mut machine, 150, 2_000).contains(&Effect::Publish));
}

#[test]
fn a_version_without_seeder_falls_back_and_the_good_one_is_put_first() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Heard(vec![heard(3, &[1, 2])])), 1, 0);
    let effects = machine.handle(Input::Fetched(hash(1), Fetched::NoSource), 10, 0);
    assert_eq!(effects, [Effect::Fetch(version(2))]);
    let mut effects = machine.handle(Input::Fetched(hash(2), Fetched::Current), 20, 0);
    effects.extend(run(&mut machine, 30, 3_000));
    let put = Effect::Put { versions: vec![version(2), version(1)], seq: 4, cas: Some(3) };
    assert!(effects.contains(&put), "{effects:?}");
}

#[test]
fn a_broken_version_is_never_tried_again_and_leaves_the_record() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Heard(vec![heard(3, &[1, 2])])), 1, 0);
    machine.handle(Input::Fetched(hash(1), Fetched::Broken), 10, 0);
    let mut effects = machine.handle(Input::Fetched(hash(2), Fetched::Current), 20, 0);
    effects.extend(run(&mut machine, 30, 60_000));
    assert!(!effects.iter().any(|effect| *effect == Effect::Fetch(version(1))));
    assert!(effects.contains(&Effect::Put { versions: vec![version(2)], seq: 4, cas: Some(3) }));
}

#[test]
fn two_values_of_one_seq_are_both_fetched() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    let both = vec![heard(3, &[1]), heard(3, &[2])];
    assert_eq!(machine.handle(Input::Polled(Poll::Heard(both)), 1, 0), [Effect::Fetch(version(1))]);
    let effects = machine.handle(Input::Fetched(hash(1), Fetched::Current), 2, 0);
    assert_eq!(effects, [Effect::Fetch(version(2))]);
}

#[test]
fn a_dht_that_forgot_gets_the_record_back_at_once() {
    let role = Role { publishes: false, keeps_all: true };
    let mut machine = Machine::new(Timing::for_poll(1_000), role, None, None);
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Heard(vec![heard(3, &[1])])), 1, 0);
    machine.handle(Input::Fetched(hash(1), Fetched::Current), 2, 0);
    run(&mut machine, 10, 1_100);
    let effects = machine.handle(Input::Polled(Poll::Nothing), 1_100, 0);
    assert!(effects.contains(&Effect::Reput) && effects.contains(&Effect::Announce), "{effects:?}");
    run(&mut machine, 1_110, 2_200);
    let effects = machine.handle(Input::Polled(Poll::Heard(vec![heard(2, &[8])])), 2_200, 0);
    assert!(effects.contains(&Effect::Reput), "an older record is a loss too: {effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Fetch(_))));
}

#[test]
fn a_mirror_keeps_all_five() {
    let role = Role { publishes: false, keeps_all: true };
    let mut machine = Machine::new(Timing::for_poll(1_000), role, None, None);
    machine.handle(Input::Tick, 0, 0);
    let mut effects = machine.handle(Input::Polled(Poll::Heard(vec![heard(3, &[1, 2, 3])])), 1, 0);
    for n in 1..=3 {
        assert_eq!(effects, [Effect::Fetch(version(n))]);
        effects = machine.handle(Input::Fetched(hash(n), Fetched::Current), 10, 0);
    }
    assert!(effects.is_empty());
    assert_eq!(machine.head().map(|head| head.infohash), Some(hash(1)), "older versions are not the head");
}

#[test]
fn an_unreachable_dht_backs_off() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Nothing), 1, 0);
    machine.handle(Input::Changed, 2, 0);
    run(&mut machine, 3, 100);
    machine.handle(Input::Published(Ok(Some(version(9)))), 100, 0);
    machine.handle(Input::Put(PutOutcome::Unreachable), 200, 0);
    assert!(!machine.published_all());
    assert!(!run(&mut machine, 210, 650).iter().any(|effect| matches!(effect, Effect::Put { .. })));
}

#[test]
fn sync_is_settled_only_after_a_poll_that_came_later() {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    let polls = machine.polls_done();
    assert!(!machine.settled_since(polls));
    machine.handle(Input::Polled(Poll::Nothing), 1, 0);
    assert!(machine.settled_since(polls));
    machine.handle(Input::Changed, 2, 0);
    assert!(!machine.settled_since(polls));
}

/// A device that has version 1 as head, and the record that says so.
fn settled() -> Machine {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Polled(Poll::Heard(vec![heard(7, &[1, 2])])), 1, 0);
    machine.handle(Input::Fetched(hash(1), Fetched::Current), 2, 0);
    machine
}

fn looks(effect: &Effect) -> bool {
    matches!(effect, Effect::Poll | Effect::Glance(_))
}

fn hears(machine: &mut Machine, record: Heard, now: Millis) -> Vec<Effect> {
    let mut effects = run(machine, 3, now);
    assert!(effects.iter().any(looks), "{effects:?}");
    effects = machine.handle(Input::Polled(Poll::Heard(vec![record])), now, 0);
    effects
}

#[test]
fn a_forged_record_is_replaced_at_once() {
    for forged in [
        Heard { versions: Vec::new(), sound: false, ..heard(9, &[1]) },
        Heard { sound: false, ..heard(9, &[1, 2]) },
    ] {
        let mut machine = settled();
        // What the last sound record named stays to fall back on.
        let versions = vec![version(1), version(2)];
        let effects = hears(&mut machine, forged, 1_010);
        assert_eq!(effects, [Effect::Put { versions, seq: 10, cas: Some(9) }]);
        machine.handle(Input::Put(PutOutcome::Done(heard(10, &[1]))), 1_020, 0);
        assert!(run(&mut machine, 1_030, 1_900).iter().all(looks));
    }
}

#[test]
fn a_replayed_record_is_looked_at_again_and_replaced() {
    let mut machine = settled();
    let effects = hears(&mut machine, heard(9, &[2, 1]), 1_010);
    assert_eq!(effects, [Effect::Fetch(version(2))]);
    let effects = machine.handle(Input::Fetched(hash(2), Fetched::Behind), 1_020, 0);
    assert_eq!(effects, [Effect::Put { versions: vec![version(1), version(2)], seq: 10, cas: Some(9) }]);
}

#[test]
fn a_broken_version_above_the_head_is_replaced() {
    let mut machine = settled();
    assert_eq!(hears(&mut machine, heard(9, &[6, 1, 2]), 1_010), [Effect::Fetch(version(6))]);
    let effects = machine.handle(Input::Fetched(hash(6), Fetched::Broken), 1_020, 0);
    assert_eq!(effects, [Effect::Put { versions: vec![version(1), version(2)], seq: 10, cas: Some(9) }]);
}

#[test]
fn a_version_that_nobody_serves_is_given_twice_as_long_each_time() {
    let mut machine = settled();
    let mut seq = 9;
    let mut now = 1_010;
    for patience in [1_000, 2_000, 4_000] {
        machine.handle(Input::Polled(Poll::Heard(vec![heard(seq, &[6, 1])])), now, 0);
        if patience == 1_000 {
            machine.handle(Input::Fetched(hash(6), Fetched::NoSource), now, 0);
        }
        let put = Effect::Put { versions: vec![version(1), version(6)], seq: seq + 1, cas: Some(seq) };
        let deadline = |effects: &[Effect]| effects.contains(&put);
        let mut due = None;
        for step in 0..700 {
            let mut effects = machine.handle(Input::Tick, now + step * 10, 0);
            if effects.iter().any(|effect| matches!(effect, Effect::Fetch(_))) {
                effects.extend(machine.handle(
                    Input::Fetched(hash(6), Fetched::NoSource),
                    now + step * 10,
                    0,
                ));
            }
            if deadline(&effects) {
                due = Some(step * 10);
                break;
            }
        }
        let due = due.expect("the head is put first again");
        assert!((patience - 10..=patience + 10).contains(&due), "{due} where {patience} was expected");
        now += due;
        machine.handle(Input::Put(PutOutcome::Done(heard(seq + 1, &[1, 6]))), now, 0);
        seq += 2;
    }
}

#[test]
fn one_torrent_with_a_lying_commit_does_not_spoil_the_honest_version() {
    let mut machine = settled();
    let lying = VersionRef { commit: version(66).commit, ..version(1) };
    let record = Heard { versions: vec![lying, version(2)], ..heard(9, &[1]) };
    assert_eq!(hears(&mut machine, record, 1_010), [Effect::Fetch(lying)]);
    assert_eq!(
        machine.handle(Input::Fetched(hash(1), Fetched::Broken), 1_020, 0),
        [Effect::Fetch(version(2))]
    );
    let effects = machine.handle(Input::Fetched(hash(2), Fetched::Behind), 1_030, 0);
    assert_eq!(effects, [Effect::Put { versions: vec![version(1), version(2)], seq: 10, cas: Some(9) }]);
    assert!(machine.is_here(&version(1)));
}

#[test]
fn a_burnt_seq_is_not_put_against() {
    let mut machine = settled();
    let record = Heard { sound: false, ..heard(i64::MAX, &[1]) };
    assert!(hears(&mut machine, record, 1_010).is_empty());
    assert!(machine.deadline() > 1_010, "nothing is due");
}

#[test]
fn a_record_full_of_versions_without_seeder_keeps_nobody_from_publishing() {
    let mut machine = settled();
    let mut effects = hears(&mut machine, heard(9, &[5, 6, 7, 8, 9]), 1_010);
    let mut now = 1_010;
    machine.handle(Input::Changed, now, 0);
    let mut published = false;
    while now < 120_000 && !published {
        if let Some(Effect::Fetch(version)) = effects.last() {
            now += 8_000;
            effects = machine.handle(Input::Fetched(version.infohash, Fetched::NoSource), now, 0);
        } else {
            now += 10;
            effects = machine.handle(Input::Tick, now, 0);
        }
        published |= effects.contains(&Effect::Publish);
    }
    assert!(published && now < 60_000, "{now}");
}

fn told(machine: &mut Machine, effects: &[Effect], now: Millis) -> Heard {
    let Some(Effect::Tell { versions, seq }) =
        effects.iter().find(|effect| matches!(effect, Effect::Tell { .. }))
    else {
        panic!("nothing is told: {effects:?}")
    };
    let digest = Id([*seq as u8; 32]);
    let heard = Heard { seq: *seq, digest, versions: versions.clone(), sound: true };
    let put = machine.handle(Input::Told(Some(heard.clone())), now, 0);
    let told = put.iter().all(|effect| matches!(effect, Effect::PutTold { cas } if *cas < Some(*seq)));
    assert!(told, "a told record is put as it is, over what the DHT has: {put:?}");
    heard
}

fn met() -> Machine {
    let mut machine = writer();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Neighbours(1), 0, 0);
    machine.handle(Input::Polled(Poll::Heard(vec![heard(7, &[1, 2])])), 1, 0);
    machine.handle(Input::Fetched(hash(1), Fetched::Current), 2, 0);
    machine
}

fn publish(machine: &mut Machine, name: u8, now: Millis) -> Vec<Effect> {
    machine.handle(Input::Changed, now, 0);
    let effects = run(machine, now + 1, now + 30);
    assert!(effects.contains(&Effect::Publish), "{effects:?}");
    machine.handle(Input::Published(Ok(Some(version(name)))), now + 31, 0)
}

#[test]
fn neighbours_are_told_at_once_and_puts_are_spaced() {
    let mut machine = met();
    let mut effects = publish(&mut machine, 10, 10);
    let first = told(&mut machine, &effects, 42);
    assert_eq!(first.seq, 8);
    let put = machine.handle(Input::Tick, 43, 0);
    assert!(put.is_empty(), "the put is under way since the telling ended: {put:?}");
    for round in 1..10u8 {
        effects = publish(&mut machine, 10 + round, 50 + 50 * u64::from(round));
        let heard = told(&mut machine, &effects, 90 + 50 * u64::from(round));
        assert_eq!(heard.seq, 8 + i64::from(round));
        assert_eq!(heard.versions, [10 + round, 1, 2].map(version), "what was told only is not listed");
    }
}

#[test]
fn the_record_told_last_is_the_one_that_is_put() {
    let mut machine = met();
    let effects = publish(&mut machine, 10, 10);
    told(&mut machine, &effects, 42);
    assert!(machine.putting);
    let effects = publish(&mut machine, 11, 100);
    let second = told(&mut machine, &effects, 140);
    machine.handle(Input::Put(PutOutcome::Done(heard(8, &[10, 1, 2]))), 200, 0);
    assert!(!machine.published_all(), "the newer one is still to be put");
    let effects = run(&mut machine, 210, 2_000);
    assert!(effects.contains(&Effect::PutTold { cas: Some(8) }), "{effects:?}");
    assert!(
        !effects.iter().any(|effect| matches!(effect, Effect::Put { .. })),
        "no second value of a number"
    );
    machine.handle(Input::Put(PutOutcome::Done(second)), 2_010, 0);
    assert!(machine.published_all());
}

#[test]
fn what_a_neighbour_told_is_not_put_back_before_its_maker_could() {
    let mut machine = met();
    assert_eq!(machine.handle(Input::Heard(heard(9, &[5, 1])), 100, 0), [Effect::Fetch(version(5))]);
    machine.handle(Input::Fetched(hash(5), Fetched::Current), 110, 0);
    machine.handle(Input::Hurry, 120, 0);
    let effects = machine.handle(Input::Polled(Poll::Heard(vec![heard(7, &[1, 2])])), 130, 0);
    assert!(!effects.contains(&Effect::Reput), "{effects:?}");
    let mut effects = Vec::new();
    let mut now = 140;
    while now < 6_000 {
        effects.extend(machine.handle(Input::Tick, now, 0));
        if machine.polling {
            effects.extend(machine.handle(Input::Polled(Poll::Heard(vec![heard(7, &[1, 2])])), now, 0));
        }
        now += 10;
    }
    assert!(effects.contains(&Effect::Reput), "nobody put it: then everybody may");
}

#[test]
fn an_older_record_from_a_neighbour_changes_nothing() {
    let mut machine = met();
    assert_eq!(machine.handle(Input::Heard(heard(6, &[9])), 100, 0), []);
    assert_eq!(machine.accepted().map(|heard| heard.seq), Some(7));
}

#[test]
fn changes_are_published_while_a_fetch_lasts() {
    let mut machine = met();
    assert_eq!(machine.handle(Input::Heard(heard(9, &[5, 1])), 100, 0), [Effect::Fetch(version(5))]);
    machine.handle(Input::Changed, 110, 0);
    assert_eq!(run(&mut machine, 120, 900), []);
    assert!(run(&mut machine, 900, 1_200).contains(&Effect::Publish));
    let effects = machine.handle(Input::Published(Ok(Some(version(6)))), 1_300, 0);
    told(&mut machine, &effects, 1_301);
    // Word that the fetched version was adopted comes late: what was published stands above it.
    machine.handle(Input::Fetched(hash(5), Fetched::Current), 1_302, 0);
    assert_eq!(machine.head(), Some(&version(6)));
    assert!(!machine.published_all());
}

#[test]
fn a_publication_that_failed_is_tried_again_when_a_version_has_come() {
    let mut machine = writer();
    machine.pend();
    machine.handle(Input::Tick, 0, 0);
    machine.handle(Input::Neighbours(1), 0, 0);
    assert!(machine.handle(Input::Polled(Poll::Nothing), 10, 0).contains(&Effect::Publish));
    machine.handle(Input::Published(Err(())), 11, 0);
    assert_eq!(machine.handle(Input::Heard(heard(1, &[1])), 20, 0), [Effect::Fetch(version(1))]);
    machine.handle(Input::Fetched(hash(1), Fetched::Current), 30, 0);
    assert!(run(&mut machine, 40, 500).contains(&Effect::Publish));
    let effects = machine.handle(Input::Published(Ok(Some(version(2)))), 510, 0);
    told(&mut machine, &effects, 511);
    // The DHT was seen to have nothing.
    assert!(machine.putting);
}
