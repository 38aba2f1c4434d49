//! Going through a whole map: verification, counting what lives, cleaning.

use super::boundary::RunCheck;
use super::node::{Bounds, Node};
use super::read::Trust;
use super::{Entry, Map, MapError, Root};
use crate::base::{Id, Place};

/// What a walk comes by.
#[derive(Clone, Copy, Debug)]
pub enum Visit<'n> {
    /// A node, opened from its bytes, before what lies below it.
    Node {
        /// Its level; 0 is a leaf.
        level: u8,
        /// Its id.
        id: Id,
        /// Where it lies.
        place: Place,
        /// The smallest key in it: the smallest below it in a leaf, the last one of its first child above.
        first: &'n [u8],
        /// The largest key below it.
        last: &'n [u8],
    },
    /// An entry of a leaf.
    Entry(&'n Entry),
}

/// Whether a walk goes below the node that it showed. After an entry it makes no difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Descend {
    /// Go on below it.
    Yes,
    /// Leave out what lies below it.
    Skip,
}

impl Map<'_> {
    /// Shows every node and entry, parents before children, in the order of keys. Every node is opened from its
    /// bytes, never taken from the cache, and refused if it does not end where the rule says.
    pub fn walk<E: From<MapError>>(
        &self,
        root: Option<&Root>,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<Descend, E>,
    ) -> Result<(), E> {
        let Some(root) = root else { return Ok(()) };
        let levels = 0..=root.level.min(super::LEVEL_MAX);
        let mut walk = Walk {
            map: self,
            visit,
            runs: levels.map(|level| RunCheck::new(self.boundary(level))).collect(),
        };
        walk.node(root, Bounds::NONE)?;
        if walk.runs.iter_mut().all(RunCheck::finish) {
            Ok(())
        } else {
            Err(MapError::Tampered(root.place).into())
        }
    }

    /// Shows where every node lies. Leaves are not opened.
    pub fn each_node(&self, root: Option<&Root>, visit: &mut dyn FnMut(Place)) -> Result<(), MapError> {
        root.map_or(Ok(()), |root| self.each_node_below(root, Bounds::NONE, visit))
    }

    fn each_node_below(
        &self,
        at: &Root,
        bounds: Bounds<'_>,
        visit: &mut dyn FnMut(Place),
    ) -> Result<(), MapError> {
        visit(at.place);
        if at.level == 0 {
            return Ok(());
        }
        let node = self.open(at, bounds, Trust::Cache)?;
        node.children(bounds.after)
            .try_for_each(|(index, bounds)| self.each_node_below(&node.child(index), bounds, visit))
    }
}

impl Map<'_> {
    /// Shows where nodes lie that are not here, as far as those that are here lead to them: what lies below an absent
    /// one is not known before it has come. Leaves are not opened.
    pub fn each_absent(
        &self,
        root: Option<&Root>,
        lacks: &dyn Fn(Place) -> bool,
        absent: &mut dyn FnMut(Place),
    ) -> Result<(), MapError> {
        root.map_or(Ok(()), |root| self.each_absent_below(root, Bounds::NONE, lacks, absent))
    }

    fn each_absent_below(
        &self,
        at: &Root,
        bounds: Bounds<'_>,
        lacks: &dyn Fn(Place) -> bool,
        absent: &mut dyn FnMut(Place),
    ) -> Result<(), MapError> {
        if lacks(at.place) {
            absent(at.place);
            return Ok(());
        }
        if at.level == 0 {
            return Ok(());
        }
        let node = self.open(at, bounds, Trust::Cache)?;
        node.children(bounds.after)
            .try_for_each(|(index, bounds)| self.each_absent_below(&node.child(index), bounds, lacks, absent))
    }
}

struct Walk<'w, E> {
    map: &'w Map<'w>,
    visit: &'w mut dyn FnMut(Visit<'_>) -> Result<Descend, E>,
    /// One a level, from the leaves up.
    runs: Vec<RunCheck>,
}

impl<E: From<MapError>> Walk<'_, E> {
    fn node(&mut self, at: &Root, bounds: Bounds<'_>) -> Result<(), E> {
        let node: &Node = &*self.map.open(at, bounds, Trust::Bytes)?;
        if !self.runs[usize::from(at.level)].node(&node.entries) {
            return Err(MapError::Tampered(at.place).into());
        }
        let (first, last) = (node.first(), node.last());
        let shown = Visit::Node { level: at.level, id: at.id, place: at.place, first, last };
        if (self.visit)(shown)? == Descend::Skip {
            self.runs[..usize::from(at.level)].iter_mut().for_each(|run| run.skip_to(last));
            return Ok(());
        }
        if at.level == 0 {
            return node.entries.iter().try_for_each(|entry| (self.visit)(Visit::Entry(entry)).map(|_| ()));
        }
        node.children(bounds.after).try_for_each(|(index, bounds)| self.node(&node.child(index), bounds))
    }
}
