//! Power cuts at every step of random histories: what was synced is there, the tree is one that existed, and it is sound.

use super::super::{
    Allocate, Attr, Head, IntentLog, Logged, NodeKind, RenameFlags, SetAttr, SetTime, SetXattr, Tree,
    TreeOptions,
};
use super::{Dice, OWNER, ROOT, keys_of, names_in, view_of};
use crate::base::{BlockNumber, DatabaseId, Id, Inode, Reader, Writer};
use crate::crypt::Secret;
use crate::crypt::log_key::LogKey;
use crate::image::{CrashDisk, Disk, Fate, Image, Kept, Label, MemoryDisk, Space, Store};
use crate::map::{Map, NodeCache, Root};
use crate::tree::check::check_block;
use crate::tree::version::Version;
use crate::tree::{BlockView, FileType, Mark, ReadTree, Timestamp, TreeError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Few names, so that they meet.
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
/// Few changes fit, so that some bursts must be committed.
const WAITING_BYTES_MAX: usize = 96 << 10;
const STEPS: usize = 70;
/// Cuts of the short run; `KILOFS_CRASH_CUTS` asks for another number.
const CUTS: u64 = 10_000;

static CLOCK: AtomicI64 = AtomicI64::new(1);

fn tick() -> Timestamp {
    Timestamp { seconds: CLOCK.fetch_add(1, Ordering::Relaxed), nanos: 7 }
}

/// What a history has come to, for whoever looks at a cut.
#[derive(Default)]
struct Witness {
    /// What the tree showed after each change.
    shown: HashMap<u64, blake3::Hash>,
    /// The last change that an fsync or a commit answered for.
    promised: u64,
}

/// A disk whose power fails at every step, as far as others can tell.
struct CutDisk {
    inner: CrashDisk,
    witness: Mutex<Witness>,
    dice: Mutex<Dice>,
    cuts: AtomicU64,
    /// Not while the store is being made.
    armed: AtomicU64,
}

impl CutDisk {
    /// Plays a cut before the next step, with two kinds of luck.
    fn cut(&self) {
        if self.armed.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut dice = self.dice.lock();
        for luck in [2, 5] {
            let disk = self.inner.crash(|| match dice.below(6) {
                0 => Fate::Torn,
                other if other < luck => Fate::Kept,
                _ => Fate::Lost,
            });
            let goes_on = dice.one_in(16);
            self.cuts.fetch_add(1, Ordering::SeqCst);
            after_the_cut(Arc::new(disk), &self.witness.lock(), goes_on);
        }
    }
}

impl Disk for CutDisk {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.cut();
        self.inner.write_at(offset, bytes)
    }
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.cut();
        self.inner.set_length(bytes)
    }
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.cut();
        self.inner.discard(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.cut();
        self.inner.sync()
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

/// A tree with its store and log: what an engine has of them.
struct Life {
    store: Arc<Store>,
    tree: Tree,
    log: IntentLog,
}

impl Life {
    fn on(disk: Arc<dyn Disk>) -> Life {
        let store = Store::open(disk).unwrap();
        let state = store.state();
        let mut reader = Reader::new(&state);
        let (mut mark, mut root) = (Mark::default(), None);
        if reader.remaining() > 0 {
            mark = Mark { lineage: reader.u64().unwrap(), seq: reader.u64().unwrap() };
            if reader.u8().unwrap() == 1 {
                let (level, id) = (reader.u8().unwrap(), Id(reader.array().unwrap()));
                root = Some(Root { level, id, place: reader.place().unwrap() });
            }
        }
        let image = store.kept().first().map_or_else(|| Image::empty(&store), |kept| kept.image.clone());
        let options = TreeOptions {
            inode_prefix: 1 + mark.seq as u32,
            cache_bytes: 1 << 20,
            dirty_bytes_max: 128 << 10,
            owner: OWNER,
            mark,
            clock: tick,
        };
        let view = BlockView { root, ..view_of(0, "", true) };
        let tree = Tree::load(store.clone(), image, vec![view], options).unwrap();
        let log = IntentLog::new(LogKey::of(&Secret::new([4; 32])), WAITING_BYTES_MAX);
        log.replay(&tree, None).unwrap();
        let life = Life { store, tree, log };
        if life.log.has_inherited() {
            life.commit();
        }
        life
    }

    fn commit(&self) {
        let head = self.tree.flush().unwrap();
        let mut state = Writer::new();
        state.u64(head.mark.lineage).u64(head.mark.seq);
        match head.roots[&BlockNumber::ROOT] {
            None => _ = state.u8(0),
            Some(root) => _ = state.u8(1).u8(root.level).raw(&root.id.0).place(root.place),
        }
        let kept = [Kept { label: Label(b"head".to_vec()), image: head.image.clone() }];
        let start = self.log.start(&self.tree, head.mark);
        self.store.commit_logged(&kept, &state.0, Some(start)).unwrap();
        self.log.committed(&self.tree, head.mark);
    }

    fn fsync(&self) {
        if self.log.write(&self.tree) == Logged::CommitFirst {
            self.commit();
        }
    }

    /// Takes over a state that says the same, as from another device: from now on the log stands on another ground.
    fn adopt(&self) {
        let head = self.tree.flush().unwrap();
        let view = BlockView { root: head.roots[&BlockNumber::ROOT], ..view_of(0, "", true) };
        let same = Head { mark: Mark::default(), ..head.clone() };
        self.tree.adopt(head.generation, same, vec![view]).unwrap();
    }

    /// All that a program can see.
    fn shown(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        show(&self.tree, ROOT, &mut hasher);
        hasher.finalize()
    }

    fn check(&self) {
        assert_eq!(self.store.check(), []);
        let head = self.tree.flush().unwrap();
        let source = crate::tree::ImageSource::new(&self.store, &head.image);
        let (keys, cache) = (keys_of(0), NodeCache::new(0));
        let map = Map::new(&keys, &source, &cache);
        let root = head.roots[&BlockNumber::ROOT];
        let version = Version { map: &map, root, keys: &keys, source: &source };
        let report = check_block(BlockNumber::ROOT, &version, head.image.bytes(), true);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

fn show(tree: &Tree, directory: Inode, hasher: &mut blake3::Hasher) {
    let attr = |attr: Attr| format!("{:?}", Attr { blocks: 0, ..attr });
    hasher.update(attr(tree.attr(directory).unwrap()).as_bytes());
    for name in names_in(tree, directory) {
        let found = tree.lookup(directory, name.as_bytes()).unwrap();
        hasher.update(name.as_bytes()).update(attr(found).as_bytes());
        match found.file_type {
            FileType::Directory => show(tree, found.inode, hasher),
            FileType::File => _ = hasher.update(&tree.read(found.inode, 0, 1 << 30).unwrap()),
            FileType::Symlink => _ = hasher.update(&tree.read_link(found.inode).unwrap()),
            _ => {}
        }
        for name in tree.list_xattr(found.inode).unwrap() {
            hasher.update(&name).update(&tree.get_xattr(found.inode, &name).unwrap());
        }
    }
}

/// Opens what a cut left, and holds it against what was promised.
fn after_the_cut(disk: Arc<MemoryDisk>, witness: &Witness, goes_on: bool) {
    let life = Life::on(disk.clone());
    let seq = life.tree.mark().seq;
    assert!(seq >= witness.promised, "change {} was synced, and {seq} is the last", witness.promised);
    assert!(witness.shown.get(&seq) == Some(&life.shown()), "the tree after change {seq} is another");
    life.check();
    if goes_on {
        let file = life.tree.make_node(ROOT, b"after", NodeKind::File, 0o600, OWNER).unwrap().inode;
        life.tree.write(file, 0, b"the cut").unwrap();
        life.fsync();
        let shown = life.shown();
        drop(life);
        assert!(Life::on(disk).shown() == shown, "life goes on after the cut");
    }
}

struct History {
    life: Life,
    disk: Arc<CutDisk>,
    dice: Dice,
    open: Vec<Inode>,
}

impl History {
    fn new(seed: u64) -> History {
        let disk = Arc::new(CutDisk {
            inner: CrashDisk::new(),
            witness: Mutex::default(),
            dice: Mutex::new(Dice(seed ^ 0x5eed)),
            cuts: AtomicU64::new(0),
            armed: AtomicU64::new(0),
        });
        drop(Store::create(disk.clone(), DatabaseId([3; 32])).unwrap());
        let life = Life::on(disk.clone());
        disk.witness.lock().shown.insert(0, life.shown());
        disk.armed.store(1, Ordering::SeqCst);
        History { life, disk, dice: Dice(seed), open: Vec::new() }
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.dice.below(NAMES.len() as u64) as usize]
    }

    /// A directory: the root, or one of the few below it.
    fn directory(&mut self) -> Inode {
        let name = self.name();
        match self.life.tree.lookup(ROOT, name) {
            Ok(attr) if attr.file_type == FileType::Directory => attr.inode,
            _ => ROOT,
        }
    }

    fn some(&mut self) -> Option<Attr> {
        let (directory, name) = (self.directory(), self.name());
        self.life.tree.lookup(directory, name).ok()
    }

    fn file(&mut self) -> Option<Inode> {
        let open = self.open.last().copied().filter(|_| self.dice.one_in(4));
        open.or_else(|| self.some().filter(|attr| attr.file_type == FileType::File).map(|attr| attr.inode))
    }

    /// One step; what fails, as it may, changes nothing.
    fn step(&mut self) -> Result<(), TreeError> {
        let (directory, name) = (self.directory(), self.name());
        match self.dice.below(26) {
            0..=3 => self.life.tree.make_node(directory, name, NodeKind::File, 0o644, OWNER).map(drop),
            4 => self.life.tree.make_dir(directory, name, 0o755, OWNER).map(drop),
            5 => self.life.tree.make_symlink(directory, name, b"over/there", OWNER).map(drop),
            6..=11 => self.write(),
            12 => self.life.tree.unlink(directory, name),
            13 => self.life.tree.remove_dir(directory, name),
            14 | 15 => {
                let (to, to_name) = (self.directory(), self.name());
                let flags = [RenameFlags::Replace, RenameFlags::NoReplace, RenameFlags::Exchange];
                let flags = flags[self.dice.below(3) as usize];
                self.life.tree.rename(directory, name, to, to_name, flags)
            }
            16 => match self.some() {
                Some(attr) => self.life.tree.link(attr.inode, directory, name).map(drop),
                None => Ok(()),
            },
            17 => self.set_attr(),
            18 => match self.some() {
                Some(attr) => {
                    let count = self.dice.below(300) as usize;
                    let value = self.dice.bytes(count);
                    self.life.tree.set_xattr(attr.inode, b"user.x", &value, SetXattr::Any)
                }
                None => Ok(()),
            },
            19 => self.ranges(),
            20 => self.open_or_close(),
            21 | 22 => self.sync(),
            23 => {
                if self.dice.one_in(3) {
                    self.life.adopt();
                }
                Ok(())
            }
            24 => self.life.tree.flush().map(drop),
            _ => {
                let seq = self.life.tree.mark().seq;
                self.life.commit();
                self.disk.witness.lock().promised = seq;
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        let seq = self.life.tree.mark().seq;
        self.life.fsync();
        self.disk.witness.lock().promised = seq;
        Ok(())
    }

    fn write(&mut self) -> Result<(), TreeError> {
        let Some(file) = self.file() else { return Ok(()) };
        let (offset, bytes) = match self.dice.below(8) {
            0 => (0, 200_000),
            1 => (self.dice.below(300_000), 1),
            2 => (self.dice.below(8) << 14, 16 << 10),
            _ => (self.dice.below(5000), 1 + self.dice.below(6000) as usize),
        };
        let data = self.dice.bytes(bytes);
        self.life.tree.write(file, offset, &data)
    }

    fn set_attr(&mut self) -> Result<(), TreeError> {
        let Some(attr) = self.some() else { return Ok(()) };
        let size = (attr.file_type == FileType::File && self.dice.one_in(2)).then(|| self.dice.below(40_000));
        let mode = self.dice.one_in(2).then_some(0o4711);
        let set = SetAttr { size, mode, mtime: Some(SetTime::Now), ..SetAttr::default() };
        self.life.tree.set_attr(attr.inode, set).map(drop)
    }

    fn ranges(&mut self) -> Result<(), TreeError> {
        let Some(file) = self.file() else { return Ok(()) };
        let (offset, bytes) = (self.dice.below(60_000), 1 + self.dice.below(50_000));
        match (self.dice.below(3), self.file()) {
            (0, Some(from)) if from != file => {
                self.life.tree.copy_range(from, offset / 2, file, offset, bytes).map(drop)
            }
            (1, _) => self.life.tree.strip_privileges(file),
            _ => self.life.tree.allocate(file, Allocate::ZeroRange, offset, bytes),
        }
    }

    fn open_or_close(&mut self) -> Result<(), TreeError> {
        if self.open.len() > 2 {
            self.life.tree.close(self.open.remove(0));
            return Ok(());
        }
        let Some(file) = self.file() else { return Ok(()) };
        self.life.tree.open(file, true, self.dice.one_in(3))?;
        self.open.push(file);
        Ok(())
    }

    /// Lives through a history; returns how many cuts were played.
    fn run(mut self) -> u64 {
        for _ in 0..STEPS {
            let before = self.life.tree.mark().seq;
            let _ = self.step();
            let after = self.life.tree.mark().seq;
            assert!(after <= before + 1, "one change a step");
            if after != before {
                let shown = self.life.shown();
                self.disk.witness.lock().shown.insert(after, shown);
            }
        }
        self.disk.cuts.load(Ordering::SeqCst)
    }
}

#[test]
fn after_a_power_cut_the_tree_is_one_that_existed_with_all_that_was_synced() {
    let wanted = std::env::var("KILOFS_CRASH_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
    let (mut cuts, mut seed) = (0, 0);
    while cuts < wanted {
        cuts += History::new(seed).run();
        seed += 1;
    }
}

#[test]
fn what_was_allowed_when_it_was_done_is_done_again() {
    let disk = Arc::new(MemoryDisk::new());
    drop(Store::create(disk.clone(), DatabaseId([3; 32])).unwrap());
    let life = Life::on(disk.clone());
    life.commit();
    let file = life.tree.make_node(ROOT, b"f", NodeKind::File, 0o644, OWNER).unwrap().inode;
    life.tree.write(file, 0, b"by the admin").unwrap();
    assert_eq!(life.log.write(&life.tree), Logged::Batch);
    let lineage = life.tree.mark().lineage;
    drop(life);
    let store = Store::open(disk).unwrap();
    let mark = Mark { lineage, seq: 0 };
    let view = view_of(0, "", false);
    let options = TreeOptions { mark, ..super::options() };
    let tree = Tree::load(store.clone(), Image::empty(&store), vec![view], options).unwrap();
    let log = IntentLog::new(LogKey::of(&Secret::new([4; 32])), WAITING_BYTES_MAX);
    assert_eq!(log.replay(&tree, None).unwrap(), 2);
    let again = tree.lookup(ROOT, b"f").unwrap();
    assert_eq!(tree.read(again.inode, 0, 100).unwrap(), b"by the admin");
    assert!(matches!(tree.write(again.inode, 0, b"x"), Err(TreeError::ReadOnlyBlock(_))));
}

#[test]
fn what_cannot_be_done_again_stays_in_the_log_until_a_repair_gives_it_up() {
    let disk = Arc::new(MemoryDisk::new());
    drop(Store::create(disk.clone(), DatabaseId([3; 32])).unwrap());
    let life = Life::on(disk.clone());
    let file = life.tree.make_node(ROOT, b"f", NodeKind::File, 0o644, OWNER).unwrap().inode;
    life.commit();
    let mark = life.tree.mark();
    life.tree.write(file, 0, b"gone with its file").unwrap();
    life.tree.make_dir(ROOT, b"dir", 0o755, OWNER).unwrap();
    life.fsync();
    drop(life);
    // As if what is damaged were the file's record: it is not there.
    let open = || {
        let store = Store::open(disk.clone()).unwrap();
        let options = TreeOptions { mark, ..super::options() };
        let view = view_of(0, "", true);
        let tree = Tree::load(store.clone(), Image::empty(&store), vec![view], options).unwrap();
        (tree, IntentLog::new(LogKey::of(&Secret::new([4; 32])), WAITING_BYTES_MAX))
    };
    let (tree, log) = open();
    assert!(log.replay(&tree, None).is_err());
    assert!(log.is_unread(), "it was not given up");
    let (tree, log) = open();
    let mut lost = Vec::new();
    log.replay(&tree, Some(&mut lost)).unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(tree.lookup(ROOT, b"dir").is_ok(), "what does not need it is done");
}
