//! Moving objects without changing what a map is: ids stay, places are rewritten.

use super::apply::Work;
use super::node::{Bounds, Node};
use super::read::Trust;
use super::{Emit, Map, MapError, Root};
use crate::base::Place;

/// Moves the objects that entries name, besides taking the nodes that are rewritten.
pub trait Relocate: Emit {
    /// Copies the sealed object at `from`, as it is, to a new place. Freeing the old one is its own business.
    fn carry(&mut self, from: Place) -> Result<Place, MapError>;
}

impl Map<'_> {
    /// Gives a new place to every object and node that lies where `must_move` says, and rewrites the nodes above
    /// them. The result has the ids that it had. Walks the whole map. As with [`Map::apply`], old nodes are freed if
    /// it succeeds and new ones if it fails.
    pub fn relocate(
        &self,
        root: Root,
        must_move: &dyn Fn(Place) -> bool,
        sink: &mut dyn Relocate,
    ) -> Result<Root, MapError> {
        let mut moving = Moving { work: Work::new(self, sink), must_move };
        let result = moving.node(&root, Bounds::NONE);
        moving.work.settle(result)
    }
}

struct Moving<'w, S: Emit + ?Sized> {
    work: Work<'w, S>,
    must_move: &'w dyn Fn(Place) -> bool,
}

impl Moving<'_, dyn Relocate + '_> {
    fn node(&mut self, at: &Root, bounds: Bounds<'_>) -> Result<Root, MapError> {
        let node = self.work.map.open(at, bounds, Trust::Cache)?;
        let mut entries = None;
        for (index, bounds) in node.children(bounds.after) {
            let Some(from) = node.entries[index].place else { continue };
            let to = if node.level > 0 {
                self.node(&node.child(index), bounds)?.place
            } else if (self.must_move)(from) {
                self.work.sink.carry(from)?
            } else {
                from
            };
            if to != from {
                entries.get_or_insert_with(|| node.entries.clone())[index].place = Some(to);
            }
        }
        if entries.is_none() && !(self.must_move)(at.place) {
            return Ok(*at);
        }
        let entries = entries.unwrap_or_else(|| node.entries.clone());
        let moved = self.work.emit_of(Some(&at.id), Node { level: node.level, entries })?;
        self.work.free(at.place);
        Ok(moved)
    }
}
