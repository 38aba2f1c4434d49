//! fsync: what changed since the last commit of the store goes into its intent log; a commit is made where that is not
//! possible, and whenever it is due for other reasons.

use super::core::Core;
use super::error::EngineError;
use crate::tree::{IntentLog, Logged, ReplayError, Tree, TreeError};
use std::sync::Arc;

/// Changes that wait for an fsync, in bytes; with more than that a commit costs less than writing them twice.
pub(super) const WAITING_BYTES_MAX: usize = 1 << 20;

impl Core {
    /// Makes everything that was changed durable: what `fsync` means.
    pub fn persist(&self) -> Result<(), TreeError> {
        let Some((tree, log)) = self.tree.as_ref().zip(self.log.as_ref()) else { return Ok(()) };
        // What was fetched since the last commit may lie below what is logged: doing that again needs it.
        let written = if self.store.presence_is_durable() { log.write(tree) } else { Logged::CommitFirst };
        match written {
            Logged::Nothing => Ok(()),
            Logged::Batch => {
                Core::count(&self.done.logged);
                Ok(())
            }
            Logged::CommitFirst => {
                let wanted = tree.mark();
                let _turn = self.turn.lock();
                // Who waited for another one's commit may need none of its own.
                if log.covers(wanted) { Ok(()) } else { self.commit_head(tree) }
            }
        }
    }

    /// Brings everything that was changed into a commit of the store, and cleans one step where that is due.
    pub fn commit(&self) -> Result<(), TreeError> {
        let _turn = self.turn.lock();
        self.tree.as_ref().map_or(Ok(()), |tree| self.commit_head(tree))
    }

    /// [`Core::recover`], where opening left it for later.
    /// Returns what could not be done again: then it is lost.
    pub(super) fn recover_late(&self) -> Result<Vec<ReplayError>, EngineError> {
        let mut lost = Vec::new();
        if let (Some(tree), Some(log)) = (&self.tree, &self.log)
            && log.is_unread()
        {
            self.recover_now(tree, log, Some(&mut lost))?;
        }
        Ok(lost)
    }

    /// Does again what the log holds, unless the store is to be repaired first.
    pub(super) fn recover(&self, tree: &Arc<Tree>) -> Result<(), EngineError> {
        match &self.log {
            Some(log) if !self.settings.rescue => self.recover_now(tree, log, None),
            _ => Ok(()),
        }
    }

    /// Does again what the log holds beyond the last commit, and commits it.
    fn recover_now(
        &self,
        tree: &Arc<Tree>,
        log: &IntentLog,
        lost: Option<&mut Vec<ReplayError>>,
    ) -> Result<(), EngineError> {
        let changes = log.replay(tree, lost).map_err(|error| {
            EngineError::Other(format!(
                "what was synced last cannot be brought back ({error}): `kilofs fsck {} --repair` brings back what can be",
                self.name
            ))
        })?;
        if !log.has_inherited() {
            return Ok(());
        }
        tracing::info!(changes, "brought back from the intent log what was not committed");
        let _turn = self.turn.lock();
        if let Err(error) = self.commit_head(tree) {
            tracing::warn!(%error, "what was brought back could not be committed yet; it stays in the log");
        }
        Ok(())
    }

    /// The caller holds `turn`.
    fn commit_head(&self, tree: &Tree) -> Result<(), TreeError> {
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        self.save(&inner).map_err(TreeError::from)
    }
}
