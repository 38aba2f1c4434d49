//! An admin's change of the policy: opened, changed, signed in this process only, then given to the engine. The admin
//! seed never leaves it.

use super::Outcome;
use super::context::Context;
use super::device::DeviceText;
use super::output::understood;
use super::session::Session;
use crate::base::{BlockNumber, DatabaseId, DeviceId, Id};
use crate::crypt::RecordKey;
use crate::crypt::keys::AdminKey;
use crate::crypt::seal::{BlobKind, SealKeys};
use crate::daemon::answers::Held;
use crate::daemon::control::{Failure, FailureKind, Ground, Request};
use crate::daemon::core::now_seconds;
use crate::daemon::home::Name;
use crate::record::{Charter, Floor, Members, Mode, Policy, next_floor, sign_lifeline};
use data_encoding::HEXLOWER;
use std::collections::BTreeSet;
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
    /// What is in force at a database.
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

    /// Gives a block a mode.
    pub fn set_mode(&mut self, number: BlockNumber, mode: Mode) {
        let index = usize::from(number.0);
        if self.modes.len() <= index {
            self.modes.resize(index + 1, Mode::ReadWrite);
        }
        self.modes[index] = mode;
    }

    /// The path of a block, empty for the root and for one that does not exist.
    pub fn path(&self, number: BlockNumber) -> &[u8] {
        self.charter.blocks.get(&number).map_or(b"", |block| &block.path)
    }

    /// Gives a block a mode, and the owner that goes with it. Where that is a change, nothing older counts from here on:
    /// what the block is now is where its new rules begin.
    pub fn set_rules(&mut self, number: BlockNumber, mode: Mode, owner: Option<DeviceId>) -> Outcome {
        let floor = self.floor(number);
        let before = self.mode(number);
        let Some(block) = self.charter.blocks.get_mut(&number) else { return Ok(()) };
        if before != mode || block.owner != owner {
            block.floor = floor.ok_or_else(|| {
                Failure::failed(format!("block {number} has changed its rules as often as it can"))
            })?;
            block.owner = owner;
        }
        self.set_mode(number, mode);
        Ok(())
    }

    /// The floor over what a block is now; none where its counter has come to the end.
    fn floor(&self, number: BlockNumber) -> Option<Floor> {
        let ground = self.ground.blocks.iter().find(|block| block.number == number.0);
        let root = ground.and_then(|block| block.root.as_deref()).and_then(Id::from_hex);
        let below = self.charter.blocks.get(&number).map_or(0, |block| block.floor.counter);
        let counter = next_floor(ground.map_or(0, |block| block.counter).max(below))?;
        Some(Floor { counter, root })
    }
}

/// One who may change the policy of a database, and the line to it.
pub struct Admin<'a> {
    name: &'a Name,
    key: AdminKey,
    database: DatabaseId,
    device: DeviceId,
    catalogue: SealKeys,
    record_key: RecordKey,
    session: Session<'a>,
}

impl<'a> Admin<'a> {
    /// Opens the admin key; refused where this device does not have it.
    pub fn open(context: &'a Context, name: &'a Name) -> Result<Admin<'a>, Failure> {
        let keyring = context.open_keyring(name)?;
        let database = keyring.capability.database_id();
        let keys = keyring.capability.admin_key().zip(keyring.capability.read_secret.as_ref());
        let Some((key, secret)) = keys else {
            let held = keyring.capability.kind();
            let message =
                format!("only the admin of {name} changes its policy; this device has a {held} link");
            return Err(Failure::new(FailureKind::Refused, message));
        };
        let catalogue = SealKeys::catalogue(secret, database);
        let record_key = keyring.capability.record_key.clone();
        let device = keyring.device.public();
        let session = Session::new(context, name, false)?.with_keyring(keyring);
        Ok(Admin { name, key, database, device, catalogue, record_key, session })
    }

    /// What is in force.
    pub fn terms(&mut self) -> Result<Terms, Failure> {
        Terms::in_force(&mut self.session)
    }

    /// The bytes and files that a block holds.
    pub fn holds(&mut self, block: BlockNumber) -> Result<(u64, u64), Failure> {
        let held: Held = understood(self.session.ask(Request::Holds { block: block.0 })?)?;
        Ok((held.bytes, held.files))
    }

    /// The device that a person means.
    pub fn device(&mut self, text: &DeviceText) -> Result<DeviceId, Failure> {
        let own = self.device;
        if let Some(device) = text.exact(own) {
            return Ok(device);
        }
        let published: Vec<String> = understood(self.session.ask(Request::Devices)?)?;
        let mut known: BTreeSet<DeviceId> =
            published.iter().filter_map(|device| DeviceId::from_hex(device)).collect();
        let charter = self.terms()?.charter;
        known.insert(own);
        known.extend(charter.blocks.values().filter_map(|block| block.owner));
        if let Members::Listed(members) = &charter.members {
            known.extend(members);
        }
        text.among(&known)
    }

    /// Makes sure that there is an empty directory at each path.
    pub fn prepare<'p>(&mut self, paths: impl IntoIterator<Item = &'p [u8]>) -> Result<(), Failure> {
        let paths_hex = paths.into_iter().map(|path| HEXLOWER.encode(path)).collect();
        self.session.ask(Request::Prepare { paths_hex }).map(drop)
    }

    /// Makes one change: `change` edits the terms in force, again if the database has moved on meanwhile, and returns
    /// what the command reports.
    pub fn enact<T>(
        &mut self,
        mut change: impl FnMut(&mut Terms) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        for attempt in 1..=ATTEMPTS_MAX {
            let mut terms = self.terms()?;
            let report = change(&mut terms)?;
            match self.session.ask(self.sign(terms)?) {
                Ok(_) => return Ok(report),
                Err(failure) if failure.kind == FailureKind::Moved => sleep(PAUSE * attempt),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::failed(format!("{} changes too fast for a new policy to be made; try again", self.name)))
    }

    fn sign(&self, terms: Terms) -> Result<Request, Failure> {
        let Terms { modes, charter, counter, ground } = terms;
        let full = || Failure::failed("this database has had as many policies as there can be");
        let counter = counter.checked_add(1).ok_or_else(full)?;
        charter.check().map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        let bytes = charter.encode();
        let id = self.catalogue.blob_id(BlobKind::Charter, &bytes);
        let policy = Policy::sign(&self.key, &self.database, counter, id, modes);
        let lifeline = sign_lifeline(&self.key, &self.record_key, &policy, now_seconds());
        Ok(Request::Enact {
            policy_hex: HEXLOWER.encode(&policy.encode()),
            charter_hex: HEXLOWER.encode(&bytes),
            ground,
            lifeline_hex: HEXLOWER.encode(&lifeline.encode()),
        })
    }
}
