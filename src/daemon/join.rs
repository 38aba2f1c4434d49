//! Blocks that only grow: what came is joined with what is here, whoever stands on whom, so that nothing that was accepted
//! is ever given up.

use super::adopt::Ours;
use super::core::Core;
use super::core::Listed;
use super::drive::Driver;
use super::error::EngineError;
use super::floor::mode_of;
use super::status::RefusalStatus;
use super::take::{Arrived, refusal_status};
use crate::base::BlockNumber;
use crate::crypt::SealKeys;
use crate::image::{Draft, Stream};
use crate::map::{Map, Root};
use crate::record::{BlockCharter, Mode, Policy};
use crate::tree::merge::{Join, Joined, Merged, apply_merged, join_block};
use crate::tree::version::Version;
use crate::tree::{DraftSource, ImageSource};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Why what is set aside could not stay.
pub(super) const NOT_ADDED: &str = "the block only grows now, and this changed what was in it";

/// Who joined takes what is there, and may have met nobody but a thief: so long, and until it publishes, what others hold
/// against that goes before it.
const NEWCOMER_FOR: Duration = Duration::from_secs(600);
/// So often within [`FORGIVEN_AFTER`] a device publishes at once what makes a misdeed good: where two insist on what each of
/// them saw first, that does not go on for ever.
const INSISTENCES_MAX: u32 = 5;
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// What is remembered of joins.
#[derive(Default)]
pub(super) struct Joins {
    newcomer: Mutex<Option<Instant>>,
    insisted: Mutex<BTreeMap<BlockNumber, (u32, Instant)>>,
}

impl Joins {
    /// This device takes a version, perhaps its first one.
    pub fn arrives(&self, first: bool) {
        if first {
            *self.newcomer.lock() = Some(Instant::now());
        }
    }

    /// It has published something.
    pub fn publishes(&self) {
        *self.newcomer.lock() = None;
    }

    fn is_newcomer(&self) -> bool {
        self.newcomer.lock().is_some_and(|since| since.elapsed() < NEWCOMER_FOR)
    }

    /// Whether to publish at once that something stays as it was.
    fn insists(&self, number: BlockNumber) -> bool {
        let now = Instant::now();
        let mut insisted = self.insisted.lock();
        let (count, since) = insisted.entry(number).or_insert((0, now));
        if now.saturating_duration_since(*since) > FORGIVEN_AFTER {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        *count <= INSISTENCES_MAX
    }
}

/// Whether a block only grows.
pub fn only_grows(policy: &Policy, number: BlockNumber) -> bool {
    mode_of(policy, number) == Mode::Append
}

/// What a join of one block comes to.
pub(super) struct Union {
    pub root: Option<Root>,
    /// Who made the arrived state broke the rule, and what is here is to be published at once.
    pub insists: bool,
    /// What this device changed of what stands there gives way.
    pub gives_way: bool,
}

impl Core {
    /// Publishing is worth another try then: something that is not whole may be.
    pub fn whole_at(&self) -> Option<Instant> {
        self.inner().waits.then(|| self.tree.as_ref()?.whole_at()).flatten()
    }

    /// Joins what is here of a block with what has arrived of it, on the draft of the arrived image.
    pub(super) fn join(
        &self,
        (number, block): (BlockNumber, &BlockCharter),
        keys: &SealKeys,
        (arrived, theirs): (&Arrived, &Listed),
        ours: &Ours,
        draft: &Arc<Draft>,
    ) -> Result<Union, EngineError> {
        let nodes = self.tree_nodes();
        let (policy, charter) = (&ours.state.policy, &ours.state.charter);
        let their_source = ImageSource::new(&self.store, &arrived.image);
        let our_source = ImageSource::new(&self.store, &ours.head.image);
        let their_map = Map::new(keys, &their_source, nodes);
        let our_map = Map::new(keys, &our_source, nodes);
        let known = ours.entries.get(&number).filter(|known| known.entry.birth == block.birth);
        let counts = known.is_none_or(|known| self.still_counts(policy, charter, number, &known.entry));
        let stands = counts && !self.joins.is_newcomer();
        let head = {
            let inner = self.inner();
            inner
                .state
                .head
                .and_then(|head| inner.versions.get(&head.infohash))
                .map(|head| head.image.clone())
        };
        let head_source = head.as_ref().map(|image| ImageSource::new(&self.store, image));
        let head_map = head_source.as_ref().map(|source| Map::new(keys, source, nodes));
        // What was refused or is not of this version lies in another image.
        let told = self.told_root(number)?;
        let accepted = match (&head_map, &head_source, known.and_then(|known| known.root())) {
            (Some(map), Some(source), Some(root)) if told.map(|told| told.id) == Some(root.id) => {
                Some(Version { map, root: told, keys, source })
            }
            _ => None,
        };
        let own = self.tree()?.own_inodes(number);
        let our_root = ours.head.roots.get(&number).copied().flatten();
        let join = Join {
            block: number,
            here: Version { map: &our_map, root: our_root, keys, source: &our_source },
            there: Version { map: &their_map, root: theirs.root(), keys, source: &their_source },
            here_stands: stands,
            own: &own,
            accepted,
        };
        let Joined { edits, conflicts, lacks, differs } = join_block(&join)?;
        let merged = Merged { edits_on_b: edits, conflicts };
        let mut sink = DraftSource::new(draft.clone(), Stream::Fresh);
        let root = apply_merged(&join.there, &merged, &our_source, &mut sink)?;
        let misdeed = stands && (differs || lacks && ours.covered);
        let refusal = misdeed.then(|| {
            let what =
                "it changes or leaves out what was in the block, which only grows; that stays as it was";
            refusal_status(number, &block.path, what.into(), Some(theirs.entry.signer))
        });
        let insists = refusal.is_some() && self.joins.insists(number);
        let told = |refusal: &RefusalStatus| self.inner().state.refuse(refusal.clone());
        if let Some(refusal) = refusal.filter(told) {
            let by = self.called(&theirs.entry.signer);
            tracing::warn!("refused: what {by} changed in block {number} does not count: {}", refusal.reason);
        }
        let id = |root: Option<Root>| root.map(|root| root.id);
        let edited = known.is_some_and(|known| id(known.root()) != id(our_root));
        let mine = edited || ours.is_by(&number, &self.keys.device.public());
        Ok(Union { root, insists, gives_way: !counts && differs && mine })
    }

    /// The root of a block in the head version's catalogue.
    fn told_root(&self, number: BlockNumber) -> Result<Option<Root>, EngineError> {
        Ok(self.told_entries(&self.inner())?.get(&number).and_then(Listed::root))
    }
}

impl Driver {
    /// What was not whole may be so without anybody changing anything.
    pub(super) fn publish_again_when_whole(self: &Arc<Self>) {
        let Some(at) = self.core.whole_at() else { return };
        if self.awaits_whole.swap(true, Ordering::SeqCst) {
            return;
        }
        let driver = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            driver.awaits_whole.store(false, Ordering::SeqCst);
            driver.changed();
        });
    }
}
