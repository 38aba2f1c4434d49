//! The policy: two bits a block that say who may change it, signed by the admin.

use super::error::RecordError;
use super::value::BLOCKS_MAX;
use crate::base::{DatabaseId, Id, PublicKey, Reader, Signature, Writer};
use crate::crypt::{AdminKey, verify};
use std::fmt;
use std::str::FromStr;

/// Who may change a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Any member.
    ReadWrite = 0,
    /// Nobody but the admin.
    ReadOnly = 1,
    /// The owner whom the charter names.
    Owner = 2,
    /// Any member, and only by adding files.
    Append = 3,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::ReadWrite, Mode::ReadOnly, Mode::Owner, Mode::Append];

    fn name(self) -> &'static str {
        match self {
            Mode::ReadWrite => "rw",
            Mode::ReadOnly => "ro",
            Mode::Owner => "owner",
            Mode::Append => "append",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mode is rw, ro, owner or append")]
pub struct UnknownMode;

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Mode, UnknownMode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == text).ok_or(UnknownMode)
    }
}

/// What the admin allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The higher one holds.
    pub counter: u32,
    /// The charter that belongs to it.
    pub charter: Id,
    /// The admin's, over all of it and the database id.
    pub signature: Signature,
    /// The mode of each block, by number; `rw` at a number that the charter does not list.
    pub modes: Vec<Mode>,
}

/// Bytes before the modes: counter 4, charter 32, signature 64.
pub(super) const POLICY_FIXED_BYTES: usize = 4 + Id::BYTES + Signature::BYTES;
const MODES_PER_BYTE: usize = 4;

/// Bytes that the modes of so many blocks take.
pub(super) const fn mode_bytes(blocks: usize) -> usize {
    blocks.div_ceil(MODES_PER_BYTE)
}

impl Policy {
    /// Signs a policy. There is at least block 0, and at most [`BLOCKS_MAX`] fit: who adds a block asks before.
    pub fn sign(
        admin: &AdminKey,
        database: &DatabaseId,
        counter: u32,
        charter: Id,
        modes: Vec<Mode>,
    ) -> Policy {
        assert!((1..=BLOCKS_MAX).contains(&modes.len()), "one to {BLOCKS_MAX} blocks fit a record");
        let mut policy = Policy { counter, charter, signature: Signature([0; 64]), modes };
        policy.signature = admin.sign(&policy.signed_bytes(database));
        policy
    }

    /// Whether this database's admin signed it.
    pub fn verify(&self, database: &DatabaseId, admin: &PublicKey) -> bool {
        verify(&admin.0, &self.signed_bytes(database), &self.signature)
    }

    /// Names what it says, whichever signature is on it.
    pub fn hash(&self) -> Id {
        let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 policy hash");
        hasher.update(&self.content());
        Id(*hasher.finalize().as_bytes())
    }

    /// Whether it replaces `other`: a higher counter, or, where two admin devices used one counter, the smaller hash.
    pub fn supersedes(&self, other: &Policy) -> bool {
        self.counter > other.counter || self.counter == other.counter && self.hash().0 < other.hash().0
    }

    /// Its bytes outside a record.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write_fixed(&mut writer);
        writer.u16(self.block_count()).raw(&self.packed_modes());
        writer.0
    }

    /// Reads what [`Policy::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Policy, RecordError> {
        let malformed = RecordError::in_a("policy");
        let mut reader = Reader::new(bytes);
        let fixed = reader.raw(POLICY_FIXED_BYTES).map_err(&malformed)?;
        let blocks = usize::from(reader.u16().map_err(&malformed)?);
        let policy = Policy::read(fixed, blocks, &mut reader)?;
        reader.end().map_err(&malformed)?;
        Ok(policy)
    }

    pub(super) fn write_fixed(&self, writer: &mut Writer) {
        writer.u32(self.counter).raw(&self.charter.0).raw(&self.signature.0);
    }

    /// The fixed part from `fixed`, the modes of `blocks` blocks from `reader`.
    pub(super) fn read(fixed: &[u8], blocks: usize, reader: &mut Reader) -> Result<Policy, RecordError> {
        let malformed = RecordError::in_a("policy");
        if blocks == 0 {
            return Err(RecordError::Malformed("policy"));
        }
        if blocks > BLOCKS_MAX {
            return Err(RecordError::TooMany { what: "blocks", count: blocks, max: BLOCKS_MAX });
        }
        let mut fixed = Reader::new(fixed);
        let counter = fixed.u32().map_err(&malformed)?;
        let charter = Id(fixed.array().map_err(&malformed)?);
        let signature = Signature(fixed.array().map_err(&malformed)?);
        fixed.end().map_err(&malformed)?;
        let packed = reader.raw(mode_bytes(blocks)).map_err(&malformed)?;
        let bits = |slot: usize| packed[slot / MODES_PER_BYTE] >> (slot % MODES_PER_BYTE * 2) & 3;
        if (blocks..packed.len() * MODES_PER_BYTE).any(|slot| bits(slot) != 0) {
            return Err(RecordError::Malformed("policy"));
        }
        let modes = (0..blocks).map(|slot| Mode::ALL[usize::from(bits(slot))]).collect();
        Ok(Policy { counter, charter, signature, modes })
    }

    pub(super) fn block_count(&self) -> u16 {
        u16::try_from(self.modes.len()).expect("a policy has at most BLOCKS_MAX blocks")
    }

    pub(super) fn packed_modes(&self) -> Vec<u8> {
        let mut packed = vec![0; mode_bytes(self.modes.len())];
        for (slot, mode) in self.modes.iter().enumerate() {
            packed[slot / MODES_PER_BYTE] |= (*mode as u8) << (slot % MODES_PER_BYTE * 2);
        }
        packed
    }

    fn content(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(self.counter).raw(&self.charter.0).u16(self.block_count()).raw(&self.packed_modes());
        writer.0
    }

    fn signed_bytes(&self, database: &DatabaseId) -> Vec<u8> {
        [b"kilofs policy 1", &database.0[..], &self.content()].concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Mode::*;

    const DATABASE: DatabaseId = DatabaseId([9; 32]);

    fn policy(counter: u32, modes: &[Mode]) -> (Policy, PublicKey) {
        let admin = AdminKey::from_seed(&[1; 32]);
        (Policy::sign(&admin, &DATABASE, counter, Id([5; 32]), modes.to_vec()), admin.public())
    }

    #[test]
    fn modes_survive_whatever_their_number() {
        for count in [1, 2, 3, 4, 5, BLOCKS_MAX] {
            let modes: Vec<Mode> = Mode::ALL.into_iter().rev().cycle().take(count).collect();
            let (policy, admin) = policy(7, &modes);
            assert!(policy.verify(&DATABASE, &admin));
            assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
        }
    }

    #[test]
    fn every_byte_is_signed() {
        let (policy, admin) = policy(7, &[ReadWrite, ReadOnly, Owner, Append, ReadOnly]);
        let bytes = policy.encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = Policy::decode(&damaged) {
                assert_eq!(decoded.encode(), damaged, "bit {bit}");
                assert!(!decoded.verify(&DATABASE, &admin), "bit {bit}");
            }
        }
        assert!(!policy.verify(&DatabaseId([8; 32]), &admin), "another database");
    }

    #[test]
    fn one_of_two_policies_supersedes_the_other() {
        let (old, _) = policy(7, &[ReadWrite]);
        let (new, _) = policy(8, &[ReadOnly]);
        assert!(new.supersedes(&old) && !old.supersedes(&new) && !new.supersedes(&new));
        let (rival, _) = policy(8, &[Owner]);
        assert_ne!(new.supersedes(&rival), rival.supersedes(&new));
        let resigned = Policy { signature: Signature([0; 64]), ..new.clone() };
        assert!(!resigned.supersedes(&new) && !new.supersedes(&resigned), "the same content");
    }

    #[test]
    fn modes_have_names() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("RW".parse::<Mode>(), Err(UnknownMode));
    }
}
