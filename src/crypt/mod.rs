//! Floor 1: keys, what is derived from them, and the sealing of everything that leaves memory.

pub mod channel;
pub mod envelope;
pub mod keyring;
pub mod keys;
pub mod link;
pub mod locked;
pub mod log_key;
pub mod record_key;
pub mod recovery;
pub mod seal;
pub mod secret;
pub mod successor;

mod capability;
mod cipher;
mod one_block;
mod passphrase;
mod private;

pub use capability::{Capability, GENERATIONS_MAX, Kind};
pub use keyring::{Keyring, KeyringError};
pub use keys::{AdminKey, DatabaseKey, DeviceKey, database_id, verify};
pub use link::LinkError;
pub use one_block::OneBlock;
pub use passphrase::Argon2Cost;
pub use private::{KeyEnvelope, KeyLink, Life, PrivateKeys};
pub use record_key::{Purpose, RecordKey};
pub use seal::{BLOB_OVERHEAD, BlobKind, LocalKind, NODE_OVERHEAD, OpenNode, Scope, SealKeys, Tampered};
pub use secret::{Context, Secret};
