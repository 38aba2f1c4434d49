//! The intent log: a ring of slots that takes sealed batches between two commits, each in one write and one sync.
//!
//! A batch lies at a *position* that only grows; modulo the ring's length that is its place. Everything from the start
//! that the newest superblock names up to the first batch that is not whole counts; what an older lap left behind never
//! does, because every batch carries its position and a checksum over both.

use super::error::StoreError;
use super::slots::{HEAD_SLOT, SlotPin};
use super::store::Store;
use crate::base::{DatabaseId, REGION_BYTES, Reader, SlotIndex, Writer};
use std::sync::Arc;

/// Slots of the ring, of 1 MiB each.
pub(super) const RING_SLOTS: usize = 8;
/// Batches begin at multiples of that: what a power cut tears never shares a sector with what was synced before.
pub(super) const SECTOR_BYTES: u64 = 512;
/// No position is above: what a manifest says must not overflow.
pub(super) const POSITION_MAX: u64 = 1 << 62;
const MAGIC: &[u8; 8] = b"kilofslg";
const CHECKSUM_BYTES: usize = 32;
const HEAD_BYTES: usize = 8 + 8 + 4 + CHECKSUM_BYTES;
/// Positions of a ring begin at the number of the commit that made it, shifted so far: no two rings of a store share
/// one.
const GENERATION_SHIFT: u32 = 32;

/// The slots of the log. They are free when no commit names them any more.
pub(super) struct Ring {
    slots: Vec<SlotPin>,
}

/// Where the log of a commit lies and begins.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) ring: Arc<Ring>,
    /// Position of the first batch that the commit does not hold.
    pub(super) start: u64,
}

/// The log as it is written to.
#[derive(Default)]
pub(super) struct LogTail {
    ring: Option<Arc<Ring>>,
    /// Where the newest commit begins to need batches.
    start: u64,
    /// Where the one before it does: they stay for the case that the newest turns out to be damaged.
    older_start: u64,
    /// Somebody has looked at what lies in the ring, or it is new: `next` is the end.
    read: bool,
    /// Position of the next batch.
    next: u64,
}

impl Ring {
    pub(super) fn new(slots: Vec<SlotPin>) -> Ring {
        Ring { slots }
    }

    /// Its slots in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.slots.iter().map(SlotPin::index)
    }

    fn bytes(&self) -> u64 {
        self.slots.len() as u64 * REGION_BYTES
    }

    /// Visits the parts of a range that each lie in one slot: (slot, first byte in it, range of the caller's buffer).
    fn parts(
        &self,
        position: u64,
        bytes: usize,
    ) -> impl Iterator<Item = (SlotIndex, u32, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == bytes {
                return None;
            }
            let at = (position + done as u64) % self.bytes();
            let within = at % REGION_BYTES;
            let count = (bytes - done).min((REGION_BYTES - within) as usize);
            let range = done..done + count;
            done += count;
            Some((self.slots[(at / REGION_BYTES) as usize].index(), within as u32, range))
        })
    }
}

fn sectors(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SECTOR_BYTES)
}

fn checksum(database: &DatabaseId, position: u64, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 intent log batch");
    hasher.update(database.as_bytes()).update(&position.to_le_bytes()).update(payload);
    *hasher.finalize().as_bytes()
}

impl Store {
    /// Where the next batch will lie.
    pub fn log_end(&self) -> u64 {
        self.log.lock().next
    }

    /// Appends a batch to the intent log; on return it survives a power cut. Returns its position.
    /// [`StoreError::LogFull`] where a commit has to make room first.
    pub fn log_append(&self, payload: &[u8]) -> Result<u64, StoreError> {
        self.check_synced()?;
        let full = || StoreError::LogFull { file: self.file.clone() };
        let mut log = self.log.lock();
        let ring = log.ring.clone().filter(|_| log.read).ok_or_else(full)?;
        let position = log.next;
        let bytes = sectors(HEAD_BYTES + payload.len());
        if position + bytes - log.older_start > ring.bytes() {
            return Err(full());
        }
        let length = u32::try_from(payload.len()).map_err(|_| full())?;
        let mut writer = Writer::new();
        writer.raw(MAGIC).u64(position).u32(length);
        writer.raw(&checksum(&self.database(), position, payload)).raw(payload);
        for (slot, start, range) in ring.parts(position, writer.0.len()) {
            self.write_slot(slot, start, &writer.0[range])?;
        }
        log.next = position + bytes;
        self.sync()?;
        Ok(position)
    }

    /// The batches that the newest commit does not hold, oldest first: what a power cut left of them.
    pub fn log_batches(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let mut log = self.log.lock();
        let Some(ring) = log.ring.clone() else { return Ok(Vec::new()) };
        let mut batches = Vec::new();
        log.next = log.start;
        while let Some(payload) = self.log_batch(&ring, log.next, log.start)? {
            let position = log.next;
            log.next += sectors(HEAD_BYTES + payload.len());
            batches.push((position, payload));
        }
        log.read = true;
        Ok(batches)
    }

    /// The batch at a position, if there is a whole one.
    fn log_batch(&self, ring: &Ring, position: u64, start: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let room = ring.bytes() - (position - start);
        if room < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let head = self.log_read(ring, position, HEAD_BYTES)?;
        let mut reader = Reader::new(&head);
        let mut parse = || Ok((reader.array::<8>()?, reader.u64()?, reader.u32()?, reader.array()?));
        let Ok((magic, at, length, sum)) = parse() as Result<_, crate::base::Malformed> else {
            return Ok(None);
        };
        if magic != *MAGIC || at != position || HEAD_BYTES as u64 + u64::from(length) > room {
            return Ok(None);
        }
        let mut bytes = self.log_read(ring, position, HEAD_BYTES + length as usize)?;
        let payload = bytes.split_off(HEAD_BYTES);
        Ok((checksum(&self.database(), position, &payload) == sum).then_some(payload))
    }

    fn log_read(&self, ring: &Ring, position: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let mut buffer = vec![0; bytes];
        for (slot, start, range) in ring.parts(position, bytes) {
            self.read_slot(Some(slot), REGION_BYTES as u32, start, &mut buffer[range])?;
        }
        Ok(buffer)
    }

    /// The log that a commit is to name, when batches before `start` are held by it. A ring is made where there is none,
    /// if there is room for one.
    pub(super) fn log_for(&self, start: u64, generation: u64) -> Option<Log> {
        let mut log = self.log.lock();
        let empty = log.read && start >= log.next;
        let highest = |ring: &Ring| ring.slots().max().unwrap_or(HEAD_SLOT);
        let made = match &log.ring {
            Some(ring) if empty && self.slots().is_roomy(highest(ring)) => {
                self.new_ring().ok().filter(|nearer| highest(nearer) < highest(ring))
            }
            Some(_) => None,
            None => self.new_ring().ok(),
        };
        if let Some(ring) = made {
            let first = generation << GENERATION_SHIFT;
            *log = LogTail { ring: None, start: first, older_start: first, next: first, read: true };
            return Some(Log { ring: Arc::new(ring), start: first });
        }
        let ring = log.ring.clone()?;
        Some(Log { ring, start: if log.read { start.clamp(log.start, log.next) } else { log.start } })
    }

    /// The log that the newest commit names is the one to append to; `read` where it was made in this life.
    pub(super) fn log_committed(&self, committed: Option<&Log>, made_here: bool) {
        let mut log = self.log.lock();
        let Some(committed) = committed else { return };
        let (ring, start) = (Some(committed.ring.clone()), committed.start);
        let same = log.ring.as_ref().is_some_and(|ring| Arc::ptr_eq(ring, &committed.ring));
        *log = if same {
            LogTail { ring, start, older_start: log.start, next: log.next, read: log.read }
        } else {
            LogTail { ring, start, older_start: start, next: start, read: made_here }
        };
    }

    fn new_ring(&self) -> Result<Ring, StoreError> {
        let full = || StoreError::Full { file: self.file.clone(), action: "for the intent log of" };
        let take = |_| self.slots().take_lowest().ok_or_else(full);
        let slots = (0..RING_SLOTS).map(take).collect::<Result<Vec<_>, _>>()?;
        // Space for the log is taken now: an fsync must not fail for want of it, nor wait for its allocation.
        let zeros = vec![0; REGION_BYTES as usize];
        for slot in &slots {
            self.write_slot(slot.index(), 0, &zeros)?;
        }
        Ok(Ring::new(slots))
    }
}
