//! kilofs: shared folders that need no server and no account.

pub mod base;
