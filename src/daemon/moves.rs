//! Following a rotation. What was announced lies beside the keyring, in a file that says nothing to others: from the moment that
//! it is there the device has moved, and whoever opens the keyring finds the new keys in it. Whatever was interrupted after that is
//! done at the next start.

use super::borders::borders;
use super::core::{Core, Inner};
use super::error::EngineError;
use super::genesis::charter_id;
use super::home::DatabasePaths;
use super::keys::Keys;
use crate::base::{BlockNumber, DatabaseId, Malformed, PublicKey, Reader, Writer};
use crate::crypt::keyring::Keyring;
use crate::crypt::keys::{AdminKey, DeviceKey};
use crate::crypt::link::Capability;
use crate::crypt::record_key::RecordKey;
use crate::record::{
    ANNOUNCEMENT_BYTES_MAX, Announcement, Charter, Lifeline, Policy, RECORD_BYTES, SignedItem, open_lifeline,
};
use crate::torrent::{carried, infohash_of};
use crate::tree::Changes;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

const ITEM_BYTES_MAX: usize = RECORD_BYTES + 128;
/// The longest info dictionary of an announcement, in bytes.
pub const INFO_BYTES_MAX: usize = ANNOUNCEMENT_BYTES_MAX + 256;

/// A rotation as it is passed on: the lifeline that says so, and the info dictionary that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The lifeline.
    pub item: SignedItem,
    /// The info dictionary.
    pub info: Vec<u8>,
}

/// Who asks what an announcement says.
struct Asker<'a> {
    admin_public: &'a PublicKey,
    records: &'a [RecordKey],
    database: DatabaseId,
    device: &'a DeviceKey,
    admin: Option<&'a AdminKey>,
}

/// What came of following.
pub enum Followed {
    /// The device has the new keys; what this changed for the kernel.
    Turned(Changes),
    /// There are new keys, and this device was not given them; what this changed for the kernel.
    LeftOut(Changes),
    /// It is not newer than what is known, or not the admin's.
    Nothing,
}

impl Announced {
    /// Its bytes, in a file and between neighbours.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.item.encode()).bytes(&self.info);
        writer.0
    }

    /// Reads what [`Announced::encode`] wrote; nothing in it is verified.
    pub fn decode(bytes: &[u8]) -> Result<Announced, Malformed> {
        let mut reader = Reader::new(bytes);
        let item = SignedItem::decode(reader.bytes(ITEM_BYTES_MAX)?)?;
        let info = reader.bytes(INFO_BYTES_MAX)?.to_vec();
        reader.end()?;
        Ok(Announced { item, info })
    }

    /// What lies beside a keyring.
    pub fn read(paths: &DatabasePaths) -> Option<Announced> {
        Self::read_from(&paths.moved)
    }

    /// A rotation that this device was left out of.
    pub fn read_left(paths: &DatabasePaths) -> Option<Announced> {
        Self::read_from(&left(paths))
    }

    fn read_from(path: &Path) -> Option<Announced> {
        let mut bytes = Vec::new();
        let limit = (ITEM_BYTES_MAX + INFO_BYTES_MAX) as u64;
        match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the announcement of a rotation cannot be read");
                return None;
            }
        }
        let decoded = Announced::decode(&bytes);
        decoded
            .inspect_err(
                |_| tracing::error!(path = %path.display(), "the announcement of a rotation is damaged"),
            )
            .ok()
    }

    /// On the disk when it returns; until then what was there stays.
    fn write(&self, path: &Path) -> io::Result<()> {
        let next = path.with_extension("next");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    /// What it says, if the admin says it.
    fn open(&self, asker: &Asker<'_>) -> Option<(Lifeline, Announcement)> {
        let lifeline = open_lifeline(&self.item, asker.admin_public, asker.records, &asker.database)?;
        let moved = lifeline.moved?;
        let content = carried(&self.info)?;
        if infohash_of(&self.info) != moved.infohash || Announcement::digest(content) != moved.digest {
            return None;
        }
        let announcement = Announcement::decode(content).ok()?;
        let fits = announcement.database == asker.database && announcement.generation == moved.generation;
        fits.then_some((lifeline, announcement))
    }

    /// The keys in it that follow those of who asks.
    fn successor(&self, asker: &Asker<'_>) -> Option<Capability> {
        let (lifeline, announcement) = self.open(asker)?;
        let successor = announcement.open(asker.device, asker.admin)?;
        // What was sealed under the keys that are here must stay readable.
        let goes_on = successor.record_keys().starts_with(asker.records)
            && lifeline.generation() as usize >= asker.records.len();
        goes_on.then_some(successor)
    }
}

/// Where the announcement lies of a rotation that this device was left out of: the admin key may open it.
fn left(paths: &DatabasePaths) -> PathBuf {
    paths.moved.with_extension("left")
}

/// A keyring with the keys of the last rotation that this device, or the admin key in it, was given.
pub fn bring_up(paths: &DatabasePaths, keyring: Keyring) -> Keyring {
    let keyring = brought_up(Announced::read(paths), keyring);
    if keyring.capability.admin_seed.is_none() {
        return keyring;
    }
    let Some(left_behind) = Announced::read_left(paths) else { return keyring };
    let generation = keyring.capability.generation();
    let keyring = brought_up(Some(left_behind.clone()), keyring);
    if keyring.capability.generation() > generation
        && let Err(error) = left_behind.write(&paths.moved)
    {
        tracing::error!(%error, "the announcement of a rotation cannot be kept");
    }
    keyring
}

fn brought_up(announced: Option<Announced>, mut keyring: Keyring) -> Keyring {
    let Some(announced) = announced else { return keyring };
    let (capability, admin) = (&keyring.capability, keyring.capability.admin_key());
    let successor = announced.successor(&Asker {
        admin_public: &capability.admin_public,
        records: &capability.record_keys(),
        database: capability.database_id(),
        device: &keyring.device,
        admin: admin.as_ref(),
    });
    if let Some(successor) = successor {
        let admin_seed = keyring.capability.admin_seed.take().filter(|_| successor.database_seed.is_some());
        keyring.capability = Capability { admin_seed, ..successor };
    }
    keyring
}

impl Keys {
    fn asker(&self) -> Asker<'_> {
        Asker {
            admin_public: &self.admin_public,
            records: &self.records,
            database: self.database,
            device: &self.device,
            admin: None,
        }
    }

    /// What a lifeline says to this device.
    pub fn open_lifeline(&self, item: &SignedItem) -> Option<Lifeline> {
        open_lifeline(item, &self.admin_public, &self.records, &self.database)
    }
}

impl Core {
    /// Takes the keys of a rotation, if the admin announced it and this device was given some. The caller does not hold `work`.
    pub fn follow(&self, announced: &Announced) -> Result<Followed, EngineError> {
        let _work = self.work.lock();
        self.follow_now(announced, false)
    }

    /// The same for one who holds `work`.
    pub(super) fn follow_now(&self, announced: &Announced, leads: bool) -> Result<Followed, EngineError> {
        let keys = &*self.keys;
        let Some((lifeline, _)) = announced.open(&keys.asker()) else { return Ok(Followed::Nothing) };
        if lifeline.generation() <= keys.generation() {
            return Ok(Followed::Nothing);
        }
        let cannot = |error: io::Error| EngineError::Other(format!("the new keys cannot be kept: {error}"));
        let Some(successor) = announced.successor(&keys.asker()) else {
            if self.left_out() == Some(lifeline.generation()) {
                return Ok(Followed::Nothing);
            }
            announced.write(&left(&self.paths)).map_err(cannot)?;
            return self.stay_behind(announced).map(Followed::LeftOut);
        };
        // From here on it has happened: whatever comes next is done again at the next start.
        announced.write(&self.paths.moved).map_err(cannot)?;
        self.keys.turn(keys.after(successor));
        tracing::info!(generation = self.keys.generation(), "the database moved to new keys");
        self.settle_under(announced, leads).map(Followed::Turned)
    }

    /// From now on nothing is written here: it would reach nobody.
    fn stay_behind(&self, announced: &Announced) -> Result<Changes, EngineError> {
        self.note_left_out();
        self.note_lifeline(announced.item.clone())?;
        if self.tree.is_none() {
            return Ok(Changes::default());
        }
        let (policy, charter) = {
            let inner = self.inner();
            (inner.state.policy.clone(), inner.state.charter.clone())
        };
        self.enact(policy, charter, &BTreeSet::new())
    }

    /// Takes note of a rotation that this device was left out of.
    pub(super) fn note_left_out(&self) {
        self.keys.left_out.store(self.left_out().is_some(), Ordering::Relaxed);
    }

    /// The last rotation that this device knows to be left out of.
    pub fn left_out(&self) -> Option<u32> {
        let left_behind = Announced::read_left(&self.paths)?.open(&self.keys.asker())?.0.generation();
        (left_behind > self.keys.generation()).then_some(left_behind)
    }

    /// Whether a lifeline is of another rotation than the one that this device followed last, and of the same number: its admin
    /// did not know of this one. Its policy is sealed under keys that this device never gets.
    pub(super) fn is_rival(&self, item: &SignedItem) -> bool {
        let keys = &*self.keys;
        let before = keys.records.split_last().map_or(&[][..], |(_, before)| before);
        let theirs = open_lifeline(item, &keys.admin_public, before, &keys.database);
        let ours = self.lifeline().and_then(|ours| ours.moved);
        let theirs = theirs.and_then(|theirs| theirs.moved);
        ours.zip(theirs).is_some_and(|(ours, theirs)| {
            ours.generation == keys.generation() && ours.generation == theirs.generation && ours != theirs
        })
    }

    /// Finishes at the start what following had begun.
    pub(super) fn settle_move(&self) -> Result<(), EngineError> {
        let Some(announced) = Announced::read(&self.paths) else { return Ok(()) };
        let said = announced.open(&self.keys.asker()).map(|(lifeline, _)| lifeline.generation());
        if said == Some(self.keys.generation()) {
            self.settle_under(&announced, true)?;
        }
        Ok(())
    }

    /// Brings the terms of new keys into force; the records and the lifeline under the old ones count no longer. `leads` says that
    /// this device publishes under them first.
    fn settle_under(&self, announced: &Announced, leads: bool) -> Result<Changes, EngineError> {
        {
            let mut inner = self.inner();
            let here = self.keys.database_public;
            if inner.state.accepted.as_ref().is_some_and(|item| item.key != here) {
                inner.state.accepted = None;
            }
            let known = inner.state.lifeline.as_ref().and_then(|item| self.keys.open_lifeline(item));
            let told = self.keys.open_lifeline(&announced.item);
            if told.is_some_and(|told| known.is_none_or(|known| told.supersedes(&known))) {
                inner.state.lifeline = Some(announced.item.clone());
            }
            self.save(&inner)?;
        }
        let Some((policy, charter)) = self.terms_of(announced) else { return Ok(Changes::default()) };
        if !policy.supersedes(&self.inner().state.policy) {
            return Ok(Changes::default());
        }
        if self.has_content() && !borders(&self.inner().state.charter, &charter).is_empty() {
            // What is here goes behind it together with the first version from there, as it was sealed when the border moved.
            tracing::info!(
                "a border between blocks moved before the keys did: the new policy comes with the next version"
            );
            return Ok(Changes::default());
        }
        let changes = self.enact(policy, charter, &BTreeSet::new())?;
        // Who changed nothing has nothing to tell: the one who rotated publishes, not everybody at once.
        let head = self.tree()?.flush()?;
        let mut inner = self.inner();
        self.install(&mut inner, &head);
        let next = self.next_entries(&inner, &head.roots)?;
        if !leads && next == inner.entries {
            inner.published = Some(inner.generation);
            inner.state.pending = false;
        }
        self.save(&inner)?;
        Ok(changes)
    }

    fn has_content(&self) -> bool {
        self.inner().state.roots.values().any(Option::is_some)
    }

    /// The keys are here and the terms that go with them are not in force yet: nothing can be published.
    pub(super) fn awaits_terms(&self, inner: &Inner) -> bool {
        let epoch = inner.state.charter.blocks.get(&BlockNumber::ROOT).map_or(0, |root| root.epoch);
        self.tree.is_some() && epoch < self.keys.generation()
    }

    fn terms_of(&self, announced: &Announced) -> Option<(Policy, Charter)> {
        let (_, announcement) = announced.open(&self.keys.asker())?;
        let (policy, charter) = announcement.terms(self.keys.read_secret()?)?;
        let keys = self.keys.catalogue.as_ref()?;
        let sound = policy.verify(&self.keys.database, &self.keys.admin_public)
            && policy.charter == charter_id(keys, &charter);
        sound.then_some((policy, charter))
    }
}
