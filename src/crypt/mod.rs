//! Floor 1: keys, what is derived from them, and the sealing of everything that leaves memory.

pub mod keys;
pub mod record_key;
pub mod seal;
pub mod secret;

mod cipher;

pub use keys::{AdminKey, DatabaseKey, DeviceKey, database_id, verify};
pub use record_key::{Purpose, RecordKey};
pub use seal::{BlobKind, LocalKind, OpenNode, Scope, SealKeys, Tampered};
pub use secret::{Context, Secret};
