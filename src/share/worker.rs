//! A shared folder from start to end: one thread that looks at what it is told of, round by round.

use super::base::{Base, MARKER_BYTES, Rel};
use super::error::ShareError;
use super::folder::Folder;
use super::mailbox::{Delivery, Mailbox, watch};
use super::reconcile::{Hand, Paths};
use super::report::Report;
use super::rules::Rules;
use crate::base::{DeviceId, Inode};
use crate::tree::{Changes, Tree, TreeError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The folder is looked for so often at least.
const IDLE: Duration = Duration::from_secs(1);
/// What was being changed is looked at again after so long.
const PAUSE: Duration = Duration::from_millis(50);
/// The base is written at most so often, and more seldom where that takes long: it costs a sync of both sides.
const SAVE_PERIOD: Duration = Duration::from_millis(300);
/// Of the time, one part in so many goes into writing the base.
const SAVE_SHARE: u32 = 20;
/// Everything is looked at so often, whatever the kernel tells.
const RESCAN_PERIOD: Duration = Duration::from_secs(1800);
/// The same where the kernel cannot tell of all directories.
const BLIND_RESCAN_PERIOD: Duration = Duration::from_secs(15);
/// Rounds at the end: what is still being written then waits for the next start.
const LAST_ROUNDS: usize = 3;
/// At a start, so many missing paths are taken for removed however many there were.
const MISSING_MAX: usize = 20;
const STACK_BYTES: usize = 64 << 20;

/// What a share asks of the engine. No method may wait for the network.
pub trait ShareHost: Send + Sync {
    /// Makes all that was changed in the tree survive a power loss.
    fn persist(&self) -> Result<(), TreeError>;
    /// Something was changed in the tree; cheap.
    fn mutated(&self);
    /// Runs `act` while no version is adopted.
    fn steadily(&self, act: &mut dyn FnMut());
    /// Whose edits a conflict copy made here holds.
    fn device(&self) -> DeviceId;
    /// A conflict copy was made in a directory of the tree.
    fn conflict(&self, directory: Inode, name: &[u8]);
}

/// How a folder is shared.
pub struct ShareOptions {
    /// The folder.
    pub directory: PathBuf,
    /// Where the base is kept.
    pub base: PathBuf,
    /// `.gitignore` counts like `.kilofsignore`.
    pub gitignore: bool,
    /// What was in step before is forgotten: nothing counts as removed.
    pub afresh: bool,
    /// However much is missing in the folder, it was removed.
    pub accept_removals: bool,
}

/// A folder that is kept in step until it is stopped.
pub struct Share {
    directory: PathBuf,
    mailbox: Arc<Mailbox>,
    report: Arc<Mutex<Report>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Share {
    /// Begins. What changed on either side since the last time is found after this returns.
    pub fn start(
        tree: Arc<Tree>,
        host: Arc<dyn ShareHost>,
        options: ShareOptions,
    ) -> Result<Share, ShareError> {
        let (folder, base) = open(&options)?;
        let mailbox = Arc::new(Mailbox::default());
        let watch = watch(options.directory.clone(), &mailbox).map_err(io::Error::other)?;
        let hand = Hand::new(folder, tree, host, base, Rules::new(options.gitignore), watch);
        let report = Arc::new(Mutex::new(Report { waiting: 1, ..Report::default() }));
        mailbox.look_at_everything();
        let worker = Worker {
            hand,
            mailbox: mailbox.clone(),
            report: report.clone(),
            base: options.base,
            saved: Instant::now(),
            save_pause: SAVE_PERIOD,
            scanned: Instant::now(),
            halted: None,
        };
        // Directories may lie deep in each other.
        let thread = std::thread::Builder::new().name("kilofs-share".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || worker.run())?;
        Ok(Share { directory: options.directory, mailbox, report, thread: Mutex::new(Some(thread)) })
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Others changed the tree. Returns at once.
    pub fn notify(&self, changes: Changes) {
        self.mailbox.changed(changes);
    }

    /// How it is.
    pub fn report(&self) -> Report {
        let mut report = self.report.lock().clone();
        report.waiting += self.mailbox.waiting();
        report
    }

    /// Brings in step what waits, and ends.
    pub fn stop(&self) {
        self.mailbox.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the shared folder panicked");
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Opens folder and base, and refuses where the one does not go with the other.
fn open(options: &ShareOptions) -> Result<(Folder, Base), ShareError> {
    let (mut folder, marked) = Folder::open(&options.directory)?;
    let refused = |why: String| ShareError::NotTheFolder { path: options.directory.clone(), why };
    let known = if options.afresh { None } else { Base::load(&options.base)? };
    let known = known.filter(|base| base.len() > 0);
    if let Some(base) = &known
        && !marked
    {
        return Err(refused(format!(
            "this database was shared with a folder of {} entries, and here is none: is its disk mounted? `--afresh` shares this folder instead, and removes nothing",
            base.len()
        )));
    }
    folder.mark(!marked)?;
    let marker: [u8; MARKER_BYTES] = folder.marker();
    let Some(base) = known.filter(|base| base.marker == marker) else {
        // Another folder, or nothing is known of it: then nothing counts as removed.
        let base = Base::of(marker);
        folder.clear(&base)?;
        return Ok((folder, base));
    };
    folder.clear(&base)?;
    let missing = missing(&folder, &base)?;
    if missing > MISSING_MAX && missing > base.len() / 2 && !options.accept_removals {
        return Err(refused(format!(
            "{missing} of {} entries are missing since the last time: `--accept-removals` removes them everywhere, `--afresh` brings them back",
            base.len()
        )));
    }
    Ok((folder, base))
}

/// How many entries of the base are nowhere in the folder, under their own names or others.
fn missing(folder: &Folder, base: &Base) -> Result<usize, ShareError> {
    let gone: Vec<u64> = base
        .iter()
        .filter(|(path, _)| matches!(folder.look(path), Ok(None)))
        .map(|(_, entry)| entry.local.number)
        .collect();
    if gone.len() <= MISSING_MAX {
        return Ok(gone.len());
    }
    let numbers = folder.numbers()?;
    Ok(gone.iter().filter(|number| !numbers.contains(number)).count())
}

struct Worker {
    hand: Hand,
    mailbox: Arc<Mailbox>,
    report: Arc<Mutex<Report>>,
    base: PathBuf,
    saved: Instant,
    save_pause: Duration,
    scanned: Instant,
    halted: Option<String>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let pause = match (self.halted.is_some(), self.hand.again.is_empty()) {
                (false, false) => PAUSE,
                (false, true) if self.hand.base.dirty => self.save_pause.min(IDLE),
                _ => IDLE,
            };
            let delivery = self.mailbox.take(Instant::now() + pause);
            let stop = delivery.stop;
            self.hand.ending = stop;
            if self.is_sound() {
                self.work(delivery);
                if stop {
                    (0..LAST_ROUNDS).for_each(|_| self.work(Delivery::default()));
                }
                if self.hand.base.dirty && (stop || self.saved.elapsed() >= self.save_pause) {
                    self.save();
                }
            }
            self.tell(0);
            if stop {
                return;
            }
        }
    }

    /// Whether the folder is there. While it is not, nothing is done; when it is again, everything is looked at.
    fn is_sound(&mut self) -> bool {
        let unsound = self.hand.folder.unsound();
        match (&unsound, &self.halted) {
            (Some(why), None) => {
                tracing::error!(folder = %self.hand.folder.path().display(), why, "halted: nothing is removed");
            }
            (None, Some(_)) => {
                tracing::info!("the folder is there again");
                self.mailbox.look_at_everything();
            }
            _ => {}
        }
        if unsound.is_some() && self.halted.is_none() {
            // What was told meanwhile may be the traces of its going.
            self.hand.again.clear();
        }
        self.halted = unsound;
        self.halted.is_none()
    }

    fn work(&mut self, delivery: Delivery) {
        let mut paths = std::mem::take(&mut self.hand.again);
        self.hand.closed = delivery.closed;
        let mut add = |path: Rel, deep: bool| *paths.entry(path).or_default() |= deep;
        let period = match self.mailbox.blind.load(Ordering::SeqCst) {
            true => BLIND_RESCAN_PERIOD,
            false => RESCAN_PERIOD,
        };
        let mut everything =
            delivery.everything || delivery.tree.too_many || self.scanned.elapsed() >= period;
        if delivery.local.keys().any(|path| self.hand.rules.is_rule(path)) {
            self.hand.rules.forget();
            everything = true;
        }
        delivery.local.into_iter().for_each(|(path, deep)| add(path, deep));
        self.hand.notes.due(Instant::now()).into_iter().for_each(|path| add(path, true));
        paths_of(&self.hand, &delivery.tree).into_iter().for_each(|path| add(path, false));
        if everything {
            self.scanned = Instant::now();
            paths = Paths::from([(Rel::new(), true)]);
        }
        if !paths.is_empty() {
            self.tell(paths.len());
            let rules = paths.keys().any(|path| self.hand.rules.is_rule(path));
            self.hand.round(paths);
            if rules {
                // They came from elsewhere.
                self.hand.rules.forget();
            }
        }
    }

    /// The tree first, then the folder, then what is known of both: the base never claims what a power cut could undo.
    fn save(&mut self) {
        let begun = Instant::now();
        let synced =
            self.hand.host.persist().map_err(ShareError::from).and_then(|()| self.hand.folder.sync());
        let saved = synced.and_then(|()| Ok(self.hand.base.save(&self.base)?));
        if let Err(error) = saved {
            tracing::warn!(%error, "what is in step could not be noted; it is tried again");
        }
        self.saved = Instant::now();
        self.save_pause = (begun.elapsed() * SAVE_SHARE).max(SAVE_PERIOD);
    }

    fn tell(&self, working: usize) {
        let waiting = working + self.hand.again.len();
        *self.report.lock() = self.hand.notes.report(waiting, self.halted.clone());
    }
}

/// The paths that changes of the tree concern.
fn paths_of(hand: &Hand, changes: &Changes) -> Vec<Rel> {
    let mut paths: Vec<Rel> = Vec::new();
    let mut directories: HashMap<Inode, Option<Rel>> = HashMap::new();
    for (parent, name) in &changes.entries {
        let directory = directories.entry(*parent).or_insert_with(|| {
            let path = hand.tree.path_of(*parent)?;
            Some(path.strip_prefix(b"/").unwrap_or(&path).to_vec())
        });
        if let Some(directory) = directory {
            paths.push(super::folder::join(directory, name));
        }
        // Where it was when it was last in step.
        paths.extend(hand.base.of_inode(*parent).iter().map(|known| super::folder::join(known, name)));
    }
    for inode in changes.inodes.iter().chain(&changes.directories) {
        paths.extend(hand.base.of_inode(*inode));
    }
    paths
}
