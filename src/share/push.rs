//! From the folder into the tree. A file is changed where it is: only those of its bytes are written that differ, so that
//! a small edit of a large file stays a small change.

use super::base::Entry;
use super::error::ShareError;
use super::folder::split;
use super::reconcile::Hand;
use super::stamp::{Kind, Local, Stamp};
use super::xattr::{self, Xattrs};
use crate::base::Inode;
use crate::tree::{Attr, NodeKind, ReadTree as _, SetAttr, SetTime, Tree, TreeError};
use std::fs::File;
use std::io::Read;
use std::ops::Range;

/// Bytes of a file that are read and compared at a time.
const PIECE_BYTES: usize = 4 << 20;
/// Changes of a file are written in one step, between two adoptions, unless they are larger than that, in bytes.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Bytes that are written or not.
const STEP_BYTES: usize = 16 << 10;

/// Changes of a file that are not written yet.
#[derive(Default)]
struct Held {
    parts: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Hand {
    /// The tree has nothing there.
    pub(super) fn push_new(&mut self, path: &[u8], local: &Local) -> Result<(), ShareError> {
        match local.kind {
            Kind::Directory => {
                let xattrs = xattr::of_file(self.folder.read(path)?)?;
                let directory = self.directory_in_tree(path)?;
                let attr = self.tree.attr(directory)?;
                self.push_directory(path, &attr, local, &xattrs)?;
                self.children(path)
            }
            Kind::Symlink => self.push_link(path, local),
            Kind::File if self.push_name(path, local)? => Ok(()),
            Kind::File => self.push_file(path, None),
            Kind::Special => Ok(()),
        }
    }

    /// The tree has something there that only the folder changed.
    pub(super) fn push_over(&mut self, path: &[u8], local: &Local, attr: &Attr) -> Result<(), ShareError> {
        if (local.kind, Kind::of(attr.file_type)) == (Kind::File, Kind::File) {
            return self.push_file(path, Some(*attr));
        }
        if self.clear_in_tree(path, attr)? { self.push_new(path, local) } else { self.conflict(path) }
    }

    fn push_link(&mut self, path: &[u8], local: &Local) -> Result<(), ShareError> {
        let target = self.folder.read_link(path)?;
        let directory = self.directory_in_tree(split(path).0)?;
        let owner = self.owner();
        let attr = self.steady(|tree| Ok(tree.make_symlink(directory, split(path).1, &target, owner)?))?;
        self.host.mutated();
        self.record(path, local, &attr, *blake3::hash(&target).as_bytes(), &Xattrs::new());
        Ok(())
    }

    /// Another name of a file that is shared already. True if it was one.
    fn push_name(&mut self, path: &[u8], local: &Local) -> Result<bool, ShareError> {
        for other in self.base.of_number(local.number) {
            let Some(entry) = self.base.get(&other).copied() else { continue };
            let there = self.folder.look(&other)?.is_some_and(|found| found.number == local.number);
            let known = self.look_in_tree(&other)?.is_some_and(|attr| attr.inode == entry.tree.inode);
            if other == path || !there || !known {
                continue;
            }
            let directory = self.directory_in_tree(split(path).0)?;
            let inode = entry.tree.inode;
            let attr = self.steady(|tree| Ok(tree.link(inode, directory, split(path).1)?))?;
            self.host.mutated();
            // What was in step under the other name is so under this one; a later look finds what is not.
            let tree = Stamp { ctime: entry.tree.ctime, ..Stamp::of(&attr) };
            self.base.put(path, Entry { tree, ..entry });
            self.again.insert(path.to_vec(), false);
            return Ok(true);
        }
        Ok(false)
    }

    /// Writes what differs. `known` is what the tree shows, and nothing else may be changed.
    fn push_file(&mut self, path: &[u8], known: Option<Attr>) -> Result<(), ShareError> {
        let mut file = self.folder.read(path)?;
        let before = self.folder.stat(&file)?;
        if before.kind != Kind::File {
            return Err(ShareError::Moved);
        }
        let xattrs = xattr::of_file(&file)?;
        let directory = self.directory_in_tree(split(path).0)?;
        let mut hasher = blake3::Hasher::new();
        let (mut expected, mut at) = (known, 0);
        let mut held = Held::default();
        let attr = loop {
            let piece = read_piece(&mut file)?;
            hasher.update(&piece);
            for range in self.differing(expected.as_ref(), at, &piece)? {
                held.bytes += range.len();
                held.parts.push((at + range.start as u64, piece[range].to_vec()));
            }
            at += piece.len() as u64;
            let last = piece.len() < PIECE_BYTES;
            if !last && held.bytes < HELD_BYTES_MAX {
                continue;
            }
            let finish = last.then_some((at, &before, &xattrs));
            let place = (directory, split(path).1);
            let attr =
                self.write_held(place, expected.as_ref(), std::mem::take(&mut held), &before, finish)?;
            if last {
                break attr;
            }
            // Whoever looks at it before it is whole finds that the folder's state is the newer one.
            self.base.put(path, half(&before, &attr));
            expected = Some(attr);
        };
        self.record(path, &before, &attr, *hasher.finalize().as_bytes(), &xattrs);
        self.same_file(path, &attr);
        if self.folder.stat(&file)? != before {
            self.again.insert(path.to_vec(), false);
        }
        Ok(())
    }

    /// Writes what was held back, and with the last of it size and attributes, in one step.
    fn write_held(
        &self,
        (directory, name): (Inode, &[u8]),
        expected: Option<&Attr>,
        held: Held,
        local: &Local,
        finish: Option<(u64, &Local, &Xattrs)>,
    ) -> Result<Attr, ShareError> {
        let owner = self.owner();
        let attr = self.steady(|tree| {
            let attr = same_or_new(tree, (directory, name), expected, |tree| {
                tree.make_node(directory, name, NodeKind::File, local.mode, owner)
            })?;
            for (at, bytes) in held.parts {
                tree.write_unpaced(attr.inode, at, &bytes)?;
            }
            if let Some((bytes, local, xattrs)) = finish {
                finish_file(tree, attr.inode, bytes, local, xattrs)?;
            }
            Ok(tree.attr(attr.inode)?)
        })?;
        self.host.mutated();
        self.tree.make_room();
        Ok(attr)
    }

    /// The ranges of a piece that the tree does not hold like that. What lies behind its end counts as zeros there.
    fn differing(
        &self,
        known: Option<&Attr>,
        at: u64,
        piece: &[u8],
    ) -> Result<Vec<Range<usize>>, ShareError> {
        let mut there = match known {
            Some(attr) if at < attr.size => self.tree.read(attr.inode, at, piece.len())?,
            _ => Vec::new(),
        };
        there.resize(piece.len(), 0);
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for start in (0..piece.len()).step_by(STEP_BYTES) {
            let range = start..(start + STEP_BYTES).min(piece.len());
            if piece[range.clone()] == there[range.clone()] {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        Ok(ranges)
    }

    /// Other names of a file that was just written: they are in step too.
    fn same_file(&mut self, path: &[u8], attr: &Attr) {
        let Some(entry) = self.base.get(path).copied() else { return };
        for other in self.base.of_inode(attr.inode) {
            let found = self.folder.look(&other).ok().flatten();
            if other != path && found.is_some_and(|found| found == entry.local) {
                self.base.put(&other, entry);
            }
        }
    }

    pub(super) fn push_attributes(
        &mut self,
        path: &[u8],
        local: &Local,
        attr: &Attr,
    ) -> Result<(), ShareError> {
        let (digest, xattrs) = self.digest_local(path, local)?;
        let inode = attr.inode;
        let parent = self.directory_in_tree(split(path).0)?;
        let attr = self.steady(|tree| {
            same_or_new(tree, (parent, split(path).1), Some(attr), |_| Err(TreeError::NotFound))?;
            finish_file(tree, inode, local.bytes, local, &xattrs)?;
            Ok(tree.attr(inode)?)
        })?;
        self.host.mutated();
        self.record(path, local, &attr, digest, &xattrs);
        self.same_file(path, &attr);
        Ok(())
    }

    pub(super) fn push_directory(
        &mut self,
        path: &[u8],
        attr: &Attr,
        local: &Local,
        xattrs: &Xattrs,
    ) -> Result<(), ShareError> {
        let mode = SetAttr { mode: Some(local.mode), ..SetAttr::default() };
        let attr = self
            .steady(|tree| {
                let changed = xattr::set_on_inode(tree, attr.inode, xattrs)?;
                let set = if attr.mode == local.mode { *attr } else { tree.set_attr(attr.inode, mode)? };
                Ok((changed || attr.mode != local.mode).then_some(set))
            })?
            .map_or(*attr, |set| {
                self.host.mutated();
                set
            });
        self.record(path, local, &attr, [0; 32], xattrs);
        Ok(())
    }

    pub(super) fn remove_in_tree(&mut self, path: &[u8], attr: &Attr) -> Result<(), ShareError> {
        let stamp = Stamp::of(attr);
        let directory = stamp.kind == Kind::Directory;
        self.steady(|tree| {
            let parent = tree.resolve(split(path).0)?.inode;
            let there = tree.lookup(parent, split(path).1)?;
            let same = if directory { there.inode == stamp.inode } else { Stamp::of(&there) == stamp };
            match (same, directory) {
                (false, _) => Err(ShareError::Moved),
                (true, true) => Ok(tree.remove_dir(parent, split(path).1)?),
                (true, false) => Ok(tree.unlink(parent, split(path).1)?),
            }
        })?;
        self.host.mutated();
        Ok(())
    }
}

/// What the tree must still show, or must make now because it showed nothing.
fn same_or_new(
    tree: &Tree,
    (directory, name): (Inode, &[u8]),
    expected: Option<&Attr>,
    make: impl FnOnce(&Tree) -> Result<Attr, TreeError>,
) -> Result<Attr, ShareError> {
    match (tree.lookup(directory, name), expected) {
        (Ok(there), Some(expected)) if Stamp::of(&there) == Stamp::of(expected) => Ok(there),
        (Err(TreeError::NotFound), None) => Ok(make(tree)?),
        (Ok(_) | Err(TreeError::NotFound), _) => Err(ShareError::Moved),
        (Err(error), _) => Err(error.into()),
    }
}

/// Size, mode, time and attributes, once the bytes are there.
fn finish_file(
    tree: &Tree,
    inode: Inode,
    bytes: u64,
    local: &Local,
    xattrs: &Xattrs,
) -> Result<(), ShareError> {
    let attr = tree.attr(inode)?;
    let set = SetAttr {
        mode: (attr.mode != local.mode).then_some(local.mode),
        size: (attr.size != bytes).then_some(bytes),
        mtime: Some(SetTime::At(local.mtime)),
        ..SetAttr::default()
    };
    tree.set_attr(inode, set)?;
    xattr::set_on_inode(tree, inode, xattrs)?;
    Ok(())
}

/// A file of which only the beginning was written so far.
fn half(local: &Local, attr: &Attr) -> Entry {
    let local = Local { bytes: u64::MAX, ..*local };
    Entry { local, tree: Stamp::of(attr), digest: [0; 32], xattrs: [0; 32], racy: true, left: false }
}

fn read_piece(file: &mut File) -> Result<Vec<u8>, ShareError> {
    let mut piece = Vec::new();
    file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}
