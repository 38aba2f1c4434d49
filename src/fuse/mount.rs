//! A mounted database: from the call that mounts it to the moment that the kernel lets go of it.

use super::adapter::Adapter;
use super::device;
use super::host::Host;
use super::init::{READ_AHEAD_KIB, THREADS};
use super::message::Messenger;
use super::mountpoint::{self, Unmount};
use super::notify::Herald;
use super::shared::Shared;
use super::{Audience, MountError, MountOptions};
use crate::tree::{Changes, Tree};
use fuser::{Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A mount that lives until somebody unmounts it, here or from outside. Dropping it detaches it.
pub struct Mounted {
    path: PathBuf,
    /// What the kernel's mount table calls our device: tells our mount from what others mount here.
    device: Option<String>,
    shared: Arc<Shared>,
    herald: Mutex<Herald>,
    ended: Arc<Ended>,
}

/// Whether the kernel has let go, and how it went.
#[derive(Default)]
struct Ended {
    result: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

/// Mounts `tree` on `dir`; the directory is usable when this returns. A dead mount that is in the way is cleared.
pub fn mount(
    tree: Arc<Tree>,
    host: Arc<dyn Host>,
    dir: &Path,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let path = mountpoint::prepare(dir)?;
    let (notices, inbox) = crossbeam_channel::unbounded();
    let shared = Arc::new(Shared::new(tree, host, options, notices).map_err(MountError::Handshake)?);
    let device = device::mount(&path, options)?;
    let start = || {
        let messenger = Messenger(device.try_clone()?);
        let session = Session::from_fd(Adapter(shared.clone()), device, acl(options), config())?;
        let herald = Herald::start(messenger, shared.clone(), inbox)?;
        let ended = Arc::new(Ended::default());
        let end = ended.clone();
        std::thread::Builder::new().name("kilofs-fuse".into()).spawn(move || end.tell(session.run()))?;
        Ok((herald, ended))
    };
    match start() {
        Ok((herald, ended)) => {
            let device = mountpoint::top_mount(&path).map(|line| line.device);
            device.as_deref().inspect(|device| read_further_ahead(device));
            Ok(Mounted { path, device, shared, herald: Mutex::new(herald), ended })
        }
        Err(error) => {
            // The device is closed by now; what is left at the path answers nobody.
            if let Err(stuck) = mountpoint::take_off(&path, Unmount::Lazily) {
                tracing::warn!(%stuck, "a mount that failed to start was left behind");
            }
            Err(MountError::Handshake(error))
        }
    }
}

fn acl(options: &MountOptions) -> SessionACL {
    match options.audience {
        Audience::Owner => SessionACL::Owner,
        Audience::OwnerAndRoot => SessionACL::RootAndOwner,
        Audience::Everyone => SessionACL::All,
    }
}

fn config() -> fuser::Config {
    let mut config = fuser::Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}

/// Lets the kernel read further ahead than its default of 128 KiB, so that both threads have something to open. Only
/// root may say so; for others reads are a few per cent slower.
fn read_further_ahead(device: &str) {
    let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&setting, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(setting, %error, "the read-ahead stays as it is");
    }
}

impl Ended {
    fn tell(&self, result: std::io::Result<()>) {
        *self.result.lock() = Some(result.map_err(|error| error.to_string()));
        self.changed.notify_all();
    }
}

impl Mounted {
    /// Where it is mounted, in canonical form.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the kernel what an adoption or a policy changed. Returns at once; may be called with locks held.
    pub fn notify(&self, changes: Changes) {
        self.herald.lock().tell(changes);
    }

    /// Tells the kernel to look anew at what [`Host::versions`] and [`Host::refused`] list, and to let go of what
    /// they list no more (until then it may pin an old version's bytes). Returns at once.
    pub fn retire(&self) {
        self.herald.lock().retire();
    }

    /// Waits until the kernel knows all that was notified so far; false if it does not within `patience`.
    /// Not to be called from a [`Host`] method, nor with a lock that one takes.
    pub fn settle(&self, patience: Duration) -> bool {
        let waiting = self.herald.lock().settle();
        waiting.recv_timeout(patience).is_ok()
    }

    /// Makes the kernel hand over what programs changed through mappings, so that an adoption meets it as mutations;
    /// else it would be written, page by page, over what was adopted. Drops cached pages of all files that are open
    /// for writing. False if it takes longer than `patience`. The same holds for calling it as for
    /// [`Mounted::settle`].
    pub fn pull_mapped_pages(&self, patience: Duration) -> bool {
        if self.shared.writers.all().is_empty() || self.has_ended() {
            return true;
        }
        self.herald.lock().pull();
        self.settle(patience)
    }

    /// Whether the kernel has let go of it.
    pub fn has_ended(&self) -> bool {
        self.ended.result.lock().is_some()
    }

    /// Waits until the kernel has let go of it, at most until `deadline`; `None` if it has not by then. An error is
    /// the reason why the session broke off: then the directory answers `ENOTCONN` until it is unmounted.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<Result<(), String>> {
        let mut result = self.ended.result.lock();
        while result.is_none() {
            match deadline {
                None => self.ended.changed.wait(&mut result),
                Some(deadline) if self.ended.changed.wait_until(&mut result, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        result.clone()
    }

    /// Takes the mount off its directory, if it is still there.
    pub fn unmount(&self, how: Unmount) -> Result<(), MountError> {
        // Device numbers are used again at once: once the session has ended well, what is there is not ours.
        if matches!(*self.ended.result.lock(), Some(Ok(()))) {
            return Ok(());
        }
        match mountpoint::top_mount(&self.path) {
            Some(line) if Some(&line.device) == self.device.as_ref() => mountpoint::take_off(&self.path, how),
            _ => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount(Unmount::Lazily) {
            tracing::warn!(%error, "a mount was left behind");
        }
        self.herald.lock().stop();
    }
}
