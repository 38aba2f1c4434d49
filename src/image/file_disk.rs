//! A store's file: locked for one process, sparse.

use super::disk::{Disk, Space};
use super::error::StoreError;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A regular file under an exclusive lock (`flock`), which lasts until the value is dropped. The descriptor is closed
/// on exec, so no child inherits the lock.
pub struct FileDisk {
    file: File,
    path: PathBuf,
    /// Cleared when the filesystem turns out not to punch holes: from then on zeros are written instead.
    punches: AtomicBool,
}

/// How long a store's lock is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl FileDisk {
    /// Makes a new, empty file, readable by its owner alone; its name is durable on return.
    pub fn create(path: &Path) -> Result<FileDisk, StoreError> {
        let name = path.display().to_string();
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists { file: name.clone() },
            _ => StoreError::io(&name, "creating", 0, error),
        })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| StoreError::io(&name, "recording the new name of", 0, error))?;
        FileDisk::lock(file, path)
    }

    /// Opens an existing file.
    pub fn open(path: &Path) -> Result<FileDisk, StoreError> {
        let name = path.display().to_string();
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { file: name.clone() },
            _ => StoreError::io(&name, "opening", 0, error),
        })?;
        FileDisk::lock(file, path)
    }

    fn lock(file: File, path: &Path) -> Result<FileDisk, StoreError> {
        // A process that was killed may hold the lock until the last of its threads is gone.
        let end = Instant::now() + LOCK_PATIENCE;
        let mut outcome = file.try_lock();
        while matches!(outcome, Err(TryLockError::WouldBlock)) && Instant::now() < end {
            std::thread::sleep(LOCK_PAUSE);
            outcome = file.try_lock();
        }
        match outcome {
            Ok(()) => Ok(FileDisk { file, path: path.to_owned(), punches: AtomicBool::new(true) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { file: path.display().to_string() }),
            Err(TryLockError::Error(error)) => {
                Err(StoreError::io(&path.display().to_string(), "locking", 0, error))
            }
        }
    }

    fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = (offset + bytes).min(self.length()?);
        let mut at = offset;
        while at < end {
            let count = (end - at).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }
}

impl Disk for FileDisk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        if self.punches.load(Ordering::Relaxed) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&self.file, flags, offset, bytes) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    self.punches.store(false, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        self.write_zeros(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::fstatvfs(&self.file)?;
        Ok(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_opening_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        assert!(matches!(FileDisk::open(&path), Err(StoreError::Missing { .. })));
        let first = FileDisk::create(&path).unwrap();
        assert!(matches!(FileDisk::create(&path), Err(StoreError::Exists { .. })));
        assert!(matches!(FileDisk::open(&path), Err(StoreError::Locked { .. })));
        drop(first);
        FileDisk::open(&path).unwrap();
    }

    #[test]
    fn reads_beyond_the_end_and_after_a_discard_are_zero() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FileDisk::create(&folder.path().join("database")).unwrap();
        disk.write_at(10, &[7; 100_000]).unwrap();
        for by_hand in [false, true] {
            disk.punches.store(!by_hand, Ordering::Relaxed);
            disk.write_at(10, &[7; 100_000]).unwrap();
            disk.discard(50_000, 80_000).unwrap();
            assert_eq!(disk.length().unwrap(), 100_010);
            let mut buffer = vec![1; 110_000];
            disk.read_at(0, &mut buffer).unwrap();
            assert!(buffer[10..50_000].iter().all(|byte| *byte == 7));
            assert!(buffer[50_000..].iter().all(|byte| *byte == 0));
        }
    }
}
