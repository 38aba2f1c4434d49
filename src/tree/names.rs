//! Names: looking up, making, linking, removing.

use super::attr::{Attr, NodeKind, Owner};
use super::error::TreeError;
use super::inode::{FileType, InodeRecord, Timestamp};
use super::intent::{Birth, Intent};
use super::layer::Node;
use super::live::{Tree, check_name};
use super::state::{State, born_in};
use super::value::{DirEntry, LINK_TARGET_BYTES_MAX};
use crate::base::{BlockNumber, Inode};
use std::time::Instant;

/// Most names of one inode.
const LINKS_MAX: u32 = 65_000;
/// What something new takes on the disk, with its name and its part of the nodes above.
const BIRTH_BYTES: usize = 1 << 10;

/// A directory in which a name is about to change: its block, where this device may write, and its record.
pub(super) struct Place {
    pub(super) block: BlockNumber,
    pub(super) record: InodeRecord,
}

impl Tree {
    /// Makes a file, pipe, socket or device.
    pub fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        kind: NodeKind,
        mode: u16,
        owner: Owner,
    ) -> Result<Attr, TreeError> {
        let rdev = match kind {
            NodeKind::Char(device) | NodeKind::Block(device) => device,
            NodeKind::File | NodeKind::Fifo | NodeKind::Socket => 0,
        };
        let birth = Birth { rdev, ..Birth::plain(kind.file_type(), mode, owner) };
        self.make(parent, name, birth, self.now(), None)
    }

    /// Makes an empty directory.
    pub fn make_dir(&self, parent: Inode, name: &[u8], mode: u16, owner: Owner) -> Result<Attr, TreeError> {
        self.make(parent, name, Birth::plain(FileType::Directory, mode, owner), self.now(), None)
    }

    /// Makes a symbolic link.
    pub fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        owner: Owner,
    ) -> Result<Attr, TreeError> {
        if target.len() > LINK_TARGET_BYTES_MAX {
            return Err(TreeError::NameTooLong);
        }
        if target.is_empty() || target.contains(&0) {
            return Err(TreeError::Invalid);
        }
        const MODE: u16 = 0o777;
        let birth = Birth { target, ..Birth::plain(FileType::Symlink, MODE, owner) };
        self.make(parent, name, birth, self.now(), None)
    }

    /// Makes something new; its inode number is drawn unless it is known.
    pub(super) fn make(
        &self,
        parent: Inode,
        name: &[u8],
        birth: Birth<'_>,
        now: Timestamp,
        inode: Option<Inode>,
    ) -> Result<Attr, TreeError> {
        check_name(name)?;
        self.count(parent)?;
        let Birth { file_type, mode, owner, rdev, target } = birth;
        let mut state = self.bench.state.write();
        let place = self.place_for(&state, parent, name)?;
        state.admit(place.block, 0, 1)?;
        self.admit_on_disk(&state, BIRTH_BYTES)?;
        let inode = match inode {
            Some(inode) => inode,
            None => state.draw_inode(self.options.inode_prefix)?,
        };
        let mut record = born_in(parent, &place.record, file_type, (mode, owner), now);
        (record.rdev, record.size) = (rdev, target.len() as u64);
        if file_type == FileType::File {
            record.data_id = inode.0;
        }
        let mut node = Node::fresh(place.block, record.clone());
        node.link = (file_type == FileType::Symlink).then(|| target.into());
        state.view(&self.bench.shared).claim(inode, place.block)?;
        state.active.insert(inode, node);
        if state.base.block(place.block)?.append {
            let directory = file_type == FileType::Directory;
            state.growing.begin(inode, parent, place.block, directory, Instant::now());
        }
        state.counted(inode, place.block, &record, true);
        state.put_entry(parent, place.block, name, Some(DirEntry { inode, file_type }));
        let subdirectories = i32::from(file_type == FileType::Directory);
        state.touch_directory(parent, place.block, place.record, subdirectories, now);
        state.note(parent, now, &Intent::Make { parent, name, inode, birth });
        self.listings.touch(parent);
        Ok(state.view(&self.bench.shared).attr_of(inode, place.block, &record))
    }

    /// The directory for a new name: it must be free, and the block writable.
    pub(super) fn place_for(&self, state: &State, parent: Inode, name: &[u8]) -> Result<Place, TreeError> {
        let view = state.view(&self.bench.shared);
        let record = view.directory(parent)?;
        if view.child(parent, name)?.is_some() {
            return Err(TreeError::Exists);
        }
        let place = self.place_of(state, parent, record)?;
        Ok(place)
    }

    /// A directory whose names this device may change.
    pub(super) fn place_of(
        &self,
        state: &State,
        parent: Inode,
        record: InodeRecord,
    ) -> Result<Place, TreeError> {
        let view = state.view(&self.bench.shared);
        let block = view.block_of(parent)?;
        state.check_writable(block)?;
        if state.orphans.contains_key(&parent) {
            return Err(TreeError::NotFound);
        }
        if state.base.pins.at(parent).is_some_and(|pin| pin.synthetic) {
            return Err(TreeError::ReadOnlyBlock(block));
        }
        Ok(Place { block, record })
    }

    /// A name that may be taken away: what it leads to, and its directory.
    pub(super) fn named(
        &self,
        state: &State,
        parent: Inode,
        name: &[u8],
    ) -> Result<(DirEntry, Place), TreeError> {
        let view = state.view(&self.bench.shared);
        let record = view.directory(parent)?;
        if state.base.pins.child(parent, name).is_some() {
            return Err(TreeError::Busy);
        }
        let entry = view.child(parent, name)?.ok_or(TreeError::NotFound)?;
        let place = self.place_of(state, parent, record)?;
        state.check_changeable(entry.inode, place.block)?;
        Ok((entry, place))
    }

    /// Gives an inode one more name.
    pub fn link(&self, inode: Inode, parent: Inode, name: &[u8]) -> Result<Attr, TreeError> {
        self.link_at(inode, parent, name, self.now())
    }

    pub(super) fn link_at(
        &self,
        inode: Inode,
        parent: Inode,
        name: &[u8],
        now: Timestamp,
    ) -> Result<Attr, TreeError> {
        check_name(name)?;
        let mut state = self.bench.state.write();
        let view = state.view(&self.bench.shared);
        let mut record = view.record(inode)?;
        let block = view.block_of(inode)?;
        if record.is_directory() {
            return Err(TreeError::NotPermitted);
        }
        if record.nlink == 0 {
            return Err(TreeError::NotFound);
        }
        let place = self.place_for(&state, parent, name)?;
        if place.block != block {
            return Err(TreeError::CrossBlock);
        }
        state.check_changeable(inode, block)?;
        if record.nlink >= LINKS_MAX {
            return Err(TreeError::TooManyLinks);
        }
        record.nlink += 1;
        record.ctime = now;
        let attr = state.view(&self.bench.shared).attr_of(inode, block, &record);
        let entry = DirEntry { inode, file_type: record.file_type };
        state.put_record(inode, block, record);
        state.put_entry(parent, block, name, Some(entry));
        state.touch_directory(parent, block, place.record, 0, now);
        state.note(parent, now, &Intent::Link { inode, parent, name });
        self.listings.touch(parent);
        Ok(attr)
    }

    /// Removes a name of something that is not a directory.
    pub fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), TreeError> {
        self.remove(parent, name, false, self.now())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, parent: Inode, name: &[u8]) -> Result<(), TreeError> {
        self.remove(parent, name, true, self.now())
    }

    pub(super) fn remove(
        &self,
        parent: Inode,
        name: &[u8],
        directory: bool,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        if name.len() > super::key::NAME_BYTES_MAX {
            return Err(TreeError::NameTooLong);
        }
        if directory && matches!(name, b"." | b"..") {
            return Err(if name == b"." { TreeError::Invalid } else { TreeError::NotEmpty });
        }
        let mut state = self.bench.state.write();
        let (entry, place) = self.named(&state, parent, name)?;
        let view = state.view(&self.bench.shared);
        let record = view.record(entry.inode)?;
        match (directory, record.is_directory()) {
            (true, false) => return Err(TreeError::NotDirectory),
            (false, true) => return Err(TreeError::IsDirectory),
            (true, true) if !view.stack(entry.inode)?.is_empty()? => return Err(TreeError::NotEmpty),
            _ => {}
        }
        state.drop_name(entry.inode, place.block, record, now)?;
        state.put_entry(parent, place.block, name, None);
        state.touch_directory(parent, place.block, place.record, -i32::from(directory), now);
        state.note(parent, now, &Intent::Remove { parent, name, directory });
        self.listings.touch(parent);
        Ok(())
    }
}
