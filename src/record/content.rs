//! One id for what a person sees, whoever wrote it and in which order.

use crate::base::{BlockNumber, Id};
use std::collections::BTreeMap;

/// The content of a version: BLAKE3 over the numbers and map roots of its blocks. Counters, signatures and places are
/// left out, so that devices that hold the same files agree.
pub fn content_root(blocks: impl Iterator<Item = (BlockNumber, Option<Id>)>) -> Id {
    let blocks: BTreeMap<BlockNumber, Option<Id>> = blocks.collect();
    let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 content root");
    for (number, root) in blocks {
        hasher.update(&number.0.to_le_bytes());
        match root {
            None => hasher.update(&[0]),
            Some(id) => hasher.update(&[1]).update(&id.0),
        };
    }
    Id(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_listing_does_not_matter_and_everything_else_does() {
        let (one, other) = (Some(Id([1; 32])), Some(Id([2; 32])));
        let root =
            |blocks: &[(u16, Option<Id>)]| content_root(blocks.iter().map(|(n, id)| (BlockNumber(*n), *id)));
        assert_eq!(root(&[(0, one), (3, other)]), root(&[(3, other), (0, one)]));
        let different =
            [root(&[]), root(&[(0, None)]), root(&[(0, one)]), root(&[(1, one)]), root(&[(0, other)])];
        for (index, id) in different.iter().enumerate() {
            assert!(!different[index + 1..].contains(id), "{index}");
        }
    }
}
