//! Append blocks: what was made and is its writer's own until it is whole, and then nobody's to change.
//!
//! A new inode is *own* from the moment in which it is made. It is whole, and so fixed for good, once nobody has it open
//! for writing and nothing happened to it for [`WHOLE_AFTER`]; a directory, once that holds for all that goes on below it,
//! files that are merely open aside. What lies in a directory that is not whole waits for it.

use super::block::Base;
use super::error::TreeError;
use super::merge::conflict_name;
use super::state::State;
use super::view::View;
use crate::base::{BlockNumber, DeviceId, Inode};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// So long nothing may have happened to what counts as whole: programs that write a file beside and rename it, or set its
/// time after they closed it, have done so by then.
pub const WHOLE_AFTER: Duration = Duration::from_secs(1);
/// A directory below which something always happens is waited for so long at most.
const DIRECTORY_MAX: Duration = Duration::from_secs(15 * 60);
/// Directories above a change that are told of it, at most.
const DEPTH_MAX: usize = 4096;

/// Something that was made in an append block and is not whole.
struct Own {
    block: BlockNumber,
    directory: bool,
    /// Where its newest name is.
    parent: Inode,
    born: Instant,
    touched: Instant,
    writers: u32,
}

/// What is not whole.
#[derive(Default)]
pub(super) struct Growing {
    inodes: HashMap<Inode, Own>,
    names: BTreeMap<(Inode, Box<[u8]>), Inode>,
}

/// What was not whole when a state was taken: which inodes, and their names.
#[derive(Default, Clone, Debug)]
pub(super) struct Unfinished {
    /// By block.
    pub(super) inodes: BTreeMap<BlockNumber, BTreeSet<Inode>>,
    /// Each with its directory.
    pub(super) names: Vec<(Inode, Box<[u8]>, Inode)>,
}

impl Growing {
    /// Something new in an append block.
    pub(super) fn begin(
        &mut self,
        inode: Inode,
        parent: Inode,
        block: BlockNumber,
        directory: bool,
        now: Instant,
    ) {
        let own = Own { block, directory, parent, born: now, touched: now, writers: 0 };
        self.inodes.insert(inode, own);
    }

    /// Whether it may still be changed.
    pub(super) fn has(&self, inode: Inode) -> bool {
        self.inodes.contains_key(&inode)
    }

    /// It is gone.
    pub(super) fn end(&mut self, inode: Inode) {
        self.inodes.remove(&inode);
    }

    /// A name leads elsewhere from now on.
    pub(super) fn named(&mut self, directory: Inode, name: &[u8], inode: Option<Inode>) {
        match inode.and_then(|inode| Some((inode, self.inodes.get_mut(&inode)?))) {
            Some((inode, own)) => {
                own.parent = directory;
                self.names.insert((directory, name.into()), inode);
            }
            None if self.names.is_empty() => {}
            None => _ = self.names.remove(&(directory, Box::from(name))),
        }
    }

    /// Something happened to an inode. While it is written to, that is nothing to the directories above.
    pub(super) fn touch(&mut self, inode: Inode, now: Instant) {
        let mut at = inode;
        for _ in 0..DEPTH_MAX {
            let Some(own) = self.inodes.get_mut(&at) else { return };
            own.touched = now;
            if own.writers > 0 || own.parent == at {
                return;
            }
            at = own.parent;
        }
    }

    /// A handle for writing more, or less.
    fn writers(&mut self, inode: Inode, change: i32) {
        if let Some(own) = self.inodes.get_mut(&inode) {
            own.writers = own.writers.saturating_add_signed(change);
        }
    }

    fn rests_at(own: &Own) -> Option<Instant> {
        match (own.directory, own.writers) {
            (true, _) => Some((own.touched + WHOLE_AFTER).min(own.born + DIRECTORY_MAX)),
            (false, 0) => Some(own.touched + WHOLE_AFTER),
            (false, _) => None,
        }
    }

    /// When the next of them may be whole; none where all are open.
    fn due(&self) -> Option<Instant> {
        self.inodes.values().filter_map(Growing::rests_at).max_by_key(|at| std::cmp::Reverse(*at))
    }

    /// Fixes all that is whole at `now`, or lies in a block where nothing is own; what is left.
    pub(super) fn settle(&mut self, now: Instant, base: &Base) -> Unfinished {
        if self.inodes.is_empty() {
            self.names.clear();
            return Unfinished::default();
        }
        let appends = |number: &BlockNumber| base.block(*number).is_ok_and(|block| block.append);
        let is_whole = |own: &Own| !appends(&own.block) || Growing::rests_at(own).is_some_and(|at| at <= now);
        let mut unfinished: BTreeSet<Inode> =
            self.inodes.iter().filter(|(_, own)| !is_whole(own)).map(|(inode, _)| *inode).collect();
        loop {
            let waits = |((directory, _), inode): &(&(Inode, Box<[u8]>), &Inode)| {
                unfinished.contains(directory)
                    && !unfinished.contains(inode)
                    && self.inodes.contains_key(inode)
            };
            let more: Vec<Inode> = self.names.iter().filter(waits).map(|(_, inode)| *inode).collect();
            if more.is_empty() {
                break;
            }
            unfinished.extend(more);
        }
        self.inodes.retain(|inode, _| unfinished.contains(inode));
        self.names.retain(|_, inode| unfinished.contains(inode));
        self.unfinished()
    }

    /// All that is not whole.
    pub(super) fn unfinished(&self) -> Unfinished {
        let mut inodes: BTreeMap<BlockNumber, BTreeSet<Inode>> = BTreeMap::new();
        for (inode, own) in &self.inodes {
            inodes.entry(own.block).or_default().insert(*inode);
        }
        let names = self.names.iter().map(|((directory, name), inode)| (*directory, name.clone(), *inode));
        Unfinished { inodes, names: names.collect() }
    }

    /// Forgets a block: all in it is fixed.
    pub(super) fn fix(&mut self, block: BlockNumber) {
        self.inodes.retain(|_, own| own.block != block);
        let inodes = &self.inodes;
        self.names.retain(|_, inode| inodes.contains_key(inode));
    }

    /// Another state was taken over, in which some may have other names: that of something which was accepted first was
    /// theirs, or their directory became part of one that was.
    pub(super) fn follow(&mut self, new: &View<'_>) {
        if self.inodes.is_empty() {
            return;
        }
        self.inodes.retain(|inode, _| new.record(*inode).is_ok());
        let mut merged: HashMap<Inode, Inode> = HashMap::new();
        let mut names = BTreeMap::new();
        let old = std::mem::take(&mut self.names);
        for _ in 0..DEPTH_MAX {
            let before = merged.len();
            for ((directory, name), inode) in &old {
                let directory = merged.get(directory).copied().unwrap_or(*directory);
                let found = new.child(directory, name).ok().flatten().map(|entry| entry.inode);
                if let Some(into) = found.filter(|found| found != inode && !self.inodes.contains_key(inode)) {
                    merged.insert(*inode, into);
                }
            }
            if merged.len() == before {
                break;
            }
        }
        let mut lost = BTreeSet::new();
        for ((directory, name), inode) in old {
            let Some(own) = self.inodes.get_mut(&inode) else { continue };
            let directory = merged.get(&directory).copied().unwrap_or(directory);
            match name_now(new, directory, &name, inode) {
                Some(name) => {
                    own.parent = directory;
                    names.insert((directory, name), inode);
                }
                None => _ = lost.insert(own.block),
            }
        }
        self.names = names;
        lost.into_iter().for_each(|block| self.fix(block));
    }
}

/// The name that something has in a directory where it may have lost its own.
fn name_now(new: &View<'_>, directory: Inode, name: &[u8], inode: Inode) -> Option<Box<[u8]>> {
    const ATTEMPTS: u32 = 8;
    let is =
        |name: &[u8]| new.child(directory, name).ok().flatten().is_some_and(|entry| entry.inode == inode);
    if is(name) {
        return Some(name.into());
    }
    let born = new.record(inode).ok()?.crtime.seconds;
    let session = session_of(inode);
    (0..ATTEMPTS)
        .map(|attempt| conflict_name(name, &session, born, attempt))
        .find(|name| is(name))
        .map(Into::into)
}

/// What stands for the maker of an inode in the name of a conflict copy: the session that drew its number.
pub(super) fn session_of(inode: Inode) -> DeviceId {
    let mut session = [0; DeviceId::BYTES];
    session[..8].copy_from_slice(&inode.0.to_be_bytes());
    DeviceId(session)
}

impl State {
    /// Refuses where this device may not write, and to change what is whole in an append block.
    pub(super) fn check_changeable(&self, inode: Inode, block: BlockNumber) -> Result<(), TreeError> {
        self.check_writable(block)?;
        let own = self.growing.has(inode) || self.orphans.contains_key(&inode);
        if self.replaying || own || !self.base.block(block)?.append {
            Ok(())
        } else {
            Err(TreeError::Fixed(block))
        }
    }
}

impl super::live::Tree {
    /// A handle for writing was closed; says whether that may have made something whole.
    pub fn close_writer(&self, inode: Inode) -> bool {
        let mut state = self.bench.state.write();
        state.growing.writers(inode, -1);
        state.growing.touch(inode, Instant::now());
        state.growing.has(inode)
    }

    /// The same for one that was opened.
    pub(super) fn opened_writer(state: &mut State, inode: Inode) {
        state.growing.touch(inode, Instant::now());
        state.growing.writers(inode, 1);
    }

    /// When something in an append block may be whole next.
    pub fn whole_at(&self) -> Option<Instant> {
        self.bench.state.read().growing.due()
    }

    /// What is its writers' own in a block.
    pub fn own_inodes(&self, block: BlockNumber) -> BTreeSet<Inode> {
        self.bench.state.read().growing.unfinished().inodes.remove(&block).unwrap_or_default()
    }
}
