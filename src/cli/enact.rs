//! An admin's change of the policy: opened, changed, signed in this process only, then given to the engine. The admin
//! seed never leaves it.

use super::context::Context;
use super::output::understood;
use super::session::Session;
use crate::base::{BlockNumber, DatabaseId, Id};
use crate::crypt::keys::AdminKey;
use crate::crypt::seal::SealKeys;
use crate::daemon::control::{Failure, FailureKind, Ground, Request};
use crate::daemon::home::Name;
use crate::record::{Charter, Floor, Mode, Policy};
use data_encoding::HEXLOWER;
use std::thread::sleep;
use std::time::Duration;

/// How often a change is made anew when the database has moved on meanwhile.
const ATTEMPTS_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(100);

/// The policy and charter in force, and what the next ones will be.
pub struct Terms {
    /// Modes by block number.
    pub modes: Vec<Mode>,
    /// Paths, owners, births, floors; members.
    pub charter: Charter,
    /// The counter of the policy in force.
    pub counter: u32,
    ground: Ground,
}

impl Terms {
    /// What is in force at an engine.
    pub fn in_force(session: &mut Session) -> Result<Terms, Failure> {
        let ground: Ground = understood(session.ask(Request::Policy)?)?;
        let unreadable = |what: &str| {
            Failure::failed(format!("the engine's {what} cannot be read; are both of one version?"))
        };
        let policy = HEXLOWER.decode(ground.policy_hex.as_bytes()).ok();
        let policy =
            policy.and_then(|bytes| Policy::decode(&bytes).ok()).ok_or_else(|| unreadable("policy"))?;
        let charter = HEXLOWER.decode(ground.charter_hex.as_bytes()).ok();
        let charter =
            charter.and_then(|bytes| Charter::decode(&bytes).ok()).ok_or_else(|| unreadable("charter"))?;
        Ok(Terms { modes: policy.modes, charter, counter: policy.counter, ground })
    }

    /// The block that a person means: by number, or by path.
    pub fn find(&self, number: Option<BlockNumber>, path: &[u8]) -> Option<BlockNumber> {
        let known = |block: &BlockNumber| self.charter.blocks.contains_key(block);
        match number {
            Some(number) => Some(number).filter(known),
            None => {
                self.charter.blocks.iter().find(|(_, block)| block.path == path).map(|(number, _)| *number)
            }
        }
    }

    /// The mode of a block.
    pub fn mode(&self, number: BlockNumber) -> Mode {
        self.modes.get(usize::from(number.0)).copied().unwrap_or(Mode::ReadWrite)
    }

    /// What a block is now: the floor for its next mode.
    pub fn floor(&self, number: BlockNumber) -> Floor {
        let block = self.ground.blocks.iter().find(|block| block.number == number.0);
        let root = block.and_then(|block| block.root.as_deref()).and_then(Id::from_hex);
        Floor { counter: block.map_or(0, |block| block.counter), root }
    }
}

/// The keys that sign a policy.
struct Admin {
    key: AdminKey,
    database: DatabaseId,
    catalogue: SealKeys,
}

/// Makes one change of the policy: `change` edits the terms in force, again if the database has moved on meanwhile, and
/// returns what the command reports.
pub fn enact<T>(
    context: &Context,
    name: &Name,
    mut change: impl FnMut(&mut Session, &mut Terms) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let keyring = context.open_keyring(name)?;
    let database = keyring.capability.database_id();
    let admin = match (keyring.capability.admin_key(), &keyring.capability.read_secret) {
        (Some(key), Some(secret)) => {
            Admin { key, database, catalogue: SealKeys::catalogue(secret, database) }
        }
        _ => {
            let held = keyring.capability.kind();
            let message =
                format!("only the admin of {name} changes its policy; this device has a {held} link");
            return Err(Failure::new(FailureKind::Refused, message));
        }
    };
    let mut session = Session::new(context, name, false)?.with_keyring(keyring);
    for attempt in 1.. {
        let mut terms = Terms::in_force(&mut session)?;
        let report = change(&mut session, &mut terms)?;
        match session.ask(admin.sign(terms)?) {
            Ok(_) => return Ok(report),
            Err(failure) if failure.kind == FailureKind::Moved && attempt < ATTEMPTS_MAX => {
                sleep(PAUSE * attempt)
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::failed(format!("{name} changes too fast for a new policy; try again")))
}

impl Admin {
    fn sign(&self, terms: Terms) -> Result<Request, Failure> {
        let Terms { modes, charter, counter, ground } = terms;
        let full = || Failure::failed("this database has had as many policies as there can be");
        let counter = counter.checked_add(1).ok_or_else(full)?;
        let bytes = charter.encode();
        let policy = Policy::sign(&self.key, &self.database, counter, charter.id(&self.catalogue), modes);
        Ok(Request::Enact {
            policy_hex: HEXLOWER.encode(&policy.encode()),
            charter_hex: HEXLOWER.encode(&bytes),
            ground,
        })
    }
}
