//! Floor 3: what to do next, decided without clock, dice or wire. [`Machine::handle`] takes an [`Input`] and the time
//! and returns [`Effect`]s; the daemon performs them and reports back. It knows nothing of files, keys or sockets.

mod decide;
mod hear;
mod machine;
mod renew;
#[cfg(test)]
mod reput_tests;
mod signals;
mod timing;

pub use machine::Machine;
pub use signals::{Effect, Fetched, Heard, Input, Poll, PutOutcome, Role};
pub use timing::Timing;

/// Milliseconds since an arbitrary start; only grows.
pub type Millis = u64;
