//! The policy and charter in force and what the next ones will be, before they are signed.

use super::control::{Failure, FailureKind, Ground, Listing, Recutting, Request};
use super::core::now_seconds;
use crate::base::{BlockNumber, DatabaseId, DeviceId, Id};
use crate::crypt::seal::{BlobKind, SealKeys};
use crate::crypt::{AdminKey, RecordKey};
use crate::record::{
    BlockCharter, Charter, Floor, Lifeline, Members, Mode, Moved, Policy, SignedItem, next_floor,
    open_lifeline, sign_lifeline,
};
use data_encoding::HEXLOWER;
use std::collections::BTreeSet;

/// The policy and charter in force, and what the next ones will be.
pub struct Terms {
    /// Modes by block number.
    pub modes: Vec<Mode>,
    /// Paths, owners, births, floors; members.
    pub charter: Charter,
    /// The counter of the policy in force.
    pub counter: u32,
    /// What the policy was made from.
    pub ground: Ground,
    /// Whom the change lets write, or no longer.
    pub listing: Listing,
}

impl Terms {
    /// What is in force, as an engine tells it.
    pub fn of(ground: Ground) -> Result<Terms, Failure> {
        let unreadable = |what: &str| {
            Failure::failed(format!("the engine's {what} cannot be read; are both of one version?"))
        };
        let policy = HEXLOWER.decode(ground.policy_hex.as_bytes()).ok();
        let policy =
            policy.and_then(|bytes| Policy::decode(&bytes).ok()).ok_or_else(|| unreadable("policy"))?;
        let charter = HEXLOWER.decode(ground.charter_hex.as_bytes()).ok();
        let charter =
            charter.and_then(|bytes| Charter::decode(&bytes).ok()).ok_or_else(|| unreadable("charter"))?;
        Ok(Terms {
            modes: policy.modes,
            charter,
            counter: policy.counter,
            ground,
            listing: Listing::default(),
        })
    }

    /// The block that a person means: by number, or by path.
    pub fn find(&self, number: Option<BlockNumber>, path: &[u8]) -> Option<BlockNumber> {
        let known = |block: &BlockNumber| self.charter.blocks.contains_key(block);
        match number {
            Some(number) => Some(number).filter(known),
            None => {
                self.charter.blocks.iter().find(|(_, block)| block.path == path).map(|(number, _)| *number)
            }
        }
    }

    /// The mode of a block.
    pub fn mode(&self, number: BlockNumber) -> Mode {
        self.modes.get(usize::from(number.0)).copied().unwrap_or(Mode::ReadWrite)
    }

    /// Gives a block a mode.
    pub fn set_mode(&mut self, number: BlockNumber, mode: Mode) {
        let index = usize::from(number.0);
        if self.modes.len() <= index {
            self.modes.resize(index + 1, Mode::ReadWrite);
        }
        self.modes[index] = mode;
    }

    /// The path of a block, empty for the root and for one that does not exist.
    pub fn path(&self, number: BlockNumber) -> &[u8] {
        self.charter.blocks.get(&number).map_or(b"", |block| &block.path)
    }

    /// Gives a block a mode, and the owner that goes with it. Where that is a change, nothing older counts from here on:
    /// what the block is now is where its new rules begin.
    pub fn set_rules(
        &mut self,
        number: BlockNumber,
        mode: Mode,
        owner: Option<DeviceId>,
    ) -> Result<(), Failure> {
        let before = self.mode(number);
        let Some(block) = self.charter.blocks.get(&number) else { return Ok(()) };
        if before != mode || block.owner != owner {
            self.raise_floor(number)?;
            if let Some(block) = self.charter.blocks.get_mut(&number) {
                block.owner = owner;
            }
        }
        self.set_mode(number, mode);
        Ok(())
    }

    /// Nothing counts any more that somebody makes around these paths, which become blocks, without knowing of that: it
    /// would lie hidden behind them.
    pub fn raise_around<'p>(&mut self, paths: impl Iterator<Item = &'p [u8]>) -> Result<(), Failure> {
        let holds = |block: &BlockCharter, path: &[u8]| {
            let rest = path.strip_prefix(&block.path[..]);
            rest.is_some_and(|rest| block.path.is_empty() || rest.starts_with(b"/"))
        };
        let blocks = &self.charter.blocks;
        let around: BTreeSet<BlockNumber> = paths
            .filter_map(|path| {
                let around = blocks.iter().filter(|(_, block)| holds(block, path));
                around.max_by_key(|(_, block)| block.path.len()).map(|(number, _)| *number)
            })
            .collect();
        around.into_iter().try_for_each(|number| self.raise_floor(number))
    }

    /// What a block is now is where whatever comes begins: nothing below it counts any more.
    fn raise_floor(&mut self, number: BlockNumber) -> Result<(), Failure> {
        let floor = self.floor(number).ok_or_else(|| {
            Failure::failed(format!("block {number} has changed its rules as often as it can"))
        })?;
        if let Some(block) = self.charter.blocks.get_mut(&number) {
            block.floor = floor;
        }
        Ok(())
    }

    /// The floor over what a block is now; none where its counter has come to the end.
    fn floor(&self, number: BlockNumber) -> Option<Floor> {
        let ground = self.ground.blocks.iter().find(|block| block.number == number.0);
        let root = ground.and_then(|block| block.root.as_deref()).and_then(Id::from_hex);
        let below = self.charter.blocks.get(&number).map_or(0, |block| block.floor.counter);
        let counter = next_floor(ground.map_or(0, |block| block.counter).max(below))?;
        Some(Floor { counter, root })
    }

    /// The epoch of the keys in force.
    pub fn epoch(&self) -> u32 {
        self.charter.blocks.get(&BlockNumber::ROOT).map_or(0, |root| root.epoch)
    }

    /// Takes other members: what the present ones made so far stays, whoever they were.
    pub fn set_members(&mut self, members: Members) -> Result<(), Failure> {
        self.raise_floors()?;
        self.charter.members = members;
        Ok(())
    }

    /// Takes the keys of another epoch for all blocks, which go on from where they are.
    pub fn set_epoch(&mut self, epoch: u32) -> Result<(), Failure> {
        self.raise_floors()?;
        self.charter.blocks.values_mut().for_each(|block| block.epoch = epoch);
        Ok(())
    }

    /// Takes the floors of maps that were made for a border between blocks.
    pub fn behind(&mut self, recut: Recutting) -> Result<(), Failure> {
        let Recutting { ground, floors } = recut;
        let same = ground.policy_hex == self.ground.policy_hex;
        if !same || ground.charter_hex != self.ground.charter_hex {
            return Err(Failure::new(FailureKind::Moved, "the policy has changed meanwhile"));
        }
        self.ground = ground;
        for floor in floors {
            if let Some(block) = self.charter.blocks.get_mut(&BlockNumber(floor.number)) {
                let root = floor.root.as_deref().and_then(Id::from_hex);
                block.floor = Floor { counter: floor.counter, root };
            }
        }
        Ok(())
    }

    /// Takes a block away: what was in it is plain content of the block around.
    pub fn remove(&mut self, number: BlockNumber) {
        self.charter.blocks.remove(&number);
        self.set_mode(number, Mode::ReadWrite);
        let last = self.charter.blocks.keys().next_back().map_or(0, |last| usize::from(last.0));
        self.modes.truncate(last + 1);
    }

    /// Raises the floors of all blocks of which this device has a state.
    fn raise_floors(&mut self) -> Result<(), Failure> {
        let known: Vec<_> = self.ground.blocks.iter().map(|block| BlockNumber(block.number)).collect();
        known.into_iter().try_for_each(|number| self.raise_floor(number))
    }
}

/// What signs a policy.
pub struct Pen<'a> {
    /// Whose word it is.
    pub admin: &'a AdminKey,
    /// The record keys of all generations, the first one first.
    pub records: &'a [RecordKey],
    /// Names the charter.
    pub catalogue: &'a SealKeys,
    /// The database.
    pub database: DatabaseId,
}

impl Pen<'_> {
    /// The last rotation, which every lifeline repeats; an error where this device has not followed it yet, or knows nothing of
    /// one that there was.
    pub fn moved(&self, ground: &Ground) -> Result<Option<Moved>, Failure> {
        let item = ground.lifeline_hex.as_deref().and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
        let item = item.and_then(|bytes| SignedItem::decode(&bytes).ok());
        let lifeline =
            item.and_then(|item| open_lifeline(&item, &self.admin.public(), self.records, &self.database));
        let generation = lifeline.as_ref().map_or(0, Lifeline::generation);
        if generation as usize + 1 != self.records.len() {
            return Err(Failure::failed(
                "this device does not know the last change of the database's keys yet: `kilofs sync`, then try again",
            ));
        }
        Ok(lifeline.and_then(|lifeline| lifeline.moved))
    }

    /// Signs terms: what an engine takes into force.
    pub fn sign(&self, terms: Terms) -> Result<Request, Failure> {
        let Terms { modes, charter, counter, ground, listing } = terms;
        let counter = next(counter)?;
        charter.check().map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        let bytes = charter.encode();
        let id = self.catalogue.blob_id(BlobKind::Charter, &bytes);
        let policy = Policy::sign(self.admin, &self.database, counter, id, modes);
        let moved = self.moved(&ground)?;
        let lifeline = sign_lifeline(self.admin, self.records, moved.as_ref(), &policy, now_seconds());
        Ok(Request::Enact {
            policy_hex: HEXLOWER.encode(&policy.encode()),
            charter_hex: HEXLOWER.encode(&bytes),
            ground,
            lifeline_hex: HEXLOWER.encode(&lifeline.encode()),
            listing,
        })
    }
}

/// The counter of the next policy.
pub fn next(counter: u32) -> Result<u32, Failure> {
    counter
        .checked_add(1)
        .ok_or_else(|| Failure::failed("this database has had as many policies as there can be"))
}
