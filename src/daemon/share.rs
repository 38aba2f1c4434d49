//! A shared folder's side of the engine.

use super::commands::Desk;
use super::conflicts::note_conflicts;
use super::control::Failure;
use super::error::EngineError;
use super::launch::Role;
use super::status::{ShareStatus, SkippedStatus};
use crate::base::{DeviceId, Inode};
use crate::share::{Report, Share, ShareHost, ShareOptions};
use crate::tree::{Changes, TreeError};
use std::sync::Arc;

/// The base, in the database's directory. It can be rebuilt.
const BASE: &str = "share";

/// The engine as its shared folder sees it.
struct ShareDesk(Arc<Desk>);

impl ShareHost for ShareDesk {
    fn persist(&self) -> Result<(), TreeError> {
        self.0.core.persist()
    }

    fn mutated(&self) {
        self.0.driver.changed();
    }

    fn steadily(&self, act: &mut dyn FnMut()) {
        // An adoption flips the tree under this lock.
        let _turn = self.0.core.turn.lock();
        act();
    }

    fn device(&self) -> DeviceId {
        self.0.core.keys.device.public()
    }

    fn conflict(&self, directory: Inode, name: &[u8]) {
        let Some(tree) = &self.0.core.tree else { return };
        let changes = Changes { entries: vec![(directory, name.to_vec())], ..Changes::default() };
        note_conflicts(&mut self.0.core.inner(), tree, &changes);
    }
}

impl Desk {
    /// Begins to share a folder, if that is the engine's role.
    pub(super) fn start_share(self: &Arc<Self>, role: &Role) -> Result<(), Failure> {
        let Role::Share { directory, gitignore, afresh, accept_removals } = role else { return Ok(()) };
        let tree = self.core.tree.clone().ok_or_else(|| Failure::from(EngineError::Capability("mirror")))?;
        let options = ShareOptions {
            directory: directory.clone(),
            base: self.core.paths.directory.join(BASE),
            gitignore: *gitignore,
            afresh: *afresh,
            accept_removals: *accept_removals,
        };
        let host = Arc::new(ShareDesk(self.clone()));
        let before = tree.generation();
        let share = Share::start(tree.clone(), host, options)
            .map_err(|error| Failure::failed(super::drive::error_chain(&error)))?;
        let share = Arc::new(share);
        self.driver.set_share(Arc::downgrade(&share));
        if tree.generation() != before {
            // A version may have been adopted before anybody told the share of it.
            share.notify(Changes { too_many: true, ..Changes::default() });
        }
        // One engine starts once.
        _ = self.share.set(share);
        Ok(())
    }

    /// Where the folder is that is shared, and how it is.
    pub(super) fn share_status(&self) -> (Option<String>, Option<ShareStatus>) {
        let Some(share) = self.share.get() else { return (None, None) };
        (Some(share.directory().display().to_string()), Some(shown(share.report())))
    }
}

fn shown(report: Report) -> ShareStatus {
    let named = |paths: Vec<(String, String)>| {
        paths.into_iter().map(|(path, reason)| SkippedStatus { path, reason }).collect()
    };
    ShareStatus {
        in_step: report.waiting == 0 && report.halted.is_none(),
        waiting: report.waiting,
        skipped: named(report.skipped),
        refused: report.refused,
        failing: named(report.failing),
        halted: report.halted,
    }
}
