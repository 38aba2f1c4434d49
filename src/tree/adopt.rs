//! Taking over a state that was made elsewhere, and saying what it changes.

use super::block::{Base, Blocks, Shared};
use super::error::TreeError;
use super::flush::Head;
use super::key::Key;
use super::live::{Tree, make_base};
use super::source::ImageSource;
use super::state::State;
use crate::base::{BlockNumber, Inode};
use crate::map::MapError;
use std::collections::BTreeSet;
use std::sync::Arc;

/// More changes than that are not listed.
const CHANGES_MAX: usize = 50_000;

/// Somebody changed the tree after the generation that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree has changed meanwhile")]
pub struct Stale;

/// What is different from before, for whoever caches parts of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Inodes whose attributes or content may differ.
    pub inodes: Vec<Inode>,
    /// Names that lead elsewhere, are new or gone.
    pub entries: Vec<(Inode, Vec<u8>)>,
    /// Directories whose list of names differs.
    pub directories: Vec<Inode>,
    /// There are more changes than are listed here: anything may differ.
    pub too_many: bool,
}

impl Changes {
    /// Adds other changes to these.
    pub fn extend(&mut self, other: Changes) {
        self.inodes.extend(other.inodes);
        self.entries.extend(other.entries);
        self.directories.extend(other.directories);
        self.too_many |= other.too_many;
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        !self.too_many && self.inodes.is_empty() && self.entries.is_empty() && self.directories.is_empty()
    }
}

#[derive(Default)]
struct Collector {
    inodes: BTreeSet<Inode>,
    entries: BTreeSet<(Inode, Vec<u8>)>,
    directories: BTreeSet<Inode>,
    too_many: bool,
}

/// Why a comparison ended early.
enum Stop {
    Enough,
    Failed(MapError),
}

impl From<MapError> for Stop {
    fn from(error: MapError) -> Stop {
        Stop::Failed(error)
    }
}

impl Tree {
    /// Replaces the state by `head`, whose blocks are `blocks`, if nothing was changed since `expected_generation`
    /// and that was flushed; the generation of the new state is the next one. Open files go on working; those that the new state does not have stay as they were for
    /// whoever has them open.
    pub fn adopt(
        &self,
        expected_generation: u64,
        head: Head,
        blocks: impl Into<Blocks>,
    ) -> Result<Changes, Stale> {
        let mut flushing = self.flushing.lock();
        let old = {
            let state = self.bench.state.read();
            check_current(&state, expected_generation)?;
            state.base.clone()
        };
        let shared = &self.bench.shared;
        let source = ImageSource::remembering(&shared.store, &head.image, Arc::default());
        let made = make_base(source, blocks.into(), shared)
            .and_then(|base| Ok((base, shared.store.draft(&head.image)?)));
        let (base, draft) = made.map_err(|error| {
            tracing::error!(%error, "a state cannot be taken over");
            Stale
        })?;
        let changes = self.compare(&old, &base);
        let recount = self.recount(&old, &base);
        let mut state = self.bench.state.write();
        check_current(&state, expected_generation)?;
        if let Err(error) = self.keep_open(&mut state, &base) {
            tracing::error!(%error, "a state cannot be taken over while files are open");
            return Err(Stale);
        }
        if !same_blocks(&old, &base) {
            shared.homes.clear();
        }
        flushing.stubborn.clear();
        state.take_recount(recount);
        state.growing.follow(&base.view(shared));
        state.base = Arc::new(base);
        state.draft = Arc::new(draft);
        state.generation += 1;
        state.journal.begin_lineage();
        state.head = Head { generation: state.generation, mark: state.journal.mark(), ..head };
        self.listings.touch_all();
        Ok(changes)
    }

    /// Keeps what is open and has no place in the new state.
    fn keep_open(&self, state: &mut State, new: &Base) -> Result<(), TreeError> {
        let shared = &self.bench.shared;
        state.keep_orphans()?;
        // What has a name again is no orphan any more: who has it open sees what the name shows.
        let back: Vec<Inode> =
            state.orphans.keys().copied().filter(|inode| new.view(shared).record(*inode).is_ok()).collect();
        let open: Vec<Inode> =
            state.open.keys().copied().filter(|inode| !state.orphans.contains_key(inode)).collect();
        let mut nameless = Vec::new();
        for inode in open {
            if let Err(TreeError::NotFound) = new.view(shared).record(inode) {
                nameless.push((inode, state.orphan_from(inode, shared)?));
            }
        }
        back.into_iter().for_each(|inode| state.drop_orphan(inode));
        state.orphans.extend(nameless);
        Ok(())
    }

    /// Changes where this device may write, after a change of policy. Blocks that are not named stay as they are.
    pub fn set_writable(&self, blocks: &[(BlockNumber, bool)]) -> Changes {
        let mut state = self.bench.state.write();
        let mut views = state.base.blocks.clone();
        let mut changed = false;
        for (number, writable) in blocks {
            if let Some(block) = views.get_mut(number) {
                changed |= block.writable != *writable;
                block.writable = *writable;
            }
        }
        if changed {
            state.base = Arc::new(Base { blocks: views, ..(*state.base).clone() });
            state.journal.begin_lineage();
        }
        Changes { too_many: changed, ..Changes::default() }
    }

    fn compare(&self, old: &Base, new: &Base) -> Changes {
        let mut collector = Collector::default();
        collector.pins([old, new], &self.bench.shared);
        // A block that opens or closes is another directory under the same number.
        collector.too_many |= !old.insides.keys().eq(new.insides.keys());
        for block in new.blocks.values() {
            let Some(before) = old.blocks.get(&block.number) else { continue };
            if (before.writable, before.append) != (block.writable, block.append)
                || before.keys.commitment() != block.keys.commitment()
            {
                collector.too_many = true;
                break;
            }
            if before.root.map(|root| root.id) == block.root.map(|root| root.id) {
                continue;
            }
            let shared = &self.bench.shared;
            let maps = [old.map(before, shared), new.map(block, shared)];
            let compared =
                maps[0].diff_with(before.root.as_ref(), &maps[1], block.root.as_ref(), &mut |key, _, _| {
                    collector.key(key)
                });
            match compared {
                Ok(()) => {}
                Err(Stop::Enough) => break,
                Err(Stop::Failed(error)) => {
                    tracing::warn!(%error, block = block.number.0, "what changed cannot be told");
                    collector.too_many = true;
                }
            }
        }
        collector.finish()
    }
}

fn check_current(state: &State, expected_generation: u64) -> Result<(), Stale> {
    let clean = state.active.is_empty() && state.frozen.is_none();
    if clean && state.generation == expected_generation { Ok(()) } else { Err(Stale) }
}

/// Whether both have the same blocks, each in the same life.
fn same_blocks(one: &Base, other: &Base) -> bool {
    let lives = |base: &Base| -> Vec<_> {
        base.blocks.values().map(|block| (block.number, block.keys.commitment())).collect()
    };
    lives(one) == lives(other)
}

impl Collector {
    /// Mountpoints that came or went.
    fn pins(&mut self, [old, new]: [&Base; 2], shared: &Shared) {
        for (one, other) in [(old, new), (new, old)] {
            for (directory, name, inode) in one.pins.names() {
                let there = other.view(shared).child(directory, name).ok().flatten();
                if there.map(|entry| entry.inode) != Some(inode) {
                    self.directories.insert(directory);
                    self.entries.insert((directory, name.to_vec()));
                }
            }
        }
    }

    fn key(&mut self, key: &[u8]) -> Result<(), Stop> {
        match Key::decode(key) {
            Ok(Key::Entry(directory, name)) => {
                self.directories.insert(directory);
                self.entries.insert((directory, name.to_vec()));
            }
            Ok(other) => _ = self.inodes.insert(other.inode()),
            Err(_) => {}
        }
        if self.inodes.len() + self.entries.len() > CHANGES_MAX {
            self.too_many = true;
            return Err(Stop::Enough);
        }
        Ok(())
    }

    fn finish(self) -> Changes {
        if self.too_many {
            return Changes { too_many: true, ..Changes::default() };
        }
        Changes {
            inodes: self.inodes.into_iter().collect(),
            entries: self.entries.into_iter().collect(),
            directories: self.directories.into_iter().collect(),
            too_many: false,
        }
    }
}
