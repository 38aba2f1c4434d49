//! Commits that lie about what they stand on, while honest devices write: nothing that they commit is hidden by it.

use super::forgeries::tell;
use super::stage::{Stage, Told};
use super::thief::rand;
use kilofs::base::Id;
use kilofs::record::{Maker, Stamp, Vector};

#[test]
fn a_commit_that_claims_to_stand_on_everything() {
    // What others will commit by any number, and what they will commit next.
    let mut claims = [u64::MAX, 1].into_iter();
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let more = claims.next().unwrap();
        let forged = stage.thief.version(
            &ground,
            &ground.image,
            |_| {},
            |commit| {
                let mut vector = Vector::default();
                for (maker, known) in commit.vector.iter().filter(|(maker, _)| **maker != commit.maker()) {
                    let counter = known.counter.saturating_add(more);
                    vector.insert(*maker, Stamp { counter, digest: Id(rand()), ..*known });
                }
                commit.vector = vector;
            },
        );
        stage.race(Told { refused: false, ..tell(stage, &forged, &stage.policy) })
    });
}

#[test]
fn a_commit_that_vouches_for_others_itself() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let keys = &stage.thief.core.keys;
        let forged = stage.thief.version(
            &ground,
            &ground.image,
            |_| {},
            |commit| {
                let mut vector = Vector::default();
                for (maker, _) in commit.vector.iter().filter(|(maker, _)| **maker != commit.maker()) {
                    let digest = Id(rand());
                    let claim = Stamp::sign(&keys.database, &keys.device, maker.session, u64::MAX, digest);
                    // In its own name it may say so, of a session that nobody has with this device.
                    vector.insert(Maker { device: keys.device.public(), ..*maker }, claim);
                }
                commit.vector = vector;
            },
        );
        let told = tell(stage, &forged, &stage.policy);
        stage.race(Told { heals: false, refused: false, forged: Vec::new(), ..told })
    });
}

#[test]
fn a_commit_at_the_end_of_all_counters() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let forged = stage.thief.version(
            &ground,
            &ground.image,
            |_| {},
            |commit| (commit.lamport, commit.time, commit.policy_counter) = (u64::MAX, i64::MAX, u32::MAX),
        );
        let told = tell(stage, &forged, &stage.policy);
        stage.race(Told { heals: false, refused: false, forged: Vec::new(), ..told })
    });
}

#[test]
fn two_commits_of_one_number() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let one = stage.thief.version(&ground, &ground.image, |_| {}, |_| {});
        stage.race(tell(stage, &one, &stage.policy));
        let other = stage.thief.version(&ground, &ground.image, |_| {}, |commit| commit.lamport += 1);
        let told = tell(stage, &other, &stage.policy);
        stage.race(Told { heals: false, refused: false, forged: Vec::new(), ..told })
    });
}
