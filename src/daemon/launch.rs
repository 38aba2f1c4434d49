//! How an engine is started: what it is told, and what it answers when it is usable.

use super::config::Options;
use super::home::{Home, Name};
use crate::base::{Malformed, Reader, Writer};
use crate::crypt::keyring::{self, Factors, Keyring};
use crate::crypt::link::Kind;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The longest launch that an engine accepts, in bytes.
const LAUNCH_BYTES_MAX: usize = 1 << 20;
const MOUNT: u8 = 1;
const MIRROR: u8 = 2;
const SHARE: u8 = 3;

/// What an engine is told at its start. It holds secrets: it travels through a pipe, never in arguments or environment.
pub struct Launch {
    /// The home that it keeps its files in.
    pub home: Home,
    /// Which database.
    pub name: Name,
    /// The opened keyring. The admin seed is dropped at the start unless `admin` is set.
    pub keyring: Keyring,
    /// The capability that the device holds, of which the keyring here may be a weakened form.
    pub held: Kind,
    /// All layers of options, already laid over each other.
    pub options: Options,
    /// What it does.
    pub role: Role,
}

/// What an engine does.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Shows the tree under a directory, and mirrors.
    Mount {
        /// The mountpoint.
        directory: PathBuf,
        /// The text behind `-o`, comma-separated; `admin` among them keeps the admin key for read-only blocks.
        options: Vec<String>,
    },
    /// Follows, keeps, seeds and re-puts.
    Mirror,
    /// Keeps a plain folder in step with the tree, and mirrors.
    Share {
        /// The folder.
        directory: PathBuf,
        /// `.gitignore` counts too.
        gitignore: bool,
        /// Nothing that was in step before is known any more.
        afresh: bool,
        /// However much is missing was removed.
        accept_removals: bool,
    },
    /// Serves one command of a process that found no engine running: with the network or without.
    Command {
        /// Whether the command needs the network.
        network: bool,
        /// Whether it is a repair, or a look at what a repair would do: a damaged store is opened too, and what its log
        /// holds waits.
        rescue: bool,
    },
}

impl Launch {
    /// A launch that holds no more than its role needs: the admin seed stays behind unless a mount asks for it.
    pub fn new(home: Home, name: Name, mut keyring: Keyring, options: Options, role: Role) -> Launch {
        let held = keyring.capability.kind();
        let as_admin =
            matches!(&role, Role::Mount { options, .. } if options.iter().any(|option| option == "admin"));
        if let (false, Some(weaker)) = (as_admin, keyring.capability.weakened(Kind::Write)) {
            keyring.capability = weaker;
        }
        Launch { home, name, keyring, held, options, role }
    }

    /// The bytes for the pipe to an engine that runs on its own: home, name, options as JSON, role, keyring. Only a
    /// mount or a mirror is started that way.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        self.home.encode(&mut writer);
        writer.bytes(self.name.as_str().as_bytes());
        writer.bytes(&serde_json::to_vec(&self.options).expect("plain options serialise"));
        match &self.role {
            Role::Mount { directory, options } => {
                writer.u8(MOUNT).bytes(directory.as_os_str().as_bytes()).varint(options.len() as u64);
                for option in options {
                    writer.bytes(option.as_bytes());
                }
            }
            Role::Share { directory, gitignore, afresh, accept_removals } => {
                writer.u8(SHARE).bytes(directory.as_os_str().as_bytes());
                for flag in [*gitignore, *afresh, *accept_removals] {
                    writer.u8(u8::from(flag));
                }
            }
            Role::Mirror | Role::Command { .. } => _ = writer.u8(MIRROR),
        }
        // A pipe needs no passphrase: the seal is there for its strict decoder, not for secrecy.
        let keyring = Zeroizing::new(keyring::seal(&self.keyring, &Factors::default()));
        writer.bytes(&keyring).u8(self.held as u8);
        Zeroizing::new(writer.0)
    }

    /// Reads a launch from the pipe.
    pub fn read(pipe: impl Read) -> io::Result<Launch> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LAUNCH_BYTES_MAX));
        pipe.take(LAUNCH_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Launch::decode(&bytes).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "this is not a launch: `engine` is started by `mount`, `share` and `mirror`",
            )
        })
    }

    /// Reads what [`Launch::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Launch, Malformed> {
        let mut reader = Reader::new(bytes);
        let home = Home::decode(&mut reader)?;
        let name = Name::new(&text(&mut reader)?).map_err(|_| Malformed)?;
        let options = serde_json::from_slice(reader.bytes(LAUNCH_BYTES_MAX)?).map_err(|_| Malformed)?;
        let role = match reader.u8()? {
            MOUNT => {
                let directory = OsString::from_vec(reader.bytes(LAUNCH_BYTES_MAX)?.to_vec()).into();
                let count = reader.bounded(LAUNCH_BYTES_MAX)?;
                let options = (0..count).map(|_| text(&mut reader)).collect::<Result<_, _>>()?;
                Role::Mount { directory, options }
            }
            MIRROR => Role::Mirror,
            SHARE => Role::Share {
                directory: OsString::from_vec(reader.bytes(LAUNCH_BYTES_MAX)?.to_vec()).into(),
                gitignore: reader.u8()? != 0,
                afresh: reader.u8()? != 0,
                accept_removals: reader.u8()? != 0,
            },
            _ => return Err(Malformed),
        };
        let keyring =
            keyring::open(reader.bytes(LAUNCH_BYTES_MAX)?, &Factors::default()).map_err(|_| Malformed)?;
        let held = kind(reader.u8()?)?;
        reader.end()?;
        Ok(Launch { home, name, keyring, held, options, role })
    }
}

fn kind(byte: u8) -> Result<Kind, Malformed> {
    Kind::of_code(byte).ok_or(Malformed)
}

fn text(reader: &mut Reader) -> Result<String, Malformed> {
    String::from_utf8(reader.bytes(LAUNCH_BYTES_MAX)?.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::keys::{AdminKey, DatabaseKey};
    use crate::crypt::link::Capability;
    use crate::crypt::secret::Secret;

    fn launch(role: Role) -> Launch {
        let capability =
            Capability::create(&AdminKey::generate(), &DatabaseKey::generate(), Secret::random());
        Launch {
            home: Home::at(std::path::Path::new("/h")),
            name: Name::new("notes").unwrap(),
            keyring: Keyring::new(capability, "notes"),
            held: Kind::Admin,
            options: Options { poll_interval: Some(1.5), ..Options::default() },
            role,
        }
    }

    #[test]
    fn a_launch_survives_the_pipe() {
        let directory = PathBuf::from(OsString::from_vec(b"/m\xff".to_vec()));
        let role = Role::Mount { directory, options: vec!["ro".into(), "allow_other".into()] };
        let sent = launch(role);
        let taken = Launch::read(&sent.encode()[..]).unwrap();
        assert_eq!(taken.role, sent.role);
        assert_eq!(taken.options, sent.options);
        assert_eq!(taken.home.config_file(), sent.home.config_file());
        assert_eq!(taken.keyring.capability.database_id(), sent.keyring.capability.database_id());
        assert_eq!(taken.keyring.device.public(), sent.keyring.device.public());
    }

    #[test]
    fn a_share_survives_the_pipe() {
        let directory = PathBuf::from("/folder");
        let role = Role::Share { directory, gitignore: true, afresh: false, accept_removals: true };
        let sent = launch(role);
        assert_eq!(Launch::read(&sent.encode()[..]).unwrap().role, sent.role);
    }

    #[test]
    fn half_a_launch_is_none() {
        let bytes = launch(Role::Mirror).encode();
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(Launch::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
