//! No version is made of, or merged with, a moment in which a file is empty only because it is about to be written.

use super::core::Core;
use super::error::EngineError;
use crate::tree::{Head, Held, UNWRITTEN_MAX};
use std::time::{Duration, Instant};

/// Tries that are further apart are not of one row.
const ROW_PAUSE_MAX: Duration = Duration::from_millis(250);

impl Core {
    /// The head that is to be published; [`EngineError::Withheld`] while a file waits for its first bytes. Where there
    /// is always another one, only for as long as each of them is waited for.
    pub(super) fn head_to_publish(&self, held: &mut Held<'_>) -> Result<Head, EngineError> {
        let now = Instant::now();
        let mut row = self.withheld.lock();
        let goes_on = |(_, last): &(Instant, Instant)| now.saturating_duration_since(*last) < ROW_PAUSE_MAX;
        let first = row.filter(goes_on).map_or(now, |(first, _)| first);
        if now.saturating_duration_since(first) < UNWRITTEN_MAX {
            let head = held.flush_written(now)?;
            *row = head.is_none().then_some((first, now));
            return head.ok_or(EngineError::Withheld);
        }
        *row = None;
        Ok(held.flush()?)
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
