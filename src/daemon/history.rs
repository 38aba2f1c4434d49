//! What was: the kept versions as trees, the log, differences, restoring, and the check of everything.

use super::answers::{CheckFinding, Checked, Differing, KeptVersion, LogEntry};
use super::core::Core;
use super::error::EngineError;
use super::versions::Version;
use crate::base::{BlockNumber, Inode};
use crate::tree::{Attr, DirItem, FileType, ReadTree, TreeError};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const COPY_BYTES: usize = 1 << 20;
/// Names that lead deeper than this are not followed.
const DEPTH_MAX: usize = 512;
/// Of so many kept versions the log tells what they changed.
const TOLD_MAX: usize = 8;

/// The versions that a person may look at, newest first: those of the record that are here, then older kept ones.
pub fn listed(core: &Core) -> Vec<Version> {
    let inner = core.inner();
    let named = core.named_versions(&inner);
    let mut versions: Vec<Version> =
        named.iter().filter_map(|version| inner.versions.get(&version.infohash)).cloned().collect();
    let known: BTreeSet<_> = versions.iter().map(|version| version.reference.infohash).collect();
    versions.extend(
        inner.versions.iter().filter(|version| !known.contains(&version.reference.infohash)).cloned(),
    );
    versions
}

/// The tree of a kept version, with the blocks as its own charter has them.
pub fn version_tree(core: &Core, version: &Version) -> Result<Arc<dyn ReadTree>, EngineError> {
    let commit = version.commit.as_ref().ok_or(EngineError::Capability("mirror"))?;
    let entries = core.open_catalogue(&version.image, commit)?.1;
    let roots = entries.iter().map(|(number, listed)| (*number, listed.root())).collect();
    let (policy, present) = policy_of(core);
    let charter = core.open_charter(&version.image, commit, &commit.charter.id).unwrap_or(present);
    let views = core.views(&policy, &charter, &roots);
    Ok(core.tree()?.snapshot(&version.image, views)?)
}

fn policy_of(core: &Core) -> (crate::record::Policy, crate::record::Charter) {
    let inner = core.inner();
    (inner.state.policy.clone(), inner.state.charter.clone())
}

/// The answer to `Versions`.
pub fn versions(core: &Core) -> Value {
    let listed = listed(core);
    let named = core.named_versions(&core.inner());
    let mut answer: Vec<KeptVersion> = Vec::new();
    let of_record = |infohash| named.iter().any(|version| version.infohash == infohash);
    for (number, version) in (1..).zip(&listed) {
        let infohash = version.reference.infohash;
        answer.push(KeptVersion {
            version: number,
            infohash: infohash.to_string(),
            commit: version.id().to_string(),
            time: version.commit.as_ref().map_or(i64::from(version.time), |commit| commit.time),
            device: version.commit.as_ref().map(|commit| commit.device.to_string()),
            complete: true,
            in_record: of_record(infohash),
            image_bytes: version.image.bytes(),
        });
    }
    let absent =
        named.iter().filter(|version| !listed.iter().any(|kept| kept.reference.infohash == version.infohash));
    answer.extend(absent.map(|version| KeptVersion {
        infohash: version.infohash.to_string(),
        commit: version.commit.id.to_string(),
        in_record: true,
        ..KeptVersion::default()
    }));
    json!(answer)
}

/// The answer to `Log`: what the cache remembers of commits, and the kept ones; `paths` says what the newest of these
/// changed.
pub fn log(core: &Core, limit: usize, paths: bool) -> Value {
    let mut entries: BTreeMap<String, LogEntry> =
        core.cache.log().into_iter().map(|e| (e.commit.clone(), e)).collect();
    let listed = listed(core);
    core.touched.lock().retain(|commit, _| listed.iter().any(|version| version.id() == *commit));
    for (number, version) in (1..).zip(&listed) {
        if let Some(commit) = &version.commit {
            let mut entry = LogEntry { version: Some(number), ..log_entry(version.id(), commit) };
            // Not the next one of the list: where two devices wrote, versions do not follow each other as they are listed.
            let before = core.inner().versions.before(version).cloned();
            if paths && number as usize <= TOLD_MAX && (before.is_some() || commit.parents.is_empty()) {
                let touched = core.touched(before.as_ref(), version).unwrap_or_default();
                (entry.paths, entry.more) = (touched.paths, touched.more);
            }
            entries.insert(entry.commit.clone(), entry);
        }
    }
    let mut entries: Vec<LogEntry> = entries.into_values().collect();
    entries.sort_by(|one, other| (other.lamport, &other.commit).cmp(&(one.lamport, &one.commit)));
    entries.truncate(limit);
    json!(entries)
}

/// A commit as the log shows it.
pub fn log_entry(id: crate::base::Id, commit: &crate::record::Commit) -> LogEntry {
    LogEntry {
        commit: id.to_string(),
        time: commit.time,
        device: commit.device.to_string(),
        parents: commit.parents.iter().map(ToString::to_string).collect(),
        lamport: commit.lamport,
        ..LogEntry::default()
    }
}

pub(super) fn numbered(core: &Core, number: u32) -> Result<Arc<dyn ReadTree>, EngineError> {
    if number == 0 {
        return Ok(core.tree()?.clone());
    }
    let versions = listed(core);
    let version = usize::try_from(number - 1).ok().and_then(|index| versions.get(index));
    let version = version.ok_or_else(|| {
        EngineError::Usage(format!(
            "there is no version {number}; `kilofs versions {}` lists what is here",
            core.name
        ))
    })?;
    version_tree(core, version)
}

/// The answer to `Difference`.
pub fn difference(core: &Core, older: u32, newer: u32) -> Result<Value, EngineError> {
    let (older, newer) = (numbered(core, older)?, numbered(core, newer)?);
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    let root = BlockNumber::ROOT.root_inode();
    collect(&*older, root, Vec::new(), 0, &mut before)?;
    collect(&*newer, root, Vec::new(), 0, &mut after)?;
    let mut answer = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let change = match (before.get(path), after.get(path)) {
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (Some(one), Some(other)) if !same_content(&*older, one, &*newer, other)? => "changed",
            (Some(one), Some(other)) if !same_attributes(one, other) => "attributes",
            _ => continue,
        };
        answer.push(Differing { path_hex: HEXLOWER.encode(path), change: change.into() });
    }
    Ok(json!(answer))
}

fn collect(
    tree: &dyn ReadTree,
    directory: Inode,
    path: Vec<u8>,
    depth: usize,
    into: &mut BTreeMap<Vec<u8>, Attr>,
) -> Result<(), EngineError> {
    if depth > DEPTH_MAX {
        return Ok(());
    }
    for item in children(tree, directory)? {
        let mut child = path.clone();
        if !child.is_empty() {
            child.push(b'/');
        }
        child.extend_from_slice(&item.name);
        into.insert(child.clone(), item.attr);
        if item.file_type == FileType::Directory {
            collect(tree, item.inode, child, depth + 1, into)?;
        }
    }
    Ok(())
}

pub(super) fn children(tree: &dyn ReadTree, directory: Inode) -> Result<Vec<DirItem>, TreeError> {
    let (mut items, mut cookie) = (Vec::new(), 0);
    loop {
        let batch = tree.read_dir(directory, cookie)?;
        let Some(last) = batch.last() else { return Ok(items) };
        cookie = last.cookie;
        items.extend(batch.into_iter().filter(|item| item.name != b"." && item.name != b".."));
    }
}

fn same_content(one: &dyn ReadTree, a: &Attr, other: &dyn ReadTree, b: &Attr) -> Result<bool, TreeError> {
    if a.file_type != b.file_type || a.file_type != FileType::Directory && a.size != b.size {
        return Ok(false);
    }
    match a.file_type {
        FileType::Symlink => Ok(one.read_link(a.inode)? == other.read_link(b.inode)?),
        FileType::File if (a.inode, a.mtime, a.ctime) != (b.inode, b.mtime, b.ctime) => {
            let mut offset = 0;
            while offset < a.size {
                if one.read(a.inode, offset, COPY_BYTES)? != other.read(b.inode, offset, COPY_BYTES)? {
                    return Ok(false);
                }
                offset += COPY_BYTES as u64;
            }
            Ok(true)
        }
        _ => Ok(true),
    }
}

fn same_attributes(one: &Attr, other: &Attr) -> bool {
    let of = |attr: &Attr| (attr.mode & 0o7555, attr.uid, attr.gid, attr.mtime);
    of(one) == of(other) || one.file_type == FileType::Directory && one.mode & 0o7555 == other.mode & 0o7555
}

/// The answer to `Check`: the store's own structures, then every object of every block of the working head and of each
/// kept version.
pub fn check(core: &Core) -> Checked {
    let mut checked = Checked::default();
    for finding in core.store.check() {
        let what = format!("{}; {}", finding.what, finding.next);
        checked.findings.push(CheckFinding { block: None, subject: finding.place, what });
    }
    super::inspect::inspect(core, &mut checked);
    checked
}
