//! A draft: an image that grows by appending sealed objects.

use super::error::StoreError;
use super::open_region::{OpenRegion, Segment, Stream, overlay};
use super::store::{Store, check_object};
use super::table::Table;
use super::version::{Image, Region};
use crate::base::{Place, REGION_BYTES, RegionIndex};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Zeros left where a draft goes on after an image's fill. A fill that was inferred from the last non-zero byte falls
/// short of an object that ends in zeros; sealed bytes look random, so 16 zeros at an end are as likely as a guessed key.
pub(super) const GUARD_BYTES: u32 = 16;

/// Segments that may wait for the disk before appending waits too.
const PENDING_MAX: usize = 4;

/// A growing image. Any thread may append and read at any time: appending copies into a buffer, which goes to the disk
/// when its region is full or at a snapshot.
pub struct Draft {
    store: Arc<Store>,
    state: RwLock<State>,
    /// Held while segments are written, so that each is written once. Taken before `state`.
    writing: Mutex<()>,
}

struct State {
    table: Table,
    open: [Option<OpenRegion>; 2],
    /// Where each stream goes on when it next opens a region.
    resume: [Option<Resume>; 2],
    pending: Vec<Arc<Segment>>,
    /// Regions without a slot.
    holes: BTreeSet<RegionIndex>,
    /// Regions with a slot, not open, in which nothing lives.
    lifeless: BTreeSet<RegionIndex>,
    /// A written segment's buffer, for the next region.
    spare: Vec<u8>,
    /// The last snapshot, while nothing has changed since.
    snapshot: Option<Image>,
}

/// A region in which a stream may go on.
#[derive(Clone, Copy)]
struct Resume {
    region: RegionIndex,
    /// Whether its fill is the exact end of its last object, because a draft of ours wrote it.
    exact: bool,
}

impl Store {
    /// A draft that starts as `base`, which it never disturbs.
    pub fn draft(self: &Arc<Store>, base: &Image) -> Result<Draft, StoreError> {
        self.check_own(base)?;
        let table = base.table().clone();
        let mut resume = base.hints().map(|hint| hint.map(|region| Resume { region, exact: true }));
        if resume[Stream::Fresh.index()].is_none() {
            let last = table.regions().checked_sub(1).map(RegionIndex);
            resume[Stream::Fresh.index()] = last.map(|region| Resume { region, exact: false });
        }
        let (mut holes, mut lifeless) = (BTreeSet::new(), BTreeSet::new());
        for (index, region) in table.iter() {
            if region.slot.is_none() {
                holes.insert(index);
            } else if region.live == 0 {
                lifeless.insert(index);
            }
        }
        let snapshot = (base.regions() > 0).then(|| base.clone());
        let open = [None, None];
        let state =
            State { table, open, resume, pending: Vec::new(), holes, lifeless, spare: Vec::new(), snapshot };
        Ok(Draft { store: self.clone(), state: RwLock::new(state), writing: Mutex::new(()) })
    }
}

impl Draft {
    /// Appends one sealed object and says where it lies; it can be read at once. On an error nothing was appended, and
    /// the call may be repeated once there is space again.
    pub fn append(&self, stream: Stream, sealed: &[u8]) -> Result<Place, StoreError> {
        if sealed.len() as u64 > REGION_BYTES - u64::from(GUARD_BYTES) {
            let max = REGION_BYTES - u64::from(GUARD_BYTES);
            return Err(StoreError::TooLarge {
                what: "an object in bytes",
                amount: sealed.len() as u64,
                max,
            });
        }
        let which = stream.index();
        loop {
            let mut state = self.state.write();
            if let Some(open) = &mut state.open[which]
                && let Some(at) = open.push(sealed)
            {
                let offset = open.region.start() + u64::from(at);
                state.snapshot = None;
                return Ok(Place { offset, length: sealed.len() as u32 });
            }
            let full = state.open[which].is_some();
            state.close(which);
            if full || state.pending.len() >= PENDING_MAX {
                drop(state);
                self.write_pending()?;
            } else {
                state.open_region(&self.store, which, sealed.len())?;
            }
        }
    }

    /// Reads one object, whether its bytes have reached the disk or not.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, StoreError> {
        let state = self.state.read();
        check_object(place, state.bytes())?;
        let (index, start) = (RegionIndex::of(place.offset), (place.offset % REGION_BYTES) as u32);
        let mut bytes = vec![0; place.length as usize];
        let open = state.open.iter().flatten().find(|open| open.region == index);
        if let Some(open) = open
            && overlay(&open.buffer, open.start, &mut bytes, start)
        {
            return Ok(bytes);
        }
        let region = state.table.get(index);
        let fill = open.map_or(region.fill, |open| open.start);
        let here = |segment: &&Arc<Segment>| region.slot == Some(segment.slot.index());
        let segments: Vec<Arc<Segment>> = state.pending.iter().filter(here).cloned().collect();
        // An object lies in one buffer, one segment or on the disk: a place across two of them is nobody's, and shows
        // bytes that do not open. The leaf keeps the slot from being reused while it is read.
        let _leaf = state.table.leaf(index).cloned();
        drop(state);
        if !segments.iter().any(|segment| overlay(&segment.bytes, segment.start, &mut bytes, start)) {
            self.store.read_slot(region.slot, fill, start, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Says that the version no longer uses an object. A place outside the image means nothing.
    pub fn free(&self, place: Place) {
        let mut state = self.state.write();
        if check_object(place, state.bytes()).is_err() {
            return;
        }
        let index = RegionIndex::of(place.offset);
        state.snapshot = None;
        if let Some(open) = state.open.iter_mut().flatten().find(|open| open.region == index) {
            open.live = open.live.saturating_sub(place.length);
            return;
        }
        let region = state.table.get(index);
        if region.slot.is_some() {
            let live = region.live.saturating_sub(place.length);
            state.table.set(index, Region { live, ..region });
            if live == 0 {
                state.lifeless.insert(index);
            }
        }
    }

    /// The image as of now, of at least one region; all its bytes have been handed to the disk (and are durable after
    /// the next commit).
    pub fn snapshot(&self) -> Result<Image, StoreError> {
        let mut state = self.state.write();
        if let Some(image) = &state.snapshot
            && state.pending.is_empty()
        {
            return Ok(image.clone());
        }
        for which in [0, 1] {
            // Closed, not kept open: whoever receives a version that goes on here may then write behind our fill, and we
            // make a copy only if that happened.
            if let Some(region) = state.close(which) {
                state.resume[which] = Some(Resume { region, exact: true });
            }
        }
        if state.table.regions() == 0 {
            state.table.resize(1);
            state.holes.insert(RegionIndex(0));
        }
        let hints =
            state.resume.map(|resume| resume.filter(|resume| resume.exact).map(|resume| resume.region));
        let image = Image::new(state.table.clone(), hints);
        state.snapshot = Some(image.clone());
        drop(state);
        self.write_pending()?;
        Ok(image)
    }

    /// Empties the regions in which nothing lives (all but those being filled) and cuts empty ones off the end: what was
    /// emptied, ascending. Their places must not be read any more; a reader that stands on an older root should read
    /// from an image that it keeps.
    pub fn truncate_empty(&self) -> Vec<RegionIndex> {
        let mut state = self.state.write();
        let emptied: Vec<RegionIndex> = std::mem::take(&mut state.lifeless).into_iter().collect();
        state.empty(&emptied);
        emptied
    }

    /// Empties these regions whatever lives in them: the cleaner has moved it. Their places must not be read any more.
    pub fn empty_regions(&self, regions: &[RegionIndex]) {
        self.state.write().empty(regions);
    }

    /// One region as it stands, with what is still in the buffer.
    pub fn region(&self, index: RegionIndex) -> Region {
        let state = self.state.read();
        let region = state.table.get(index);
        match state.open.iter().flatten().find(|open| open.region == index) {
            Some(open) => Region { fill: open.fill(), live: open.live, ..region },
            None => region,
        }
    }

    /// Whether a stream is filling the region, or will go on in it, or not all of it is here: it is no candidate for
    /// cleaning.
    pub fn is_open(&self, index: RegionIndex) -> bool {
        let state = self.state.read();
        self.store.absent_of(state.table.get(index)) != 0
            || state.open.iter().flatten().any(|open| open.region == index)
            || state.resume.iter().flatten().any(|resume| resume.region == index)
    }

    /// How many regions the image has.
    pub fn regions(&self) -> u32 {
        self.state.read().table.regions()
    }

    /// Length of the image in bytes.
    pub fn bytes(&self) -> u64 {
        self.state.read().bytes()
    }

    /// The store on which the draft stands.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Writes what was pending at the call; what could not be written stays pending and readable.
    fn write_pending(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock();
        let segments = self.state.read().pending.clone();
        for segment in segments {
            self.store.write_slot(segment.slot.index(), segment.start, &segment.bytes)?;
            let mut state = self.state.write();
            state.pending.retain(|other| !Arc::ptr_eq(other, &segment));
            if let Some(mut segment) = Arc::into_inner(segment) {
                segment.bytes.clear();
                state.spare = std::mem::take(&mut segment.bytes);
                // The segment lets go of its slot after the lock.
                drop(state);
            }
        }
        Ok(())
    }
}

impl State {
    fn bytes(&self) -> u64 {
        u64::from(self.table.regions()) * REGION_BYTES
    }

    /// Ends the filling of a stream's region: its buffer becomes a pending segment, the table learns its fill.
    fn close(&mut self, which: usize) -> Option<RegionIndex> {
        let mut open = self.open[which].take()?;
        if let Some(segment) = open.seal(&mut self.spare) {
            self.pending.push(Arc::new(segment));
        }
        let region = Region { slot: Some(open.tail.slot()), fill: open.start, live: open.live };
        self.table.set(open.region, region);
        if open.live == 0 {
            self.lifeless.insert(open.region);
        }
        Some(open.region)
    }

    /// Opens a region with room for an object of `bytes`: the one where the stream left off, an empty one, or a new one.
    fn open_region(&mut self, store: &Arc<Store>, which: usize, bytes: usize) -> Result<(), StoreError> {
        if let Some(Resume { region: index, exact }) = self.resume[which]
            && !self.open.iter().flatten().any(|open| open.region == index)
        {
            let region = self.table.get(index);
            let guard = if exact { 0 } else { GUARD_BYTES };
            let room = REGION_BYTES - u64::from(region.fill);
            if region.slot.is_some()
                && store.absent_of(region) == 0
                && u64::from(guard) + bytes as u64 <= room
            {
                self.open[which] = Some(self.reopen(store, index, region, guard)?);
                self.lifeless.remove(&index);
                self.resume[which] = None;
                return Ok(());
            }
        }
        self.resume[which] = None;
        let pin = store.take_slot()?;
        let index = self.holes.pop_first().unwrap_or(RegionIndex(self.table.regions()));
        if index.0 == self.table.regions() {
            self.table.resize(index.0 + 1);
        }
        let tail = store.slots().claim_tail(pin.index(), 0).expect("nobody knows a slot that was just taken");
        self.table.set(index, Region { slot: Some(pin.index()), fill: 0, live: 0 });
        self.open[which] = Some(OpenRegion {
            region: index,
            tail,
            start: 0,
            buffer: std::mem::take(&mut self.spare),
            live: 0,
        });
        Ok(())
    }

    /// Goes on in a region of the base: in its slot if nobody else has, else in a copy.
    fn reopen(
        &mut self,
        store: &Arc<Store>,
        index: RegionIndex,
        region: Region,
        guard: u32,
    ) -> Result<OpenRegion, StoreError> {
        let slot = region.slot.expect("only regions with a slot are reopened");
        let tail = match store.slots().claim_tail(slot, region.fill) {
            Some(tail) => tail,
            None => {
                let mut prefix = vec![0; region.fill as usize];
                store.read_slot(Some(slot), region.fill, 0, &mut prefix)?;
                for segment in self.pending.iter().filter(|segment| segment.slot.index() == slot) {
                    overlay(&segment.bytes, segment.start, &mut prefix, 0);
                }
                let pin = store.take_slot()?;
                store.write_slot(pin.index(), 0, &prefix)?;
                self.table.set(index, Region { slot: Some(pin.index()), ..region });
                store.slots().claim_tail(pin.index(), region.fill).expect("the copy's slot is nobody else's")
            }
        };
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.resize(guard as usize, 0);
        Ok(OpenRegion { region: index, tail, start: region.fill, buffer, live: region.live })
    }

    fn empty(&mut self, regions: &[RegionIndex]) {
        self.snapshot = None;
        for index in regions {
            if index.0 >= self.table.regions() {
                continue;
            }
            for open in &mut self.open {
                open.take_if(|open| open.region == *index);
            }
            self.lifeless.remove(index);
            self.holes.insert(*index);
            self.table.set(*index, Region::EMPTY);
        }
        let mut count = self.table.regions();
        while count > 0 && self.holes.remove(&RegionIndex(count - 1)) {
            count -= 1;
        }
        if count < self.table.regions() {
            self.table.resize(count);
            for which in [0, 1] {
                self.resume[which] = self.resume[which].filter(|resume| resume.region.0 < count);
            }
        }
    }
}
