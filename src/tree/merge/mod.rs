//! Merging two versions of one block: a pure function of (base, {a, b}), the same on every device.
//!
//! The two sides are told apart by one order only: the **winner** is the side whose commit is later by
//! (Lamport counter, commit id), the other is the **loser**. Everything below speaks of these two, never of
//! "a" and "b", so the result cannot depend on the order in which they are given. Clocks decide nothing but
//! what rule 5 says of them.
//!
//! Only what differs is looked at: `diff(base, winner)` and `diff(base, loser)`, grouped by inode and by
//! directory entry. A key that neither touched is the same everywhere. Where nobody has the base, the keys that are
//! equal on both sides stand for it: nothing counts as deleted, and the merge is a union.
//!
//! # Which inodes live
//!
//! 1. An inode that both sides have, or that one side made, lives.
//! 2. An inode that one side deleted lives on if the other *edited* it (data, mode, owner, mtime, attributes;
//!    of a directory not its times, which follow its entries), named it anew, or keeps something alive in it.
//! 3. A directory that one side deleted and the other moved lives on with all that the mover has in it. Otherwise
//!    a deleted directory that must live on holds only what lives by its own right: its old files stay deleted.
//! 4. An inode number that the two sides gave to unrelated things (other type, birth time or data id, and not in the
//!    base) is the winner's; the loser's gets a number made from the losing commit and the old one.
//!
//! # What they are called
//!
//! 5. Something with one name in base, winner and loser was *moved* by the side in which that name differs; where
//!    both moved it, the winner's place holds. What both have and the base has not is older than the version that both
//!    really stand on, and one of them has a former state of what the other has: the place of the later change (ctime)
//!    holds, or a rename would be undone. Files with several names: names that both kept, and those that
//!    either added; if nothing is left of them, the winner's.
//! 6. Directories moved into each other: of the directories on the cycle, that with the smallest inode number which
//!    the loser moved goes back to its place in the winner, until no cycle is left.
//! 7. Two that claim one name:
//!    - two directories become one if one of them is new; its entries move into the other (the older, else the winner's);
//!    - a directory keeps its name against anything else;
//!    - equal contents become one file: the winner's;
//!    - otherwise the winner's keeps the name and the other becomes `name.conflict-<device>-<time>.ext`, device and
//!      time being those of the commit from which it comes. (So an editor's save-by-rename against an edit in place
//!      is a conflict of two contents over one name.)
//! 8. What has no place left goes to `lost+found` in the block's root.
//!
//! # What is in them
//!
//! 9. A file's data (size, chunks, inline bytes) is one thing. If both changed it and not alike, the winner's stays,
//!    and the loser's becomes a conflict copy beside it: a new inode, made like those of rule 4, with the same
//!    data id, so that no chunk is sealed again.
//! 10. Mode, owner, times and each extended attribute are merged one by one; where both changed one, the winner's
//!     value stands (of change times the later, of a directory's mtimes that of the later change).
//! 11. Link counts and the parents of directories are counted anew from the names.

mod apply;
mod assemble;
mod claims;
mod copies;
mod crossed;
mod cycles;
mod delta;
mod fates;
mod join;
mod record;
mod same;
mod state;
#[cfg(test)]
mod tests;
mod union;

use super::version::Version;
use crate::base::{BlockNumber, DeviceId, Id, Inode, Place};
use crate::map::{MapError, Root};
use std::cmp::Ordering;

pub use apply::{Target, apply_merged};
pub use copies::conflict_name;
pub use crossed::Crossed;
pub use join::{Join, Joined, join_block};

/// One of the two versions to merge, and the commit that it comes from.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The block's state.
    pub version: Version<'a>,
    /// Lamport counter of the commit.
    pub lamport: u64,
    /// The commit's id: it breaks ties, and names what it loses.
    pub commit: Id,
    /// Who made it; the first four bytes name conflict copies.
    pub device: DeviceId,
    /// When, in seconds since 1970 by that device's clock; it names conflict copies and decides nothing.
    pub time: i64,
}

impl Side<'_> {
    /// Whether this side wins over `other`.
    pub fn wins_over(&self, other: &Side<'_>) -> bool {
        let rank = |side: &Self, root: Option<Root>| (side.lamport, side.commit, root.map(|root| root.id));
        rank(self, self.version.root).cmp(&(
            other.lamport,
            other.commit,
            other.version.root.map(|root| root.id),
        )) == Ordering::Greater
    }
}

/// Which of the two sides, as the caller named them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The first: its objects must be copied to `b`'s image.
    A,
    /// The second: the result is built on its image.
    B,
}

/// Where the sealed bytes of a chunk lie now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// In whose image.
    pub which: Which,
    /// Where in it.
    pub place: Place,
}

/// A key's new value, and for a chunk where its bytes are.
pub type NewValue = (Box<[u8]>, Option<Source>);

/// One change to make on `b`'s map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeEdit {
    /// The key.
    pub key: Box<[u8]>,
    /// Its new value; `None` removes it.
    pub change: Option<NewValue>,
}

/// Something that both sides wanted, and what became of the loser's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The directory in which both now lie.
    pub directory: Inode,
    /// The name that was contested.
    pub name: Vec<u8>,
    /// The name that the other got.
    pub copy: Vec<u8>,
    /// Who made the one that lost the name.
    pub device: DeviceId,
}

/// What a merge comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// What turns `b`'s map into the result, in ascending order of keys. Empty: `b` is the result.
    pub edits_on_b: Vec<MergeEdit>,
    /// What was contested, in order of directory and name.
    pub conflicts: Vec<Conflict>,
}

/// Why two versions cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A node or chunk could not be read or opened.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A chunk does not open.
    #[error("the chunk at {0:?} does not open")]
    Tampered(Place),
    /// A key or value that verification should have refused.
    #[error("a version to merge holds a key or value that no device writes")]
    Malformed,
}

/// Merges two versions of `block`. With `base` = `None` nobody has the version that both stand on: union. `crossed` are
/// further ones that both stand on, beside the base.
///
/// Both sides must have passed [`super::verify`]; what has not is merged without panic, but not sensibly.
/// Absent objects are an error, not a guess: every device must come to the same result.
pub fn merge_block(
    block: BlockNumber,
    base: Option<Version<'_>>,
    crossed: &[Crossed<'_>],
    a: &Side<'_>,
    b: &Side<'_>,
) -> Result<Merged, MergeError> {
    let id = |root: Option<Root>| root.map(|root| (root.level, root.id));
    let (id_a, id_b) = (id(a.version.root), id(b.version.root));
    // What crossed the base may have been taken back by who looks like the base.
    let base_alone = base.filter(|_| crossed.is_empty());
    if id_a == id_b || base_alone.is_some_and(|base| id(base.root) == id_a) {
        return Ok(Merged::default());
    }
    if base_alone.is_some_and(|base| id(base.root) == id_b) {
        return taken_over(&a.version, &b.version);
    }
    merge_differences(block, base, crossed, a, b)
}

fn merge_differences(
    block: BlockNumber,
    base: Option<Version<'_>>,
    crossed: &[Crossed<'_>],
    a: &Side<'_>,
    b: &Side<'_>,
) -> Result<Merged, MergeError> {
    let a_wins = a.wins_over(b);
    let (winner, loser) = if a_wins { (a, b) } else { (b, a) };
    let mut state = state::State::load(block, (base, crossed), winner, loser)?;
    state.renumber()?;
    state.settle_fates()?;
    state.break_cycles()?;
    state.resolve_claims()?;
    state.copy_conflicting_data()?;
    state.house_orphans()?;
    state.into_merged(if a_wins { [Which::A, Which::B] } else { [Which::B, Which::A] })
}

/// The edits that make `b` into `a`.
fn taken_over(a: &Version<'_>, b: &Version<'_>) -> Result<Merged, MergeError> {
    let mut merged = Merged::default();
    delta::differences(b, a, &mut |key, _, in_a| {
        let source = |place| Source { which: Which::A, place };
        let change = in_a.map(|entry| (entry.value.clone(), entry.place.map(source)));
        merged.edits_on_b.push(MergeEdit { key: key.into(), change });
        Ok(())
    })?;
    Ok(merged)
}
