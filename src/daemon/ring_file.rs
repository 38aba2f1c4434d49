//! The file of a keyring: written first and put in the place of the old one afterwards, so that one of the two is there
//! whatever happens.

use super::control::Failure;
use super::home::DatabasePaths;
use crate::crypt::keyring::{self, Factors, KEYRING_BYTES_MAX, Keyring};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Reads a sealed keyring.
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read =
        File::open(file).and_then(|file| file.take(KEYRING_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    Ok(bytes)
}

/// The right to change a database's keyring, which one process has at a time.
pub struct Turn {
    keyring: PathBuf,
    directory: File,
}

impl Turn {
    /// Waits for the turn of a database.
    pub fn take(paths: &DatabasePaths) -> Result<Turn, Failure> {
        let directory = File::open(&paths.directory).and_then(|file| file.lock().map(|()| file));
        let directory = directory.map_err(|error| {
            Failure::failed(format!("cannot lock {}: {error}", paths.directory.display()))
        })?;
        Ok(Turn { keyring: paths.keyring.clone(), directory })
    }

    /// Seals a keyring anew in the place of the old one. On return the new one is on the disk; on failure the old one is
    /// what it was.
    pub fn replace(&self, keyring: &Keyring, factors: &Factors) -> Result<(), Failure> {
        let sealed = keyring::seal(keyring, factors);
        let next = next(&self.keyring);
        let cannot = |error: io::Error| {
            Failure::failed(format!("cannot write {}: {error}; the keyring is as it was", next.display()))
        };
        let outcome = write(&next, &sealed).map_err(cannot).and_then(|()| {
            // What is about to be all that opens the database is tried before it takes the place of what does.
            let opened = keyring::open(&read(&next)?, factors);
            if opened.as_ref() != Ok(keyring) {
                return Err(Failure::failed(format!(
                    "{} does not read as it was written; the keyring is as it was: look at the disk",
                    next.display()
                )));
            }
            std::fs::rename(&next, &self.keyring).map_err(cannot)
        });
        if outcome.is_err() {
            // Only in the way from now on; the next change would overwrite it.
            _ = std::fs::remove_file(&next);
            return outcome;
        }
        self.directory.sync_all().map_err(|error| {
            let shown = self.keyring.display();
            Failure::failed(format!("{shown} is replaced, but the disk does not confirm it: {error}"))
        })
    }
}

/// Where a keyring lies before it takes its place. It may be left by a process that was killed: whole or not, it is no
/// keyring of anything.
fn next(keyring: &Path) -> PathBuf {
    keyring.with_extension("next")
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::{AdminKey, Capability, DatabaseKey, Secret};
    use crate::daemon::home::{Home, Name};

    fn made(directory: &Path) -> (DatabasePaths, Keyring) {
        let paths = Home::at(directory).prepare(&Name::new("notes").unwrap()).unwrap();
        let capability =
            Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
        let keyring = Keyring::new(capability, "notes");
        write(&paths.keyring, &keyring::seal(&keyring, &Factors::default())).unwrap();
        (paths, keyring)
    }

    #[test]
    fn the_new_takes_the_place_of_the_old_over_what_a_killed_process_left() {
        let directory = tempfile::tempdir().unwrap();
        let (paths, keyring) = made(directory.path());
        let left = next(&paths.keyring);
        let whole = read(&paths.keyring).unwrap();
        for half in [&b""[..], &whole[..100], &whole] {
            std::fs::write(&left, half).unwrap();
            let new = Factors::of_passphrase("new");
            Turn::take(&paths).unwrap().replace(&keyring, &new).unwrap();
            assert!(!left.exists());
            let sealed = read(&paths.keyring).unwrap();
            assert_eq!(keyring::open(&sealed, &new).as_ref(), Ok(&keyring));
            assert!(keyring::open(&sealed, &Factors::default()).is_err());
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let (paths, keyring) = made(directory.path());
        let before = read(&paths.keyring).unwrap();
        // A directory in the way of the file.
        std::fs::create_dir(next(&paths.keyring)).unwrap();
        let failure = Turn::take(&paths).unwrap().replace(&keyring, &Factors::of_passphrase("new"));
        assert!(failure.unwrap_err().message.contains("as it was"));
        assert_eq!(read(&paths.keyring).unwrap(), before);
    }
}
