//! What opens a keyring, and where it comes from: files, systemd's credentials, a configured command, or a prompt on the
//! terminal. Never the arguments or the environment, which other processes can read.

use super::passphrase_command;
use crate::crypt::keyring::{Factors, KeyFile, Needs};
use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::Name;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const PASSPHRASE_BYTES_MAX: u64 = 4096;
/// What systemd.exec(5) tells a service: the directory of what it was given by `LoadCredential=` and the like.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
const PASSPHRASE_CREDENTIAL: &str = "kilofs-passphrase";
const KEY_FILE_CREDENTIAL: &str = "kilofs-key-file";

/// A passphrase, wiped when dropped.
pub type Passphrase = Zeroizing<String>;

/// Where passphrases and key files come from.
#[derive(Default)]
pub struct Passphrases {
    /// `--no-passphrase`
    pub none: bool,
    /// `--passphrase-file`
    pub file: Option<PathBuf>,
    /// `--key-file`
    pub key_file: Option<PathBuf>,
    /// Systemd's credentials.
    pub credentials: Option<PathBuf>,
}

impl Passphrases {
    /// From the flags of a command and from what systemd gave this process.
    pub fn new(none: bool, file: Option<PathBuf>, key_file: Option<PathBuf>) -> Passphrases {
        let credentials = std::env::var_os(CREDENTIALS).map(PathBuf::from);
        Passphrases { none, file, key_file, credentials }
    }

    /// What opens a new keyring; a person types the passphrase twice.
    pub fn choose(&self, name: &Name, options: &Options) -> Result<Factors, Failure> {
        let key_file = self.key_file_of(name, options)?;
        if self.none && self.file.is_some() {
            return Err(usage("--no-passphrase and --passphrase-file contradict each other"));
        }
        let passphrase = match self.none {
            true => Passphrase::default(),
            false => match self.without_terminal(name, options)? {
                Some(found) => found,
                None => twice(&format!("New passphrase for {name}: "))?,
            },
        };
        Ok(Factors { passphrase, key_file })
    }

    /// What opens an existing keyring that needs it.
    pub fn recall(&self, name: &Name, options: &Options, needs: Needs) -> Result<Factors, Failure> {
        if self.none && needs.passphrase {
            return Err(wrong(&format!("{name} has a passphrase: leave --no-passphrase out")));
        }
        self.recall_current(name, options, needs)
    }

    /// The same where `--no-passphrase` is said of the keyring to come.
    pub fn recall_current(&self, name: &Name, options: &Options, needs: Needs) -> Result<Factors, Failure> {
        let key_file = if needs.key_file { self.key_file_of(name, options)? } else { None };
        if needs.key_file && key_file.is_none() {
            return Err(wrong(&format!(
                "{name} opens with a key file: give --key-file FILE, or set key-file in config.toml"
            )));
        }
        let passphrase = match needs.passphrase {
            false => Passphrase::default(),
            true => match self.without_terminal(name, options)? {
                Some(found) => found,
                None => prompt(&format!("Passphrase for {name}: "))?,
            },
        };
        Ok(Factors { passphrase, key_file })
    }

    /// Whether a flag of this command says what to open with: then that is what is tried, and nothing that is remembered.
    pub fn are_given(&self) -> bool {
        self.none || self.file.is_some() || self.key_file.is_some()
    }

    /// Whether a passphrase can be had without asking a person.
    pub fn is_at_hand(&self, name: &Name, options: &Options) -> bool {
        let credential = self.credential(PASSPHRASE_CREDENTIAL, name);
        self.none || self.file.is_some() || options.passphrase_command.is_some() || credential.is_some()
    }

    fn without_terminal(&self, name: &Name, options: &Options) -> Result<Option<Passphrase>, Failure> {
        let file = self.file.clone().or_else(|| self.credential(PASSPHRASE_CREDENTIAL, name));
        match (&file, &options.passphrase_command) {
            (Some(file), _) => from_file(file).map(Some),
            (None, Some(command)) => passphrase_command::run(command).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn key_file_of(&self, name: &Name, options: &Options) -> Result<Option<KeyFile>, Failure> {
        let credential = || self.credential(KEY_FILE_CREDENTIAL, name);
        let file = self.key_file.clone().or_else(credential).or_else(|| options.key_file.clone());
        file.map(|file| key_file(&file)).transpose()
    }

    /// The credential for one database, or the one for all.
    fn credential(&self, kind: &str, name: &Name) -> Option<PathBuf> {
        let directory = self.credentials.as_ref()?;
        let candidates = [directory.join(format!("{kind}-{name}")), directory.join(kind)];
        candidates.into_iter().find(|file| file.exists())
    }
}

/// A new passphrase from the terminal, typed twice.
pub fn twice(question: &str) -> Result<Passphrase, Failure> {
    let first = prompt(question)?;
    if first.is_empty() {
        return Err(usage("an empty passphrase protects nothing: say --no-passphrase where that is meant"));
    }
    if *prompt("Once more: ")? != *first {
        return Err(usage("the two passphrases differ; nothing was done"));
    }
    Ok(first)
}

/// A line from the terminal that is not shown while it is typed.
pub fn prompt(question: &str) -> Result<Passphrase, Failure> {
    rpassword::prompt_password(question).map(Zeroizing::new).map_err(|error| {
        usage(&format!(
            "a passphrase is needed and there is no terminal to ask on ({error}): give --passphrase-file FILE, or set passphrase-command in config.toml"
        ))
    })
}

/// The first line of a file.
pub fn from_file(file: &Path) -> Result<Passphrase, Failure> {
    let bytes = content(file, PASSPHRASE_BYTES_MAX).map_err(|error| {
        Failure::failed(format!("cannot read the passphrase in {}: {error}", file.display()))
    })?;
    first_line(&bytes).ok_or_else(|| usage(&format!("{} does not begin with a line of text", file.display())))
}

/// What is made of a key file.
pub fn key_file(file: &Path) -> Result<KeyFile, Failure> {
    let bytes = content(file, KeyFile::BYTES_MAX as u64 + 1)
        .map_err(|error| Failure::failed(format!("cannot read the key file {}: {error}", file.display())))?;
    KeyFile::of(&bytes).ok_or_else(|| {
        usage(&format!(
            "{} is no key file: one has {} to {} bytes; `head -c 32 /dev/urandom > FILE` makes one",
            file.display(),
            KeyFile::BYTES_MIN,
            KeyFile::BYTES_MAX
        ))
    })
}

fn content(file: &Path, bytes_max: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(file)?;
    // Sized ahead: a vector that grows would leave a copy of the secret behind.
    let length = file.metadata()?.len().max(PASSPHRASE_BYTES_MAX).min(bytes_max);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1));
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first line of what was read, if it is text that is not empty.
pub(super) fn first_line(bytes: &[u8]) -> Option<Passphrase> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).ok().filter(|text| !text.is_empty())?;
    Some(Zeroizing::new(text.to_owned()))
}

fn usage(message: &str) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

fn wrong(message: &str) -> Failure {
    Failure::new(FailureKind::WrongKey, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::daemon::config::Words;

    const PASSPHRASE: Needs = Needs { passphrase: true, key_file: false };
    const BOTH: Needs = Needs { passphrase: true, key_file: true };

    #[test]
    fn a_line_ends_where_a_person_would_say() {
        assert_eq!(*first_line(b"secret\r\nmore").unwrap(), "secret");
        assert_eq!(*first_line(b" spaces count ").unwrap(), " spaces count ");
        for none in [&b""[..], b"\nx", b"\xff\n"] {
            assert!(first_line(none).is_none());
        }
    }

    #[test]
    fn sources_are_tried_in_the_order_that_the_manual_says() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let name = Name::new("notes").unwrap();
        let command = Words::List(["echo", "command"].map(String::from).to_vec());
        let options = Options { passphrase_command: Some(command), ..Options::default() };
        let mut sources = Passphrases { file: Some(put("flag", "flag")), ..Passphrases::default() };
        sources.credentials = Some(directory.path().to_path_buf());
        put(PASSPHRASE_CREDENTIAL, "credential of all");
        put("kilofs-passphrase-notes", "credential");
        let found = |sources: &Passphrases| sources.recall(&name, &options, PASSPHRASE).unwrap().passphrase;
        assert_eq!(*found(&sources), "flag");
        sources.file = None;
        assert_eq!(*found(&sources), "credential");
        std::fs::remove_file(directory.path().join("kilofs-passphrase-notes")).unwrap();
        assert_eq!(*found(&sources), "credential of all");
        sources.credentials = None;
        assert_eq!(*found(&sources), "command");
    }

    #[test]
    fn a_key_file_is_looked_for_only_where_it_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, pass) = (directory.path().join("key"), directory.path().join("pass"));
        std::fs::write(&file, [7; 40]).unwrap();
        std::fs::write(&pass, "secret").unwrap();
        let name = Name::new("notes").unwrap();
        let options = Options { key_file: Some(file.clone()), ..Options::default() };
        let sources = Passphrases { file: Some(pass), ..Passphrases::default() };
        let key_file =
            |options: &Options, needs| sources.recall(&name, options, needs).map(|found| found.key_file);
        assert_eq!(key_file(&options, BOTH).unwrap(), KeyFile::of(&[7; 40]));
        assert_eq!(key_file(&options, PASSPHRASE).unwrap(), None);
        assert_eq!(key_file(&Options::default(), BOTH).unwrap_err().kind, FailureKind::WrongKey);
        std::fs::write(&file, [7; 31]).unwrap();
        assert_eq!(key_file(&options, BOTH).unwrap_err().kind, FailureKind::Usage);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(key_file(&options, BOTH).unwrap_err().kind, FailureKind::Failed);
    }
}
