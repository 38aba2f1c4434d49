//! Deciding what becomes of each thing that is left.

use super::remnants::{Location, Remnants};
use super::{LOST_AND_FOUND, Measure, Repair};
use crate::base::{BlockNumber, Inode};
use crate::tree::inode::{FileType, InodeRecord, Timestamp};
use crate::tree::key::{self, Key, NAME_BYTES_MAX};
use crate::tree::value::DirEntry;
use crate::tree::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Directories deeper than that have no path.
const DEPTH_MAX: usize = 4096;
/// Numbers below are not drawn.
const FIRST_DRAWN_INODE: u64 = 1 << 32;
/// What a directory gets that has lost its mode.
const REMADE_MODE: u16 = 0o700;

/// Says what is to be done.
pub(super) fn plan(block: BlockNumber, version: &Version<'_>, now: Timestamp) -> Repair {
    let remnants = Remnants::gather(version);
    let mut planner = Planner {
        root: block.root_inode(),
        now,
        records: remnants.records.clone(),
        names: remnants.names.clone(),
        moved: BTreeMap::new(),
        dropped: BTreeSet::new(),
        measures: Vec::new(),
        shelter: None,
        remnants,
    };
    planner.remake_directories();
    planner.drop_what_is_nothing();
    planner.doubt_what_may_lack();
    planner.set_holed_files_aside();
    planner.remove_dead_names();
    planner.house_orphans();
    planner.count_links();
    let Planner { root, records, names, moved, dropped, measures, remnants, .. } = planner;
    Repair { measures, records, names, moved, dropped, remnants, root }
}

/// The path of an inode from the root, with a leading `/`.
pub(super) fn path_in(names: &BTreeMap<Location, DirEntry>, root: Inode, inode: Inode) -> Option<Vec<u8>> {
    // Paths are told of what is damaged only; walking the names is dear, and rare.
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut at = inode;
    while at != root {
        let ((directory, name), _) = names.iter().find(|(_, entry)| entry.inode == at)?;
        parts.push(name);
        at = *directory;
        if parts.len() > DEPTH_MAX {
            return None;
        }
    }
    let path: Vec<u8> = parts.iter().rev().flat_map(|part| [b"/", *part].concat()).collect();
    Some(if path.is_empty() { b"/".to_vec() } else { path })
}

struct Planner {
    root: Inode,
    now: Timestamp,
    records: BTreeMap<Inode, InodeRecord>,
    names: BTreeMap<Location, DirEntry>,
    moved: BTreeMap<Inode, Inode>,
    dropped: BTreeSet<Inode>,
    measures: Vec<Measure>,
    shelter: Option<Inode>,
    remnants: Remnants,
}

impl Planner {
    /// The path that something has or had.
    fn path(&self, inode: Inode) -> Vec<u8> {
        let path = path_in(&self.names, self.root, inode);
        path.or_else(|| path_in(&self.remnants.names, self.root, inode))
            .unwrap_or_else(|| format!("inode {inode}").into_bytes())
    }

    fn note(&mut self, path: Vec<u8>, what: impl Into<String>) {
        self.measures.push(Measure { path, what: what.into() });
    }

    /// A directory whose record is lost, and of whose names some are left, stays one.
    fn remake_directories(&mut self) {
        let headless: Vec<Inode> = self.remnants.headless.keys().copied().collect();
        for inode in headless {
            if inode == self.root {
                self.records.insert(inode, InodeRecord::genesis());
            } else if self.remnants.headless[&inode].has_names {
                let record = InodeRecord::new(FileType::Directory, REMADE_MODE, self.root, self.now);
                self.records.insert(inode, record);
            } else {
                continue;
            }
            let path = self.path(inode);
            self.note(path, "its owner, mode and times are lost: it gets new ones");
        }
        if self.remnants.gaps.iter().any(|gap| gap.after.is_empty() && gap.last.is_none()) {
            self.note(b"/".to_vec(), "nothing of it opens: it is empty then");
        }
        let something = !self.records.is_empty() || !self.names.is_empty();
        if something && !self.records.contains_key(&self.root) {
            self.records.insert(self.root, InodeRecord::genesis());
        }
    }

    /// Contents without a record, and links without a target.
    fn drop_what_is_nothing(&mut self) {
        let headless = self.remnants.headless.keys().filter(|inode| !self.records.contains_key(inode));
        let aimless = self.records.iter().filter(|(inode, record)| {
            record.file_type == FileType::Symlink && !self.remnants.targets.contains(inode)
        });
        let gone: Vec<Inode> = headless.copied().chain(aimless.map(|(inode, _)| *inode)).collect();
        for inode in gone {
            self.records.remove(&inode);
            self.dropped.insert(inode);
            if !self.remnants.names.values().any(|entry| entry.inode == inode) {
                self.note(format!("inode {inode}").into_bytes(), "what is left of it says nothing: removed");
            }
        }
    }

    /// Directories and attributes of which a part may be lost.
    fn doubt_what_may_lack(&mut self) {
        let mut doubts = Vec::new();
        for gap in &self.remnants.gaps {
            for (inode, record) in self.records.range(gap.inodes()) {
                let (entries, xattrs) = (key::entries_start(*inode), key::xattrs_start(*inode));
                if record.is_directory() && gap.may_meet(&entries, &Key::Chunk(*inode, 0).encode()) {
                    doubts.push((*inode, "some of its names may be lost; what they named is in lost+found"));
                }
                if gap.may_meet(&xattrs, &Key::Link(*inode).encode()) {
                    doubts.push((*inode, "some of its extended attributes may be lost"));
                }
            }
        }
        for (inode, what) in doubts {
            let path = self.path(inode);
            self.note(path, what);
        }
    }

    /// Files that have lost data.
    fn set_holed_files_aside(&mut self) {
        let files = self.records.iter().filter(|(_, record)| record.is_file());
        let holed: Vec<(Inode, u64)> = files
            .map(|(inode, record)| (*inode, self.remnants.lost_chunks(*inode, record)))
            .filter(|(inode, lost)| *lost > 0 || self.remnants.rescued.contains(inode))
            .collect();
        for (inode, lost) in holed {
            let from = self.path(inode);
            let Some(record) = self.records.remove(&inode) else { continue };
            self.names.retain(|_, entry| entry.inode != inode);
            let number = self.unused(inode);
            let chunk_bytes = 1u64 << record.record_size.log2();
            self.moved.insert(inode, number);
            let last = from.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let name = [last, b".damaged"].concat();
            self.records.insert(number, InodeRecord { nlink: 1, ..record });
            let to = self.house(number, name, FileType::File);
            let to = String::from_utf8_lossy(&to).into_owned();
            let what = format!(
                "about {} KiB of it are lost: what is left is moved to {to}, with holes there",
                (lost * chunk_bytes) >> 10
            );
            self.note(from, what);
        }
    }

    /// Names of what is not there.
    fn remove_dead_names(&mut self) {
        let dead = |(directory, _): &Location, entry: &DirEntry| {
            !self.records.contains_key(&entry.inode)
                || !self.records.get(directory).is_some_and(InodeRecord::is_directory)
        };
        let gone: Vec<Location> = self
            .names
            .iter()
            .filter(|(location, entry)| dead(location, entry))
            .map(|(location, _)| location.clone())
            .collect();
        for location in gone {
            let mut path = self.path(location.0);
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(&location.1);
            self.names.remove(&location);
            self.note(path, "what it names is lost: the name is removed");
        }
        // One name for each directory, the type that the record has for all.
        let mut seen = BTreeSet::from([self.root]);
        let records = &self.records;
        self.names.retain(|_, entry| {
            let Some(record) = records.get(&entry.inode) else { return false };
            entry.file_type = record.file_type;
            !record.is_directory() || seen.insert(entry.inode)
        });
    }

    /// What has no name left, or lies in a circle.
    fn house_orphans(&mut self) {
        loop {
            let named: BTreeSet<Inode> = self.names.values().map(|entry| entry.inode).collect();
            let orphans: Vec<Inode> = self
                .records
                .keys()
                .copied()
                .filter(|inode| *inode != self.root && !named.contains(inode))
                .collect();
            if orphans.is_empty() {
                let Some(circling) = self.circling() else { return };
                self.names.retain(|_, entry| entry.inode != circling);
                continue;
            }
            for inode in orphans {
                let file_type = self.records[&inode].file_type;
                let to = self.house(inode, format!("inode-{inode}").into_bytes(), file_type);
                let to = String::from_utf8_lossy(&to).into_owned();
                self.note(format!("inode {inode}").into_bytes(), format!("its name is lost: it is {to} now"));
            }
        }
    }

    /// A directory that the root does not reach, although it has a name.
    fn circling(&self) -> Option<Inode> {
        let children = |inode: Inode| {
            let own = (inode, Box::default())..(Inode(inode.0.saturating_add(1)), Box::default());
            self.names.range(own).filter(|(_, entry)| entry.file_type == FileType::Directory)
        };
        let (mut reached, mut open) = (BTreeSet::from([self.root]), vec![self.root]);
        while let Some(directory) = open.pop() {
            open.extend(
                children(directory).map(|(_, entry)| entry.inode).filter(|inode| reached.insert(*inode)),
            );
        }
        let directories = self.records.iter().filter(|(_, record)| record.is_directory());
        directories.map(|(inode, _)| *inode).find(|inode| !reached.contains(inode))
    }

    /// Link counts and parents as the names are.
    fn count_links(&mut self) {
        let mut links: BTreeMap<Inode, u32> = BTreeMap::new();
        let mut parents: BTreeMap<Inode, Inode> = BTreeMap::new();
        for ((directory, _), entry) in &self.names {
            if entry.file_type == FileType::Directory {
                *links.entry(*directory).or_default() += 1;
                parents.insert(entry.inode, *directory);
            } else {
                *links.entry(entry.inode).or_default() += 1;
            }
        }
        for (inode, record) in &mut self.records {
            let counted = links.get(inode).copied().unwrap_or(0);
            record.nlink = if record.is_directory() { counted.saturating_add(2) } else { counted };
            if let Some(parent) = parents.get(inode) {
                record.parent = *parent;
            }
        }
    }

    /// Puts something into `lost+found`; says under which path.
    fn house(&mut self, inode: Inode, mut name: Vec<u8>, file_type: FileType) -> Vec<u8> {
        let shelter = self.shelter();
        name.truncate(NAME_BYTES_MAX - 8);
        let stem = name.clone();
        for attempt in 2.. {
            if !self.names.contains_key(&(shelter, name.clone().into())) {
                break;
            }
            name = [&stem[..], format!("-{attempt}").as_bytes()].concat();
        }
        if let Some(record) = self.records.get_mut(&inode) {
            record.parent = shelter;
        }
        self.names.insert((shelter, name.clone().into()), DirEntry { inode, file_type });
        [self.path(shelter), name].join(&b'/')
    }

    /// The directory `lost+found` of the block's root, made if there is none.
    fn shelter(&mut self) -> Inode {
        if let Some(shelter) = self.shelter {
            return shelter;
        }
        let mut name = LOST_AND_FOUND.to_vec();
        let shelter = loop {
            match self.names.get(&(self.root, name.clone().into())) {
                Some(entry) if self.records.get(&entry.inode).is_some_and(InodeRecord::is_directory) => {
                    break entry.inode;
                }
                // A file of that name stays what it is.
                Some(_) => name.push(b'+'),
                None => {
                    let number = self.unused(self.root);
                    let record = InodeRecord::new(FileType::Directory, REMADE_MODE, self.root, self.now);
                    self.records.insert(number, record);
                    let entry = DirEntry { inode: number, file_type: FileType::Directory };
                    self.names.insert((self.root, name.into()), entry);
                    break number;
                }
            }
        };
        self.shelter = Some(shelter);
        shelter
    }

    /// A number that nothing has or may have had: the same wherever the same is repaired.
    fn unused(&self, old: Inode) -> Inode {
        let mut attempt = 0u64;
        loop {
            let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 repaired inode");
            hasher.update(&old.0.to_le_bytes()).update(&attempt.to_le_bytes());
            let (mut bytes, digest) = ([0; 8], hasher.finalize());
            bytes.copy_from_slice(&digest.as_bytes()[..8]);
            // 63 bits: some programs keep inode numbers in signed integers.
            let inode = Inode((u64::from_le_bytes(bytes) >> 1).max(FIRST_DRAWN_INODE));
            if !self.records.contains_key(&inode) && !self.remnants.headless.contains_key(&inode) {
                return inode;
            }
            attempt += 1;
        }
    }
}
