//! Writing behind the veil: what a private map emits is appended to the inner space, and the chunks of that which changed
//! are put into the map that everybody sees. And giving back what died there.

use super::block::{Base, BlockView, Opened, Shared};
use super::commit::Roots;
use super::error::TreeError;
use super::flush::Frozen;
use super::inode::{FileType, InodeRecord, Timestamp};
use super::key::Key;
use super::layer::Pointer;
use super::ledger::Ledger;
use super::sealer::seal_chunk;
use super::source::ImageSource;
use super::value::{DirEntry, chunk_value};
use super::veil::{CHUNK, CHUNK_BYTES, FRONT, Front, NAME, SEGMENT_BYTES, file_of};
use crate::base::{BlockNumber, Place};
use crate::crypt::SealKeys;
use crate::image::{Draft, Stream};
use crate::map::{Descend, Edit, Emit, EmitError, Fetch, FetchError, Map, MapError, Relocate, Root, Visit};
use std::collections::{BTreeMap, BTreeSet};

/// The least step in which the file grows, in bytes.
const STEP_BYTES_MIN: u64 = 64 << 10;
/// The largest.
const STEP_BYTES_MAX: u64 = 1 << 20;
/// Dead bytes that are never worth moving anything for.
const DEAD_BYTES_MIN: u64 = 2 << 20;
/// Live bytes that a step of cleaning moves, beside as many as have died since the last one.
const MOVED_BYTES_MAX: u64 = 8 << 20;
/// Random bytes are drawn so many at a time.
const FILLING_BYTES: usize = 1 << 14;

/// A change of what can be put into a map.
type Change = Option<(Box<[u8]>, Option<Place>)>;

/// Appends to the inner space of a private block.
pub(super) struct VeilWriter<'a> {
    outer: &'a BlockView,
    opened: &'a Opened,
    draft: &'a Draft,
    ledger: &'a mut Ledger,
    front: Front,
    /// What of the chunk at the tail is there.
    open: Vec<u8>,
    /// Chunks that were sealed, by index.
    sealed: BTreeMap<u64, Pointer>,
    /// Segments that are given back.
    emptied: BTreeSet<u64>,
}

impl<'a> VeilWriter<'a> {
    /// Goes on behind what is there.
    pub(super) fn new(
        outer: &'a BlockView,
        opened: &'a Opened,
        draft: &'a Draft,
        ledger: &'a mut Ledger,
    ) -> VeilWriter<'a> {
        let (front, open) = (opened.front, Vec::new());
        let (sealed, emptied) = (BTreeMap::new(), BTreeSet::new());
        VeilWriter { outer, opened, draft, ledger, front, open, sealed, emptied }
    }

    /// Seals a chunk of a private file and appends it; `None` for zeros.
    pub(super) fn seal(
        &mut self,
        keys: &SealKeys,
        data_id: u64,
        index: u64,
        plain: &[u8],
    ) -> Result<Option<Pointer>, TreeError> {
        if plain.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut sealed = Vec::new();
        let id = keys.seal_chunk(data_id, index, plain, &mut sealed);
        Ok(Some(Pointer { id, place: self.append(&sealed)? }))
    }

    /// Appends a chunk that was sealed into the draft itself.
    pub(super) fn take_in(&mut self, pointer: Pointer) -> Result<Pointer, TreeError> {
        let sealed = self.draft.read(pointer.place)?;
        self.ledger.dead(pointer.place);
        Ok(Pointer { place: self.append(&sealed)?, ..pointer })
    }

    fn append(&mut self, sealed: &[u8]) -> Result<Place, TreeError> {
        let length = sealed.len() as u64;
        let room = SEGMENT_BYTES - self.front.tail % SEGMENT_BYTES;
        if length > room {
            self.fill(room)?;
        }
        let place = Place { offset: self.front.tail, length: sealed.len() as u32 };
        self.put(sealed)?;
        self.front.live += length;
        Ok(place)
    }

    /// Puts what means nothing, and looks as everything else does.
    fn fill(&mut self, bytes: u64) -> Result<(), TreeError> {
        let mut left = bytes;
        let mut random = [0; FILLING_BYTES];
        while left > 0 {
            let count = left.min(FILLING_BYTES as u64);
            let now = &mut random[..count as usize];
            getrandom::fill(now).map_err(|error| unreadable(std::io::Error::other(error.to_string())))?;
            self.put(now)?;
            left -= count;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let index = self.front.tail / CHUNK_BYTES;
            let within = (self.front.tail % CHUNK_BYTES) as usize;
            if self.open.len() < within {
                let before = self.opened.veil.chunk(index).map_err(MapError::from)?;
                self.open = before[..within].to_vec();
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES as usize - within));
            self.open.extend_from_slice(now);
            self.front.tail += now.len() as u64;
            rest = later;
            if self.open.len() as u64 == CHUNK_BYTES {
                self.seal_open(index)?;
            }
        }
        Ok(())
    }

    fn seal_open(&mut self, index: u64) -> Result<(), TreeError> {
        let file = file_of(self.outer.number);
        let plain = std::mem::take(&mut self.open);
        let sealed = seal_chunk(&self.outer.keys, file.0, index, &plain, self.draft)?;
        if let Some(pointer) = sealed {
            self.ledger.appended(pointer.place);
            self.sealed.insert(index, pointer);
        }
        Ok(())
    }

    /// Puts what changed into the map that everybody sees, and the private map's root into its front.
    pub(super) fn finish(
        mut self,
        inner: &SealKeys,
        root: Option<Root>,
        shared: &Shared,
    ) -> Result<(Option<Root>, Front), MapError> {
        // Up to the end of its step the file is filled, which moves no tail.
        let tail = self.front.tail;
        let held = tail - self.front.holes;
        let wanted = tail - held + held.next_multiple_of(step(held)).max(STEP_BYTES_MIN);
        self.front.end = self.front.end.max(wanted.next_multiple_of(CHUNK_BYTES));
        let filled_from = self.opened.front.end.max(tail.next_multiple_of(CHUNK_BYTES));
        let filling = [tail.next_multiple_of(CHUNK_BYTES) - tail, self.front.end - filled_from];
        self.fill_after(filling, filled_from).map_err(of_tree)?;
        self.front.tail = tail;
        self.front.root = root;
        let map = Map::new(&self.outer.keys, self.opened.veil.outer(), &shared.nodes);
        let edits = self.edits(inner, &map)?;
        Ok((map.apply(self.outer.root, &edits, self.ledger)?, self.front))
    }

    /// Fills the chunk at the tail, then so many bytes from `from` on.
    fn fill_after(&mut self, [at_tail, behind]: [u64; 2], from: u64) -> Result<(), TreeError> {
        // A chunk that this change did not touch stays as it is.
        if !self.open.is_empty() {
            self.fill(at_tail)?;
        }
        self.front.tail = from;
        self.fill(behind)
    }

    fn edits(&mut self, inner: &SealKeys, map: &Map<'_>) -> Result<Vec<Edit>, MapError> {
        let file = file_of(self.outer.number);
        let mut changes: BTreeMap<Box<[u8]>, Change> = BTreeMap::new();
        for (index, place) in self.given_back()? {
            self.ledger.dead(place);
            changes.insert(Key::Chunk(file, index).encode(), None);
        }
        for (index, pointer) in &self.sealed {
            let key = Key::Chunk(file, *index).encode();
            let before = if index * CHUNK_BYTES < self.opened.front.end {
                map.get(self.outer.root.as_ref(), &key)?
            } else {
                None
            };
            before.and_then(|entry| entry.place).into_iter().for_each(|place| self.ledger.dead(place));
            changes.insert(key, Some((chunk_value(&pointer.id), Some(pointer.place))));
        }
        if self.outer.root.is_none() {
            let root = self.outer.number.root_inode();
            let entry = DirEntry { inode: file, file_type: FileType::File };
            changes.insert(Key::Inode(root).encode(), Some((InodeRecord::genesis().encode(), None)));
            changes.insert(Key::Entry(root, NAME).encode(), Some((entry.encode(), None)));
        }
        if self.outer.root.is_none() || self.front.end != self.opened.front.end {
            let record = record_of(self.outer.number, self.front.end);
            changes.insert(Key::Inode(file).encode(), Some((record.encode(), None)));
        }
        changes.insert(Key::Xattr(file, FRONT).encode(), Some((self.front.seal(inner), None)));
        Ok(changes.into_iter().map(|(key, change)| Edit { key, change }).collect())
    }

    /// The chunks of segments that are given back.
    fn given_back(&mut self) -> Result<Vec<(u64, Place)>, MapError> {
        let mut gone = Vec::new();
        if !self.emptied.is_empty() {
            self.opened.veil.each_chunk(&mut |index, place| {
                if self.emptied.contains(&(index * CHUNK_BYTES / SEGMENT_BYTES)) {
                    gone.push((index, place));
                }
            })?;
        }
        Ok(gone)
    }
}

/// The file's record: it tells nothing but the size, and nothing of when or by whom.
fn record_of(block: BlockNumber, end: u64) -> InodeRecord {
    let file = file_of(block);
    let record = InodeRecord::new(FileType::File, 0, block.root_inode(), Timestamp::default());
    InodeRecord { size: end, record_size: CHUNK, data_id: file.0, ..record }
}

/// In which steps a file grows that holds so much: an eighth, within limits.
fn step(held: u64) -> u64 {
    let eighth = held.checked_ilog2().map_or(0, |log2| (1u64 << log2) / 8);
    eighth.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX)
}

impl Emit for VeilWriter<'_> {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        self.append(sealed).map_err(|error| match error {
            TreeError::NoSpace => EmitError::NoSpace,
            other => EmitError::Refused(Box::new(other)),
        })
    }

    fn free(&mut self, place: Place) {
        self.front.live = self.front.live.saturating_sub(u64::from(place.length));
    }
}

impl Relocate for VeilWriter<'_> {
    fn carry(&mut self, from: Place) -> Result<Place, MapError> {
        let sealed = self.opened.source.fetch(from)?;
        let place = self.emit(&sealed)?;
        self.free(from);
        Ok(place)
    }
}

fn unreadable(error: std::io::Error) -> TreeError {
    TreeError::Map(MapError::Fetch(FetchError::Io(error)))
}

fn of_tree(error: TreeError) -> MapError {
    match error {
        TreeError::Map(error) => error,
        TreeError::NoSpace => MapError::Emit(EmitError::NoSpace),
        TreeError::Absent(place) => MapError::Fetch(FetchError::Absent(place)),
        other => MapError::Emit(EmitError::Refused(Box::new(other))),
    }
}

/// Gives dead space back inside private blocks of which more is dead than half of what lives. What fails is left as it was.
pub(super) fn tidy(
    roots: &mut Roots,
    fronts: &mut BTreeMap<BlockNumber, Front>,
    frozen: &Frozen,
    shared: &Shared,
) {
    let is_due = |front: &Front| front.dead() > DEAD_BYTES_MIN + front.live / 2;
    let due: Vec<BlockNumber> =
        fronts.iter().filter(|(_, front)| is_due(front)).map(|(number, _)| *number).collect();
    for number in due {
        match clean(number, roots, fronts, frozen, shared) {
            Ok((root, front)) => {
                roots.insert(number, root);
                fronts.insert(number, front);
            }
            Err(error) => {
                tracing::warn!(block = number.0, %error, "dead space in a private block was not given back; it is tried again later");
            }
        }
    }
}

fn clean(
    number: BlockNumber,
    roots: &Roots,
    fronts: &BTreeMap<BlockNumber, Front>,
    frozen: &Frozen,
    shared: &Shared,
) -> Result<(Option<Root>, Front), TreeError> {
    let in_block = |error| TreeError::in_block(number, error);
    let draft = &frozen.draft;
    let old = frozen.base.insides.get(&number).ok_or(TreeError::NotFound)?;
    let mut base = Base {
        source: ImageSource::new(&shared.store, &draft.snapshot()?),
        insides: BTreeMap::new(),
        ..(*frozen.base).clone()
    };
    if let Some(outer) = base.veiled.get_mut(&number) {
        outer.root = roots.get(&number).copied().flatten();
    }
    base.renew(number, old, fronts.get(&number).copied(), shared);
    let opened = base.insides.get(&number).ok_or(TreeError::NotFound)?;
    let (outer, block) = (base.veiled.get(&number).ok_or(TreeError::NotFound)?, base.block(number)?);
    let map = base.map(block, shared);
    let live = live_by_segment(&map, block.root.as_ref()).map_err(in_block)?;
    let died = opened.front.dead().saturating_sub(old.front.dead());
    let chosen = choose(&live, opened, MOVED_BYTES_MAX.max(2 * died)).map_err(in_block)?;
    let mut ledger = Ledger::new(draft.clone(), Stream::Fresh);
    let mut writer = VeilWriter::new(outer, opened, draft, &mut ledger);
    // What was counted is what lives, whatever was added up before.
    writer.front.live = live.values().sum();
    let leaves = |place: Place| chosen.contains(&(place.offset / SEGMENT_BYTES));
    let moved = block.root.map(|root| map.relocate(root, &leaves, &mut writer)).transpose();
    let done = moved.and_then(|root| {
        writer.front.holes += chosen.len() as u64 * SEGMENT_BYTES;
        writer.emptied = chosen.clone();
        writer.finish(&block.keys, root, shared)
    });
    match done {
        Ok(done) => {
            ledger.settle();
            Ok(done)
        }
        Err(error) => {
            ledger.undo();
            Err(in_block(error))
        }
    }
}

/// Bytes that a private map names, by segment.
fn live_by_segment(map: &Map<'_>, root: Option<&Root>) -> Result<BTreeMap<u64, u64>, MapError> {
    let mut live: BTreeMap<u64, u64> = BTreeMap::new();
    map.walk(root, &mut |visit| {
        let place = match visit {
            Visit::Node { place, .. } => Some(place),
            Visit::Entry(entry) => entry.place,
        };
        if let Some(place) = place {
            *live.entry(place.offset / SEGMENT_BYTES).or_default() += u64::from(place.length);
        }
        Ok::<_, MapError>(Descend::Yes)
    })?;
    Ok(live)
}

/// The segments to give back: those in which nothing lives, then those in which the least does, while little more than
/// half does and the budget lasts.
fn choose(live: &BTreeMap<u64, u64>, opened: &Opened, budget_bytes: u64) -> Result<BTreeSet<u64>, MapError> {
    const LIVE_BYTES_MAX: u64 = SEGMENT_BYTES * 7 / 10;
    let mut there = BTreeSet::new();
    opened.veil.each_chunk(&mut |index, _| _ = there.insert(index * CHUNK_BYTES / SEGMENT_BYTES))?;
    // The one at the tail is still being filled.
    let last = opened.front.tail / SEGMENT_BYTES;
    let lives = |segment: u64| live.get(&segment).copied().unwrap_or(0);
    let mut by_life: Vec<(u64, u64)> =
        there.into_iter().filter(|segment| *segment < last).map(|s| (lives(s), s)).collect();
    by_life.sort_unstable();
    let mut budget = budget_bytes;
    let mut chosen = BTreeSet::new();
    for (bytes, segment) in by_life {
        let Some(rest) = budget.checked_sub(bytes).filter(|_| bytes <= LIVE_BYTES_MAX) else { break };
        budget = rest;
        chosen.insert(segment);
    }
    Ok(chosen)
}
