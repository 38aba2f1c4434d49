//! Versions of the model in images, and their merges.

use super::model::{Fs, Node, ROOT};
use crate::base::{BlockNumber, DatabaseId, DeviceId, Id, Inode, Place, REGION_BYTES, RegionIndex};
use crate::crypt::{Scope, SealKeys, Secret};
use crate::map::{Edit, Emit, EmitError, Fetch, FetchError, Map, NodeCache, Root};
use crate::tree::inode::{INLINE_BYTES_MAX, InodeRecord};
use crate::tree::key::{Key, start_of};
use crate::tree::merge::{
    Crossed, Join, Joined, MergeError, Merged, Side, Target, apply_merged, join_block, merge_block,
};
use crate::tree::value::{DirEntry, chunk_id, chunk_value};
use crate::tree::verify::{live_delta, open_changed};
use crate::tree::version::Version;
use std::collections::BTreeMap;
use std::sync::Mutex;

const BLOCK: BlockNumber = BlockNumber(0);
const CHUNK: usize = 1 << 14;
/// No image of these tests is longer.
const IMAGE_BYTES: u64 = 1 << 40;
/// Bytes of one image.
pub(super) struct Image(Mutex<Vec<u8>>);

impl Image {
    /// An image in which no place of another means the same.
    fn starting_at(offset: usize) -> Image {
        Image(Mutex::new(vec![0xee; offset]))
    }
}

impl Fetch for Image {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        let bytes = self.0.lock().unwrap();
        let start = place.offset as usize;
        bytes.get(start..start + place.length as usize).map(<[u8]>::to_vec).ok_or(FetchError::Absent(place))
    }
}

/// Appends to an image, and counts what lives there by what it is told.
pub(super) struct Sink<'a> {
    image: &'a Image,
    retains: bool,
    live: BTreeMap<RegionIndex, i64>,
}

impl<'a> Sink<'a> {
    fn new(image: &'a Image, retains: bool) -> Sink<'a> {
        Sink { image, retains, live: BTreeMap::new() }
    }

    fn count(&mut self, place: Place, sign: i64) {
        *self.live.entry(RegionIndex::of(place.offset)).or_default() += sign * i64::from(place.length);
    }
}

impl Emit for Sink<'_> {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        let mut bytes = self.image.0.lock().unwrap();
        let region = REGION_BYTES as usize;
        if bytes.len() % region + sealed.len() > region {
            let start = bytes.len().next_multiple_of(region);
            bytes.resize(start, 0);
        }
        let place = Place { offset: bytes.len() as u64, length: sealed.len() as u32 };
        bytes.extend_from_slice(sealed);
        drop(bytes);
        self.count(place, 1);
        Ok(place)
    }

    fn free(&mut self, place: Place) {
        self.count(place, -1);
    }
}

impl Target for Sink<'_> {
    fn retain(&mut self, place: Place) -> bool {
        if self.retains {
            self.count(place, 1);
        }
        self.retains
    }
}

pub(super) fn keys() -> SealKeys {
    SealKeys::new(&Secret::new([7; 32]), Scope { database: DatabaseId([1; 32]), block: BLOCK, epoch: 0 })
}

/// A filesystem stored in an image.
pub(super) struct Stored {
    pub(super) image: Image,
    pub(super) root: Option<Root>,
}

impl Stored {
    /// Writes one to an image of its own.
    pub(super) fn new(fs: &Fs, offset: usize) -> Stored {
        Stored::forged(fs, offset, |_| ())
    }

    /// The same, after somebody had a hand in its keys and values.
    pub(super) fn forged(fs: &Fs, offset: usize, forge: impl FnOnce(&mut Vec<Edit>)) -> Stored {
        let (image, keys, cache) = (Image::starting_at(offset), keys(), NodeCache::new(1 << 24));
        let mut edits = fs.contents(&image, &keys);
        forge(&mut edits);
        let mut sink = Sink::new(&image, false);
        let root = Map::new(&keys, &image, &cache).apply(None, &edits, &mut sink).unwrap();
        Stored { image, root }
    }

    /// Reads it back; chunks are opened.
    pub(super) fn read(&self) -> Fs {
        let (keys, cache) = (keys(), NodeCache::new(1 << 24));
        let map = Map::new(&keys, &self.image, &cache);
        let mut fs = Fs::new();
        let mut chunks: BTreeMap<Inode, BTreeMap<u64, (Id, Place)>> = BTreeMap::new();
        let mut cursor = map.range(self.root.as_ref(), &start_of(Inode(0)));
        let empty = |record| Node { record, data: vec![], xattrs: BTreeMap::new(), target: None };
        while let Some(entry) = cursor.next().unwrap() {
            match Key::decode(&entry.key).unwrap() {
                Key::Inode(inode) => {
                    let mut node = empty(InodeRecord::decode(&entry.value).unwrap());
                    node.data = node.record.inline.as_deref().unwrap_or_default().to_vec();
                    fs.nodes.insert(inode, node);
                }
                Key::Entry(inode, name) => {
                    let named = DirEntry::decode(&entry.value).unwrap();
                    fs.entries.insert((inode, name.to_vec()), named.inode);
                }
                Key::Chunk(inode, index) => {
                    let chunk = (chunk_id(&entry.value).unwrap(), entry.place.unwrap());
                    chunks.entry(inode).or_default().insert(index, chunk);
                }
                Key::Xattr(inode, name) => {
                    fs.nodes.get_mut(&inode).unwrap().xattrs.insert(name.to_vec(), entry.value.to_vec());
                }
                Key::Link(inode) => fs.nodes.get_mut(&inode).unwrap().target = Some(entry.value.to_vec()),
            }
        }
        for (inode, chunks) in chunks {
            let node = fs.nodes.get_mut(&inode).unwrap();
            for (index, (id, place)) in chunks {
                let sealed = self.image.fetch(place).unwrap();
                node.data.extend(keys.open_chunk(node.record.data_id, index, &id, &sealed).unwrap());
            }
            assert_eq!(node.data.len() as u64, node.record.size, "size of {inode}");
        }
        fs
    }
}

/// Which commit the sides come from.
#[derive(Clone, Copy)]
pub(super) struct Authors {
    pub(super) lamport: [u64; 2],
    /// Whether the sides are filesystems at all.
    pub(super) sound: bool,
}

/// Merges both ways round, checks that the results are one, sound, and hold what either side wrote, and returns it.
pub(super) fn merge(base: Option<&Fs>, a: &Fs, b: &Fs, authors: Authors) -> (Fs, Merged) {
    merge_crossed(base, None, a, b, authors)
}

/// The same where both sides stand on another version too, given with what it and the base stand on.
pub(super) fn merge_crossed(
    base: Option<&Fs>,
    crossed: Option<[&Fs; 2]>,
    a: &Fs,
    b: &Fs,
    authors: Authors,
) -> (Fs, Merged) {
    let stored_base = base.map(|base| Stored::new(base, 0));
    let stored_crossed = crossed.map(|[other, below]| [Stored::new(other, 300), Stored::new(below, 40)]);
    let bases = (stored_base.as_ref(), stored_crossed.as_ref());
    let (stored_a, stored_b) = (Stored::new(a, 1000), Stored::new(b, 77_777));
    let (on_b, merged) = merge_bases(bases, &stored_a, &stored_b, authors, [0, 1]).unwrap();
    let swapped = Authors { lamport: [authors.lamport[1], authors.lamport[0]], ..authors };
    let (on_a, mirrored) = merge_bases(bases, &stored_b, &stored_a, swapped, [1, 0]).unwrap();
    let (fs, other) = (on_b.read(), on_a.read());
    assert_eq!(fs, other, "the two orders differ");
    assert_eq!(on_b.root.map(|root| root.id), on_a.root.map(|root| root.id), "roots differ");
    assert_eq!(merged.conflicts, mirrored.conflicts, "conflicts differ");
    fs.assert_sound();
    for side in [a, b] {
        for (inode, node) in side.nodes.iter().filter(|(_, node)| !node.data.is_empty()) {
            let old = base.and_then(|base| base.nodes.get(inode));
            let edited = crossed.is_none() && old.is_none_or(|old| old.data != node.data);
            let kept = || fs.nodes.values().any(|other| other.data == node.data);
            assert!(!edited || kept(), "data of {inode} is lost");
        }
    }
    (fs, merged)
}

/// Merges `a` into a copy of `b`'s image.
pub(super) fn merge_stored(
    base: Option<&Stored>,
    a: &Stored,
    b: &Stored,
    authors: Authors,
    who: [usize; 2],
) -> Result<(Stored, Merged), MergeError> {
    merge_bases((base, None), a, b, authors, who)
}

fn merge_bases(
    (base, crossed): (Option<&Stored>, Option<&[Stored; 2]>),
    a: &Stored,
    b: &Stored,
    authors: Authors,
    who: [usize; 2],
) -> Result<(Stored, Merged), MergeError> {
    let (keys, cache) = (keys(), NodeCache::new(1 << 24));
    let result = Image(Mutex::new(b.image.0.lock().unwrap().clone()));
    let empty = Image::starting_at(0);
    let base_image = base.map_or(&empty, |base| &base.image);
    let (map_base, map_a) = (Map::new(&keys, base_image, &cache), Map::new(&keys, &a.image, &cache));
    let map_b = Map::new(&keys, &result, &cache);
    let version = |map, root, source| Version { map, root, keys: &keys, source };
    let side = |version, at: usize| Side {
        version,
        lamport: authors.lamport[at],
        commit: Id([100 + who[at] as u8; 32]),
        device: DeviceId([0xa0 + who[at] as u8; 32]),
        time: 1_700_000_000 + who[at] as i64,
    };
    let base = base.map(|base| version(&map_base, base.root, base_image as &dyn Fetch));
    let side_a = side(version(&map_a, a.root, &a.image as &dyn Fetch), 0);
    let side_b = side(version(&map_b, b.root, &result as &dyn Fetch), 1);
    let crossed_maps = crossed.map(|both| both.each_ref().map(|one| Map::new(&keys, &one.image, &cache)));
    let crossed = crossed.zip(crossed_maps.as_ref()).map(|(both, maps)| {
        let on = |at: usize| version(&maps[at], both[at].root, &both[at].image as &dyn Fetch);
        Crossed { version: on(0), below: on(1) }
    });
    let merged = merge_block(BLOCK, base, crossed.as_slice(), &side_a, &side_b)?;
    let mut sink = Sink::new(&result, who[0] == 0);
    let root = apply_merged(&side_b.version, &merged, &a.image, &mut sink)?;
    if authors.sound {
        sink.live.retain(|_, bytes| *bytes != 0);
        let result_version = Version { root, ..side_b.version };
        let counted = live_delta(Some(&side_b.version), &result_version).unwrap();
        assert!(counted.by_region().iter().filter(|(_, bytes)| **bytes != 0).eq(&sink.live), "live bytes");
        for old in [base.as_ref(), Some(&side_a.version), Some(&side_b.version), None] {
            open_changed(BLOCK, old, &result_version, IMAGE_BYTES).unwrap();
        }
    }
    Ok((Stored { image: result, root }, merged))
}

impl Fs {
    fn contents(&self, image: &Image, keys: &SealKeys) -> Vec<Edit> {
        let mut edits = BTreeMap::new();
        for ((parent, name), inode) in &self.entries {
            let entry = DirEntry { inode: *inode, file_type: self.nodes[inode].record.file_type };
            edits.insert(Key::Entry(*parent, name).encode(), (entry.encode(), None));
        }
        let mut sink = Sink::new(image, false);
        for (inode, node) in &self.nodes {
            if *inode != ROOT || node.record != InodeRecord::genesis() {
                edits.insert(Key::Inode(*inode).encode(), (node.record.encode(), None));
            }
            for (name, value) in &node.xattrs {
                edits.insert(Key::Xattr(*inode, name).encode(), (value.clone().into(), None));
            }
            if let Some(target) = &node.target {
                edits.insert(Key::Link(*inode).encode(), (target.clone().into(), None));
            }
            if node.data.len() > INLINE_BYTES_MAX {
                for (index, plain) in node.data.chunks(CHUNK).enumerate() {
                    let mut sealed = Vec::new();
                    let id = keys.seal_chunk(node.record.data_id, index as u64, plain, &mut sealed);
                    let place = sink.emit(&sealed).unwrap();
                    edits.insert(Key::Chunk(*inode, index as u64).encode(), (chunk_value(&id), Some(place)));
                }
            }
        }
        edits.into_iter().map(|(key, change)| Edit { key, change: Some(change) }).collect()
    }
}

/// Joins `there` with `here` on a copy of `there`'s image; checks that the result is sound, and its count.
pub(super) fn join(
    here: &Fs,
    there: &Fs,
    here_stands: bool,
    own: &std::collections::BTreeSet<Inode>,
    accepted: Option<&Fs>,
) -> (Fs, Joined) {
    let (here, there) = (Stored::new(here, 1000), Stored::new(there, 77_777));
    let accepted = accepted.map(|accepted| Stored::new(accepted, 40));
    let (keys, cache) = (keys(), NodeCache::new(1 << 24));
    let (map_here, map_there) = (Map::new(&keys, &here.image, &cache), Map::new(&keys, &there.image, &cache));
    let map_accepted = accepted.as_ref().map(|accepted| Map::new(&keys, &accepted.image, &cache));
    let join = Join {
        block: BLOCK,
        here: Version { map: &map_here, root: here.root, keys: &keys, source: &here.image },
        there: Version { map: &map_there, root: there.root, keys: &keys, source: &there.image },
        here_stands,
        own,
        accepted: accepted.as_ref().zip(map_accepted.as_ref()).map(|(accepted, map)| Version {
            map,
            root: accepted.root,
            keys: &keys,
            source: &accepted.image,
        }),
    };
    let joined = join_block(&join).unwrap();
    let merged = Merged { edits_on_b: joined.edits.clone(), conflicts: joined.conflicts.clone() };
    let mut sink = Sink::new(&there.image, false);
    let root = apply_merged(&join.there, &merged, &here.image, &mut sink).unwrap();
    sink.live.retain(|_, bytes| *bytes != 0);
    let result = Version { root, ..join.there };
    let counted = live_delta(Some(&join.there), &result).unwrap();
    assert!(counted.by_region().iter().filter(|(_, bytes)| **bytes != 0).eq(&sink.live), "live bytes");
    for old in [Some(&join.here), Some(&join.there), None] {
        open_changed(BLOCK, old, &result, IMAGE_BYTES).unwrap();
    }
    let fs = Stored { root, image: there.image }.read();
    fs.assert_sound();
    (fs, joined)
}
