//! Inode numbers are unique across blocks. A block is verified by itself, so whoever may write in an open one could use
//! numbers of a protected one there, and hide what is under them: such a state of the open block is refused.

use super::core::{Core, Listed};
use super::error::EngineError;
use super::floor::is_protected;
use super::take::{Arrived, OldHead, Plan};
use crate::base::{BlockNumber, Inode};
use crate::image::Image;
use crate::map::{Map, MapError, Root};
use crate::record::{Charter, Policy};
use crate::tree::ImageSource;
use crate::tree::key::{Key, start_of};
use std::collections::BTreeSet;

const PREFIX_SHIFT: u32 = 32;

impl Core {
    /// Why an arrived state of an open block is refused beside the protected blocks of the plan, if it is.
    pub(super) fn collision(
        &self,
        (policy, charter): (&Policy, &Charter),
        number: BlockNumber,
        arrived: &Arrived,
        old: &OldHead,
        plan: &Plan,
    ) -> Result<Option<String>, EngineError> {
        let others = plan.entries.keys().filter(|other| **other != number && is_protected(policy, **other));
        let others: Vec<BlockNumber> = others.copied().collect();
        if others.is_empty() || is_protected(policy, number) {
            return Ok(None);
        }
        let added = self.added_inodes(charter, number, arrived, old)?;
        for other in others {
            let taken = plan.theirs.contains(&other);
            let (image, root) = if taken {
                (arrived.image.clone(), plan.entries.get(&other).and_then(Listed::root))
            } else {
                let inner = self.inner();
                (inner.image.clone(), inner.state.roots.get(&other).copied().flatten())
            };
            if let Some(inode) = self.shared_inode(charter, other, &image, root, &added)? {
                return Ok(Some(format!("it uses the number of inode {inode}, which is in block {other}")));
            }
        }
        Ok(None)
    }

    /// The inodes that the arrived state of a block has and the head version's has not.
    fn added_inodes(
        &self,
        charter: &Charter,
        number: BlockNumber,
        arrived: &Arrived,
        old: &OldHead,
    ) -> Result<BTreeSet<Inode>, EngineError> {
        let mut added = BTreeSet::new();
        let keys = charter.blocks.get(&number).and_then(|block| self.keys.block(number, block));
        let Some(keys) = keys else { return Ok(added) };
        let source = ImageSource::new(&self.store, &arrived.image);
        let map = Map::new(&keys, &source, self.tree_nodes());
        let root = arrived.entries.get(&number).and_then(Listed::root);
        let old_source = old.image.as_ref().map(|image| ImageSource::new(&self.store, image));
        let old_map = old_source.as_ref().map(|source| Map::new(&keys, source, self.tree_nodes()));
        let old_root = old_map.as_ref().and_then(|_| old.told.get(&number)).and_then(Listed::root);
        let from = old_map.as_ref().unwrap_or(&map);
        from.diff_with::<MapError>(old_root.as_ref(), &map, root.as_ref(), &mut |key, before, _| {
            if let (None, Ok(Key::Inode(inode))) = (before, Key::decode(key)) {
                added.insert(inode);
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// One of `inodes` that a block has, too.
    fn shared_inode(
        &self,
        charter: &Charter,
        number: BlockNumber,
        image: &Image,
        root: Option<Root>,
        inodes: &BTreeSet<Inode>,
    ) -> Result<Option<Inode>, EngineError> {
        let keys = charter.blocks.get(&number).and_then(|block| self.keys.block(number, block));
        let Some(keys) = keys else { return Ok(None) };
        let source = ImageSource::new(&self.store, image);
        let map = Map::new(&keys, &source, self.tree_nodes());
        let (mut prefix, mut is_there) = (None, false);
        for inode in inodes {
            // Few devices write in a block: most prefixes are not in it at all.
            let its = inode.0 >> PREFIX_SHIFT;
            if prefix != Some(its) {
                prefix = Some(its);
                let next = map.range(root.as_ref(), &start_of(Inode(its << PREFIX_SHIFT))).next()?;
                let next = next.and_then(|entry| Some(Key::decode(&entry.key).ok()?.inode()));
                is_there = next.is_some_and(|next| next.0 >> PREFIX_SHIFT == its);
            }
            if is_there && map.get(root.as_ref(), &Key::Inode(*inode).encode())?.is_some() {
                return Ok(Some(*inode));
            }
        }
        Ok(None)
    }
}
