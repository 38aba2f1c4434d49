//! Blocks that belong to one device: what others sign there, what a former owner signs, and what an owner published
//! before it knew that the rules had changed.

use super::forgeries::{above, tell, vandalised};
use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use super::stage::Stage;
use super::thief::{Thief, rand};
use super::version::{DOCS, Forged};
use kilofs::base::{BlockNumber, SessionId};
use kilofs::daemon::Made;
use kilofs::daemon::core::Listed;
use kilofs::record::BlockEntry;
use kilofs::tree::ReadTree;

fn owned_by(a: &Device, owner: &str) {
    let done = a.json(&["policy", NAME, "set", "/docs", "owner", "--owner", owner]);
    assert_eq!(done["mode"], "owner");
}

fn id_of(thief: &Thief) -> String {
    thief.core.keys.device.public().to_string()
}

#[test]
fn an_entry_by_another_device_than_the_owner() {
    Stage::under(|a, _| owned_by(a, "self")).outlives(|stage| {
        let forged = vandalised(stage, |ground, head| {
            stage.thief.entry(ground, head, DOCS, stage.thief.next_counter(ground, DOCS))
        });
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn an_entry_by_the_former_owner_above_and_below_the_floor() {
    let stage = Stage::under(|a, thief| {
        owned_by(a, &id_of(thief));
        a.sync();
        thief.catch_up();
        owned_by(a, "self");
    });
    // What it signed while it was the owner would have had such a counter, or a higher one.
    let mut above_floor = [true, false].into_iter();
    stage.outlives(|stage| {
        let high = above_floor.next().unwrap();
        let forged = vandalised(stage, |ground, head| {
            let floor = ground.charter.blocks[&DOCS].floor.counter;
            assert!(floor > 1 << 32, "the floor lies above all that the former owner can have signed");
            let counter = if high { floor + (1 << 40) } else { floor - 1 };
            stage.thief.entry(ground, head, DOCS, counter)
        });
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn the_state_of_another_block_in_the_place_of_the_owners() {
    let mut with_counter = [false, true].into_iter();
    Stage::under(|a, _| owned_by(a, "self")).outlives(|stage| {
        let thief = &stage.thief;
        let ground = thief.ground();
        let other = &ground.entries[&BlockNumber::ROOT];
        let mut entry = BlockEntry { number: DOCS, ..other.entry.clone() };
        if with_counter.next().unwrap() {
            let docs = &ground.charter.blocks[&DOCS];
            (entry.birth, entry.counter) = (docs.birth, docs.floor.counter + 1);
            entry.commitment = thief.core.keys.block(DOCS, docs).unwrap().commitment();
        }
        let listed = Listed { entry, place: other.place };
        let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
        let forged = thief.version(&ground, &ground.image, change, |_| {});
        tell(stage, &forged, &stage.policy)
    });
}

/// A device that keeps every rule, in this process: it owns `docs`, and publishes there without being heard.
struct Away {
    device: Thief,
    a: Device,
    made: Made,
    _world: World,
}

const EDITED: &[u8] = b"edited by the owner, apart";

fn away() -> Away {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs"]);
    a.write("docs/text", b"agreed");
    a.write("docs/other", b"agreed, too");
    a.sync();
    let device = Thief::join(&world, &a);
    owned_by(&a, &id_of(&device));
    a.sync();
    device.catch_up();
    let tree = device.core.tree().unwrap();
    let text = tree.resolve(b"docs/text").unwrap().inode;
    for _ in 0..3 {
        tree.write(text, 0, EDITED).unwrap();
    }
    let made = device.core.publish().unwrap().unwrap();
    Away { device, a, made, _world: world }
}

impl Away {
    fn shows(&self, path: &str) -> Vec<u8> {
        let tree = self.device.core.tree().unwrap();
        let attr = tree.resolve(path.as_bytes()).unwrap();
        tree.read(attr.inode, 0, 1000).unwrap().to_vec()
    }

    /// Tells a version in a record that the others hear of.
    fn tells(&self, made: &Made) {
        self.device.seed(&made.metainfo, &made.image);
        let mut versions = vec![made.reference];
        let told = self.device.record().versions.into_iter();
        versions.extend(told.filter(|old| old.infohash != made.reference.infohash).take(4));
        let policy = self.device.core.inner().state.policy.clone();
        self.device.put(versions, policy);
    }
}

#[test]
fn what_a_former_owner_had_published_is_set_aside_at_its_device() {
    let away = away();
    owned_by(&away.a, "self");
    away.a.write("docs/text", b"written by the next owner");
    away.a.sync();
    away.device.catch_up();
    assert_eq!(away.shows("docs/text"), b"written by the next owner");
    let inner = away.device.core.inner();
    let aside: Vec<BlockNumber> = inner.set_aside.iter().map(|aside| aside.block).collect();
    assert_eq!(aside, [DOCS]);
    let refusals: Vec<(u16, &str)> =
        inner.state.refusals.iter().map(|refusal| (refusal.block, refusal.kind.as_str())).collect();
    assert_eq!(refusals, [(DOCS.0, "local")]);
}

#[test]
fn what_an_owner_had_published_stays_its_work_if_it_is_the_owner_still() {
    let away = away();
    away.a.json(&["policy", NAME, "set", "/docs", "rw"]);
    away.a.write("docs/other", b"changed while anybody could");
    owned_by(&away.a, &id_of(&away.device));
    away.a.sync();
    away.device.catch_up();
    assert_eq!(away.shows("docs/text"), EDITED);
    assert_eq!(away.shows("docs/other"), b"changed while anybody could");
    assert!(away.device.core.inner().set_aside.is_empty());
    let made = away.device.core.publish().unwrap().expect("the work is signed anew");
    let ground = away.device.ground();
    assert!(ground.entries[&DOCS].entry.counter > ground.charter.blocks[&DOCS].floor.counter);
    away.tells(&made);
    away.a.awaits("docs/text", EDITED);
    away.a.awaits("docs/other", b"changed while anybody could");
    assert_eq!(away.a.status()["refused"], serde_json::json!([]));
}

#[test]
fn work_that_was_passed_over_because_its_maker_did_not_know_the_policy_is_not_lost() {
    let away = away();
    away.a.json(&["policy", NAME, "set", "/docs", "ro"]);
    owned_by(&away.a, &id_of(&away.device));
    away.a.sync();
    // Heard only now, and of the older policy: its state of the block lies below the floor.
    away.tells(&away.made);
    let passed_over = away.made.reference;
    wait_until("a has published above what it passed over", || {
        let newest = away.device.record().versions[0];
        newest != passed_over && away.a.status()["published"] == true
    });
    assert_eq!(std::fs::read(away.a.path("docs/text")).unwrap(), b"agreed");
    away.device.catch_up();
    assert_eq!(away.shows("docs/text"), EDITED);
    let made = away.device.core.publish().unwrap().expect("the work is signed anew");
    away.tells(&made);
    away.a.awaits("docs/text", EDITED);
    assert_eq!(away.a.status()["refused"], serde_json::json!([]));
}

/// An owner whose store was copied has two sessions, which do not know of each other.
#[test]
fn two_states_of_an_owner_with_one_counter_are_one_at_everybody() {
    let stage = Stage::under(|a, thief| owned_by(a, &id_of(thief)));
    for round in 0..2 {
        stage.thief.catch_up();
        let ground = stage.thief.ground();
        let counter = stage.thief.next_counter(&ground, DOCS);
        let mut states: Vec<(Option<[u8; 32]>, String, Forged)> = (0..2)
            .map(|session| {
                let text = format!("what session {} wrote", 2 * round + session);
                let head = stage.thief.rewritten(&ground, |tree| {
                    let file = tree.resolve(b"docs/text").unwrap().inode;
                    tree.write(file, 0, text.as_bytes()).unwrap();
                });
                let listed = stage.thief.entry(&ground, &head, DOCS, counter);
                let root = listed.entry.root.map(|root| root.id.0);
                let change =
                    |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
                let forged = stage.thief.version(&ground, &head.image, change, |commit| {
                    commit.session = SessionId(rand());
                });
                (root, text, forged)
            })
            .collect();
        states.sort_by_key(|(root, ..)| *root);
        let expected = states[1].1.clone();
        if round == 1 {
            states.reverse();
        }
        for (index, (_, _, forged)) in states.iter().enumerate() {
            stage.thief.seed(&forged.metainfo, &forged.image);
            let told = forged.reference.infohash;
            let has = |device: &Device| {
                let status = device.status();
                let mut versions = status["versions"].as_array().unwrap().iter();
                versions.any(|one| one["infohash"] == told.to_string() && one["complete"] == true)
            };
            wait_until("somebody has the state", || {
                // What the honest ones put at that moment may take its place unseen.
                if !stage.thief.record().versions.iter().any(|version| version.infohash == told) {
                    stage.thief.put(above(&stage, &[forged.reference]), stage.policy.clone());
                }
                has(&stage.a) || has(&stage.b)
            });
            stage.write(&format!("tied-{round}-{index}"));
        }
        await_agreement(&[&stage.a, &stage.b]);
        for device in [&stage.a, &stage.b] {
            device.awaits("docs/text", expected.as_bytes());
            assert_eq!(device.status()["refused"], serde_json::json!([]));
        }
    }
}
