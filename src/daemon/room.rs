//! Room on a full disk. What was deleted is still shown by older versions that are kept, so deleting alone frees nothing:
//! where the disk is full, older versions go. What the working head stands on stays, and so does whatever it does not
//! hold: of what is content now nothing is given up.

use super::core::{Core, now_seconds};
use super::demand::blocking;
use super::drive::Driver;
use super::error::EngineError;
use super::versions::Version as KeptVersion;
use crate::base::InfoHash;
use crate::tree::Changes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// With less room for programs than this the disk counts as full.
pub(super) const LITTLE_BYTES: u64 = 8 << 20;
/// So much is made.
const ENOUGH_BYTES: u64 = 2 * LITTLE_BYTES;
/// What another device builds on is needed to merge with it, and nobody else is known to have moved on yet.
const GRACE_SECONDS: u32 = 10;

impl Core {
    /// What programs lack of enough room, if the disk is full.
    pub(super) fn lacking_bytes(&self) -> Option<u64> {
        let free_bytes = self.tree.as_ref()?.space().ok()?.free_bytes;
        (free_bytes <= LITTLE_BYTES).then(|| ENOUGH_BYTES - free_bytes)
    }

    /// Lets older versions go, the oldest before the others, until there is room, or none of them holds any.
    /// `followed`: another device has the published head, and builds on nothing older.
    fn let_go_for_room(&self, lacking: u64, followed: bool) -> Result<Vec<InfoHash>, EngineError> {
        // Whoever publishes or adopts now changes what is kept: it is looked at again soon.
        let Some(_work) = self.work.try_lock() else { return Ok(Vec::new()) };
        // What was deleted just now is in the image of the last flush.
        self.commit()?;
        let mut inner = self.inner();
        let mut stay: Vec<KeptVersion> = inner.versions.iter().cloned().collect();
        let images = |stay: &[KeptVersion]| {
            let images: Vec<_> = stay.iter().map(|version| version.image.clone()).collect();
            self.bytes_with(&inner, images.iter())
        };
        let before = images(&stay);
        let newest = stay.first().map(KeptVersion::id);
        let head = inner.state.head.map(|head| head.infohash);
        let now = now_seconds();
        let may_go = |version: &KeptVersion| {
            let held = |(id, commit): &(_, Arc<crate::record::Commit>)| {
                *id != version.id() && version.commit.as_ref().is_some_and(|older| commit.covers(older))
            };
            newest != Some(version.id())
                && head != Some(version.reference.infohash)
                && (followed || now.saturating_sub(version.time) >= GRACE_SECONDS)
                && inner.heads.iter().any(held)
        };
        let (mut gone, mut unsettled) = (Vec::new(), Vec::new());
        let mut freed = 0;
        while freed < lacking {
            // They are in the order in which they came, the newest first.
            let Some(oldest) = stay.iter().rposition(may_go) else { break };
            unsettled.push(stay.remove(oldest).reference.infohash);
            let freeing = before.saturating_sub(images(&stay));
            if freeing > freed {
                gone.append(&mut unsettled);
                freed = freeing;
            }
        }
        if gone.is_empty() {
            return Ok(gone);
        }
        gone.iter().for_each(|infohash| inner.versions.remove(infohash));
        self.remember_kept(&inner);
        self.save(&inner)?;
        self.done.let_go.fetch_add(gone.len() as u64, Ordering::Relaxed);
        Ok(gone)
    }

    /// That the disk is full, where somebody writes.
    pub(super) fn full_in_words(&self) -> Option<String> {
        self.lacking_bytes()?;
        let gone = match self.done.let_go.load(Ordering::Relaxed) {
            0 => String::new(),
            count => format!(" ({count} went since this engine started)"),
        };
        Some(format!(
            "the disk that holds {} is full: what does not fit is refused; free some space. Deleting here helps once it is \
             published: older versions that are kept go then to make room{gone}",
            self.paths.store.display()
        ))
    }
}

impl Driver {
    /// Where the disk is full, older versions go.
    pub(super) async fn make_room_on_disk(&self) {
        let Some(lacking) = self.core.lacking_bytes() else { return };
        let followed = self.kept_elsewhere().is_some();
        let core = self.core.clone();
        match blocking(move || core.let_go_for_room(lacking, followed)).await {
            Ok(gone) if !gone.is_empty() => {
                for version in &gone {
                    tracing::warn!(%version, "the disk is full: an older version is let go");
                }
                if let Some(net) = self.net() {
                    self.drop_old(net).await;
                }
                // What lists old versions must let go of them, too.
                self.notify(Changes::default());
                if let Err(error) = self.give_back().await {
                    tracing::warn!(%error, "space could not be given back");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "no room could be made on the full disk"),
        }
    }
}
