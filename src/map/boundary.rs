//! Where nodes end.
//!
//! The entries of a level form *runs*: a run ends after a key whose SipHash-2-4 under the block's boundary key is
//! below 2^64 / [`RUN_FAN`]. A run with more entries than [`NODE_ENTRIES_MAX`] or more weight than
//! [`NODE_WEIGHT_BYTES_MAX`] is split after its key of smallest hash (the leftmost of equals, never the last key),
//! and so are the parts. So the nodes of a run depend on that run alone.

use super::{ENTRY_WEIGHT_BYTES, Entry, NODE_ENTRIES_MAX, NODE_WEIGHT_BYTES_MAX, RUN_FAN};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// What a key's hash and an entry's size say about node ends, at one level.
#[derive(Clone)]
pub(super) struct Boundary {
    hasher: SipHasher24,
    level: u8,
}

/// What decides about splits: an entry's hash and its weight.
#[derive(Clone, Copy)]
struct Measure {
    hash: u64,
    weight: usize,
}

impl Boundary {
    /// The rule of a block's map at a level; levels are independent of each other.
    pub(super) fn new(key: &[u8; 16], level: u8) -> Boundary {
        Boundary { hasher: SipHasher24::new_with_key(key), level }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher;
        hasher.write(key);
        hasher.write(&[self.level]);
        hasher.finish()
    }

    /// Whether a run ends after `key`.
    pub(super) fn ends_run(&self, key: &[u8]) -> bool {
        is_end(self.hash(key))
    }

    /// Whether these entries, in this order, can be one node: only the last may end a run, and more than one entry
    /// must keep both limits. Whether a node that does not end its run ends in the right place, only the run shows.
    pub(super) fn could_be_node(&self, entries: &[Entry]) -> bool {
        let Some((_, inner)) = entries.split_last() else { return false };
        fits(entries.len(), entries.iter().map(weight).sum())
            && !inner.iter().any(|entry| self.ends_run(&entry.key))
    }

    /// Cuts one whole run into its nodes.
    pub(super) fn split(&self, mut run: Vec<Entry>) -> Vec<Vec<Entry>> {
        if run.is_empty() {
            return Vec::new();
        }
        let measures: Vec<Measure> = run.iter().map(|entry| self.measure(entry)).collect();
        let mut nodes: Vec<Vec<Entry>> =
            cuts(&measures).into_iter().rev().map(|cut| run.split_off(cut)).collect();
        nodes.push(run);
        nodes.reverse();
        nodes
    }

    fn measure(&self, entry: &Entry) -> Measure {
        Measure { hash: self.hash(&entry.key), weight: weight(entry) }
    }
}

fn is_end(hash: u64) -> bool {
    hash < u64::MAX / RUN_FAN
}

/// Bytes that an entry is counted with; no less than it takes in a node.
fn weight(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len() + ENTRY_WEIGHT_BYTES
}

fn fits(entries: usize, weight: usize) -> bool {
    entries == 1 || (entries <= NODE_ENTRIES_MAX && weight <= NODE_WEIGHT_BYTES_MAX)
}

/// Where a run is cut, ascending: a cut before each of these positions.
///
/// The recursive split is a walk from the top of the Cartesian tree of the hashes of all but the last entry. Its
/// parts are found in linear time, so that keys chosen to form one endless run cost their maker's peers no more.
fn cuts(run: &[Measure]) -> Vec<usize> {
    if run.is_empty() || fits(run.len(), run.iter().map(|measure| measure.weight).sum()) {
        return Vec::new();
    }
    let tree = Cartesian::new(&run[..run.len() - 1]);
    let mut weights = Vec::with_capacity(run.len() + 1);
    weights.push(0);
    weights.extend(run.iter().scan(0, |sum, measure| {
        *sum += measure.weight;
        Some(*sum)
    }));
    let mut cuts = Vec::new();
    let mut parts = vec![(0, run.len(), tree.top)];
    while let Some((start, end, smallest)) = parts.pop() {
        if fits(end - start, weights[end] - weights[start]) {
            continue;
        }
        let smallest = smallest.expect("a part of more than one entry has one that is not its last");
        cuts.push(smallest + 1);
        parts.push((start, smallest + 1, tree.left[smallest]));
        parts.push((smallest + 1, end, tree.right[smallest]));
    }
    cuts.sort_unstable();
    cuts
}

/// The binary tree whose every subtree spans a range of positions, with the leftmost smallest hash on top.
struct Cartesian {
    top: Option<usize>,
    left: Vec<Option<usize>>,
    right: Vec<Option<usize>>,
}

impl Cartesian {
    fn new(run: &[Measure]) -> Cartesian {
        let (mut left, mut right) = (vec![None; run.len()], vec![None; run.len()]);
        let mut spine: Vec<usize> = Vec::new();
        for (position, measure) in run.iter().enumerate() {
            let mut below = None;
            while let Some(&last) = spine.last()
                && run[last].hash > measure.hash
            {
                below = spine.pop();
            }
            left[position] = below;
            if let Some(&above) = spine.last() {
                right[above] = Some(position);
            }
            spine.push(position);
        }
        Cartesian { top: spine.first().copied(), left, right }
    }
}

/// Collects the entries of a level into runs.
pub(super) struct Runs {
    boundary: Boundary,
    run: Vec<Entry>,
}

impl Runs {
    pub(super) fn new(boundary: Boundary) -> Runs {
        Runs { boundary, run: Vec::new() }
    }

    /// Takes the next entry; returns the nodes of the run that it ends, if it ends one.
    pub(super) fn push(&mut self, entry: Entry) -> Option<Vec<Vec<Entry>>> {
        let ends = self.boundary.ends_run(&entry.key);
        self.run.push(entry);
        ends.then(|| self.finish())
    }

    /// The nodes of the run so far, which nothing follows.
    pub(super) fn finish(&mut self) -> Vec<Vec<Entry>> {
        self.boundary.split(std::mem::take(&mut self.run))
    }

    /// Whether the last entry ended a run.
    pub(super) fn is_empty(&self) -> bool {
        self.run.is_empty()
    }
}

/// Checks that the nodes of a level, seen in order, end where they must.
pub(super) struct RunCheck {
    boundary: Boundary,
    /// Whether the run began where `run` begins.
    whole: bool,
    run: Vec<Measure>,
    ends: Vec<usize>,
}

impl RunCheck {
    pub(super) fn new(boundary: Boundary) -> RunCheck {
        RunCheck { boundary, whole: true, run: Vec::new(), ends: Vec::new() }
    }

    /// The next node; `false` if the run that it ends is not cut as it should be.
    pub(super) fn node(&mut self, entries: &[Entry]) -> bool {
        self.run.extend(entries.iter().map(|entry| self.boundary.measure(entry)));
        self.ends.push(self.run.len());
        let ended = self.run.last().is_some_and(|last| is_end(last.hash));
        !ended || self.finish()
    }

    /// Nothing follows the run; `false` if it is not cut as it should be.
    pub(super) fn finish(&mut self) -> bool {
        let (run, mut ends) = (std::mem::take(&mut self.run), std::mem::take(&mut self.ends));
        ends.pop();
        let right = !self.whole || cuts(&run) == ends;
        self.whole = true;
        right
    }

    /// Nodes up to the one whose last key is `last` are not shown.
    pub(super) fn skip_to(&mut self, last: &[u8]) {
        self.run.clear();
        self.ends.clear();
        self.whole = self.boundary.ends_run(last);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The rule as it is written: the slow way.
    fn split_by_the_letter(run: &[Measure], start: usize, cuts: &mut Vec<usize>) {
        if fits(run.len(), run.iter().map(|measure| measure.weight).sum()) {
            return;
        }
        let smallest = (0..run.len() - 1).min_by_key(|position| run[*position].hash).unwrap();
        split_by_the_letter(&run[..=smallest], start, cuts);
        cuts.push(start + smallest + 1);
        split_by_the_letter(&run[smallest + 1..], start + smallest + 1, cuts);
    }

    #[test]
    fn the_fast_split_is_the_recursive_one() {
        let boundary = Boundary::new(&[7; 16], 0);
        for seed in 0..400u64 {
            let random = |salt: u64| boundary.hash(&[seed.to_le_bytes(), salt.to_le_bytes()].concat());
            let length = random(0) as usize % 300 + 1;
            // Few distinct hashes, so that equals meet; some entries heavier than a node.
            let spread = [3, 50, u64::MAX][seed as usize % 3];
            let heavy = [40, 3_000, 40_000][random(1) as usize % 3];
            let run: Vec<Measure> = (0..length as u64)
                .map(|n| Measure {
                    hash: random(2 + 2 * n) % spread,
                    weight: random(3 + 2 * n) as usize % heavy,
                })
                .collect();
            let mut expected = Vec::new();
            split_by_the_letter(&run, 0, &mut expected);
            assert_eq!(cuts(&run), expected, "seed {seed}");
        }
    }

    #[test]
    fn an_endless_run_is_cut_in_linear_time() {
        let run: Vec<Measure> = (0..1_000_000).map(|n| Measure { hash: n, weight: 60 }).collect();
        let cuts = cuts(&run);
        assert_eq!(cuts.len(), 1_000_000 - NODE_ENTRIES_MAX);
    }
}
