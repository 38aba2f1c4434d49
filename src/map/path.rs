//! A way down a tree: from the root to one node of a level, and along that level.

use super::node::{Bounds, Node};
use super::read::Trust;
use super::{Map, MapError, Root};
use std::sync::Arc;

/// Stands at one node of a level. The node itself is opened only by [`Path::open`].
#[derive(Clone)]
pub(super) struct Path {
    root: Root,
    /// The nodes above, top first, each with the position of the child taken.
    steps: Vec<(Arc<Node>, usize)>,
}

impl Path {
    /// The node of `level` in which `key` lies or would lie; keys beyond the last lie in the last node.
    pub(super) fn seek(map: &Map<'_>, root: &Root, level: u8, key: &[u8]) -> Result<Path, MapError> {
        let mut path = Path { root: *root, steps: Vec::with_capacity(root.level.into()) };
        while path.place().level > level {
            let node = path.open(map)?;
            let position = node.position(key).min(node.entries.len() - 1);
            path.steps.push((node, position));
        }
        Ok(path)
    }

    /// Where the node lies.
    pub(super) fn place(&self) -> Root {
        self.steps.last().map_or(self.root, |(node, position)| node.child(*position))
    }

    /// Opens the node.
    pub(super) fn open(&self, map: &Map<'_>) -> Result<Arc<Node>, MapError> {
        let last = self.steps.last().map(|(node, position)| node.entries[*position].key.as_ref());
        let bounds = Bounds { after: self.key_before().unwrap_or(&[]), last };
        map.open(&self.place(), bounds, Trust::Cache)
    }

    /// The last key of the node before, on the same level.
    pub(super) fn key_before(&self) -> Option<&[u8]> {
        let (node, position) = self.steps.iter().rev().find(|(_, position)| *position > 0)?;
        Some(&node.entries[position - 1].key)
    }

    /// Whether it is the level's last node.
    pub(super) fn is_last(&self) -> bool {
        self.steps.iter().all(|(node, position)| position + 1 == node.entries.len())
    }

    /// Goes on to the next node of the level; `false` if there is none.
    pub(super) fn forward(&mut self, map: &Map<'_>) -> Result<bool, MapError> {
        let Some(turn) = self.steps.iter().rposition(|(node, position)| position + 1 < node.entries.len())
        else {
            return Ok(false);
        };
        self.turn(map, turn, self.steps[turn].1 + 1, |_| 0)?;
        Ok(true)
    }

    /// Goes back to the node before; `false` if there is none.
    pub(super) fn back(&mut self, map: &Map<'_>) -> Result<bool, MapError> {
        let Some(turn) = self.steps.iter().rposition(|(_, position)| *position > 0) else { return Ok(false) };
        self.turn(map, turn, self.steps[turn].1 - 1, |node| node.entries.len() - 1)?;
        Ok(true)
    }

    /// Takes another child at one step, and then `side` of each node below.
    fn turn(
        &mut self,
        map: &Map<'_>,
        step: usize,
        position: usize,
        side: fn(&Node) -> usize,
    ) -> Result<(), MapError> {
        let depth = self.steps.len();
        self.steps.truncate(step + 1);
        self.steps[step].1 = position;
        while self.steps.len() < depth {
            let node = self.open(map)?;
            let position = side(&node);
            self.steps.push((node, position));
        }
        Ok(())
    }
}
