//! Telling the kernel what changed behind its back.
//!
//! A thread of its own does it, and holds no lock meanwhile: the kernel makes a notification wait for every request
//! that is under way on the same directory or page, so a handler that waited for this thread would never end.
//!
//! The order matters. A name is dropped under its directory's lock, so lookups that began before the change are
//! over by then, whatever they brought; only afterwards are attributes and pages dropped, which also overtakes the
//! answers that are still on their way (the kernel counts a version for each inode).

use super::shared::{ROOT, Shared};
use crate::base::Inode;
use crate::tree::Changes;
use crossbeam_channel::{Receiver, Sender};
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread::JoinHandle;

/// `FUSE_NOTIFY_INC_EPOCH` (ABI 7.44, Linux 6.16): every cached name is looked up anew.
const INCREASE_EPOCH: i32 = 8;
/// Bytes of a notification without a body: length 4, code 4, zero 8.
const HEADER_BYTES: usize = 16;

/// What the thread is asked to do.
pub(super) enum Notice {
    /// Tell of what an adoption or a policy changed.
    Changes(Changes),
    /// Tell of one inode.
    Inode(Inode),
    /// Look anew at what lies on the shelf.
    Shelf,
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
    /// Starts the thread. `device` is the mount's own `/dev/fuse`.
    pub fn start(
        notifier: Notifier,
        device: OwnedFd,
        shared: Arc<Shared>,
        inbox: Receiver<Notice>,
    ) -> std::io::Result<Herald> {
        let notices = shared.notices.clone();
        let voice = Voice { notifier, device, shared };
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
    pub fn tell_shelf(&self) {
        let _ = self.notices.send(Notice::Shelf);
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
    notifier: Notifier,
    device: OwnedFd,
    shared: Arc<Shared>,
}

impl Voice {
    fn run(&self, inbox: &Receiver<Notice>) {
        for notice in inbox {
            match notice {
                Notice::Changes(changes) if changes.too_many => self.everything(),
                Notice::Changes(changes) => self.exactly(&changes),
                Notice::Inode(inode) => self.inode(inode),
                Notice::Shelf => {}
                Notice::Settle(done) => drop(done.send(())),
                Notice::Stop => return,
            }
            for (directory, name) in self.shared.shelf.retired() {
                self.entry(directory, &name);
            }
        }
    }

    fn exactly(&self, changes: &Changes) {
        for (parent, name) in &changes.entries {
            self.entry(*parent, name);
        }
        for inode in changes.inodes.iter().chain(&changes.directories) {
            self.inode(*inode);
        }
    }

    /// More changed than was listed: drop all that the kernel has.
    fn everything(&self) {
        if !self.increase_epoch() {
            // Dropping a directory's name drops all below it that nobody uses.
            for name in self.shared.root_names() {
                self.entry(ROOT, &name);
            }
        }
        for inode in self.shared.known.all() {
            self.inode(inode);
        }
    }

    fn entry(&self, parent: Inode, name: &[u8]) {
        let told = self.notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name));
        if let Err(error) = told {
            tracing::debug!(%parent, %error, "a name was not invalidated");
        }
    }

    /// Attributes, and all pages: of a file its data, of a directory its listing, of a link its target.
    fn inode(&self, inode: Inode) {
        if let Err(error) = self.notifier.inval_inode(INodeNo(inode.0), 0, 0) {
            tracing::debug!(%inode, %error, "an inode was not invalidated");
        }
    }

    /// False on kernels that do not have it.
    fn increase_epoch(&self) -> bool {
        let mut message = [0; HEADER_BYTES];
        message[..4].copy_from_slice(&(HEADER_BYTES as u32).to_ne_bytes());
        message[4..8].copy_from_slice(&INCREASE_EPOCH.to_ne_bytes());
        rustix::io::write(&self.device, &message).is_ok()
    }
}
