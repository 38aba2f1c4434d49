//! What a device shows of each block, and what it leaves out of what it shows.

use super::adopt::Ours;
use super::aside::{Before, Lost};
use super::core::Core;
use super::error::EngineError;
use super::join::{NOT_ADDED, only_grows};
use crate::base::BlockNumber;
use crate::map::Root;
use crate::record::{Charter, Policy};
use crate::tree::{BlockView, Blocks, ClosedBlock};
use std::collections::BTreeMap;

impl Core {
    /// The blocks of a charter as the tree wants them.
    pub fn views(
        &self,
        policy: &Policy,
        charter: &Charter,
        roots: &BTreeMap<BlockNumber, Option<Root>>,
    ) -> Blocks {
        let mut blocks = Blocks::default();
        for (number, block) in &charter.blocks {
            let (number, path) = (*number, block.path.clone());
            match self.keys.block(number, block) {
                None => blocks.closed.push(ClosedBlock { number, path }),
                Some(keys) => {
                    let root = roots.get(&number).copied().flatten();
                    let private = self.keys.private(number, block);
                    // Of what cannot be opened here nothing is changed either, the admin's right aside.
                    let shut = block.private.is_some() && private.is_none();
                    let writable = !shut && self.may_write(policy, charter, number);
                    let append = only_grows(policy, number);
                    let view = BlockView { number, path, keys, root, writable, append, private };
                    if shut { blocks.veiled.push(view) } else { blocks.open.push(view) }
                }
            }
        }
        blocks
    }

    /// Sets aside what had to be left out of a merge, and what may not be written behind a new border; says what there was
    /// before.
    pub(super) fn keep_aside(
        &self,
        ours: &mut Ours,
        left_out: Lost,
        whole: Lost,
        changed: Lost,
    ) -> Result<Before, EngineError> {
        const FULL: &str = "it was filled on two devices apart from each other, and both together hold more than twice its quota";
        const WHOLE: &str = "a later state of this private block was published, and the two cannot be merged";
        const BORDER: &str = "a directory became a block in which the policy does not let this device write";
        let mut inner = self.inner();
        let before = inner.aside_before();
        let (charter, image) = (&ours.state.charter, &ours.head.image);
        self.set_aside(&mut inner, charter, image, left_out, FULL)?;
        self.set_aside(&mut inner, charter, image, whole, WHOLE)?;
        self.set_aside(&mut inner, charter, image, changed, NOT_ADDED)?;
        self.set_aside(&mut inner, charter, image, std::mem::take(&mut ours.aside), BORDER)?;
        Ok(before)
    }
}
