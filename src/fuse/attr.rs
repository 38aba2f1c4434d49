//! Attributes and times between the tree's words and the kernel's.

use crate::tree::{Attr, FileType, Timestamp};
use fuser::{FileAttr, INodeNo, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `stat` says is the best size to read and write, in bytes: the readahead.
const GOOD_TRANSFER_BYTES: u32 = 128 << 10;

/// The attributes as the kernel wants them.
pub(super) fn to_kernel(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.inode.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: to_system_time(attr.atime),
        mtime: to_system_time(attr.mtime),
        ctime: to_system_time(attr.ctime),
        crtime: to_system_time(attr.crtime),
        kind: kind(attr.file_type),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: GOOD_TRANSFER_BYTES,
        flags: 0,
    }
}

/// The attributes that say of a name that nothing bears it, and that the kernel may remember so.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The type in the kernel's words.
pub(super) fn kind(file_type: FileType) -> fuser::FileType {
    match file_type {
        FileType::File => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::Char => fuser::FileType::CharDevice,
        FileType::Block => fuser::FileType::BlockDevice,
    }
}

/// A time that a caller sets; `None` for "now".
pub(super) fn chosen_time(time: TimeOrNow) -> Option<Timestamp> {
    match time {
        TimeOrNow::SpecificTime(time) => Some(from_kernel_time(time)),
        TimeOrNow::Now => None,
    }
}

fn to_system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let nanos = Duration::from_nanos(time.nanos.into());
    second.and_then(|second| second.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// The kernel says (seconds, nanoseconds after them). The library turns that, before 1970, into the time that lies
/// seconds *and* nanoseconds before it; taken apart the same way it is what the kernel said.
fn from_kernel_time(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Timestamp {
                seconds: 0i64.saturating_sub_unsigned(before.as_secs()),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_what_the_kernel_said() {
        // What the library makes of (-2 s, 800 ms), which is 1.2 s before 1970.
        let odd = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(from_kernel_time(odd), Timestamp { seconds: -2, nanos: 800_000_000 });
        let real = to_system_time(Timestamp { seconds: -2, nanos: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(real).ok(), Some(Duration::from_millis(1200)));
    }

    #[test]
    fn no_time_is_too_far_away() {
        for (seconds, nanos) in
            [(i64::MAX, 999_999_999), (i64::MIN, 0), (i64::MIN, 1), (0, 0), (-1, 999_999_999)]
        {
            to_system_time(Timestamp { seconds, nanos });
        }
        for far in [Duration::from_secs(i64::MAX as u64), Duration::from_secs(1 << 62)] {
            from_kernel_time(UNIX_EPOCH + far);
            from_kernel_time(UNIX_EPOCH - far);
        }
    }
}
