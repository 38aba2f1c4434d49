//! Where both sides stand on several commits of which none stands on another: two devices took in each other's, and went
//! on. One of them is the base, and lacks what the others made; without that, a file which one side goes on writing
//! would look as if both had made it.

use super::delta::{Delta, Group, Rank, Triple};
use super::{MergeError, Version};
use std::collections::BTreeMap;

/// Another commit that both sides stand on.
#[derive(Clone, Copy)]
pub struct Crossed<'a> {
    /// The block in it.
    pub version: Version<'a>,
    /// The block in the newest commit that it and the base stand on.
    pub below: Version<'a>,
}

impl Delta {
    /// Takes into the base what `crossed` made and the base did not touch. Of what both changed the base's stays: that
    /// may cost a needless conflict, and loses nothing.
    pub(super) fn cross(&mut self, base: &Version<'_>, crossed: &Crossed<'_>) -> Result<(), MergeError> {
        // The base takes the winner's part.
        let made = Delta::load(Some(&crossed.below), base, &crossed.version)?;
        rebase(&mut self.entries, made.entries.into_iter().filter(|(_, triple)| is_losers(triple)));
        for (inode, made) in made.groups.into_iter().filter(|(_, group)| is_only_losers(group)) {
            // What is not touched is alike on both sides.
            let Some(group) = self.groups.get_mut(&inode) else { continue };
            if group.touched && made.touched {
                group.record.base = made.record.loser;
            }
            rebase(&mut group.chunks, made.chunks);
            rebase(&mut group.xattrs, made.xattrs);
            if let (Some(link), Some(made)) = (&mut group.link, made.link) {
                link.base = made.loser;
            }
        }
        Ok(())
    }
}

fn rebase<K: Ord, T>(touched: &mut BTreeMap<K, Triple<T>>, made: impl IntoIterator<Item = (K, Triple<T>)>) {
    for (key, made) in made {
        if let Some(triple) = touched.get_mut(&key) {
            triple.base = made.loser;
        }
    }
}

fn is_losers<T: Clone + PartialEq>(triple: &Triple<T>) -> bool {
    !triple.changed(Rank::Winner) && triple.changed(Rank::Loser)
}

fn is_only_losers(group: &Group) -> bool {
    let winner = Rank::Winner;
    let changed = group.record.changed(winner)
        || group.chunks.values().any(|chunk| chunk.changed(winner))
        || group.xattrs.values().any(|xattr| xattr.changed(winner))
        || group.link.as_ref().is_some_and(|link| link.changed(winner));
    !changed
}
