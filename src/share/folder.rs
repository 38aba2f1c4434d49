//! The folder on the local disk. Every path is walked from the folder's own handle, beneath it, through no symbolic link
//! and onto no other file system (openat2(2)), so that nothing a remote writer names can lead outside.

use super::base::{Base, MARKER_BYTES, Rel};
use super::error::ShareError;
use super::stamp::{Kind, Local};
use data_encoding::HEXLOWER;
use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, flock, fstat, linkat,
    mkdirat, openat, openat2, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The directory at the top of the folder that is the share's own: its marker, what is half written, what was refused.
pub(super) const OWN: &[u8] = b".kilofs-share";
pub(super) const MARKER: &str = ".kilofs-share/id";
pub(super) const TEMPORARY: &str = ".kilofs-share/tmp";
pub(super) const REFUSED: &[u8] = b".kilofs-share/refused";
const PRIVATE: Mode = Mode::RWXU;
/// So many names are tried for something that was refused.
const NAMES_MAX: u32 = 10_000;

/// The folder, open.
pub(super) struct Folder {
    path: PathBuf,
    root: OwnedFd,
    device: u64,
    number: u64,
    marker: [u8; MARKER_BYTES],
    made: u64,
    /// Held while it is shared.
    lock: Option<OwnedFd>,
}

/// Something half written: it has a name below the share's own directory.
pub(super) struct Temporary {
    name: Rel,
}

impl Folder {
    /// Opens a folder and reads its marker; none where it has none.
    pub fn open(path: &Path) -> Result<(Folder, bool), ShareError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())?;
        let stat = fstat(&root)?;
        let mut folder = Folder {
            path: path.to_path_buf(),
            root,
            device: stat.st_dev,
            number: stat.st_ino,
            marker: [0; MARKER_BYTES],
            made: 0,
            lock: None,
        };
        let marker = folder.read_marker()?;
        folder.marker = marker.unwrap_or_default();
        Ok((folder, marker.is_some()))
    }

    /// Marks the folder as one that is shared, by this engine alone.
    pub fn mark(&mut self, new_marker: bool) -> Result<(), ShareError> {
        for directory in [OWN, TEMPORARY.as_bytes()] {
            match mkdirat(&self.root, directory, PRIVATE) {
                Err(error) if error != Errno::EXIST => return Err(error.into()),
                _ => {}
            }
        }
        let own = self.open_beneath(OWN, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        flock(&own, FlockOperation::NonBlockingLockExclusive).map_err(|error| ShareError::NotTheFolder {
            path: self.path.clone(),
            why: format!("another engine shares it already ({error})"),
        })?;
        self.lock = Some(own);
        if new_marker {
            getrandom::fill(&mut self.marker).map_err(|error| io::Error::other(error.to_string()))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file =
                File::from(self.open_beneath(MARKER.as_bytes(), flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(HEXLOWER.encode(&self.marker).as_bytes())?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Clears what an earlier run left half done. What was taken out of the folder is kept, unless it is what was in step.
    pub fn clear(&self, base: &Base) -> Result<(), ShareError> {
        for name in self.list(TEMPORARY.as_bytes())? {
            let path = join(TEMPORARY.as_bytes(), &name);
            let Some(found) = self.look(&path)? else { continue };
            let known = base.of_number(found.number);
            let mut known = known.iter().filter_map(|path| base.get(path)).peekable();
            if known.peek().is_some() && !known.any(|entry| entry.local.is_same_content(&found)) {
                let aside = self.set_aside(&path)?;
                tracing::warn!(aside = %String::from_utf8_lossy(&aside), "an edit was found half replaced: it is kept there");
            } else {
                _ = unlinkat(&self.root, path, AtFlags::empty());
            }
        }
        Ok(())
    }

    fn read_marker(&self) -> Result<Option<[u8; MARKER_BYTES]>, ShareError> {
        let file =
            match self.open_beneath(MARKER.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let mut text = Vec::new();
        File::from(file).take(2 * MARKER_BYTES as u64).read_to_end(&mut text)?;
        let decoded = HEXLOWER.decode(&text).ok();
        Ok(decoded.and_then(|bytes| bytes.try_into().ok()))
    }

    /// Which folder it is.
    pub fn marker(&self) -> [u8; MARKER_BYTES] {
        self.marker
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the folder is not to be trusted just now, if it is not: another directory stands in its place, or its marker is
    /// gone. What is missing in it then says nothing.
    pub fn unsound(&self) -> Option<String> {
        let same = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino) == (self.device, self.number);
        if !statat(CWD, &self.path, AtFlags::empty()).is_ok_and(same) {
            return Some("another directory stands in the folder's place: is its disk mounted?".into());
        }
        match self.read_marker() {
            Ok(Some(marker)) if marker == self.marker => None,
            _ => Some("the folder's marker .kilofs-share/id is gone: is its disk mounted?".into()),
        }
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = if path.is_empty() { &b"."[..] } else { path };
        openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, how)
    }

    /// The directory that a path lies in, and its last name.
    fn parent<'a>(&self, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let (above, name) = split(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_beneath(above, flags, Mode::empty())?, name))
    }

    /// What stands at a path; none if nothing does.
    pub fn look(&self, path: &[u8]) -> Result<Option<Local>, ShareError> {
        let found =
            self.parent(path).and_then(|(above, name)| statat(above, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(stat) => Ok(Some(Local::of(&stat, self.device))),
            // What lies behind a link, or is no directory, has nothing below it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in a directory; nothing where there is none.
    pub fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, ShareError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = match self.open_beneath(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The numbers of all that lies in the folder.
    pub fn numbers(&self) -> Result<HashSet<u64>, ShareError> {
        let mut numbers = HashSet::new();
        let mut open = vec![Rel::new()];
        while let Some(directory) = open.pop() {
            for name in self.list(&directory)? {
                let path = join(&directory, &name);
                let Some(found) = self.look(&path)?.filter(|_| !Self::is_reserved(&path)) else { continue };
                numbers.insert(found.number);
                if found.kind == Kind::Directory {
                    open.push(path);
                }
            }
        }
        Ok(numbers)
    }

    /// A file, open for reading, or a directory; never waits for a pipe.
    pub fn read(&self, path: &[u8]) -> Result<File, ShareError> {
        Ok(File::from(self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?))
    }

    /// What an open file is.
    pub fn stat(&self, file: impl AsFd) -> Result<Local, ShareError> {
        Ok(Local::of(&fstat(file)?, self.device))
    }

    /// What a symbolic link says.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ShareError> {
        let (above, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(above, name, Vec::new())?.into_bytes())
    }

    fn temporary(&mut self) -> Temporary {
        self.made += 1;
        let name = format!("{TEMPORARY}/{}-{}", std::process::id(), self.made);
        Temporary { name: name.into_bytes() }
    }

    /// A new file, half written until it is put in its place.
    pub fn new_file(&mut self) -> Result<(File, Temporary), ShareError> {
        let temporary = self.temporary();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = self.open_beneath(&temporary.name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((File::from(file), temporary))
    }

    /// A new symbolic link.
    pub fn new_link(&mut self, target: &[u8]) -> Result<Temporary, ShareError> {
        let temporary = self.temporary();
        let target = CString::new(target).map_err(|_| Errno::INVAL)?;
        let (above, name) = self.parent(&temporary.name)?;
        symlinkat(target.as_c_str(), above, name)?;
        Ok(temporary)
    }

    /// Another name for a file.
    pub fn new_name(&mut self, path: &[u8]) -> Result<Temporary, ShareError> {
        let temporary = self.temporary();
        let (from, old) = self.parent(path)?;
        let (above, name) = self.parent(&temporary.name)?;
        linkat(from, old, above, name, AtFlags::empty())?;
        Ok(temporary)
    }

    /// Gives up what is half written.
    pub fn discard(&self, temporary: &Temporary) {
        _ = unlinkat(&self.root, temporary.name.as_slice(), AtFlags::empty());
    }

    /// Puts something where `expected` stands, or nothing. If it turns out that something else stood there, that has been
    /// written to in the last moment: it is put back, and it is [`ShareError::Moved`].
    pub fn place(
        &self,
        temporary: &Temporary,
        path: &[u8],
        expected: Option<&Local>,
    ) -> Result<(), ShareError> {
        let (from, old) = self.parent(&temporary.name)?;
        let (above, name) = self.parent(path)?;
        let Some(expected) = expected else {
            return renameat_with(from, old, above, name, RenameFlags::NOREPLACE).map_err(taken);
        };
        let stands = |directory: &OwnedFd, name: &[u8]| {
            let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|stat| Local::of(&stat, self.device).is_same_content(expected))
        };
        if !stands(&above, name) {
            return Err(ShareError::Moved);
        }
        match renameat_with(&from, old, &above, name, RenameFlags::EXCHANGE) {
            Ok(()) if stands(&from, old) => Ok(unlinkat(&from, old, AtFlags::empty())?),
            Ok(()) => {
                renameat_with(&from, old, &above, name, RenameFlags::EXCHANGE)?;
                Err(ShareError::Moved)
            }
            // A file system that cannot swap two names.
            Err(Errno::INVAL | Errno::NOSYS) => Ok(renameat(&from, old, &above, name)?),
            Err(error) => Err(error.into()),
        }
    }

    pub fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), ShareError> {
        let (above, old) = self.parent(from)?;
        let (below, new) = self.parent(to)?;
        renameat_with(above, old, below, new, RenameFlags::NOREPLACE).map_err(taken)
    }

    pub fn make_dir(&self, path: &[u8]) -> Result<(), ShareError> {
        let (above, name) = self.parent(path)?;
        mkdirat(above, name, PRIVATE).map_err(taken)
    }

    /// Removes an empty directory; false if it is not empty.
    pub fn remove_dir(&self, path: &[u8]) -> Result<bool, ShareError> {
        let (above, name) = self.parent(path)?;
        match unlinkat(above, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is still `expected`: it is taken aside first, looked at, and put back if it is not.
    pub fn remove(&mut self, path: &[u8], expected: &Local) -> Result<(), ShareError> {
        let aside = self.temporary();
        self.rename(path, &aside.name)?;
        let found = self.look(&aside.name)?;
        if !found.is_some_and(|found| found.is_same_content(expected)) {
            self.rename(&aside.name, path)?;
            return Err(ShareError::Moved);
        }
        self.discard(&aside);
        Ok(())
    }

    /// Takes what stands at a path out of the shared part, and says where to.
    pub fn set_aside(&self, path: &[u8]) -> Result<Rel, ShareError> {
        let mut above = REFUSED.to_vec();
        let (parents, _) = split(path);
        for name in [b"".as_slice()].into_iter().chain(parents.split(|byte| *byte == b'/')) {
            if !name.is_empty() {
                above.push(b'/');
                above.extend_from_slice(name);
            }
            match self.make_dir(&above) {
                Err(ShareError::Moved) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        let wanted = [REFUSED, b"/", path].concat();
        for count in 1..NAMES_MAX {
            let to =
                if count == 1 { wanted.clone() } else { [&wanted, format!("~{count}").as_bytes()].concat() };
            match self.rename(path, &to) {
                Err(ShareError::Moved) => {}
                done => return done.map(|()| to),
            }
        }
        Err(ShareError::Moved)
    }

    /// Everything that was written so far survives a power loss.
    pub fn sync(&self) -> Result<(), ShareError> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    /// Whether a path may be shared: not the share's own, nor a name that a mount keeps for itself.
    pub fn is_reserved(path: &[u8]) -> bool {
        let first = path.split(|byte| *byte == b'/').next().unwrap_or(path);
        first == OWN || first == b".kilofs"
    }

    /// Whether it is there, and a directory.
    pub fn is_directory(&self, path: &[u8]) -> Result<bool, ShareError> {
        Ok(path.is_empty() || self.look(path)?.is_some_and(|local| local.kind == Kind::Directory))
    }
}

/// Somebody made what was not there a moment ago.
fn taken(errno: Errno) -> ShareError {
    if errno == Errno::EXIST { ShareError::Moved } else { errno.into() }
}

/// The directory of a path, and its last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A path one name longer.
pub(super) fn join(path: &[u8], name: &[u8]) -> Rel {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
