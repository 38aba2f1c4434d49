//! Going through what is left of a damaged map: what does not open is shown and passed over, instead of ending the walk.

use super::boundary::RunCheck;
use super::node::Bounds;
use super::read::Trust;
use super::{Entry, LEVEL_MAX, Map, MapError, Root};
use crate::base::Place;

/// What a walk through a damaged map comes by.
#[derive(Debug)]
pub enum Remains<'n> {
    /// A node that opens.
    Node(Place),
    /// An entry of a leaf.
    Entry(&'n Entry),
    /// A node that opens, among others that end where the rule does not end them: all its entries are shown.
    Misshapen(Place),
    /// A node that does not open. The keys after `after`, up to and with `last`, or to the end where there is none,
    /// are lost.
    Lost {
        /// Why, and where it lies.
        error: MapError,
        /// Where it should lie.
        at: Root,
        /// All keys lost come after this one; empty where nothing is before.
        after: &'n [u8],
        /// The last key lost.
        last: Option<&'n [u8]>,
    },
}

impl Map<'_> {
    /// Shows every node and entry that opens, in the order of keys, and every node that does not. Each is opened from
    /// its bytes, never taken from the cache.
    pub fn remains(&self, root: Option<&Root>, visit: &mut dyn FnMut(Remains<'_>)) {
        let Some(root) = root else { return };
        let levels = 0..=root.level.min(LEVEL_MAX);
        let runs = levels.map(|level| RunCheck::new(self.boundary(level))).collect();
        let mut walk = Walk { map: self, visit, runs };
        walk.node(root, Bounds::NONE);
        if !walk.runs.iter_mut().all(RunCheck::finish) {
            (walk.visit)(Remains::Misshapen(root.place));
        }
    }
}

struct Walk<'w> {
    map: &'w Map<'w>,
    visit: &'w mut dyn FnMut(Remains<'_>),
    /// One a level, from the leaves up.
    runs: Vec<RunCheck>,
}

impl Walk<'_> {
    fn node(&mut self, at: &Root, bounds: Bounds<'_>) {
        let node = match self.map.open(at, bounds, Trust::Bytes) {
            Ok(node) => node,
            Err(error) => {
                if let Some(last) = bounds.last {
                    self.runs.iter_mut().take(usize::from(at.level) + 1).for_each(|run| run.skip_to(last));
                }
                let lost = Remains::Lost { error, at: *at, after: bounds.after, last: bounds.last };
                return (self.visit)(lost);
            }
        };
        (self.visit)(Remains::Node(at.place));
        if !self.runs[usize::from(at.level)].node(&node.entries) {
            (self.visit)(Remains::Misshapen(at.place));
        }
        if at.level == 0 {
            return node.entries.iter().for_each(|entry| (self.visit)(Remains::Entry(entry)));
        }
        for (index, bounds) in node.children(bounds.after) {
            self.node(&node.child(index), bounds);
        }
    }
}
