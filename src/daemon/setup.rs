//! Makes a database, or takes one from a link: the sealed keyring, the saved options, the empty store.

use super::config::Options;
use super::control::{Failure, FailureKind};
use super::engine;
use super::home::{DatabasePaths, Home, Name};
use crate::crypt::keyring::{self, Factors, Keyring};
use crate::crypt::link::Capability;
use crate::crypt::recovery::RecoveryRoot;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a new database called `name` from a fresh root: its keys, its keyring, which `factors` open, its empty store.
pub fn create(
    home: &Home,
    name: &Name,
    factors: &Factors,
    saved: &Options,
    root: &RecoveryRoot,
) -> Result<Capability, Failure> {
    establish(home, name, factors, saved, root.create())
}

/// Takes the database of a link under the name `name`.
pub fn join(
    home: &Home,
    name: &Name,
    factors: &Factors,
    saved: &Options,
    capability: Capability,
) -> Result<Capability, Failure> {
    establish(home, name, factors, saved, capability)
}

/// Fails where a database of that name exists: asked before a person is troubled for a passphrase.
pub fn ensure_free(home: &Home, name: &Name) -> Result<(), Failure> {
    if home.database(name).keyring.exists() {
        return Err(Failure::failed(format!(
            "there is a database called {name} already; choose another name"
        )));
    }
    Ok(())
}

fn establish(
    home: &Home,
    name: &Name,
    factors: &Factors,
    saved: &Options,
    capability: Capability,
) -> Result<Capability, Failure> {
    ensure_free(home, name)?;
    let paths = home.prepare(name).map_err(|error| cannot("prepare the home of", name, &error))?;
    let keyring = Keyring::new(capability.clone(), name.as_str());
    let sealed = keyring::seal(&keyring, factors);

    // The keyring gets its name last: a database that has one is whole.
    let draft = paths.keyring.with_extension("new");
    write_new(&draft, &sealed).map_err(|error| interrupted(&paths, name, &error))?;
    let filled = fill(&paths, name, &keyring, saved, &draft);
    if filled.is_err() {
        // What is left of the draft would only be in the way of the next attempt.
        _ = std::fs::remove_file(&draft);
    }
    filled.map(|()| capability)
}

fn fill(
    paths: &DatabasePaths,
    name: &Name,
    keyring: &Keyring,
    saved: &Options,
    draft: &Path,
) -> Result<(), Failure> {
    engine::initialise(paths, keyring)?;
    let finish = || -> io::Result<()> {
        saved.write(&paths.config)?;
        std::fs::rename(draft, &paths.keyring)?;
        File::open(&paths.directory)?.sync_all()
    };
    finish().map_err(|error| cannot("write", name, &error))
}

/// Writes a file that must not exist yet, readable by its owner only, down to the disk.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn cannot(what: &str, name: &Name, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("cannot {what} {name}: {error}"))
}

fn interrupted(paths: &DatabasePaths, name: &Name, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Failure::failed(format!(
            "another process is making {name}, or was interrupted while making it: remove {} and try again",
            paths.directory.display()
        ));
    }
    cannot("write the keyring of", name, error)
}
