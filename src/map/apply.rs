//! Changing a map: one pass from the leaves up.
//!
//! On each level only runs that an edit touches are rebuilt, from the run's start to where old and new boundaries
//! meet again. What comes out equal to an old node is kept, so its ciphertext and place stay. The new top is the
//! lowest level that has one node.

use super::boundary::{Boundary, Runs};
use super::node::{Bounds, Node};
use super::path::Path;
use super::read::Trust;
use super::{Edit, Emit, Entry, KEY_BYTES_MAX, LEVEL_MAX, Map, MapError, Root, VALUE_BYTES_MAX};
use crate::base::{Id, Place};
use std::collections::VecDeque;
use std::sync::Arc;

impl Map<'_> {
    /// Changes the map at `root`; `edits` ascend strictly by key. Emits the nodes that are new and frees those, old
    /// or emitted on the way, that the result does not hold. If it fails, it frees what it emitted instead.
    /// Objects that the places of values name are the caller's to free.
    pub fn apply(
        &self,
        root: Option<Root>,
        edits: &[Edit],
        sink: &mut dyn Emit,
    ) -> Result<Option<Root>, MapError> {
        if !edits.iter().all(is_legal) || !edits.is_sorted_by(|a, b| a.key < b.key) {
            return Err(MapError::Edits);
        }
        let mut work = Work::new(self, sink);
        let result = match &root {
            _ if edits.is_empty() => Ok(root),
            Some(root) => work.change(root, edits),
            None => work.build(0, edits.iter().filter_map(inserted)),
        };
        work.settle(result)
    }
}

fn is_legal(edit: &Edit) -> bool {
    let value = edit.change.as_ref().map_or(0, |(value, _)| value.len());
    (1..=KEY_BYTES_MAX).contains(&edit.key.len()) && value <= VALUE_BYTES_MAX
}

fn only_child_of(node: &Node) -> Option<Root> {
    (node.level > 0 && node.entries.len() == 1).then(|| node.child(0))
}

/// Takes the edits that belong to `node` off the front of `edits`: those up to its last key, or all if it is the last.
fn take_edits<'e>(edits: &mut &'e [Edit], node: &Node, is_last: bool) -> &'e [Edit] {
    let count =
        if is_last { edits.len() } else { edits.partition_point(|edit| edit.key.as_ref() <= node.last()) };
    let (own, rest) = edits.split_at(count);
    *edits = rest;
    own
}

/// Old entries with edits applied, in order.
fn merged<'e>(old: &'e [Entry], edits: &'e [Edit]) -> impl Iterator<Item = Entry> {
    let mut old = old.iter().peekable();
    let mut edits = edits.iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let Some(edit) = edits.next_if(|edit| old.peek().is_none_or(|entry| edit.key <= entry.key))
            else {
                return old.next().cloned();
            };
            old.next_if(|entry| entry.key == edit.key);
            if let Some(entry) = inserted(edit) {
                return Some(entry);
            }
        }
    })
}

fn inserted(edit: &Edit) -> Option<Entry> {
    let (value, place) = edit.change.clone()?;
    Some(Entry { key: edit.key.clone(), value, place })
}

/// Seals new nodes into a sink and remembers what it emitted and freed, until it is known how things end.
pub(super) struct Work<'w, S: Emit + ?Sized> {
    pub(super) map: &'w Map<'w>,
    pub(super) sink: &'w mut S,
    emitted: Vec<Place>,
    freed: Vec<Place>,
}

/// A node of the new level.
struct Made {
    last: Box<[u8]>,
    root: Root,
    /// Its only child, if it has only one.
    only_child: Option<Root>,
}

impl Made {
    fn entry(&self) -> Entry {
        Node::entry_of(self.last.clone(), &self.root)
    }
}

/// What became of the touched part of a level.
struct Level {
    height: u8,
    /// The nodes that stand there now, kept ones too.
    nodes: Vec<Made>,
    /// What that means to the level above.
    edits: Vec<Edit>,
    /// Whether every node of the level was touched.
    whole: bool,
}

/// An old node in a touched run.
struct Old {
    node: Arc<Node>,
    place: Root,
}

impl<'w, S: Emit + ?Sized> Work<'w, S> {
    pub(super) fn new(map: &'w Map<'w>, sink: &'w mut S) -> Work<'w, S> {
        Work { map, sink, emitted: Vec::new(), freed: Vec::new() }
    }

    /// Ends the work: frees what is not part of the result.
    pub(super) fn settle<T>(self, result: Result<T, MapError>) -> Result<T, MapError> {
        let unneeded = if result.is_ok() { self.freed } else { self.emitted };
        unneeded.into_iter().for_each(|place| self.sink.free(place));
        result
    }

    /// Remembers that a node is not part of the result.
    pub(super) fn free(&mut self, place: Place) {
        self.freed.push(place);
    }

    fn change(&mut self, root: &Root, edits: &[Edit]) -> Result<Option<Root>, MapError> {
        let mut level = self.rebuild(root, 0, edits)?;
        for height in 0..=root.level {
            if height > 0 {
                level = self.rebuild(root, height, &level.edits)?;
            }
            if level.edits.is_empty() {
                return Ok(Some(*root));
            }
            if level.whole && level.nodes.len() < 2 {
                self.free_above(root, Bounds::NONE, height)?;
                return level.nodes.pop().map(|top| self.lower(top)).transpose();
            }
        }
        self.build(root.level + 1, level.nodes.iter().map(Made::entry))
    }

    /// Builds a level that has no old nodes, and those above it.
    fn build(&mut self, height: u8, entries: impl Iterator<Item = Entry>) -> Result<Option<Root>, MapError> {
        let mut nodes = self.build_level(height, entries)?;
        let mut height = height;
        while nodes.len() > 1 {
            height += 1;
            nodes = self.build_level(height, nodes.iter().map(Made::entry))?;
        }
        Ok(nodes.pop().map(|top| top.root))
    }

    fn build_level(
        &mut self,
        height: u8,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<Vec<Made>, MapError> {
        let mut runs = Runs::new(self.map.boundary(height));
        let mut nodes = Vec::new();
        for entry in entries {
            for group in runs.push(entry).into_iter().flatten() {
                nodes.push(self.make(height, group)?);
            }
        }
        for group in runs.finish() {
            nodes.push(self.make(height, group)?);
        }
        Ok(nodes)
    }

    /// Goes down from a level's only node to the lowest level that has one node.
    fn lower(&mut self, top: Made) -> Result<Root, MapError> {
        let (mut root, mut only_child) = (top.root, top.only_child);
        let mut last = top.last;
        while let Some(child) = only_child {
            self.free(root.place);
            // Untouched, so it lies in the old image: had it been made here, its level had ended the work.
            let node = self.map.open(&child, Bounds { after: &[], last: Some(&last) }, Trust::Cache)?;
            (root, only_child) = (child, only_child_of(&node));
            last = node.last().into();
        }
        Ok(root)
    }

    /// Frees the old nodes above a level.
    fn free_above(&mut self, at: &Root, bounds: Bounds<'_>, height: u8) -> Result<(), MapError> {
        if at.level <= height {
            return Ok(());
        }
        self.free(at.place);
        if at.level - 1 > height {
            let node = self.map.open(at, bounds, Trust::Cache)?;
            for (index, bounds) in node.children(bounds.after) {
                self.free_above(&node.child(index), bounds, height)?;
            }
        }
        Ok(())
    }

    /// Seals a node and emits it.
    pub(super) fn emit(&mut self, node: Node) -> Result<Root, MapError> {
        self.emit_of(None, node)
    }

    /// The same for a node that has its id already, and only names other places.
    pub(super) fn emit_of(&mut self, id: Option<&Id>, node: Node) -> Result<Root, MapError> {
        if node.level > LEVEL_MAX {
            return Err(MapError::TooHigh);
        }
        let encoded = node.encode();
        let mut sealed = Vec::new();
        let (keys, level) = (self.map.keys, node.level);
        let id = match id {
            Some(id) => keys.reseal_node(id, level, &encoded.logical, &encoded.placements, &mut sealed),
            None => keys.seal_node(level, &encoded.logical, &encoded.placements, &mut sealed),
        };
        let place = self.sink.emit(&sealed)?;
        self.emitted.push(place);
        let root = Root { level: node.level, id, place };
        let head = sealed.first_chunk().expect("a sealed node is longer than its nonce");
        self.map.cache.put(head, &root, &Arc::new(node));
        Ok(root)
    }

    fn make(&mut self, height: u8, entries: Vec<Entry>) -> Result<Made, MapError> {
        let node = Node { level: height, entries };
        let (last, only_child) = (node.last().into(), only_child_of(&node));
        Ok(Made { last, root: self.emit(node)?, only_child })
    }

    /// Applies edits to one level of the old tree.
    fn rebuild(&mut self, root: &Root, height: u8, edits: &[Edit]) -> Result<Level, MapError> {
        let boundary = self.map.boundary(height);
        let mut level = Level { height, nodes: Vec::new(), edits: Vec::new(), whole: true };
        let (mut reached, mut at_end) = (None, false);
        let mut edits = edits;
        while let Some(edit) = edits.first() {
            let mut path = Path::seek(self.map, root, height, &edit.key)?;
            while path.key_before().is_some_and(|key| !boundary.ends_run(key)) {
                path.back(self.map)?;
            }
            level.whole &= path.key_before() == reached.as_deref();
            reached = Some(self.rebuild_runs(&mut path, &boundary, &mut edits, &mut level)?);
            at_end = path.is_last();
        }
        level.whole &= at_end;
        Ok(level)
    }

    /// Rebuilds from a run's start to where a run ends in both the old and the new level. Returns the last old key
    /// that it passed.
    fn rebuild_runs(
        &mut self,
        path: &mut Path,
        boundary: &Boundary,
        edits: &mut &[Edit],
        level: &mut Level,
    ) -> Result<Box<[u8]>, MapError> {
        let mut runs = Runs::new(boundary.clone());
        let mut touched = VecDeque::new();
        loop {
            let node = path.open(self.map)?;
            let is_last = path.is_last();
            touched.push_back(Old { node: node.clone(), place: path.place() });
            for entry in merged(&node.entries, take_edits(edits, &node, is_last)) {
                if let Some(groups) = runs.push(entry) {
                    self.place_groups(groups, &mut touched, level)?;
                }
            }
            // A run that was emptied ends nothing by itself: the old boundary must stand there too.
            if is_last || (runs.is_empty() && boundary.ends_run(node.last())) {
                self.place_groups(runs.finish(), &mut touched, level)?;
                touched.into_iter().for_each(|old| self.drop_old(old, level));
                return Ok(node.last().into());
            }
            path.forward(self.map)?;
        }
    }

    /// Makes the nodes of a finished run, or keeps the old ones that are equal to them.
    fn place_groups(
        &mut self,
        groups: Vec<Vec<Entry>>,
        touched: &mut VecDeque<Old>,
        level: &mut Level,
    ) -> Result<(), MapError> {
        for entries in groups {
            let last = entries.last().map_or(&[][..], |entry| &entry.key);
            while touched.front().is_some_and(|old| old.node.last() < last) {
                touched.pop_front().into_iter().for_each(|old| self.drop_old(old, level));
            }
            let same_end = touched.front().is_some_and(|old| old.node.last() == last);
            let old = if same_end { touched.pop_front() } else { None };
            let kept = old.as_ref().filter(|old| old.node.entries == entries);
            if let Some(Old { node, place }) = kept {
                level.nodes.push(Made { last: last.into(), root: *place, only_child: only_child_of(node) });
                continue;
            }
            self.freed.extend(old.map(|old| old.place.place));
            let made = self.make(level.height, entries)?;
            let Entry { key, value, place } = made.entry();
            level.edits.push(Edit { key, change: Some((value, place)) });
            level.nodes.push(made);
        }
        Ok(())
    }

    fn drop_old(&mut self, old: Old, level: &mut Level) {
        self.free(old.place.place);
        level.edits.push(Edit { key: old.node.last().into(), change: None });
    }
}
