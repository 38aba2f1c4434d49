//! Blocks whose key is not here: their entries are judged and their bytes handed on, nothing in them is shown.

use super::core::{Core, Inner};
use super::state::State;
use crate::base::BlockNumber;
use crate::record::{BlockCharter, Charter};

impl Core {
    /// Whether a block of the charter cannot be opened here.
    pub(super) fn is_closed(&self, charter: &Charter, number: BlockNumber) -> bool {
        charter.blocks.get(&number).is_some_and(|block| self.keys.block(number, block).is_none())
    }

    /// Whether what is inside a block can be opened here, as far as it is private.
    pub(super) fn opens_private(&self, number: BlockNumber, block: &BlockCharter) -> bool {
        block.private.is_none() || self.keys.private(number, block).is_some()
    }

    /// The blocks that cannot be opened here.
    pub(super) fn closed_blocks(&self, charter: &Charter) -> Vec<BlockNumber> {
        let blocks = charter.blocks.keys().copied();
        blocks.filter(|number| self.is_closed(charter, *number)).collect()
    }

    /// What a person should know where the only block that this device has a key for is not to be had any more.
    pub(super) fn dead_link(&self, state: &State) -> Vec<String> {
        let Some(number) = self.keys.one_block().filter(|_| state.policy.counter > 0) else {
            return Vec::new();
        };
        let why = match state.charter.blocks.get(&number) {
            Some(_) if !self.is_closed(&state.charter, number) => return Vec::new(),
            Some(_) => "has another key by now",
            None => "is gone",
        };
        let what = "the link that this device joined with was for that block alone and opens nothing any more: ask for a new link";
        vec![format!("block {number} {why}; {what}")]
    }

    /// Says in the log what cannot be opened, when that is first known and whenever it changes.
    pub(super) fn say_what_is_closed(&self, inner: &Inner) {
        let state = &inner.state;
        if self.keys.one_block().is_none() || state.policy.counter == 0 {
            return;
        }
        let closed = self.closed_blocks(&state.charter);
        let all = state.charter.blocks.len();
        tracing::info!(
            "{} of {all} blocks cannot be opened with the link of this device: reading there gives EACCES",
            closed.len()
        );
        for warning in self.dead_link(state) {
            tracing::warn!("{warning}");
        }
    }
}
