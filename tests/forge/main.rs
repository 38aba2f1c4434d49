//! A thief who holds the write link, a device of his own and this library, and keeps no rule: whatever he publishes,
//! what the policy protects stays as it is at everybody, and at whoever joins afterwards.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod allowance;
mod asks;
mod attacks;
mod claims;
mod eclipse;
mod flood;
mod forgeries;
mod grows;
#[allow(dead_code)]
#[path = "../e2e/harness.rs"]
mod harness;
mod hidden;
mod liar;
mod lies;
mod minute;
mod moves;
mod observer;
mod owners;
#[allow(dead_code)]
#[path = "../e2e/process.rs"]
mod process;
mod stage;
mod thief;
mod version;
