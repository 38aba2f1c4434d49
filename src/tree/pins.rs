//! Where blocks hang: their mountpoints and the directories above them, which always appear.
//!
//! A directory above a mountpoint is a real one where there is one. Where the name is missing or something other than
//! a directory has it, a synthetic directory stands there: it shows nothing but the way to the block, and nobody
//! writes in it. The same stands for a block that cannot be opened: as a way where it leads to one that can, and closed
//! otherwise.

use super::error::TreeError;
use super::inode::{FileType, InodeRecord, Timestamp};
use super::value::DirEntry;
use crate::base::{BlockNumber, Inode};
use std::collections::{BTreeMap, HashMap};

/// First inode number of synthetic directories; reserved, as all below 2³².
const SYNTHETIC_FIRST: u64 = 0x10_0000;
/// How many numbers are reserved for them.
const SYNTHETIC_COUNT: u64 = 0x4000_0000 - SYNTHETIC_FIRST;

/// A block and where it hangs.
#[derive(Clone, Copy)]
pub(super) struct Hung<'a> {
    pub(super) number: BlockNumber,
    pub(super) path: &'a [u8],
    /// Its key is here.
    pub(super) open: bool,
}

/// One directory on the way to a block, or a block's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pin {
    /// The inode that stands there.
    pub(super) inode: Inode,
    /// The block in which that inode lies; for a synthetic directory the one around it.
    pub(super) block: BlockNumber,
    /// Nothing real stands there.
    pub(super) synthetic: bool,
    /// The root of a block that cannot be opened, below which no other can.
    pub(super) closed: bool,
    /// What is above; the root is its own parent.
    parent: usize,
    children: BTreeMap<Vec<u8>, usize>,
}

/// The mountpoints of all blocks and what leads to them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Pins {
    pins: Vec<Pin>,
    by_inode: HashMap<Inode, usize>,
}

impl Pins {
    /// Finds what stands on the way to each block. `find` tells what a real directory's entry is.
    pub(super) fn resolve<'a>(
        blocks: impl Iterator<Item = Hung<'a>>,
        mut find: impl FnMut(Inode, &[u8]) -> Result<Option<DirEntry>, TreeError>,
    ) -> Pins {
        let root = Pin {
            inode: BlockNumber::ROOT.root_inode(),
            block: BlockNumber::ROOT,
            synthetic: false,
            closed: false,
            parent: 0,
            children: BTreeMap::new(),
        };
        let mut pins = Pins { pins: vec![root], by_inode: HashMap::new() };
        let mut roots: HashMap<usize, Hung<'a>> = HashMap::new();
        for hung in blocks {
            let mut at = 0;
            for name in hung.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                at = pins.child_or_new(at, name);
            }
            if at != 0 {
                roots.insert(at, hung);
            } else if hung.number == BlockNumber::ROOT {
                pins.pins[0].synthetic = !hung.open;
            }
        }
        // A pin comes after what is above it.
        for index in 0..pins.pins.len() {
            let children: Vec<(Vec<u8>, usize)> = pins.pins[index].children.clone().into_iter().collect();
            let (above, block, in_synthetic) = {
                let pin = &pins.pins[index];
                (pin.inode, pin.block, pin.synthetic)
            };
            pins.by_inode.insert(above, index);
            for (name, child) in children {
                let real = if in_synthetic { None } else { find(above, &name).ok().flatten() };
                let real = real.filter(|entry| entry.file_type == FileType::Directory);
                let (inode, block, synthetic) = match (roots.get(&child), real) {
                    (Some(hung), _) => (hung.number.root_inode(), hung.number, !hung.open),
                    (None, Some(entry)) => (entry.inode, block, false),
                    (None, None) => (pins.synthetic_inode(above, &name), block, true),
                };
                pins.by_inode.insert(inode, child);
                let pin = &mut pins.pins[child];
                (pin.inode, pin.block, pin.synthetic) = (inode, block, synthetic);
            }
        }
        pins.close(&roots);
        pins
    }

    /// Closes the roots of blocks that neither open nor lead to one that does. The database's own root always shows what
    /// hangs in it.
    fn close(&mut self, roots: &HashMap<usize, Hung<'_>>) {
        let mut leads = vec![false; self.pins.len()];
        for index in (1..self.pins.len()).rev() {
            let hung = roots.get(&index);
            leads[index] |= hung.is_some_and(|hung| hung.open);
            self.pins[index].closed = hung.is_some() && !leads[index];
            let (parent, below) = (self.pins[index].parent, leads[index]);
            leads[parent] |= below;
        }
    }

    fn child_or_new(&mut self, parent: usize, name: &[u8]) -> usize {
        if let Some(child) = self.pins[parent].children.get(name) {
            return *child;
        }
        let child = self.pins.len();
        self.pins[parent].children.insert(name.to_vec(), child);
        self.pins.push(Pin {
            inode: Inode(0),
            block: BlockNumber::ROOT,
            synthetic: true,
            closed: false,
            parent,
            children: BTreeMap::new(),
        });
        child
    }

    /// A number that depends on the path, so that it stays as long as the directory is needed.
    fn synthetic_inode(&self, parent: Inode, name: &[u8]) -> Inode {
        let hash = blake3::Hasher::new().update(&parent.0.to_be_bytes()).update(name).finalize();
        let mut number =
            hash.as_bytes()[..8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        loop {
            let inode = Inode(SYNTHETIC_FIRST + number % SYNTHETIC_COUNT);
            if !self.by_inode.contains_key(&inode) {
                return inode;
            }
            number = number.wrapping_add(1);
        }
    }

    /// What is pinned at `inode`.
    pub(super) fn at(&self, inode: Inode) -> Option<&Pin> {
        self.by_inode.get(&inode).map(|index| &self.pins[*index])
    }

    /// What is pinned under a name, whatever the directory itself has there.
    pub(super) fn child(&self, directory: Inode, name: &[u8]) -> Option<&Pin> {
        let child = self.at(directory)?.children.get(name)?;
        Some(&self.pins[*child])
    }

    /// All that is pinned in a directory.
    pub(super) fn children(&self, directory: Inode) -> impl Iterator<Item = (&[u8], &Pin)> {
        let children = self.at(directory).into_iter().flat_map(|pin| pin.children.iter());
        children.map(|(name, child)| (name.as_slice(), &self.pins[*child]))
    }

    /// The directory above something pinned, with its name there; `None` for the root and what is not pinned.
    pub(super) fn above(&self, inode: Inode) -> Option<(Inode, &[u8])> {
        let index = *self.by_inode.get(&inode)?;
        if index == 0 {
            return None;
        }
        let parent = &self.pins[self.pins[index].parent];
        let (name, _) = parent.children.iter().find(|(_, child)| **child == index)?;
        Some((parent.inode, name))
    }

    /// Every pinned name: directory, name, and what is there.
    pub(super) fn names(&self) -> impl Iterator<Item = (Inode, &[u8], Inode)> {
        self.pins.iter().flat_map(move |pin| {
            pin.children
                .iter()
                .map(move |(name, child)| (pin.inode, name.as_slice(), self.pins[*child].inode))
        })
    }

    /// The record of a synthetic directory.
    pub(super) fn synthetic_record(&self, inode: Inode) -> Option<InodeRecord> {
        let pin = self.at(inode).filter(|pin| pin.synthetic)?;
        let mode = if pin.closed { 0 } else { 0o555 };
        let mut record = InodeRecord::new(FileType::Directory, mode, Inode(0), Timestamp::default());
        record.nlink += pin.children.len() as u32;
        record.parent = self.pins[pin.parent].inode;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hung(number: u16, path: &[u8], open: bool) -> Hung<'_> {
        Hung { number: BlockNumber(number), path, open }
    }

    #[test]
    fn what_cannot_be_opened_is_closed_unless_it_is_the_way_to_what_can() {
        let blocks = [
            hung(0, b"", false),
            hung(1, b"a", false),
            hung(2, b"a/way/b", true),
            hung(3, b"a/way/c", false),
            hung(4, b"d", false),
            hung(5, b"d/e", false),
        ];
        let pins = Pins::resolve(blocks.into_iter(), |_, _| panic!("nothing real is looked for"));
        let at = |path: &[u8]| {
            let names = path.split(|byte| *byte == b'/');
            names.fold(BlockNumber::ROOT.root_inode(), |at, name| pins.child(at, name).unwrap().inode)
        };
        let state = |path: &[u8]| pins.at(at(path)).map(|pin| (pin.synthetic, pin.closed)).unwrap();
        let root = pins.at(BlockNumber::ROOT.root_inode()).unwrap();
        assert!(root.synthetic && !root.closed);
        assert_eq!(
            [state(b"a"), state(b"a/way"), state(b"a/way/b")],
            [(true, false), (true, false), (false, false)]
        );
        assert_eq!([state(b"a/way/c"), state(b"d"), state(b"d/e")], [(true, true); 3]);
        assert_eq!(at(b"d"), BlockNumber(4).root_inode());
        assert_eq!(pins.synthetic_record(at(b"d")).unwrap().mode & 0o777, 0);
        assert_eq!(pins.synthetic_record(at(b"a")).unwrap().mode & 0o777, 0o555);
    }

    #[test]
    fn missing_directories_are_made_up_and_real_ones_taken() {
        let blocks = [hung(0, b"", true), hung(7, b"real/gone/x", true), hung(8, b"real/gone/x/y/z", true)];
        let real = DirEntry { inode: Inode(1 << 40), file_type: FileType::Directory };
        let find =
            |directory: Inode, name: &[u8]| Ok((directory == Inode(1) && name == b"real").then_some(real));
        let pins = Pins::resolve(blocks.into_iter(), find);
        let above = pins.child(Inode(1), b"real").unwrap();
        assert!(above.inode == real.inode && !above.synthetic);
        let gone = pins.child(real.inode, b"gone").unwrap();
        assert!(gone.synthetic && (SYNTHETIC_FIRST..0x4000_0000).contains(&gone.inode.0));
        assert_eq!(pins.child(gone.inode, b"x").unwrap().inode, Inode(8));
        let y = pins.child(Inode(8), b"y").unwrap();
        assert!(y.synthetic && y.block == BlockNumber(7));
        assert_eq!(pins.child(y.inode, b"z").unwrap().block, BlockNumber(8));
        assert_eq!(pins.above(Inode(9)), Some((y.inode, &b"z"[..])));
        assert_eq!(pins.names().count(), 5);
    }
}
