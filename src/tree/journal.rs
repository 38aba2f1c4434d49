//! The journal: what was done since the last commit of the store, in order, for the intent log.
//!
//! Every change of content has a number. A head that is flushed says up to which number it holds them; what comes behind
//! can be done again on top of it ([`Tree::replay`]). Adoptions cannot: each begins a new *lineage*, whose changes make
//! sense on its own heads only.

use super::error::TreeError;
use super::inode::Timestamp;
use super::intent::{Birth, Intent};
use super::live::Tree;
use super::state::State;
use crate::base::{Inode, Malformed, Reader, Writer};
use crate::image::StoreError;
use std::collections::VecDeque;

/// Bytes of an encoded change besides its names and data, at most.
const OVERHEAD_BYTES: usize = 96;

/// A moment in the life of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Raised by every adoption and change of policy.
    pub lineage: u64,
    /// Number of the last change.
    pub seq: u64,
}

/// Changes for the log.
#[derive(Debug)]
pub struct Batch {
    /// The last of them, and their lineage.
    pub mark: Mark,
    /// Number of the first: above that of the last where there is none, or where they were too many to be kept.
    pub first: u64,
    /// Their encodings.
    pub bytes: Vec<u8>,
}

/// Why changes could not be done again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A batch that was not sealed with this database's key.
    #[error("a batch of the intent log does not open")]
    Sealed,
    /// A batch that a newer program wrote.
    #[error("the intent log has format {0}: use a newer kilofs")]
    Format(u8),
    /// The log holds what no device writes.
    #[error("the intent log is malformed")]
    Malformed,
    /// A change fails that once succeeded.
    #[error("change {seq} of the intent log cannot be done again: {source}")]
    Failed {
        /// Its number.
        seq: u64,
        /// What failed.
        source: TreeError,
    },
}

/// Part of [`State`].
pub(super) struct Journal {
    mark: Mark,
    /// How much may wait here; 0 for a tree without a log.
    bytes_max: usize,
    bytes: usize,
    /// The last part is being added to; a flush begins another one.
    parts: VecDeque<Part>,
    /// More was changed since the last flush than may wait: none of it is kept.
    overflown: bool,
}

struct Part {
    first: u64,
    last: u64,
    bytes: Vec<u8>,
}

impl Journal {
    /// A journal that goes on behind `mark` and keeps nothing.
    pub(super) fn new(mark: Mark) -> Journal {
        Journal { mark, bytes_max: 0, bytes: 0, parts: VecDeque::new(), overflown: false }
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    fn push(&mut self, at: Timestamp, intent: &Intent<'_>) {
        self.mark.seq += 1;
        if self.bytes_max == 0 || self.overflown {
            return;
        }
        if self.bytes + intent.payload() + OVERHEAD_BYTES > self.bytes_max {
            self.lose();
            self.overflown = true;
            return;
        }
        if self.parts.is_empty() {
            self.parts.push_back(Part { first: self.mark.seq, last: self.mark.seq, bytes: Vec::new() });
        }
        let part = self.parts.back_mut().expect("one was added where there was none");
        let before = part.bytes.len();
        let mut writer = Writer(std::mem::take(&mut part.bytes));
        intent.encode(at, &mut writer);
        part.bytes = writer.0;
        part.last = self.mark.seq;
        self.bytes += part.bytes.len() - before;
    }

    fn lose(&mut self) {
        self.parts.clear();
        self.bytes = 0;
    }

    /// What was changed so far is being flushed: a commit will hold all of it, or nothing.
    pub(super) fn divide(&mut self) {
        self.overflown = false;
        if self.parts.back().is_some_and(|part| !part.bytes.is_empty()) {
            let first = self.mark.seq + 1;
            self.parts.push_back(Part { first, last: self.mark.seq, bytes: Vec::new() });
        }
    }

    /// What comes now stands on something else than what is in the log.
    pub(super) fn begin_lineage(&mut self) {
        self.mark.lineage += 1;
        self.overflown = false;
        self.lose();
    }

    fn take(&mut self) -> Batch {
        let first = self.parts.front().map_or(self.mark.seq + 1, |part| part.first);
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        self.bytes = 0;
        let mut bytes = parts.next().map_or(Vec::new(), |part| part.bytes);
        parts.for_each(|part| bytes.extend_from_slice(&part.bytes));
        Batch { mark: self.mark, first, bytes }
    }

    fn forget(&mut self, seq: u64) {
        while self.parts.front().is_some_and(|part| part.last <= seq) {
            let part = self.parts.pop_front().expect("there is a first one");
            self.bytes -= part.bytes.len();
        }
    }
}

impl State {
    /// Notes a change at `inode`; what happens to nameless files is nobody's business after a crash.
    pub(super) fn note(&mut self, inode: Inode, at: Timestamp, intent: &Intent<'_>) {
        if !self.orphans.contains_key(&inode) {
            self.journal.push(at, intent);
        }
    }
}

impl Tree {
    /// From now on changes are kept for [`Tree::take_changes`], up to `bytes_max` bytes of them.
    pub fn keep_changes(&self, bytes_max: usize) {
        let mut state = self.bench.state.write();
        state.journal.bytes_max = bytes_max;
        state.journal.lose();
    }

    /// The last change.
    pub fn mark(&self) -> Mark {
        self.bench.state.read().journal.mark()
    }

    /// Takes the changes that were kept since the last call.
    pub fn take_changes(&self) -> Batch {
        self.bench.state.write().journal.take()
    }

    /// A commit holds all changes up to a mark: they need not be kept.
    pub fn forget_changes(&self, mark: Mark) {
        let mut state = self.bench.state.write();
        if state.journal.mark.lineage == mark.lineage {
            state.journal.forget(mark.seq);
        }
    }

    /// Does again what `bytes` say, of which the first has the number `first`; what the tree holds already is skipped.
    /// What cannot be done again goes to `lost`, if there is such, and else ends it.
    pub fn replay(
        &self,
        first: u64,
        bytes: &[u8],
        mut lost: Option<&mut Vec<ReplayError>>,
    ) -> Result<(), ReplayError> {
        let mut reader = Reader::new(bytes);
        let done = self.mark().seq;
        for seq in first.. {
            if reader.remaining() == 0 {
                break;
            }
            let (at, intent) = Intent::decode(&mut reader).map_err(|Malformed| ReplayError::Malformed)?;
            if seq <= done {
                continue;
            }
            self.bench.state.write().replaying = true;
            let outcome = self.repeat(at, intent).map_err(|source| ReplayError::Failed { seq, source });
            self.bench.state.write().replaying = false;
            match (outcome, &mut lost) {
                (Ok(()), _) if self.mark().seq == seq => {}
                (Ok(()), _) => return Err(ReplayError::Malformed),
                (Err(error), Some(lost)) => {
                    lost.push(error);
                    self.bench.state.write().journal.mark.seq = seq;
                }
                (Err(error), None) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is changed from now on stands on another ground than what is in the log.
    pub(super) fn begin_lineage(&self) {
        self.bench.state.write().journal.begin_lineage();
    }

    fn repeat(&self, at: Timestamp, intent: Intent<'_>) -> Result<(), TreeError> {
        match intent {
            Intent::Make { parent, name, inode, birth } => {
                self.make(parent, name, birth, at, Some(inode)).map(drop)
            }
            Intent::Link { inode, parent, name } => self.link_at(inode, parent, name, at).map(drop),
            Intent::Remove { parent, name, directory } => self.remove(parent, name, directory, at),
            Intent::Rename { from, to, flags } => self.rename_at(from, to, flags, at),
            Intent::Write { inode, offset, data } => self.write_at(inode, offset, data, at),
            Intent::Allocate { inode, how, offset, bytes } => self.allocate_at(inode, how, offset, bytes, at),
            Intent::SetAttr { inode, set } => self.set_attr_at(inode, set, at).map(drop),
            Intent::SetXattr { inode, name, value } => {
                let mut state = self.bench.state.write();
                self.put_xattr(&mut state, inode, name, value, at)
            }
            Intent::Strip { inode } => self.strip_at(inode, at),
        }
    }
}

impl Birth<'_> {
    /// Of something that is no link and no device.
    pub(super) fn plain(
        file_type: super::inode::FileType,
        mode: u16,
        owner: super::attr::Owner,
    ) -> Birth<'static> {
        Birth { file_type, mode, owner, rdev: 0, target: &[] }
    }
}
