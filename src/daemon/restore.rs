//! Brings files and directories of a kept version back into the tree.

use super::answers::Restored;
use super::core::Core;
use super::error::EngineError;
use super::history::{COPY_BYTES, children, numbered};
use crate::base::{BlockNumber, Inode, Place};
use crate::tree::{
    Attr, Changes, FileType, NodeKind, Owner, ReadTree, SetAttr, SetTime, SetXattr, Tree, TreeError,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

const PARENT_MODE: u16 = 0o755;

/// Copies a path out of a kept version into the tree. What stands at the target is replaced, file by file; files that
/// only the target has stay. `changes` tells the kernel what was changed past the mount, also where it fails; `fault`
/// brings bytes of the version that are not here.
pub fn restore(
    core: &Core,
    version: u32,
    path: &[u8],
    to: Option<&[u8]>,
    changes: &mut Changes,
    fault: &dyn Fn(Place) -> bool,
) -> Result<Value, EngineError> {
    let from = numbered(core, version)?;
    let tree = core.tree()?;
    let mut source = BlockNumber::ROOT.root_inode();
    for name in names(path) {
        source = from.lookup(source, name).map_err(|error| at_path(path, &error))?.inode;
    }
    let target = to.unwrap_or(path);
    let attr = from.attr(source)?;
    let parts: Vec<&[u8]> = names(target).collect();
    let restored = Restored { path_hex: HEXLOWER.encode(&parts.join(&b'/')), ..Restored::default() };
    let mut copying = Copying { from: &*from, tree, restored, changes, fault };
    let done = match parts.split_last() {
        None => copying.children(source, BlockNumber::ROOT.root_inode()),
        Some((last, parents)) => {
            let owner = Owner { uid: attr.uid, gid: attr.gid };
            copying.parents(parents, owner).and_then(|parent| copying.copy(&attr, parent, last).map(|_| ()))
        }
    };
    done.map_err(|error| at_path(target, &error))?;
    let restored = copying.restored;
    core.persist()?;
    Ok(json!(restored))
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn at_path(path: &[u8], error: &TreeError) -> EngineError {
    match error {
        TreeError::ReadOnlyBlock(block) => EngineError::Tree(TreeError::ReadOnlyBlock(*block)),
        TreeError::Fixed(block) => EngineError::Tree(TreeError::Fixed(*block)),
        other => EngineError::Other(format!("/{}: {other}", String::from_utf8_lossy(path))),
    }
}

struct Copying<'a> {
    from: &'a dyn ReadTree,
    tree: &'a Tree,
    restored: Restored,
    changes: &'a mut Changes,
    /// Brings bytes that are not here; whether they came.
    fault: &'a dyn Fn(Place) -> bool,
}

impl Copying<'_> {
    fn note(&mut self, parent: Inode, name: &[u8]) {
        self.changes.entries.push((parent, name.to_vec()));
        self.changes.directories.push(parent);
    }

    /// The directory behind `parents`; what is missing is made.
    fn parents(&mut self, parents: &[&[u8]], owner: Owner) -> Result<Inode, TreeError> {
        let mut parent = BlockNumber::ROOT.root_inode();
        for name in parents {
            parent = match self.tree.lookup(parent, name) {
                Ok(attr) => attr.inode,
                Err(TreeError::NotFound) => {
                    self.note(parent, name);
                    self.tree.make_dir(parent, name, PARENT_MODE, owner)?.inode
                }
                Err(error) => return Err(error),
            };
        }
        Ok(parent)
    }

    fn children(&mut self, directory: Inode, parent: Inode) -> Result<(), TreeError> {
        for item in children(self.from, directory)? {
            self.copy(&item.attr, parent, &item.name)?;
        }
        Ok(())
    }

    fn copy(&mut self, attr: &Attr, parent: Inode, name: &[u8]) -> Result<(), TreeError> {
        self.note(parent, name);
        let inode = self.make(attr, parent, name)?;
        self.restored.entries += 1;
        match attr.file_type {
            FileType::Directory => self.children(attr.inode, inode)?,
            FileType::File => self.restored.bytes += self.data(attr, inode)?,
            _ => {}
        }
        for xattr in self.from.list_xattr(attr.inode)? {
            self.tree.set_xattr(inode, &xattr, &self.from.get_xattr(attr.inode, &xattr)?, SetXattr::Any)?;
        }
        let change = SetAttr {
            mode: (attr.file_type != FileType::Symlink).then_some(attr.mode),
            mtime: Some(SetTime::At(attr.mtime)),
            ..SetAttr::default()
        };
        self.tree.set_attr(inode, change)?;
        Ok(())
    }

    /// The inode to copy into: a directory that is there already, or a new inode in the place of what is there.
    fn make(&mut self, attr: &Attr, parent: Inode, name: &[u8]) -> Result<Inode, TreeError> {
        let owner = Owner { uid: attr.uid, gid: attr.gid };
        let there = self.tree.lookup(parent, name).ok();
        if let Some(there) = there {
            if (attr.file_type, there.file_type) == (FileType::Directory, FileType::Directory) {
                return Ok(there.inode);
            }
            self.tree.unlink(parent, name)?;
        }
        let made = match attr.file_type {
            FileType::Directory => self.tree.make_dir(parent, name, attr.mode, owner)?,
            FileType::Symlink => {
                self.tree.make_symlink(parent, name, &self.from.read_link(attr.inode)?, owner)?
            }
            kind => self.tree.make_node(parent, name, node_kind(kind, attr.rdev), attr.mode, owner)?,
        };
        Ok(made.inode)
    }

    fn data(&self, attr: &Attr, inode: Inode) -> Result<u64, TreeError> {
        let mut offset = 0;
        while offset < attr.size {
            let bytes = match self.from.read(attr.inode, offset, COPY_BYTES) {
                Err(TreeError::Absent(place)) if (self.fault)(place) => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                self.tree.write(inode, offset, &bytes)?;
            }
            offset += bytes.len() as u64;
        }
        self.tree.set_attr(inode, SetAttr { size: Some(attr.size), ..SetAttr::default() })?;
        Ok(attr.size)
    }
}

fn node_kind(kind: FileType, rdev: u32) -> NodeKind {
    match kind {
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Char => NodeKind::Char(rdev),
        FileType::Block => NodeKind::Block(rdev),
        FileType::File | FileType::Directory | FileType::Symlink => NodeKind::File,
    }
}
