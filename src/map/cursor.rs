//! Reading a map in the order of its keys.

use super::node::Node;
use super::path::Path;
use super::{Entry, Map, MapError, Root};
use std::sync::Arc;

/// Goes through a map's entries in order, opening nodes as it comes to them. After an error it stays where it was.
pub struct Cursor<'m> {
    map: Map<'m>,
    state: State,
}

enum State {
    Unopened { root: Root, from: Box<[u8]> },
    In { path: Path, leaf: Arc<Node>, position: usize },
    Ended,
}

impl<'a> Map<'a> {
    /// The entries from the first key that is not before `from`.
    pub fn range(&self, root: Option<&Root>, from: &[u8]) -> Cursor<'a> {
        let state = match root {
            Some(root) => State::Unopened { root: *root, from: from.into() },
            None => State::Ended,
        };
        Cursor { map: *self, state }
    }
}

impl Cursor<'_> {
    /// The next entry; `None` at the end.
    // Not an iterator: an error does not end it.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry>, MapError> {
        loop {
            match &mut self.state {
                State::Ended => return Ok(None),
                State::Unopened { root, from } => {
                    let path = Path::seek(&self.map, root, 0, from)?;
                    let leaf = path.open(&self.map)?;
                    let position = leaf.position(from);
                    self.state = State::In { path, leaf, position };
                }
                State::In { path, leaf, position } => {
                    if let Some(entry) = leaf.entries.get(*position) {
                        *position += 1;
                        return Ok(Some(entry.clone()));
                    }
                    let mut ahead = path.clone();
                    if !ahead.forward(&self.map)? {
                        self.state = State::Ended;
                        continue;
                    }
                    let leaf = ahead.open(&self.map)?;
                    self.state = State::In { path: ahead, leaf, position: 0 };
                }
            }
        }
    }
}
