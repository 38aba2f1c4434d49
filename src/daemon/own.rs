//! What this device's admin changed, kept until a policy of somebody else's shows whether it counts. Two admin devices that
//! are apart can make policies of one number, of which one holds: what the other one said must not vanish. It lies sealed in a
//! file beside the keyring, of devices that have made a policy only.

use super::commands::prepare;
use super::control::{Failure, Listing, Request};
use super::core::Core;
use super::drive::Driver;
use super::error::EngineError;
use super::item::{Item, changes, fold};
use super::terms::{Pen, Terms};
use crate::base::Id;
use crate::crypt::LocalKind;
use crate::record::{Charter, Policy};
use crate::sync::Input;
use crate::tree::Changes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Policies that are remembered until another admin device makes one.
const MADE_MAX: usize = 256;
const LOST_MAX: usize = 1024;
const BYTES_MAX: u64 = 16 << 20;
/// How often a change is made anew when the database has moved on meanwhile.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// One change that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// What was changed.
    pub item: Item,
    /// The number of the policy that said so.
    pub counter: u32,
    /// The number of the one that is in force instead.
    pub by: u32,
    /// Whoever made that one did not know of it; else it may have been undone on purpose.
    pub unknown: bool,
    /// Why it could not be made again, where that was tried.
    #[serde(default)]
    pub hindered: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    counter: u32,
    hash: String,
    items: Vec<Item>,
    /// The floors of the blocks by their births, hexadecimal: a policy that goes on from this one has none below.
    floors: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Own {
    made: Vec<Made>,
    lost: Vec<Lost>,
    /// A policy of somebody else's that had the number of one made here, and lost.
    rival: Option<u32>,
}

fn hex(id: Id) -> String {
    HEXLOWER.encode(&id.0)
}

fn floors(charter: &Charter) -> BTreeMap<String, u64> {
    charter.blocks.values().map(|block| (HEXLOWER.encode(&block.birth.0), block.floor.counter)).collect()
}

impl Own {
    /// Takes note of a policy of somebody else's that is in force now.
    fn overruled(&mut self, policy: &Policy, charter: &Charter) {
        self.lost.retain(|lost| !lost.item.in_force(policy, charter));
        if self.rival.is_some_and(|rival| policy.counter > rival) {
            self.rival = None;
        }
        let last = self.made.iter().map(|made| made.counter).max().unwrap_or(0);
        let theirs = floors(charter);
        let below = |(birth, floor): (&String, &u64)| theirs.get(birth).is_some_and(|their| their < floor);
        let mut items = Vec::new();
        let mut counters = Vec::new();
        for made in self.made.drain(..) {
            let unknown = policy.counter <= last || made.floors.iter().any(below);
            for item in made.items {
                counters.push((item.clone(), made.counter, unknown));
                fold(&mut items, item);
            }
        }
        for item in items.into_iter().filter(|item| !item.in_force(policy, charter)) {
            // A fold keeps the last one of a kind, and changes it where a block was made here.
            let known = counters.iter().rev().find(|(known, ..)| *known == item).or(counters.last());
            let (counter, unknown) = known.map_or((last, false), |known| (known.1, known.2));
            tracing::warn!(
                "policy {} of another admin device is in force, and what was changed here is not: {}",
                policy.counter,
                item.in_words()
            );
            self.lost.push(Lost { item, counter, by: policy.counter, unknown, hindered: None });
        }
        let excess = self.lost.len().saturating_sub(LOST_MAX);
        self.lost.drain(..excess);
    }
}

impl Core {
    fn own_file(&self) -> PathBuf {
        self.paths.directory.join("changes")
    }

    fn read_own(&self) -> Option<Own> {
        let path = self.own_file();
        let metadata = std::fs::metadata(&path).ok()?;
        let read = || {
            let sealed = if metadata.len() > BYTES_MAX { Vec::new() } else { std::fs::read(&path).ok()? };
            let plain = self.keys.local.open_local(LocalKind::Changes, &sealed).ok()?;
            serde_json::from_slice(&plain).ok()
        };
        let own = read();
        if own.is_none() {
            tracing::error!(path = %path.display(), "what was changed here as admin cannot be read; it is begun anew");
        }
        own
    }

    fn write_own(&self, own: &Own) -> Result<(), EngineError> {
        let path = self.own_file();
        let plain = serde_json::to_vec(own).expect("plain strings and numbers serialise");
        let sealed = self.keys.local.seal_local(LocalKind::Changes, &plain);
        let write = || -> io::Result<()> {
            let next = path.with_extension("next");
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&sealed)?;
            file.sync_all()?;
            std::fs::rename(&next, &path)?;
            File::open(&self.paths.directory)?.sync_all()
        };
        let cannot = |error| EngineError::Other(format!("{} cannot be written: {error}", path.display()));
        write().map_err(cannot)
    }

    /// Keeps what a policy changes that is about to come into force here. The caller holds `work`.
    pub(super) fn note_made(
        &self,
        policy: &Policy,
        charter: &Charter,
        listing: &Listing,
    ) -> Result<(), EngineError> {
        let mut own = self.read_own().unwrap_or_default();
        let items = {
            let inner = self.inner();
            changes((&inner.state.policy, &inner.state.charter), (policy, charter), listing)
        };
        let hash = hex(policy.hash());
        own.made.push(Made { counter: policy.counter, hash, items, floors: floors(charter) });
        let excess = own.made.len().saturating_sub(MADE_MAX);
        own.made.drain(..excess);
        self.write_own(&own)
    }

    /// A policy did not come into force after all.
    pub(super) fn note_unmade(&self, policy: &Policy) -> Result<(), EngineError> {
        let Some(mut own) = self.read_own() else { return Ok(()) };
        own.made.retain(|made| made.hash != hex(policy.hash()));
        self.write_own(&own)
    }

    /// Compares what was changed here with a policy that is in force now. The caller holds `work`.
    pub(super) fn note_in_force(&self, policy: &Policy, charter: &Charter) -> Result<(), EngineError> {
        let Some(mut own) = self.read_own() else { return Ok(()) };
        if own.made.iter().any(|made| made.hash == hex(policy.hash())) {
            own.lost.retain(|lost| !lost.item.in_force(policy, charter));
        } else {
            own.overruled(policy, charter);
        }
        self.write_own(&own)
    }

    /// The same at the start, with what is in force then: a crash may have come between the two.
    pub(super) fn note_what_stands(&self) -> Result<(), EngineError> {
        let (policy, charter) = {
            let inner = self.inner();
            (inner.state.policy.clone(), inner.state.charter.clone())
        };
        self.note_in_force(&policy, &charter)
    }

    /// Takes note of a policy that has the number of one made here, and lost against it.
    pub(super) fn note_rival(&self, counter: u32) {
        let Some(mut own) = self.read_own() else { return };
        if own.rival == Some(counter) || !own.made.iter().any(|made| made.counter == counter) {
            return;
        }
        own.rival = Some(counter);
        tracing::warn!(
            "another admin device made a policy {counter} too; the one made here holds, and what that one changed is made \
             again there"
        );
        if let Err(error) = self.write_own(&own) {
            tracing::error!(%error, "that another admin device made a policy is not kept");
        }
    }

    /// What was changed here and is not in force.
    pub fn lost(&self) -> Vec<Lost> {
        self.read_own().map_or(Vec::new(), |own| own.lost)
    }

    /// Lets go of it.
    pub fn forget_lost(&self) -> Result<(), EngineError> {
        let _work = self.work.lock();
        let Some(mut own) = self.read_own() else { return Ok(()) };
        own.lost.clear();
        self.write_own(&own)
    }

    /// Why one of them could not be made again.
    fn note_hindered(&self, lost: &Lost, why: &str) -> Result<(), EngineError> {
        let _work = self.work.lock();
        let Some(mut own) = self.read_own() else { return Ok(()) };
        for known in own.lost.iter_mut().filter(|known| known.item == lost.item) {
            known.hindered = Some(why.into());
        }
        self.write_own(&own)
    }

    /// What an admin should know of policies that met.
    pub(super) fn own_in_words(&self) -> Vec<String> {
        let Some(own) = self.read_own() else { return Vec::new() };
        let name = &self.name;
        let word = |lost: &Lost| {
            let (item, counter, by) = (lost.item.in_words(), lost.counter, lost.by);
            let what = match lost.unknown {
                true => format!(
                    "policy {counter}, made here, lost against policy {by}, which another admin device made without knowing of it"
                ),
                false => format!(
                    "policy {by} of another admin device undid what policy {counter}, made here, said"
                ),
            };
            let next = match (&lost.hindered, lost.unknown) {
                (Some(why), _) => {
                    format!("it could not be made again: {why}; `kilofs policy {name} forget` drops it")
                }
                (None, true) => format!(
                    "the next admin command here makes it again, or `kilofs policy {name} redo`; `kilofs policy {name} forget` drops it"
                ),
                (None, false) => {
                    format!(
                        "`kilofs policy {name} redo` makes it again, `kilofs policy {name} forget` drops it"
                    )
                }
            };
            format!("{what}: it is not in force that {item}; {next}")
        };
        let rival = own.rival.map(|counter| {
            format!(
                "another admin device made a policy {counter} too, which lost against the one made here: it makes its change again, \
                 by itself or with its next admin command"
            )
        });
        own.lost.iter().map(word).chain(rival).collect()
    }

    /// Makes again what was lost to a policy whose maker did not know of it, where this engine holds the admin key.
    pub fn make_again(&self) -> Result<Option<Changes>, EngineError> {
        let keys = &*self.keys;
        let Some((admin, catalogue)) = keys.admin.as_ref().zip(keys.catalogue.as_ref()) else {
            return Ok(None);
        };
        let pen = Pen { admin, records: &keys.records, catalogue, database: keys.database };
        let mut all = Changes::default();
        let mut some = false;
        for lost in self.lost().into_iter().filter(|lost| lost.unknown && lost.hindered.is_none()) {
            let mut done = Err(Hindered::Moved);
            for attempt in 1..=ATTEMPTS_MAX {
                done = self.make_one_again(&pen, &lost.item, &mut all);
                if !matches!(done, Err(Hindered::Moved)) {
                    break;
                }
                std::thread::sleep(PAUSE * attempt);
            }
            match done {
                Ok(()) => {
                    some = true;
                    tracing::info!(
                        "made again after another admin device's policy: {}",
                        lost.item.in_words()
                    );
                }
                // The ground moved: when the next version is taken it is tried again.
                Err(Hindered::Moved) => {}
                Err(Hindered::Failed(why)) => self.note_hindered(&lost, &why)?,
            }
        }
        Ok(some.then_some(all))
    }

    fn make_one_again(&self, pen: &Pen<'_>, item: &Item, changes: &mut Changes) -> Result<(), Hindered> {
        let mut terms = Terms::of(self.ground()?)?;
        let empty = match item.directory(&terms.charter) {
            Some(path) => {
                let empty = prepare(self.tree()?, &path, changes)?;
                terms = Terms::of(self.ground()?)?;
                empty
            }
            None => true,
        };
        item.apply(&mut terms)?;
        if !empty {
            let recut = self.prepare_recut(&terms.charter)?;
            terms.behind(recut)?;
        }
        let Request::Enact { policy_hex, charter_hex, ground, lifeline_hex, listing } = pen.sign(terms)?
        else {
            return Err(Hindered::Moved);
        };
        let enacted = self.enact_encoded((&policy_hex, &charter_hex, &lifeline_hex), &ground, &listing)?;
        changes.extend(enacted);
        Ok(())
    }
}

impl Driver {
    /// Tells the kernel of what was taken; and where that brought a policy of another admin device's which leaves out what this
    /// one's said, it is said again.
    pub(super) async fn make_again(self: &Arc<Self>, taken: Changes) -> Result<(), EngineError> {
        self.notify(taken);
        if self.core.keys.admin.is_none() {
            return Ok(());
        }
        let core = self.core.clone();
        let made = tokio::task::spawn_blocking(move || core.make_again()).await;
        let made = made.unwrap_or_else(|error| Err(EngineError::Other(error.to_string())));
        if let Some(changes) = made? {
            self.announce_again();
            self.told(changes);
            self.tell(Input::Changed);
        }
        Ok(())
    }
}

/// Why something was not made again.
enum Hindered {
    /// The database moved on meanwhile.
    Moved,
    /// It cannot be.
    Failed(String),
}

impl From<EngineError> for Hindered {
    fn from(error: EngineError) -> Hindered {
        match error {
            EngineError::Moved => Hindered::Moved,
            other => Hindered::Failed(Failure::from(other).message),
        }
    }
}

impl From<Failure> for Hindered {
    fn from(failure: Failure) -> Hindered {
        match failure.kind {
            super::control::FailureKind::Moved => Hindered::Moved,
            _ => Hindered::Failed(failure.message),
        }
    }
}
