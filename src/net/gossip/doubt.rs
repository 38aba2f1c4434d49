//! Connections that may be dead without anybody having been told: the network has changed, or a neighbour comes a second
//! time. TCP finds out after minutes; a question finds out at once.

use super::message::Message;
use super::neighbours::{Gossip, Inner, NeighbourId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A neighbour that lives has answered by then, over a line that is long and loses packets too.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// What is known of a neighbour's being alive.
#[derive(Default)]
pub(super) struct Pulse {
    frames: AtomicU64,
    doubted: AtomicBool,
}

impl Pulse {
    /// It said something.
    pub(super) fn heard(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.doubted.store(false, Ordering::Relaxed);
    }

    /// Whether the network has changed and it has said nothing since.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }
}

impl Gossip {
    /// The network of this device is another one now: who is connected is asked for a sign of life, and dialled beside that;
    /// who could not be reached is tried anew.
    pub fn network_changed(&self) {
        let inner = &self.0.inner;
        let neighbours: Vec<NeighbourId> = {
            let mut state = inner.state.lock();
            state.candidates.try_anew();
            state.neighbours.values().for_each(|one| one.pulse.doubted.store(true, Ordering::Relaxed));
            state.neighbours.keys().copied().collect()
        };
        for id in neighbours {
            let inner = inner.clone();
            tokio::spawn(async move {
                if !inner.lives(id).await {
                    inner.bury(id);
                }
            });
        }
        inner.wake.notify_one();
    }
}

impl Inner {
    /// Asks a neighbour for a sign of life; whether there is one.
    pub(super) async fn lives(&self, id: NeighbourId) -> bool {
        let pulse = {
            let state = self.state.lock();
            let Some(neighbour) = state.neighbours.get(&id) else { return false };
            let _ = neighbour.queue.offer(Arc::new(Message::Ping.encode()));
            neighbour.pulse.clone()
        };
        let (before, end) = (pulse.frames.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while pulse.frames.load(Ordering::Relaxed) == before {
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK_PAUSE).await;
        }
        true
    }

    /// Ends a connection on which nothing comes any more.
    pub(super) fn bury(&self, id: NeighbourId) {
        if let Some(neighbour) = self.state.lock().neighbours.remove(&id) {
            tracing::debug!("a connection is dead: the network has changed");
            neighbour.end.cancel();
        }
    }
}
