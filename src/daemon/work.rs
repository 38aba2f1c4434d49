//! What an engine has done since its start, counted.

use std::sync::atomic::AtomicU64;

/// Work done since the start.
#[derive(Default)]
pub struct Work {
    /// Versions published.
    pub published: AtomicU64,
    /// Versions adopted.
    pub adopted: AtomicU64,
    /// Versions merged.
    pub merged: AtomicU64,
    /// Records put that this device signed.
    pub puts: AtomicU64,
    /// Records and lifelines put back as they were.
    pub reputs: AtomicU64,
    /// Older versions that went since the disk was full.
    pub let_go: AtomicU64,
    /// Commits of the store.
    pub commits: AtomicU64,
    /// Batches written to the intent log.
    pub logged: AtomicU64,
}
