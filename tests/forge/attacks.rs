//! More that the thief tries, in the book's order: what is swapped, what is made up, and what comes in a row.

use super::forgeries::tell;
use super::harness::{NAME, World};
use super::process::wait_until;
use super::stage::{Stage, Told};
use super::thief::Thief;
use super::version::{DOCS, Forged};
use kilofs::base::{BlockNumber, Locator};
use kilofs::crypt::seal::BlobKind;
use kilofs::daemon::core::now_seconds;
use kilofs::image::Stream;
use kilofs::record::{Charter, Members, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ROOT: BlockNumber = BlockNumber::ROOT;
const DAY_SECONDS: u32 = 86_400;

#[test]
fn entries_swapped_between_blocks() {
    let mut whole = [true, false].into_iter();
    Stage::new().outlives(|stage| {
        let thief = &stage.thief;
        let ground = thief.ground();
        let as_it_is = whole.next().unwrap();
        let swap = |entries: &mut BTreeMap<_, _>| {
            let (root, docs) = (&ground.entries[&ROOT], &ground.entries[&DOCS]);
            if as_it_is {
                entries.insert(ROOT, docs.clone());
                entries.insert(DOCS, root.clone());
            } else {
                // Under the right number, signed by the thief, with the other block's content.
                let mut entry = docs.entry.clone();
                (entry.root, entry.counter) = (root.entry.root, docs.entry.counter + 1);
                entry.commitment = root.entry.commitment;
                let entry = entry.signed(&thief.core.keys.database, &thief.core.keys.device);
                entries.insert(DOCS, kilofs::daemon::core::Listed { entry, place: root.place });
            }
        };
        let forged = thief.version(&ground, &ground.image, swap, |_| {});
        Told { refused: !as_it_is, ..tell(stage, &forged, &stage.policy) }
    });
}

/// An honest version with another charter.
fn rechartered(stage: &Stage, change: impl FnOnce(&mut Charter)) -> Forged {
    let thief = &stage.thief;
    let ground = thief.ground();
    let keys = thief.core.keys.catalogue.as_ref().unwrap();
    let mut charter = ground.charter.clone();
    change(&mut charter);
    let mut sealed = Vec::new();
    let id = keys.seal_blob(BlobKind::Charter, &charter.encode(), &mut sealed);
    let draft = Arc::new(thief.core.store.draft(&ground.image).unwrap());
    let place = draft.append(Stream::Fresh, &sealed).unwrap();
    let image = draft.snapshot().unwrap();
    thief.version(&ground, &image, |_| {}, |commit| commit.charter = Locator { place, id })
}

#[test]
fn a_charter_of_the_thiefs_making() {
    let mut round = 0;
    Stage::new().outlives(|stage| {
        round += 1;
        let own = stage.thief.core.keys.device.public();
        let forged = rechartered(stage, |charter| match round {
            1 => charter.members = Members::Listed(BTreeSet::from([own])),
            _ => {
                let docs = charter.blocks.get_mut(&DOCS).unwrap();
                (docs.path, docs.owner) = (b"elsewhere".to_vec(), Some(own));
            }
        });
        // Who joins has no other charter, and waits for somebody who has.
        Told { refused: false, blinds: true, ..tell(stage, &forged, &stage.policy) }
    });
}

#[test]
fn six_versions_of_garbage_in_a_row() {
    Stage::new().outlives(|stage| {
        let thief = &stage.thief;
        let ground = thief.ground();
        let honest = thief.version(&ground, &ground.image, |_| {}, |_| {});
        let bytes = honest.image.bytes();
        let tell_garbage = |seed: u64| {
            let noise: Vec<u8> = (0..bytes).map(|at| (at * (2 * seed + 7) + at / 251) as u8).collect();
            tell(stage, &thief.of_bytes(&honest, &noise), &stage.policy)
        };
        let all: Vec<Told> = (0..6).map(tell_garbage).collect();
        let forged = all.iter().flat_map(|told| told.forged.clone()).collect();
        let seq = all.last().unwrap().seq;
        // Who joins while nobody honest is there finds five versions that do not open.
        Told { seq, forged, heals: true, refused: false, blinds: true }
    });
}

#[test]
fn a_record_under_the_last_number() {
    let stage = Stage::new();
    let thief = &stage.thief;
    let record = thief.record();
    let value = record.encode_sealed(&thief.core.keys.record);
    thief.put_under(i64::MAX, &value);
    for device in [&stage.a, &stage.b] {
        wait_until("the device says that the numbers are used up", || {
            says(device, "the last number that there is") && says(device, "kilofs rotate")
        });
        stage.assert_intact(device, "under the last number");
    }
    // What is changed here stays here, and is said to be pending; nothing is lost of it.
    stage.a.write("after-the-end", b"kept");
    wait_until("it is said not to be published", || stage.a.status()["published"] == false);
    let reader = stage.join("read");
    wait_until("who joins reads what was published", || reader.path("docs/large").exists());
    stage.assert_intact(&reader, "joined under the last number");
    assert!(!stage.b.path("after-the-end").exists());
    stage.a.umount();
    stage.a.mount();
    stage.a.awaits("after-the-end", b"kept");
}

#[test]
fn a_record_from_another_time_is_signed_anew() {
    for wrong in [0, now_seconds() - 3 * DAY_SECONDS, u32::MAX] {
        let world = World::new();
        let a = world.creator("a");
        a.write("text", b"as it was");
        a.sync();
        let reader = world.joined("reader", &a, "read");
        reader.awaits("text", b"as it was");
        let thief = Thief::join(&world, &a);
        // Nobody who may sign is there: what is shown grows old, and looks confirmed all the same.
        a.umount();
        let honest = thief.record();
        let record = Record { time: wrong, ..honest };
        let seq = thief.put_value(&record.encode_sealed(&thief.core.keys.record));
        let word = if wrong == u32::MAX {
            "days ahead of this device's clock"
        } else {
            "days ago, and it is signed anew"
        };
        wait_until("the reader says that what it is shown is not of today", || says(&reader, word));
        let status = reader.status();
        assert_eq!(
            (status["seq"].as_i64(), status["record_time"].as_i64()),
            (Some(seq), Some(i64::from(wrong)))
        );
        assert!(status["confirmed_seconds_ago"].as_f64() < Some(60.0), "{status}");
        reader.awaits("text", b"as it was");
        // The first who may sign does.
        a.mount();
        wait_until("the record is signed anew", || {
            let time = reader.status()["record_time"].as_i64().unwrap();
            (i64::from(now_seconds()) - time).abs() < 1_000
        });
        assert!(!says(&reader, word));
        let settled = reader.status()["seq"].as_i64();
        assert!(settled > Some(seq));
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert_eq!(reader.status()["seq"].as_i64(), settled, "once is enough");
        reader.ok(&["fsck", NAME]);
    }
}

fn says(device: &super::harness::Device, word: &str) -> bool {
    let status = device.status();
    status["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains(word))
}
