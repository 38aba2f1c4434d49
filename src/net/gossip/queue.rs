//! What waits to be sent to a neighbour: bounded, and never waited for, but by what is long and can wait. That has a lane
//! of its own, which everything else overtakes.

use super::message::Message;
use super::neighbours::{Gossip, NeighbourId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Messages that wait for a slow neighbour; what comes on top is lost to it until the next.
const QUEUE_MAX: usize = 64;
/// The same in bytes.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// What can wait is added while no more of its kind waits than the line takes in so long, within these bounds: enough to
/// keep the line busy, and who asks for a single piece is not late.
const SLOW_SECONDS: f64 = 0.125;
const SLOW_BYTES_MIN: usize = 256 << 10;
const SLOW_BYTES_MAX: usize = 2 << 20;
/// How fast the line is, is measured over so long.
const MEASURE_PERIOD: Duration = Duration::from_millis(100);

/// What waits to be sent to one neighbour.
#[derive(Clone)]
pub(super) struct Queue {
    messages: mpsc::Sender<Arc<Vec<u8>>>,
    slow: mpsc::UnboundedSender<Arc<Vec<u8>>>,
    waiting: Arc<Waiting>,
}

/// Where that comes out.
pub(super) struct Outlet {
    messages: mpsc::Receiver<Arc<Vec<u8>>>,
    slow: mpsc::UnboundedReceiver<Arc<Vec<u8>>>,
    waiting: Arc<Waiting>,
    /// What has gone down the slow lane since when.
    passed: (Instant, usize),
}

/// How much waits, in bytes.
struct Waiting {
    bytes: AtomicUsize,
    slow_bytes: AtomicUsize,
    /// What may wait in the slow lane.
    slow_max: AtomicUsize,
    less: Notify,
}

impl Queue {
    /// An empty queue, and where its messages come out.
    pub(super) fn new() -> (Queue, Outlet) {
        let (messages, receiver) = mpsc::channel(QUEUE_MAX);
        let (slow, slow_receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting {
            bytes: AtomicUsize::new(0),
            slow_bytes: AtomicUsize::new(0),
            slow_max: AtomicUsize::new(SLOW_BYTES_MIN),
            less: Notify::new(),
        });
        let outlet = Outlet {
            messages: receiver,
            slow: slow_receiver,
            waiting: waiting.clone(),
            passed: (Instant::now(), 0),
        };
        (Queue { messages, slow, waiting }, outlet)
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

    /// Adds a message to the slow lane, once little waits there; whether anybody still takes something out.
    async fn pass(&self, message: Arc<Vec<u8>>) -> bool {
        let mut max = self.waiting.slow_max.load(Ordering::Relaxed);
        loop {
            // Listened to before it is looked: what is taken out in between is not missed.
            let less = self.waiting.less.notified();
            if self.waiting.slow_bytes.load(Ordering::Relaxed) <= max {
                break;
            }
            // Who has to wait waits for room that is worth while.
            max = self.waiting.slow_max.load(Ordering::Relaxed) / 2;
            tokio::select! {
                () = less => {}
                () = self.slow.closed() => return false,
            }
        }
        self.waiting.slow_bytes.fetch_add(message.len(), Ordering::Relaxed);
        self.slow.send(message).is_ok()
    }
}

impl Outlet {
    /// The next message to send; none when nobody can add one any more.
    pub(super) async fn next(&mut self) -> Option<Arc<Vec<u8>>> {
        tokio::select! {
            biased;
            message = self.messages.recv() => {
                let message = message?;
                self.waiting.bytes.fetch_sub(message.len(), Ordering::Relaxed);
                Some(message)
            }
            message = self.slow.recv() => {
                let message = message?;
                self.waiting.slow_bytes.fetch_sub(message.len(), Ordering::Relaxed);
                self.measure(message.len());
                self.waiting.less.notify_waiters();
                Some(message)
            }
        }
    }

    /// So much goes down the slow lane.
    fn measure(&mut self, bytes: usize) {
        let (since, passed) = &mut self.passed;
        *passed += bytes;
        let time = since.elapsed();
        if time >= MEASURE_PERIOD {
            self.waiting.slow_max.store(room(*passed, time), Ordering::Relaxed);
            self.passed = (Instant::now(), 0);
        }
    }
}

/// What may wait for a line that has taken so many bytes in some time.
fn room(bytes: usize, time: Duration) -> usize {
    let fits = bytes as f64 / time.as_secs_f64() * SLOW_SECONDS;
    (fits as usize).clamp(SLOW_BYTES_MIN, SLOW_BYTES_MAX)
}

impl Gossip {
    /// Says something that can wait to one neighbour: once little that can wait waits to be sent to it, and behind all
    /// else that is said meanwhile. Tells whether it was still connected then.
    pub async fn pass(&self, to: NeighbourId, message: &Message) -> bool {
        let Some(queue) = self.queue_of(to) else { return false };
        queue.pass(Arc::new(message.encode())).await
    }

    /// How many bytes of what can wait are best made ready for a neighbour at a time.
    pub fn stride(&self, to: NeighbourId) -> usize {
        self.queue_of(to).map_or(0, |queue| queue.waiting.slow_max.load(Ordering::Relaxed) / 2)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_can_wait_is_overtaken_and_waits_for_room() {
        let (queue, mut outlet) = Queue::new();
        let long = Arc::new(vec![1; SLOW_BYTES_MIN]);
        assert!(queue.pass(long.clone()).await && queue.pass(long.clone()).await);
        let third = tokio::spawn({
            let (queue, long) = (queue.clone(), long.clone());
            async move { queue.pass(long).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "there is no room for a third");
        assert!(queue.offer(Arc::new(vec![2])));
        assert_eq!(*outlet.next().await.unwrap(), [2]);
        assert_eq!(outlet.next().await.unwrap(), long);
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "half of the room has to be free");
        assert_eq!(outlet.next().await.unwrap(), long);
        assert!(third.await.unwrap());
        drop(outlet);
        assert!(!queue.pass(long).await, "nobody is there");
    }

    #[test]
    fn a_fast_line_is_given_more_at_a_time() {
        let second = Duration::from_secs(1);
        assert_eq!(room(100 << 10, second), SLOW_BYTES_MIN);
        assert_eq!(room(8 << 20, second), 1 << 20);
        assert_eq!(room(8 << 20, MEASURE_PERIOD), SLOW_BYTES_MAX);
    }
}
