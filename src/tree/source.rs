//! Where maps read nodes from and put new ones: an image, or a draft that grows.

use super::veil::{SEGMENT_BYTES, Veil};
use crate::base::{Place, RegionIndex};
use crate::image::{Draft, Image, Store, StoreError, Stream};
use crate::map::{Emit, EmitError, Fetch, FetchError, MapError, NODE_HEAD_BYTES, Relocate};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Head = [u8; NODE_HEAD_BYTES];

/// Reads the objects of one image.
#[derive(Clone)]
pub struct ImageSource {
    store: Arc<Store>,
    image: Image,
    heads: Option<Arc<Heads>>,
    /// Places are those of a private block's inner space.
    veil: Option<Arc<Veil>>,
}

impl ImageSource {
    /// A source over `image`.
    pub fn new(store: &Arc<Store>, image: &Image) -> ImageSource {
        ImageSource { store: store.clone(), image: image.clone(), heads: None, veil: None }
    }

    /// A source that is read often enough to remember how nodes begin.
    pub(super) fn remembering(store: &Arc<Store>, image: &Image, heads: Arc<Heads>) -> ImageSource {
        ImageSource { heads: Some(heads), ..ImageSource::new(store, image) }
    }

    /// A source over the inner space of a private block in this image.
    pub(super) fn behind(&self, veil: Arc<Veil>, heads: Arc<Heads>) -> ImageSource {
        ImageSource { heads: Some(heads), veil: Some(veil), ..self.clone() }
    }

    /// The sealed bytes of one object of the image itself.
    pub fn bytes(&self, place: Place) -> Result<Vec<u8>, StoreError> {
        self.store.read_object(&self.image, place)
    }

    /// Reads the sealed bytes of one object into a buffer of its length. What is absent is named by its place in the image.
    pub(super) fn read_into(&self, place: Place, buffer: &mut [u8]) -> Result<(), FetchError> {
        match &self.veil {
            Some(veil) => veil.read(place.offset, buffer),
            None => {
                let read = self.store.read_object_into(&self.image, place, buffer);
                read.map_err(|error| fetch_error(place, error))
            }
        }
    }

    /// Where in the image an object lies.
    pub(super) fn places(&self, place: Place) -> Vec<Place> {
        match &self.veil {
            Some(veil) => veil.places(place),
            None => vec![place],
        }
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What is remembered of how nodes begin.
    pub(super) fn heads(&self) -> Option<&Arc<Heads>> {
        self.heads.as_ref()
    }
}

impl Fetch for ImageSource {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        if self.veil.is_none() {
            return self.bytes(place).map_err(|error| fetch_error(place, error));
        }
        if u64::from(place.length) > SEGMENT_BYTES {
            return Err(FetchError::OutOfRange(place));
        }
        let mut bytes = vec![0; place.length as usize];
        self.read_into(place, &mut bytes)?;
        Ok(bytes)
    }

    fn fetch_head(&self, place: Place, head: &mut Head) -> Result<(), FetchError> {
        if let Some(known) = self.heads.as_ref().and_then(|heads| heads.get(place)) {
            *head = known;
            return Ok(());
        }
        match &self.veil {
            Some(veil) => veil.read(place.offset, head)?,
            None => {
                let read = self.store.read(&self.image, place.offset, head);
                read.map_err(|error| fetch_error(place, error))?;
            }
        }
        if let Some(heads) = &self.heads {
            heads.put(place, *head);
        }
        Ok(())
    }
}

/// Why an object cannot be read, in the map's words.
pub(super) fn fetch_error(place: Place, error: StoreError) -> FetchError {
    match error {
        StoreError::Absent(_) | StoreError::NotHere { .. } => FetchError::Absent(place),
        StoreError::OutOfRange { .. } => FetchError::OutOfRange(place),
        other => FetchError::Io(std::io::Error::other(other)),
    }
}

/// Why an object cannot be appended, in the map's words.
pub(super) fn emit_error(error: StoreError) -> EmitError {
    match error {
        StoreError::Full { .. } => EmitError::NoSpace,
        other => EmitError::Refused(Box::new(other)),
    }
}

const HEAD_SHARDS: usize = 16;
/// Heads kept in a shard; 40 bytes each.
const HEADS_MAX: usize = 8192;

/// How nodes begin, by offset, in a line of images that follow one another: a place shows the same bytes in all of
/// them until its region is emptied.
#[derive(Default)]
pub(super) struct Heads([Mutex<HashMap<u64, Head>>; HEAD_SHARDS]);

impl Heads {
    fn shard(&self, place: Place) -> &Mutex<HashMap<u64, Head>> {
        &self.0[(place.offset >> 9) as usize % HEAD_SHARDS]
    }

    fn get(&self, place: Place) -> Option<Head> {
        self.shard(place).lock().get(&place.offset).copied()
    }

    fn put(&self, place: Place, head: Head) {
        let mut shard = self.shard(place).lock();
        if shard.len() >= HEADS_MAX {
            shard.clear();
        }
        shard.insert(place.offset, head);
    }

    /// What still holds once these regions were emptied. A copy: readers of older images go on adding to the old one.
    pub(super) fn without(&self, emptied: &[RegionIndex]) -> Heads {
        let gone: HashSet<RegionIndex> = emptied.iter().copied().collect();
        Heads(std::array::from_fn(|index| {
            let shard = self.0[index].lock();
            let kept = shard.iter().filter(|(offset, _)| !gone.contains(&RegionIndex::of(**offset)));
            Mutex::new(kept.map(|(offset, head)| (*offset, *head)).collect())
        }))
    }
}

/// Reads and grows a draft.
pub struct DraftSource {
    draft: Arc<Draft>,
    stream: Stream,
    /// Carried objects come from here, and so does what is freed: it is not the draft's.
    from: Option<ImageSource>,
}

impl DraftSource {
    /// Reads from `draft` and appends to one of its streams; what is freed or carried elsewhere dies in it.
    pub fn new(draft: Arc<Draft>, stream: Stream) -> DraftSource {
        DraftSource { draft, stream, from: None }
    }

    /// Copies what it carries out of another image into `draft`; nothing of the draft's own dies. Where that fails, what was
    /// copied counts as alive: the draft is of no further use.
    pub fn copying(draft: Arc<Draft>, stream: Stream, from: ImageSource) -> DraftSource {
        DraftSource { draft, stream, from: Some(from) }
    }

    fn append(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        self.draft.append(self.stream, sealed).map_err(emit_error)
    }
}

impl Fetch for DraftSource {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        self.draft.read(place).map_err(|error| fetch_error(place, error))
    }
}

impl Emit for DraftSource {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        self.append(sealed)
    }

    fn free(&mut self, place: Place) {
        // A place of the other image can be one of the draft's, too: what was just copied may lie where it lay there.
        if self.from.is_none() {
            self.draft.free(place);
        }
    }
}

impl Relocate for DraftSource {
    fn carry(&mut self, from: Place) -> Result<Place, MapError> {
        match &self.from {
            Some(source) => {
                let sealed = source.fetch(from)?;
                Ok(self.append(&sealed)?)
            }
            None => {
                let sealed = self.fetch(from)?;
                let place = self.append(&sealed)?;
                self.draft.free(from);
                Ok(place)
            }
        }
    }
}
