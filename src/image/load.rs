//! Opening: from the superblocks to the images of the last durable commit.

use super::disk::Disk;
use super::error::StoreError;
use super::log::{Log, Ring};
use super::manifest::{KeptRef, Manifest, decode_index};
use super::presence;
use super::slots::{Run, RunRef, SLOTS_MAX, Slots};
use super::store::{Absent, Generation, Kept, Label, State};
use super::superblock::{
    BadSuperblock, STORE_FORMAT_PARTIAL, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Superblock,
};
use super::table::{LEAF_REGIONS, Leaf, Table};
use super::version::{Hints, Image, Region};
use crate::base::{REGION_BYTES, RegionIndex, SlotIndex};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// What opening a store's file found.
pub(super) struct Loaded {
    pub(super) slots: Arc<Slots>,
    pub(super) superblock: Superblock,
    /// Which of the two superblocks that is.
    pub(super) location: usize,
    pub(super) newest: Arc<Generation>,
    /// What the other superblock leads to, if it is sound.
    pub(super) older: Option<Arc<Generation>>,
    /// The highest generation number seen, sound or not.
    pub(super) generation_max: u64,
    /// Why the newest superblock could not be used, if it could not.
    pub(super) fell_back: Option<String>,
    /// Damaged tables that something else stands in for.
    pub(super) rescued: Vec<String>,
}

/// Reads one of the two superblocks.
pub(super) fn read_superblock(disk: &dyn Disk, location: usize) -> Result<Superblock, SuperblockFault> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    disk.read_at(SUPERBLOCK_OFFSETS[location], &mut bytes)
        .map_err(|error| SuperblockFault::Read(error.to_string()))?;
    Superblock::decode(&bytes).map_err(SuperblockFault::Bad)
}

/// Why a superblock cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuperblockFault {
    #[error("it cannot be read: {0}")]
    Read(String),
    #[error("{0}")]
    Bad(BadSuperblock),
}

/// Loads the newest sound state, and the one before it so that its slots stay untouched. With `from_remains` a state
/// with damaged tables is taken too.
pub(super) fn load(disk: &dyn Disk, from_remains: bool) -> Result<Loaded, StoreError> {
    let file = disk.name();
    let length = disk.length().map_err(|error| StoreError::io(&file, "measuring", 0, error))?;
    let found = [read_superblock(disk, 0), read_superblock(disk, 1)];
    for one in &found {
        if let Err(SuperblockFault::Bad(BadSuperblock::Format(format))) = one {
            return Err(StoreError::Format { file, found: *format, known: STORE_FORMAT_PARTIAL });
        }
    }
    if found.iter().all(|one| matches!(one, Err(SuperblockFault::Bad(BadSuperblock::Magic)))) {
        return Err(StoreError::NotAStore { file });
    }
    let mut faults: Vec<String> = Vec::new();
    let mut candidates: Vec<(usize, Superblock)> = Vec::new();
    for (location, one) in found.into_iter().enumerate() {
        match one {
            Ok(superblock) => candidates.push((location, superblock)),
            Err(fault) => faults.push(format!("superblock {location}: {fault}")),
        }
    }
    candidates.sort_by_key(|(_, superblock)| std::cmp::Reverse(superblock.generation));
    let generation_max = candidates.first().map_or(0, |(_, superblock)| superblock.generation);
    let slots = Slots::new(slots_in(length));
    let mut loader = Loader::new(disk, slots.clone(), length);
    loader.from_remains = from_remains;
    let mut newest: Option<(usize, Superblock, Arc<Generation>)> = None;
    let mut older = None;
    for (location, superblock) in candidates {
        match loader.generation(&superblock, newest.as_ref().map(|(.., generation)| generation)) {
            Ok(generation) if newest.is_none() => newest = Some((location, superblock, generation)),
            Ok(generation) => older = Some(generation),
            Err(fault) => faults.push(format!("what superblock {location} leads to: {fault}")),
        }
    }
    let Some((location, superblock, newest)) = newest else {
        return Err(StoreError::Damaged { file, what: faults.join("; ") });
    };
    let rescued = loader.rescued;
    let fell_back = (!faults.is_empty() && older.is_none() && rescued.is_empty()).then(|| faults.join("; "));
    Ok(Loaded { slots, superblock, location, newest, older, generation_max, fell_back, rescued })
}

/// What one superblock leads to, loaded by itself into a book of its own.
pub(super) fn load_one(
    disk: &dyn Disk,
    superblock: &Superblock,
    length: u64,
) -> Result<Arc<Generation>, String> {
    let slots = Slots::new(slots_in(length));
    Loader::new(disk, slots, length).generation(superblock, None)
}

fn slots_in(length: u64) -> u32 {
    length.div_ceil(REGION_BYTES).min(u64::from(SLOTS_MAX)) as u32
}

/// Loads generations; what several of them share is loaded once.
struct Loader<'a> {
    disk: &'a dyn Disk,
    slots: Arc<Slots>,
    length: u64,
    leaves: HashMap<u32, (RunRef, Arc<Leaf>)>,
    indexes: HashMap<u32, (RunRef, Image)>,
    states: HashMap<u32, (RunRef, Arc<State>)>,
    rings: Vec<Arc<Ring>>,
    absent: Vec<(RunRef, Arc<Absent>)>,
    /// Damaged tables are no reason to refuse a state.
    from_remains: bool,
    rescued: Vec<String>,
}

impl<'a> Loader<'a> {
    fn new(disk: &'a dyn Disk, slots: Arc<Slots>, length: u64) -> Loader<'a> {
        Loader {
            disk,
            slots,
            length,
            leaves: HashMap::new(),
            indexes: HashMap::new(),
            states: HashMap::new(),
            rings: Vec::new(),
            absent: Vec::new(),
            from_remains: false,
            rescued: Vec::new(),
        }
    }

    fn generation(
        &mut self,
        superblock: &Superblock,
        newer: Option<&Arc<Generation>>,
    ) -> Result<Arc<Generation>, String> {
        if let Some(newer) = newer
            && newer.manifest.at() == superblock.manifest
        {
            return Ok(newer.clone());
        }
        let (bytes, run) = self.run(superblock.manifest, "the manifest")?;
        let manifest = Manifest::decode(&bytes, superblock.partial)
            .map_err(|_| "the manifest is malformed".to_owned())?;
        let known = self.slots.referred();
        let state = match manifest.state {
            None => Arc::new(State::default()),
            Some(at) => self.state(at)?,
        };
        let kept = self.kept(manifest.kept)?;
        let log = match manifest.log {
            None => None,
            Some(at) => Some(Log { ring: self.ring(&at.slots)?, start: at.start }),
        };
        let absent = self.absent(&manifest.absent, &known)?;
        Ok(Arc::new(Generation { kept, state, log, absent, manifest: run }))
    }

    /// The lists of absent units. Of slots that a newer state has loaded it has told more truly.
    fn absent(&mut self, runs: &[RunRef], known: &[bool]) -> Result<Arc<Absent>, String> {
        let mut absent = Absent::default();
        for at in runs {
            if let Some(found) = self.absent.iter().find(|(known, _)| known == at) {
                return Ok(found.1.clone());
            }
            let (bytes, run) = self.run(*at, "a list of absent units")?;
            let listed =
                presence::decode(&bytes).map_err(|_| "a list of absent units is malformed".to_owned())?;
            let referred = self.slots.referred();
            for (slot, mask) in listed {
                let index = slot.0 as usize;
                if referred.get(index) == Some(&true) && known.get(index) != Some(&true) {
                    self.slots.presence.lose(slot, mask);
                }
            }
            absent.blobs.push(bytes);
            absent.runs.push(run);
        }
        let absent = Arc::new(absent);
        self.absent.extend(runs.iter().map(|at| (*at, absent.clone())));
        Ok(absent)
    }

    fn kept(&mut self, references: Vec<KeptRef>) -> Result<Vec<Kept>, String> {
        let mut images = Vec::new();
        for one in &references {
            images.push(match one.index {
                None => Ok(Image::none(&self.slots)),
                Some(at) => match self.image(at, one.regions) {
                    Err(fault) if self.from_remains => Err(fault),
                    image => Ok(image?),
                },
            });
        }
        let sound: Vec<Image> = images.iter().filter_map(|image| image.as_ref().ok().cloned()).collect();
        let mut kept = Vec::new();
        for (one, image) in references.into_iter().zip(images) {
            let label = Label(one.label);
            let image = image.unwrap_or_else(|fault| {
                self.rescued.push(format!("the table of {}: {fault}", kept.len()));
                self.stand_in(one.index, one.regions, &sound)
            });
            kept.push(Kept { label, image });
        }
        Ok(kept)
    }

    /// What is left of a table, and, for the rest, where other versions have the same regions.
    fn stand_in(&mut self, index: Option<RunRef>, regions: u32, sound: &[Image]) -> Image {
        let bytes = index.and_then(|at| read_run_bytes(self.disk, at).ok());
        let places = bytes.and_then(|bytes| decode_index(&bytes, regions).ok()).unwrap_or_default();
        let leaves: Vec<Option<Arc<Leaf>>> = places.into_iter().map(|at| self.leaf(at).ok()).collect();
        let mut table = Table::empty(&self.slots);
        table.resize(regions);
        for index in (0..regions).map(RegionIndex) {
            let region = match leaves.get((index.0 / LEAF_REGIONS) as usize) {
                Some(Some(leaf)) => leaf.region(index),
                _ => sound
                    .iter()
                    .filter(|image| index.0 < image.regions())
                    .map(|image| image.region(index))
                    .max_by_key(|region| region.fill)
                    .unwrap_or(Region::EMPTY),
            };
            table.set(index, region);
        }
        Image::new(table, Hints::default())
    }

    fn ring(&mut self, slots: &[SlotIndex]) -> Result<Arc<Ring>, String> {
        if let Some(ring) = self.rings.iter().find(|ring| ring.slots().eq(slots.iter().copied())) {
            return Ok(ring.clone());
        }
        let pins = self.slots.adopt_ring(slots).map_err(|error| format!("the intent log: {error}"))?;
        let ring = Arc::new(Ring::new(pins));
        self.rings.push(ring.clone());
        Ok(ring)
    }

    fn state(&mut self, at: RunRef) -> Result<Arc<State>, String> {
        if let Some((known, state)) = self.states.get(&at.page)
            && *known == at
        {
            return Ok(state.clone());
        }
        let (bytes, run) = self.run(at, "the local state")?;
        let state = Arc::new(State { bytes, run: Some(run) });
        self.states.insert(at.page, (at, state.clone()));
        Ok(state)
    }

    fn image(&mut self, at: RunRef, regions: u32) -> Result<Image, String> {
        if let Some((known, image)) = self.indexes.get(&at.page)
            && *known == at
            && image.regions() == regions
        {
            return Ok(image.clone());
        }
        let (bytes, run) = self.run(at, "a table's index")?;
        let places = decode_index(&bytes, regions).map_err(|_| "a table's index is malformed".to_owned())?;
        let leaves = places.into_iter().map(|at| self.leaf(at)).collect::<Result<Vec<_>, String>>()?;
        let image = Image::loaded(
            Table::from_leaves(&self.slots, regions, leaves)?,
            Hints::default(),
            OnceLock::from(run),
        );
        self.indexes.insert(at.page, (at, image.clone()));
        Ok(image)
    }

    fn leaf(&mut self, at: RunRef) -> Result<Arc<Leaf>, String> {
        if let Some((known, leaf)) = self.leaves.get(&at.page)
            && *known == at
        {
            return Ok(leaf.clone());
        }
        let (bytes, run) = self.run(at, "a table block")?;
        let leaf = Arc::new(Leaf::decode(&self.slots, &bytes, self.length, run)?);
        self.leaves.insert(at.page, (at, leaf.clone()));
        Ok(leaf)
    }

    fn run(&self, at: RunRef, what: &str) -> Result<(Vec<u8>, Run), String> {
        let run = self.slots.adopt_run(at).map_err(|error| format!("{what}: {error}"))?;
        let bytes = read_run_bytes(self.disk, at).map_err(|fault| format!("{what} {fault}"))?;
        Ok((bytes, run))
    }
}

/// Reads a run and checks its hash.
pub(super) fn read_run_bytes(disk: &dyn Disk, at: RunRef) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; at.bytes as usize];
    disk.read_at(at.offset(), &mut bytes)
        .map_err(|error| format!("at byte {} cannot be read: {error}", at.offset()))?;
    if blake3::hash(&bytes).as_bytes() != &at.hash {
        return Err(format!("at byte {} does not match its checksum", at.offset()));
    }
    Ok(bytes)
}
