//! What is cheap to lose: metainfos with their piece hashes, and the byte meters. A cache that does not open is set
//! aside and made anew; nothing but time is lost.

use super::answers::LogEntry;
use crate::base::{InfoHash, PieceHashes};
use crate::torrent::{Limits, Metainfo};
use std::path::{Path, PathBuf};

const CACHE_BYTES: u64 = 8 << 20;
const FLUSH_MILLIS: u64 = 1_000;
const LOG_ENTRIES_MAX: usize = 10_000;

/// The cache of one database.
pub struct Cache {
    db: sled::Db,
    metainfos: sled::Tree,
    meters: sled::Tree,
    log: sled::Tree,
}

impl Cache {
    /// Opens the cache in a directory, or makes a new one there when what stands there does not open.
    pub fn open(directory: &Path) -> Result<Cache, sled::Error> {
        Self::attempt(directory).or_else(|error| {
            let aside = aside(directory);
            tracing::warn!(%error, aside = %aside.display(), "the cache did not open: set aside and rebuilt");
            // Only one broken cache is kept: an older one is of no further use.
            let _ = std::fs::remove_dir_all(&aside);
            if std::fs::rename(directory, &aside).is_err() {
                let _ = std::fs::remove_file(directory);
            }
            Self::attempt(directory)
        })
    }

    fn attempt(directory: &Path) -> Result<Cache, sled::Error> {
        let directory = directory.to_path_buf();
        // sled asserts on some damaged files instead of returning an error.
        let opened = std::panic::catch_unwind(move || -> Result<Cache, sled::Error> {
            let config = sled::Config::new().path(&directory).cache_capacity(CACHE_BYTES);
            let db = config.flush_every_ms(Some(FLUSH_MILLIS)).open()?;
            let metainfos = db.open_tree("metainfos")?;
            let meters = db.open_tree("meters")?;
            let log = db.open_tree("log")?;
            for item in metainfos.iter().chain(meters.iter()).chain(log.iter()) {
                item?;
            }
            Ok(Cache { db, metainfos, meters, log })
        });
        opened.unwrap_or_else(|_| Err(sled::Error::Corruption { at: None, bt: () }))
    }

    /// The piece hashes of a version; checked against the infohash, so that a damaged cache cannot mislead.
    pub fn hashes(&self, infohash: &InfoHash) -> Option<PieceHashes> {
        let bytes = self.metainfos.get(infohash.0).ok()??;
        let limits = Limits { metainfo_bytes_max: usize::MAX, image_bytes_max: u64::MAX };
        let metainfo = Metainfo::parse(&bytes, &limits).ok()?;
        (metainfo.infohash() == *infohash).then_some(metainfo.hashes)
    }

    /// Remembers the piece hashes of a version.
    pub fn remember(&self, infohash: &InfoHash, metainfo: &Metainfo) {
        if let Err(error) = self.metainfos.insert(infohash.0, metainfo.info_bytes()) {
            tracing::warn!(%error, "the cache does not take a metainfo; it will be rebuilt when needed");
        }
    }

    /// Forgets every version but these.
    pub fn retain(&self, keep: &[InfoHash]) {
        for key in self.metainfos.iter().keys().flatten() {
            if !keep.iter().any(|infohash| infohash.0[..] == key[..]) {
                let _ = self.metainfos.remove(key);
            }
        }
    }

    /// Remembers a commit for the log.
    pub fn log_add(&self, entry: &LogEntry) {
        let key = [&entry.lamport.to_be_bytes()[..], entry.commit.as_bytes()].concat();
        if let Ok(value) = serde_json::to_vec(entry) {
            let _ = self.log.insert(key, value);
        }
        if self.log.len() > LOG_ENTRIES_MAX {
            let _ = self.log.pop_min();
        }
    }

    /// The commits that the log remembers, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.log.iter().values().flatten().filter_map(|value| serde_json::from_slice(&value).ok()).collect()
    }

    /// A cumulative meter.
    pub fn meter(&self, name: &str) -> u64 {
        let bytes = self.meters.get(name).ok().flatten();
        bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    /// Sets a cumulative meter.
    pub fn set_meter(&self, name: &str, value: u64) {
        let _ = self.meters.insert(name, &value.to_le_bytes());
    }

    /// Writes everything out.
    pub fn flush(&self) {
        let _ = self.db.flush();
    }
}

fn aside(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_os_string();
    name.push(".broken");
    directory.with_file_name(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_damaged_cache_is_rebuilt() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cache");
        let cache = Cache::open(&directory).unwrap();
        cache.set_meter("fetched", 77);
        cache.flush();
        drop(cache);
        assert_eq!(Cache::open(&directory).unwrap().meter("fetched"), 77);
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::write(&path, b"garbage of some length that is not a database").unwrap();
            }
        }
        let cache = Cache::open(&directory).unwrap();
        assert_eq!(cache.meter("fetched"), 0);
        cache.set_meter("fetched", 1);
    }

    #[test]
    fn a_file_in_the_place_of_the_cache_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cache");
        std::fs::write(&directory, b"not a directory").unwrap();
        assert!(Cache::open(&directory).is_ok());
    }
}
