//! A device that joins while the newest version is partly forged: blocks that nothing valid is known of are filled
//! from an older version of the record.

use super::core::{Core, Listed};
use super::error::EngineError;
use super::graft::graft;
use crate::image::Image;
use crate::record::VersionRef;
use crate::tree::{Changes, Head};
use std::sync::Arc;

impl Core {
    /// Fills what is missing from an older version.
    pub fn supplement(&self, reference: VersionRef, image: Image) -> Result<Changes, EngineError> {
        let _work = self.work.lock();
        let tree = self.tree()?;
        let arrived = self.open_arrived(reference, image)?;
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let (policy, charter) = (inner.state.policy.clone(), inner.state.charter.clone());
        let known = inner.entries.clone();
        drop(inner);
        // Behind the last flush lie the catalogue and the commit of the last publication: the next ones build on them.
        let draft = Arc::new(self.store.draft(&tree.draft().snapshot()?)?);
        let (mut roots, mut found) = (head.roots.clone(), Vec::new());
        for (number, block) in charter.blocks.iter().filter(|(number, _)| !known.contains_key(number)) {
            let Some(theirs) = arrived.entries.get(number).filter(|listed| listed.entry.birth == block.birth)
            else {
                continue;
            };
            if self.check_entry(theirs, None, (&policy, &charter), *number, &arrived, None).is_err()
                || self.excess(*number, &charter, &arrived)?.is_some()
            {
                continue;
            }
            let Some(keys) = self.keys.block(*number, block) else {
                found.push((*number, theirs.clone()));
                continue;
            };
            let Some(root) = theirs.root() else { continue };
            let root = graft(&self.store, &keys, self.tree_nodes(), &arrived.image, root, &draft)?;
            roots.insert(*number, Some(root));
            found.push((*number, Listed { entry: theirs.entry.clone(), place: Some(root.place) }));
        }
        if found.is_empty() {
            return Ok(Changes::default());
        }
        let views = self.views(&policy, &charter, &roots);
        let next = Head {
            image: draft.snapshot()?,
            roots,
            generation: head.generation,
            changed: Default::default(),
            mark: Default::default(),
        };
        drop(draft);
        let _turn = self.turn.lock();
        let Ok(changes) = tree.adopt(head.generation, next, views) else { return Ok(Changes::default()) };
        let adopted = head.generation + 1;
        let head = tree.flush()?;
        let mut inner = self.inner();
        inner.entries.extend(found);
        // Only a device that may publish heals the record.
        inner.published = (!self.keys.publishes()).then_some(adopted);
        self.install(&mut inner, &head);
        self.keep_arrived(&mut inner, &arrived, arrived.image.clone());
        self.save(&inner)?;
        Ok(changes)
    }

    /// Blocks of the charter that nothing valid is known of.
    pub fn lacks_blocks(&self) -> bool {
        let inner = self.inner();
        inner.state.charter.blocks.keys().any(|number| !inner.entries.contains_key(number))
    }
}
