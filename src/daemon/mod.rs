//! Floor 5: an engine is one database at work, mounted or mirrored. It drives what `sync` decides, serves commands on
//! its control socket, and owns what the store's superblock points to.

mod adopt;
pub mod answers;
pub mod cache;
pub mod client;
mod collide;
mod commands;
pub mod config;
mod conflicts;
pub mod control;
pub mod core;
mod delta;
mod doorbell;
mod drive;
pub mod engine;
mod error;
mod exchange;
mod genesis;
mod graft;
mod guard;
mod history;
pub mod home;
mod host;
mod inspect;
pub mod intents;
mod keys;
pub mod label;
pub mod launch;
mod near;
mod policy;
mod publish;
mod push;
mod repair;
mod report;
mod restore;
pub mod setup;
mod share;
mod standing;
pub mod state;
pub mod status;
mod supplement;
mod take;
mod transfer;
pub mod versions;

pub use error::EngineError;
pub use publish::Made;
