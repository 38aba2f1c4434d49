//! What can go wrong between a directory and a mount.

use std::path::PathBuf;
use std::time::Duration;

/// Why a database could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is nothing at the path.
    #[error("{0}: no such directory; make it first (mkdir)")]
    Missing(PathBuf),
    /// Something other than a directory lies there.
    #[error("{0}: not a directory; a database is mounted on a directory")]
    NotDirectory(PathBuf),
    /// A kilofs mount is there and answers.
    #[error("{0}: a database is already mounted here; `kilofs umount` it first")]
    AlreadyMounted(PathBuf),
    /// A kilofs mount is there and does not answer.
    #[error("{path}: the mount here has not answered for {waited:?}; `fusermount3 -uz` detaches it")]
    Unresponsive {
        /// The mountpoint.
        path: PathBuf,
        /// How long it was given.
        waited: Duration,
    },
    /// Files or working directories keep the mount.
    #[error("{0}: in use; close what is open there (fuser -m shows it) and try again")]
    Busy(PathBuf),
    /// Nothing of ours is mounted there.
    #[error("{0}: no database is mounted here")]
    NotMounted(PathBuf),
    /// A word of `-o` that we do not know.
    #[error("mount option `{0}` is unknown; known are {known}", known = super::options::KNOWN)]
    UnknownOption(String),
    /// A word of `-o` whose value makes no sense, or that contradicts another.
    #[error("mount option `{option}` {why}")]
    BadOption {
        /// The word.
        option: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A line of `uidfile=` or `gidfile=` that names nobody, or somebody twice.
    #[error("{file}: `{line}` is no line NAME:ID with a user or group of this machine, each side named once")]
    IdTable {
        /// The file.
        file: PathBuf,
        /// Its line.
        line: String,
    },
    /// The kernel cannot do access lists.
    #[error("this kernel's FUSE does not do access lists; mount without `-o acl`")]
    NoAccessLists,
    /// A word of `-o` that we refuse on purpose.
    #[error("mount option `{0}` is refused: what others share never brings set-user-id programs or devices")]
    RefusedOption(String),
    /// The kernel's FUSE device cannot be opened.
    #[error("/dev/fuse cannot be opened ({0}); load the module (modprobe fuse) or ask who runs this machine")]
    Device(#[source] std::io::Error),
    /// The helper that mounts for ordinary users is not installed.
    #[error("fusermount3 cannot be started ({0}); install the package fuse3")]
    Helper(#[source] std::io::Error),
    /// The helper said no.
    #[error("fusermount3 refused: {0}")]
    HelperRefused(String),
    /// The operating system refused something at a path.
    #[error("{path}: cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel and we did not agree on a protocol.
    #[error("the kernel's FUSE does not go together with ours: {0}")]
    Handshake(#[source] std::io::Error),
}

impl MountError {
    /// Wraps what the system said while `what` was tried at `path`.
    pub(super) fn system(
        what: &'static str,
        path: &std::path::Path,
        source: impl Into<std::io::Error>,
    ) -> Self {
        MountError::System { what, path: path.to_owned(), source: source.into() }
    }
}
