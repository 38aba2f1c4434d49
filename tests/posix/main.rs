//! The mount beside a local disk: test suites of others, and programs that people use, on a real mount of the built
//! binary. Needs root, `/dev/fuse` and the tools that `scripts/test` installs; where one is missing, a test fails.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod access_lists;
mod fstab;
mod fsx;
mod locks;
mod owners;
mod pjdfstest;
mod programs;
mod stage;
