//! What a running engine holds of the keyring: the device key, the read secret, the database seed. Never the
//! passphrase, and the admin seed only where a mount was asked to write as admin. They lie in locked memory where the system
//! allows it.

use crate::base::{BlockNumber, DatabaseId, PublicKey};
use crate::crypt::keyring::Keyring;
use crate::crypt::keys::{AdminKey, DatabaseKey, DeviceKey};
use crate::crypt::link::{Capability, Kind};
use crate::crypt::locked::Locked;
use crate::crypt::log_key::LogKey;
use crate::crypt::record_key::RecordKey;
use crate::crypt::seal::SealKeys;
use crate::crypt::secret::Secret;
use crate::crypt::{Life, OneBlock, PrivateKeys};
use crate::record::BlockCharter;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The keys of a database in one engine: after a rotation those of the last one. Earlier ones stay until the engine ends, so
/// that whoever is at work with them finishes.
pub struct KeyRing(Locked<Keys>);

impl KeyRing {
    /// Begins with the keys of a keyring; see [`Keys::take`].
    pub fn new(keyring: Keyring, held: Kind, as_admin: bool) -> KeyRing {
        KeyRing(Locked::new(Keys::take(keyring, held, as_admin)))
    }

    /// Goes on with the keys that follow.
    pub fn turn(&self, next: Keys) {
        let next = Box::new(Locked::new(next));
        // Two at once would be two rotations at once, and each is followed under one lock.
        _ = self.next.set(next);
    }
}

impl Deref for KeyRing {
    type Target = Keys;

    fn deref(&self) -> &Keys {
        let mut keys = &self.0;
        while let Some(next) = keys.next.get() {
            keys = next;
        }
        keys
    }
}

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
    /// Seals what stays on this device: the first record key, whatever came since.
    pub local: RecordKey,
    /// The record keys of all generations, the first one first.
    pub records: Vec<RecordKey>,
    /// A rotation came after these keys that did not give this device new ones.
    pub left_out: AtomicBool,
    read_secrets: Vec<Secret>,
    one_block: Option<OneBlock>,
    next: OnceLock<Box<Locked<Keys>>>,
}

impl Keys {
    /// Takes what an engine needs and drops the rest.
    pub fn take(keyring: Keyring, held: Kind, as_admin: bool) -> Keys {
        let Keyring { capability, device, .. } = keyring;
        let admin = if as_admin { capability.admin_key() } else { None };
        let kind = if held == Kind::Admin { held } else { capability.kind() };
        Keys::of(capability, device, kind, admin)
    }

    /// The keys of the same device after a rotation.
    pub fn after(&self, successor: Capability) -> Keys {
        let kind = if self.kind == Kind::Admin { Kind::Admin } else { successor.kind() };
        Keys::of(successor, self.device.clone(), kind, self.admin.clone())
    }

    fn of(capability: Capability, device: DeviceKey, kind: Kind, admin: Option<AdminKey>) -> Keys {
        let database = capability.database_id();
        let (records, read_secrets) = (capability.record_keys(), capability.read_secrets());
        let one_block = capability.one_block.clone();
        let of_one = one_block.as_ref().map(|one_block| one_block.catalogue(database));
        Keys {
            database,
            admin_public: capability.admin_public,
            database_public: capability.database_public,
            // What never leaves this device need not change its key.
            log: read_secrets.first().map(LogKey::of),
            local: records.first().unwrap_or(&capability.record_key).clone(),
            catalogue: SealKeys::catalogue_of(&read_secrets, database).or(of_one),
            database_key: capability.database_key(),
            device,
            admin,
            kind,
            floor: (capability.policy_counter, capability.seq),
            record: capability.record_key,
            records,
            left_out: AtomicBool::new(false),
            read_secrets,
            one_block,
            next: OnceLock::new(),
        }
    }

    /// How many rotations these keys know of.
    pub fn generation(&self) -> u32 {
        u32::try_from(self.records.len()).map_or(u32::MAX, |count| count.saturating_sub(1))
    }

    /// The keys of a block, where this device can read.
    pub fn block(&self, number: BlockNumber, block: &BlockCharter) -> Option<SealKeys> {
        if let Some(one_block) = &self.one_block {
            return one_block.keys(self.database, number, &block.birth, block.epoch);
        }
        let generations = self.read_secrets.get(..=usize::try_from(block.epoch).ok()?)?;
        SealKeys::of_generations(generations, self.database, number, &block.birth)
    }

    /// The keys of what is inside a private block, where they were sealed to this device or to the admin that it is.
    pub fn private(&self, number: BlockNumber, block: &BlockCharter) -> Option<SealKeys> {
        let private = block.private.as_ref()?;
        let life = Life { database: self.database, block: number, birth: block.birth };
        let own = private.readers.get(&self.device.public());
        let own = own.and_then(|sealed| PrivateKeys::open(&self.device, life, sealed, &private.links).ok());
        let as_admin = || {
            let admin = self.admin.as_ref()?;
            PrivateKeys::open_as_admin(admin, life, &private.admin, &private.links).ok()
        };
        own.or_else(as_admin).map(|keys| keys.seal_keys())
    }

    /// The only block that this device was given a key for, where it was not given all.
    pub fn one_block(&self) -> Option<BlockNumber> {
        self.one_block.as_ref().map(|one_block| one_block.number)
    }

    /// The present read secret; absent at a mirror.
    pub fn read_secret(&self) -> Option<&Secret> {
        self.read_secrets.last()
    }

    /// Whether what this device writes can reach anybody.
    pub fn reaches_others(&self) -> bool {
        self.publishes() && !self.left_out.load(Ordering::Relaxed)
    }

    /// Whether this device may publish.
    pub fn publishes(&self) -> bool {
        self.database_key.is_some()
    }
}
