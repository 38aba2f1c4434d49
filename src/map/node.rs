//! One node: how it is written, and what is refused.
//!
//! Logical content, which the id covers: the entries one after the other, up to the end. An entry is the count of
//! bytes that its key shares with the key before (varint), the rest of the key behind its length, and then
//!
//! - at level 0: length × 2 + (1 if it has a place) as a varint, and the value;
//! - above: the child's id, 32 bytes. The key is the last key below the child.
//!
//! Beside it, outside the id: the places of the entries that have one, nine bytes each, in order.
//! The level is not written: the id is taken under it.

use super::boundary::Boundary;
use super::{Entry, KEY_BYTES_MAX, NODE_ENTRIES_MAX, Root, VALUE_BYTES_MAX};
use crate::base::{Id, Malformed, Place, Reader, Writer};

/// A decoded node. Its entries ascend strictly and there is at least one.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) level: u8,
    pub(super) entries: Vec<Entry>,
}

/// What a node's parent says about its keys.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// All keys lie after this one; empty where nothing comes before.
    pub(super) after: &'a [u8],
    /// The last key; `None` for the root, which has no parent.
    pub(super) last: Option<&'a [u8]>,
}

impl Bounds<'_> {
    /// Those of a root.
    pub(super) const NONE: Bounds<'static> = Bounds { after: &[], last: None };

    fn admit(&self, node: &Node) -> bool {
        // A root with one child would not be the lowest level that has one node.
        let own = node.level == 0 || self.last.is_some() || node.entries.len() > 1;
        own && node.first() > self.after && self.last.is_none_or(|last| last == node.last())
    }
}

/// A node's content as bytes.
pub(super) struct Encoded {
    pub(super) logical: Vec<u8>,
    pub(super) placements: Vec<u8>,
}

impl Node {
    /// Its smallest key.
    pub(super) fn first(&self) -> &[u8] {
        &self.entries.first().expect("nodes are not empty").key
    }

    /// Its largest key.
    pub(super) fn last(&self) -> &[u8] {
        &self.entries.last().expect("nodes are not empty").key
    }

    /// The child at `index`; for nodes above level 0.
    pub(super) fn child(&self, index: usize) -> Root {
        let entry = &self.entries[index];
        Root {
            level: self.level - 1,
            id: Id(entry.value.as_ref().try_into().expect("values above level 0 are ids")),
            place: entry.place.expect("children have places"),
        }
    }

    /// Its children, by index, each with what it announces about them; `after` is its own lower bound.
    pub(super) fn children<'n>(&'n self, after: &'n [u8]) -> impl Iterator<Item = (usize, Bounds<'n>)> {
        let after = std::iter::once(after).chain(self.entries.iter().map(|entry| entry.key.as_ref()));
        let bounds = after.zip(&self.entries).map(|(after, entry)| Bounds { after, last: Some(&entry.key) });
        bounds.enumerate()
    }

    /// The entry that names `root`, whose last key is `key`, in the level above it.
    pub(super) fn entry_of(key: Box<[u8]>, root: &Root) -> Entry {
        Entry { key, value: Box::new(root.id.0), place: Some(root.place) }
    }

    /// The position of the first entry whose key is not before `key`.
    pub(super) fn position(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|entry| entry.key.as_ref() < key)
    }

    /// Whether its keys are those that the parent announces.
    pub(super) fn lies_in(&self, bounds: Bounds<'_>) -> bool {
        bounds.admit(self)
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        const ALLOCATION_BYTES: usize = 16;
        let own = size_of::<Node>() + ALLOCATION_BYTES;
        let entry =
            |entry: &Entry| size_of::<Entry>() + 2 * ALLOCATION_BYTES + entry.key.len() + entry.value.len();
        own + self.entries.iter().map(entry).sum::<usize>()
    }

    pub(super) fn encode(&self) -> Encoded {
        let (mut logical, mut placements) = (Writer::new(), Writer::new());
        let mut previous: &[u8] = &[];
        for entry in &self.entries {
            let shared = shared_prefix(previous, &entry.key);
            logical.varint(shared as u64).bytes(&entry.key[shared..]);
            if self.level == 0 {
                logical.varint((entry.value.len() as u64) << 1 | u64::from(entry.place.is_some()));
            }
            logical.raw(&entry.value);
            if let Some(place) = entry.place {
                placements.place(place);
            }
            previous = &entry.key;
        }
        Encoded { logical: logical.0, placements: placements.0 }
    }

    /// Takes what [`Node::encode`] writes for a node that `boundary` allows, and nothing else.
    pub(super) fn decode(
        level: u8,
        logical: &[u8],
        placements: &[u8],
        boundary: &Boundary,
    ) -> Result<Node, Malformed> {
        let (mut logical, mut placements) = (Reader::new(logical), Reader::new(placements));
        let mut entries: Vec<Entry> = Vec::new();
        while logical.remaining() > 0 {
            if entries.len() == NODE_ENTRIES_MAX {
                return Err(Malformed);
            }
            let previous: &[u8] = entries.last().map_or(&[], |entry| &entry.key);
            let key = decode_key(&mut logical, previous)?;
            let (value, placed) = if level == 0 {
                let length = logical.bounded(VALUE_BYTES_MAX << 1 | 1)?;
                (logical.raw(length >> 1)?, length & 1 == 1)
            } else {
                (logical.raw(Id::BYTES)?, true)
            };
            let place = if placed { Some(decode_place(&mut placements)?) } else { None };
            entries.push(Entry { key, value: value.into(), place });
        }
        placements.end()?;
        if boundary.could_be_node(&entries) { Ok(Node { level, entries }) } else { Err(Malformed) }
    }
}

fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A key in its one form: it shares as much as it can with the previous key, and comes after it.
fn decode_key(logical: &mut Reader<'_>, previous: &[u8]) -> Result<Box<[u8]>, Malformed> {
    let shared = logical.bounded(previous.len())?;
    let rest = logical.bytes(KEY_BYTES_MAX - shared)?;
    let next = rest.first().ok_or(Malformed)?;
    if previous.get(shared).is_some_and(|byte| byte >= next) {
        return Err(Malformed);
    }
    Ok([&previous[..shared], rest].concat().into())
}

fn decode_place(placements: &mut Reader<'_>) -> Result<Place, Malformed> {
    let place = placements.place()?;
    if place.length == 0 { Err(Malformed) } else { Ok(place) }
}
