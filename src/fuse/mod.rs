//! Floor 4: a tree as a directory of this machine. Decodes the kernel's requests, calls the tree, replies; tells the
//! kernel what changed elsewhere. What must not be known here: versions, torrents, keys, the network.

mod acl;
mod adapter;
mod attr;
mod attributes;
mod device;
mod errno;
mod error;
mod faults;
mod files;
mod holders;
mod host;
mod init;
mod known;
mod lane;
mod loans;
mod message;
mod mount;
mod mountpoint;
mod names;
mod notify;
mod options;
mod owners;
mod reply;
mod shared;
mod shelf;

pub use error::MountError;
pub use host::{Host, Provenance, Reading, RefusedEntry, VersionEntry};
pub use mount::{Mounted, mount};
pub use mountpoint::{Unmount, clear_stale, dead_mounts, unmount};
pub use options::{Audience, MountOptions};
pub use owners::{IdMap, IdTable, OwnerOptions};
