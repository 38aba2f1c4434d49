//! Borders between blocks that a newer charter moves: a subtree that goes into a block of its own, or back into the block
//! around it.

use crate::base::{Birth, BlockNumber, Inode};
use crate::record::{BlockCharter, Charter};
use std::collections::BTreeMap;

/// Which way a subtree goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Into a block of its own.
    Into,
    /// Back into the block around it.
    Back,
}

/// One border that comes or goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Border {
    /// What happens to it.
    pub way: Way,
    /// The block around, and what is fixed about it.
    pub outer: (BlockNumber, BlockCharter),
    /// The block inside.
    pub inner: (BlockNumber, BlockCharter),
    /// The path of the block inside, from the root of the one around.
    pub path: Vec<u8>,
}

impl Border {
    /// The number of the directory that a subtree comes back to where none is left: the same at every device.
    pub fn spare(&self) -> Inode {
        let hash = blake3::derive_key("kilofs 1 2026 directory of a block", &self.inner.1.birth.0);
        let number = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // Numbers below 2³² are never drawn.
        Inode(number | 1 << 63)
    }

    /// The blocks on both of its sides.
    pub fn sides(&self) -> [BlockNumber; 2] {
        [self.outer.0, self.inner.0]
    }
}

/// What lies between two charters, in the order in which it is to be done: inner blocks go before those around them, and
/// come after them.
pub fn borders(old: &Charter, new: &Charter) -> Vec<Border> {
    let lives = |charter: &Charter, number: &BlockNumber, birth: &Birth| {
        charter.blocks.get(number).is_some_and(|block| block.birth == *birth)
    };
    let differing = |one: &Charter, other: &Charter| -> Vec<(BlockNumber, BlockCharter)> {
        let blocks = one.blocks.iter().filter(|(number, _)| **number != BlockNumber::ROOT);
        let mut found: Vec<_> = blocks
            .filter(|(number, block)| block.private.is_none() && !lives(other, number, &block.birth))
            .map(|(number, block)| (*number, block.clone()))
            .collect();
        found.sort_by_key(|(_, block)| block.path.len());
        found
    };
    // What is inside a private block moves over no border, and nothing else is taken into it.
    let mut standing = old.blocks.clone();
    standing.retain(|_, block| block.private.is_none());
    let mut found = Vec::new();
    for inner in differing(old, new).into_iter().rev() {
        standing.remove(&inner.0);
        found.extend(border(Way::Back, &standing, inner));
    }
    for inner in differing(new, old) {
        found.extend(border(Way::Into, &standing, inner.clone()));
        standing.insert(inner.0, inner.1);
    }
    found
}

fn border(
    way: Way,
    standing: &BTreeMap<BlockNumber, BlockCharter>,
    inner: (BlockNumber, BlockCharter),
) -> Option<Border> {
    let path = &inner.1.path;
    let below = |block: &BlockCharter| -> Option<Vec<u8>> {
        if block.path.is_empty() {
            return Some(path.clone());
        }
        path.strip_prefix(&block.path[..])?.strip_prefix(b"/").map(<[u8]>::to_vec)
    };
    let around = standing.iter().filter_map(|(number, block)| Some((*number, block, below(block)?)));
    let (number, block, path) = around.max_by_key(|(_, block, _)| block.path.len())?;
    Some(Border { way, outer: (number, block.clone()), inner, path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Floor, Members, Quota};

    fn charter(blocks: &[(u16, &str, u8)]) -> Charter {
        let block = |(number, path, birth): &(u16, &str, u8)| {
            let floor = Floor { counter: 0, root: None };
            let path = path.as_bytes().to_vec();
            (
                BlockNumber(*number),
                BlockCharter {
                    path,
                    owner: None,
                    birth: Birth([*birth; 16]),
                    epoch: 0,
                    floor,
                    quota: Quota::default(),
                    private: None,
                },
            )
        };
        Charter { blocks: blocks.iter().map(block).collect(), members: Members::Open }
    }

    fn between(old: &[(u16, &str, u8)], new: &[(u16, &str, u8)]) -> Vec<(Way, u16, u16, String)> {
        let found = borders(&charter(old), &charter(new));
        let told = |border: Border| {
            let path = String::from_utf8_lossy(&border.path).into_owned();
            (border.way, border.outer.0.0, border.inner.0.0, path)
        };
        found.into_iter().map(told).collect()
    }

    #[test]
    fn inner_blocks_go_first_and_come_last() {
        const ROOT: (u16, &str, u8) = (0, "", 0);
        use Way::{Back, Into};
        let (a, deep, other) = ((1, "a", 1), (2, "a/x/deep", 2), (3, "ab", 3));
        assert_eq!(between(&[ROOT, a], &[ROOT, a]), []);
        assert_eq!(
            between(&[ROOT, other], &[ROOT, deep, a, other]),
            [(Into, 0, 1, "a".into()), (Into, 1, 2, "x/deep".into())]
        );
        assert_eq!(
            between(&[ROOT, a, deep], &[ROOT]),
            [(Back, 1, 2, "x/deep".into()), (Back, 0, 1, "a".into())]
        );
        // A number that lives again, elsewhere.
        assert_eq!(
            between(&[ROOT, a], &[ROOT, (1, "b", 9)]),
            [(Back, 0, 1, "a".into()), (Into, 0, 1, "b".into())]
        );
        assert_eq!(between(&[ROOT, deep], &[ROOT, a, deep]), [(Into, 0, 1, "a".into())]);
    }
}
