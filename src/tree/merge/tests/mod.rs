//! Merges of a small model of a filesystem: every pair of operations, and long random histories.

#![allow(clippy::unwrap_used)]

mod histories;
mod model;
mod pairs;
mod rules;
mod stored;
mod unions;
