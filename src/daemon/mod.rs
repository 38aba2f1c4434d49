//! Floor 5: an engine is one database at work, mounted or mirrored. It drives what `sync` decides, serves commands on
//! its control socket, and owns what the store's superblock points to.

pub mod answers;
pub mod client;
pub mod config;
pub mod control;
pub mod home;
pub mod launch;
pub mod setup;
pub mod status;
