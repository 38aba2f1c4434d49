//! What is to be looked at: told by the kernel of the folder, by the engine of the tree. Bounded: when too much comes at
//! once, everything is looked at instead.

use super::base::Rel;
use super::reconcile::{Paths, Watch};
use crate::tree::Changes;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A path is left alone until nothing was told of it for so long …
const QUIET: Duration = Duration::from_millis(20);
/// … but no longer than that.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// More paths, or changes of the tree, than that are not remembered one by one.
const PATHS_MAX: usize = 100_000;

struct Waiting {
    deep: bool,
    /// Who wrote to it has closed it.
    closed: bool,
    first: Instant,
    last: Instant,
}

#[derive(Default)]
struct Mail {
    local: HashMap<Rel, Waiting>,
    tree: Changes,
    everything: bool,
    stop: bool,
}

/// What is due.
#[derive(Default)]
pub(super) struct Delivery {
    pub local: Paths,
    /// Those of them that somebody wrote to and closed.
    pub closed: HashSet<Rel>,
    pub tree: Changes,
    pub everything: bool,
    pub stop: bool,
}

/// Where it is put down by others, and taken up by the one who works.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    bell: Condvar,
    /// The kernel does not tell of all directories.
    pub blind: AtomicBool,
}

impl Mailbox {
    fn put(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.mail.lock());
        self.bell.notify_one();
    }

    fn touch(&self, path: Rel, Told { deep, closed }: Told) {
        let now = Instant::now();
        self.put(|mail| {
            if mail.local.len() >= PATHS_MAX {
                mail.local.clear();
                mail.everything = true;
            }
            let waiting = mail.local.entry(path).or_insert(Waiting { deep, closed, first: now, last: now });
            (waiting.deep, waiting.closed, waiting.last) = (waiting.deep | deep, closed, now);
        });
    }

    /// The tree was changed by others.
    pub fn changed(&self, changes: Changes) {
        self.put(|mail| {
            mail.tree.extend(changes);
            let tree = &mut mail.tree;
            if tree.too_many || tree.inodes.len() + tree.entries.len() > PATHS_MAX {
                mail.tree = Changes { too_many: true, ..Changes::default() };
            }
        });
    }

    /// Anything may have changed.
    pub fn look_at_everything(&self) {
        self.put(|mail| mail.everything = true);
    }

    /// No more is delivered after the next time.
    pub fn stop(&self) {
        self.put(|mail| mail.stop = true);
    }

    /// How many paths wait.
    pub fn waiting(&self) -> usize {
        let mail = self.mail.lock();
        mail.local.len() + usize::from(mail.everything) + usize::from(!mail.tree.is_empty())
    }

    /// What is due; nothing if nothing comes until `deadline`. After a stop, all that waits is due.
    pub fn take(&self, deadline: Instant) -> Delivery {
        let mut mail = self.mail.lock();
        loop {
            let now = Instant::now();
            let due = |waiting: &Waiting| (waiting.last + QUIET).min(waiting.first + BUSY_MAX);
            let next = mail.local.values().map(due).min();
            let ready = mail.stop || mail.everything || !mail.tree.is_empty();
            if ready || next.is_some_and(|next| next <= now) || deadline <= now {
                let all = mail.stop;
                let mut delivery = Delivery {
                    tree: std::mem::take(&mut mail.tree),
                    everything: std::mem::take(&mut mail.everything),
                    stop: mail.stop,
                    local: Paths::new(),
                    closed: HashSet::new(),
                };
                mail.local.retain(|path, waiting| {
                    let take = all || due(waiting) <= now;
                    if take {
                        delivery.local.insert(path.clone(), waiting.deep);
                        if waiting.closed {
                            delivery.closed.insert(path.clone());
                        }
                    }
                    !take
                });
                return delivery;
            }
            self.bell.wait_until(&mut mail, next.map_or(deadline, |next| next.min(deadline)));
        }
    }
}

/// Lets the kernel tell of the directories that the returned function is called with.
pub(super) fn watch(folder: PathBuf, mailbox: &Arc<Mailbox>) -> Result<Watch, notify::Error> {
    let (told, top) = (mailbox.clone(), folder.clone());
    let tell = move |event: Result<Event, notify::Error>| match event {
        Ok(event) if event.need_rescan() => told.look_at_everything(),
        Ok(event) => {
            let Some(what) = told_by(&event.kind) else { return };
            for path in &event.paths {
                if let Ok(inside) = path.strip_prefix(&top) {
                    let inside = inside.as_os_str().as_bytes();
                    if !inside.is_empty() {
                        told.touch(inside.to_vec(), what);
                    }
                }
            }
        }
        Err(error) => {
            tracing::warn!(%error, "the kernel could not tell of a change: everything is looked at");
            told.look_at_everything();
        }
    };
    let config = Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(tell, config)?;
    let blind = mailbox.clone();
    Ok(Box::new(move |path| {
        let path = folder.join(OsStr::from_bytes(path));
        match watcher.watch(&path, RecursiveMode::NonRecursive) {
            Err(error) if path.exists() && !blind.blind.swap(true, Ordering::SeqCst) => {
                tracing::warn!(%error, path = %path.display(),
                    "this directory is not watched: everything is looked at now and then instead");
            }
            _ => {}
        }
    }))
}

/// What an event tells of its path.
#[derive(Clone, Copy)]
struct Told {
    /// It may concern all that lies below.
    deep: bool,
    closed: bool,
}

const SHALLOW: Told = Told { deep: false, closed: false };
const DEEP: Told = Told { deep: true, closed: false };
const CLOSED: Told = Told { deep: false, closed: true };

/// None if it is of no interest.
fn told_by(kind: &EventKind) -> Option<Told> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(CLOSED),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Create(_) | EventKind::Remove(_) => Some(DEEP),
        EventKind::Modify(_) => Some(SHALLOW),
        EventKind::Any | EventKind::Other => Some(DEEP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_due_when_it_is_quiet_or_has_been_busy_for_long() {
        let mailbox = Mailbox::default();
        mailbox.touch(b"a".to_vec(), SHALLOW);
        mailbox.touch(b"a".to_vec(), DEEP);
        assert!(mailbox.take(Instant::now()).local.is_empty(), "somebody may still write to it");
        let delivery = mailbox.take(Instant::now() + Duration::from_secs(10));
        assert_eq!(delivery.local, Paths::from([(b"a".to_vec(), true)]));
        assert_eq!(mailbox.waiting(), 0);
        let end = Instant::now() + BUSY_MAX * 10;
        loop {
            mailbox.touch(b"busy".to_vec(), SHALLOW);
            if !mailbox.take(Instant::now()).local.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "it is never looked at");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_counts_as_closed_until_it_is_changed_again() {
        let mailbox = Mailbox::default();
        for (path, events) in [(&b"saved"[..], [DEEP, SHALLOW, CLOSED]), (b"open", [DEEP, CLOSED, SHALLOW])] {
            events.into_iter().for_each(|told| mailbox.touch(path.to_vec(), told));
        }
        mailbox.stop();
        let delivery = mailbox.take(Instant::now());
        assert_eq!(delivery.local.len(), 2);
        assert_eq!(delivery.closed, HashSet::from([b"saved".to_vec()]));
    }

    #[test]
    fn a_flood_becomes_one_look_at_everything() {
        let mailbox = Mailbox::default();
        (0..=PATHS_MAX).for_each(|number| mailbox.touch(number.to_le_bytes().to_vec(), SHALLOW));
        let delivery = mailbox.take(Instant::now());
        assert!(delivery.everything);
        let many = Changes { inodes: vec![crate::base::Inode(7); PATHS_MAX + 1], ..Changes::default() };
        mailbox.changed(many);
        assert!(mailbox.take(Instant::now()).tree.too_many);
    }

    #[test]
    fn at_a_stop_all_that_waits_is_delivered() {
        let mailbox = Mailbox::default();
        mailbox.touch(b"a".to_vec(), SHALLOW);
        mailbox.stop();
        let delivery = mailbox.take(Instant::now() + Duration::from_secs(10));
        assert!(delivery.stop && delivery.local.len() == 1);
    }
}
