//! An admin's change of the policy: opened, changed, signed in this process only, then given to the engine. The admin
//! seed never leaves it.

use super::Outcome;
use super::context::Context;
use super::device::DeviceText;
use super::output::understood;
use super::private::Keyholder;
use super::session::Session;
use crate::base::{BlockNumber, DeviceId};
use crate::crypt::keys::{AdminKey, DatabaseKey};
use crate::crypt::link::{Capability, Kind};
use crate::crypt::seal::{BlobKind, SealKeys};
use crate::crypt::secret::Secret;
use crate::daemon::answers::Held;
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::core::now_seconds;
use crate::daemon::home::Name;
use crate::daemon::item::Item;
use crate::daemon::moves::Announced;
use crate::daemon::own::Lost;
use crate::daemon::terms::{Pen, Terms, next};
use crate::record::{ANNOUNCEMENT_BYTES_MAX, Announcement, Members, Moved, Policy, sign_lifeline};
use crate::torrent::{carrier_info, infohash_of};
use data_encoding::HEXLOWER;
use std::collections::BTreeSet;
use std::fmt;
use std::thread::sleep;
use std::time::Duration;

/// How often a change is made anew when the database has moved on meanwhile.
const ATTEMPTS_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(100);
/// A subtree that goes into a block or back is sealed again, all of it.
const RECUT_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What came of making something again.
pub struct Remade {
    /// What it says.
    pub words: String,
    /// Why it could not be made.
    pub hindered: Option<String>,
}

impl fmt::Display for Remade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hindered {
            None => {
                write!(f, "made again, since another admin device's policy had left it out: {}", self.words)
            }
            Some(why) => write!(f, "not in force, and could not be made again: {}: {why}", self.words),
        }
    }
}

/// What is in force at a database.
pub fn in_force(session: &mut Session) -> Result<Terms, Failure> {
    Terms::of(understood(session.ask(Request::Policy)?)?)
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
        Admin::open_whole(context, name, false)
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

    /// The same, and makes again first what was lost to another admin device's policy, so that nothing is changed on top of
    /// less than what was said here.
    pub fn open_whole(context: &'a Context, name: &'a Name, network: bool) -> Result<Admin<'a>, Failure> {
        let mut admin = Admin::open_to(context, name, network)?;
        for remade in admin.redo(false)? {
            context.output.note(&format!("kilofs: {remade}"));
        }
        Ok(admin)
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
        in_force(&mut self.session)
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

    /// Makes again what this device changed and another admin device's policy left out, unless that may have been on purpose:
    /// with `all` that too.
    pub fn redo(&mut self, all: bool) -> Result<Vec<Remade>, Failure> {
        let lost: Vec<Lost> = understood(self.session.ask(Request::Lost)?)?;
        let mut remade = Vec::new();
        for lost in lost.into_iter().filter(|lost| all || lost.unknown) {
            let (words, item) = (lost.item.in_words(), lost.item);
            let hindered = self.make_again(&item).err().map(|failure| failure.message);
            remade.push(Remade { words, hindered });
        }
        Ok(remade)
    }

    fn make_again(&mut self, item: &Item) -> Outcome {
        let directory = item.directory(&self.terms()?.charter);
        let empty = directory.map_or(Ok(true), |path| self.prepare([path.as_slice()]))?;
        let change = |terms: &mut Terms| item.apply(terms);
        if empty { self.enact(change) } else { self.recut(change) }
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
            terms.behind(understood(answer)?)?;
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
                Ok(terms) => self.pen(|pen| pen.sign(terms)).and_then(|request| self.session.ask(request)),
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
            self.pen(|pen| pen.moved(&terms.ground))?;
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

    fn pen<T>(&self, with: impl FnOnce(&Pen<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let (records, database) = (self.capability.record_keys(), self.capability.database_id());
        with(&Pen { admin: &self.key, records: &records, catalogue: &self.catalogue, database })
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
}
