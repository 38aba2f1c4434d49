//! One path: what the folder and the tree show there is compared with what was last in step, and whichever side changed
//! is carried over. Removals wait until everything else of a round was looked at, so that a file that moved is seen at
//! its new place before it is missed at its old one.

use super::base::{Base, Entry, Rel};
use super::error::ShareError;
use super::folder::{Folder, join};
use super::report::Notes;
use super::rules::Rules;
use super::stamp::{Kind, Local, Stamp};
use super::worker::ShareHost;
use super::xattr;
use crate::tree::{Attr, ReadTree as _, Tree, TreeError};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Paths that are to be looked at; true: with all that lies below.
pub(super) type Paths = BTreeMap<Rel, bool>;

/// Asks to be told of what happens in a directory.
pub(super) type Watch = Box<dyn FnMut(&[u8]) + Send>;

/// What one side did since both were in step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    None,
    /// Mode, time or extended attributes.
    Attributes,
    Content,
}

/// Who does the work, on a thread of its own. It holds no lock while it copies.
pub(super) struct Hand {
    pub folder: Folder,
    pub tree: Arc<Tree>,
    pub host: Arc<dyn ShareHost>,
    pub base: Base,
    pub rules: Rules,
    pub notes: Notes,
    /// Asks to be told of changes in a directory; called before it is listed.
    pub watch: Watch,
    /// To be looked at again soon.
    pub again: Paths,
    /// Files that nobody is about to write to.
    pub closed: HashSet<Rel>,
    /// It is the last time: what is seen now counts.
    pub ending: bool,
    /// What seems to have been removed on one side.
    missing: Paths,
    removing: bool,
}

impl Hand {
    pub fn new(
        folder: Folder,
        tree: Arc<Tree>,
        host: Arc<dyn ShareHost>,
        base: Base,
        rules: Rules,
        watch: Watch,
    ) -> Hand {
        Hand {
            folder,
            tree,
            host,
            base,
            rules,
            watch,
            notes: Notes::default(),
            again: Paths::new(),
            closed: HashSet::new(),
            ending: false,
            missing: Paths::new(),
            removing: false,
        }
    }

    /// Looks at paths, parents first; then at what seems removed, children first.
    pub fn round(&mut self, paths: Paths) {
        self.removing = false;
        for (path, deep) in paths {
            self.visit(&path, deep);
        }
        self.removing = true;
        while let Some((path, deep)) = self.missing.pop_last() {
            self.visit(&path, deep);
        }
        self.removing = false;
    }

    /// Does something in which what is missing on one side counts as removed at once.
    pub fn in_removal<T>(&mut self, act: impl FnOnce(&mut Hand) -> T) -> T {
        let before = std::mem::replace(&mut self.removing, true);
        let done = act(self);
        self.removing = before;
        done
    }

    /// Brings one path in step, or notes why not.
    pub fn visit(&mut self, path: &[u8], deep: bool) {
        let outcome = match self.settle(path, deep) {
            Err(ShareError::Tree(TreeError::ReadOnlyBlock(_) | TreeError::Fixed(_))) => self.refuse(path),
            other => other,
        };
        match outcome {
            Ok(()) => {}
            Err(ShareError::Moved) => *self.again.entry(path.to_vec()).or_default() |= deep,
            Err(error) => self.note(path, &error),
        }
    }

    fn note(&mut self, path: &[u8], error: &ShareError) {
        let cannot_hold = [libc::ENAMETOOLONG, libc::EILSEQ, libc::EINVAL, libc::EXDEV];
        match error {
            ShareError::Folder(io) if io.raw_os_error().is_some_and(|errno| cannot_hold.contains(&errno)) => {
                self.notes.skip(path, &format!("this folder's file system cannot hold it: {io}"));
            }
            ShareError::Tree(TreeError::NameTooLong | TreeError::CrossBlock | TreeError::TooBig) => {
                self.notes.skip(path, &format!("the database cannot hold it: {error}"));
            }
            ShareError::Tree(TreeError::Closed(_)) => self.notes.skip(path, &error.to_string()),
            _ => self.notes.failed(path, error.to_string()),
        }
    }

    fn settle(&mut self, path: &[u8], deep: bool) -> Result<(), ShareError> {
        if path.is_empty() {
            return self.children(path);
        }
        if Folder::is_reserved(path) {
            return Ok(());
        }
        let (mut local, mut attr) = (self.folder.look(path)?, self.look_in_tree(path)?);
        let is_directory = local.is_some_and(|local| local.kind == Kind::Directory)
            || local.is_none() && attr.is_some_and(|attr| Kind::of(attr.file_type) == Kind::Directory);
        if self.rules.ignores(&self.folder, path, is_directory) {
            self.base.remove(path);
            return Ok(());
        }
        let special = local.is_some_and(|local| local.kind == Kind::Special)
            || attr.is_some_and(|attr| Kind::of(attr.file_type) == Kind::Special);
        if special {
            self.notes.skip(path, "a device, socket or pipe, or on a file system of its own");
            self.base.remove(path);
            return Ok(());
        }
        let mut deep = deep;
        if !self.removing && self.follow_renames(path, local.as_ref(), attr.as_ref())? {
            (local, attr, deep) = (self.folder.look(path)?, self.look_in_tree(path)?, true);
        }
        if local.is_some_and(|local| self.is_unwritten(path, &local, attr.as_ref())) {
            return Err(ShareError::Moved);
        }
        let base = self.base.get(path).copied();
        let known = base.filter(|entry| !entry.left);
        match (local, attr) {
            (None, None) => self.base.remove(path),
            (Some(local), Some(attr)) => self.meet(path, &local, &attr, base, deep)?,
            (Some(_), None) | (None, Some(_)) if known.is_some() && !self.removing => {
                self.missing.insert(path.to_vec(), deep);
                return Ok(());
            }
            (Some(local), None) => match known {
                Some(entry) => self.gone_in_tree(path, &local, &entry)?,
                // It stays here for what is ignored in it.
                None if base.is_some() && local.kind == Kind::Directory => self.children(path)?,
                None => self.push_new(path, &local)?,
            },
            (None, Some(attr)) => match known {
                Some(entry) => self.gone_locally(path, &attr, &entry)?,
                None => self.pull_new(path, &attr)?,
            },
        }
        self.notes.solved(path);
        Ok(())
    }

    /// Looks at everything in a directory, on whichever side it is.
    pub fn children(&mut self, path: &[u8]) -> Result<(), ShareError> {
        // Told of first and listed then: what is made in between is seen twice, not never.
        if self.folder.is_directory(path)? {
            (self.watch)(path);
        }
        let mut names = self.base.children(path);
        names.extend(self.folder.list(path)?);
        names.extend(self.list_tree(path)?);
        for name in names {
            self.visit(&join(path, &name), true);
        }
        Ok(())
    }

    fn list_tree(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, ShareError> {
        let Some(directory) =
            self.look_in_tree(path)?.filter(|attr| Kind::of(attr.file_type) == Kind::Directory)
        else {
            return Ok(Vec::new());
        };
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let batch = self.tree.read_dir(directory.inode, cookie)?;
            let Some(last) = batch.last() else { return Ok(names) };
            cookie = last.cookie;
            let own = |name: &Vec<u8>| name != b"." && name != b"..";
            names.extend(batch.into_iter().map(|item| item.name).filter(own));
        }
    }

    /// What the tree shows at a path.
    pub fn look_in_tree(&self, path: &[u8]) -> Result<Option<Attr>, ShareError> {
        match self.tree.resolve(path) {
            Ok(attr) => Ok(Some(attr)),
            Err(TreeError::NotFound | TreeError::NotDirectory) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// It was removed elsewhere. An edit beats a removal.
    fn gone_in_tree(&mut self, path: &[u8], local: &Local, entry: &Entry) -> Result<(), ShareError> {
        if local.kind != Kind::Directory {
            if self.local_change(path, local, Some(entry))? == Change::Content {
                return self.push_new(path, local);
            }
            self.folder.remove(path, local)?;
            self.base.remove(path);
            return Ok(());
        }
        self.children(path)?;
        if self.look_in_tree(path)?.is_some() {
            // Something in it lives on, and so does it.
            return Err(ShareError::Moved);
        }
        if self.folder.remove_dir(path)? {
            self.base.remove(path);
        } else {
            self.base.put(path, Entry { left: true, ..*entry });
        }
        Ok(())
    }

    /// It was removed here. An edit beats a removal.
    fn gone_locally(&mut self, path: &[u8], attr: &Attr, entry: &Entry) -> Result<(), ShareError> {
        if let Some(why) = self.folder.unsound() {
            return Err(ShareError::NotTheFolder { path: self.folder.path().to_path_buf(), why });
        }
        let directory = Kind::of(attr.file_type) == Kind::Directory;
        if directory {
            self.children(path)?;
            if self.folder.look(path)?.is_some() {
                return Err(ShareError::Moved);
            }
        } else if self.tree_change(attr, Some(entry))? == Change::Content {
            return self.pull_new(path, attr);
        }
        match self.remove_in_tree(path, attr) {
            // Something in it is not here: it was made elsewhere just now, or is left out.
            Err(ShareError::Tree(TreeError::NotEmpty)) => self.pull_new(path, attr),
            Err(error) => Err(error),
            Ok(()) => {
                self.base.remove(path);
                Ok(())
            }
        }
    }

    /// What the folder's side did.
    pub fn local_change(
        &mut self,
        path: &[u8],
        local: &Local,
        base: Option<&Entry>,
    ) -> Result<Change, ShareError> {
        let Some(entry) = base.filter(|entry| entry.local.kind == local.kind) else {
            return Ok(Change::Content);
        };
        if local.kind == Kind::Directory || *local == entry.local && !entry.racy {
            return Ok(Change::None);
        }
        let (digest, xattrs) = self.digest_local(path, local)?;
        if digest != entry.digest {
            return Ok(Change::Content);
        }
        let timed = local.kind == Kind::File && local.mtime != entry.local.mtime;
        if timed || local.mode != entry.local.mode || xattr::digest(&xattrs) != entry.xattrs {
            return Ok(Change::Attributes);
        }
        self.base.put(path, Entry { local: *local, racy: Self::is_racy(local), ..*entry });
        Ok(Change::None)
    }

    /// What the others did.
    pub fn tree_change(&mut self, attr: &Attr, base: Option<&Entry>) -> Result<Change, ShareError> {
        let stamp = Stamp::of(attr);
        let Some(entry) = base.filter(|entry| entry.tree.kind == stamp.kind) else {
            return Ok(Change::Content);
        };
        if stamp.kind == Kind::Directory || stamp == entry.tree {
            return Ok(Change::None);
        }
        if stamp.bytes != entry.tree.bytes || self.digest_tree(attr)? != entry.digest {
            return Ok(Change::Content);
        }
        Ok(Change::Attributes)
    }
}
