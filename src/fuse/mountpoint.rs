//! The directory that a database is mounted on: what is there now, and how to take a mount off it.

use super::MountError;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The filesystem type that our mounts show: `findmnt -t fuse.kilofs` lists them.
pub(super) const KIND: &str = "fuse.kilofs";
/// The setuid helper of libfuse 3, through which ordinary users mount.
pub(super) const HELPER: &str = "fusermount3";
/// How long a mount may take to answer `stat` before it counts as hung.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How many dead mounts may be stacked on one directory before we give up.
const STACKED_MAX: usize = 16;

/// One line of the kernel's mount table.
pub(super) struct MountLine {
    /// Where it is mounted.
    pub path: PathBuf,
    /// `fuse.kilofs`, `ext4`, …
    pub kind: String,
    /// Major and minor device number, `0:53`.
    pub device: String,
    /// What it shows: the name of the database, unless the option `fsname` gave another one.
    pub source: String,
}

/// How hard to pull.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmount {
    /// Only if nobody uses it.
    Gently,
    /// Out of sight at once, and gone when the last user is.
    Lazily,
}

/// Takes dead mounts off `dir` (their process ended without unmounting); true if there were any.
pub fn clear_stale(dir: &Path) -> Result<bool, MountError> {
    let path = resolve(dir)?;
    for cleared in 0..STACKED_MAX {
        match answer(&path)? {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => take_off(&path, Unmount::Lazily)?,
            _ => return Ok(cleared > 0),
        }
    }
    Err(MountError::Busy(path))
}

/// The directory that a database may be mounted on, in its canonical form; dead mounts are cleared on the way.
/// A directory that is not empty is taken: what is in it is hidden until the unmount.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf, MountError> {
    clear_stale(dir)?;
    let path = resolve(dir)?;
    match answer(&path)? {
        Ok(true) => {}
        Ok(false) => return Err(MountError::NotDirectory(path)),
        Err(Errno::NOENT) => return Err(MountError::Missing(path)),
        Err(error) => return Err(MountError::system("look at the mountpoint", &path, error)),
    }
    if top_mount(&path).is_some_and(|line| line.kind == KIND) {
        return Err(MountError::AlreadyMounted(path));
    }
    if std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
        tracing::warn!(path = %path.display(), "the mountpoint is not empty; its files are hidden until the unmount");
    }
    Ok(path)
}

/// Takes the kilofs mount off `dir`.
pub fn unmount(dir: &Path, how: Unmount) -> Result<(), MountError> {
    let path = resolve(dir)?;
    match top_mount(&path) {
        Some(line) if line.kind.starts_with("fuse") => take_off(&path, how),
        _ => Err(MountError::NotMounted(path)),
    }
}

/// Our mounts that nobody answers for any more: all, or those that show one database.
pub fn dead_mounts(of: Option<&str>) -> Vec<PathBuf> {
    let ours =
        table().into_iter().filter(|line| line.kind == KIND && of.is_none_or(|name| line.source == name));
    let dead = |path: &PathBuf| matches!(answer(path), Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)));
    ours.map(|line| line.path).filter(dead).collect()
}

/// The mount that is uppermost at exactly `path`.
pub(super) fn top_mount(path: &Path) -> Option<MountLine> {
    table().into_iter().rfind(|line| line.path == path)
}

fn table() -> Vec<MountLine> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mount/point options … - type source options` (proc_pid_mountinfo(5)).
fn parse_line(line: &[u8]) -> Option<MountLine> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = words.iter().position(|word| *word == b"-")?;
    Some(MountLine {
        path: PathBuf::from(OsString::from_vec(unescape(words.get(4)?))),
        kind: String::from_utf8_lossy(words.get(dash + 1)?).into_owned(),
        device: String::from_utf8_lossy(words.get(2)?).into_owned(),
        source: String::from_utf8_lossy(&unescape(words.get(dash + 2)?)).into_owned(),
    })
}

/// Undoes the kernel's `\040`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match tail.get(..3).filter(|_| *first == b'\\').and_then(octal) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// The canonical path of `dir`, without touching what is mounted there: a dead mount answers nothing.
fn resolve(dir: &Path) -> Result<PathBuf, MountError> {
    let plain = std::fs::symlink_metadata(dir);
    let failure = plain.as_ref().err().and_then(Errno::from_io_error);
    let stale = matches!(failure, Some(Errno::NOTCONN | Errno::CONNABORTED));
    let (Some(name), true) = (dir.file_name(), stale) else {
        return dir.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => MountError::Missing(dir.to_owned()),
            _ => MountError::system("find the mountpoint", dir, error),
        });
    };
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent =
        parent.canonicalize().map_err(|error| MountError::system("find the mountpoint", dir, error))?;
    Ok(parent.join(name))
}

/// Whether `path` is a directory. Asked in a thread of its own, because a hung mount never answers, and past the
/// kernel's cache, because that answers for a dead one.
fn answer(path: &Path) -> Result<Result<bool, Errno>, MountError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let asked = path.to_owned();
    std::thread::spawn(move || {
        let answer = rustix::fs::statx(CWD, &asked, AtFlags::STATX_FORCE_SYNC, StatxFlags::TYPE)
            .map(|stat| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory);
        // The asker may have given up.
        let _ = sender.send(answer);
    });
    let unresponsive = |_| MountError::Unresponsive { path: path.to_owned(), waited: ANSWER_WAIT };
    receiver.recv_timeout(ANSWER_WAIT).map_err(unresponsive)
}

/// Unmounts what is at `path`: directly as root, through the helper as anybody else.
pub(super) fn take_off(path: &Path, how: Unmount) -> Result<(), MountError> {
    let flags = match how {
        Unmount::Gently => UnmountFlags::NOFOLLOW,
        Unmount::Lazily => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy(path.to_owned())),
        Err(Errno::INVAL) => Err(MountError::NotMounted(path.to_owned())),
        Err(Errno::PERM) => take_off_with_helper(path, how),
        Err(error) => Err(MountError::system("unmount", path, error)),
    }
}

fn take_off_with_helper(path: &Path, how: Unmount) -> Result<(), MountError> {
    let mut command = Command::new(HELPER);
    command.arg(if how == Unmount::Lazily { "-uz" } else { "-u" }).arg("--").arg(path).stdin(Stdio::null());
    let output = command.output().map_err(MountError::Helper)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(MountError::Busy(path.to_owned())),
        false => Err(MountError::HelperRefused(said.trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_of_the_mount_table() {
        let line = parse_line(
            br"36 35 0:53 / /mnt/two\040words\134 rw,nosuid shared:7 - fuse.kilofs name rw,user_id=0",
        );
        let line = line.unwrap();
        assert_eq!(line.path, Path::new("/mnt/two words\\"));
        assert_eq!((line.kind.as_str(), line.device.as_str()), (KIND, "0:53"));
        for odd in [&b""[..], b"36 35 - ", b"- -", b"1 2 3 4 5 6 7"] {
            assert!(parse_line(odd).is_none_or(|line| line.kind.is_empty()), "{odd:?}");
        }
        assert!(top_mount(Path::new("/proc")).is_some());
    }

    #[test]
    fn what_cannot_be_mounted_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(prepare(&file), Err(MountError::NotDirectory(_))));
        assert!(matches!(prepare(&dir.path().join("none")), Err(MountError::Missing(_))));
        assert!(matches!(unmount(dir.path(), Unmount::Gently), Err(MountError::NotMounted(_))));
        assert!(!clear_stale(dir.path()).unwrap());
        assert_eq!(prepare(dir.path()).unwrap(), dir.path().canonicalize().unwrap());
    }
}
