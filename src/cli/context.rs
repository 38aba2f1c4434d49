//! What every command starts from: the home, the flags, where passphrases come from, where results go.

use super::arguments::{Globals, Network};
use super::output::Output;
use super::passphrase::Passphrases;
use crate::crypt::keyring::{self, Factors, Keyring, KeyringError, Needs, RingKey};
use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::{DatabasePaths, Home, Name};
use crate::daemon::{kernel_keys, moves, ring_file};
use std::path::PathBuf;

/// What every command starts from.
pub struct Context {
    /// Where everything is kept.
    pub home: Home,
    /// The network flags of this command.
    pub flags: Options,
    /// Where results go.
    pub output: Output,
    /// How much the log says.
    pub verbose: u8,
    /// Where passphrases come from.
    pub passphrases: Passphrases,
    given_home: Option<PathBuf>,
}

impl Context {
    /// Takes the global flags.
    pub fn new(globals: Globals) -> Result<Context, Failure> {
        let home = match &globals.home {
            Some(directory) => Home::at(directory),
            None => Home::of_user().map_err(|error| {
                Failure::failed(format!("cannot tell where this person's files belong: {error}; give --home"))
            })?,
        };
        Ok(Context {
            home,
            flags: options(globals.network),
            output: Output::new(globals.json),
            verbose: globals.verbose,
            passphrases: Passphrases::new(globals.no_passphrase, globals.passphrase_file, globals.key_file),
            given_home: globals.home,
        })
    }

    /// The files of a database that exists.
    pub fn existing(&self, name: &Name) -> Result<DatabasePaths, Failure> {
        let paths = self.home.database(name);
        if paths.keyring.exists() {
            return Ok(paths);
        }
        let place = paths.directory.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
        Err(Failure::failed(format!(
            "there is no database called {name} under {place}; `kilofs status` lists those that are"
        )))
    }

    /// All layers of options for a database: the home's, those saved for it, the flags of this command.
    pub fn options(&self, name: &Name) -> Result<Options, Failure> {
        let saved = read(&self.home.database(name).config)?;
        Ok(self.common_options()?.under(saved).under(self.flags.clone()))
    }

    /// Changes what is saved for a database. The file is the program's own: it can be written anew.
    pub fn save_options(
        &self,
        name: &Name,
        what: &str,
        change: impl FnOnce(Options) -> Options,
    ) -> Result<(), Failure> {
        let file = self.existing(name)?.config;
        let cannot = |error: std::io::Error| {
            Failure::failed(format!("cannot save {what} in {}: {error}", file.display()))
        };
        let saved = Options::read(&file).map_err(cannot)?;
        change(saved).write(&file).map_err(cannot)
    }

    /// The layer of options that holds for every database.
    pub fn common_options(&self) -> Result<Options, Failure> {
        read(&self.home.config_file())
    }

    /// Opens a database's keyring, with the keys of the last rotation that this device was given.
    pub fn open_keyring(&self, name: &Name) -> Result<Keyring, Failure> {
        self.open_keyring_trying(name, &mut Vec::new())
    }

    /// The same for one of several: what opened another is tried before anybody is asked again, and what opens this is
    /// added to it.
    pub fn open_keyring_trying(&self, name: &Name, typed: &mut Vec<Factors>) -> Result<Keyring, Failure> {
        let keyring = self.open_ring(name, typed)?;
        Ok(moves::bring_up(&self.home.database(name), keyring))
    }

    fn open_ring(&self, name: &Name, typed: &mut Vec<Factors>) -> Result<Keyring, Failure> {
        let file = self.existing(name)?.keyring;
        let bytes = ring_file::read(&file)?;
        let needs = keyring::needs(&bytes).map_err(|error| self.refused(name, &error))?;
        if !needs.anything() {
            return keyring::open(&bytes, &Factors::default()).map_err(|error| self.refused(name, &error));
        }
        if !self.passphrases.are_given()
            && let Some(key) = kernel_keys::recall(&file)
            && let Ok(opened) = keyring::open_with(&bytes, &key)
        {
            return Ok(opened);
        }
        let tries = typed.iter().filter_map(|known| keyring::open(&bytes, known).ok());
        if let Some(opened) = tries.into_iter().next() {
            return Ok(opened);
        }
        let factors = self.passphrases.recall(name, &self.options(name)?, needs)?;
        let opened = keyring::open(&bytes, &factors).map_err(|error| self.refused(name, &error))?;
        typed.push(factors);
        Ok(opened)
    }

    /// Opens a database's keyring with what the person or a configured source says now, whatever the kernel keeps, and tells
    /// what that was. `--no-passphrase` is not said of this keyring.
    pub fn open_afresh(&self, name: &Name) -> Result<(Keyring, Factors, RingKey), Failure> {
        let bytes = ring_file::read(&self.existing(name)?.keyring)?;
        let refused = |error: KeyringError| self.refused(name, &error);
        let needs = keyring::needs(&bytes).map_err(refused)?;
        let factors = self.passphrases.recall_current(name, &self.options(name)?, needs)?;
        let (opened, key) = keyring::unlock(&bytes, &factors).map_err(refused)?;
        Ok((opened, factors, key))
    }

    /// Why a keyring did not open.
    pub fn refused(&self, name: &Name, error: &KeyringError) -> Failure {
        let file = self.home.database(name).keyring;
        let needs = std::fs::read(&file).ok().and_then(|bytes| keyring::needs(&bytes).ok());
        match (error, needs) {
            (KeyringError::WrongPassphrase | KeyringError::NoKeyFile, Some(needs)) => {
                let message = format!("that is not what opens {name}: it opens with {}", opens(needs));
                let plain = needs.passphrase && !needs.key_file;
                let message = if plain { format!("that is not the passphrase of {name}") } else { message };
                Failure::new(FailureKind::WrongKey, message)
            }
            _ => Failure::failed(format!(
                "{}: {error}; restore it from a backup, or join again",
                file.display()
            )),
        }
    }

    /// `--home DIR ` as a person would have to repeat it in the next command; empty without one.
    pub fn home_flag(&self) -> String {
        match &self.given_home {
            Some(home) if std::env::var_os("KILOFS_HOME").is_none() => format!("--home {} ", home.display()),
            _ => String::new(),
        }
    }
}

/// What opens a keyring, in words.
pub(super) fn opens(needs: Needs) -> &'static str {
    match (needs.passphrase, needs.key_file) {
        (false, false) => "no passphrase",
        (true, false) => "a passphrase",
        (false, true) => "a key file",
        (true, true) => "a passphrase and a key file",
    }
}

fn read(file: &std::path::Path) -> Result<Options, Failure> {
    Options::read(file)
        .map_err(|error| Failure::failed(format!("cannot read the options in {}: {error}", file.display())))
}

fn options(network: Network) -> Options {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Options {
        bootstrap: some(network.bootstrap),
        listen: network.listen,
        peer: (!network.peer.is_empty()).then_some(network.peer),
        neighbours: network.no_neighbours.then_some(false),
        upnp: network.no_upnp.then_some(false),
        offline: network.offline.then_some(true),
        limit_up: network.limit_up,
        limit_down: network.limit_down,
        poll_interval: network.poll_interval,
        ..Options::default()
    }
}
