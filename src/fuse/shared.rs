//! What every handler works on, and the answers they give.

use super::attributes::Namespace;
use super::errno::Refusal;
use super::holders::Holders;
use super::host::Host;
use super::init::CACHE_FOR;
use super::known::Known;
use super::lane::Lane;
use super::notify::Notice;
use super::options::MountOptions;
use super::owners::Owners;
use super::shelf::{self, Shelf};
use crate::base::{BlockNumber, Inode};
use crate::tree::{Attr, Changes, Owner, ReadTree as _, Timestamp, Tree};
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names below the root that are remembered for a kernel that cannot be told to forget all names, at most.
const ROOT_NAMES_MAX: usize = 1 << 16;

/// The inode of the root of the tree.
pub(super) const ROOT: Inode = Inode(1);
const _: () =
    assert!(BlockNumber::ROOT.0 == 0, "the root of block 0 is inode 1, which FUSE takes for the root too");

/// A mount's state; lives as long as its threads.
pub(super) struct Shared {
    pub tree: Arc<Tree>,
    pub host: Arc<dyn Host>,
    pub shelf: Shelf,
    pub known: Known,
    /// For what waits for the disk.
    pub syncs: Lane,
    /// For writes that have to wait until there is room in memory.
    pub writes: Lane,
    pub owners: Owners,
    pub namespace: Namespace,
    /// The way to the thread that notifies the kernel.
    pub notices: Sender<Notice>,
    /// Handles that are open for writing, by inode: only these can have changed mapped pages.
    pub writers: Holders,
    /// Handles of programs that run.
    pub programs: Holders,
    /// Files that others were renamed over, for as long as the kernel holds them.
    pub replaced: Mutex<HashSet<Inode>>,
    root_names: Mutex<HashSet<Vec<u8>>>,
}

/// What a name leads to.
pub(super) struct Found {
    /// `None`: nothing bears it.
    pub attr: Option<Attr>,
    /// How long the kernel may believe it.
    pub lasting: Duration,
}

impl Shared {
    pub fn new(
        tree: Arc<Tree>,
        host: Arc<dyn Host>,
        options: &MountOptions,
        notices: Sender<Notice>,
    ) -> std::io::Result<Shared> {
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        let slow: Arc<Mutex<()>> = Arc::default();
        let shared = Shared {
            tree,
            syncs: Lane::start("kilofs-sync", slow.clone())?,
            writes: Lane::start("kilofs-write", slow)?,
            shelf: Shelf::new(host.clone(), now(), (owner.uid, owner.gid)),
            host,
            known: Known::default(),
            owners: Owners::new(options.owners.clone(), owner),
            namespace: if options.acl { Namespace::UsersAndLists } else { Namespace::Users },
            notices,
            writers: Holders::default(),
            programs: Holders::default(),
            replaced: Mutex::default(),
            root_names: Mutex::default(),
        };
        shared.follow_root();
        Ok(shared)
    }

    /// Learns to whom the root directory belongs now; true if that changes whose everything is.
    pub fn follow_root(&self) -> bool {
        let root = self.tree.attr(ROOT);
        root.is_ok_and(|root| self.owners.follow(Owner { uid: root.uid, gid: root.gid }))
    }

    /// After the owner of the root directory was changed here.
    pub fn root_was_given(&self) {
        if self.follow_root() {
            let _ = self.notices.send(Notice::Changes(Changes { too_many: true, ..Changes::default() }));
        }
    }

    /// A name that leads to `attr`, which the kernel will remember from now on.
    pub fn found(&self, attr: Attr) -> Found {
        self.known.remember(attr.inode);
        Found { attr: Some(attr), lasting: CACHE_FOR }
    }

    /// Passes a mutation's result on, after the engine heard of it.
    pub fn mutated<T>(&self, done: T) -> T {
        self.host.mutated();
        done
    }

    /// Refuses what nobody may change: the shelf, and its name.
    pub fn changeable(&self, parent: Inode, name: &[u8]) -> Result<(), Refusal> {
        if shelf::holds(parent) || is_shelf(parent, name) { Err(Refusal::ReadOnlyShelf) } else { Ok(()) }
    }

    /// Notes a name that the kernel may remember.
    pub fn note_name(&self, parent: Inode, name: &[u8]) {
        if parent == ROOT {
            let mut names = self.root_names.lock();
            if names.len() < ROOT_NAMES_MAX && !names.contains(name) {
                names.insert(name.to_vec());
            }
        }
    }

    /// The names below the root that the kernel may remember.
    pub fn root_names(&self) -> Vec<Vec<u8>> {
        self.root_names.lock().iter().cloned().collect()
    }

    /// The kernel gave back `lookups` of an inode.
    pub fn forget(&self, inode: Inode, lookups: u64) {
        if shelf::holds(inode) {
            self.shelf.forget(inode, lookups);
        } else if self.known.forget(inode, lookups) {
            self.let_go(inode);
        }
    }
}

/// Whether a name is that of the shelf.
pub(super) fn is_shelf(parent: Inode, name: &[u8]) -> bool {
    parent == ROOT && name == shelf::NAME
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
