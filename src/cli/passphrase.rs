//! Where a passphrase comes from: a file, a configured command, or a prompt on the terminal. Never the arguments or the
//! environment, which other processes can read.

use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::Name;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

const PASSPHRASE_BYTES_MAX: u64 = 4096;

/// A passphrase, wiped when dropped.
pub type Passphrase = Zeroizing<String>;

/// Where passphrases come from.
pub struct Passphrases {
    none: bool,
    file: Option<PathBuf>,
}

impl Passphrases {
    /// From the flags `--no-passphrase` and `--passphrase-file`.
    pub fn new(none: bool, file: Option<PathBuf>) -> Passphrases {
        Passphrases { none, file }
    }

    /// The passphrase for a new keyring, empty for none; a person types it twice.
    pub fn choose(&self, name: &Name, options: &Options) -> Result<Passphrase, Failure> {
        if self.none {
            return Ok(Passphrase::default());
        }
        if let Some(found) = self.without_terminal(options)? {
            return Ok(found);
        }
        twice(&format!("New passphrase for {name}: "))
    }

    /// The passphrase of an existing keyring.
    pub fn recall(&self, name: &Name, options: &Options) -> Result<Passphrase, Failure> {
        if self.none {
            return Err(wrong(&format!("{name} has a passphrase: leave --no-passphrase out")));
        }
        match self.without_terminal(options)? {
            Some(found) => Ok(found),
            None => prompt(&format!("Passphrase for {name}: ")),
        }
    }

    /// Whether a passphrase can be had without asking a person.
    pub fn is_at_hand(&self, options: &Options) -> bool {
        self.none || self.file.is_some() || options.passphrase_command.is_some()
    }

    fn without_terminal(&self, options: &Options) -> Result<Option<Passphrase>, Failure> {
        match (&self.file, &options.passphrase_command) {
            (Some(file), _) => from_file(file).map(Some),
            (None, Some(command)) => from_command(command).map(Some),
            (None, None) => Ok(None),
        }
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
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX as usize));
    File::open(file).and_then(|file| file.take(PASSPHRASE_BYTES_MAX).read_to_end(&mut bytes)).map_err(
        |error| Failure::failed(format!("cannot read the passphrase in {}: {error}", file.display())),
    )?;
    first_line(&bytes).ok_or_else(|| usage(&format!("{} does not begin with a line of text", file.display())))
}

fn from_command(line: &str) -> Result<Passphrase, Failure> {
    let words = shlex::split(line).filter(|words| !words.is_empty());
    let words =
        words.ok_or_else(|| usage(&format!("passphrase-command cannot be split into words: {line}")))?;
    let output = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::failed(format!("cannot run passphrase-command {}: {error}", words[0])))?;
    let bytes = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(Failure::failed(format!("passphrase-command {} failed: {}", words[0], output.status)));
    }
    first_line(&bytes)
        .ok_or_else(|| Failure::failed(format!("passphrase-command {} printed no line of text", words[0])))
}

fn first_line(bytes: &[u8]) -> Option<Passphrase> {
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

    #[test]
    fn a_line_ends_where_a_person_would_say() {
        assert_eq!(*first_line(b"secret\r\nmore").unwrap(), "secret");
        assert_eq!(*first_line(b" spaces count ").unwrap(), " spaces count ");
        for none in [&b""[..], b"\nx", b"\xff\n"] {
            assert!(first_line(none).is_none());
        }
    }

    #[test]
    fn a_command_is_split_like_a_shell_would() {
        assert_eq!(*from_command("printf 'a b\\nc'").unwrap(), "a b");
        assert!(from_command("false").is_err());
        assert!(from_command("printf 'unclosed").is_err());
    }
}
