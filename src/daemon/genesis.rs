//! The first state of a database at a device.

use super::control::Failure;
use super::core::{now_seconds, random};
use super::error::EngineError;
use super::home::DatabasePaths;
use super::state::State;
use crate::base::{Id, SessionId, Signature};
use crate::crypt::keyring::Keyring;
use crate::crypt::seal::{BlobKind, LocalKind, SealKeys};
use crate::image::{FileDisk, Store};
use crate::record::{Charter, Mode, Policy, genesis_charter, sign_lifeline};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes the store of a database that was just created or joined. Where the keyring can, it signs the first policy.
pub fn initialise(paths: &DatabasePaths, keyring: &Keyring) -> Result<(), Failure> {
    make_store(paths, keyring).map_err(Failure::from)
}

/// Opens the store, or what is left of it.
pub(super) fn open_store(paths: &DatabasePaths, rescue: bool) -> Result<Arc<Store>, EngineError> {
    let disk = Arc::new(FileDisk::open(&paths.store)?);
    Ok(if rescue { Store::rescue(disk)? } else { Store::open(disk)? })
}

pub(super) fn make_store(paths: &DatabasePaths, keyring: &Keyring) -> Result<(), EngineError> {
    let capability = &keyring.capability;
    let database = capability.database_id();
    let mut charter = genesis_charter(&database);
    // Who joins after a rotation seals nothing under what came before it.
    charter.blocks.values_mut().for_each(|block| block.epoch = capability.generation());
    let first = capability.policy_counter == 0;
    let (policy, lifeline) = match (&capability.read_secret, capability.admin_key()) {
        (Some(secret), Some(admin)) if first => {
            let keys = SealKeys::catalogue(secret, database);
            let id = charter_id(&keys, &charter);
            let policy = Policy::sign(&admin, &database, 1, id, vec![Mode::ReadWrite]);
            let lifeline = sign_lifeline(&admin, &capability.record_keys(), None, &policy, now_seconds());
            (policy, Some(lifeline))
        }
        _ => (unknown_policy(), None),
    };
    let state = State {
        session: SessionId(random()?),
        counter_reserved: 1,
        lamport: 0,
        accepted: None,
        lifeline,
        policy,
        charter,
        head: None,
        heads: Vec::new(),
        roots: BTreeMap::new(),
        mark: Default::default(),
        pending: first,
        conflicts: Default::default(),
        refusals: Default::default(),
    };
    let store = Store::create(Arc::new(FileDisk::create(&paths.store)?), database)?;
    let local = capability.record_keys().swap_remove(0);
    let sealed = local.seal_local(LocalKind::State, &state.encode(&[]));
    store.commit(&[], &sealed)?;
    Ok(())
}

/// The policy of a device that has not heard of any: block 0 is writable, counter 0 loses against every signed one,
/// and nothing is published under it.
fn unknown_policy() -> Policy {
    Policy { counter: 0, charter: Id([0; 32]), signature: Signature([0; 64]), modes: vec![Mode::ReadWrite] }
}

/// The id under which a policy names a charter.
pub fn charter_id(keys: &SealKeys, charter: &Charter) -> Id {
    keys.blob_id(BlobKind::Charter, &charter.encode())
}
