//! The errno for each reason to say no. The only place where one is chosen.

use crate::tree::TreeError;
use fuser::Errno;

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The tree said so.
    Tree(TreeError),
    /// The shelf is there to be read.
    ReadOnlyShelf,
    /// The kernel asks for an inode that a version from elsewhere has taken away. It looks the name up again, which
    /// may lead to another inode by now, where ENOENT would tell a program that the name is gone.
    Stale,
    /// A program that runs is to be emptied.
    Running,
}

/// The refusal of a request that names an inode, not a name.
pub(super) fn of_inode(error: TreeError) -> Refusal {
    match error {
        TreeError::NotFound => Refusal::Stale,
        other => Refusal::Tree(other),
    }
}

impl From<TreeError> for Refusal {
    fn from(error: TreeError) -> Refusal {
        Refusal::Tree(error)
    }
}

/// The number that the caller sees. What is wrong with the bytes and not with the request goes to the log.
pub(super) fn errno(refusal: &Refusal) -> Errno {
    let error = match refusal {
        Refusal::Tree(error) => error,
        Refusal::ReadOnlyShelf => return Errno::EROFS,
        Refusal::Stale => return Errno::ESTALE,
        Refusal::Running => return Errno::ETXTBSY,
    };
    let errno = tree_errno(error);
    // Who was to bring absent bytes has said that they did not come.
    if errno == Errno::EIO && !matches!(error, TreeError::Absent(_)) {
        tracing::warn!(%error, "a request failed");
    }
    errno
}

fn tree_errno(error: &TreeError) -> Errno {
    match error {
        TreeError::NotFound => Errno::ENOENT,
        TreeError::Exists => Errno::EEXIST,
        TreeError::NotDirectory => Errno::ENOTDIR,
        TreeError::IsDirectory => Errno::EISDIR,
        TreeError::NotEmpty => Errno::ENOTEMPTY,
        TreeError::ReadOnlyBlock(_) => Errno::EROFS,
        TreeError::Closed(_) => Errno::EACCES,
        TreeError::CrossBlock => Errno::EXDEV,
        TreeError::Busy => Errno::EBUSY,
        TreeError::NameTooLong => Errno::ENAMETOOLONG,
        TreeError::Invalid => Errno::EINVAL,
        TreeError::NotPermitted | TreeError::Fixed(_) => Errno::EPERM,
        TreeError::Unsupported => Errno::EOPNOTSUPP,
        TreeError::NoSpace => Errno::ENOSPC,
        TreeError::QuotaExceeded(_) => Errno::EDQUOT,
        TreeError::NoData => Errno::NO_XATTR,
        TreeError::TooBig => Errno::EFBIG,
        TreeError::ValueTooLarge => Errno::E2BIG,
        TreeError::NoSuchOffset => Errno::ENXIO,
        TreeError::TooManyLinks => Errno::EMLINK,
        TreeError::Tampered { .. }
        | TreeError::Malformed { .. }
        | TreeError::ForeignInode { .. }
        | TreeError::Absent(_)
        | TreeError::Store(_)
        | TreeError::Map(_) => Errno::EIO,
    }
}
