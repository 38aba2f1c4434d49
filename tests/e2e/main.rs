//! What a person does, done with the built binary: real mounts, real loopback networks, one home a device. Nothing here
//! measures time; deadlines are bounds on waiting.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod admins;
mod allowance;
mod alone;
mod append;
mod aside;
mod bulk;
mod crash;
mod demand;
mod far;
mod fleet;
mod harness;
mod haul;
mod hidden;
mod hook;
mod interop;
mod invite;
mod journey;
mod keys;
mod kills;
mod leaks;
mod many;
mod mirror;
mod modes;
mod moved_border;
mod names;
mod near;
mod policies_random;
mod policy;
mod private;
mod process;
mod programs;
mod prometheus;
mod promises;
mod push;
mod quota;
mod rates;
mod reach;
mod reader;
mod repair;
mod rivals;
mod rotate;
mod share;
mod share_faults;
mod share_random;
mod shut;
mod storm;
mod subtree;
mod terminal;
mod together;
mod trees;
mod unaware;
mod watch;
mod words;
