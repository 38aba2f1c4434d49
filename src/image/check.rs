//! Checking a store on disk, without keys: superblocks, tables, and whether they contradict each other.

use super::load::{load_one, read_superblock};
use super::store::{Generation, Store};
use crate::base::{RegionIndex, SlotIndex};
use std::collections::HashMap;
use std::fmt;

/// Something wrong with a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where: a superblock, or a version by its label.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What to do about it.
    pub next: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.what, self.next)
    }
}

const HEALS: &str = "the next commit writes it anew; if this comes back, check the disk";
const STANDS_IN: &str =
    "another version's regions stand in for it until a repair commits what they still show";
const RESTORE: &str = "restore the file from a backup, or join the database again from a link";

impl Store {
    /// Reads everything that the superblocks lead to again and reports what does not hold. Commits wait meanwhile.
    pub fn check(&self) -> Vec<Finding> {
        self.between_commits(|| {
            let mut findings = Vec::new();
            let length = self.disk().length().unwrap_or_else(|error| {
                findings.push(finding(
                    "the file",
                    format!("it cannot be measured ({error})"),
                    "check the disk",
                ));
                0
            });
            let mut sound = 0;
            for location in [0, 1] {
                let place = format!("superblock {location}");
                let outcome = read_superblock(self.disk(), location)
                    .map_err(|fault| fault.to_string())
                    .and_then(|superblock| load_one(self.disk(), &superblock, length));
                match outcome {
                    Ok(generation) => {
                        sound += 1;
                        contradictions(&generation, &place, &mut findings);
                    }
                    Err(fault) => findings.push(finding(&place, fault, HEALS)),
                }
            }
            for what in self.rescued() {
                findings.push(finding("the tables", what.clone(), STANDS_IN));
            }
            if sound == 0 {
                findings.push(finding(
                    "the file",
                    "no superblock leads to a sound state".to_owned(),
                    RESTORE,
                ));
            }
            findings
        })
    }
}

/// A slot belongs to one region, in whichever versions.
fn contradictions(generation: &Generation, place: &str, findings: &mut Vec<Finding>) {
    let mut owners: HashMap<SlotIndex, RegionIndex> = HashMap::new();
    for kept in &generation.kept {
        for (index, region) in kept.image.iter() {
            let Some(slot) = region.slot else { continue };
            let owner = *owners.entry(slot).or_insert(index);
            if owner != index {
                let what = format!("regions {} and {} both claim slot {}", owner.0, index.0, slot.0);
                findings.push(finding(&format!("{place}, version {}", kept.label), what, RESTORE));
            }
        }
    }
}

fn finding(place: &str, what: String, next: &'static str) -> Finding {
    Finding { place: place.to_owned(), what, next }
}
