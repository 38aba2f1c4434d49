//! Random changes on both sides of a shared folder: afterwards both are equal, and what was written last at a path is
//! somewhere.

use super::harness::{Device, Dice, World};
use super::process::wait_until;
use super::share::{await_in_step, await_same, seen, shared_and_mounted};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{create_dir, remove_dir, remove_file, rename, write};

const STEPS: u64 = 120;
const ROUNDS: u64 = 4;

/// One side: which contents it has acknowledged and not taken away again itself.
struct Side<'a> {
    device: &'a Device,
    label: &'static str,
    /// What it wrote and did not overwrite or remove itself, by path.
    held: BTreeMap<String, String>,
    written: u64,
}

impl Side<'_> {
    /// A path out of a few, so that both sides meet.
    fn path(dice: &mut Dice) -> String {
        let directory = ["", "d/", "e/", "d/f/"][dice.below(4) as usize];
        format!("{directory}{}", dice.below(6))
    }

    fn step(&mut self, dice: &mut Dice) {
        let (one, other) = (Self::path(dice), Self::path(dice));
        let at = |path: &str| self.device.path(path);
        match dice.below(12) {
            0..6 => {
                self.written += 1;
                let content = format!(
                    "{} wrote {} {}",
                    self.label,
                    self.written,
                    "x".repeat(dice.below(3000) as usize)
                );
                if write(at(&one), &content).is_ok() {
                    self.held.insert(one, content);
                }
            }
            6 => {
                if remove_file(at(&one)).is_ok() {
                    self.held.remove(&one);
                }
            }
            7 | 8 => {
                if at(&one).is_file() && rename(at(&one), at(&other)).is_ok() && one != other {
                    let moved = self.held.remove(&one);
                    self.held.remove(&other);
                    self.held.extend(moved.map(|content| (other, content)));
                }
            }
            9 => _ = create_dir(at(["d", "e", "d/f"][dice.below(3) as usize])),
            10 => _ = remove_dir(at(["e", "d/f"][dice.below(2) as usize])),
            _ => {
                // Only the other side's files are in there by then, or none of ours are lost with it.
                if rename(at("e"), at("d/f")).is_ok() {
                    let moved: Vec<_> =
                        self.held.keys().filter(|path| path.starts_with("e/")).cloned().collect();
                    for path in moved {
                        let content = self.held.remove(&path).unwrap();
                        self.held.insert(path.replacen("e/", "d/f/", 1), content);
                    }
                }
            }
        }
    }
}

/// Every content that a side wrote, and that neither side overwrote or removed after it had seen it, is in the end in some
/// file. In a round nobody waits for the other: a side that removes what it does not hold itself may have seen it.
fn run(seed: u64, apart: bool) {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    let mut dice = Dice::new(seed);
    let mut sides = [("a", &a), ("b", &b)].map(|(label, device)| Side {
        device,
        label,
        held: BTreeMap::new(),
        written: 0,
    });
    for round in 0..ROUNDS {
        let apart = apart && round % 2 == 1;
        if apart {
            a.unshare();
        }
        // What the other side shows at the beginning of a round may be removed or overwritten in it; what is written
        // in it may not, unless it was seen.
        let before: BTreeSet<Vec<u8>> = seen(&a.mount).into_values().map(|(_, content)| content).collect();
        sides.iter_mut().for_each(|side| side.held.clear());
        for _ in 0..STEPS {
            let which = dice.below(2) as usize;
            sides[which].step(&mut dice);
        }
        if apart {
            b.sync();
            a.share(&[]);
        }
        wait_until("the share has nothing to do", || a.status()["share"]["in_step"] == true);
        await_same(&a, &b);
        await_in_step(&a);
        await_same(&a, &b);
        if apart {
            let all: BTreeSet<Vec<u8>> = seen(&a.mount).into_values().map(|(_, content)| content).collect();
            for (path, content) in sides.iter().flat_map(|side| &side.held) {
                let content = content.as_bytes();
                assert!(
                    before.contains(content) || all.contains(content),
                    "seed {seed}, round {round}: what was written to {path} is nowhere"
                );
            }
        }
    }
}

#[test]
fn after_random_changes_together_and_apart_both_are_equal_and_nothing_is_lost() {
    run(1, true);
    run(2, true);
}

#[test]
#[ignore = "twenty seeds take minutes: for who changes this"]
fn after_more_random_changes_too() {
    (3..23).for_each(|seed| run(seed, true));
}
