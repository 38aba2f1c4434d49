//! The working head as one id, and how much of it nobody else has.

use super::core::Core;
use crate::base::Id;

impl Core {
    /// The content of all blocks as one id.
    pub fn content_root(&self) -> Option<Id> {
        let tree = self.tree.as_ref()?;
        let _turn = self.turn.lock();
        if tree.flush().is_ok_and(|head| {
            self.install(&mut self.inner(), &head);
            true
        }) {
            let inner = self.inner();
            let charter = &inner.state.charter;
            let ids = charter.blocks.keys().map(|number| {
                // Of a block that cannot be opened here its signed entry tells the root.
                let told = inner.entries.get(number).filter(|_| self.is_closed(charter, *number));
                let told = told.and_then(|listed| listed.entry.root).map(|root| root.id);
                let own = inner.state.roots.get(number).copied().flatten().map(|root| root.id);
                (*number, own.or(told))
            });
            return Some(crate::record::content_root(ids));
        }
        None
    }

    /// Bytes of changes that no version holds; above 0 from the first on.
    pub fn pending_bytes(&self) -> u64 {
        let Some(tree) = &self.tree else { return 0 };
        // Nobody changes anything there; what it makes of versions that are apart is no news to anybody.
        if !self.keys.publishes() {
            return 0;
        }
        let inner = self.inner();
        // Nothing has come yet and nothing was made: a device that has just joined, or may not write.
        if inner.state.policy.counter == 0
            && inner.heads.is_empty()
            && inner.image.live_bytes() == 0
            && tree.dirty_bytes() == 0
        {
            return 0;
        }
        let unpublished = inner.published != Some(tree.generation());
        if !unpublished {
            // What is open has to be closed first.
            return u64::from(inner.waits && tree.whole_at().is_some());
        }
        let newest = inner.versions.iter().next().map_or(0, |version| version.image.live_bytes());
        (tree.dirty_bytes() + inner.image.live_bytes().abs_diff(newest)).max(1)
    }
}
