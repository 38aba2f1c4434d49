//! What waits to be sent to a neighbour: bounded, and never waited for, but by what is long and can wait.

use super::message::Message;
use super::neighbours::{Gossip, NeighbourId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, mpsc};

/// Messages that wait for a slow neighbour; what comes on top is lost to it until the next.
const QUEUE_MAX: usize = 64;
/// The same in bytes.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// What can wait is added while no more than this waits, in messages and in bytes: enough to keep a line busy, and news
/// that come next are not late.
const CALM: usize = 8;
const CALM_BYTES: usize = 256 << 10;

/// What waits to be sent to one neighbour.
#[derive(Clone)]
pub(super) struct Queue {
    messages: mpsc::Sender<Arc<Vec<u8>>>,
    waiting: Arc<Waiting>,
}

/// How much that is.
#[derive(Default)]
pub(super) struct Waiting {
    bytes: AtomicUsize,
    less: Notify,
}

impl Waiting {
    /// A message was taken out to be sent.
    pub(super) fn took(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.less.notify_waiters();
    }
}

impl Queue {
    /// An empty queue, where its messages come out, and how much waits in it.
    pub(super) fn new() -> (Queue, mpsc::Receiver<Arc<Vec<u8>>>, Arc<Waiting>) {
        let (messages, receiver) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::<Waiting>::default();
        (Queue { messages, waiting: waiting.clone() }, receiver, waiting)
    }

    /// Adds a message unless too much is waiting; says whether it did.
    pub(super) fn offer(&self, message: Arc<Vec<u8>>) -> bool {
        let size = message.len();
        if self.waiting.bytes.load(Ordering::Relaxed) + size > QUEUE_BYTES_MAX {
            return false;
        }
        self.waiting.bytes.fetch_add(size, Ordering::Relaxed);
        let taken = self.messages.try_send(message).is_ok();
        if !taken {
            self.waiting.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        taken
    }

    /// Waits until little waits, or nobody takes anything out any more.
    async fn calm(&self) {
        loop {
            // Listened to before it is looked: what is taken out in between is not missed.
            let less = self.waiting.less.notified();
            let count = QUEUE_MAX - self.messages.capacity();
            if count <= CALM && self.waiting.bytes.load(Ordering::Relaxed) <= CALM_BYTES {
                return;
            }
            tokio::select! {
                () = less => {}
                () = self.messages.closed() => return,
            }
        }
    }
}

impl Gossip {
    /// Says something that can wait to one neighbour: once little else waits to be sent to it. Tells whether it was
    /// still connected then.
    pub async fn pass(&self, to: NeighbourId, message: &Message) -> bool {
        let Some(queue) = self.queue_of(to) else { return false };
        queue.calm().await;
        queue.offer(Arc::new(message.encode()))
    }
}
