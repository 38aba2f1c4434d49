//! Blocks that a member could write and no device of ours would.

#![allow(clippy::unwrap_used)]

use super::{Defect, Flaw, Stopped, check_structure};
use crate::base::{BlockNumber, Inode, Place};
use crate::crypt::{Scope, SealKeys, Secret};
use crate::map::{Edit, Emit, EmitError, Fetch, FetchError, Map, NodeCache, Root};
use crate::tree::inode::{FileType, InodeRecord, RecordSize, Timestamp};
use crate::tree::key::Key;
use crate::tree::value::DirEntry;
use crate::tree::version::Version;
use std::sync::Mutex;

const BLOCK: BlockNumber = BlockNumber(3);
const ROOT: Inode = Inode(4);
const DIRECTORY: Inode = Inode(1 << 32);
const INNER: Inode = Inode((1 << 32) + 1);
const FILE: Inode = Inode((1 << 32) + 2);
const LINK: Inode = Inode((1 << 32) + 3);
const IMAGE_BYTES: u64 = 1 << 22;

#[derive(Default)]
struct Image(Mutex<Vec<u8>>);

impl Fetch for Image {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        let start = place.offset as usize;
        let bytes = self.0.lock().unwrap();
        bytes
            .get(start..start + place.length as usize)
            .map(<[u8]>::to_vec)
            .ok_or(FetchError::OutOfRange(place))
    }
}

struct Sink<'a>(&'a Image);

impl Emit for Sink<'_> {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        let mut bytes = self.0.0.lock().unwrap();
        let place = Place { offset: bytes.len() as u64, length: sealed.len() as u32 };
        bytes.extend_from_slice(sealed);
        Ok(place)
    }

    fn free(&mut self, _place: Place) {}
}

type Change = (Box<[u8]>, Option<(Box<[u8]>, Option<Place>)>);

fn put(inode: Inode, record: &InodeRecord) -> Change {
    (Key::Inode(inode).encode(), Some((record.encode(), None)))
}

fn name(parent: Inode, name: &[u8], inode: Inode, file_type: FileType) -> Change {
    (Key::Entry(parent, name).encode(), Some((DirEntry { inode, file_type }.encode(), None)))
}

fn chunk(inode: Inode, index: u64, place: Option<Place>) -> Change {
    (Key::Chunk(inode, index).encode(), Some(([9; 32].into(), place)))
}

fn gone(key: Key<'_>) -> Change {
    (key.encode(), None)
}

fn record(file_type: FileType, parent: Inode) -> InodeRecord {
    InodeRecord::new(file_type, 0o644, parent, Timestamp::default())
}

fn root(nlink: u32) -> InodeRecord {
    InodeRecord { nlink, ..InodeRecord::genesis() }
}

fn file() -> InodeRecord {
    InodeRecord { size: 40_000, record_size: RecordSize::SMALL, ..record(FileType::File, DIRECTORY) }
}

fn at(offset: u64, length: u32) -> Option<Place> {
    Some(Place { offset, length })
}

/// `/d/inner`, `/d/f` of three chunks, `/d/l`.
fn sound() -> Vec<Change> {
    vec![
        put(ROOT, &root(3)),
        name(ROOT, b"d", DIRECTORY, FileType::Directory),
        put(DIRECTORY, &InodeRecord { nlink: 3, ..record(FileType::Directory, ROOT) }),
        name(DIRECTORY, b"inner", INNER, FileType::Directory),
        put(INNER, &record(FileType::Directory, DIRECTORY)),
        name(DIRECTORY, b"f", FILE, FileType::File),
        put(FILE, &file()),
        chunk(FILE, 0, at(100, 16_384)),
        chunk(FILE, 2, at(20_000, 7232)),
        name(DIRECTORY, b"l", LINK, FileType::Symlink),
        put(LINK, &InodeRecord { size: 6, ..record(FileType::Symlink, DIRECTORY) }),
        (Key::Link(LINK).encode(), Some((b"target"[..].into(), None))),
    ]
}

struct Bench {
    keys: SealKeys,
    cache: NodeCache,
    image: Image,
}

impl Bench {
    fn new() -> Bench {
        let scope = Scope { database: crate::base::DatabaseId([0; 32]), block: BLOCK, epoch: 0 };
        let keys = SealKeys::new(&Secret::new([1; 32]), scope);
        Bench { keys, cache: NodeCache::new(1 << 20), image: Image::default() }
    }

    fn apply(&self, root: Option<Root>, mut changes: Vec<Change>) -> Option<Root> {
        changes.sort();
        let edits: Vec<Edit> = changes.into_iter().map(|(key, change)| Edit { key, change }).collect();
        Map::new(&self.keys, &self.image, &self.cache).apply(root, &edits, &mut Sink(&self.image)).unwrap()
    }

    fn flaws(&self, old: Option<Option<Root>>, new: Option<Root>) -> Vec<Flaw> {
        let map = Map::new(&self.keys, &self.image, &self.cache);
        let version = |root| Version { map: &map, root, keys: &self.keys, source: &self.image };
        let mut flaws = Vec::new();
        let old = old.map(version);
        let mut report = |flaw| {
            flaws.push(flaw);
            Ok::<(), Stopped>(())
        };
        check_structure(BLOCK, old.as_ref(), &version(new), IMAGE_BYTES, &mut report).unwrap();
        flaws
    }
}

/// The flaws that changes of the sound block lead to, judged as a change and as a whole.
fn judged(changes: Vec<Change>) -> [Vec<Flaw>; 2] {
    let bench = Bench::new();
    let old = bench.apply(None, sound());
    let new = bench.apply(old, changes);
    [bench.flaws(Some(old), new), bench.flaws(None, new)]
}

#[test]
fn what_devices_write_passes() {
    let bench = Bench::new();
    let whole = bench.apply(None, sound());
    assert_eq!(bench.flaws(None, whole), []);
    assert_eq!(bench.flaws(Some(None), whole), []);
    assert_eq!(bench.flaws(Some(whole), None), [], "all was removed");
    assert_eq!(bench.flaws(None, None), []);
    let moved = vec![
        gone(Key::Entry(DIRECTORY, b"inner")),
        name(ROOT, b"moved", INNER, FileType::Directory),
        put(INNER, &record(FileType::Directory, ROOT)),
        put(ROOT, &root(4)),
        put(DIRECTORY, &InodeRecord { nlink: 2, ..record(FileType::Directory, ROOT) }),
        name(INNER, b"another", FILE, FileType::File),
        put(FILE, &InodeRecord { nlink: 2, ..file() }),
    ];
    assert_eq!(judged(moved), [[], []]);
}

#[test]
fn each_flaw_is_found_as_a_change_and_as_a_whole() {
    let directory = |nlink, parent| InodeRecord { nlink, ..record(FileType::Directory, parent) };
    let cases: Vec<(&str, Vec<Change>, Defect)> = vec![
        (
            "a key of no kind",
            vec![(Box::from(&b"12345678\x09"[..]), Some(([].into(), None)))],
            Defect::Malformed,
        ),
        (
            "a record in no form",
            vec![(Key::Inode(FILE).encode(), Some(([1].into(), None)))],
            Defect::Malformed,
        ),
        (
            "a reserved number",
            vec![put(Inode(77), &file()), name(ROOT, b"x", Inode(77), FileType::File)],
            Defect::Number,
        ),
        ("an entry of nothing", vec![name(ROOT, b"x", Inode(1 << 40), FileType::File)], Defect::Entry),
        ("an entry of another type", vec![name(DIRECTORY, b"f", FILE, FileType::Fifo)], Defect::Entry),
        ("a name of the root", vec![name(DIRECTORY, b"up", ROOT, FileType::Directory)], Defect::Parent),
        ("a file nobody names", vec![put(Inode(1 << 40), &file())], Defect::Links),
        ("a directory nobody names", vec![put(Inode(1 << 40), &directory(2, ROOT))], Defect::Parent),
        ("a record that is gone", vec![gone(Key::Inode(FILE))], Defect::Entry),
        (
            "an inode half gone",
            vec![gone(Key::Inode(FILE)), gone(Key::Entry(DIRECTORY, b"f"))],
            Defect::NoRecord,
        ),
        ("chunks of nothing", vec![chunk(Inode(1 << 40), 0, at(0, 20))], Defect::NoRecord),
        ("a wrong count of names", vec![put(FILE, &InodeRecord { nlink: 2, ..file() })], Defect::Links),
        ("a wrong count of directories", vec![put(DIRECTORY, &directory(4, ROOT))], Defect::Links),
        ("a name too few", vec![gone(Key::Entry(DIRECTORY, b"f"))], Defect::Links),
        ("a wrong parent", vec![put(INNER, &directory(2, ROOT))], Defect::Parent),
        (
            "a directory twice",
            vec![name(ROOT, b"x", INNER, FileType::Directory), put(ROOT, &root(4))],
            Defect::Parent,
        ),
        ("entries in a file", vec![name(FILE, b"x", LINK, FileType::Symlink)], Defect::Contents),
        (
            "a target of a file",
            vec![(Key::Link(FILE).encode(), Some((b"x"[..].into(), None)))],
            Defect::Contents,
        ),
        ("a link without target", vec![gone(Key::Link(LINK))], Defect::Contents),
        (
            "a target of another length",
            vec![(Key::Link(LINK).encode(), Some((b"x"[..].into(), None)))],
            Defect::Contents,
        ),
        ("chunks of a directory", vec![chunk(INNER, 0, at(0, 20))], Defect::Chunk),
        ("a chunk beyond the end", vec![chunk(FILE, 3, at(0, 20))], Defect::Chunk),
        (
            "a file cut short of its chunks",
            vec![put(FILE, &InodeRecord { size: 16_384, ..file() })],
            Defect::Chunk,
        ),
        ("a chunk beyond the image", vec![chunk(FILE, 1, at(IMAGE_BYTES - 5, 20))], Defect::Chunk),
        ("a chunk across regions", vec![chunk(FILE, 1, at((1 << 20) - 5, 20))], Defect::Chunk),
        ("a chunk of nothing", vec![chunk(FILE, 1, at(0, 0))], Defect::Chunk),
        ("a chunk nowhere", vec![chunk(FILE, 1, None)], Defect::Chunk),
        ("a chunk too long", vec![chunk(FILE, 1, at(0, 16_385))], Defect::Chunk),
        (
            "a place of a record",
            vec![(Key::Inode(FILE).encode(), Some((file().encode(), at(0, 20))))],
            Defect::Chunk,
        ),
        ("a root that is a file", vec![put(ROOT, &record(FileType::File, Inode(0)))], Defect::Contents),
    ];
    for (what, changes, defect) in cases {
        for (flaws, how) in judged(changes).iter().zip(["change", "whole"]) {
            assert!(flaws.iter().any(|flaw| flaw.defect == defect), "{what}, as a {how}: {flaws:?}");
        }
    }
}

#[test]
fn a_directory_within_itself_is_found() {
    let directory = |parent| InodeRecord { nlink: 3, ..record(FileType::Directory, parent) };
    let cycle = vec![
        gone(Key::Entry(ROOT, b"d")),
        put(ROOT, &root(2)),
        name(INNER, b"d", DIRECTORY, FileType::Directory),
        put(DIRECTORY, &directory(INNER)),
        put(INNER, &directory(DIRECTORY)),
    ];
    for flaws in judged(cycle) {
        assert!(flaws.iter().all(|flaw| flaw.defect == Defect::Cycle) && !flaws.is_empty(), "{flaws:?}");
    }
}
