//! What we agree on with the kernel when a mount begins.

use fuser::{InitFlags, KernelConfig};
use std::time::Duration;

/// How long the kernel may keep names, attributes and the absence of names. Remote changes are pushed, so this only
/// bounds the harm of a notification that never came.
pub(super) const CACHE_FOR: Duration = Duration::from_secs(3600);
/// Measured: 128 KiB leave one thread waiting, more than 512 KiB make single requests that one thread opens alone.
pub(super) const READ_AHEAD_KIB: u32 = 256;
/// Threads that answer the kernel, each with a descriptor of its own.
pub(super) const THREADS: usize = 2;

/// Largest write request, in bytes; the kernel allows no more.
const WRITE_BYTES_MAX: u32 = 1 << 20;
const READAHEAD_BYTES_MAX: u32 = 1 << 20;
const BACKGROUND_REQUESTS_MAX: u16 = 64;
const CONGESTED_AT_REQUESTS: u16 = 48;

/// Caching that we steer ourselves, and fewer round trips. Left out on purpose:
/// - `WRITEBACK_CACHE`: with it the kernel keeps its own size and time of a file that somebody holds open, and
///   writes its dirty pages over a remote version while it is being told of that version;
/// - `NO_OPEN_SUPPORT`: every open must reach us, or a read-only block could not refuse it;
/// - `AUTO_INVAL_DATA`: it drops pages whenever a time stamp moves, which we say ourselves;
/// - `POSIX_LOCKS`, `FLOCK_LOCKS`: locks are local, so the kernel keeps them.
const WANTED: InitFlags = InitFlags::FUSE_ATOMIC_O_TRUNC
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2);

/// Asks for all that this kernel has of what we want.
pub(super) fn configure(kernel: &mut KernelConfig) {
    if let Err(unsupported) = kernel.add_capabilities(WANTED) {
        tracing::debug!(?unsupported, "an older kernel: doing without");
        if kernel.add_capabilities(WANTED & !unsupported).is_err() {
            tracing::warn!("the kernel took none of our capabilities");
        }
    }
    // Each refusal names the nearest value that is allowed.
    if let Err(nearest) = kernel.set_max_write(WRITE_BYTES_MAX) {
        let _ = kernel.set_max_write(nearest);
    }
    if let Err(nearest) = kernel.set_max_readahead(READAHEAD_BYTES_MAX) {
        let _ = kernel.set_max_readahead(nearest);
    }
    let _ = kernel.set_max_background(BACKGROUND_REQUESTS_MAX);
    let _ = kernel.set_congestion_threshold(CONGESTED_AT_REQUESTS);
    tracing::debug!(abi = ?kernel.kernel_abi(), capabilities = ?kernel.capabilities(), "the kernel's FUSE");
}
