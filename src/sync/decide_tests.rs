#![allow(clippy::unwrap_used)]
use crate::base::{Id, InfoHash, Locator, Place};
use crate::record::VersionRef;
use crate::sync::{Effect, Fetched, Heard, Input, Machine, Millis, Poll, Role, Timing};

const POLL: Millis = 1_000;

fn version() -> VersionRef {
    let place = Place { offset: 0, length: 64 };
    VersionRef { infohash: InfoHash([1; 20]), commit: Locator { place, id: Id([1; 32]) } }
}

fn record(seq: i64) -> Heard {
    Heard { seq, digest: Id([seq as u8; 32]), versions: vec![version()], sound: true }
}

/// A device at rest, of which the DHT has the record.
fn at_rest() -> Machine {
    let role = Role { publishes: true, keeps_all: false };
    let mut machine = Machine::new(Timing::for_poll(POLL), role, None, None);
    assert!(machine.handle(Input::Tick, 0, 0).contains(&Effect::Poll), "nothing is known yet");
    machine.handle(Input::Polled(Poll::Heard(vec![record(7)])), 1, 0);
    machine.handle(Input::Fetched(version().infohash, Fetched::Current), 2, 0);
    machine
}

/// The next look and when it is due.
fn next_look(machine: &mut Machine, from: Millis) -> (Effect, Millis) {
    for now in from..from + 20 * POLL {
        let effects = machine.handle(Input::Tick, now, 0);
        let look = effects.into_iter().find(|effect| matches!(effect, Effect::Poll | Effect::Glance(_)));
        if let Some(look) = look {
            return (look, now);
        }
    }
    panic!("nobody looks any more")
}

#[test]
fn most_looks_ask_only_for_what_is_newer() {
    let mut machine = at_rest();
    let mut now = 3;
    for round in 0..8 {
        let (look, at) = next_look(&mut machine, now);
        let whole = round % 4 == 3;
        assert_eq!(look, if whole { Effect::Poll } else { Effect::Glance(7) }, "{round}");
        let answer = if whole { Poll::Heard(vec![record(7)]) } else { Poll::Unchanged };
        let effects = machine.handle(Input::Polled(answer), at + 1, 0);
        assert_eq!(effects, [], "nothing is new");
        now = at + 2;
    }
    assert!(machine.reachable());
}

#[test]
fn what_a_glance_brings_is_taken_as_from_a_look() {
    let mut machine = at_rest();
    let (look, at) = next_look(&mut machine, 3);
    assert_eq!(look, Effect::Glance(7));
    let newer = VersionRef { infohash: InfoHash([2; 20]), ..version() };
    let heard = Heard { versions: vec![newer, version()], ..record(8) };
    let effects = machine.handle(Input::Polled(Poll::Heard(vec![heard])), at + 1, 0);
    assert_eq!(effects, [Effect::Fetch(newer)]);
}

#[test]
fn the_record_itself_is_asked_for_where_something_is_open() {
    let mut machine = at_rest();
    machine.handle(Input::Hurry, 10, 0);
    assert!(machine.polling, "a person asked");
    machine.handle(Input::Polled(Poll::Nothing), 11, 0);
    // The DHT has forgotten it: until it is seen there again nobody is content with a glance.
    assert_eq!(next_look(&mut machine, 12).0, Effect::Poll);
}

#[test]
fn who_has_many_neighbours_looks_less_often_and_nobody_in_step() {
    for (neighbours, share) in [(0, 1), (1, 1), (3, 1), (4, 2), (8, 4), (24, 4)] {
        let mut machine = at_rest();
        machine.handle(Input::Neighbours(neighbours), 3, 0);
        let (_, at) = next_look(&mut machine, 4);
        machine.handle(Input::Polled(Poll::Unchanged), at, 0);
        assert_eq!(next_look(&mut machine, at + 1).1 - at, share * POLL, "{neighbours}");
    }
    let mut pauses: Vec<Millis> = (0..100).map(|dice| at_rest().pause(dice * 31)).collect();
    assert!(pauses.iter().all(|pause| (POLL - POLL / 8..=POLL).contains(pause)), "{pauses:?}");
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 50);
}

#[test]
fn what_is_withheld_is_tried_again_at_once_and_a_version_is_taken_meanwhile() {
    let mut machine = at_rest();
    machine.handle(Input::Changed, 30, 0);
    assert!(machine.handle(Input::Tick, 40, 0).contains(&Effect::Publish));
    // It took long to find out; that is not what publishing costs.
    assert!(machine.handle(Input::Withheld, 400, 0).is_empty());
    assert!(!machine.published_all(), "it is pending");
    assert!(machine.deadline() <= 410);
    let at = machine.deadline();
    assert_eq!(machine.handle(Input::Tick, at, 0), [Effect::Publish]);
    let newer = VersionRef { infohash: InfoHash([2; 20]), ..version() };
    let heard = Heard { versions: vec![newer, version()], ..record(8) };
    assert!(machine.handle(Input::Heard(heard), 420, 0).is_empty());
    assert_eq!(machine.handle(Input::Withheld, 430, 0), [Effect::Fetch(newer)]);
    machine.handle(Input::Fetched(newer.infohash, Fetched::Merged), 440, 0);
    assert_eq!(machine.handle(Input::Tick, 450, 0), [Effect::Publish]);
}

#[test]
fn who_only_reads_comes_back_to_what_stands_first() {
    let role = Role { publishes: false, keeps_all: false };
    let mut machine = Machine::new(Timing::for_poll(POLL), role, None, None);
    let other = VersionRef { infohash: InfoHash([2; 20]), ..version() };
    let record = |seq, versions: &[VersionRef]| Heard { versions: versions.to_vec(), ..record(seq) };
    machine.handle(Input::Heard(record(7, &[version()])), 1, 0);
    machine.handle(Input::Fetched(version().infohash, Fetched::Current), 2, 0);
    let effects = machine.handle(Input::Heard(record(8, &[other])), 3, 0);
    assert!(effects.contains(&Effect::Fetch(other)));
    // While it comes, another device puts the first one above it again.
    machine.handle(Input::Heard(record(9, &[version(), other])), 4, 0);
    let effects = machine.handle(Input::Fetched(other.infohash, Fetched::Current), 5, 0);
    assert!(effects.contains(&Effect::Fetch(version())), "{effects:?}");
    let effects = machine.handle(Input::Fetched(version().infohash, Fetched::Current), 6, 0);
    assert_eq!((machine.head(), effects.as_slice()), (Some(&version()), &[][..]));
}

#[test]
fn who_only_reads_has_nothing_to_publish_after_a_merge() {
    let role = Role { publishes: false, keeps_all: false };
    let mut machine = Machine::new(Timing::for_poll(POLL), role, None, None);
    machine.handle(Input::Heard(record(7)), 1, 0);
    machine.handle(Input::Fetched(version().infohash, Fetched::Merged), 2, 0);
    assert!(machine.published_all() && !machine.awaits_quiet());
    machine.handle(Input::Polled(Poll::Heard(vec![record(7)])), 3, 0);
    assert!(machine.settled_since(0));
}
