//! A disk that loses what was not synced.

use super::disk::{Disk, MemoryDisk, Space};
use parking_lot::Mutex;
use std::io;

/// A disk in memory that remembers every change since the last sync, so that a power cut can be played: any of those
/// changes may be lost, in any combination, and a write may be torn at a sector's edge.
#[derive(Default)]
pub struct CrashDisk {
    now: MemoryDisk,
    synced: Mutex<Synced>,
}

#[derive(Default)]
struct Synced {
    disk: MemoryDisk,
    since: Vec<Change>,
}

enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
    Discard(u64, u64),
}

/// The unit in which real disks write whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What becomes of one unsynced change in a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It had reached the disk.
    Kept,
    /// Only its first half had.
    Torn,
    /// It is gone.
    Lost,
}

impl CrashDisk {
    /// An empty disk.
    pub fn new() -> CrashDisk {
        CrashDisk::default()
    }

    /// How many changes have not been synced.
    pub fn unsynced(&self) -> usize {
        self.synced.lock().since.len()
    }

    /// The disk as a power cut now would leave it; `fate` is asked about each unsynced change, oldest first.
    pub fn crash(&self, mut fate: impl FnMut() -> Fate) -> MemoryDisk {
        let synced = self.synced.lock();
        let disk = synced.disk.clone();
        for change in &synced.since {
            let outcome = match fate() {
                Fate::Lost => Ok(()),
                Fate::Kept => change.apply(&disk),
                Fate::Torn => match change {
                    Change::Write(offset, bytes) => {
                        let half = (bytes.len() / 2).next_multiple_of(SECTOR_BYTES).min(bytes.len());
                        disk.write_at(*offset, &bytes[..half])
                    }
                    Change::Length(_) | Change::Discard(..) => Ok(()),
                },
            };
            outcome.expect("memory takes every change");
        }
        disk
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut synced = self.synced.lock();
        change.apply(&self.now)?;
        synced.since.push(change);
        Ok(())
    }
}

impl Change {
    fn apply(&self, disk: &MemoryDisk) -> io::Result<()> {
        match self {
            Change::Write(offset, bytes) => disk.write_at(*offset, bytes),
            Change::Length(bytes) => disk.set_length(*bytes),
            Change::Discard(offset, bytes) => disk.discard(*offset, *bytes),
        }
    }
}

impl Disk for CrashDisk {
    fn name(&self) -> String {
        "a disk that may crash".to_owned()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.now.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }

    fn length(&self) -> io::Result<u64> {
        self.now.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::Length(bytes))
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(Change::Discard(offset, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        let mut synced = self.synced.lock();
        let since = std::mem::take(&mut synced.since);
        since.iter().try_for_each(|change| change.apply(&synced.disk))
    }

    fn space(&self) -> io::Result<Space> {
        self.now.space()
    }
}
