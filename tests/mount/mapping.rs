//! Shared file mappings for the tests. The one place with unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// A shared mapping of a file's first bytes.
pub struct Mapping {
    start: *mut libc::c_void,
    bytes: usize,
}

impl Mapping {
    /// Maps the first `bytes` of `file`, which must be at least that long and open for both reading and writing.
    pub fn new(file: &File, bytes: usize) -> Mapping {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh address range chosen by the system; checked below.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { start, bytes }
    }

    /// The byte at `at`.
    pub fn get(&self, at: usize) -> u8 {
        assert!(at < self.bytes);
        // SAFETY: within the mapping, which lives as long as `self`; others may change it, hence volatile.
        unsafe { self.start.cast::<u8>().add(at).read_volatile() }
    }

    /// Sets the byte at `at`.
    pub fn set(&self, at: usize, byte: u8) {
        assert!(at < self.bytes);
        // SAFETY: as in `get`.
        unsafe { self.start.cast::<u8>().add(at).write_volatile(byte) }
    }

    /// msync(2): writes changed pages back and waits.
    pub fn sync(&self) {
        // SAFETY: the whole mapping.
        assert_eq!(unsafe { libc::msync(self.start, self.bytes, libc::MS_SYNC) }, 0);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped once.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}
