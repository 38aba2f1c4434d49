//! A filesystem in a few maps in memory, to make versions from and to read results into.

use crate::base::Inode;
use crate::tree::inode::{FileType, INLINE_BYTES_MAX, InodeRecord, RecordSize, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The root directory of block 0.
pub(super) const ROOT: Inode = Inode(1);

/// An inode with all that hangs on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) record: InodeRecord,
    pub(super) data: Vec<u8>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
}

/// A whole block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fs {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) entries: BTreeMap<(Inode, Vec<u8>), Inode>,
    next: u64,
    clock: i64,
}

/// What an operation comes to; `None` where it does not apply.
type Done = Option<()>;

impl Fs {
    /// The empty block.
    pub(super) fn new() -> Fs {
        let root =
            Node { record: InodeRecord::genesis(), data: vec![], xattrs: BTreeMap::new(), target: None };
        Fs { nodes: BTreeMap::from([(ROOT, root)]), entries: BTreeMap::new(), next: 5 << 32, clock: 1000 }
    }

    /// The same, on a device that draws other numbers and has another clock.
    pub(super) fn on_device(&self, device: u64) -> Fs {
        Fs { next: (device + 10) << 32, clock: self.clock + 1000 * device as i64, ..self.clone() }
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { seconds: self.clock, nanos: 0 }
    }

    pub(super) fn look(&self, path: &str) -> Option<Inode> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(ROOT, |inode, part| self.entries.get(&(inode, part.into())).copied())
    }

    fn split(&self, path: &str) -> Option<(Inode, Vec<u8>)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.look(directory)?;
        self.nodes[&parent].record.is_directory().then(|| (parent, name.as_bytes().to_vec()))
    }

    fn touch_directory(&mut self, inode: Inode, subdirectories: i32) {
        let now = self.now();
        let record = &mut self.nodes.get_mut(&inode).unwrap().record;
        (record.mtime, record.ctime) = (now, now);
        record.nlink = record.nlink.checked_add_signed(subdirectories).unwrap();
    }

    fn make(&mut self, path: &str, file_type: FileType, data: &[u8], target: Option<&[u8]>) -> Done {
        let location = self.split(path)?;
        if self.entries.contains_key(&location) {
            return None;
        }
        let (number, now) = (Inode(self.next), self.now());
        self.next += 1;
        let mut record = InodeRecord::new(file_type, 0o644, location.0, now);
        if file_type == FileType::File {
            record.data_id = number.0;
        }
        record.size = target.map_or(0, |target| target.len() as u64);
        let target = target.map(<[u8]>::to_vec);
        self.nodes.insert(number, Node { record, data: vec![], xattrs: BTreeMap::new(), target });
        self.set_data(number, data);
        self.touch_directory(location.0, i32::from(file_type == FileType::Directory));
        self.entries.insert(location, number);
        Some(())
    }

    pub(super) fn create(&mut self, path: &str, data: &[u8]) -> Done {
        self.make(path, FileType::File, data, None)
    }

    pub(super) fn mkdir(&mut self, path: &str) -> Done {
        self.make(path, FileType::Directory, b"", None)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> Done {
        self.make(path, FileType::Symlink, b"", Some(target.as_bytes()))
    }

    fn set_data(&mut self, inode: Inode, data: &[u8]) {
        let node = self.nodes.get_mut(&inode).unwrap();
        if !node.record.is_file() {
            return;
        }
        node.data = data.to_vec();
        node.record.size = data.len() as u64;
        let inline = (1..=INLINE_BYTES_MAX).contains(&data.len());
        node.record.inline = inline.then(|| data.into());
        node.record.record_size =
            if data.len() > INLINE_BYTES_MAX { RecordSize::SMALL } else { RecordSize::UNDECIDED };
    }

    pub(super) fn write(&mut self, path: &str, data: &[u8]) -> Done {
        let inode = self.look(path).filter(|inode| self.nodes[inode].record.is_file())?;
        self.set_data(inode, data);
        let now = self.now();
        let record = &mut self.nodes.get_mut(&inode)?.record;
        (record.mtime, record.ctime) = (now, now);
        Some(())
    }

    pub(super) fn chmod(&mut self, path: &str, mode: u16) -> Done {
        let (inode, now) = (self.look(path)?, self.now());
        let record = &mut self.nodes.get_mut(&inode)?.record;
        (record.mode, record.ctime) = (mode, now);
        Some(())
    }

    pub(super) fn set_mtime(&mut self, path: &str, mtime: Timestamp) -> Done {
        let (inode, now) = (self.look(path)?, self.now());
        let record = &mut self.nodes.get_mut(&inode).unwrap().record;
        (record.mtime, record.ctime) = (mtime, now);
        Some(())
    }

    pub(super) fn mtime(&self, path: &str) -> Option<Timestamp> {
        Some(self.nodes[&self.look(path)?].record.mtime)
    }

    pub(super) fn set_xattr(&mut self, path: &str, name: &str, value: Option<&str>) -> Done {
        let (inode, now) = (self.look(path)?, self.now());
        let node = self.nodes.get_mut(&inode)?;
        node.record.ctime = now;
        match value {
            Some(value) => node.xattrs.insert(name.into(), value.into()),
            None => node.xattrs.remove(name.as_bytes()),
        };
        Some(())
    }

    pub(super) fn link(&mut self, path: &str, new: &str) -> Done {
        let (inode, location, now) = (self.look(path)?, self.split(new)?, self.now());
        if self.nodes[&inode].record.is_directory() || self.entries.contains_key(&location) {
            return None;
        }
        let record = &mut self.nodes.get_mut(&inode)?.record;
        record.nlink += 1;
        record.ctime = now;
        self.touch_directory(location.0, 0);
        self.entries.insert(location, inode);
        Some(())
    }

    pub(super) fn remove(&mut self, path: &str) -> Done {
        let location = self.split(path)?;
        let inode = *self.entries.get(&location)?;
        let now = self.now();
        let directory = self.nodes[&inode].record.is_directory();
        if directory && self.entries.keys().any(|(parent, _)| *parent == inode) {
            return None;
        }
        self.entries.remove(&location);
        self.touch_directory(location.0, -i32::from(directory));
        let record = &mut self.nodes.get_mut(&inode)?.record;
        record.nlink -= 1;
        record.ctime = now;
        if directory || record.nlink == 0 {
            self.nodes.remove(&inode);
        }
        Some(())
    }

    pub(super) fn remove_all(&mut self, path: &str) -> Done {
        let inode = self.look(path).filter(|inode| *inode != ROOT)?;
        let names: Vec<Vec<u8>> = self
            .entries
            .keys()
            .filter(|(parent, _)| *parent == inode)
            .map(|(_, name)| name.clone())
            .collect();
        for name in names {
            self.remove_all(&format!("{path}/{}", String::from_utf8(name).unwrap()))?;
        }
        self.remove(path)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Done {
        let (old, new) = (self.split(from)?, self.split(to)?);
        let inode = *self.entries.get(&old)?;
        let directory = self.nodes[&inode].record.is_directory();
        let mut above = Some(new.0);
        while let Some(other) = above.filter(|other| *other != ROOT) {
            if other == inode {
                return None;
            }
            above = Some(self.nodes[&other].record.parent);
        }
        if let Some(there) = self.entries.get(&new) {
            if *there == inode || directory || self.nodes[there].record.is_directory() {
                return None;
            }
            self.remove(to)?;
        }
        self.entries.remove(&old);
        self.touch_directory(old.0, -i32::from(directory));
        self.touch_directory(new.0, i32::from(directory));
        let now = self.now();
        let record = &mut self.nodes.get_mut(&inode)?.record;
        (record.parent, record.ctime) = (new.0, now);
        self.entries.insert(new, inode);
        Some(())
    }

    /// How editors save: another file, renamed over the old one.
    pub(super) fn replace(&mut self, path: &str, data: &[u8]) -> Done {
        self.look(path).filter(|inode| self.nodes[inode].record.is_file())?;
        let temporary = format!("{path}.tmp");
        self.create(&temporary, data)?;
        self.rename(&temporary, path)
    }

    /// Every path, breadth first.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut found = vec![(ROOT, String::new())];
        let mut at = 0;
        while at < found.len() {
            let (inode, path) = found[at].clone();
            for ((_, name), child) in self.entries.iter().filter(|((parent, _), _)| *parent == inode) {
                let separator = if path.is_empty() { "" } else { "/" };
                found.push((*child, format!("{path}{separator}{}", String::from_utf8_lossy(name))));
            }
            at += 1;
        }
        found.into_iter().skip(1).map(|(_, path)| path).collect()
    }

    pub(super) fn data(&self, path: &str) -> Option<&[u8]> {
        self.look(path).map(|inode| &self.nodes[&inode].data[..])
    }

    /// All that a filesystem must hold to.
    pub(super) fn assert_sound(&self) {
        let mut names: BTreeMap<Inode, Vec<Inode>> = BTreeMap::new();
        for ((parent, name), inode) in &self.entries {
            assert!(self.nodes[parent].record.is_directory(), "{name:?} lies in a file");
            assert!(self.nodes.contains_key(inode), "{name:?} names nothing");
            names.entry(*inode).or_default().push(*parent);
        }
        for (inode, node) in &self.nodes {
            let names = names.get(inode).cloned().unwrap_or_default();
            if node.record.is_directory() {
                let subdirectories = self
                    .entries
                    .iter()
                    .filter(|((p, _), i)| p == inode && self.nodes[i].record.is_directory())
                    .count();
                assert_eq!(node.record.nlink as usize, 2 + subdirectories, "links of directory {inode}");
                let place = if *inode == ROOT { vec![] } else { vec![node.record.parent] };
                assert_eq!(names, place, "place of directory {inode}");
            } else {
                assert_eq!(node.record.nlink as usize, names.len(), "links of {inode}");
            }
        }
        let reached: BTreeSet<Inode> = self.paths().iter().map(|path| self.look(path).unwrap()).collect();
        assert_eq!(reached.len() + 1, self.nodes.len(), "something cannot be reached");
    }
}
