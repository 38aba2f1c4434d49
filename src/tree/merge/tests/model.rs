//! A filesystem in a few maps in memory, to make versions from and to read results into.

use crate::base::{BlockNumber, DatabaseId, DeviceId, Id, Inode, Place};
use crate::crypt::{Scope, SealKeys, Secret};
use crate::map::{Edit, Emit, EmitError, Fetch, FetchError, Map, NodeCache, Root};
use crate::tree::inode::{FileType, INLINE_BYTES_MAX, InodeRecord, RecordSize, Timestamp};
use crate::tree::key::{Key, start_of};
use crate::tree::merge::{Merged, Side, Target, Version, apply_merged, merge_block};
use crate::tree::value::{DirEntry, chunk_id, chunk_value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

const BLOCK: BlockNumber = BlockNumber(0);
pub(super) const ROOT: Inode = Inode(1);
const CHUNK: usize = 1 << 14;

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

/// Appends to an image, and remembers what is freed.
pub(super) struct Sink<'a> {
    image: &'a Image,
    retains: bool,
    pub(super) freed: Vec<Place>,
}

impl Emit for Sink<'_> {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        let mut bytes = self.image.0.lock().unwrap();
        let place = Place { offset: bytes.len() as u64, length: sealed.len() as u32 };
        bytes.extend_from_slice(sealed);
        Ok(place)
    }

    fn free(&mut self, place: Place) {
        self.freed.push(place);
    }
}

impl Target for Sink<'_> {
    fn retain(&mut self, _place: Place) -> bool {
        self.retains
    }
}

pub(super) fn keys() -> SealKeys {
    SealKeys::new(&Secret::new([7; 32]), Scope { database: DatabaseId([1; 32]), block: BLOCK, epoch: 0 })
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) record: InodeRecord,
    pub(super) data: Vec<u8>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
}

/// A whole block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fs {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) entries: BTreeMap<(Inode, Vec<u8>), Inode>,
    next: u64,
    clock: i64,
}

/// What an operation comes to; `None` where it does not apply.
type Done = Option<()>;

impl Fs {
    /// The empty block.
    pub(super) fn new() -> Fs {
        let root =
            Node { record: InodeRecord::genesis(), data: vec![], xattrs: BTreeMap::new(), target: None };
        Fs { nodes: BTreeMap::from([(ROOT, root)]), entries: BTreeMap::new(), next: 5 << 32, clock: 1000 }
    }

    /// The same, on a device that draws other numbers and has another clock.
    pub(super) fn on_device(&self, device: u64) -> Fs {
        Fs { next: (device + 10) << 32, clock: self.clock + 1000 * device as i64, ..self.clone() }
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { seconds: self.clock, nanos: 0 }
    }

    pub(super) fn look(&self, path: &str) -> Option<Inode> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(ROOT, |inode, part| self.entries.get(&(inode, part.into())).copied())
    }

    fn split(&self, path: &str) -> Option<(Inode, Vec<u8>)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.look(directory)?;
        self.nodes[&parent].record.is_directory().then(|| (parent, name.as_bytes().to_vec()))
    }

    fn touch_directory(&mut self, inode: Inode, subdirectories: i32) {
        let now = self.now();
        let record = &mut self.nodes.get_mut(&inode).unwrap().record;
        (record.mtime, record.ctime) = (now, now);
        record.nlink = record.nlink.checked_add_signed(subdirectories).unwrap();
    }

    fn make(&mut self, path: &str, file_type: FileType, data: &[u8], target: Option<&[u8]>) -> Done {
        let location = self.split(path)?;
        if self.entries.contains_key(&location) {
            return None;
        }
        let (number, now) = (Inode(self.next), self.now());
        self.next += 1;
        let mut record = InodeRecord::new(file_type, 0o644, location.0, now);
        if file_type == FileType::File {
            record.data_id = number.0;
        }
        record.size = target.map_or(0, |target| target.len() as u64);
        let target = target.map(<[u8]>::to_vec);
        self.nodes.insert(number, Node { record, data: vec![], xattrs: BTreeMap::new(), target });
        self.set_data(number, data);
        self.touch_directory(location.0, i32::from(file_type == FileType::Directory));
        self.entries.insert(location, number);
        Some(())
    }

    pub(super) fn create(&mut self, path: &str, data: &[u8]) -> Done {
        self.make(path, FileType::File, data, None)
    }

    pub(super) fn mkdir(&mut self, path: &str) -> Done {
        self.make(path, FileType::Directory, b"", None)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> Done {
        self.make(path, FileType::Symlink, b"", Some(target.as_bytes()))
    }

    fn set_data(&mut self, inode: Inode, data: &[u8]) {
        let node = self.nodes.get_mut(&inode).unwrap();
        if !node.record.is_file() {
            return;
        }
        node.data = data.to_vec();
        node.record.size = data.len() as u64;
        let inline = (1..=INLINE_BYTES_MAX).contains(&data.len());
        node.record.inline = inline.then(|| data.into());
        node.record.record_size =
            if data.len() > INLINE_BYTES_MAX { RecordSize::SMALL } else { RecordSize::UNDECIDED };
    }

    pub(super) fn write(&mut self, path: &str, data: &[u8]) -> Done {
        let inode = self.look(path).filter(|inode| self.nodes[inode].record.is_file())?;
        self.set_data(inode, data);
        let now = self.now();
        let record = &mut self.nodes.get_mut(&inode)?.record;
        (record.mtime, record.ctime) = (now, now);
        Some(())
    }

    pub(super) fn chmod(&mut self, path: &str, mode: u16) -> Done {
        let (inode, now) = (self.look(path)?, self.now());
        let record = &mut self.nodes.get_mut(&inode)?.record;
        (record.mode, record.ctime) = (mode, now);
        Some(())
    }

    pub(super) fn set_xattr(&mut self, path: &str, name: &str, value: Option<&str>) -> Done {
        let (inode, now) = (self.look(path)?, self.now());
        let node = self.nodes.get_mut(&inode)?;
        node.record.ctime = now;
        match value {
            Some(value) => node.xattrs.insert(name.into(), value.into()),
            None => node.xattrs.remove(name.as_bytes()),
        };
        Some(())
    }

    pub(super) fn link(&mut self, path: &str, new: &str) -> Done {
        let (inode, location, now) = (self.look(path)?, self.split(new)?, self.now());
        if self.nodes[&inode].record.is_directory() || self.entries.contains_key(&location) {
            return None;
        }
        let record = &mut self.nodes.get_mut(&inode)?.record;
        record.nlink += 1;
        record.ctime = now;
        self.touch_directory(location.0, 0);
        self.entries.insert(location, inode);
        Some(())
    }

    pub(super) fn remove(&mut self, path: &str) -> Done {
        let location = self.split(path)?;
        let inode = *self.entries.get(&location)?;
        let now = self.now();
        let directory = self.nodes[&inode].record.is_directory();
        if directory && self.entries.keys().any(|(parent, _)| *parent == inode) {
            return None;
        }
        self.entries.remove(&location);
        self.touch_directory(location.0, -i32::from(directory));
        let record = &mut self.nodes.get_mut(&inode)?.record;
        record.nlink -= 1;
        record.ctime = now;
        if directory || record.nlink == 0 {
            self.nodes.remove(&inode);
        }
        Some(())
    }

    pub(super) fn remove_all(&mut self, path: &str) -> Done {
        let inode = self.look(path).filter(|inode| *inode != ROOT)?;
        let names: Vec<Vec<u8>> = self
            .entries
            .keys()
            .filter(|(parent, _)| *parent == inode)
            .map(|(_, name)| name.clone())
            .collect();
        for name in names {
            self.remove_all(&format!("{path}/{}", String::from_utf8(name).unwrap()))?;
        }
        self.remove(path)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Done {
        let (old, new) = (self.split(from)?, self.split(to)?);
        let inode = *self.entries.get(&old)?;
        let directory = self.nodes[&inode].record.is_directory();
        let mut above = Some(new.0);
        while let Some(other) = above.filter(|other| *other != ROOT) {
            if other == inode {
                return None;
            }
            above = Some(self.nodes[&other].record.parent);
        }
        if let Some(there) = self.entries.get(&new) {
            if *there == inode || directory || self.nodes[there].record.is_directory() {
                return None;
            }
            self.remove(to)?;
        }
        self.entries.remove(&old);
        self.touch_directory(old.0, -i32::from(directory));
        self.touch_directory(new.0, i32::from(directory));
        let now = self.now();
        let record = &mut self.nodes.get_mut(&inode)?.record;
        (record.parent, record.ctime) = (new.0, now);
        self.entries.insert(new, inode);
        Some(())
    }

    /// How editors save: another file, renamed over the old one.
    pub(super) fn replace(&mut self, path: &str, data: &[u8]) -> Done {
        self.look(path).filter(|inode| self.nodes[inode].record.is_file())?;
        let temporary = format!("{path}.tmp");
        self.create(&temporary, data)?;
        self.rename(&temporary, path)
    }

    /// Every path, breadth first.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut found = vec![(ROOT, String::new())];
        let mut at = 0;
        while at < found.len() {
            let (inode, path) = found[at].clone();
            for ((_, name), child) in self.entries.iter().filter(|((parent, _), _)| *parent == inode) {
                let separator = if path.is_empty() { "" } else { "/" };
                found.push((*child, format!("{path}{separator}{}", String::from_utf8_lossy(name))));
            }
            at += 1;
        }
        found.into_iter().skip(1).map(|(_, path)| path).collect()
    }

    pub(super) fn data(&self, path: &str) -> Option<&[u8]> {
        self.look(path).map(|inode| &self.nodes[&inode].data[..])
    }

    /// All that a filesystem must hold to.
    pub(super) fn assert_sound(&self) {
        let mut names: BTreeMap<Inode, Vec<Inode>> = BTreeMap::new();
        for ((parent, name), inode) in &self.entries {
            assert!(self.nodes[parent].record.is_directory(), "{name:?} lies in a file");
            assert!(self.nodes.contains_key(inode), "{name:?} names nothing");
            names.entry(*inode).or_default().push(*parent);
        }
        for (inode, node) in &self.nodes {
            let names = names.get(inode).cloned().unwrap_or_default();
            if node.record.is_directory() {
                let subdirectories = self
                    .entries
                    .iter()
                    .filter(|((p, _), i)| p == inode && self.nodes[i].record.is_directory())
                    .count();
                assert_eq!(node.record.nlink as usize, 2 + subdirectories, "links of directory {inode}");
                let place = if *inode == ROOT { vec![] } else { vec![node.record.parent] };
                assert_eq!(names, place, "place of directory {inode}");
            } else {
                assert_eq!(node.record.nlink as usize, names.len(), "links of {inode}");
            }
        }
        let reached: BTreeSet<Inode> = self.paths().iter().map(|path| self.look(path).unwrap()).collect();
        assert_eq!(reached.len() + 1, self.nodes.len(), "something cannot be reached");
    }

    fn contents(&self, image: &Image, keys: &SealKeys) -> Vec<Edit> {
        let mut edits = BTreeMap::new();
        for ((parent, name), inode) in &self.entries {
            let entry = DirEntry { inode: *inode, file_type: self.nodes[inode].record.file_type };
            edits.insert(Key::Entry(*parent, name).encode(), (entry.encode(), None));
        }
        let mut sink = Sink { image, retains: false, freed: vec![] };
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

/// A filesystem stored in an image.
pub(super) struct Stored {
    pub(super) image: Image,
    pub(super) root: Option<Root>,
}

impl Stored {
    /// Writes one to an image of its own.
    pub(super) fn new(fs: &Fs, offset: usize) -> Stored {
        let (image, keys, cache) = (Image::starting_at(offset), keys(), NodeCache::new(1 << 24));
        let edits = fs.contents(&image, &keys);
        let mut sink = Sink { image: &image, retains: false, freed: vec![] };
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
}

/// Merges both ways round, checks that the results are one, sound, and hold what either side wrote, and returns it.
pub(super) fn merge(base: Option<&Fs>, a: &Fs, b: &Fs, authors: Authors) -> (Fs, Merged) {
    let stored_base = base.map(|base| Stored::new(base, 0));
    let (stored_a, stored_b) = (Stored::new(a, 1000), Stored::new(b, 77_777));
    let (on_b, merged) = merge_stored(stored_base.as_ref(), &stored_a, &stored_b, authors, [0, 1]);
    let swapped = Authors { lamport: [authors.lamport[1], authors.lamport[0]] };
    let (on_a, mirrored) = merge_stored(stored_base.as_ref(), &stored_b, &stored_a, swapped, [1, 0]);
    let (fs, other) = (on_b.read(), on_a.read());
    assert_eq!(fs, other, "the two orders differ");
    assert_eq!(on_b.root.map(|root| root.id), on_a.root.map(|root| root.id), "roots differ");
    assert_eq!(merged.conflicts, mirrored.conflicts, "conflicts differ");
    fs.assert_sound();
    for side in [a, b] {
        for (inode, node) in side.nodes.iter().filter(|(_, node)| !node.data.is_empty()) {
            let old = base.and_then(|base| base.nodes.get(inode));
            let edited = old.is_none_or(|old| old.data != node.data);
            let kept = || fs.nodes.values().any(|other| other.data == node.data);
            assert!(!edited || kept(), "data of {inode} is lost");
        }
    }
    (fs, merged)
}

fn merge_stored(
    base: Option<&Stored>,
    a: &Stored,
    b: &Stored,
    authors: Authors,
    who: [usize; 2],
) -> (Stored, Merged) {
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
    let merged = merge_block(BLOCK, base, &side_a, &side_b).unwrap();
    let mut sink = Sink { image: &result, retains: who[0] == 0, freed: vec![] };
    let root = apply_merged(&side_b.version, &merged, &a.image, &mut sink).unwrap();
    drop((map_base, map_a, map_b));
    (Stored { image: result, root }, merged)
}
