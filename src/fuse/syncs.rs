//! fsync, so that a slow disk keeps one thread that answers the kernel at most: who comes while another one syncs
//! waits in a lane of its own, and all who wait there are served by one sync.

use super::errno::{Refusal, errno};
use super::host::Host;
use crossbeam_channel::{Receiver, Sender, unbounded};
use fuser::ReplyEmpty;
use parking_lot::Mutex;
use std::sync::Arc;

/// Answers requests to make things durable.
pub(super) struct Syncs {
    host: Arc<dyn Host>,
    /// Held while a request is served by the thread that took it.
    here: Mutex<()>,
    lane: Sender<ReplyEmpty>,
}

impl Syncs {
    /// Starts the lane; its thread ends with the value returned.
    pub(super) fn start(host: Arc<dyn Host>) -> std::io::Result<Syncs> {
        let (lane, waiting) = unbounded();
        let behind = host.clone();
        std::thread::Builder::new().name("kilofs-sync".into()).spawn(move || serve(&*behind, &waiting))?;
        Ok(Syncs { host, here: Mutex::new(()), lane })
    }

    /// Makes all that was written so far durable, then replies.
    pub(super) fn sync(&self, reply: ReplyEmpty) {
        match self.here.try_lock() {
            Some(_alone) => answer([reply], &*self.host),
            None => {
                if let Err(gone) = self.lane.send(reply) {
                    answer([gone.0], &*self.host);
                }
            }
        }
    }
}

fn serve(host: &dyn Host, waiting: &Receiver<ReplyEmpty>) {
    while let Ok(first) = waiting.recv() {
        let replies: Vec<ReplyEmpty> = std::iter::once(first).chain(waiting.try_iter()).collect();
        answer(replies, host);
    }
}

fn answer(replies: impl IntoIterator<Item = ReplyEmpty>, host: &dyn Host) {
    let refused = host.persist().err().map(|error| errno(&Refusal::from(error)));
    for reply in replies {
        match refused {
            None => reply.ok(),
            Some(errno) => reply.error(errno),
        }
    }
}
