//! Floor 4: a plain folder of this machine kept in step with a tree, both ways, without FUSE. Three states are compared
//! path by path: the folder, the tree, and the *base*, which is what both were when they were last in step. What must
//! not be known here: versions, torrents, keys, the network.
//!
//! Nothing is overwritten that the base does not know, and nothing is removed that the base does not know. The folder is
//! walked through directory handles that follow no symbolic link, so nothing outside it is ever touched.

mod base;
mod both;
mod error;
mod folder;
#[cfg(test)]
mod folder_tests;
mod mailbox;
mod pull;
mod push;
mod reconcile;
mod rename;
mod report;
mod rules;
mod stamp;
mod worker;
mod write;
mod xattr;

pub use error::ShareError;
pub use report::Report;
pub use worker::{Share, ShareHost, ShareOptions};
