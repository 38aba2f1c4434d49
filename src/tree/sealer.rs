//! Sealing written chunks before anybody asks for it, so that big writes use all processors and little memory.

use super::block::Shared;
use super::error::TreeError;
use super::layer::{Pointer, Slot};
use super::state::State;
use super::write::{Target, decide};
use crate::base::Inode;
use crate::crypt::SealKeys;
use crate::image::{Draft, Image, Stream};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Chunks that are sealed in one go.
const BATCH_CHUNKS: usize = 16;
/// With fewer full chunks nobody is woken: a flush seals them as well, and waking costs more than sealing one.
const CALL_FROM_CHUNKS: usize = 8;
/// Sealing threads of a tree; writers help when that is not enough.
const SEALERS_MAX: usize = 4;
/// How long a writer waits for a flush to make room before it looks again.
const ROOM_PATIENCE: Duration = Duration::from_millis(50);
/// How often at most.
const ROOM_WAITS_MAX: usize = 600;

/// The state with all that its users wait for.
pub(super) struct Bench {
    pub(super) shared: Arc<Shared>,
    pub(super) state: RwLock<State>,
    dirty_bytes_max: u64,
    /// Shared while chunks are sealed that no layer points to yet; taken before the state.
    pub(super) sealing: RwLock<()>,
    /// Raised when there are full chunks to seal, or when it is time to end.
    calls: Mutex<Calls>,
    called: Condvar,
    /// Signalled when a flush was installed.
    installed: Condvar,
    installing: Mutex<()>,
    /// Sealing failed last time: writers hear of it at the next flush, sealers rest until then.
    stuck: AtomicBool,
}

#[derive(Default)]
struct Calls {
    work: bool,
    end: bool,
}

/// A chunk to be sealed.
pub(super) struct Job {
    inode: Inode,
    index: u64,
    data_id: u64,
    keys: SealKeys,
    plain: Arc<Vec<u8>>,
    /// Written here and there: it may be wanted again soon.
    again: bool,
}

impl Bench {
    pub(super) fn new(shared: Arc<Shared>, state: State, dirty_bytes_max: u64) -> Bench {
        Bench {
            shared,
            state: RwLock::new(state),
            dirty_bytes_max,
            sealing: RwLock::new(()),
            calls: Mutex::default(),
            called: Condvar::new(),
            installed: Condvar::new(),
            installing: Mutex::new(()),
            stuck: AtomicBool::new(false),
        }
    }

    /// Wakes a sealer if there is enough to do.
    pub(super) fn after_write(&self) {
        if self.state.read().full.len() >= CALL_FROM_CHUNKS {
            self.call();
        }
    }

    /// Whether more plaintext waits than should.
    pub(super) fn is_crowded(&self) -> bool {
        let state = self.state.read();
        state.dirty_bytes + state.frozen_bytes > self.dirty_bytes_max
    }

    /// Helps to seal, and waits, while too much plaintext waits.
    pub(super) fn make_room(&self) {
        for _ in 0..ROOM_WAITS_MAX {
            if self.seal_some() {
                let state = self.state.read();
                if state.dirty_bytes + state.frozen_bytes <= self.dirty_bytes_max {
                    return;
                }
                continue;
            }
            let mut installing = self.installing.lock();
            if self.state.read().frozen_bytes == 0 || self.stuck.load(Ordering::Relaxed) {
                return;
            }
            self.installed.wait_for(&mut installing, ROOM_PATIENCE);
        }
    }

    fn call(&self) {
        self.calls.lock().work = true;
        self.called.notify_one();
    }

    /// A flush was installed: there is room again, and the disk is as it may be.
    pub(super) fn announce_install(&self) {
        self.stuck.store(false, Ordering::Relaxed);
        drop(self.installing.lock());
        self.installed.notify_all();
    }

    /// Seals some chunks that were written to their end, and others where too much waits. False if there was none.
    pub(super) fn seal_some(&self) -> bool {
        if self.stuck.load(Ordering::Relaxed) {
            return false;
        }
        let _sealing = self.sealing.read();
        let (jobs, draft) = {
            let mut state = self.state.write();
            let crowded = state.dirty_bytes > self.dirty_bytes_max / 4 * 3;
            (take_jobs(&mut state, crowded), state.draft.clone())
        };
        if jobs.is_empty() {
            return false;
        }
        let mut sealed = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job.seal(&draft) {
                Ok(slot) => sealed.push((job, slot)),
                Err(error) => {
                    tracing::warn!(%error, "written data waits in memory");
                    self.stuck.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        let mut state = self.state.write();
        for (job, slot) in sealed {
            if let (true, Slot::Sealed(pointer)) = (job.again, &slot) {
                self.shared.chunks.put(pointer.id, job.plain.clone());
            }
            install(&mut state, &draft, job, slot);
        }
        true
    }

    /// The draft as it stands, but that what was sealed early, and is in no map, does not count as alive.
    pub(super) fn snapshot(&self, draft: &Draft) -> Result<Image, TreeError> {
        let _nothing_under_way = self.sealing.write();
        let image = draft.snapshot()?;
        let counts = self.state.read().sealed_bytes();
        if counts.is_empty() {
            return Ok(image);
        }
        let less = |(region, bytes)| (region, image.region(region).live.saturating_sub(bytes));
        Ok(image.with_live(&counts.into_iter().map(less).collect()))
    }

    fn run(&self) {
        loop {
            while self.seal_some() {}
            let mut calls = self.calls.lock();
            while !calls.work && !calls.end {
                self.called.wait(&mut calls);
            }
            if calls.end {
                return;
            }
            calls.work = false;
        }
    }
}

impl Job {
    /// Seals and appends; all zeros are a hole.
    fn seal(&self, draft: &Draft) -> Result<Slot, TreeError> {
        Ok(match seal_chunk(&self.keys, self.data_id, self.index, &self.plain, draft)? {
            Some(pointer) => Slot::Sealed(pointer),
            None => Slot::Hole,
        })
    }
}

/// Seals a chunk and appends it; `None` for zeros.
pub(super) fn seal_chunk(
    keys: &SealKeys,
    data_id: u64,
    index: u64,
    plain: &[u8],
    draft: &Draft,
) -> Result<Option<Pointer>, TreeError> {
    if plain.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let mut sealed = Vec::new();
    let id = keys.seal_chunk(data_id, index, plain, &mut sealed);
    let place = draft.append(Stream::Fresh, &sealed)?;
    Ok(Some(Pointer { id, place }))
}

/// Takes chunks off the queues that are still to be sealed.
fn take_jobs(state: &mut State, crowded: bool) -> Vec<Job> {
    let mut jobs = Vec::new();
    while jobs.len() < BATCH_CHUNKS {
        let next = match state.full.pop_front() {
            Some(next) => Some((next, false)),
            None if crowded => state.partial.pop_front().map(|next| (next, true)),
            None => None,
        };
        let Some(((inode, index), again)) = next else { break };
        jobs.extend(job_for(state, inode, index).map(|job| Job { again, ..job }));
    }
    jobs
}

fn job_for(state: &mut State, inode: Inode, index: u64) -> Option<Job> {
    let node = match state.orphans.get(&inode) {
        Some(orphan) => &orphan.node,
        None => state.active.get(&inode)?,
    };
    if !matches!(node.chunks.get(&index), Some(Slot::Dirty(_))) {
        return None;
    }
    let record = node.record.clone()?;
    let block = node.block;
    let keys = match state.orphans.get(&inode) {
        Some(orphan) => orphan.keys.clone(),
        // Where it lies in a private block is decided by the flush.
        None if state.base.insides.contains_key(&block) => return None,
        None => state.base.block(block).ok()?.keys.clone(),
    };
    if !record.record_size.is_decided() {
        if record.size <= super::inode::INLINE_BYTES_MAX as u64 {
            return None;
        }
        // Its chunks come up again, cut to size.
        let mut target = Target { inode, block, size_before: record.size, record };
        decide(state, &mut target);
        let generation = state.generation;
        state.put_record(inode, block, target.record);
        state.generation = generation;
        return None;
    }
    let node = state.node_mut(inode, block);
    let Some(Slot::Dirty(plain)) = node.chunks.get(&index) else { return None };
    Some(Job { inode, index, data_id: record.data_id, keys, plain: plain.clone(), again: false })
}

/// Replaces the plaintext by what it was sealed to, unless it was changed, frozen or removed meanwhile.
fn install(state: &mut State, draft: &Arc<Draft>, job: Job, slot: Slot) {
    let node = match state.orphans.get(&job.inode) {
        Some(orphan) => Some(&orphan.node),
        None => state.active.get(&job.inode),
    };
    let current = node.and_then(|node| Some((node.block, node.chunks.get(&job.index)?)));
    let block = match current {
        Some((block, Slot::Dirty(plain))) if Arc::ptr_eq(plain, &job.plain) => Some(block),
        _ => None,
    };
    match block {
        Some(block) if Arc::ptr_eq(draft, &state.draft) => {
            state.put_slot(job.inode, block, job.index, Some(slot));
        }
        _ => {
            if let Slot::Sealed(pointer) = slot {
                draft.free(pointer.place);
            }
        }
    }
}

/// The sealing threads; they end with this.
pub(super) struct Sealers {
    bench: Arc<Bench>,
    threads: Vec<JoinHandle<()>>,
}

impl Sealers {
    /// Starts one thread a processor. Without any, whoever writes and flushes seals.
    pub(super) fn start(bench: &Arc<Bench>) -> Sealers {
        let count = std::thread::available_parallelism().map_or(1, |count| count.get().min(SEALERS_MAX));
        let start = |number| {
            let bench = bench.clone();
            std::thread::Builder::new().name(format!("kilofs-seal-{number}")).spawn(move || bench.run()).ok()
        };
        Sealers { bench: bench.clone(), threads: (0..count).filter_map(start).collect() }
    }
}

impl Drop for Sealers {
    fn drop(&mut self) {
        self.bench.calls.lock().end = true;
        self.bench.called.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a sealing thread panicked");
            }
        }
    }
}
