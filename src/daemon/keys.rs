//! What a running engine holds of the keyring: the device key, the read secret, the database seed. Never the
//! passphrase, and the admin seed only where a mount was asked to write as admin. They lie in locked memory where the system
//! allows it.

use crate::base::{BlockNumber, DatabaseId, PublicKey};
use crate::crypt::OneBlock;
use crate::crypt::keyring::Keyring;
use crate::crypt::keys::{AdminKey, DatabaseKey, DeviceKey};
use crate::crypt::link::Kind;
use crate::crypt::locked::Locked;
use crate::crypt::log_key::LogKey;
use crate::crypt::record_key::RecordKey;
use crate::crypt::seal::SealKeys;
use crate::crypt::secret::Secret;
use crate::record::BlockCharter;

/// The keys of one database in one engine.
pub struct Keys {
    /// The database.
    pub database: DatabaseId,
    /// Who signs policies.
    pub admin_public: PublicKey,
    /// Under which key the record lies.
    pub database_public: PublicKey,
    /// Opens and seals the record.
    pub record: RecordKey,
    /// Seals the intent log; absent at a mirror, and where one block is all that can be read: there nothing is changed.
    pub log: Option<LogKey>,
    /// Opens and seals catalogue, charter and commits; absent at a mirror.
    pub catalogue: Option<SealKeys>,
    /// Signs the record; absent where the capability is `read` or `mirror`.
    pub database_key: Option<DatabaseKey>,
    /// Signs commits and entries.
    pub device: DeviceKey,
    /// Signs entries of read-only blocks.
    pub admin: Option<AdminKey>,
    /// The capability that the device holds; what this engine was given of it may be less.
    pub kind: Kind,
    /// No record below these is accepted: the link said so when it was made.
    pub floor: (u32, i64),
    read_secret: Option<Secret>,
    one_block: Option<OneBlock>,
}

impl Keys {
    /// Takes what an engine needs and drops the rest.
    pub fn take(keyring: Keyring, held: Kind, as_admin: bool) -> Locked<Keys> {
        let Keyring { capability, device, .. } = keyring;
        let database = capability.database_id();
        let read_secret = capability.read_secret.clone();
        let one_block = capability.one_block.clone();
        let of_all = read_secret.as_ref().map(|secret| SealKeys::catalogue(secret, database));
        let of_one = one_block.as_ref().map(|one_block| one_block.catalogue(database));
        Locked::new(Keys {
            database,
            admin_public: capability.admin_public,
            database_public: capability.database_public,
            log: read_secret.as_ref().map(LogKey::of),
            catalogue: of_all.or(of_one),
            database_key: capability.database_key(),
            device,
            admin: if as_admin { capability.admin_key() } else { None },
            kind: held,
            floor: (capability.policy_counter, capability.seq),
            record: capability.record_key,
            read_secret,
            one_block,
        })
    }

    /// The keys of a block, where this device can read.
    pub fn block(&self, number: BlockNumber, block: &BlockCharter) -> Option<SealKeys> {
        if let Some(secret) = &self.read_secret {
            return Some(SealKeys::for_block(secret, self.database, number, &block.birth, block.epoch));
        }
        self.one_block.as_ref()?.keys(self.database, number, &block.birth, block.epoch)
    }

    /// The only block that this device was given a key for, where it was not given all.
    pub fn one_block(&self) -> Option<BlockNumber> {
        self.one_block.as_ref().map(|one_block| one_block.number)
    }

    /// Whether this device may publish.
    pub fn publishes(&self) -> bool {
        self.database_key.is_some()
    }
}
