//! Who can open a private block. Its keys are opened with the admin key and sealed anew here, in the command's own process.

use super::Outcome;
use super::context::Context;
use super::device::DeviceText;
use super::enact::Admin;
use super::output::{short, shown};
use super::policy::which;
use crate::base::{Birth, BlockNumber, DatabaseId, DeviceId};
use crate::crypt::keys::AdminKey;
use crate::crypt::{KeyEnvelope, Life, PrivateKeys};
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::home::Name;
use crate::daemon::terms::Terms;
use crate::record::{BlockCharter, LINKS_MAX, Mode, Private, READERS_MAX};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

/// Holds the key that opens all private blocks of a database.
pub struct Keyholder {
    admin: AdminKey,
    database: DatabaseId,
}

impl Keyholder {
    /// Whoever holds the admin key.
    pub fn new(admin: AdminKey, database: DatabaseId) -> Keyholder {
        Keyholder { admin, database }
    }

    /// The keys of a new block, sealed to those who may read it.
    pub fn first(
        &self,
        block: BlockNumber,
        birth: Birth,
        readers: &BTreeSet<DeviceId>,
    ) -> Result<Private, Failure> {
        self.seal(&PrivateKeys::generate(self.life(block, birth)), readers)
    }

    /// Lets devices open a block; those that can already stay as they are.
    pub fn admit(&self, terms: &mut Terms, number: BlockNumber, devices: &[DeviceId]) -> Outcome {
        let Some(block) = terms.charter.blocks.get_mut(&number) else { return Ok(()) };
        let Some(private) = &block.private else { return Ok(()) };
        let new: Vec<&DeviceId> =
            devices.iter().filter(|device| !private.readers.contains_key(device)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let keys = self.open(number, block.birth, private)?;
        let mut readers = private.readers.clone();
        for device in new {
            readers.insert(*device, envelope(&keys, device)?);
        }
        ensure_room(readers.len(), private.links.len())?;
        block.private = Some(Private { readers, ..private.clone() });
        Ok(())
    }

    /// Takes those of a block's readers away that do not stay; then what is written from now on is under a new key. Whether
    /// there was one.
    pub fn shut_out(
        &self,
        block: (BlockNumber, &mut BlockCharter),
        stays: impl Fn(&DeviceId) -> bool,
    ) -> Result<bool, Failure> {
        let (number, block) = block;
        let Some(private) = &block.private else { return Ok(false) };
        let readers: BTreeSet<DeviceId> =
            private.readers.keys().copied().filter(|device| stays(device)).collect();
        if readers.len() == private.readers.len() {
            return Ok(false);
        }
        let mut keys = self.open(number, block.birth, private)?;
        keys.turn();
        block.private = Some(self.seal(&keys, &readers)?);
        Ok(true)
    }

    fn life(&self, block: BlockNumber, birth: Birth) -> Life {
        Life { database: self.database, block, birth }
    }

    fn open(&self, number: BlockNumber, birth: Birth, private: &Private) -> Result<PrivateKeys, Failure> {
        let life = self.life(number, birth);
        PrivateKeys::open_as_admin(&self.admin, life, &private.admin, &private.links).map_err(|_| {
            Failure::failed(format!("the key of block {number} does not open with the admin key"))
        })
    }

    fn seal(&self, keys: &PrivateKeys, readers: &BTreeSet<DeviceId>) -> Result<Private, Failure> {
        let admin =
            keys.seal_to_admin(&self.admin.public()).map_err(|error| Failure::failed(error.to_string()))?;
        let sealed = readers.iter().map(|device| Ok((*device, envelope(keys, device)?)));
        let readers: BTreeMap<DeviceId, KeyEnvelope> = sealed.collect::<Result<_, Failure>>()?;
        let links = keys.links();
        ensure_room(readers.len(), links.len())?;
        Ok(Private { links, admin, readers })
    }
}

fn envelope(keys: &PrivateKeys, device: &DeviceId) -> Result<KeyEnvelope, Failure> {
    let refused = |error| Failure::new(FailureKind::Usage, format!("{device}: {error}"));
    keys.seal_to(device).map_err(refused)
}

fn ensure_room(readers: usize, links: usize) -> Outcome {
    if readers > READERS_MAX {
        return Err(Failure::failed(format!("at most {READERS_MAX} devices can open a private block")));
    }
    if links > LINKS_MAX {
        return Err(Failure::failed(format!("a private block has had at most {LINKS_MAX} new keys")));
    }
    Ok(())
}

/// Refuses for a private block what only those could do who can open it, and others would have to.
pub fn ensure_mode(mode: Mode) -> Outcome {
    match mode {
        Mode::Owner | Mode::ReadOnly => Ok(()),
        Mode::ReadWrite | Mode::Append => Err(Failure::new(
            FailureKind::Usage,
            format!(
                "a private block is owner or ro, not {mode}: what several devices change at once is merged by any of them, and most \
                 cannot open it"
            ),
        )),
    }
}

/// Refuses a quota, which everybody counts: of a private block nobody can.
pub fn no_quota() -> Failure {
    Failure::new(
        FailureKind::Usage,
        "a private block has no quota: those who cannot open it could not hold it to that",
    )
}

/// Refuses a block inside a private one: its path is for everybody to see.
pub fn ensure_outside(terms: &Terms, paths: &[Vec<u8>]) -> Outcome {
    for block in terms.charter.blocks.values().filter(|block| block.private.is_some()) {
        let below = [&block.path[..], b"/"].concat();
        if let Some(path) = paths.iter().find(|path| path.starts_with(&below)) {
            let (path, around) = (shown(path), shown(&block.path));
            return Err(Failure::failed(format!(
                "/{path} lies in /{around}, which is private: everybody sees where blocks are"
            )));
        }
    }
    Ok(())
}

/// Lets devices read a private block.
pub fn share(context: &Context, name: &Name, block: &OsStr, devices: &[DeviceText]) -> Outcome {
    let mut admin = Admin::open(context, name)?;
    let named = devices.iter().map(|device| admin.device(device)).collect::<Result<Vec<_>, _>>()?;
    let keyholder = admin.keyholder();
    let (number, path, readers) = admin.enact(|terms| {
        let number = private_one(terms, block)?;
        keyholder.admit(terms, number, &named)?;
        Ok(told(terms, number))
    })?;
    let path = format!("/{}", shown(&path));
    let done = json!({ "number": number.0, "path": path, "readers": readers });
    context.output.result(&done, |_| {
        let who: Vec<_> = named.iter().map(|device| short(&device.to_string())).collect();
        format!(
            "block {number} ({path}) can be read by {} too, all that is in it and in its kept versions",
            who.join(", ")
        )
    })
}

/// Lets devices read nothing newer of a private block.
pub fn unshare(context: &Context, name: &Name, block: &OsStr, devices: &[DeviceText]) -> Outcome {
    let mut admin = Admin::open(context, name)?;
    let named = devices.iter().map(|device| admin.device(device)).collect::<Result<Vec<_>, _>>()?;
    let keyholder = admin.keyholder();
    let ((number, path, readers), turned) = admin.enact(|terms| {
        let number = private_one(terms, block)?;
        let Some(charter) = terms.charter.blocks.get_mut(&number) else { return Err(gone(number)) };
        if let Some(owner) = charter.owner.filter(|owner| named.contains(owner)) {
            return Err(Failure::failed(format!(
                "{} owns block {number}: give it to another device first, with `kilofs policy NAME set`",
                short(&owner.to_string())
            )));
        }
        let turned = keyholder.shut_out((number, charter), |device| !named.contains(device))?;
        Ok((told(terms, number), turned))
    })?;
    let path = format!("/{}", shown(&path));
    let done = json!({ "number": number.0, "path": path, "readers": readers, "new_key": turned });
    context.output.result(&done, |_| {
        let who: Vec<_> = named.iter().map(|device| short(&device.to_string())).collect();
        let who = who.join(", ");
        match turned {
            true => format!(
                "what is written into block {number} ({path}) from now on is sealed under a new key, which {who} has not got.\n\
                 What was in it until its owner hears of this stays readable there: {who} had the key, and may have a copy."
            ),
            false => format!("{who} could not read block {number} ({path})"),
        }
    })
}

fn told(terms: &Terms, number: BlockNumber) -> (BlockNumber, Vec<u8>, Vec<String>) {
    let private = terms.charter.blocks.get(&number).and_then(|block| block.private.as_ref());
    let readers = private.map(|private| private.readers.keys().map(ToString::to_string).collect());
    (number, terms.path(number).to_vec(), readers.unwrap_or_default())
}

fn private_one(terms: &Terms, block: &OsStr) -> Result<BlockNumber, Failure> {
    let number = which(terms, block)?;
    match terms.charter.blocks.get(&number) {
        Some(block) if block.private.is_some() => Ok(number),
        _ => Err(Failure::failed(format!(
            "block {number} is not private: whoever has a read link reads it; a private one is made with `kilofs block NAME add PATH \
             --private`"
        ))),
    }
}

fn gone(number: BlockNumber) -> Failure {
    Failure::failed(format!("there is no block {number} any more"))
}
