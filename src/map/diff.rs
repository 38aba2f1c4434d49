//! What differs between two maps: their entries, or the nodes that hold them. The cost is what changed.

use super::frontier::{Frontier, drop_common};
use super::node::Node;
use super::read::Trust;
use super::{Entry, Map, MapError, Root};
use std::cmp::Ordering;
use std::sync::Arc;

/// One of the two maps that are compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Which {
    /// The first: what is only in it is gone.
    Old,
    /// The second: what is only in it is new.
    New,
}

/// A node that only one of two maps has.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'n> {
    /// Which has it.
    pub which: Which,
    /// The node; its level and where it lies.
    pub root: Root,
    /// What it holds: entries of the map at level 0, its children above.
    pub entries: &'n [Entry],
}

/// Hears of a key, of what the first map holds under it, and of what the second does.
pub type DifferenceVisitor<'v, E> = dyn FnMut(&[u8], Option<&Entry>, Option<&Entry>) -> Result<(), E> + 'v;

impl Map<'_> {
    /// Shows, in the order of keys, each key under which two maps of one image hold different values. Whether a
    /// value has a place counts, where it lies does not.
    pub fn diff<E: From<MapError>>(
        &self,
        a: Option<&Root>,
        b: Option<&Root>,
        visit: &mut DifferenceVisitor<'_, E>,
    ) -> Result<(), E> {
        self.diff_with(a, self, b, visit)
    }

    /// [`Map::diff`] for two maps of one block in different images: `a` lies in this one, `b` in the other.
    pub fn diff_with<E: From<MapError>>(
        &self,
        a: Option<&Root>,
        other: &Map<'_>,
        b: Option<&Root>,
        visit: &mut DifferenceVisitor<'_, E>,
    ) -> Result<(), E> {
        let mut a = Frontier::new(self, a, Trust::Cache);
        let mut b = Frontier::new(other, b, Trust::Cache);
        for level in (0..=top(&a, &b)).rev() {
            drop_common(&mut a.branches, &mut b.branches, |root| (root.level, root.id));
            if level > 0 {
                for frontier in
                    [&mut a, &mut b].into_iter().filter(|frontier| frontier.level() == Some(level))
                {
                    frontier.descend::<E>(&mut |_, _| Ok(()))?;
                }
            }
        }
        let (mut a, mut b) = (Leaves::new(&a), Leaves::new(&b));
        loop {
            let (in_a, in_b) = (a.peek()?, b.peek()?);
            let order = match (in_a, in_b) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(in_a), Some(in_b)) => in_a.key.cmp(&in_b.key),
            };
            let (in_a, in_b) = (in_a.filter(|_| order.is_le()), in_b.filter(|_| order.is_ge()));
            if in_a.map(content) != in_b.map(content)
                && let Some(entry) = in_a.or(in_b)
            {
                visit(&entry.key, in_a, in_b)?;
            }
            a.position += usize::from(order.is_le());
            b.position += usize::from(order.is_ge());
        }
    }

    /// Shows the nodes that only one of two maps of one image has, as objects: the same content in another place is
    /// another node. Each is opened from its bytes, never taken from the cache.
    pub fn nodes_changed<E: From<MapError>>(
        &self,
        old: Option<&Root>,
        new: Option<&Root>,
        visit: &mut dyn FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.nodes_changed_with(old, self, new, visit)
    }

    /// [`Map::nodes_changed`] for two maps of one block in different images: `old` lies in this one, `new` in the
    /// other. A node that both have in one place is taken to be one, with all below it. That holds where the new image
    /// shows the old one's bytes at all places that still live; who cannot know that walks the new map instead.
    pub fn nodes_changed_with<E: From<MapError>>(
        &self,
        old: Option<&Root>,
        other: &Map<'_>,
        new: Option<&Root>,
        visit: &mut dyn FnMut(Changed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut a = Frontier::new(self, old, Trust::Bytes);
        let mut b = Frontier::new(other, new, Trust::Bytes);
        for level in (0..=top(&a, &b)).rev() {
            drop_common(&mut a.branches, &mut b.branches, |root| *root);
            for (which, frontier) in [(Which::Old, &mut a), (Which::New, &mut b)] {
                let mut show =
                    |root: &Root, node: &Node| visit(Changed { which, root: *root, entries: &node.entries });
                if frontier.level() != Some(level) {
                    continue;
                }
                if level > 0 {
                    frontier.descend(&mut show)?;
                    continue;
                }
                for branch in &frontier.branches {
                    show(&branch.root, frontier.open(branch)?.as_ref())?;
                }
            }
        }
        Ok(())
    }
}

fn top(a: &Frontier<'_>, b: &Frontier<'_>) -> u8 {
    a.level().max(b.level()).unwrap_or(0)
}

/// What of an entry its node's id covers, beside the key.
fn content(entry: &Entry) -> (&[u8], bool) {
    (&entry.value, entry.place.is_some())
}

/// The entries of a frontier of leaves, in order, one leaf open at a time.
struct Leaves<'f> {
    frontier: &'f Frontier<'f>,
    next: usize,
    leaf: Option<Arc<Node>>,
    position: usize,
}

impl<'f> Leaves<'f> {
    fn new(frontier: &'f Frontier<'f>) -> Leaves<'f> {
        Leaves { frontier, next: 0, leaf: None, position: 0 }
    }

    fn peek(&mut self) -> Result<Option<&Entry>, MapError> {
        while self.leaf.as_ref().is_none_or(|leaf| self.position == leaf.entries.len()) {
            let Some(branch) = self.frontier.branches.get(self.next) else { return Ok(None) };
            self.leaf = Some(self.frontier.open(branch)?);
            (self.next, self.position) = (self.next + 1, 0);
        }
        Ok(self.leaf.as_ref().and_then(|leaf| leaf.entries.get(self.position)))
    }
}
