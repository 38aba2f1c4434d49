//! The words of `-o`.

use super::MountError;

/// What [`MountOptions::parse`] understands, as messages list it.
pub(super) const KNOWN: &str = "ro, rw, allow_other, allow_root, noexec, exec, admin";

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
}

impl MountOptions {
    /// The defaults for the database `name`.
    pub fn new(name: &str) -> MountOptions {
        let audience = Audience::Owner;
        MountOptions { name: name.to_owned(), read_only: false, audience, no_exec: false, admin: false }
    }

    /// Applies the words of one `-o`, separated by commas; the last word on a subject wins.
    pub fn parse(&mut self, words: &str) -> Result<(), MountError> {
        words.split(',').map(str::trim).filter(|word| !word.is_empty()).try_for_each(|word| self.apply(word))
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
            "suid" | "dev" => return Err(MountError::RefusedOption(word.to_owned())),
            // What holds anyway, and what fstab and mount(8) add for themselves.
            "default_permissions"
            | "nosuid"
            | "nodev"
            | "noatime"
            | "nodiratime"
            | "relatime"
            | "async"
            | "nonempty"
            | "defaults"
            | "auto"
            | "noauto"
            | "user"
            | "nouser"
            | "users"
            | "nofail"
            | "_netdev" => {}
            _ if word.starts_with("x-") => {}
            _ => return Err(MountError::UnknownOption(word.to_owned())),
        }
        Ok(())
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
}
