//! Room on the disk. What a program writes waits in memory before it is sealed: if it were taken without a look at the
//! disk, a full one would be noticed only after the program was told that all is well, and when not even a deletion
//! could be made durable any more.

use super::error::TreeError;
use super::live::Tree;
use super::state::State;
use crate::image::{Space, Store};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Programs do not get the last of the disk: deleting, and making that durable, takes some too. What is sealed and not
/// written yet, tables, and the intent log fit in it.
const RESERVE_BYTES: u64 = 16 << 20;
/// After so many bytes, or so long, the disk is looked at again: others fill it too.
const LOOK_BYTES: u64 = 1 << 20;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What the disk had left.
#[derive(Default)]
pub(super) struct Headroom(Mutex<Look>);

#[derive(Default)]
struct Look {
    at: Option<Instant>,
    free_bytes: u64,
    admitted_bytes: u64,
}

impl Headroom {
    /// Refuses bytes that would not fit the disk with those that wait already.
    fn admit(&self, store: &Store, waiting: u64, bytes: u64) -> Result<(), TreeError> {
        let mut look = self.0.lock();
        look.admitted_bytes += bytes;
        if look.admitted_bytes > LOOK_BYTES || look.at.is_none_or(|at| at.elapsed() > LOOK_PAUSE) {
            let free_bytes = store.space().map_or(u64::MAX, |space| space.free_bytes);
            *look = Look { at: Some(Instant::now()), free_bytes, admitted_bytes: bytes };
        }
        let needed = waiting.saturating_add(bytes).saturating_add(RESERVE_BYTES);
        if needed > look.free_bytes { Err(TreeError::NoSpace) } else { Ok(()) }
    }
}

impl Tree {
    /// Refuses to take bytes that would not fit the disk. What is done again from the log was taken before.
    pub(super) fn admit_on_disk(&self, state: &State, bytes: usize) -> Result<(), TreeError> {
        if state.replaying {
            return Ok(());
        }
        let waiting = state.dirty_bytes + state.frozen_bytes;
        self.headroom.admit(&self.bench.shared.store, waiting, bytes as u64)
    }

    /// Room for data, as statfs(2) tells it.
    pub fn space(&self) -> Result<Space, TreeError> {
        let space = self.bench.shared.store.space()?;
        let free_bytes = space.free_bytes.saturating_sub(RESERVE_BYTES + self.dirty_bytes());
        Ok(Space { free_bytes, ..space })
    }
}
