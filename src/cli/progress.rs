//! A sign of life for a person: a spinner, or a bar where the amount is known, after a second and on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

/// How far something is: bytes done, bytes in all. Nothing while that is unknown.
pub type Meter = Box<dyn FnMut() -> Option<(u64, u64)> + Send>;

/// Shown until it is dropped.
pub struct Progress {
    worker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// A spinner beside `what`.
    pub fn start(what: &str) -> Progress {
        Progress::metered(what, Box::new(|| None))
    }

    /// A bar beside `what` whenever `meter` knows how far it is, a spinner else.
    pub fn metered(what: &str, meter: Meter) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { worker: None };
        }
        let (end, ended) = channel();
        let what = what.to_owned();
        let thread = std::thread::spawn(move || show(&what, meter, &ended));
        Progress { worker: Some((end, thread)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.worker.take() {
            drop(end);
            // A thread that only draws has nothing to say about its end.
            _ = thread.join();
        }
    }
}

fn show(what: &str, mut meter: Meter, ended: &Receiver<()>) {
    if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let mut is_bar = false;
    loop {
        if let Some((done, total)) = meter() {
            if let (false, Ok(style)) = (is_bar, &style) {
                bar.set_style(style.clone());
                is_bar = true;
            }
            bar.set_length(total);
            bar.set_position(done);
        }
        bar.tick();
        if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            bar.finish_and_clear();
            return;
        }
    }
}
