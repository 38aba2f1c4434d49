//! A block's entry in the catalogue: its state, signed by who made it.

use super::error::RecordError;
use crate::base::{
    Birth, BlockNumber, DatabaseId, DeviceId, Id, Malformed, PublicKey, Reader, Signature, Writer,
};
use crate::crypt::{AdminKey, DeviceKey, verify};

/// States that a new one can stand on.
pub const PARENTS_MAX: usize = 2;
/// Bytes of the longest entry.
pub const ENTRY_BYTES_MAX: usize = 1 + 2 + 16 + 4 + 8 + 1 + PARENTS_MAX * 32 + 34 + 32 + 4 + 32 + 64;

const FORMAT: u8 = 1;

/// The root node of a block's map. Its place rides beside, in the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RootRef {
    /// Levels below it.
    pub level: u8,
    /// Its id.
    pub id: Id,
}

/// The state of one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockEntry {
    /// Which block.
    pub number: BlockNumber,
    /// Which life of that number.
    pub birth: Birth,
    /// Which incarnation of its key.
    pub epoch: u32,
    /// Grows with each state.
    pub counter: u64,
    /// The roots of at most two states that it stands on.
    pub parents: Vec<Id>,
    /// The block's map; none when it is empty.
    pub root: Option<RootRef>,
    /// Commits to the block's key, see [`crate::crypt::SealKeys::commitment`].
    pub commitment: Id,
    /// The prefix of the inode numbers that its signer gives.
    pub inode_prefix: u32,
    /// The device, or the admin's public key.
    pub signer: DeviceId,
    /// The signer's, over all of it and the database id.
    pub signature: Signature,
}

impl BlockEntry {
    /// The entry signed by a device.
    pub fn signed(mut self, database: &DatabaseId, device: &DeviceKey) -> BlockEntry {
        self.signer = device.public();
        self.signature = device.sign(&self.signed_bytes(database));
        self
    }

    /// The entry signed by the admin.
    pub fn signed_by_admin(mut self, database: &DatabaseId, admin: &AdminKey) -> BlockEntry {
        self.signer = DeviceId(admin.public().0);
        self.signature = admin.sign(&self.signed_bytes(database));
        self
    }

    /// Whether the signature is the signer's. Whether the signer may is for [`super::admit()`].
    pub fn signature_valid(&self, database: &DatabaseId) -> bool {
        verify(&self.signer.0, &self.signed_bytes(database), &self.signature)
    }

    /// Whether it names nobody: only the entry of a floor counts so.
    pub fn is_unsigned(&self) -> bool {
        self.signer.0 == [0; DeviceId::BYTES]
    }

    /// Whether the admin is named as its signer.
    pub fn is_by(&self, admin: &PublicKey) -> bool {
        self.signer.0 == admin.0
    }

    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(ENTRY_BYTES_MAX));
        self.write_unsigned(&mut writer);
        writer.raw(&self.signature.0);
        writer.0
    }

    /// Reads what [`BlockEntry::encode`] wrote. The signature is still to be verified.
    pub fn decode(bytes: &[u8]) -> Result<BlockEntry, RecordError> {
        let malformed = RecordError::in_a("entry");
        let mut reader = Reader::new(bytes);
        let format = reader.u8().map_err(&malformed)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        let entry = read(&mut reader).map_err(&malformed)?;
        reader.end().map_err(&malformed)?;
        Ok(entry)
    }

    fn write_unsigned(&self, writer: &mut Writer) {
        writer.u8(FORMAT).u16(self.number.0).raw(&self.birth.0).u32(self.epoch).u64(self.counter);
        put_parents(writer, &self.parents);
        match &self.root {
            None => _ = writer.u8(0),
            Some(root) => _ = writer.u8(1).u8(root.level).raw(&root.id.0),
        }
        writer.raw(&self.commitment.0).u32(self.inode_prefix).raw(&self.signer.0);
    }

    fn signed_bytes(&self, database: &DatabaseId) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(b"kilofs entry 1").raw(&database.0);
        self.write_unsigned(&mut writer);
        writer.0
    }
}

fn read(reader: &mut Reader) -> Result<BlockEntry, Malformed> {
    Ok(BlockEntry {
        number: BlockNumber(reader.u16()?),
        birth: Birth(reader.array()?),
        epoch: reader.u32()?,
        counter: reader.u64()?,
        parents: get_parents(reader)?,
        root: match reader.u8()? {
            0 => None,
            1 => Some(RootRef { level: reader.u8()?, id: Id(reader.array()?) }),
            _ => return Err(Malformed),
        },
        commitment: Id(reader.array()?),
        inode_prefix: reader.u32()?,
        signer: DeviceId(reader.array()?),
        signature: Signature(reader.array()?),
    })
}

/// Appends at most two different parents behind their number.
pub(super) fn put_parents(writer: &mut Writer, parents: &[Id]) {
    assert!(parents.len() <= PARENTS_MAX, "merges join two states at a time");
    writer.u8(parents.len() as u8);
    for parent in parents {
        writer.raw(&parent.0);
    }
}

/// Reads what [`put_parents`] wrote.
pub(super) fn get_parents(reader: &mut Reader) -> Result<Vec<Id>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > PARENTS_MAX {
        return Err(Malformed);
    }
    let parents = (0..count).map(|_| reader.array().map(Id)).collect::<Result<Vec<Id>, Malformed>>()?;
    if parents.len() == 2 && parents[0] == parents[1] {
        return Err(Malformed);
    }
    Ok(parents)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DATABASE: DatabaseId = DatabaseId([9; 32]);

    fn entry(parents: Vec<Id>, root: Option<RootRef>) -> BlockEntry {
        let entry = BlockEntry {
            number: BlockNumber(3),
            birth: Birth([1; 16]),
            epoch: 2,
            counter: 4,
            parents,
            root,
            commitment: Id([5; 32]),
            inode_prefix: 6,
            signer: DeviceId([0; 32]),
            signature: Signature([0; 64]),
        };
        entry.signed(&DATABASE, &DeviceKey::from_seed(&[7; 32]))
    }

    #[test]
    fn entries_survive_and_every_bit_is_signed() {
        let root = Some(RootRef { level: 2, id: Id([8; 32]) });
        let parents = vec![Id([1; 32]), Id([2; 32])];
        for entry in [entry(vec![], None), entry(parents.clone(), root), entry(parents[..1].to_vec(), root)] {
            assert!(entry.signature_valid(&DATABASE));
            assert!(!entry.signature_valid(&DatabaseId([8; 32])), "another database");
            let bytes = entry.encode();
            assert!(bytes.len() <= ENTRY_BYTES_MAX);
            assert_eq!(BlockEntry::decode(&bytes).as_ref(), Ok(&entry));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(decoded) = BlockEntry::decode(&changed) {
                    assert_eq!(decoded.encode(), changed, "bit {bit}");
                    assert!(!decoded.signature_valid(&DATABASE), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_state_does_not_stand_on_one_state_twice() {
        let mut entry = entry(vec![Id([1; 32]), Id([2; 32])], None);
        entry.parents[1] = entry.parents[0];
        assert_eq!(BlockEntry::decode(&entry.encode()), Err(RecordError::Malformed("entry")));
    }
}
