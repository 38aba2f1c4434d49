//! Telling the kernel what changed behind its back.
//!
//! A thread of its own does it, and holds no lock meanwhile: the kernel makes a notification wait for every request
//! that is under way on the same directory or page, so a handler that waited for this thread would never end.
//!
//! The order matters. A name is dropped under its directory's lock, so lookups that began before the change are
//! over by then, whatever they brought; only afterwards are attributes and pages dropped, which also overtakes the
//! answers that are still on their way (the kernel counts a version for each inode).

use super::message::{Fate, Messenger};
use super::shared::{ROOT, Shared};
use crate::base::Inode;
use crate::tree::Changes;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What the thread is asked to do.
pub(super) enum Notice {
    /// Tell of what an adoption or a policy changed.
    Changes(Changes),
    /// Tell of one inode.
    Inode(Inode),
    /// Make the kernel hand over what programs changed through mappings.
    Pull,
    /// Let go of what the shelf holds no more.
    Retire,
    /// Say when everything before this is done.
    Settle(Sender<()>),
    /// End.
    Stop,
}

/// The thread that notifies, and the way to it.
pub(super) struct Herald {
    notices: Sender<Notice>,
    thread: Option<JoinHandle<()>>,
}

impl Herald {
    /// Starts the thread.
    pub fn start(
        messenger: Messenger,
        shared: Arc<Shared>,
        inbox: Receiver<Notice>,
    ) -> std::io::Result<Herald> {
        let notices = shared.notices.clone();
        let voice = Voice { messenger, shared };
        let thread =
            std::thread::Builder::new().name("kilofs-notify".into()).spawn(move || voice.run(&inbox))?;
        Ok(Herald { notices, thread: Some(thread) })
    }

    /// Puts `changes` in the queue; returns at once.
    pub fn tell(&self, changes: Changes) {
        // Only fails when the mount has ended: then nobody is left to be told.
        let _ = self.notices.send(Notice::Changes(changes));
    }

    /// The host lists other old trees than before.
    pub fn retire(&self) {
        let _ = self.notices.send(Notice::Retire);
    }

    /// Makes the kernel hand over what programs changed through mappings, in files that are open for writing.
    pub fn pull(&self) {
        let _ = self.notices.send(Notice::Pull);
    }

    /// Hears when the kernel was told everything that was put in the queue before.
    pub fn settle(&self) -> Receiver<()> {
        let (done, heard) = crossbeam_channel::bounded(1);
        let _ = self.notices.send(Notice::Settle(done));
        heard
    }

    /// Ends the thread. To be called when the mount has ended: a notification that waits in the kernel ends with it.
    pub fn stop(&mut self) {
        let _ = self.notices.send(Notice::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the notifying thread panicked");
        }
    }
}

struct Voice {
    messenger: Messenger,
    shared: Arc<Shared>,
}

impl Voice {
    fn run(&self, inbox: &Receiver<Notice>) {
        for notice in inbox {
            match notice {
                Notice::Changes(changes) if changes.too_many => {
                    self.shared.follow_root();
                    self.everything();
                }
                Notice::Changes(changes) => self.exactly(&changes),
                Notice::Inode(inode) => self.inode(inode),
                // Dropping a page that was changed writes it back first, and waits for that.
                Notice::Pull => self.shared.writers.all().into_iter().for_each(|inode| self.inode(inode)),
                Notice::Retire => {}
                Notice::Settle(done) => drop(done.send(())),
                Notice::Stop => return,
            }
            for (directory, name) in self.shared.shelf.retired() {
                self.name(directory, &name, Fate::Dropped);
            }
        }
    }

    fn exactly(&self, changes: &Changes) {
        let root = changes.inodes.iter().chain(&changes.directories).any(|inode| *inode == ROOT);
        if root && self.shared.follow_root() {
            return self.everything();
        }
        for (parent, name) in &changes.entries {
            self.name(*parent, name, Fate::Doubted);
        }
        for inode in changes.inodes.iter().chain(&changes.directories) {
            self.inode(*inode);
        }
    }

    /// More changed than was listed: drop all that the kernel has.
    fn everything(&self) {
        if self.messenger.doubt_all_names().is_err() {
            // An older kernel. Dropping a directory's name drops all below it that nobody uses.
            for name in self.shared.root_names() {
                self.name(ROOT, &name, Fate::Dropped);
            }
        }
        // The root is known without ever having been looked up.
        for inode in self.shared.known.all().into_iter().chain([ROOT]) {
            self.inode(inode);
        }
    }

    fn name(&self, parent: Inode, name: &[u8], fate: Fate) {
        if let Err(error) = self.messenger.drop_name(parent, name, fate) {
            tracing::debug!(%parent, %error, "a name was not invalidated");
        }
    }

    fn inode(&self, inode: Inode) {
        if let Err(error) = self.messenger.drop_inode(inode) {
            tracing::debug!(%inode, %error, "an inode was not invalidated");
        }
    }
}
