//! Random operations on the tree and on the model: same results, same errors, same content, also after flushes and
//! after opening anew.

use super::super::{
    Allocate, FileType, NodeKind, ReadTree, RenameFlags, SetAttr, SetXattr, TreeError, Whence,
};
use super::model::{Failure, Model, Number};
use super::{Attr, Batch, Dice, Head, OWNER, ROOT, World, kind};
use crate::base::Inode;
use std::collections::BTreeMap;

/// Few names, so that they meet.
const NAMES: [&[u8]; 9] =
    [b"a", b"b", b"c", b"d", b"e", b"f", b"some longer name.txt", b"\xff\xfe", &[b'n'; 256]];
const FLAGS: [RenameFlags; 3] = [RenameFlags::Replace, RenameFlags::NoReplace, RenameFlags::Exchange];

/// Room for all changes between two saves.
const LOG_BYTES: usize = 1 << 28;

struct Run {
    world: Option<World>,
    model: Model,
    inodes: BTreeMap<Number, Inode>,
    dice: Dice,
    /// Largest offset of writes.
    reach: u64,
    /// The head that a store would have, and the intent log behind it.
    saved: Head,
    log: Vec<Batch>,
}

fn same<T>(real: Result<T, TreeError>, wanted: Result<(), Failure>, what: &str) {
    let real = real.map(|_| ()).map_err(|error| kind(&error));
    assert_eq!(real, wanted.map_err(str::to_owned), "{what}");
}

impl Run {
    fn new(seed: u64, reach: u64) -> Run {
        Run::in_world(World::new(), seed, reach)
    }

    fn in_world(world: World, seed: u64, reach: u64) -> Run {
        let inodes = BTreeMap::from([(0, ROOT)]);
        world.tree.keep_changes(LOG_BYTES);
        let saved = world.tree.flush().unwrap();
        let (model, dice) = (Model::new(), Dice(seed));
        Run { world: Some(world), model, inodes, dice, reach, saved, log: Vec::new() }
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }

    fn pick(&mut self, file_type: FileType) -> Option<Number> {
        let all = self.model.of_type(file_type);
        (!all.is_empty()).then(|| all[self.dice.below(all.len() as u64) as usize])
    }

    fn name(&mut self) -> &'static [u8] {
        let last = if self.dice.one_in(20) { NAMES.len() } else { NAMES.len() - 1 };
        NAMES[self.dice.below(last as u64) as usize]
    }

    /// A directory, rarely something else.
    fn directory(&mut self) -> (Number, Inode) {
        let other = if self.dice.one_in(30) { self.pick(FileType::File) } else { None };
        let number = other.or_else(|| self.pick(FileType::Directory)).unwrap();
        (number, self.inodes[&number])
    }

    fn step(&mut self) {
        match self.dice.below(24) {
            0..=4 => self.make(),
            5 => self.link(),
            6 | 7 => self.remove(),
            8..=10 => self.rename(),
            11..=15 => self.write(),
            16 => self.truncate(),
            17 => self.zero(),
            18 => self.read(),
            19 => self.xattr(),
            20 => self.open_or_close(),
            21 => self.copy(),
            22 => self.attributes(),
            _ => self.lookup(),
        }
    }

    fn make(&mut self) {
        let ((parent, inode), name) = (self.directory(), self.name());
        let (file_type, mode) = match self.dice.below(8) {
            0..=2 => (FileType::Directory, 0o750),
            3 => (FileType::Symlink, 0o777),
            4 => (FileType::Fifo, 0o600),
            _ => (FileType::File, 0o644),
        };
        let tree = &self.world().tree;
        let real = match file_type {
            FileType::Directory => tree.make_dir(inode, name, mode, OWNER),
            FileType::Symlink => tree.make_symlink(inode, name, b"to/somewhere", OWNER),
            FileType::Fifo => tree.make_node(inode, name, NodeKind::Fifo, mode, OWNER),
            _ => tree.make_node(inode, name, NodeKind::File, mode, OWNER),
        };
        let wanted = self.model.make(parent, name, file_type, mode);
        if let (Ok(attr), Ok(number)) = (&real, &wanted) {
            self.inodes.insert(*number, attr.inode);
        }
        same(real, wanted.map(|_| ()), "make");
    }

    fn link(&mut self) {
        let ((parent, directory), name) = (self.directory(), self.name());
        if name.len() > 255 {
            return;
        }
        let Some(number) = self.pick(if self.dice.0 & 8 == 0 { FileType::File } else { FileType::Directory })
        else {
            return;
        };
        let real = self.world().tree.link(self.inodes[&number], directory, name);
        same(real, self.model.link(number, parent, name), "link");
    }

    fn remove(&mut self) {
        let ((parent, inode), name) = (self.directory(), self.name());
        let directory = self.dice.one_in(2);
        if name.len() > 255 {
            return;
        }
        let tree = &self.world().tree;
        let real = if directory { tree.remove_dir(inode, name) } else { tree.unlink(inode, name) };
        same(real, self.model.remove(parent, name, directory), "remove");
    }

    fn rename(&mut self) {
        let (from, to) = (self.directory(), self.directory());
        let (name, to_name) = (self.name(), self.name());
        if name.len() > 255 || to_name.len() > 255 {
            return;
        }
        let flags = FLAGS[self.dice.below(3) as usize];
        let real = self.world().tree.rename(from.1, name, to.1, to_name, flags);
        same(real, self.model.rename((from.0, name), (to.0, to_name), flags), "rename");
    }

    fn range(&mut self) -> (u64, usize) {
        let offset = match self.dice.below(4) {
            0 => 0,
            1 => self.dice.below(2000),
            2 => self.dice.below(20) * (16 << 10) % self.reach,
            _ => self.dice.below(self.reach),
        };
        let bytes = match self.dice.below(4) {
            0 => 1 + self.dice.below(900),
            1 => 16 << 10,
            2 => 1 + self.dice.below(5000),
            _ => 1 + self.dice.below(200_000),
        };
        (offset, bytes as usize)
    }

    fn write(&mut self) {
        let Some(number) = self.pick(FileType::File) else { return };
        let (offset, bytes) = self.range();
        let data = if self.dice.one_in(6) { vec![0; bytes] } else { self.dice.bytes(bytes) };
        self.world().tree.write(self.inodes[&number], offset, &data).unwrap();
        self.model.write(number, offset as usize, &data);
    }

    fn truncate(&mut self) {
        let Some(number) = self.pick(FileType::File) else { return };
        let length = self.model.0[&number].data.len() as u64;
        let size = match self.dice.below(5) {
            0 => 0,
            1 => self.dice.below(1500),
            2 => length.saturating_sub(self.dice.below(40_000)),
            3 => length + self.dice.below(100_000),
            _ => self.dice.below(self.reach),
        };
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let attr = self.world().tree.set_attr(self.inodes[&number], set).unwrap();
        assert_eq!(attr.size, size);
        self.model.0.get_mut(&number).unwrap().data.resize(size as usize, 0);
    }

    fn zero(&mut self) {
        let Some(number) = self.pick(FileType::File) else { return };
        let (offset, bytes) = self.range();
        let (how, grow) = match self.dice.below(3) {
            0 => (Allocate::PunchHole, false),
            1 => (Allocate::ZeroRangeKeepSize, false),
            _ => (Allocate::ZeroRange, true),
        };
        self.world().tree.allocate(self.inodes[&number], how, offset, bytes as u64).unwrap();
        self.model.zero(number, offset as usize, bytes, grow);
    }

    fn read(&mut self) {
        let Some(number) = self.pick(FileType::File) else { return };
        let (offset, bytes) = self.range();
        let inode = self.inodes[&number];
        let data = &self.model.0[&number].data;
        let real = self.world().tree.read(inode, offset, bytes).unwrap();
        let from = (offset as usize).min(data.len());
        assert!(real == data[from..(from + bytes).min(data.len())], "read {bytes} at {offset}");
        match self.world().tree.seek(inode, offset, Whence::Data) {
            Ok(at) => {
                assert!(at >= offset && data[offset as usize..at as usize].iter().all(|byte| *byte == 0))
            }
            Err(error) => {
                assert_eq!(kind(&error), "NoSuchOffset");
                assert!(data[from..].iter().all(|byte| *byte == 0));
            }
        }
        if let Ok(at) = self.world().tree.seek(inode, offset, Whence::Hole) {
            assert!(at >= offset && at <= data.len() as u64);
        }
    }

    fn xattr(&mut self) {
        let (number, inode) = self.directory();
        let name: &[u8] = [&b"user.a"[..], b"user.b", b"user.c"][self.dice.below(3) as usize];
        let there = self.model.0[&number].xattrs.contains_key(name);
        let tree = &self.world.as_ref().unwrap().tree;
        if self.dice.one_in(3) {
            let wanted = if there { Ok(()) } else { Err("NoData") };
            same(tree.remove_xattr(inode, name), wanted, "remove xattr");
            self.model.0.get_mut(&number).unwrap().xattrs.remove(name);
            return;
        }
        let how = [SetXattr::Any, SetXattr::Create, SetXattr::Replace][self.dice.below(3) as usize];
        let count = self.dice.below(3000) as usize;
        let value = self.dice.bytes(count);
        let wanted = match (how, there) {
            (SetXattr::Create, true) => Err("Exists"),
            (SetXattr::Replace, false) => Err("NoData"),
            _ => Ok(()),
        };
        same(tree.set_xattr(inode, name, &value, how), wanted, "set xattr");
        if wanted.is_ok() {
            self.model.0.get_mut(&number).unwrap().xattrs.insert(name.to_vec(), value);
        }
    }

    fn open_or_close(&mut self) {
        let Some(number) = self.pick(FileType::File) else { return };
        let inode = self.inodes[&number];
        if self.model.0[&number].open > 0 && !self.dice.one_in(3) {
            self.world().tree.close(inode);
            self.model.close(number);
        } else {
            self.world().tree.open(inode, true, false).unwrap();
            self.model.0.get_mut(&number).unwrap().open += 1;
        }
    }

    fn copy(&mut self) {
        let (Some(from), Some(to)) = (self.pick(FileType::File), self.pick(FileType::File)) else { return };
        let ((offset, bytes), (to_offset, _)) = (self.range(), self.range());
        if from == to {
            return;
        }
        let tree = &self.world().tree;
        let copied =
            tree.copy_range(self.inodes[&from], offset, self.inodes[&to], to_offset, bytes as u64).unwrap();
        let data = &self.model.0[&from].data;
        let start = (offset as usize).min(data.len());
        let piece = data[start..(start + bytes).min(data.len())].to_vec();
        assert_eq!(copied, piece.len() as u64);
        if !piece.is_empty() {
            self.model.write(to, to_offset as usize, &piece);
        }
    }

    fn attributes(&mut self) {
        let (number, inode) = self.directory();
        let mut mode = self.dice.below(0o1000) as u16;
        if self.model.0[&number].mode == mode {
            // What changes nothing leaves a time that ends with the process, and a test of its own.
            mode ^= 1;
        }
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        assert_eq!(self.world().tree.set_attr(inode, set).unwrap().mode, mode);
        self.model.0.get_mut(&number).unwrap().mode = mode;
    }

    fn lookup(&mut self) {
        let ((parent, inode), name) = (self.directory(), self.name());
        let thing = &self.model.0[&parent];
        let wanted = match thing.names.get(name) {
            _ if name.len() > 255 => Err("NameTooLong"),
            _ if thing.file_type != FileType::Directory => Err("NotDirectory"),
            Some(number) => Ok(self.inodes[number]),
            None => Err("NotFound"),
        };
        let real = self.world().tree.lookup(inode, name).map(|attr| attr.inode);
        assert_eq!(real.map_err(|error| kind(&error)), wanted.map_err(str::to_owned));
    }

    fn compare(&self) {
        let world = self.world();
        for (number, thing) in &self.model.0 {
            let inode = self.inodes[number];
            let attr = world.tree.attr(inode).unwrap();
            assert_eq!((attr.file_type, attr.mode, attr.nlink), (thing.file_type, thing.mode, thing.nlink));
            match thing.file_type {
                FileType::File => assert!(world.content(inode) == thing.data, "content of {inode}"),
                FileType::Directory => {
                    let mut names: Vec<_> =
                        thing.names.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                    names.sort();
                    assert_eq!(world.names(inode), names);
                }
                FileType::Symlink => assert_eq!(world.tree.read_link(inode).unwrap(), b"to/somewhere"),
                _ => {}
            }
            let names: Vec<_> = thing.xattrs.keys().cloned().collect();
            assert_eq!(world.tree.list_xattr(inode).unwrap(), names);
            for (name, value) in &thing.xattrs {
                assert_eq!(&world.tree.get_xattr(inode, name).unwrap(), value);
            }
        }
    }

    /// Closes all that is open, which ends what has no name.
    fn close_all(&mut self) {
        let open: Vec<Number> =
            self.model.0.iter().filter(|(_, thing)| thing.open > 0).map(|(number, _)| *number).collect();
        for number in open {
            for _ in 0..self.model.0[&number].open {
                self.world().tree.close(self.inodes[&number]);
                self.model.close(number);
            }
        }
    }

    /// A commit of the store: the log begins behind it.
    fn save(&mut self) {
        let tree = &self.world.as_ref().unwrap().tree;
        self.saved = tree.flush().unwrap();
        tree.forget_changes(self.saved.mark);
        self.log.clear();
    }

    /// What an fsync does.
    fn sync(&mut self) {
        let batch = self.world().tree.take_changes();
        self.log.push(batch);
    }

    /// The power fails after an fsync: the saved head and the log are all that is left.
    fn crash(&mut self) {
        self.sync();
        let attrs = |run: &Run| -> Vec<Attr> {
            run.model.0.keys().map(|number| run.world().tree.attr(run.inodes[number]).unwrap()).collect()
        };
        let before = attrs(self);
        let World { store, blocks, tree } = self.world.take().unwrap();
        let mark = tree.mark();
        drop(tree);
        let world = World { tree: World::load(&store, &blocks, &self.saved), store, blocks };
        for batch in &self.log {
            world.tree.replay(batch.first, &batch.bytes, None).unwrap();
        }
        assert_eq!(world.tree.mark(), mark);
        world.tree.keep_changes(LOG_BYTES);
        self.world = Some(world);
        assert_eq!(attrs(self), before);
    }

    fn run(mut self, steps: usize) {
        for step in 0..steps {
            self.step();
            if self.dice.one_in(40) {
                self.world().tree.flush().unwrap();
            }
            if self.dice.one_in(60) {
                self.save();
            }
            if self.dice.one_in(30) {
                self.sync();
            }
            if step % 250 == 249 {
                self.compare();
                self.close_all();
                if self.dice.one_in(2) {
                    self.crash();
                    self.compare();
                } else {
                    self.save();
                    let world = self.world.take().unwrap();
                    world.check();
                    self.world = Some(world.reopen());
                    self.world().tree.keep_changes(LOG_BYTES);
                    self.saved = self.world().tree.flush().unwrap();
                    self.compare();
                }
            }
        }
        self.compare();
        self.close_all();
        self.world().check();
    }
}

#[test]
fn small_files_behave_as_the_model() {
    for seed in 0..12 {
        Run::new(seed, 60_000).run(1500);
    }
}

#[test]
fn large_files_behave_as_the_model() {
    for seed in 100..104 {
        Run::new(seed, 6 << 20).run(700);
    }
}

#[test]
fn private_blocks_behave_as_the_model() {
    for seed in 200..206 {
        Run::in_world(World::veiled(), seed, 60_000).run(1500);
    }
    for seed in 300..302 {
        Run::in_world(World::veiled(), seed, 6 << 20).run(700);
    }
}
