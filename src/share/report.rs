//! What a person should know of a shared folder, and when what failed is tried again.

use super::base::Rel;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Paths that a report names, of each kind.
const NAMED_MAX: usize = 100;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a shared folder is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Paths that wait to be looked at or tried again; 0 is: in step.
    pub waiting: usize,
    /// What is not shared, and why: path, reason.
    pub skipped: Vec<(String, String)>,
    /// Where local changes lie that the policy does not allow, below the folder.
    pub refused: Vec<String>,
    /// What failed and is tried again: path, reason.
    pub failing: Vec<(String, String)>,
    /// Why nothing at all is done, until that is over.
    pub halted: Option<String>,
}

struct Failure {
    reason: String,
    at: Instant,
    pause: Duration,
}

/// The same, as it is collected.
#[derive(Default)]
pub(super) struct Notes {
    skipped: BTreeMap<Rel, String>,
    pub refused: Vec<Rel>,
    failing: BTreeMap<Rel, Failure>,
}

impl Notes {
    /// Nothing is wrong with a path any more.
    pub fn solved(&mut self, path: &[u8]) {
        self.failing.remove(path);
        self.skipped.remove(path);
    }

    /// A path that is left alone.
    pub fn skip(&mut self, path: &[u8], reason: &str) {
        self.failing.remove(path);
        if self.skipped.insert(path.to_vec(), reason.to_owned()).is_none() {
            tracing::warn!(path = %String::from_utf8_lossy(path), reason, "not shared");
        }
    }

    /// A path that is tried again, each time after a longer pause.
    pub fn failed(&mut self, path: &[u8], reason: String) {
        let pause = self.failing.get(path).map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
        tracing::warn!(path = %String::from_utf8_lossy(path), reason, ?pause, "not in step; tried again");
        self.failing.insert(path.to_vec(), Failure { reason, at: Instant::now() + pause, pause });
    }

    /// The paths whose time has come.
    pub fn due(&self, now: Instant) -> Vec<Rel> {
        self.failing.iter().filter(|(_, failure)| failure.at <= now).map(|(path, _)| path.clone()).collect()
    }

    /// Whether everything in step is in step.
    pub fn report(&self, waiting: usize, halted: Option<String>) -> Report {
        let named = |path: &Rel| String::from_utf8_lossy(path).into_owned();
        let skipped = self.skipped.iter().take(NAMED_MAX);
        let failing = self.failing.iter().take(NAMED_MAX);
        Report {
            waiting: waiting + self.failing.len(),
            skipped: skipped.map(|(path, reason)| (named(path), reason.clone())).collect(),
            refused: self.refused.iter().rev().take(NAMED_MAX).map(named).collect(),
            failing: failing.map(|(path, failure)| (named(path), failure.reason.clone())).collect(),
            halted,
        }
    }
}
