//! One database at one device: store, tree and state as one thing. Everything here is synchronous; the network is
//! the driver's.
//!
//! Locks, in this order: `work` (one publication, adoption or enactment at a time), `turn`, the tree's
//! flushing, `inner`, the log's. None is taken by a FUSE handler while it holds a lock of the tree.

use super::allowance::{Weighed, limit};
use super::aside::SetAside;
use super::begun::Begun;
use super::cache::Cache;
use super::config::Settings;
use super::error::EngineError;
use super::genesis::{make_store, open_store};
use super::home::{DatabasePaths, Name};
use super::intents::WAITING_BYTES_MAX;
use super::keys::KeyRing;
use super::label::Label;
use super::sparing::Sparing;
use super::state::State;
use super::touched::Touched;
use super::versions::{Version, Versions};
use super::work::Work;
use crate::base::{BlockNumber, Id, InfoHash, Place, SessionId};
use crate::crypt::keyring::Keyring;
use crate::crypt::link::Kind;
use crate::crypt::seal::{BlobKind, LocalKind};
use crate::image::{Image, Kept, Store};
use crate::map::{Map, NodeCache, Root};
use crate::record::{BlockEntry, Charter, Commit, Mode, Policy, RecordError, Seen};
use crate::tree::veil::is_reserved_prefix;
use crate::tree::{Head, ImageSource, IntentLog, Owner, Timestamp, Tree, TreeOptions};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

const CATALOGUE_CACHE_BYTES: usize = 4 << 20;
/// Plaintext that may wait in memory to be sealed, in bytes.
const DIRTY_BYTES_MAX: u64 = 64 << 20;

/// An entry of the catalogue with the place of its block's root.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The signed entry.
    pub entry: BlockEntry,
    /// Where the root lies, if there is one.
    pub place: Option<Place>,
}

impl Listed {
    /// The root as the map knows it.
    pub fn root(&self) -> Option<Root> {
        let root = self.entry.root.as_ref()?;
        Some(Root { level: root.level, id: root.id, place: self.place? })
    }
}

/// What changes while the engine runs.
pub struct Inner {
    /// The sealed state.
    pub state: State,
    /// Kept versions.
    pub versions: Versions,
    /// Edits that were set aside.
    pub set_aside: Vec<SetAside>,
    /// Kept images of which it cannot be read what they are.
    pub unread: Vec<Kept>,
    /// Versions that are on their way.
    pub begun: Begun,
    /// The image of the working head as it was last flushed.
    pub image: Image,
    /// The tree's generation at that flush.
    pub generation: u64,
    /// The tree's generation that the head version holds in full; none where it holds less.
    pub published: Option<u64>,
    /// The commits that the working head stands on: one, or two after a merge that is not published yet.
    pub heads: Vec<(Id, Arc<Commit>)>,
    /// The catalogue of the head version, as it was published.
    pub catalogue: Option<Root>,
    /// The entries in force: those of the catalogue but for refused ones.
    pub entries: BTreeMap<BlockNumber, Listed>,
    /// Blocks of which the head version's state was refused: what it shows there was never opened nor counted.
    pub spoilt: BTreeSet<BlockNumber>,
    /// The head version was made without what is not whole yet.
    pub waits: bool,
}

/// One database at one device.
pub struct Core {
    /// What it is called.
    pub name: Name,
    /// Its files.
    pub paths: DatabasePaths,
    /// Its keys.
    pub keys: KeyRing,
    /// How it runs.
    pub settings: Settings,
    /// Its store.
    pub store: Arc<Store>,
    /// What can be rebuilt.
    pub cache: Cache,
    /// The tree; absent at a mirror.
    pub tree: Option<Arc<Tree>>,
    /// Decoded catalogue nodes.
    pub nodes: NodeCache,
    /// Pieces hashed for publishing.
    pub hashing: crate::image::Counters,
    /// Work done.
    pub done: Work,
    pub(super) work: Mutex<()>,
    /// What an admin is about to sign.
    pub(super) recut: Mutex<Option<super::recut::Prepared>>,
    /// Held from an adoption until the state that goes with it is saved: a commit comes before or after.
    pub(super) turn: Mutex<()>,
    /// Makes changes durable between commits; absent at a mirror.
    pub(super) log: Option<IntentLog>,
    /// Signatures in commits that were verified.
    pub(super) seen: Mutex<Seen>,
    /// How often the merge of a version was left to others.
    pub(super) postponed: Mutex<HashMap<InfoHash, u32>>,
    /// The first and the last of a row of tries to publish that were put off because a file was about to be written.
    pub(super) withheld: Mutex<Option<(Instant, Instant)>>,
    /// What is remembered of joins of blocks that only grow.
    pub(super) joins: super::join::Joins,
    /// Lines on versions that were made here and that came.
    pub(super) said: (Sparing, Sparing),
    /// What blocks with a quota were last seen to hold.
    pub(super) weighed: Mutex<Weighed>,
    /// What kept versions changed, as far as somebody asked.
    pub(super) touched: Mutex<HashMap<Id, Touched>>,
    /// The state was written: there may be something that a person should hear of.
    pub(super) saved: Notify,
    inner: Mutex<Inner>,
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| EngineError::Other(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// Seconds since 1970.
pub fn now_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

pub(super) fn now_timestamp() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
}

impl Core {
    /// Opens a database's files. The store is locked from now on.
    pub fn open(
        name: Name,
        paths: DatabasePaths,
        keyring: Keyring,
        held: Kind,
        settings: Settings,
        as_admin: bool,
    ) -> Result<Core, EngineError> {
        if !paths.store.exists() {
            tracing::warn!(store = %paths.store.display(), "the store is gone: an empty one takes its place and is filled from peers");
            make_store(&paths, &keyring)?;
        }
        let keys = KeyRing::new(keyring, held, as_admin);
        let store = open_store(&paths, settings.rescue)?;
        let unreadable = || EngineError::State { path: paths.store.display().to_string() };
        let state = keys.local.open_local(LocalKind::State, &store.state()).map_err(|_| unreadable())?;
        let mut state = State::decode(&state).map_err(|_| unreadable())?;
        if let Some(why) = store.fell_back() {
            // The state may be one commit old: counters that it reserves could have been used already.
            tracing::warn!(why, "the store was read from its older superblock");
            state.session = SessionId(random()?);
        }
        let cache = Cache::open(&paths.cache)
            .map_err(|error| EngineError::Other(format!("{}: {error}", paths.cache.display())))?;
        let log = keys.log.clone().map(|key| IntentLog::new(key, WAITING_BYTES_MAX));
        let mut core = Core {
            name,
            paths,
            keys,
            settings,
            inner: Mutex::new(Inner {
                image: Image::empty(&store),
                state,
                versions: Versions::default(),
                set_aside: Vec::new(),
                unread: Vec::new(),
                begun: Begun::default(),
                generation: 0,
                published: None,
                heads: Vec::new(),
                catalogue: None,
                entries: BTreeMap::new(),
                spoilt: BTreeSet::new(),
                waits: false,
            }),
            store,
            cache,
            tree: None,
            nodes: NodeCache::new(CATALOGUE_CACHE_BYTES),
            hashing: Default::default(),
            done: Work::default(),
            work: Mutex::new(()),
            recut: Mutex::default(),
            turn: Mutex::new(()),
            log,
            seen: Mutex::default(),
            postponed: Mutex::default(),
            joins: Default::default(),
            withheld: Mutex::default(),
            said: Default::default(),
            weighed: Mutex::default(),
            touched: Mutex::default(),
            saved: Notify::new(),
        };
        core.note_left_out();
        core.load()?;
        core.open_tree()?;
        core.settle_move()?;
        core.note_what_stands()?;
        Ok(core)
    }

    /// Reads what the store keeps: head, versions, what was set aside.
    fn load(&mut self) -> Result<(), EngineError> {
        let mut inner = self.inner.lock();
        for Kept { label, image } in self.store.kept() {
            match Label::decode(&label.0) {
                Ok(Label::Head) => inner.image = image,
                Ok(Label::Version { reference, time }) => {
                    let commit =
                        self.keys.catalogue.as_ref().and_then(|_| self.open_commit(&image, &reference).ok());
                    inner.versions.add(Version { reference, time, image, commit: commit.map(Arc::new) });
                }
                Ok(Label::SetAside { block, root, time }) => {
                    inner.set_aside.push(SetAside::unlisted(block, root, time, image));
                }
                Ok(Label::SetAsideList { list }) => match self.read_lists(&image, list) {
                    Ok(told) => inner.set_aside.extend(told),
                    Err(error) => {
                        tracing::warn!(%error, "the image is kept as it is");
                        inner.unread.push(Kept { label, image });
                    }
                },
                Ok(Label::Begun(infohash)) => inner.begun.add(infohash, image),
                Err(_) => {
                    tracing::warn!("the store keeps an image that this version of kilofs does not know")
                }
            }
        }
        let Some(head) = inner.state.head else { return Ok(()) };
        let Some(version) = inner.versions.get(&head.infohash).cloned() else { return Ok(()) };
        if self.keys.catalogue.is_some()
            && let Err(error) = self.stand_on(&mut inner, &version)
        {
            if let Err(other @ EngineError::CommitFormat(_)) = self.open_commit(&version.image, &head) {
                return Err(other);
            }
            // It is damaged. What is published next goes on from nothing: a counter may have been used already.
            tracing::warn!(version = %version.reference.infohash, %error, "the version that was stood on does not open");
            inner.state.session = SessionId(random()?);
            inner.state.head = None;
        }
        Ok(())
    }

    fn open_tree(&mut self) -> Result<(), EngineError> {
        if self.keys.catalogue.is_none() {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        let views = self.views(&inner.state.policy, &inner.state.charter, &inner.state.roots);
        let options = TreeOptions {
            inode_prefix: fresh_prefix(&inner.entries)?,
            cache_bytes: self.settings.cache_bytes,
            mark: inner.state.mark,
            dirty_bytes_max: DIRTY_BYTES_MAX,
            owner: process_owner(),
            clock: now_timestamp,
        };
        let tree = Tree::load(self.store.clone(), inner.image.clone(), views, options)?;
        limit(&tree, &inner.state.charter);
        inner.generation = tree.generation();
        inner.published = (!inner.state.pending).then_some(inner.generation);
        self.say_what_is_closed(&inner);
        drop(inner);
        let tree = Arc::new(tree);
        self.tree = Some(tree.clone());
        self.recover(&tree)
    }

    /// The state under its lock.
    pub fn inner(&self) -> parking_lot::MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The tree, where this device can read.
    pub fn tree(&self) -> Result<&Arc<Tree>, EngineError> {
        self.tree.as_ref().ok_or(EngineError::Capability("mirror"))
    }

    /// Whether the policy lets this device write in a block.
    pub fn may_write(&self, policy: &Policy, charter: &Charter, number: BlockNumber) -> bool {
        let allowed = self.allows(policy, charter, number, &self.keys.device.public());
        // Of two states of a private block one is taken whole, so one device alone makes them.
        let owned = policy.modes.get(usize::from(number.0)) == Some(&Mode::Owner)
            && charter.blocks.get(&number).is_some_and(|block| block.private.is_some());
        self.keys.reaches_others() && (allowed || self.keys.admin.is_some() && !owned)
    }

    /// Takes a flushed head as the working head, unless a newer one was taken meanwhile.
    pub fn install(&self, inner: &mut Inner, head: &Head) {
        if head.generation < inner.generation {
            return;
        }
        inner.generation = head.generation;
        inner.image = head.image.clone();
        inner.state.mark = head.mark;
        inner.state.roots = head.roots.clone();
        inner.state.pending = inner.published != Some(head.generation) || inner.waits;
    }

    /// Writes superblock, tables and state. Durable when it returns.
    pub fn save(&self, inner: &Inner) -> Result<(), crate::image::StoreError> {
        let kept = |label: Label, image: &Image| Kept {
            label: crate::image::Label(label.encode()),
            image: image.clone(),
        };
        let mut list = vec![kept(Label::Head, &inner.image)];
        for version in inner.versions.iter() {
            let label = Label::Version { reference: version.reference, time: version.time };
            list.push(kept(label, &version.image));
        }
        // Versions are listed newest first and read back in that order: the oldest must come first.
        list[1..].reverse();
        list.extend(SetAside::kept(&inner.set_aside));
        list.extend(inner.unread.iter().cloned());
        list.extend(inner.begun.kept());
        let heads: Vec<Id> = inner.heads.iter().map(|(id, _)| *id).collect();
        let sealed = self.keys.local.seal_local(LocalKind::State, &inner.state.encode(&heads));
        Core::count(&self.done.commits);
        self.saved.notify_one();
        let Some(tree) = &self.tree else { return self.store.commit(&list, &sealed) };
        let mark = inner.state.mark;
        let Some(log) = &self.log else { return self.store.commit(&list, &sealed) };
        let start = log.start(tree, mark);
        self.store.commit_logged(&list, &sealed, Some(start))?;
        log.committed(tree, mark);
        Ok(())
    }

    /// Opens and verifies a version's commit.
    pub fn open_commit(
        &self,
        image: &Image,
        reference: &crate::record::VersionRef,
    ) -> Result<Commit, EngineError> {
        let refused =
            |why: &str| EngineError::Other(format!("the commit of version {} {why}", reference.infohash));
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let sealed = ImageSource::new(&self.store, image).bytes(reference.commit.place)?;
        let plain = keys
            .open_blob(BlobKind::Commit, &reference.commit.id, &sealed)
            .map_err(|_| refused("does not open"))?;
        let commit = Commit::decode(&plain).map_err(|error| match error {
            RecordError::Format(format) => EngineError::CommitFormat(format),
            _ => refused("is malformed"),
        })?;
        if !commit.verify_with(&self.keys.database, &mut self.seen.lock()) {
            return Err(refused(
                "is not signed by the device that it names, or claims to stand on what nobody signed",
            ));
        }
        Ok(commit)
    }

    /// Reads the catalogue of a commit: its root and all entries, unverified.
    pub fn open_catalogue(
        &self,
        image: &Image,
        commit: &Commit,
    ) -> Result<(Option<Root>, BTreeMap<BlockNumber, Listed>), EngineError> {
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let root = commit.catalogue.as_ref().map(|(root, place)| Root {
            level: root.level,
            id: root.id,
            place: *place,
        });
        let source = ImageSource::new(&self.store, image);
        let map = Map::new(keys, &source, &self.nodes);
        let mut entries = BTreeMap::new();
        let mut cursor = map.range(root.as_ref(), &[]);
        while let Some(item) = cursor.next()? {
            let malformed = || EngineError::Other("the catalogue holds a malformed entry".into());
            let number = item.key.as_ref().try_into().map(u16::from_be_bytes).map_err(|_| malformed())?;
            let entry = BlockEntry::decode(&item.value).map_err(|_| malformed())?;
            if entry.number.0 != number || entry.root.is_some() != item.place.is_some() {
                return Err(malformed());
            }
            entries.insert(BlockNumber(number), Listed { entry, place: item.place });
        }
        Ok((root, entries))
    }

    /// Counts one more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who runs this process: what nobody has written yet belongs to them.
pub(super) fn process_owner() -> Owner {
    Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
}

/// A prefix for inode numbers that no valid entry uses.
fn fresh_prefix(entries: &BTreeMap<BlockNumber, Listed>) -> Result<u32, EngineError> {
    loop {
        let prefix = u32::from_le_bytes(random()?);
        let used = entries.values().any(|listed| listed.entry.inode_prefix == prefix);
        if prefix != 0 && !is_reserved_prefix(prefix) && !used {
            return Ok(prefix);
        }
    }
}
