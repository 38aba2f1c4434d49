//! From the tree into the folder. Everything is written beside, and put in its place only if what stands there is what was
//! in step: else it is somebody's edit, and another look decides.

use super::base::{Entry, Rel};
use super::error::ShareError;
use super::folder::{Temporary, split};
use super::reconcile::Hand;
use super::stamp::{Kind, Local, Stamp};
use super::xattr::{self, Xattrs};
use crate::tree::{Attr, ReadTree as _, Timestamp};
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

/// Bytes that are copied at a time.
const STEP_BYTES: usize = 1 << 20;
/// A file that changes while it is copied is begun anew so many times.
const ATTEMPTS_MAX: u32 = 3;
/// Who shares a folder can always read, write and enter its directories, whatever others say.
const OWN_DIRECTORY: u16 = 0o700;
/// What a remote writer may set: not that a program runs as somebody else.
const FILE_MODE: u16 = 0o777;
const DIRECTORY_MODE: u16 = 0o1777;

impl Hand {
    /// The folder has nothing there.
    pub(super) fn pull_new(&mut self, path: &[u8], attr: &Attr) -> Result<(), ShareError> {
        self.pull(path, attr, None)
    }

    /// The folder has something there that only others changed.
    pub(super) fn pull_over(&mut self, path: &[u8], local: &Local, attr: &Attr) -> Result<(), ShareError> {
        let directories = [local.kind, Kind::of(attr.file_type)].map(|kind| kind == Kind::Directory);
        match directories {
            [false, false] => self.pull(path, attr, Some(local)),
            [true, _] => {
                self.in_removal(|hand| hand.children(path))?;
                if self.folder.remove_dir(path)? { self.pull(path, attr, None) } else { self.conflict(path) }
            }
            [false, true] => {
                self.folder.remove(path, local)?;
                self.pull(path, attr, None)
            }
        }
    }

    fn pull(&mut self, path: &[u8], attr: &Attr, over: Option<&Local>) -> Result<(), ShareError> {
        self.directory_in_folder(split(path).0)?;
        match Kind::of(attr.file_type) {
            Kind::Directory => {
                self.folder.make_dir(path)?;
                let xattrs = xattr::of_inode(&self.tree, attr.inode)?;
                self.pull_directory(path, attr, &xattrs)?;
                self.children(path)
            }
            Kind::Symlink => self.pull_link(path, attr, over),
            Kind::File if self.pull_name(path, attr, over)? => Ok(()),
            Kind::File => self.pull_file(path, attr, over),
            Kind::Special => Ok(()),
        }
    }

    fn pull_link(&mut self, path: &[u8], attr: &Attr, over: Option<&Local>) -> Result<(), ShareError> {
        let target = self.tree.read_link(attr.inode)?;
        let temporary = self.folder.new_link(&target)?;
        self.put(&temporary, path, over)?;
        let local = self.folder.look(path)?.ok_or(ShareError::Moved)?;
        self.record(path, &local, attr, *blake3::hash(&target).as_bytes(), &Xattrs::new());
        Ok(())
    }

    /// Another name of a file that is here already. True if it was one.
    fn pull_name(&mut self, path: &[u8], attr: &Attr, over: Option<&Local>) -> Result<bool, ShareError> {
        if attr.nlink < 2 {
            return Ok(false);
        }
        for other in self.base.of_inode(attr.inode) {
            let Some(entry) = self.base.get(&other).copied() else { continue };
            let found = self.folder.look(&other)?;
            let here = found.is_some_and(|found| found.is_same_content(&entry.local));
            let older = Stamp { ctime: attr.ctime, ..entry.tree } != Stamp::of(attr);
            if other == path || older || !here {
                continue;
            }
            if let Some(found) = found
                && self.digest_local(&other, &found)?.0 != entry.digest
            {
                continue;
            }
            let temporary = self.folder.new_name(&other)?;
            self.put(&temporary, path, over)?;
            for name in [&other[..], path] {
                let local = self.folder.look(name)?.ok_or(ShareError::Moved)?;
                self.base.put(name, Entry { local, tree: Stamp::of(attr), ..entry });
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn pull_file(&mut self, path: &[u8], attr: &Attr, over: Option<&Local>) -> Result<(), ShareError> {
        let mut attr = *attr;
        for _ in 0..ATTEMPTS_MAX {
            let (mut file, temporary) = self.folder.new_file()?;
            let copied = self.copy(&attr, &mut file);
            let now = self.look_in_tree(path);
            match (copied, now) {
                (Ok((digest, xattrs)), Ok(Some(now))) if Stamp::of(&now) == Stamp::of(&attr) => {
                    self.put(&temporary, path, over)?;
                    let local = self.folder.stat(&file)?;
                    self.record(path, &local, &attr, digest, &xattrs);
                    return Ok(());
                }
                (Ok(_), Ok(Some(now))) => {
                    self.folder.discard(&temporary);
                    attr = now;
                }
                (copied, now) => {
                    self.folder.discard(&temporary);
                    copied?;
                    now?;
                    return Err(ShareError::Moved);
                }
            }
        }
        Err(ShareError::Moved)
    }

    fn copy(&self, attr: &Attr, file: &mut File) -> Result<([u8; 32], Xattrs), ShareError> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < attr.size {
            let bytes = self.tree.read(attr.inode, at, STEP_BYTES)?;
            if bytes.is_empty() {
                return Err(ShareError::Moved);
            }
            hasher.update(&bytes);
            if bytes.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&bytes)?;
            }
            at += bytes.len() as u64;
        }
        file.set_len(at)?;
        let xattrs = xattr::of_inode(&self.tree, attr.inode)?;
        xattr::set_on_file(&*file, &xattrs)?;
        set_file(file, attr)?;
        Ok((*hasher.finalize().as_bytes(), xattrs))
    }

    fn put(&mut self, temporary: &Temporary, path: &[u8], over: Option<&Local>) -> Result<(), ShareError> {
        let placed = self.folder.place(temporary, path, over);
        if placed.is_err() {
            self.folder.discard(temporary);
        }
        placed
    }

    /// Mode, time and extended attributes of a file whose content is in step.
    pub(super) fn pull_attributes(
        &mut self,
        path: &[u8],
        local: &Local,
        attr: &Attr,
    ) -> Result<(), ShareError> {
        let (digest, _) = self.digest_local(path, local)?;
        if local.kind == Kind::Symlink {
            self.record(path, local, attr, digest, &Xattrs::new());
            return Ok(());
        }
        let xattrs = xattr::of_inode(&self.tree, attr.inode)?;
        let file = self.folder.read(path)?;
        if self.folder.stat(&file)? != *local {
            return Err(ShareError::Moved);
        }
        // Only who may write to a file may set its attributes.
        fchmod(&file, Mode::from_raw_mode(u32::from(local.mode | 0o200)))?;
        xattr::set_on_file(&file, &xattrs)?;
        set_file(&file, attr)?;
        let local = self.folder.stat(&file)?;
        self.record(path, &local, attr, digest, &xattrs);
        Ok(())
    }

    pub(super) fn pull_directory(
        &mut self,
        path: &[u8],
        attr: &Attr,
        xattrs: &Xattrs,
    ) -> Result<(), ShareError> {
        let directory = self.folder.read(path)?;
        xattr::set_on_file(&directory, xattrs)?;
        let mode = attr.mode & DIRECTORY_MODE | OWN_DIRECTORY;
        if self.folder.stat(&directory)?.mode != mode {
            fchmod(&directory, Mode::from_raw_mode(u32::from(mode)))?;
        }
        let local = self.folder.stat(&directory)?;
        if local.kind != Kind::Directory {
            return Err(ShareError::Moved);
        }
        self.record(path, &local, attr, [0; 32], xattrs);
        Ok(())
    }

    /// Makes the directories that lead to something, as the tree has them.
    pub(super) fn directory_in_folder(&mut self, path: &[u8]) -> Result<(), ShareError> {
        if self.folder.is_directory(path)? {
            return Ok(());
        }
        self.directory_in_folder(split(path).0)?;
        let attr = self.look_in_tree(path)?.ok_or(ShareError::Moved)?;
        self.folder.make_dir(path)?;
        let xattrs = xattr::of_inode(&self.tree, attr.inode)?;
        self.pull_directory(path, &attr, &xattrs)?;
        let deep: (Rel, bool) = (path.to_vec(), true);
        self.again.insert(deep.0, deep.1);
        Ok(())
    }
}

fn set_file(file: &File, attr: &Attr) -> Result<(), ShareError> {
    fchmod(file, Mode::from_raw_mode(u32::from(attr.mode & FILE_MODE)))?;
    let Timestamp { seconds, nanos } = attr.mtime;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    Ok(futimens(file, &times)?)
}
