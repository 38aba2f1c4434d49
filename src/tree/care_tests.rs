//! A block in a real store, through deletion, cleaning, counting and damage.

#![allow(clippy::unwrap_used)]

use super::check::{Finding, check_block};
use super::clean::Cleaning;
use super::inode::{FileType, InodeRecord, RecordSize, Timestamp};
use super::key::Key;
use super::source::{DraftSource, ImageSource};
use super::value::{DirEntry, chunk_value};
use super::verify::{live_delta, open_changed};
use super::version::Version;
use crate::base::{BlockNumber, DatabaseId, Inode, RegionIndex};
use crate::crypt::{Scope, SealKeys, Secret};
use crate::image::{Draft, Image, MemoryDisk, Store, Stream};
use crate::map::{Edit, Emit, Map, NodeCache, Root};
use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCK: BlockNumber = BlockNumber::ROOT;
const FILES: u64 = 120;
const CHUNKS: u64 = 4;
const CHUNK_BYTES: usize = 16 << 10;

/// A directory of files in a draft.
struct House {
    keys: SealKeys,
    cache: NodeCache,
    store: Arc<Store>,
    draft: Arc<Draft>,
    root: Option<Root>,
}

impl House {
    fn new() -> House {
        let scope = Scope { database: DatabaseId([0; 32]), block: BLOCK, epoch: 0 };
        let keys = SealKeys::new(&Secret::new([1; 32]), scope);
        let store = Store::create(Arc::new(MemoryDisk::new()), DatabaseId([0; 32])).unwrap();
        let draft = Arc::new(store.draft(&Image::empty(&store)).unwrap());
        let mut house = House { keys, cache: NodeCache::new(1 << 20), store, draft, root: None };
        let mut sink = DraftSource::new(house.draft.clone(), Stream::Fresh);
        let mut edits =
            BTreeMap::from([(Key::Inode(Inode(1)).encode(), (InodeRecord::genesis().encode(), None))]);
        for number in 0..FILES {
            let inode = Inode((1 << 32) + number);
            let (name, size) = (format!("{number}").into_bytes(), CHUNKS * CHUNK_BYTES as u64);
            let new = InodeRecord::new(FileType::File, 0o644, Inode(1), Timestamp::default());
            let record = InodeRecord { size, record_size: RecordSize::SMALL, data_id: inode.0, ..new };
            let entry = DirEntry { inode, file_type: FileType::File };
            edits.insert(Key::Inode(inode).encode(), (record.encode(), None));
            edits.insert(Key::Entry(Inode(1), &name).encode(), (entry.encode(), None));
            for index in 0..CHUNKS {
                let mut sealed = Vec::new();
                let plain = [number as u8 + 1; CHUNK_BYTES];
                let id = house.keys.seal_chunk(inode.0, index, &plain, &mut sealed);
                let place = sink.emit(&sealed).unwrap();
                edits.insert(Key::Chunk(inode, index).encode(), (chunk_value(&id), Some(place)));
            }
        }
        house.apply(edits.into_iter().map(|(key, change)| Edit { key, change: Some(change) }).collect());
        house
    }

    fn apply(&mut self, edits: Vec<Edit>) {
        let source = DraftSource::new(self.draft.clone(), Stream::Fresh);
        let mut sink = DraftSource::new(self.draft.clone(), Stream::Fresh);
        let map = Map::new(&self.keys, &source, &self.cache);
        for edit in &edits {
            if let Some(place) = map.get(self.root.as_ref(), &edit.key).unwrap().and_then(|entry| entry.place)
            {
                sink.free(place);
            }
        }
        self.root = map.apply(self.root, &edits, &mut sink).unwrap();
    }

    /// Removes all files but every `kept`th.
    fn thin_out(&mut self, kept: u64) {
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        for number in (0..FILES).filter(|number| number % kept != 0) {
            let inode = Inode((1 << 32) + number);
            keys.push(Key::Inode(inode).encode());
            keys.push(Key::Entry(Inode(1), format!("{number}").as_bytes()).encode());
            keys.extend((0..CHUNKS).map(|index| Key::Chunk(inode, index).encode()));
        }
        keys.sort();
        self.apply(keys.into_iter().map(|key| Edit { key, change: None }).collect());
    }

    fn clean(&mut self, budget_bytes: u64) -> usize {
        let cleaning = Cleaning::plan(&self.draft, budget_bytes);
        let source = DraftSource::new(self.draft.clone(), Stream::Cleaning);
        let mut sink = DraftSource::new(self.draft.clone(), Stream::Cleaning);
        let map = Map::new(&self.keys, &source, &self.cache);
        self.root = Some(cleaning.clean_map(&map, self.root.unwrap(), &mut sink).unwrap());
        self.draft.truncate_empty();
        cleaning.regions().count()
    }

    /// Hands a version over an image, with its length, to `use_it`.
    fn with_version<T>(&self, image: &Image, use_it: impl FnOnce(&Version<'_>, u64) -> T) -> T {
        let source = ImageSource::new(&self.store, image);
        let map = Map::new(&self.keys, &source, &self.cache);
        let version = Version { map: &map, root: self.root, keys: &self.keys, source: &source };
        use_it(&version, image.bytes())
    }

    /// Checks all, and that each region's live bytes are those of what the block has there.
    fn assert_sound(&self) {
        let image = self.draft.snapshot().unwrap();
        self.with_version(&image, |version, bytes| {
            let report = check_block(BLOCK, version, bytes, true);
            assert_eq!(report.found, 0, "{:?}", report.findings);
            let live = live_delta(None, version).unwrap();
            for (index, region) in image.iter() {
                let counted = live.by_region().get(&index).copied().unwrap_or(0);
                assert_eq!(i64::from(region.live), counted, "{index:?}");
            }
            open_changed(BLOCK, None, version, bytes).unwrap();
        });
    }
}

#[test]
fn cleaning_gives_back_space_and_changes_no_id() {
    let mut house = House::new();
    house.assert_sound();
    house.thin_out(4);
    let (id, before) = (house.root.unwrap().id, house.draft.snapshot().unwrap());
    house.assert_sound();
    while house.clean(1 << 20) > 0 {
        assert_eq!(house.root.unwrap().id, id);
        house.assert_sound();
    }
    let after = house.draft.snapshot().unwrap();
    let dead = after.filled_bytes() - after.live_bytes();
    assert!(dead * 10 <= after.filled_bytes() * 3 + (10 << 20), "{dead} dead of {}", after.filled_bytes());
    assert!(
        after.filled_bytes() * 2 < before.filled_bytes(),
        "{} then {}",
        before.filled_bytes(),
        after.filled_bytes()
    );
}

#[test]
fn a_step_moves_no_more_than_its_budget() {
    let mut house = House::new();
    house.thin_out(4);
    let before = house.draft.snapshot().unwrap().filled_bytes();
    assert!(Cleaning::plan(&house.draft, 10).is_empty());
    let regions = house.clean(600_000);
    assert!(regions >= 1);
    assert!(house.draft.snapshot().unwrap().filled_bytes() < before);
    house.assert_sound();
}

#[test]
fn a_check_finds_what_is_damaged() {
    let house = House::new();
    let lost = RegionIndex(1);
    house.draft.empty_regions(&[lost]);
    let image = house.draft.snapshot().unwrap();
    house.with_version(&image, |version, bytes| {
        let report = check_block(BLOCK, version, bytes, true);
        assert!(report.found > 10 && report.chunks == FILES * CHUNKS);
        for finding in &report.findings {
            assert!(
                matches!(finding, Finding::Chunk { place, .. } if RegionIndex::of(place.offset) == lost),
                "{finding:?}"
            );
        }
        assert_eq!(check_block(BLOCK, version, bytes, false).found, 0, "without the chunks");
    });
}

#[test]
fn what_is_carried_to_the_offset_that_it_had_lives_there() {
    let mut house = House::new();
    (house.draft, house.root) = (Arc::new(house.store.draft(&Image::empty(&house.store)).unwrap()), None);
    let change = Some((InodeRecord::genesis().encode(), None));
    house.apply(vec![Edit { key: Key::Inode(Inode(1)).encode(), change }]);
    let root = house.root.unwrap();
    let source = ImageSource::new(&house.store, &house.draft.snapshot().unwrap());
    let other = Arc::new(house.store.draft(&Image::empty(&house.store)).unwrap());
    let mut sink = DraftSource::copying(other.clone(), Stream::Fresh, source.clone());
    let map = Map::new(&house.keys, &source, &house.cache);
    let moved = map.relocate(root, &|_| true, &mut sink).unwrap();
    assert_eq!(moved.place, root.place, "both images begin with it");
    other.snapshot().unwrap();
    assert_eq!(other.region(RegionIndex(0)).live, root.place.length);
    assert!(other.truncate_empty().is_empty());
    other.read(moved.place).unwrap();
}
