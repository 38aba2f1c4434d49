//! Going down two trees at once, level by level, leaving out what both have.

use super::node::{Bounds, Node};
use super::read::Trust;
use super::{Map, MapError, Root};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// A node that is not opened yet, with what its parent announces.
pub(super) struct Branch {
    pub(super) root: Root,
    after: Box<[u8]>,
    last: Option<Box<[u8]>>,
}

/// The nodes of one tree that the other may not have, in the order of their keys. All are of one level, but for a
/// root that lies lower.
pub(super) struct Frontier<'m> {
    map: &'m Map<'m>,
    trust: Trust,
    pub(super) branches: Vec<Branch>,
}

impl<'m> Frontier<'m> {
    pub(super) fn new(map: &'m Map<'m>, root: Option<&Root>, trust: Trust) -> Frontier<'m> {
        let branch = |root: &Root| Branch { root: *root, after: Box::default(), last: None };
        Frontier { map, trust, branches: root.map(branch).into_iter().collect() }
    }

    /// The level of its nodes.
    pub(super) fn level(&self) -> Option<u8> {
        self.branches.first().map(|branch| branch.root.level)
    }

    pub(super) fn open(&self, branch: &Branch) -> Result<Arc<Node>, MapError> {
        let bounds = Bounds { after: &branch.after, last: branch.last.as_deref() };
        self.map.open(&branch.root, bounds, self.trust)
    }

    /// Replaces its nodes by their children, showing each on the way.
    pub(super) fn descend<E: From<MapError>>(
        &mut self,
        show: &mut dyn FnMut(&Root, &Node) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut children = Vec::new();
        for branch in &self.branches {
            let node = self.open(branch)?;
            show(&branch.root, &node)?;
            let own = node.children(&branch.after).map(|(index, bounds)| Branch {
                root: node.child(index),
                after: bounds.after.into(),
                last: bounds.last.map(Box::from),
            });
            children.extend(own);
        }
        self.branches = children;
        Ok(())
    }
}

/// Takes out of both lists what the other has too, by `name`.
pub(super) fn drop_common<N: Eq + Hash>(a: &mut Vec<Branch>, b: &mut Vec<Branch>, name: impl Fn(&Root) -> N) {
    let names =
        |branches: &[Branch]| branches.iter().map(|branch| name(&branch.root)).collect::<HashSet<N>>();
    let (in_a, in_b) = (names(a), names(b));
    a.retain(|branch| !in_b.contains(&name(&branch.root)));
    b.retain(|branch| !in_a.contains(&name(&branch.root)));
}
