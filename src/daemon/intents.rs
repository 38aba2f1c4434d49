//! fsync: what changed since the last commit of the store goes, sealed, into its intent log; a commit is made where that
//! is not possible, and whenever it is due for other reasons.
//!
//! The lock of the log is the innermost of the engine's: whoever holds it takes only the tree's own, and briefly.

use super::core::Core;
use super::error::EngineError;
use crate::base::{Malformed, Reader, Writer};
use crate::tree::{Mark, Tree, TreeError};
use std::collections::VecDeque;
use std::sync::Arc;

/// Changes that wait for an fsync, in bytes; with more than that a commit costs less than writing them twice.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What the log holds.
#[derive(Default)]
pub(super) struct IntentLog {
    /// All changes up to this one survive a power cut, in the log or in a commit.
    durable: Mark,
    /// The batches in the log: number of the last change, position.
    batches: VecDeque<(u64, u64)>,
    /// What an earlier life of the engine left in the log has to be committed before anything is added.
    inherited: bool,
    /// It was not looked at yet: the store is damaged, and is repaired first. Nothing was changed either.
    unread: bool,
}

impl IntentLog {
    /// Where the log begins for a commit that holds all changes up to `mark`.
    pub(super) fn start(&self, mark: Mark, end: u64) -> u64 {
        let beyond = |(last, _): &&(u64, u64)| self.durable.lineage == mark.lineage && *last > mark.seq;
        self.batches.iter().find(beyond).map_or(end, |(_, position)| *position)
    }

    /// A commit that holds all changes up to `mark` is durable.
    pub(super) fn committed(&mut self, mark: Mark) {
        if self.durable.lineage != mark.lineage {
            self.batches.clear();
            self.durable = mark;
        }
        self.durable.seq = self.durable.seq.max(mark.seq);
        while self.batches.front().is_some_and(|(last, _)| *last <= mark.seq) {
            self.batches.pop_front();
        }
        self.inherited &= !self.batches.is_empty();
    }
}

impl Core {
    /// Makes everything that was changed durable: what `fsync` means.
    pub fn persist(&self) -> Result<(), TreeError> {
        let Some(tree) = &self.tree else { return Ok(()) };
        if self.log.lock().unread || self.log_changes(tree) {
            return Ok(());
        }
        self.commit_head(tree)
    }

    /// Brings everything that was changed into a commit of the store, and cleans one step where that is due.
    pub fn commit(&self) -> Result<(), TreeError> {
        self.tree.as_ref().map_or(Ok(()), |tree| self.commit_head(tree))
    }

    /// Writes what changed to the log; false if only a commit can make it durable.
    fn log_changes(&self, tree: &Tree) -> bool {
        let Some(key) = &self.keys.log else { return false };
        let mut log = self.log.lock();
        if tree.mark() == log.durable {
            return true;
        }
        if log.inherited {
            return false;
        }
        let batch = tree.take_changes();
        if batch.mark == log.durable {
            return true;
        }
        if batch.mark.lineage != log.durable.lineage
            || batch.first != log.durable.seq + 1
            || batch.bytes.is_empty()
        {
            return false;
        }
        let mut writer = Writer::new();
        writer.u64(batch.mark.lineage).u64(batch.first).raw(&batch.bytes);
        match self.store.log_append(&key.seal(&writer.0)) {
            Ok(position) => {
                log.batches.push_back((batch.mark.seq, position));
                log.durable = batch.mark;
                Core::count(&self.done.logged);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "an fsync becomes a commit");
                false
            }
        }
    }

    /// [`Core::recover`], where opening left it for later.
    pub(super) fn recover_late(&self) -> Result<(), EngineError> {
        match &self.tree {
            Some(tree) if self.log.lock().unread => self.recover_now(tree),
            _ => Ok(()),
        }
    }

    /// Does again what the log holds, unless the store is to be repaired first.
    pub(super) fn recover(&self, tree: &Arc<Tree>) -> Result<(), EngineError> {
        self.log.lock().unread = self.settings.rescue;
        if self.settings.rescue { Ok(()) } else { self.recover_now(tree) }
    }

    /// Does again what the log holds beyond the last commit, commits it, and begins to keep what changes from now on.
    fn recover_now(&self, tree: &Arc<Tree>) -> Result<(), EngineError> {
        let before = tree.mark();
        let positions = self.replay(tree)?;
        let after = tree.mark();
        tree.keep_changes(WAITING_BYTES_MAX);
        let inherited = !positions.is_empty();
        let batches = positions.into_iter().map(|position| (after.seq, position)).collect();
        *self.log.lock() = IntentLog { durable: before, batches, inherited, unread: false };
        if !inherited {
            return Ok(());
        }
        let changes = after.seq - before.seq;
        tracing::info!(changes, "brought back from the intent log what was not committed");
        if let Err(error) = self.commit_head(tree) {
            tracing::warn!(%error, "what was brought back could not be committed yet; it stays in the log");
        }
        Ok(())
    }

    fn commit_head(&self, tree: &Tree) -> Result<(), TreeError> {
        let head = tree.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        self.save(&inner).map_err(TreeError::from)
    }

    /// Does again what the log holds; returns where its batches lie.
    fn replay(&self, tree: &Tree) -> Result<Vec<u64>, EngineError> {
        let Some(key) = &self.keys.log else { return Ok(Vec::new()) };
        let lineage = tree.mark().lineage;
        let batches = self.store.log_batches()?;
        let positions = batches.iter().map(|(position, _)| *position).collect();
        for (position, sealed) in batches {
            let Ok(plain) = key.open(&sealed) else {
                tracing::error!(
                    position,
                    "a batch of the intent log does not open: what comes after it is lost"
                );
                break;
            };
            let Ok((theirs, first, bytes)) = parse(&plain) else {
                tracing::error!(
                    position,
                    "a batch of the intent log is malformed: what comes after it is lost"
                );
                break;
            };
            // Batches of another life of the tree are remainders; a gap was closed by a commit.
            if theirs != lineage || first > tree.mark().seq + 1 {
                break;
            }
            if let Err(error) = tree.replay(first, bytes) {
                tracing::error!(%error, "what comes after it in the intent log is lost");
                break;
            }
        }
        Ok(positions)
    }
}

/// Lineage 8, number of the first change 8, changes.
fn parse(plain: &[u8]) -> Result<(u64, u64, &[u8]), Malformed> {
    let mut reader = Reader::new(plain);
    let (lineage, first) = (reader.u64()?, reader.u64()?);
    Ok((lineage, first, reader.raw(reader.remaining())?))
}
