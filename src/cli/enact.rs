//! An admin's change of the policy: opened, changed, signed in this process only, then given to the engine. The admin
//! seed never leaves it.

use super::Outcome;
use super::context::Context;
use super::device::DeviceText;
use super::output::understood;
use super::private::Keyholder;
use super::session::Session;
use crate::base::{BlockNumber, DeviceId, Id};
use crate::crypt::keys::{AdminKey, DatabaseKey};
use crate::crypt::link::{Capability, Kind};
use crate::crypt::seal::{BlobKind, SealKeys};
use crate::crypt::secret::Secret;
use crate::daemon::answers::Held;
use crate::daemon::control::{Failure, FailureKind, Ground, Recutting, Request};
use crate::daemon::core::now_seconds;
use crate::daemon::home::Name;
use crate::daemon::moves::Announced;
use crate::record::{
    ANNOUNCEMENT_BYTES_MAX, Announcement, BlockCharter, Charter, Floor, Lifeline, Members, Mode, Moved,
    Policy, SignedItem, next_floor, open_lifeline, sign_lifeline,
};
use crate::torrent::{carrier_info, infohash_of};
use data_encoding::HEXLOWER;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

/// How often a change is made anew when the database has moved on meanwhile.
const ATTEMPTS_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(100);
/// A subtree that goes into a block or back is sealed again, all of it.
const RECUT_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// The policy and charter in force, and what the next ones will be.
pub struct Terms {
    /// Modes by block number.
    pub modes: Vec<Mode>,
    /// Paths, owners, births, floors; members.
    pub charter: Charter,
    /// The counter of the policy in force.
    pub counter: u32,
    /// What the policy was made from.
    pub ground: Ground,
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
        let before = self.mode(number);
        let Some(block) = self.charter.blocks.get(&number) else { return Ok(()) };
        if before != mode || block.owner != owner {
            self.raise_floor(number)?;
            if let Some(block) = self.charter.blocks.get_mut(&number) {
                block.owner = owner;
            }
        }
        self.set_mode(number, mode);
        Ok(())
    }

    /// Nothing counts any more that somebody makes around these paths, which become blocks, without knowing of that: it
    /// would lie hidden behind them.
    pub fn raise_around<'p>(&mut self, paths: impl Iterator<Item = &'p [u8]>) -> Outcome {
        let holds = |block: &BlockCharter, path: &[u8]| {
            let rest = path.strip_prefix(&block.path[..]);
            rest.is_some_and(|rest| block.path.is_empty() || rest.starts_with(b"/"))
        };
        let blocks = &self.charter.blocks;
        let around: BTreeSet<BlockNumber> = paths
            .filter_map(|path| {
                let around = blocks.iter().filter(|(_, block)| holds(block, path));
                around.max_by_key(|(_, block)| block.path.len()).map(|(number, _)| *number)
            })
            .collect();
        around.into_iter().try_for_each(|number| self.raise_floor(number))
    }

    /// What a block is now is where whatever comes begins: nothing below it counts any more.
    fn raise_floor(&mut self, number: BlockNumber) -> Outcome {
        let floor = self.floor(number).ok_or_else(|| {
            Failure::failed(format!("block {number} has changed its rules as often as it can"))
        })?;
        if let Some(block) = self.charter.blocks.get_mut(&number) {
            block.floor = floor;
        }
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

    /// The epoch of the keys in force.
    pub fn epoch(&self) -> u32 {
        self.charter.blocks.get(&BlockNumber::ROOT).map_or(0, |root| root.epoch)
    }

    /// Takes other members: what the present ones made so far stays, whoever they were.
    pub fn set_members(&mut self, members: Members) -> Outcome {
        self.raise_floors()?;
        self.charter.members = members;
        Ok(())
    }

    /// Takes the keys of another epoch for all blocks, which go on from where they are.
    fn set_epoch(&mut self, epoch: u32) -> Outcome {
        self.raise_floors()?;
        self.charter.blocks.values_mut().for_each(|block| block.epoch = epoch);
        Ok(())
    }

    /// Raises the floors of all blocks of which this device has a state.
    fn raise_floors(&mut self) -> Outcome {
        let known: Vec<_> = self.ground.blocks.iter().map(|block| BlockNumber(block.number)).collect();
        known.into_iter().try_for_each(|number| self.raise_floor(number))
    }
}

/// One who may change the policy of a database, and the line to it.
pub struct Admin<'a> {
    name: &'a Name,
    key: AdminKey,
    capability: Capability,
    device: DeviceId,
    catalogue: SealKeys,
    session: Session<'a>,
}

impl<'a> Admin<'a> {
    /// Opens the admin key; refused where this device does not have it.
    pub fn open(context: &'a Context, name: &'a Name) -> Result<Admin<'a>, Failure> {
        Admin::open_to(context, name, false)
    }

    /// The same for a command that needs the network where no engine runs.
    pub fn open_to(context: &'a Context, name: &'a Name, network: bool) -> Result<Admin<'a>, Failure> {
        let keyring = context.open_keyring(name)?;
        let capability = keyring.capability.clone();
        let catalogue = SealKeys::catalogue_of(&capability.read_secrets(), capability.database_id());
        let Some((key, catalogue)) = capability.admin_key().zip(catalogue) else {
            let held = capability.kind();
            let message =
                format!("only the admin of {name} changes its policy; this device has a {held} link");
            return Err(Failure::new(FailureKind::Refused, message));
        };
        let device = keyring.device.public();
        let session = Session::new(context, name, network)?.with_keyring(keyring);
        Ok(Admin { name, key, capability, device, catalogue, session })
    }

    /// The device that this command runs at.
    pub fn own_device(&self) -> DeviceId {
        self.device
    }

    /// Who opens private blocks and seals their keys.
    pub fn keyholder(&self) -> Keyholder {
        Keyholder::new(self.key.clone(), self.capability.database_id())
    }

    /// The line to the database.
    pub fn session(&mut self) -> &mut Session<'a> {
        &mut self.session
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
        let private = charter.blocks.values().filter_map(|block| block.private.as_ref());
        known.extend(private.flat_map(|private| private.readers.keys()));
        if let Members::Listed(members) = &charter.members {
            known.extend(members);
        }
        text.among(&known)
    }

    /// Makes sure that there is a directory at each path; tells whether all of them are empty.
    pub fn prepare<'p>(&mut self, paths: impl IntoIterator<Item = &'p [u8]>) -> Result<bool, Failure> {
        let paths_hex = paths.into_iter().map(|path| HEXLOWER.encode(path)).collect();
        Ok(self.session.ask(Request::Prepare { paths_hex })?["empty"] == true)
    }

    /// Makes one change: `change` edits the terms in force, again if the database has moved on meanwhile, and returns
    /// what the command reports.
    pub fn enact<T>(&mut self, change: impl FnMut(&mut Terms) -> Result<T, Failure>) -> Result<T, Failure> {
        self.enact_with(change, |_, terms| Ok(terms))
    }

    /// The same for a change that moves a border between blocks: the engine makes the maps on both sides first, which are
    /// the floors of these blocks.
    pub fn recut<T>(&mut self, change: impl FnMut(&mut Terms) -> Result<T, Failure>) -> Result<T, Failure> {
        self.enact_with(change, |session, mut terms| {
            let charter_hex = HEXLOWER.encode(&terms.charter.encode());
            let answer = session.ask_within(Request::Recut { charter_hex }, RECUT_DEADLINE)?;
            let Recutting { ground, floors } = understood(answer)?;
            let same = ground.policy_hex == terms.ground.policy_hex;
            if !same || ground.charter_hex != terms.ground.charter_hex {
                return Err(Failure::new(FailureKind::Moved, "the policy has changed meanwhile"));
            }
            terms.ground = ground;
            for floor in floors {
                if let Some(block) = terms.charter.blocks.get_mut(&BlockNumber(floor.number)) {
                    let root = floor.root.as_deref().and_then(Id::from_hex);
                    block.floor = Floor { counter: floor.counter, root };
                }
            }
            Ok(terms)
        })
    }

    fn enact_with<T>(
        &mut self,
        mut change: impl FnMut(&mut Terms) -> Result<T, Failure>,
        prepare: impl Fn(&mut Session<'a>, Terms) -> Result<Terms, Failure>,
    ) -> Result<T, Failure> {
        for attempt in 1..=ATTEMPTS_MAX {
            let mut terms = self.terms()?;
            let report = change(&mut terms)?;
            let prepared = prepare(&mut self.session, terms);
            let enacted = match prepared {
                Ok(terms) => self.sign(terms).and_then(|request| self.session.ask(request)),
                Err(failure) => Err(failure),
            };
            match enacted {
                Ok(_) => return Ok(report),
                Err(failure) if failure.kind == FailureKind::Moved => sleep(PAUSE * attempt),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::failed(format!("{} changes too fast for a new policy to be made; try again", self.name)))
    }

    /// Moves the database to new keys, which these devices are given besides this one. Returns how many rotations there were.
    pub fn rotate(&mut self, recipients: &[(DeviceId, Kind)]) -> Result<u32, Failure> {
        // One set of keys for all attempts: none of them has come into force until one has.
        let (database, secret) = (DatabaseKey::generate(), Secret::random());
        let mut to: Vec<_> =
            recipients.iter().copied().filter(|(device, _)| *device != self.device).collect();
        to.push((self.device, Kind::Write));
        for attempt in 1..=ATTEMPTS_MAX {
            let terms = self.terms()?;
            self.moved(&terms.ground)?;
            let counter = next(terms.counter)?;
            let successor = self.capability.rotated(&database, secret.clone(), counter);
            let successor = successor
                .ok_or_else(|| Failure::failed("this database has had as many rotations as there can be"))?;
            let request = self.announce(terms, counter, &successor, &to)?;
            match self.session.ask(request) {
                Ok(_) => return Ok(successor.generation()),
                Err(failure) if failure.kind == FailureKind::Moved => sleep(PAUSE * attempt),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::failed(format!("{} changes too fast to be moved to new keys; try again", self.name)))
    }

    /// The rotation as the engine takes it: every block goes on from where it is, under a key of the new epoch.
    fn announce(
        &self,
        mut terms: Terms,
        counter: u32,
        successor: &Capability,
        to: &[(DeviceId, Kind)],
    ) -> Result<Request, Failure> {
        terms.set_epoch(successor.generation())?;
        // Who is left out reads nothing newer of private blocks either.
        let reads = |device: &DeviceId| to.iter().any(|(kept, kind)| kept == device && *kind != Kind::Mirror);
        let keyholder = self.keyholder();
        for (number, block) in &mut terms.charter.blocks {
            keyholder.shut_out((*number, block), reads)?;
        }
        let charter = terms.charter.clone();
        charter.check().map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        let database = successor.database_id();
        let catalogue = SealKeys::catalogue_of(&successor.read_secrets(), database);
        let catalogue = catalogue.ok_or_else(|| Failure::failed("there is nothing to read with"))?;
        let id = catalogue.blob_id(BlobKind::Charter, &charter.encode());
        let policy = Policy::sign(&self.key, &database, counter, id, terms.modes);
        let announcement = Announcement::new(successor, to, &policy, &charter).map_err(|error| {
            Failure::new(
                FailureKind::Usage,
                format!("the new keys cannot be sealed to one of the devices: {error}"),
            )
        })?;
        let content = announcement.encode();
        if content.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(Failure::failed("there are more devices than an announcement can name"));
        }
        let info = carrier_info(&content);
        let moved = Moved {
            generation: successor.generation(),
            infohash: infohash_of(&info),
            digest: Announcement::digest(&content),
        };
        let item = sign_lifeline(&self.key, &successor.record_keys(), Some(&moved), &policy, now_seconds());
        let announced_hex = HEXLOWER.encode(&Announced { item, info }.encode());
        Ok(Request::Rotate { announced_hex, ground: terms.ground })
    }

    /// The last rotation, which every lifeline repeats. Refused where this device has not followed it yet, or knows nothing of one
    /// that there was.
    fn moved(&self, ground: &Ground) -> Result<Option<Moved>, Failure> {
        let item = ground.lifeline_hex.as_deref().and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
        let item = item.and_then(|bytes| SignedItem::decode(&bytes).ok());
        let (admin, records) = (&self.capability.admin_public, self.capability.record_keys());
        let lifeline =
            item.and_then(|item| open_lifeline(&item, admin, &records, &self.capability.database_id()));
        let generation = lifeline.as_ref().map_or(0, Lifeline::generation);
        if generation != self.capability.generation() {
            return Err(Failure::failed(format!(
                "this device does not know the last change of the keys of {} yet: `kilofs sync {}`, then try again",
                self.name, self.name
            )));
        }
        Ok(lifeline.and_then(|lifeline| lifeline.moved))
    }

    fn sign(&self, terms: Terms) -> Result<Request, Failure> {
        let Terms { modes, charter, counter, ground } = terms;
        let counter = next(counter)?;
        charter.check().map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        let bytes = charter.encode();
        let id = self.catalogue.blob_id(BlobKind::Charter, &bytes);
        let policy = Policy::sign(&self.key, &self.capability.database_id(), counter, id, modes);
        let moved = self.moved(&ground)?;
        let lifeline =
            sign_lifeline(&self.key, &self.capability.record_keys(), moved.as_ref(), &policy, now_seconds());
        Ok(Request::Enact {
            policy_hex: HEXLOWER.encode(&policy.encode()),
            charter_hex: HEXLOWER.encode(&bytes),
            ground,
            lifeline_hex: HEXLOWER.encode(&lifeline.encode()),
        })
    }
}

fn next(counter: u32) -> Result<u32, Failure> {
    counter
        .checked_add(1)
        .ok_or_else(|| Failure::failed("this database has had as many policies as there can be"))
}
