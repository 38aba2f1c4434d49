//! Many engines in one process: what such a process is told, and what it answers once they run.

use super::config::Options;
use super::control::Failure;
use super::home::{Home, Name};
use super::launch::Launch;
use crate::base::{Malformed, Reader, Writer};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::net::SocketAddr;
use zeroize::Zeroizing;

pub use super::muster::serve;

/// The longest fleet that is accepted, in bytes: some ten thousand databases.
const FLEET_BYTES_MAX: usize = 16 << 20;
const LAUNCH_BYTES_MAX: usize = 1 << 20;
const FLAGS_BYTES_MAX: usize = 1 << 20;
/// More databases than one process can serve.
const DATABASES_MAX: usize = 10_000;

/// What a process of many engines is told at its start. Like a [`Launch`], it holds secrets and travels through a pipe.
pub struct Fleet {
    /// The home of all of them.
    pub home: Home,
    /// The options of a database that appears later lie below these.
    pub flags: Options,
    /// A quota that lies above the home's, below that of a database.
    pub quota_bytes: Option<u64>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Databases that are left alone: they were there at the start, and run elsewhere or did not open.
    pub left_alone: Vec<Name>,
    /// One for each engine, as [`Launch::encode`] wrote it.
    pub launches: Vec<(Name, Zeroizing<Vec<u8>>)>,
}

impl Fleet {
    /// The bytes for the pipe: home, flags as JSON, quota (0: none), where metrics are served (empty: nowhere), names
    /// that are left alone, launches.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        self.home.encode(&mut writer);
        writer.bytes(&serde_json::to_vec(&self.flags).expect("plain options serialise"));
        writer.u64(self.quota_bytes.unwrap_or(0));
        writer.bytes(self.metrics.map_or(String::new(), |address| address.to_string()).as_bytes());
        writer.varint(self.left_alone.len() as u64);
        for name in &self.left_alone {
            writer.bytes(name.as_str().as_bytes());
        }
        writer.varint(self.launches.len() as u64);
        for (name, launch) in &self.launches {
            writer.bytes(name.as_str().as_bytes()).bytes(launch);
        }
        Zeroizing::new(writer.0)
    }

    /// Reads a fleet from the pipe.
    pub fn read(pipe: impl Read) -> io::Result<Fleet> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FLEET_BYTES_MAX));
        pipe.take(FLEET_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Fleet::decode(&bytes).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "these are no launches: `engine --all` is started by `mirror --all`",
            )
        })
    }

    /// Reads what [`Fleet::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Fleet, Malformed> {
        let mut reader = Reader::new(bytes);
        let home = Home::decode(&mut reader)?;
        let flags = serde_json::from_slice(reader.bytes(FLAGS_BYTES_MAX)?).map_err(|_| Malformed)?;
        let quota_bytes = Some(reader.u64()?).filter(|bytes| *bytes > 0);
        let metrics = match std::str::from_utf8(reader.bytes(64)?).map_err(|_| Malformed)? {
            "" => None,
            address => Some(address.parse().map_err(|_| Malformed)?),
        };
        let count = reader.bounded(DATABASES_MAX)?;
        let left_alone = (0..count).map(|_| name(&mut reader)).collect::<Result<_, _>>()?;
        let count = reader.bounded(DATABASES_MAX)?;
        let mut launches = Vec::with_capacity(count);
        for _ in 0..count {
            let name = name(&mut reader)?;
            let launch = Zeroizing::new(reader.bytes(LAUNCH_BYTES_MAX)?.to_vec());
            Launch::decode(&launch)?;
            launches.push((name, launch));
        }
        reader.end()?;
        Ok(Fleet { home, flags, quota_bytes, metrics, left_alone, launches })
    }

    /// All layers of options for a database that appears later.
    pub fn options(&self, name: &Name) -> io::Result<Options> {
        let common = Options::read(&self.home.config_file())?;
        let quota = Options { mirror_quota: self.quota_bytes, ..Options::default() };
        let saved = Options::read(&self.home.database(name).config)?;
        Ok(common.under(quota).under(saved).under(self.flags.clone()))
    }
}

fn name(reader: &mut Reader) -> Result<Name, Malformed> {
    let text = std::str::from_utf8(reader.bytes(256)?).map_err(|_| Malformed)?;
    Name::new(text).map_err(|_| Malformed)
}

/// What such a process answers when it has tried all its databases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mustered {
    /// The process.
    pub pid: u32,
    /// Where metrics are served.
    pub metrics: Option<String>,
    /// Databases whose engine runs.
    pub mirrored: Vec<String>,
    /// Databases that are not mirrored, each with the reason.
    pub skipped: Vec<Skipped>,
}

/// A database that is not mirrored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// What it is called.
    pub name: String,
    /// Why.
    pub failure: Failure,
    /// It is tried again.
    pub again: bool,
}

impl PartialEq for Skipped {
    fn eq(&self, other: &Skipped) -> bool {
        (&self.name, self.again, &self.failure.message) == (&other.name, other.again, &other.failure.message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fleet() -> Fleet {
        Fleet {
            home: Home::at(std::path::Path::new("/h")),
            flags: Options { poll_interval: Some(2.0), ..Options::default() },
            quota_bytes: Some(5 << 20),
            metrics: Some("127.0.0.1:9000".parse().unwrap()),
            left_alone: vec![Name::new("b").unwrap()],
            launches: Vec::new(),
        }
    }

    #[test]
    fn a_fleet_survives_the_pipe() {
        let sent = fleet();
        let taken = Fleet::read(&sent.encode()[..]).unwrap();
        assert_eq!((&taken.flags, taken.quota_bytes), (&sent.flags, sent.quota_bytes));
        assert_eq!((taken.metrics, &taken.left_alone), (sent.metrics, &sent.left_alone));
        assert!(Fleet::decode(&sent.encode()[1..]).is_err());
    }

    #[test]
    fn what_is_saved_for_a_database_stands_above_the_common_quota() {
        let directory = tempfile::tempdir().unwrap();
        let fleet = Fleet { home: Home::at(directory.path()), ..fleet() };
        let name = Name::new("c").unwrap();
        let saved = fleet.home.prepare(&name).unwrap().config;
        assert_eq!(fleet.options(&name).unwrap().mirror_quota, Some(5 << 20));
        std::fs::write(saved, "mirror-quota = 7").unwrap();
        assert_eq!(fleet.options(&name).unwrap().mirror_quota, Some(7));
    }
}
