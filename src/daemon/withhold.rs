//! No version is made of, or merged with, a moment in which a file is empty only because it is about to be written.

use super::core::{Core, now_seconds};
use super::error::EngineError;
use super::versions::STORM_SECONDS;
use crate::record::Commit;
use crate::tree::{Head, Held, UNWRITTEN_MAX, Whole};
use std::time::{Duration, Instant};

/// Tries that are further apart are not of one row.
const ROW_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Versions made here that nobody else's stands on: from so many on the next one takes its time.
const UNHEARD_MAX: usize = 16;
const BREATH: Duration = Duration::from_millis(1_500);

impl Core {
    /// How long to wait before the next version is made. Where others write too, and merge more slowly than versions are
    /// made here, the one that they are merging with must still be kept here when they are done.
    pub(super) fn breath(&self) -> Duration {
        let inner = self.inner();
        let (own, now) = (self.keys.device.public(), now_seconds());
        let fresh = inner.versions.iter().filter(|version| now.saturating_sub(version.time) <= STORM_SECONDS);
        let commits: Vec<&Commit> = fresh.filter_map(|version| version.commit.as_deref()).collect();
        let heard = commits.iter().filter(|commit| commit.device != own).max_by_key(|commit| commit.lamport);
        let Some(heard) = heard else { return Duration::ZERO };
        let unheard = commits.iter().filter(|commit| commit.device == own);
        let unheard = unheard.take_while(|commit| !heard.covers(commit)).count();
        if unheard < UNHEARD_MAX { Duration::ZERO } else { BREATH }
    }

    /// The head that is to be published, with what of it is whole; [`EngineError::Withheld`] while a file waits for its
    /// first bytes. Where there is always another one, only for as long as each of them is waited for.
    pub(super) fn head_to_publish(&self, held: &mut Held<'_>) -> Result<Whole, EngineError> {
        let now = Instant::now();
        let mut row = self.withheld.lock();
        let goes_on = |(_, last): &(Instant, Instant)| now.saturating_duration_since(*last) < ROW_PAUSE_MAX;
        let first = row.filter(goes_on).map_or(now, |(first, _)| first);
        if now.saturating_duration_since(first) < UNWRITTEN_MAX {
            let head = held.flush_whole(now, true)?;
            *row = head.is_none().then_some((first, now));
            return head.ok_or(EngineError::Withheld);
        }
        *row = None;
        held.flush_whole(now, false)?.ok_or(EngineError::Withheld)
    }

    /// The head that a version which has arrived is merged with. Waits for files' first bytes, until `end` at most.
    pub(super) fn head_to_merge(&self, end: Instant) -> Result<Head, EngineError> {
        let tree = self.tree()?;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(tree.flush()?);
            }
            if let Some(head) = tree.hold().flush_written(now)? {
                return Ok(head);
            }
            tree.unwritten().wait(end);
        }
    }
}
