//! The record key: what a mirror needs in order to follow a database that it cannot open.

use super::cipher::{Cipher, NONCE_BYTES, TAG_BYTES};
use super::seal::{LocalKind, Tampered};
use super::secret::{Context, Secret, random};
use crate::base::InfoHash;

/// How much longer a sealed record is than its plaintext: nonce and tag.
pub const RECORD_SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

const RECORD_ASSOCIATED: &[u8] = b"kilofs record 1";
const LOCAL_ASSOCIATED: &[u8] = b"kilofs local 1";

/// For what peers meet under a rendezvous infohash; one a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// BitTorrent.
    Torrent = 1,
    /// News pushed between peers.
    Gossip = 2,
}

/// Seals the record and names the places where peers meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordKey(Secret);

impl RecordKey {
    /// The record key itself, as a mirror link carries it.
    pub fn new(secret: Secret) -> RecordKey {
        RecordKey(secret)
    }

    /// The record key of all who hold the read secret.
    pub fn of(read_secret: &Secret) -> RecordKey {
        RecordKey(read_secret.derive(Context::Record, &[]))
    }

    /// Its bytes.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// Seals under a random nonce: what two records have in common does not show.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        seal(&self.0.derive(Context::RecordSeal, &[]), RECORD_ASSOCIATED, plain)
    }

    /// Opens what [`RecordKey::seal`] sealed.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        let key = self.0.derive(Context::RecordSeal, &[]);
        Cipher::new(&key).open_with_nonce(RECORD_ASSOCIATED, sealed).ok_or(Tampered)
    }

    /// Seals what stays on this device, under a random nonce.
    pub fn seal_local(&self, kind: LocalKind, plain: &[u8]) -> Vec<u8> {
        seal(&self.0.derive(Context::LocalState, &[&[kind as u8]]), LOCAL_ASSOCIATED, plain)
    }

    /// Opens what [`RecordKey::seal_local`] sealed.
    pub fn open_local(&self, kind: LocalKind, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        let key = self.0.derive(Context::LocalState, &[&[kind as u8]]);
        Cipher::new(&key).open_with_nonce(LOCAL_ASSOCIATED, sealed).ok_or(Tampered)
    }

    /// The infohash under which peers of this database meet on a day, counted in UTC from 1970.
    pub fn rendezvous(&self, day: u32, purpose: Purpose) -> InfoHash {
        let derived = self.0.derive(Context::Rendezvous, &[&[purpose as u8], &day.to_le_bytes()]);
        InfoHash(*derived.expose().first_chunk().expect("a key is longer than an infohash"))
    }
}

impl RecordKey {
    /// What neighbours prove to each other that they hold.
    pub fn gossip_secret(&self) -> Secret {
        self.0.derive(Context::Gossip, &[])
    }
}

fn seal(key: &Secret, associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    Cipher::new(key).seal_with_nonce(&random(), associated, &[plain], &mut sealed);
    sealed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_use_opens_only_its_own() {
        let key = RecordKey::of(&Secret::random());
        let record = key.seal(b"record");
        assert_eq!(record.len(), 6 + RECORD_SEAL_BYTES);
        assert_eq!(key.open(&record).unwrap(), b"record");
        assert_ne!(key.seal(b"record"), record, "the nonce is random");
        assert_eq!(key.open_local(LocalKind::State, &record), Err(Tampered));
        let state = key.seal_local(LocalKind::State, b"state");
        assert_eq!(key.open_local(LocalKind::State, &state).unwrap(), b"state");
        assert_eq!(key.open(&state), Err(Tampered));
        assert_eq!(RecordKey::of(&Secret::random()).open(&record), Err(Tampered));
        assert_eq!(key.open(&[]), Err(Tampered));
    }

    #[test]
    fn peers_meet_elsewhere_each_day_and_for_each_purpose() {
        let key = RecordKey::of(&Secret::new([1; 32]));
        let today = key.rendezvous(20_000, Purpose::Torrent);
        assert_eq!(today, key.rendezvous(20_000, Purpose::Torrent));
        assert_ne!(today, key.rendezvous(20_001, Purpose::Torrent));
        assert_ne!(today, key.rendezvous(20_000, Purpose::Gossip));
        assert_ne!(today, RecordKey::of(&Secret::new([2; 32])).rendezvous(20_000, Purpose::Torrent));
    }
}
