//! A block that only grows, and a thief with the write key: what he deletes, changes, renames or cuts there stays as it was
//! at everybody who knew it, and what he adds beside is added.

use super::forgeries::tell;
use super::harness::NAME;
use super::process::wait_until;
use super::stage::{Stage, Told};
use super::version::DOCS;
use kilofs::base::Inode;
use kilofs::tree::{RenameFlags, SetAttr, Tree};
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(3);
/// Counters above a floor that count (kilofs(5)).
const COUNTERS_MAX: u64 = 1 << 48;

fn growing() -> Stage {
    Stage::under(|a, _| {
        assert_eq!(a.json(&["policy", NAME, "set", "/docs", "append"])["mode"], "append");
    })
}

fn inode(tree: &Tree, path: &str) -> Inode {
    tree.resolve(path.as_bytes()).unwrap().inode
}

/// A newcomer who meets nobody but the thief has nothing to hold against him; the others tell it.
fn forged(stage: &Stage, counter: Option<u64>, misdeed: impl FnOnce(&Tree)) -> Told {
    let ground = stage.thief.ground();
    let head = stage.thief.rewritten(&ground, misdeed);
    let counter = counter.unwrap_or_else(|| stage.thief.next_counter(&ground, DOCS));
    let listed = stage.thief.entry(&ground, &head, DOCS, counter);
    let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
    let forged = stage.thief.version(&ground, &head.image, change, |_| {});
    Told { blinds: true, ..tell(stage, &forged, &stage.policy) }
}

/// At one time all that a person would do.
fn ransack(tree: &Tree) {
    let docs = inode(tree, "docs");
    tree.write(inode(tree, "docs/text"), 0, b"what the thief wrote").unwrap();
    tree.set_attr(inode(tree, "docs/large"), SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    tree.unlink(docs, b"empty").unwrap();
    tree.rename(docs, b"many", docs, b"moved", RenameFlags::Replace).unwrap();
}

#[test]
fn a_member_who_changes_cuts_removes_and_renames_in_a_block_that_only_grows() {
    growing().outlives(|stage| forged(stage, None, ransack));
}

#[test]
fn counters_burnt_in_a_block_that_only_grows() {
    growing().outlives(|stage| {
        let floor = stage.thief.ground().charter.blocks[&DOCS].floor.counter;
        forged(stage, Some(floor + COUNTERS_MAX), ransack)
    });
}

#[test]
fn a_member_who_goes_on_and_on_is_answered_for_a_while_and_what_was_there_stays() {
    let stage = growing();
    for round in 0..8 {
        let told = forged(&stage, None, |tree| {
            let text = inode(tree, "docs/text");
            tree.write(text, 0, format!("round {round}").as_bytes()).unwrap();
        });
        wait_until("they have seen it", || {
            [&stage.a, &stage.b].iter().all(|device| {
                let status = device.status();
                status["seq"].as_i64().is_some_and(|seq| seq >= told.seq)
            })
        });
        std::thread::sleep(Duration::from_millis(500));
        for device in [&stage.a, &stage.b] {
            stage.assert_intact(device, "after a misdeed");
        }
        stage.thief.catch_up();
    }
    stage.write("alive");
    std::thread::sleep(QUIET);
    let seq = stage.a.status()["seq"].clone();
    std::thread::sleep(QUIET);
    assert_eq!(stage.a.status()["seq"], seq, "nothing goes to and fro");
}

#[test]
fn what_is_added_beside_a_misdeed_is_added() {
    let stage = growing();
    let ground = stage.thief.ground();
    let head = stage.thief.rewritten(&ground, |tree| {
        ransack(tree);
        super::forgeries::add(tree, inode(tree, "docs"), b"added");
    });
    let listed = stage.thief.entry(&ground, &head, DOCS, stage.thief.next_counter(&ground, DOCS));
    let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
    let version = stage.thief.version(&ground, &head.image, change, |_| {});
    tell(&stage, &version, &stage.policy);
    for device in [&stage.a, &stage.b] {
        device.awaits("docs/added", &[7; 5000]);
        for (path, bytes) in stage.protected() {
            device.awaits(&format!("docs/{path}"), bytes);
        }
    }
}
