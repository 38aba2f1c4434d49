//! The keys of a private block: one for each epoch, random, sealed to the devices that may read it and to the admin. What is
//! derived from the read secret opens the block around them, not them.
//!
//! A new epoch begins when somebody is to read nothing newer. The key of the one before is sealed under the new one, so that
//! who has the present key opens everything, and who has an earlier one what was sealed up to then.

use super::cipher::{Cipher, NONCE_BYTES, TAG_BYTES};
use super::envelope::{self, ENVELOPE_OVERHEAD, Letter, NoDevice};
use super::keys::{AdminKey, DeviceKey};
use super::seal::{SealKeys, Tampered};
use super::secret::{Context, Secret};
use crate::base::{Birth, BlockNumber, DatabaseId, DeviceId, PublicKey};
use zeroize::Zeroizing;

/// The present key, sealed to one device: encapsulated key 32, ciphertext 32, tag 16.
pub type KeyEnvelope = [u8; Secret::BYTES + ENVELOPE_OVERHEAD];
/// The key of an epoch under that of the next: ciphertext 32, tag 16.
pub type KeyLink = [u8; Secret::BYTES + TAG_BYTES];

/// Whose keys they are: part of all that is derived from them and sealed with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// The database.
    pub database: DatabaseId,
    /// The block.
    pub block: BlockNumber,
    /// Which life of that number.
    pub birth: Birth,
}

impl Life {
    fn parts(&self, epoch: u32) -> Vec<u8> {
        let Life { database, block, birth } = self;
        [&database.0[..], &block.0.to_le_bytes(), &birth.0, &epoch.to_le_bytes()].concat()
    }
}

/// The keys of one private block in all its epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrivateKeys {
    life: Life,
    /// The first epoch's first; at least one.
    keys: Vec<Secret>,
}

impl PrivateKeys {
    /// Those of a new block.
    pub fn generate(life: Life) -> PrivateKeys {
        PrivateKeys { life, keys: vec![Secret::random()] }
    }

    /// All keys, from the present one and the links that lead back from it.
    pub fn from_present(life: Life, present: Secret, links: &[KeyLink]) -> Result<PrivateKeys, Tampered> {
        let mut keys = vec![present];
        let mut epoch = u32::try_from(links.len()).map_err(|_| Tampered)?;
        for link in links.iter().rev() {
            let newer = keys.last().ok_or(Tampered)?;
            let older = cipher(life, newer, epoch).open(&[0; NONCE_BYTES], &[], link).ok_or(Tampered)?;
            let older = Zeroizing::new(older);
            keys.push(Secret::new(older.as_slice().try_into().map_err(|_| Tampered)?));
            epoch -= 1;
        }
        keys.reverse();
        Ok(PrivateKeys { life, keys })
    }

    /// The keys that a device can open, from the envelope that was sealed to it.
    pub fn open(
        device: &DeviceKey,
        life: Life,
        sealed: &KeyEnvelope,
        links: &[KeyLink],
    ) -> Result<PrivateKeys, Tampered> {
        let epoch = u32::try_from(links.len()).map_err(|_| Tampered)?;
        let opened = envelope::open(device, Letter::Block, &life.parts(epoch), sealed)?;
        PrivateKeys::from_opened(life, &opened, links)
    }

    /// The same for the admin.
    pub fn open_as_admin(
        admin: &AdminKey,
        life: Life,
        sealed: &KeyEnvelope,
        links: &[KeyLink],
    ) -> Result<PrivateKeys, Tampered> {
        let epoch = u32::try_from(links.len()).map_err(|_| Tampered)?;
        let opened = envelope::open_as_admin(admin, Letter::Block, &life.parts(epoch), sealed)?;
        PrivateKeys::from_opened(life, &opened, links)
    }

    fn from_opened(life: Life, opened: &[u8], links: &[KeyLink]) -> Result<PrivateKeys, Tampered> {
        let present = Zeroizing::new(<[u8; Secret::BYTES]>::try_from(opened).map_err(|_| Tampered)?);
        PrivateKeys::from_present(life, Secret::new(*present), links)
    }

    /// Begins a new epoch: what is sealed from now on does not open with the keys of before.
    pub fn turn(&mut self) {
        self.keys.push(Secret::random());
    }

    /// The number of the present epoch, from 0 on.
    pub fn epoch(&self) -> u32 {
        u32::try_from(self.keys.len()).map_or(u32::MAX, |count| count - 1)
    }

    /// The present key, sealed to a device.
    pub fn seal_to(&self, device: &DeviceId) -> Result<KeyEnvelope, NoDevice> {
        let present = self.keys.last().ok_or(NoDevice)?;
        let sealed = envelope::seal(device, Letter::Block, &self.life.parts(self.epoch()), present.expose())?;
        sealed.try_into().map_err(|_| NoDevice)
    }

    /// The present key, sealed to the admin.
    pub fn seal_to_admin(&self, admin: &PublicKey) -> Result<KeyEnvelope, NoDevice> {
        self.seal_to(&DeviceId(admin.0))
    }

    /// Each key but the last, under the next one.
    pub fn links(&self) -> Vec<KeyLink> {
        let link = |(epoch, pair): (u32, &[Secret])| {
            let mut sealed = pair[0].expose().to_vec();
            cipher(self.life, &pair[1], epoch).seal_tail(&[0; NONCE_BYTES], &[], &mut sealed, 0);
            sealed.try_into().expect("a key and a tag")
        };
        (1..).zip(self.keys.windows(2)).map(link).collect()
    }

    /// What seals and opens the block's own objects.
    pub fn seal_keys(&self) -> SealKeys {
        let Life { database, block, birth } = self.life;
        SealKeys::of_private(&self.keys, database, block, &birth).expect("there is at least one key")
    }
}

/// Seals the key before that of `epoch`, and nothing else: so its nonce is always the same.
fn cipher(life: Life, key: &Secret, epoch: u32) -> Cipher {
    Cipher::new(&key.derive(Context::PrivateLink, &[&life.parts(epoch)]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn life() -> Life {
        Life { database: DatabaseId([1; 32]), block: BlockNumber(7), birth: Birth([2; 16]) }
    }

    #[test]
    fn only_who_is_named_opens_the_keys_and_only_of_that_block() {
        let (device, other, admin) = (DeviceKey::generate(), DeviceKey::generate(), AdminKey::generate());
        let keys = PrivateKeys::generate(life());
        let sealed = keys.seal_to(&device.public()).unwrap();
        assert_eq!(PrivateKeys::open(&device, life(), &sealed, &[]), Ok(keys.clone()));
        assert!(PrivateKeys::open(&other, life(), &sealed, &[]).is_err());
        assert!(PrivateKeys::open_as_admin(&admin, life(), &sealed, &[]).is_err());
        let for_admin = keys.seal_to_admin(&admin.public()).unwrap();
        assert_eq!(PrivateKeys::open_as_admin(&admin, life(), &for_admin, &[]), Ok(keys));
        for elsewhere in [
            Life { block: BlockNumber(8), ..life() },
            Life { birth: Birth([3; 16]), ..life() },
            Life { database: DatabaseId([3; 32]), ..life() },
        ] {
            assert!(PrivateKeys::open(&device, elsewhere, &sealed, &[]).is_err());
        }
    }

    #[test]
    fn a_present_key_leads_to_all_before_it_and_an_earlier_one_to_none_after() {
        let device = DeviceKey::generate();
        let first = PrivateKeys::generate(life());
        let mut keys = first.clone();
        keys.turn();
        keys.turn();
        let (sealed, links) = (keys.seal_to(&device.public()).unwrap(), keys.links());
        assert_eq!((keys.epoch(), links.len()), (2, 2));
        assert_eq!(PrivateKeys::open(&device, life(), &sealed, &links), Ok(keys.clone()));
        // An envelope of another epoch is not taken for the present one.
        let stale = first.seal_to(&device.public()).unwrap();
        assert!(PrivateKeys::open(&device, life(), &stale, &links).is_err());
        assert!(PrivateKeys::open(&device, life(), &sealed, &links[..1]).is_err());
        let swapped = [links[1], links[0]];
        assert!(PrivateKeys::open(&device, life(), &sealed, &swapped).is_err());
        let (old, new) = (first.seal_keys(), keys.seal_keys());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let before_id = old.seal_chunk(1, 0, b"before", &mut before);
        let after_id = new.seal_chunk(1, 0, b"after", &mut after);
        assert_eq!(new.open_chunk(1, 0, &before_id, &before), Ok(b"before".to_vec()));
        assert!(old.open_chunk(1, 0, &after_id, &after).is_err());
        assert_eq!(old.boundary_key(), new.boundary_key());
        assert_ne!(old.commitment(), new.commitment());
    }
}
