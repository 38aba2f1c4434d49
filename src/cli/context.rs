//! What every command starts from: the home, the flags, where passphrases come from, where results go.

use super::arguments::{Globals, Network};
use super::output::Output;
use super::passphrase::{Passphrase, Passphrases};
use crate::crypt::keyring::{self, Keyring, KeyringError};
use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::{DatabasePaths, Home, Name};
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
            passphrases: Passphrases::new(globals.no_passphrase, globals.passphrase_file),
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

    /// Opens a database's keyring.
    pub fn open_keyring(&self, name: &Name) -> Result<Keyring, Failure> {
        self.open_keyring_trying(name, &mut Vec::new())
    }

    /// The same for one of several: a passphrase that opened another is tried before anybody is asked again, and one
    /// that opens this is added to them.
    pub fn open_keyring_trying(&self, name: &Name, typed: &mut Vec<Passphrase>) -> Result<Keyring, Failure> {
        let file = self.existing(name)?.keyring;
        let bytes = std::fs::read(&file)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
        let damaged = |error: KeyringError| match error {
            KeyringError::WrongPassphrase => {
                Failure::new(FailureKind::WrongKey, format!("that is not the passphrase of {name}"))
            }
            other => Failure::failed(format!(
                "{}: {other}; restore it from a backup, or join again",
                file.display()
            )),
        };
        if !keyring::needs_passphrase(&bytes).map_err(damaged)? {
            return keyring::open(&bytes, b"").map_err(damaged);
        }
        let tries = typed.iter().filter_map(|known| keyring::open(&bytes, known.as_bytes()).ok());
        if let Some(opened) = tries.into_iter().next() {
            return Ok(opened);
        }
        let passphrase = self.passphrases.recall(name, &self.options(name)?)?;
        let opened = keyring::open(&bytes, passphrase.as_bytes()).map_err(damaged)?;
        typed.push(passphrase);
        Ok(opened)
    }

    /// `--home DIR ` as a person would have to repeat it in the next command; empty without one.
    pub fn home_flag(&self) -> String {
        match &self.given_home {
            Some(home) if std::env::var_os("KILOFS_HOME").is_none() => format!("--home {} ", home.display()),
            _ => String::new(),
        }
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
        upnp: network.no_upnp.then_some(false),
        offline: network.offline.then_some(true),
        limit_up: network.limit_up,
        limit_down: network.limit_down,
        poll_interval: network.poll_interval,
        ..Options::default()
    }
}
