//! Where kilofs keeps what it keeps: one directory given by `--home`, or the XDG directories.

use crate::base::{Malformed, Reader, Writer};
use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A Unix socket's path has 108 bytes with its NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const NAME_BYTES_MAX: usize = 64;
/// Linux's PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;

/// What a person calls a database on this device: 1 to 64 of `A–Z a–z 0–9 . _ -`, not starting with a dot or a dash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(String);

impl Name {
    /// Checks and takes a name; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Name, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(format!("a database's name has 1 to {NAME_BYTES_MAX} characters"));
        }
        if text.starts_with(['.', '-']) || !text.chars().all(allowed) {
            return Err("a database's name is made of letters, digits, '.', '_' and '-', and does not start with '.' or '-'".into());
        }
        Ok(Name(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directories of one home.
#[derive(Clone, Debug)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    runtime: PathBuf,
}

/// The files of one database.
#[derive(Clone, Debug)]
pub struct DatabasePaths {
    /// The directory that holds the others but log and socket.
    pub directory: PathBuf,
    /// The store: one encrypted file without an extension, with the keyring a full backup.
    pub store: PathBuf,
    /// The sealed keyring.
    pub keyring: PathBuf,
    /// The last rotation, as it was announced; none before the first.
    pub moved: PathBuf,
    /// Network options saved at `create` or `join`.
    pub config: PathBuf,
    /// The sled cache of what can be rebuilt.
    pub cache: PathBuf,
    /// Bitfields for the torrent session, made anew at each start: under the runtime directory, which lies in memory.
    pub torrents: PathBuf,
    /// The engine's control socket.
    pub socket: PathBuf,
    /// The engine's log.
    pub log: PathBuf,
}

impl Home {
    /// Everything under one directory.
    pub fn at(directory: &Path) -> Home {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        Home {
            config: directory.clone(),
            data: directory.join("databases"),
            log: directory.join("log"),
            runtime: directory.join("run"),
        }
    }

    /// The XDG directories of the person who runs this.
    pub fn of_user() -> io::Result<Home> {
        let strategy = choose_app_strategy(AppStrategyArgs {
            top_level_domain: "org".into(),
            author: "kilofs".into(),
            app_name: "kilofs".into(),
        })
        .map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        let state = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
        Ok(Home {
            config: strategy.config_dir(),
            data: strategy.data_dir().join("databases"),
            log: state.join("log"),
            runtime: strategy.runtime_dir().unwrap_or_else(|| state.join("run")),
        })
    }

    /// Appends the home, for an engine that is told where it lives.
    pub fn encode(&self, writer: &mut Writer) {
        for path in [&self.config, &self.data, &self.log, &self.runtime] {
            writer.bytes(path.as_os_str().as_bytes());
        }
    }

    /// Reads what [`Home::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Home, Malformed> {
        let mut path = || {
            let bytes = reader.bytes(PATH_BYTES_MAX)?.to_vec();
            Ok(PathBuf::from(OsString::from_vec(bytes)))
        };
        Ok(Home { config: path()?, data: path()?, log: path()?, runtime: path()? })
    }

    /// The log of a process of many engines; every database has one of its own besides, and theirs end in `.log`.
    pub fn common_log(&self) -> PathBuf {
        self.log.join("mirror-all")
    }

    /// The file with the options that hold for every database.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The files of the database called `name`, whether it exists or not.
    pub fn database(&self, name: &Name) -> DatabasePaths {
        let directory = self.data.join(name.as_str());
        DatabasePaths {
            store: directory.join("database"),
            keyring: directory.join("keyring"),
            moved: directory.join("moved"),
            config: directory.join("config.toml"),
            cache: directory.join("cache"),
            torrents: self.runtime.join(format!("{name}.torrents")),
            socket: self.socket(name),
            log: self.log.join(format!("{name}.log")),
            directory,
        }
    }

    /// The names of all databases of this home, sorted.
    pub fn names(&self) -> io::Result<Vec<Name>> {
        let entries = match std::fs::read_dir(&self.data) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names: Vec<Name> = entries
            .filter_map(|entry| Name::new(entry.ok()?.file_name().to_str()?).ok())
            .filter(|name| self.database(name).keyring.exists())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Makes the directories that an engine of `name` needs, readable by nobody else.
    pub fn prepare(&self, name: &Name) -> io::Result<DatabasePaths> {
        let paths = self.database(name);
        for directory in [&paths.directory, &self.log, &self.config] {
            private_directory(directory)?;
        }
        if let Some(parent) = paths.socket.parent() {
            private_directory(parent)?;
            let owner = std::fs::metadata(parent)?.uid();
            if owner != rustix::process::getuid().as_raw() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{} belongs to another user (uid {owner}); remove it or set XDG_RUNTIME_DIR",
                        parent.display()
                    ),
                ));
            }
        }
        Ok(paths)
    }

    /// The control socket: under the runtime directory, or, where that path is too long for a socket, under a
    /// directory of this user's in /tmp, named by a hash of the long path.
    fn socket(&self, name: &Name) -> PathBuf {
        let path = self.runtime.join(format!("{name}.sock"));
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return path;
        }
        let hash = blake3::hash(path.as_os_str().as_bytes()).to_hex();
        let user = rustix::process::getuid().as_raw();
        PathBuf::from(format!("/tmp/kilofs-{user}/{}.sock", &hash[..32]))
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_home() {
        for bad in ["", ".", "..", "-f", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in ["notes", "a.b-c_1", &"x".repeat(64)] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_home_that_cannot_be_made_is_named() {
        let name = Name::new("n").expect("a good name");
        let error = Home::at(Path::new("/proc/none")).prepare(&name).expect_err("nothing is made there");
        assert!(error.to_string().starts_with("/proc/none/"), "{error}");
    }

    #[test]
    fn a_socket_path_always_fits() {
        let deep = Home::at(&PathBuf::from(format!("/{}", "d/".repeat(80))));
        let name = Name::new(&"n".repeat(64)).expect("a good name");
        assert!(deep.database(&name).socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        let shallow = Home::at(Path::new("/h"));
        assert_eq!(shallow.database(&name).socket.parent(), Some(Path::new("/h/run")));
    }
}
