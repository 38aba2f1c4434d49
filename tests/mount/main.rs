//! Real mounts: a tree behind the kernel, driven through the system's own calls.
//!
//! Needs `/dev/fuse` and root; without them every test passes without having tried anything.

#![allow(clippy::unwrap_used)]

mod blocks;
mod coherence;
mod data;
mod differential;
mod lifetime;
mod mapping;
mod names;
mod promises;
mod shelf;
mod world;
