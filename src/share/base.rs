//! The base: what folder and tree were at each path when they were last in step. It can be lost: then what is equal on
//! both sides is in step, and of what differs both are kept.

use super::stamp::{Local, Stamp};
use crate::base::{Inode, Malformed, Reader, Writer};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A path below the folder: names joined by `/`, no leading one; empty is the folder itself.
pub(super) type Rel = Vec<u8>;

const MAGIC: &[u8; 16] = b"kilofs share 1\n\0";
/// The longest path of a folder, in bytes.
const PATH_BYTES_MAX: usize = 1 << 16;
/// Of a folder's marker.
pub(super) const MARKER_BYTES: usize = 16;

/// What was in step at one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub local: Local,
    pub tree: Stamp,
    /// BLAKE3 of a file's bytes or of what a symlink says.
    pub digest: [u8; 32],
    /// BLAKE3 of the extended attributes.
    pub xattrs: [u8; 32],
    /// The file was read so shortly after it was written that a later write may have left the same stamp.
    pub racy: bool,
    /// A directory that was removed elsewhere and stays here for what is ignored in it.
    pub left: bool,
}

/// All that was in step.
#[derive(Default)]
pub(super) struct Base {
    /// Which folder it is about.
    pub marker: [u8; MARKER_BYTES],
    entries: BTreeMap<Rel, Entry>,
    by_number: HashMap<u64, BTreeSet<Rel>>,
    by_inode: HashMap<Inode, BTreeSet<Rel>>,
    /// Changed since it was written.
    pub dirty: bool,
}

impl Base {
    /// Nothing is known of a folder yet.
    pub fn of(marker: [u8; MARKER_BYTES]) -> Base {
        Base { marker, ..Base::default() }
    }

    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Rel, &Entry)> {
        self.entries.iter()
    }

    pub fn put(&mut self, path: &[u8], entry: Entry) {
        if self.entries.get(path) == Some(&entry) {
            return;
        }
        self.take(path);
        self.by_number.entry(entry.local.number).or_default().insert(path.to_vec());
        self.by_inode.entry(entry.tree.inode).or_default().insert(path.to_vec());
        self.entries.insert(path.to_vec(), entry);
        self.dirty = true;
    }

    fn take(&mut self, path: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(path)?;
        self.dirty = true;
        if let Some(paths) = self.by_number.get_mut(&entry.local.number) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_number.remove(&entry.local.number);
            }
        }
        if let Some(paths) = self.by_inode.get_mut(&entry.tree.inode) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_inode.remove(&entry.tree.inode);
            }
        }
        Some(entry)
    }

    /// Forgets a path and all below it.
    pub fn remove(&mut self, path: &[u8]) {
        for below in self.at_and_below(path) {
            self.take(&below);
        }
    }

    /// What was known of a path and below it is known of another from now on.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) {
        self.remove(to);
        for path in self.at_and_below(from) {
            if let Some(entry) = self.take(&path) {
                self.put(&[to, &path[from.len()..]].concat(), entry);
            }
        }
    }

    fn at_and_below(&self, path: &[u8]) -> Vec<Rel> {
        let prefix = [path, b"/"].concat();
        let below = self.entries.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let own = self.entries.get_key_value(path);
        own.into_iter().chain(below).map(|(key, _)| key.clone()).collect()
    }

    /// The names directly below a directory.
    pub fn children(&self, path: &[u8]) -> BTreeSet<Vec<u8>> {
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let mut names = BTreeSet::new();
        let mut from = prefix.clone();
        while let Some((key, _)) = self.entries.range(from..).next()
            && key.starts_with(&prefix)
        {
            let rest = &key[prefix.len()..];
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest).to_vec();
            // `0` follows `/` in the order of bytes: all between the two lies below the name.
            from = if rest == name.as_slice() {
                [key, &b"\0"[..]].concat()
            } else {
                [&prefix[..], &name, b"0"].concat()
            };
            names.insert(name);
        }
        names
    }

    /// The paths whose file has this number in the folder.
    pub fn of_number(&self, number: u64) -> Vec<Rel> {
        self.by_number.get(&number).into_iter().flatten().cloned().collect()
    }

    /// The paths whose file has this inode in the tree.
    pub fn of_inode(&self, inode: Inode) -> Vec<Rel> {
        self.by_inode.get(&inode).into_iter().flatten().cloned().collect()
    }

    /// Reads what [`Base::save`] wrote; none if there is nothing, or nothing whole.
    pub fn load(file: &Path) -> io::Result<Option<Base>> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Base::decode(&bytes).ok())
    }

    fn decode(bytes: &[u8]) -> Result<Base, Malformed> {
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or(Malformed)?;
        if blake3::hash(body).as_bytes() != sum {
            return Err(Malformed);
        }
        let mut reader = Reader::new(body);
        if reader.raw(MAGIC.len())? != MAGIC {
            return Err(Malformed);
        }
        let mut base = Base { marker: reader.array()?, ..Base::default() };
        while reader.remaining() > 0 {
            let path = reader.bytes(PATH_BYTES_MAX)?.to_vec();
            let (local, tree) = (Local::decode(&mut reader)?, Stamp::decode(&mut reader)?);
            let (digest, xattrs, flags) = (reader.array()?, reader.array()?, reader.u8()?);
            let (racy, left) = (flags & 1 != 0, flags & 2 != 0);
            base.put(&path, Entry { local, tree, digest, xattrs, racy, left });
        }
        base.dirty = false;
        Ok(base)
    }

    /// Writes it beside the old one and puts it in its place. Durable when it returns.
    pub fn save(&mut self, file: &Path) -> io::Result<()> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).raw(&self.marker);
        for (path, entry) in &self.entries {
            writer.bytes(path);
            entry.local.encode(&mut writer);
            entry.tree.encode(&mut writer);
            writer.raw(&entry.digest).raw(&entry.xattrs).u8(u8::from(entry.racy) | u8::from(entry.left) << 1);
        }
        let sum = blake3::hash(&writer.0);
        writer.raw(sum.as_bytes());
        let beside = file.with_extension("new");
        let mut new = File::create(&beside)?;
        new.write_all(&writer.0)?;
        new.sync_all()?;
        std::fs::rename(&beside, file)?;
        if let Some(parent) = file.parent() {
            File::open(parent)?.sync_all()?;
        }
        self.dirty = false;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::stamp::Kind;
    use super::*;
    use crate::tree::Timestamp;

    fn entry(number: u64) -> Entry {
        let time = Timestamp { seconds: -3, nanos: 9 };
        let local = Local {
            kind: Kind::File,
            number,
            bytes: 7,
            mode: 0o644,
            mtime: time,
            ctime: Timestamp::default(),
        };
        let tree = Stamp {
            kind: Kind::File,
            inode: Inode(number + 100),
            bytes: 7,
            mode: 0o644,
            mtime: time,
            ctime: time,
        };
        Entry { local, tree, digest: [1; 32], xattrs: [2; 32], racy: true, left: false }
    }

    pub fn entry_of(local: Local) -> Entry {
        Entry { local, ..entry(1) }
    }

    fn sample() -> Base {
        let mut base = Base { marker: [5; MARKER_BYTES], ..Base::default() };
        for (number, path) in (1..).zip(["a", "a/b", "a/b/c", "a-b", "a0", "z"]) {
            base.put(path.as_bytes(), entry(number));
        }
        base
    }

    fn names(base: &Base, path: &str) -> Vec<String> {
        base.children(path.as_bytes()).into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn children_are_those_directly_below() {
        let base = sample();
        assert_eq!(names(&base, ""), ["a", "a-b", "a0", "z"]);
        assert_eq!(names(&base, "a"), ["b"]);
        assert_eq!(names(&base, "a/b"), ["c"]);
        assert_eq!(names(&base, "z"), [""; 0]);
    }

    #[test]
    fn a_rename_takes_all_that_lies_below_and_nothing_beside() {
        let mut base = sample();
        base.rename(b"a", b"q");
        assert_eq!(names(&base, ""), ["a-b", "a0", "q", "z"]);
        assert_eq!(base.of_number(3), [b"q/b/c".to_vec()]);
        assert_eq!(base.of_inode(Inode(103)), [b"q/b/c".to_vec()]);
        base.remove(b"q");
        assert_eq!(base.of_number(3), Vec::<Rel>::new());
        assert_eq!(base.len(), 3);
    }

    #[test]
    fn it_reads_back_and_half_of_it_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("share");
        assert!(Base::load(&file).unwrap().is_none());
        let mut base = sample();
        base.save(&file).unwrap();
        let read = Base::load(&file).unwrap().unwrap();
        assert_eq!(read.marker, base.marker);
        assert_eq!(read.entries, base.entries);
        let bytes = std::fs::read(&file).unwrap();
        for length in [0, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(Base::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
