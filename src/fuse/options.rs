//! The words of `-o`.

use super::MountError;
use super::owners::{IdMap, IdTable, OwnerOptions};
use std::path::{Path, PathBuf};

/// What [`MountOptions::parse`] understands, as messages list it.
pub(super) const KNOWN: &str = "ro, rw, allow_other, allow_root, noexec, exec, admin, acl, uid=, gid=, umask=, \
    idmap=, uidfile=, gidfile=, fsname=";

/// Where names of users and groups are looked up.
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Who may use a mount at all; the modes of files come after that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Audience {
    /// Only who mounted it: what FUSE does by default.
    #[default]
    Owner,
    /// Who mounted it, and root.
    OwnerAndRoot,
    /// Every user of the machine.
    Everyone,
}

/// How a database is mounted. Always `default_permissions`, `nosuid`, `nodev` and `noatime`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// What `mount` shows as the source: the database's name.
    pub name: String,
    /// Refuse all changes, whatever the policy says.
    pub read_only: bool,
    /// Who may use it.
    pub audience: Audience,
    /// Let no program be started from it.
    pub no_exec: bool,
    /// Write where only the admin may; needs the admin capability.
    pub admin: bool,
    /// POSIX access lists: keep and obey them.
    pub acl: bool,
    /// Whose files are shown to be whose.
    pub owners: OwnerOptions,
}

/// What was said of `idmap=` and its files.
#[derive(Default)]
struct Mapping {
    kind: Option<String>,
    users: Option<PathBuf>,
    groups: Option<PathBuf>,
}

impl MountOptions {
    /// The defaults for the database `name`.
    pub fn new(name: &str) -> MountOptions {
        MountOptions {
            name: name.to_owned(),
            read_only: false,
            audience: Audience::Owner,
            no_exec: false,
            admin: false,
            acl: false,
            owners: OwnerOptions::default(),
        }
    }

    /// Applies the words of an `-o`, separated by commas; the last word on a subject wins.
    pub fn parse(&mut self, words: &str) -> Result<(), MountError> {
        let mut mapping = Mapping::default();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some((key, value)) => self.assign(word, key, value, &mut mapping)?,
                None => self.apply(word)?,
            }
        }
        if let Some(idmap) = mapping.read()? {
            self.owners.idmap = idmap;
        }
        if self.acl && self.owners.umask.is_some() {
            return Err(bad("acl", "does not go together with umask=, which hides what lists say"));
        }
        Ok(())
    }

    fn assign(
        &mut self,
        word: &str,
        key: &str,
        value: &str,
        mapping: &mut Mapping,
    ) -> Result<(), MountError> {
        let id = || value.parse().map(Some).map_err(|_| bad(word, "needs a number"));
        match key {
            "uid" => self.owners.uid = id()?,
            "gid" => self.owners.gid = id()?,
            "umask" => {
                let mask = u16::from_str_radix(value, 8).ok().filter(|mask| *mask <= UMASK_MAX);
                self.owners.umask = Some(mask.ok_or_else(|| bad(word, "needs an octal number up to 777"))?);
            }
            "idmap" => mapping.kind = Some(value.to_owned()),
            "uidfile" => mapping.users = Some(value.into()),
            "gidfile" => mapping.groups = Some(value.into()),
            "fsname" if !value.is_empty() => value.clone_into(&mut self.name),
            // What a volume is called elsewhere; here findmnt shows `fuse.kilofs` and the name.
            "subtype" | "volname" | "comment" => {}
            _ if key.starts_with("x-") => {}
            _ => return Err(MountError::UnknownOption(word.to_owned())),
        }
        Ok(())
    }

    fn apply(&mut self, word: &str) -> Result<(), MountError> {
        match word {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.audience = Audience::Everyone,
            "allow_root" => self.audience = Audience::OwnerAndRoot,
            "noexec" => self.no_exec = true,
            "exec" => self.no_exec = false,
            "admin" => self.admin = true,
            "acl" => self.acl = true,
            "noacl" => self.acl = false,
            "suid" | "dev" => return Err(MountError::RefusedOption(word.to_owned())),
            // What holds anyway (a dead mount is cleared by the next one), and what fstab and mount(8) add for
            // themselves.
            "default_permissions"
            | "nosuid"
            | "nodev"
            | "noatime"
            | "nodiratime"
            | "relatime"
            | "norelatime"
            | "async"
            | "nonempty"
            | "auto_unmount"
            | "defaults"
            | "auto"
            | "noauto"
            | "user"
            | "nouser"
            | "users"
            | "owner"
            | "group"
            | "nofail"
            | "_netdev" => {}
            _ if word.starts_with("x-") => {}
            _ => return Err(MountError::UnknownOption(word.to_owned())),
        }
        Ok(())
    }
}

const UMASK_MAX: u16 = 0o777;

fn bad(option: &str, why: &'static str) -> MountError {
    MountError::BadOption { option: option.to_owned(), why }
}

impl Mapping {
    /// The map; `None` if nothing was said of one.
    fn read(self) -> Result<Option<IdMap>, MountError> {
        let files = self.users.is_some() || self.groups.is_some();
        match (self.kind.as_deref(), files) {
            (None, false) => Ok(None),
            (Some("none"), false) => Ok(Some(IdMap::Same)),
            (Some("user"), false) => Ok(Some(IdMap::User)),
            (None | Some("file"), true) => {
                let read = |file: Option<PathBuf>, names: &str| {
                    file.map_or(Ok(IdTable::default()), |file| IdTable::read(&file, Path::new(names)))
                };
                let (users, groups) = (read(self.users, USERS)?, read(self.groups, GROUPS)?);
                Ok(Some(IdMap::Files { users, groups }))
            }
            (Some("file"), false) => Err(bad("idmap=file", "needs uidfile= or gidfile=")),
            (Some("none" | "user"), true) => Err(bad("uidfile=, gidfile=", "go with idmap=file only")),
            (Some(_), _) => Err(bad("idmap=", "is none, user or file")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_word_wins_and_unknown_words_are_named() {
        let mut options = MountOptions::new("photos");
        options.parse("ro,allow_other,,noexec,default_permissions,x-systemd.automount").unwrap();
        assert!(options.read_only && options.no_exec);
        assert_eq!(options.audience, Audience::Everyone);
        options.parse("rw, allow_root").unwrap();
        assert!(!options.read_only);
        assert_eq!(options.audience, Audience::OwnerAndRoot);
        let error = options.parse("big_writes").unwrap_err().to_string();
        assert!(error.contains("`big_writes`") && error.contains("allow_other"), "{error}");
        assert!(matches!(options.parse("suid"), Err(MountError::RefusedOption(_))));
    }

    #[test]
    fn owners_are_numbers_and_their_map_is_whole() {
        let mut options = MountOptions::new("photos");
        options
            .parse("uid=7,gid=8,umask=027,idmap=user,fsname=other,subtype=x,volname=y,auto_unmount")
            .unwrap();
        assert_eq!(options.name, "other");
        let owners = OwnerOptions { idmap: IdMap::User, uid: Some(7), gid: Some(8), umask: Some(0o27) };
        assert_eq!(options.owners, owners);
        for wrong in [
            "uid=me",
            "gid=",
            "umask=8",
            "umask=1000",
            "idmap=file",
            "idmap=some",
            "idmap=user,uidfile=/etc/hosts",
            "uidfile=/nowhere",
            "acl,umask=022",
            "fsname=",
            "max_read=4096",
        ] {
            let error = MountOptions::new("photos").parse(wrong).unwrap_err().to_string();
            let word = wrong.split(['=', ',']).next().unwrap();
            assert!(
                error.contains(word) || error.contains("nowhere") || error.contains("uidfile"),
                "{wrong}: {error}"
            );
        }
    }
}
