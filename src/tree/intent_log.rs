//! The intent log of a tree: what changed since the last commit of the store goes, sealed, into the store's ring of
//! batches, and is done again when the tree is opened after a power cut.
//!
//! Its lock is the innermost: whoever holds it takes only the tree's own and the store's, and briefly but for a sync.

use super::journal::{Mark, ReplayError};
use super::live::Tree;
use crate::base::{Malformed, Reader, Writer};
use crate::crypt::log_key::LogKey;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// The format of a batch.
const FORMAT: u8 = 1;

/// Makes the changes of one tree durable between commits of its store.
pub struct IntentLog {
    key: LogKey,
    /// Changes that wait for an fsync, in bytes; with more than that a commit costs less than writing them twice.
    waiting_bytes_max: usize,
    written: Mutex<Written>,
}

/// What the log holds.
struct Written {
    /// It was not looked at yet: the store is damaged, and is repaired first. Nothing is changed before that.
    unread: bool,
    /// All changes up to this one survive a power cut, in the log or in a commit.
    durable: Mark,
    /// The batches in the log: number of the last change, position.
    batches: VecDeque<(u64, u64)>,
    /// What an earlier life of the engine left in the log has to be committed before anything is added.
    inherited: bool,
}

/// What an fsync came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logged {
    /// All changes were durable already.
    Nothing,
    /// They are now.
    Batch,
    /// Only a commit can make them durable.
    CommitFirst,
}

impl IntentLog {
    /// A log for a tree that is being opened: [`IntentLog::replay`] comes next.
    pub fn new(key: LogKey, waiting_bytes_max: usize) -> IntentLog {
        let written =
            Written { unread: true, durable: Mark::default(), batches: VecDeque::new(), inherited: false };
        IntentLog { key, waiting_bytes_max, written: Mutex::new(written) }
    }

    /// Makes all changes that were made before the call durable, if the log can.
    pub fn write(&self, tree: &Tree) -> Logged {
        let mut written = self.written.lock();
        if written.unread || tree.mark() == written.durable {
            return Logged::Nothing;
        }
        if written.inherited {
            return Logged::CommitFirst;
        }
        let batch = tree.take_changes();
        let goes_on = batch.mark.lineage == written.durable.lineage && batch.first == written.durable.seq + 1;
        if !goes_on || batch.bytes.is_empty() {
            return Logged::CommitFirst;
        }
        let mut writer = Writer::new();
        writer.u8(FORMAT).u64(batch.mark.lineage).u64(batch.first).raw(&batch.bytes);
        match tree.store().log_append(&self.key.seal(&writer.0)) {
            Ok(position) => {
                written.batches.push_back((batch.mark.seq, position));
                written.durable = batch.mark;
                Logged::Batch
            }
            Err(error) => {
                tracing::debug!(%error, "an fsync becomes a commit");
                Logged::CommitFirst
            }
        }
    }

    /// Whether a commit up to `mark` would make nothing durable that is not.
    pub fn covers(&self, mark: Mark) -> bool {
        let durable = self.written.lock().durable;
        durable.lineage == mark.lineage && durable.seq >= mark.seq
    }

    /// Where the log begins for a commit that holds all changes up to `mark`.
    pub fn start(&self, tree: &Tree, mark: Mark) -> u64 {
        let written = self.written.lock();
        let beyond = |(last, _): &&(u64, u64)| written.durable.lineage == mark.lineage && *last > mark.seq;
        written.batches.iter().find(beyond).map_or_else(|| tree.store().log_end(), |(_, position)| *position)
    }

    /// A commit that holds all changes up to `mark` is durable.
    pub fn committed(&self, tree: &Tree, mark: Mark) {
        self.written.lock().committed(mark);
        tree.forget_changes(mark);
    }

    /// Does again what the log holds beyond the state that the tree was opened with; from now on changes are kept for
    /// the log, on a ground that begins with the next commit. Says how many changes that were. Where there were any, a
    /// commit is due. What cannot be done again goes to `lost`, if there is such; else it ends the attempt, and the log
    /// stays as it is.
    pub fn replay(&self, tree: &Tree, mut lost: Option<&mut Vec<ReplayError>>) -> Result<u64, ReplayError> {
        let before = tree.mark();
        let batches = tree.store().log_batches()?;
        let positions: Vec<u64> = batches.iter().map(|(position, _)| *position).collect();
        for (_, sealed) in batches {
            match self.replay_batch(tree, before.lineage, &sealed, lost.as_deref_mut()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => match &mut lost {
                    Some(lost) => {
                        lost.push(error);
                        break;
                    }
                    None => return Err(error),
                },
            }
        }
        let after = tree.mark();
        // Whole batches that lie further on, behind a damaged one, must never look like the next ones of this life.
        tree.begin_lineage();
        tree.keep_changes(self.waiting_bytes_max);
        let inherited = !positions.is_empty();
        let batches = positions.into_iter().map(|position| (after.seq, position)).collect();
        *self.written.lock() = Written { unread: false, durable: before, batches, inherited };
        Ok(after.seq - before.seq)
    }

    /// False where a batch stands on another ground.
    fn replay_batch(
        &self,
        tree: &Tree,
        lineage: u64,
        sealed: &[u8],
        lost: Option<&mut Vec<ReplayError>>,
    ) -> Result<bool, ReplayError> {
        let plain = self.key.open(sealed).map_err(|_| ReplayError::Sealed)?;
        let (format, theirs, first, bytes) = parse(&plain).map_err(|_| ReplayError::Malformed)?;
        if format != FORMAT {
            return Err(ReplayError::Format(format));
        }
        // A gap was closed by a commit.
        if theirs != lineage || first > tree.mark().seq + 1 {
            return Ok(false);
        }
        tree.replay(first, bytes, lost)?;
        Ok(true)
    }

    /// Whether [`IntentLog::replay`] is still to come.
    pub fn is_unread(&self) -> bool {
        self.written.lock().unread
    }

    /// Whether an earlier life of the engine left something in the log: then a commit is due.
    pub fn has_inherited(&self) -> bool {
        self.written.lock().inherited
    }
}

impl Written {
    fn committed(&mut self, mark: Mark) {
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

/// Format 1, lineage 8, number of the first change 8, changes.
fn parse(plain: &[u8]) -> Result<(u8, u64, u64, &[u8]), Malformed> {
    let mut reader = Reader::new(plain);
    let (format, lineage, first) = (reader.u8()?, reader.u64()?, reader.u64()?);
    Ok((format, lineage, first, reader.raw(reader.remaining())?))
}
