//! Requests that need bytes which are not here: they are answered when those have come, by another thread, so that
//! the threads which take requests go on.

use super::errno::Refusal;
use super::host::Reading;
use super::shared::Shared;
use super::shelf;
use crate::base::Place;
use crate::tree::TreeError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request waits so long in all; then it fails with EIO.
const PATIENCE: Duration = Duration::from_secs(15);

impl Refusal {
    /// The bytes for want of which a request was not done.
    fn absent(&self) -> Option<Place> {
        match self {
            Refusal::Tree(TreeError::Absent(place)) => Some(*place),
            _ => None,
        }
    }
}

impl Shared {
    /// Does what a request asks for and answers; where bytes are missing, again once they are here. `attempt` must change
    /// nothing when it fails for want of bytes.
    pub fn when_here<T: 'static>(
        self: &Arc<Shared>,
        attempt: impl Fn(&Shared) -> Result<T, Refusal> + Send + 'static,
        answer: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) {
        let outcome = attempt(self);
        self.again_when_here(outcome, attempt, answer);
    }

    /// [`Shared::when_here`] for a request that reads a file's content.
    pub fn when_read<T: 'static>(
        self: &Arc<Shared>,
        reading: Reading,
        attempt: impl Fn(&Shared) -> Result<T, Refusal> + Send + 'static,
        answer: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) {
        let reading = (!shelf::holds(reading.inode)).then_some(reading);
        let outcome = attempt(self);
        self.unless_absent((reading, None), outcome, attempt, answer);
    }

    /// [`Shared::when_here`] for a request of which the first attempt has been made.
    pub fn again_when_here<T: 'static>(
        self: &Arc<Shared>,
        outcome: Result<T, Refusal>,
        attempt: impl Fn(&Shared) -> Result<T, Refusal> + Send + 'static,
        answer: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) {
        self.unless_absent((None, None), outcome, attempt, answer);
    }

    fn unless_absent<T: 'static>(
        self: &Arc<Shared>,
        (reading, deadline): (Option<Reading>, Option<Instant>),
        outcome: Result<T, Refusal>,
        attempt: impl Fn(&Shared) -> Result<T, Refusal> + Send + 'static,
        answer: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) {
        let Some(place) = outcome.as_ref().err().and_then(Refusal::absent) else { return answer(outcome) };
        let deadline = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        let shared = self.clone();
        let then = move |came: bool| {
            if !came {
                return answer(Err(TreeError::Absent(place).into()));
            }
            let outcome = attempt(&shared);
            shared.unless_absent((reading, Some(deadline)), outcome, attempt, answer);
        };
        self.host.fault(place, reading, deadline, Box::new(then));
    }
}
