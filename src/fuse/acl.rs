//! POSIX access lists, in the form that Linux keeps them in extended attributes (acl(5), `linux/posix_acl_xattr.h`).
//!
//! The mode stays the one truth for owner, mask and others: a list that is read has the mode's bits there, whatever was
//! stored. So chmod(2) on a mount without lists, or a merge of a mode with a list, never leaves more open than the mode
//! says.

use super::MountError;
use super::attributes::Namespace;
use super::errno::Refusal;
use super::files::Caller;
use super::owners::Owners;
use super::shared::Shared;
use crate::base::{Inode, Reader, Writer};
use crate::tree::{Attr, Owner, ReadTree as _, SetAttr, SetXattr, TreeError};
use fuser::{InitFlags, KernelConfig};

/// The list that says who may use a file.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that a directory hands down.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The kernel obeys access lists and leaves the umask to us, because a list that is handed down overrides it.
const CAPABILITIES: InitFlags = InitFlags::FUSE_POSIX_ACL.union(InitFlags::FUSE_DONT_MASK);

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const SET_GID: u16 = 0o2000;
const PERMISSIONS: u16 = 0o777;

/// Agrees on access lists when a mount begins.
pub(super) fn ask_for(kernel: &mut KernelConfig) -> std::io::Result<()> {
    kernel.add_capabilities(CAPABILITIES).map_err(|_| std::io::Error::other(MountError::NoAccessLists))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Version u32, then tag u16, permissions u16, id u32 for each entry, little-endian; `None` for what the kernel
    /// would not make.
    pub fn decode(bytes: &[u8]) -> Option<Acl> {
        let mut reader = Reader::new(bytes);
        let word = |reader: &mut Reader<'_>| {
            reader.raw(4).ok().and_then(|raw| Some(u32::from_le_bytes(raw.try_into().ok()?)))
        };
        if word(&mut reader)? != VERSION || bytes.len() % ENTRY_BYTES != 4 {
            return None;
        }
        let mut entries = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
        for _ in 0..bytes.len() / ENTRY_BYTES {
            let (what, id) = (word(&mut reader)?, word(&mut reader)?);
            let (tag, permissions) = (what as u16, (what >> 16) as u16);
            if ![USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&tag) || permissions > 7 {
                return None;
            }
            entries.push(Entry { tag, permissions, id });
        }
        let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
        let named = count(USER) + count(GROUP);
        let whole = [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1);
        (whole && count(MASK) <= 1 && (named == 0 || count(MASK) == 1)).then_some(Acl(entries))
    }

    /// What [`Acl::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&VERSION.to_le_bytes());
        for entry in &self.0 {
            let what = u32::from(entry.permissions) << 16 | u32::from(entry.tag);
            writer.raw(&what.to_le_bytes()).raw(&entry.id.to_le_bytes());
        }
        writer.0
    }

    /// Whether it says no more than a mode does.
    pub fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The permission bits that stand for it in a mode.
    pub fn mode(&self) -> u16 {
        let of = |tag| self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions);
        let group = of(MASK).or_else(|| of(GROUP_OBJ));
        of(USER_OBJ).unwrap_or(0) << 6 | group.unwrap_or(0) << 3 | of(OTHER).unwrap_or(0)
    }

    /// The list with a mode's bits where they belong.
    pub fn under(mut self, mode: u16) -> Acl {
        let class = if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ };
        for entry in &mut self.0 {
            match entry.tag {
                USER_OBJ => entry.permissions = mode >> 6 & 7,
                OTHER => entry.permissions = mode & 7,
                tag if tag == class => entry.permissions = mode >> 3 & 7,
                _ => {}
            }
        }
        self
    }

    /// The list with other ids for those whom it names.
    fn with_ids(mut self, other: impl Fn(Owner) -> Owner) -> Acl {
        for entry in &mut self.0 {
            let ids = other(Owner { uid: entry.id, gid: entry.id });
            match entry.tag {
                USER => entry.id = ids.uid,
                GROUP => entry.id = ids.gid,
                _ => {}
            }
        }
        self
    }
}

/// A stored list as this mount shows it, for an inode of this mode.
pub(super) fn shown(name: &[u8], value: &[u8], mode: u16, owners: &Owners) -> Result<Vec<u8>, TreeError> {
    let acl = Acl::decode(value).ok_or(TreeError::NoData)?.with_ids(|stored| owners.here(stored));
    Ok(if name == ACCESS { acl.under(mode) } else { acl }.encode())
}

impl Shared {
    /// Sets a list; the mode follows.
    pub fn set_acl(
        &self,
        inode: Inode,
        name: &[u8],
        value: &[u8],
        (caller, group): (Caller, u32),
    ) -> Result<(), Refusal> {
        let acl = Acl::decode(value).ok_or(TreeError::Invalid)?.with_ids(|here| self.owners.stored(here));
        if name == DEFAULT {
            return Ok(self.tree.set_xattr(inode, name, &acl.encode(), SetXattr::Any)?);
        }
        if acl.is_mode() {
            match self.tree.remove_xattr(inode, name) {
                Ok(()) | Err(TreeError::NoData) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            self.tree.set_xattr(inode, name, &acl.encode(), SetXattr::Any)?;
        }
        let attr = self.tree.attr(inode)?;
        // As chmod(2): set-group-id is for members of the group. Of the caller's groups we hear of one only.
        let stranger = caller == Caller::Ordinary && self.owners.shown(attr).gid != group;
        let kept = if stranger { attr.mode & !SET_GID } else { attr.mode };
        let mode = Some(kept & !PERMISSIONS | acl.mode());
        self.tree.set_attr(inode, SetAttr { mode, ..SetAttr::default() })?;
        Ok(())
    }

    /// The mode of something new, and the list that its directory hands down to it. Without lists the kernel has
    /// applied the umask.
    pub fn birth(&self, directory: Inode, mode: u16, umask: u16) -> Result<(u16, Option<Acl>), Refusal> {
        if self.namespace != Namespace::UsersAndLists {
            return Ok((mode, None));
        }
        match self.tree.get_xattr(directory, DEFAULT) {
            Ok(value) => {
                let acl = Acl::decode(&value).ok_or(TreeError::Invalid)?;
                Ok((mode & (acl.mode() | !PERMISSIONS), Some(acl)))
            }
            Err(TreeError::NoData) => Ok((mode & !umask, None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives something new the list of its directory.
    pub fn hand_down(&self, attr: Attr, acl: Option<Acl>) -> Result<Attr, Refusal> {
        let Some(acl) = acl else { return Ok(attr) };
        let value = acl.encode();
        if attr.file_type == crate::tree::FileType::Directory {
            self.tree.set_xattr(attr.inode, DEFAULT, &value, SetXattr::Any)?;
        }
        if !acl.is_mode() {
            self.tree.set_xattr(attr.inode, ACCESS, &value, SetXattr::Any)?;
        }
        Ok(self.tree.attr(attr.inode)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect())
    }

    fn named() -> Acl {
        list(&[
            (USER_OBJ, 7, u32::MAX),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, u32::MAX),
            (MASK, 7, u32::MAX),
            (OTHER, 1, u32::MAX),
        ])
    }

    #[test]
    fn lists_survive_and_nothing_else_is_one() {
        let acl = named();
        let bytes = acl.encode();
        assert_eq!(Acl::decode(&bytes), Some(acl));
        for length in 0..bytes.len() {
            assert_eq!(Acl::decode(&bytes[..length]), None, "{length}");
        }
        let base = [(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)];
        for more in [(USER, 7, 1), (GROUP, 7, 1), (OTHER, 7, 0), (0x40, 7, 0), (MASK, 8, 0)] {
            let acl = list(&[&base[..], &[more]].concat());
            assert_eq!(Acl::decode(&acl.encode()), None, "{more:?}");
        }
    }

    #[test]
    fn the_mode_stands_for_owner_mask_and_others() {
        assert_eq!(named().mode(), 0o771);
        let under = named().under(0o640);
        assert_eq!(under.mode(), 0o640);
        assert_eq!(under.0[2], Entry { tag: GROUP_OBJ, permissions: 5, id: u32::MAX });
        let plain = list(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 5, 0)]);
        assert!(plain.is_mode() && !named().is_mode());
        assert_eq!(plain.under(0o604).mode(), 0o604);
    }
}
