//! Work that may take as long as a slow disk does, and must not take all threads that answer the kernel with it.

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use std::sync::Arc;

type Work = Box<dyn FnOnce() + Send>;

/// One kind of such work. Whoever comes alone does it at once, in the thread that it came with; who comes while that
/// one is at it, or at the work of another lane with the same `here`, waits in line, and the line's own thread does what is left to do.
pub(super) struct Lane {
    here: Arc<Mutex<()>>,
    line: Sender<Work>,
}

impl Lane {
    /// Starts the line's thread; it ends with the value returned.
    pub(super) fn start(name: &str, here: Arc<Mutex<()>>) -> std::io::Result<Lane> {
        let (line, waiting) = unbounded();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || serve(&waiting))?;
        Ok(Lane { here, line })
    }

    /// Does the work, now or soon.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        match self.here.try_lock() {
            Some(_alone) => work(),
            None => {
                if let Err(refused) = self.line.send(Box::new(work)) {
                    (refused.0)();
                }
            }
        }
    }
}

fn serve(waiting: &Receiver<Work>) {
    while let Ok(work) = waiting.recv() {
        work();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_thread_at_most_is_kept() {
        let lane = Arc::new(Lane::start("test", Arc::default()).unwrap());
        let (open, gate) = unbounded::<()>();
        let (done, all) = unbounded();
        std::thread::scope(|scope| {
            let first = lane.clone();
            let (entered, inside) = unbounded();
            let (slow, told) = (gate.clone(), done.clone());
            scope.spawn(move || {
                first.run(move || {
                    entered.send(()).unwrap();
                    slow.recv().unwrap();
                    told.send(0).unwrap();
                });
            });
            inside.recv().unwrap();
            for number in 1..50 {
                let (slow, told) = (gate.clone(), done.clone());
                // Returns although nothing can be done before the gate opens.
                lane.run(move || {
                    slow.recv().unwrap();
                    told.send(number).unwrap();
                });
            }
            (0..50).for_each(|_| open.send(()).unwrap());
            let mut numbers: Vec<u32> = (0..50).map(|_| all.recv().unwrap()).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        });
    }
}
