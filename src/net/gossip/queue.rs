//! What waits to be sent to a neighbour: bounded, and never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Messages that wait for a slow neighbour; what comes on top is lost to it until the next.
const QUEUE_MAX: usize = 64;
/// The same in bytes.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// What waits to be sent to one neighbour.
#[derive(Clone)]
pub(super) struct Queue {
    messages: mpsc::Sender<Arc<Vec<u8>>>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    /// An empty queue, where its messages come out, and how many bytes wait in it.
    pub(super) fn new() -> (Queue, mpsc::Receiver<Arc<Vec<u8>>>, Arc<AtomicUsize>) {
        let (messages, receiver) = mpsc::channel(QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        (Queue { messages, bytes: bytes.clone() }, receiver, bytes)
    }

    /// Adds a message unless too much is waiting; says whether it did.
    pub(super) fn offer(&self, message: Arc<Vec<u8>>) -> bool {
        let size = message.len();
        if self.bytes.load(Ordering::Relaxed) + size > QUEUE_BYTES_MAX {
            return false;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        let taken = self.messages.try_send(message).is_ok();
        if !taken {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        taken
    }
}
