//! The store: slots on a disk, and the versions that the last durable commit keeps.

use super::disk::{Disk, Space};
use super::error::StoreError;
use super::load::{Loaded, load};
use super::log::{Log, LogTail};
use super::manifest::{KEPT_MAX, KeptRef, LABEL_BYTES_MAX, LogRef, Manifest, STATE_BYTES_MAX, encode_index};
use super::slots::{Run, Slots};
use super::superblock::{SUPERBLOCK_OFFSETS, Superblock};
use super::version::Image;
use crate::base::{DatabaseId, Place, REGION_BYTES, RegionIndex};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The caller's name for a kept version: at most 256 bytes that mean nothing here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label(pub Vec<u8>);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// One version that a commit keeps.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The caller's name for it.
    pub label: Label,
    /// Its bytes.
    pub image: Image,
}

/// Numbers about a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Slots that hold regions of some image.
    pub slots_used: u32,
    /// Slots that hold tables and local state.
    pub slots_of_tables: u32,
    /// Slots inside the file that wait for reuse; they take no space on disk where holes can be punched.
    pub slots_free: u32,
    /// Apparent length of the file.
    pub file_bytes: u64,
    /// Versions that the last commit keeps.
    pub kept: u32,
    /// Number of the last durable commit.
    pub generation: u64,
}

/// The local state that a commit carries.
#[derive(Default)]
pub(super) struct State {
    pub(super) bytes: Vec<u8>,
    pub(super) run: Option<Run>,
}

/// Everything that one superblock leads to; while it is held, none of it is overwritten.
pub(super) struct Generation {
    pub(super) kept: Vec<Kept>,
    pub(super) state: Arc<State>,
    pub(super) log: Option<Log>,
    pub(super) absent: Arc<Absent>,
    pub(super) manifest: Run,
}

/// The lists of absent units as a commit wrote them.
#[derive(Default)]
pub(super) struct Absent {
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) runs: Vec<Run>,
}

/// A store. All methods may be called from many threads; commits queue up.
pub struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) file: String,
    database: DatabaseId,
    pub(super) slots: Arc<Slots>,
    pub(super) log: Mutex<LogTail>,
    newest: RwLock<Arc<Generation>>,
    head: Mutex<Head>,
    syncing: Mutex<()>,
    sync_failed: AtomicBool,
    fell_back: Option<String>,
    rescued: Vec<String>,
}

struct Head {
    generation: u64,
    /// Which superblock the next commit overwrites: the one that does not lead to the newest generation.
    target: usize,
    /// What that superblock may lead to: the commit before the newest, and commits that failed so late that they may
    /// have reached the disk. All of it stays untouched until the superblock is overwritten.
    behind_target: Vec<Arc<Generation>>,
}

impl Store {
    /// Makes a store on an empty disk; it is durable on return and keeps no version.
    pub fn create(disk: Arc<dyn Disk>, database: DatabaseId) -> Result<Arc<Store>, StoreError> {
        let file = disk.name();
        if disk.length().map_err(|error| StoreError::io(&file, "measuring", 0, error))? != 0 {
            return Err(StoreError::Exists { file });
        }
        let slots = Slots::new(1);
        let manifest = Manifest { state: None, kept: Vec::new(), log: None, absent: Vec::new() }.encode();
        let run = write_run(&*disk, &file, &slots, &manifest)?;
        let generation = Arc::new(Generation {
            kept: Vec::new(),
            state: Arc::default(),
            log: None,
            absent: Arc::default(),
            manifest: run,
        });
        let store = Store {
            newest: RwLock::new(generation.clone()),
            head: Mutex::new(Head { generation: 2, target: 0, behind_target: vec![generation.clone()] }),
            syncing: Mutex::new(()),
            sync_failed: AtomicBool::new(false),
            fell_back: None,
            rescued: Vec::new(),
            log: Mutex::default(),
            disk,
            file,
            database,
            slots,
        };
        store.sync()?;
        for (location, number) in [(0, 1), (1, 2)] {
            store.write_superblock(location, number, &generation)?;
        }
        Ok(Arc::new(store))
    }

    /// Opens the store on `disk` as its last durable commit left it. If what the newest superblock leads to is damaged,
    /// the commit before it is taken: see [`Store::fell_back`].
    pub fn open(disk: Arc<dyn Disk>) -> Result<Arc<Store>, StoreError> {
        let loaded = load(&*disk, false)?;
        Store::opened(disk, loaded)
    }

    /// Opens what is left: see [`Store::rescue`].
    pub(super) fn from_remains(disk: Arc<dyn Disk>) -> Result<Arc<Store>, StoreError> {
        let loaded = load(&*disk, true)?;
        Store::opened(disk, loaded)
    }

    fn opened(disk: Arc<dyn Disk>, loaded: Loaded) -> Result<Arc<Store>, StoreError> {
        let Loaded { slots, superblock, location, newest, older, generation_max, fell_back, rescued } =
            loaded;
        let file = disk.name();
        let store = Store {
            head: Mutex::new(Head {
                generation: generation_max,
                target: 1 - location,
                behind_target: older.into_iter().collect(),
            }),
            syncing: Mutex::new(()),
            sync_failed: AtomicBool::new(false),
            database: superblock.database,
            newest: RwLock::new(newest.clone()),
            fell_back,
            rescued,
            log: Mutex::default(),
            disk,
            file,
            slots,
        };
        store.log_committed(newest.log.as_ref(), false);
        if let Some(faults) = &store.fell_back {
            tracing::warn!(file = %store.file, %faults, "using the commit before the damaged one");
            // Heal at once: slots of the damaged state are about to be reused, so nothing may lead to it any more.
            let mut head = store.head.lock();
            head.generation += 1;
            store.write_superblock(head.target, head.generation, &newest)?;
            head.target = location;
            head.behind_target = vec![newest];
        }
        Ok(Arc::new(store))
    }

    /// Whose store it is.
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// The faults for which opening had to take the last commit but one, or found only one superblock intact: whoever
    /// keeps counters in the state must not trust them then.
    pub fn fell_back(&self) -> Option<&str> {
        self.fell_back.as_deref()
    }

    /// Damaged tables, where the store could only be opened with others in their place.
    pub fn rescued(&self) -> &[String] {
        &self.rescued
    }

    /// The versions that the last durable commit keeps.
    pub fn kept(&self) -> Vec<Kept> {
        self.newest.read().kept.clone()
    }

    /// The local state of the last durable commit.
    pub fn state(&self) -> Vec<u8> {
        self.newest.read().state.bytes.clone()
    }

    /// Makes `kept` and `state` the durable ones: on return they survive a power cut, and on an error the commit before
    /// still stands. Slots that were let go may be reused after the commit that follows; a second commit of the same
    /// content therefore gives back the space of what the first one dropped.
    pub fn commit(&self, kept: &[Kept], state: &[u8]) -> Result<(), StoreError> {
        self.commit_logged(kept, state, None)
    }

    /// [`Store::commit`] of what holds all batches of the intent log before the position `start`: their room is free
    /// afterwards. A store without a log gets one.
    pub fn commit_logged(&self, kept: &[Kept], state: &[u8], start: Option<u64>) -> Result<(), StoreError> {
        let whole = self.slots.presence.is_durable();
        let outcome = self.try_commit(kept, state, start);
        if outcome.is_err() && !whole {
            self.slots.presence.set_durable(false);
        }
        outcome
    }

    fn try_commit(&self, kept: &[Kept], state: &[u8], start: Option<u64>) -> Result<(), StoreError> {
        self.check_limits(kept, state)?;
        let mut head = self.head.lock();
        self.check_synced()?;
        let mut references = Vec::with_capacity(kept.len());
        for one in kept {
            references.push(self.persist_image(one)?);
        }
        let current = self.newest.read().clone();
        let state = if current.state.bytes == state {
            current.state.clone()
        } else {
            let run = if state.is_empty() { None } else { Some(self.write_run(state)?) };
            Arc::new(State { bytes: state.to_vec(), run })
        };
        let absent = self.persist_absent(&current)?;
        let log = match start {
            Some(start) => self.log_for(start, head.generation + 1),
            None => current.log.clone(),
        };
        let at = log.as_ref().map(|log| LogRef { start: log.start, slots: log.ring.slots().collect() });
        let manifest = Manifest {
            state: state.run.as_ref().map(Run::at),
            kept: references,
            log: at,
            absent: absent.runs.iter().map(Run::at).collect(),
        };
        let run = self.write_run(&manifest.encode())?;
        let generation = Arc::new(Generation { kept: kept.to_vec(), state, log, absent, manifest: run });
        self.sync()?;
        if let Err(error) = self.write_superblock(head.target, head.generation + 1, &generation) {
            head.behind_target.push(generation);
            return Err(error);
        }
        head.generation += 1;
        head.target = 1 - head.target;
        self.log_committed(generation.log.as_ref(), true);
        *self.newest.write() = generation;
        head.behind_target = vec![current];
        self.reclaim();
        Ok(())
    }

    /// Reads from an image, across regions where need be; behind a region's fill all is zero.
    pub fn read(&self, image: &Image, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.check_own(image)?;
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > image.bytes()) {
            let place = Place { offset, length: u32::try_from(length).unwrap_or(u32::MAX) };
            return Err(StoreError::OutOfRange { place, image_bytes: image.bytes() });
        }
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let start = (at % REGION_BYTES) as u32;
            let count = rest.len().min((REGION_BYTES - u64::from(start)) as usize);
            let (part, tail) = rest.split_at_mut(count);
            let region = image.region(RegionIndex::of(at));
            self.read_slot(region.slot, region.fill, start, part).map_err(|error| error.in_region(at))?;
            rest = tail;
            at += count as u64;
        }
        Ok(())
    }

    /// Reads one object of an image.
    pub fn read_object(&self, image: &Image, place: Place) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; place.length as usize];
        self.read_object_into(image, place, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads one object of an image into a buffer of its length.
    pub fn read_object_into(&self, image: &Image, place: Place, buffer: &mut [u8]) -> Result<(), StoreError> {
        check_object(place, image.bytes())?;
        debug_assert_eq!(buffer.len(), place.length as usize);
        self.read(image, place.offset, buffer)
    }

    /// Numbers about the store.
    pub fn statistics(&self) -> Result<Statistics, StoreError> {
        let (slots_used, slots_of_tables, slots_free) = self.slots.counts();
        let file_bytes =
            self.disk.length().map_err(|error| StoreError::io(&self.file, "measuring", 0, error))?;
        let generation = self.head.lock().generation;
        let kept = self.newest.read().kept.len() as u32;
        Ok(Statistics { slots_used, slots_of_tables, slots_free, file_bytes, kept, generation })
    }

    /// The room in the filesystem that holds the store.
    pub fn space(&self) -> Result<Space, StoreError> {
        self.disk.space().map_err(|error| StoreError::io(&self.file, "measuring the filesystem of", 0, error))
    }

    fn check_limits(&self, kept: &[Kept], state: &[u8]) -> Result<(), StoreError> {
        let limit = |what, amount: usize, max: usize| {
            if amount <= max {
                return Ok(());
            }
            Err(StoreError::TooLarge { what, amount: amount as u64, max: max as u64 })
        };
        limit("a number of kept versions", kept.len(), KEPT_MAX)?;
        limit("a local state in bytes", state.len(), STATE_BYTES_MAX)?;
        for one in kept {
            limit("a label in bytes", one.label.0.len(), LABEL_BYTES_MAX)?;
            self.check_own(&one.image)?;
        }
        Ok(())
    }

    /// Refuses an image of another store.
    pub(super) fn check_own(&self, image: &Image) -> Result<(), StoreError> {
        if image.table().belongs_to(&self.slots) {
            return Ok(());
        }
        Err(StoreError::Foreign { file: self.file.clone() })
    }

    /// Writes the leaves and the index of an image that no commit has written yet.
    fn persist_image(&self, kept: &Kept) -> Result<KeptRef, StoreError> {
        let table = kept.image.table();
        let mut places = Vec::with_capacity(table.leaves().len());
        for leaf in table.leaves() {
            let at = match leaf.run.get() {
                Some(run) => run.at(),
                None => {
                    let run = self.write_run(&leaf.encode())?;
                    leaf.run.get_or_init(|| run).at()
                }
            };
            places.push(at);
        }
        let index = match kept.image.index().get() {
            Some(run) => Some(run.at()),
            None if places.is_empty() => None,
            None => {
                let run = self.write_run(&encode_index(places.into_iter()))?;
                Some(kept.image.index().get_or_init(|| run).at())
            }
        };
        Ok(KeptRef { label: kept.label.0.clone(), regions: table.regions(), index })
    }

    /// The lists of what is absent now. Read before the sync: bytes that they call present are written already.
    fn persist_absent(&self, current: &Generation) -> Result<Arc<Absent>, StoreError> {
        self.slots.presence.set_durable(true);
        let blobs = self.slots.presence.encode();
        if blobs == current.absent.blobs {
            return Ok(current.absent.clone());
        }
        let runs = blobs.iter().map(|blob| self.write_run(blob)).collect::<Result<_, StoreError>>()?;
        Ok(Arc::new(Absent { blobs, runs }))
    }

    fn write_run(&self, bytes: &[u8]) -> Result<Run, StoreError> {
        write_run(&*self.disk, &self.file, &self.slots, bytes)
    }

    fn write_superblock(
        &self,
        location: usize,
        number: u64,
        generation: &Generation,
    ) -> Result<(), StoreError> {
        let manifest = generation.manifest.at();
        let partial = !generation.absent.runs.is_empty();
        let bytes = Superblock { partial, generation: number, database: self.database, manifest }.encode();
        self.write_at(SUPERBLOCK_OFFSETS[location], &bytes)?;
        self.sync()
    }

    pub(super) fn check_synced(&self) -> Result<(), StoreError> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(StoreError::SyncFailed { file: self.file.clone() });
        }
        Ok(())
    }

    /// After a failed sync the system may have dropped the pages and forgotten the failure: nothing may be committed on
    /// top of them.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        // One at a time: the system tells a failure to one of two that sync at once.
        let _alone = self.syncing.lock();
        self.check_synced()?;
        self.disk.sync().map_err(|error| {
            self.sync_failed.store(true, Ordering::Release);
            StoreError::io(&self.file, "syncing", 0, error)
        })
    }

    pub(super) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Runs `look` while no commit is under way.
    pub(super) fn between_commits<T>(&self, look: impl FnOnce() -> T) -> T {
        let _head = self.head.lock();
        look()
    }
}

fn write_run(disk: &dyn Disk, file: &str, slots: &Arc<Slots>, bytes: &[u8]) -> Result<Run, StoreError> {
    let hash = *blake3::hash(bytes).as_bytes();
    let run = slots
        .take_pages(bytes.len() as u32, hash)
        .ok_or_else(|| StoreError::Full { file: file.to_owned(), action: "for the tables of" })?;
    let offset = run.at().offset();
    disk.write_at(offset, bytes).map_err(|error| StoreError::io(file, "writing to", offset, error))?;
    Ok(run)
}

/// Refuses a place that lies outside the image or in two regions.
pub(super) fn check_object(place: Place, image_bytes: u64) -> Result<(), StoreError> {
    let end = place.offset.checked_add(u64::from(place.length)).filter(|end| *end <= image_bytes);
    let one = end.is_some_and(|end| end <= (place.offset / REGION_BYTES + 1) * REGION_BYTES);
    if one { Ok(()) } else { Err(StoreError::OutOfRange { place, image_bytes }) }
}
