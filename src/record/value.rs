//! The record: the value of the BEP 44 item, which says which versions are current and who may change what.
//!
//! Under the seal, in this order: format 1, flags 1, time 4, block count 2; five version slots of infohash 20, offset
//! 6, length 3, id 32, unused ones zero; policy counter 4, charter id 32, signature 64; two bits a block; zeros up to
//! the constant length.

use super::error::RecordError;
use super::policy::{POLICY_FIXED_BYTES, Policy, mode_bytes};
use crate::base::{InfoHash, Locator, Reader, Writer};
use crate::crypt::RecordKey;
use crate::crypt::record_key::RECORD_SEAL_BYTES;

/// Bytes of every sealed record. Bencoded, it stays below the 1000 that every DHT node takes.
pub const RECORD_BYTES: usize = 995;
/// Versions that a record can name.
pub const VERSIONS_MAX: usize = 5;
/// Blocks whose modes fit into a record.
pub const BLOCKS_MAX: usize = 2168;

const FORMAT: u8 = 1;
const FLAGS_KNOWN: u8 = 0;
const HEAD_BYTES: usize = 8;
const VERSION_BYTES: usize = InfoHash::BYTES + Locator::BYTES;
const PLAIN_BYTES: usize = RECORD_BYTES - RECORD_SEAL_BYTES;
const MODES_AT: usize = HEAD_BYTES + VERSIONS_MAX * VERSION_BYTES + POLICY_FIXED_BYTES;

const _: () = assert!("995:".len() + RECORD_BYTES < 1000, "the bencoded value must stay below 1000 bytes");
const _: () = assert!(MODES_AT + mode_bytes(BLOCKS_MAX) == PLAIN_BYTES, "the modes fill what is left");

/// One published state: what to fetch, and where in it to begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VersionRef {
    /// Its torrent.
    pub infohash: InfoHash,
    /// Its commit.
    pub commit: Locator,
}

/// What the database key signs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// When it was made, in seconds since 1970; informs people, decides nothing.
    pub time: u32,
    /// None are known.
    pub flags: u8,
    /// Current versions, the newest first; no two of one torrent.
    pub versions: Vec<VersionRef>,
    /// What the admin allows.
    pub policy: Policy,
}

impl Record {
    /// Seals the record to exactly [`RECORD_BYTES`]. It holds at most [`VERSIONS_MAX`] different versions.
    pub fn encode_sealed(&self, key: &RecordKey) -> Vec<u8> {
        key.seal(&self.encode())
    }

    /// Opens a record. Its policy's signature is still to be verified.
    pub fn decode(key: &RecordKey, sealed: &[u8]) -> Result<Record, RecordError> {
        if sealed.len() != RECORD_BYTES {
            return Err(RecordError::Sealed);
        }
        let plain = key.open(sealed).map_err(|_| RecordError::Sealed)?;
        Record::decode_plain(&plain)
    }

    fn encode(&self) -> Vec<u8> {
        assert!(self.flags & !FLAGS_KNOWN == 0, "a flag has a meaning before it is set");
        assert!(
            self.versions.len() <= VERSIONS_MAX && !has_twins(&self.versions),
            "five different versions at most"
        );
        let mut writer = Writer(Vec::with_capacity(PLAIN_BYTES));
        writer.u8(FORMAT).u8(self.flags).u32(self.time).u16(self.policy.block_count());
        for version in &self.versions {
            writer.raw(&version.infohash.0).locator(&version.commit);
        }
        writer.0.resize(HEAD_BYTES + VERSIONS_MAX * VERSION_BYTES, 0);
        self.policy.write_fixed(&mut writer);
        writer.raw(&self.policy.packed_modes());
        assert!(writer.0.len() <= PLAIN_BYTES, "a policy has at most BLOCKS_MAX blocks");
        writer.0.resize(PLAIN_BYTES, 0);
        writer.0
    }

    fn decode_plain(plain: &[u8]) -> Result<Record, RecordError> {
        let malformed = RecordError::in_a("record");
        let mut reader = Reader::new(plain);
        let format = reader.u8().map_err(&malformed)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        let flags = reader.u8().map_err(&malformed)?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(RecordError::Flags(flags));
        }
        let time = reader.u32().map_err(&malformed)?;
        let blocks = usize::from(reader.u16().map_err(&malformed)?);
        let mut versions = Vec::with_capacity(VERSIONS_MAX);
        for slot in 0..VERSIONS_MAX {
            let bytes = reader.raw(VERSION_BYTES).map_err(&malformed)?;
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            if versions.len() != slot {
                return Err(RecordError::Malformed("record"));
            }
            let mut version = Reader::new(bytes);
            let infohash = InfoHash(version.array().map_err(&malformed)?);
            versions.push(VersionRef { infohash, commit: version.locator().map_err(&malformed)? });
        }
        if has_twins(&versions) {
            return Err(RecordError::Malformed("record"));
        }
        let fixed = reader.raw(POLICY_FIXED_BYTES).map_err(&malformed)?;
        let policy = Policy::read(fixed, blocks, &mut reader)?;
        let padding = reader.raw(reader.remaining()).map_err(&malformed)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(RecordError::Malformed("record"));
        }
        Ok(Record { time, flags, versions, policy })
    }
}

fn has_twins(versions: &[VersionRef]) -> bool {
    let same =
        |index: usize, version: &VersionRef| versions[..index].iter().any(|v| v.infohash == version.infohash);
    versions.iter().enumerate().any(|(index, version)| same(index, version))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::{DatabaseId, Id, Place};
    use crate::crypt::{AdminKey, Secret};
    use crate::record::Mode;

    fn version(n: u8) -> VersionRef {
        let place = Place { offset: (1 << 47) + u64::from(n), length: (1 << 23) + u32::from(n) };
        VersionRef { infohash: InfoHash([n; 20]), commit: Locator { place, id: Id([n; 32]) } }
    }

    fn record(versions: u8, blocks: usize) -> Record {
        let admin = AdminKey::from_seed(&[1; 32]);
        let modes = vec![Mode::Append; blocks];
        let policy = Policy::sign(&admin, &DatabaseId([2; 32]), 3, Id([4; 32]), modes);
        Record { time: 1_800_000_000, flags: 0, versions: (1..=versions).map(version).collect(), policy }
    }

    #[test]
    fn every_record_has_one_length_and_survives() {
        let key = RecordKey::new(Secret::new([7; 32]));
        for (versions, blocks) in [(0, 1), (1, 1), (5, 1), (5, BLOCKS_MAX), (3, 5)] {
            let record = record(versions, blocks);
            let sealed = record.encode_sealed(&key);
            assert_eq!(sealed.len(), RECORD_BYTES);
            assert_eq!(Record::decode(&key, &sealed), Ok(record));
        }
    }

    #[test]
    fn what_decodes_has_no_other_form() {
        for plain in [record(2, 5).encode(), record(5, BLOCKS_MAX).encode()] {
            for bit in 0..plain.len() * 8 {
                let mut changed = plain.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(decoded) = Record::decode_plain(&changed) {
                    assert_eq!(decoded.encode(), changed, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_seal_does_not_open() {
        let key = RecordKey::new(Secret::new([7; 32]));
        let sealed = record(2, 5).encode_sealed(&key);
        for byte in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[byte] ^= 1;
            assert_eq!(Record::decode(&key, &damaged), Err(RecordError::Sealed), "byte {byte}");
        }
        for length in [0, 39, 40, RECORD_BYTES - 1] {
            assert_eq!(Record::decode(&key, &sealed[..length]), Err(RecordError::Sealed), "length {length}");
        }
        assert_eq!(Record::decode(&key, &[&sealed[..], &[0]].concat()), Err(RecordError::Sealed));
    }
}
