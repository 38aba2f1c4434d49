//! Whose files they are: owners and modes as the tree stores them, and as this mount shows them.
//!
//! The tree keeps numbers. Where the machines that share a folder number their users differently, a mount translates:
//! first by [`IdMap`], both ways; then `uid=`, `gid=` and `umask=` change what is shown, and nothing that is stored.

use super::MountError;
use crate::tree::{Attr, Owner};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const READ: u16 = 0o444;
const WRITE: u16 = 0o222;
const EXECUTE: u16 = 0o111;
const PERMISSIONS: u16 = READ | WRITE | EXECUTE;
/// Largest `uidfile=` or `gidfile=`, in bytes.
const TABLE_BYTES_MAX: usize = 1 << 20;

/// What `-o` says of owners.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnerOptions {
    /// Which stored ids are which ids here.
    pub idmap: IdMap,
    /// Everything is shown as this user's.
    pub uid: Option<u32>,
    /// Everything is shown as this group's.
    pub gid: Option<u32>,
    /// What anybody may do by a file's mode, everybody may, less these bits.
    pub umask: Option<u16>,
}

/// Which stored ids are which ids here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum IdMap {
    /// All are what they are.
    #[default]
    Same,
    /// The owner of the folder itself is who mounts it.
    User,
    /// As two files say; what they do not name is what it is.
    Files {
        /// Users.
        users: IdTable,
        /// Groups.
        groups: IdTable,
    },
}

/// Pairs of an id here and a stored one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdTable {
    to_here: BTreeMap<u32, u32>,
    to_stored: BTreeMap<u32, u32>,
}

impl IdTable {
    /// Reads a table as sshfs has them: lines `NAME:ID`, the name (or number) of a user here and the id that is stored.
    /// Names are looked up in `names`, a file such as `/etc/passwd`.
    pub(super) fn read(file: &Path, names: &Path) -> Result<IdTable, MountError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| MountError::system("read", path, error))
        };
        let text = read(file)?;
        let bad = |line: &str| MountError::IdTable { file: file.to_owned(), line: line.to_owned() };
        if text.len() > TABLE_BYTES_MAX {
            return Err(bad("…"));
        }
        let names = read(names)?;
        let mut table = IdTable::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, id) = line.split_once(':').ok_or_else(|| bad(line))?;
            let here = name.parse().ok().or_else(|| named(&names, name)).ok_or_else(|| bad(line))?;
            let stored = id.parse().map_err(|_| bad(line))?;
            let twice = table.to_here.insert(stored, here).is_some();
            if table.to_stored.insert(here, stored).is_some() || twice {
                return Err(bad(line));
            }
        }
        Ok(table)
    }

    fn here(&self, stored: u32) -> u32 {
        self.to_here.get(&stored).copied().unwrap_or(stored)
    }

    fn stored(&self, here: u32) -> u32 {
        self.to_stored.get(&here).copied().unwrap_or(here)
    }
}

/// The id of a name in the text of `/etc/passwd` or `/etc/group`: both have it third.
fn named(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut found = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    found.nth(1)?.parse().ok()
}

/// The translation of one mount.
pub(super) struct Owners {
    options: OwnerOptions,
    /// Who mounted.
    mounter: Owner,
    /// To whom the root directory belongs, as stored: user, then group.
    root: AtomicU64,
}

impl Owners {
    /// The translation for what `mounter` mounts.
    pub fn new(options: OwnerOptions, mounter: Owner) -> Owners {
        Owners { options, mounter, root: AtomicU64::new(packed(mounter)) }
    }

    /// The root directory belongs to `owner`, as stored; true if that changes who others are.
    pub fn follow(&self, owner: Owner) -> bool {
        let owner = packed(owner);
        self.root.swap(owner, Ordering::AcqRel) != owner && self.options.idmap == IdMap::User
    }

    /// Attributes as this mount shows them.
    pub fn shown(&self, mut attr: Attr) -> Attr {
        let here = self.here(Owner { uid: attr.uid, gid: attr.gid });
        attr.uid = self.options.uid.unwrap_or(here.uid);
        attr.gid = self.options.gid.unwrap_or(here.gid);
        if let Some(mask) = self.options.umask {
            let any = |bits: u16| if attr.mode & bits == 0 { 0 } else { bits };
            let open = any(READ) | any(WRITE) | any(EXECUTE);
            attr.mode = attr.mode & !PERMISSIONS | open & !mask;
        }
        attr
    }

    /// Stored ids as ids here.
    pub fn here(&self, stored: Owner) -> Owner {
        match &self.options.idmap {
            IdMap::Same => stored,
            IdMap::User => {
                let root = self.root();
                let pick = |id, root, mounter| if id == root { mounter } else { id };
                Owner {
                    uid: pick(stored.uid, root.uid, self.mounter.uid),
                    gid: pick(stored.gid, root.gid, self.mounter.gid),
                }
            }
            IdMap::Files { users, groups } => {
                Owner { uid: users.here(stored.uid), gid: groups.here(stored.gid) }
            }
        }
    }

    /// Ids here as they are stored.
    pub fn stored(&self, here: Owner) -> Owner {
        match &self.options.idmap {
            IdMap::Same => here,
            IdMap::User => {
                let root = self.root();
                let pick = |id, mounter, root| if id == mounter { root } else { id };
                Owner {
                    uid: pick(here.uid, self.mounter.uid, root.uid),
                    gid: pick(here.gid, self.mounter.gid, root.gid),
                }
            }
            IdMap::Files { users, groups } => {
                Owner { uid: users.stored(here.uid), gid: groups.stored(here.gid) }
            }
        }
    }

    /// What chown(2) to these stores. To whom everything is shown to belong already, nothing is given.
    pub fn given(&self, uid: Option<u32>, gid: Option<u32>) -> (Option<u32>, Option<u32>) {
        let uid = uid.filter(|uid| self.options.uid != Some(*uid));
        let gid = gid.filter(|gid| self.options.gid != Some(*gid));
        let stored = self.stored(Owner { uid: uid.unwrap_or_default(), gid: gid.unwrap_or_default() });
        (uid.map(|_| stored.uid), gid.map(|_| stored.gid))
    }

    fn root(&self) -> Owner {
        let packed = self.root.load(Ordering::Acquire);
        Owner { uid: (packed >> 32) as u32, gid: packed as u32 }
    }
}

fn packed(owner: Owner) -> u64 {
    u64::from(owner.uid) << 32 | u64::from(owner.gid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MOUNTER: Owner = Owner { uid: 1001, gid: 1002 };

    fn table(text: &str) -> Result<IdTable, MountError> {
        let dir = tempfile::tempdir().unwrap();
        let (file, names) = (dir.path().join("table"), dir.path().join("names"));
        std::fs::write(&file, text).unwrap();
        std::fs::write(&names, "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nshort\n").unwrap();
        IdTable::read(&file, &names)
    }

    #[test]
    fn tables_map_both_ways_and_leave_the_rest() {
        let table = table("# ours\nalice:501\n\n7:502\n").unwrap();
        assert_eq!([501, 502, 503].map(|id| table.here(id)), [1000, 7, 503]);
        assert_eq!([1000, 7, 9].map(|id| table.stored(id)), [501, 502, 9]);
    }

    #[test]
    fn a_line_that_says_nothing_or_too_much_is_named() {
        for bad in
            ["nobody-here:1", "alice", "alice:", "short:1", "alice:1\nalice:2", "alice:1\n7:1", "alice:-1"]
        {
            let error = table(bad).unwrap_err().to_string();
            assert!(error.contains(bad.lines().last().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_owner_of_the_folder_is_who_mounts_it() {
        let options = OwnerOptions { idmap: IdMap::User, ..OwnerOptions::default() };
        let owners = Owners::new(options, MOUNTER);
        assert!(owners.follow(Owner { uid: 5, gid: 6 }));
        assert!(!owners.follow(Owner { uid: 5, gid: 6 }));
        assert_eq!(owners.here(Owner { uid: 5, gid: 6 }), MOUNTER);
        assert_eq!(owners.here(Owner { uid: 7, gid: 7 }), Owner { uid: 7, gid: 7 });
        assert_eq!(owners.stored(MOUNTER), Owner { uid: 5, gid: 6 });
        assert_eq!(owners.given(Some(1001), None), (Some(5), None));
    }

    #[test]
    fn what_everything_is_shown_to_belong_to_is_not_stored() {
        let options = OwnerOptions { uid: Some(9), gid: Some(8), ..OwnerOptions::default() };
        let owners = Owners::new(options, MOUNTER);
        assert_eq!(owners.given(Some(9), Some(8)), (None, None));
        assert_eq!(owners.given(Some(10), Some(8)), (Some(10), None));
        assert!(!owners.follow(Owner { uid: 5, gid: 6 }), "only a map by user depends on it");
    }
}
