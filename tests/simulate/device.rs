//! One device: a machine, what it holds, and what of that outlasts a power cut.

use super::bits::Bits;
use super::dht::Item;
use kilofs::base::{DeviceId, Id, InfoHash, Locator, Place, SessionId, Signature};
use kilofs::record::{Maker, Stamp, Vector, VersionRef};
use kilofs::sync::{Fetched, Machine, Millis, Role, Timing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A version as everybody sees it who has it.
#[derive(Clone)]
pub struct Version {
    pub content: Bits,
    /// Its commit's.
    pub stamp: Stamp,
    /// What it stands on.
    pub vector: Vector,
    pub author: usize,
    /// A forged one does not open, or claims what nobody signed.
    pub valid: bool,
}

/// Who holds the key and keeps no rule.
pub const THIEF: usize = usize::MAX;

impl Version {
    pub fn covers(&self, other: &Version) -> bool {
        let reaches =
            |one: &Version, two: &Version| one.vector.reaches(&two.maker(), &two.stamp, &two.vector);
        reaches(self, other) && !reaches(other, self)
    }

    pub fn maker(&self) -> Maker {
        maker(self.author)
    }
}

pub fn maker(author: usize) -> Maker {
    let mut device = [0; 32];
    device[..8].copy_from_slice(&(author as u64).to_be_bytes());
    Maker { device: DeviceId(device), session: SessionId([0; 16]) }
}

/// The stamp of the version that is made next.
pub fn stamp(made: usize, counter: u64) -> Stamp {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&(made as u64).to_be_bytes());
    Stamp { counter, digest: Id(digest), signature: Signature([0; 64]) }
}

/// The vector of what is made from some versions.
pub fn above(parents: &[usize], versions: &[Version]) -> Vector {
    let parents = parents.iter().map(|parent| &versions[*parent]);
    Vector::above(parents.map(|version| (version.maker(), version.stamp, &version.vector)))
}

pub fn reference(number: usize) -> VersionRef {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let place = Place { offset: 0, length: 64 };
    VersionRef { infohash: InfoHash(hash), commit: Locator { place, id: Id([7; 32]) } }
}

pub fn number(version: &VersionRef) -> usize {
    u64::from_le_bytes(*version.infohash.0.first_chunk().unwrap()) as usize
}

/// What a device holds.
#[derive(Clone, Default)]
pub struct Held {
    pub content: Bits,
    /// The commits that the content stands on.
    pub heads: Vec<usize>,
    /// The newest version made or adopted.
    pub head: Option<usize>,
    pub kept: BTreeSet<usize>,
    pub accepted: Option<Item>,
}

pub struct Device {
    pub machine: Option<Machine>,
    /// Raised at each start: what was meant for an earlier life is dropped.
    pub life: u32,
    pub booted: Millis,
    pub role: Role,
    pub group: u8,
    pub held: Held,
    pub durable: Held,
    /// Versions that it made.
    pub numbered: u64,
    pub neighbours: BTreeSet<usize>,
    pub told: VecDeque<Id>,
    /// Versions whose bytes came with news.
    pub arrived: BTreeSet<usize>,
    /// News that are told on when their version is here.
    pub waiting: Vec<(usize, Option<usize>, Item)>,
    pub postponed: BTreeMap<usize, u32>,
    /// When the next tick is due, so that it is queued only once.
    pub tick: Millis,
}

const POSTPONEMENTS_MAX: u32 = 3;

impl Device {
    pub fn new(role: Role) -> Device {
        Device {
            machine: None,
            life: 0,
            booted: 0,
            role,
            group: 0,
            held: Held::default(),
            durable: Held::default(),
            numbered: 0,
            neighbours: BTreeSet::new(),
            told: VecDeque::new(),
            arrived: BTreeSet::new(),
            waiting: Vec::new(),
            postponed: BTreeMap::new(),
            tick: Millis::MAX,
        }
    }

    pub fn boot(&mut self, now: Millis, poll: Millis, versions: &[Version]) {
        self.held = self.durable.clone();
        self.life += 1;
        self.booted = now;
        self.tick = Millis::MAX;
        let accepted = self.held.accepted.as_ref().map(Item::heard);
        let mut machine =
            Machine::new(Timing::for_poll(poll), self.role, accepted, self.held.head.map(reference));
        self.held.kept.iter().for_each(|number| machine.keep(reference(*number)));
        if self.pending(versions) {
            machine.pend();
        }
        self.machine = Some(machine);
    }

    /// The power goes: what was not synced is gone.
    pub fn cut(&mut self) {
        self.machine = None;
        self.neighbours.clear();
        self.told.clear();
        self.arrived.clear();
        self.waiting.clear();
        self.postponed.clear();
    }

    pub fn save(&mut self) {
        self.durable = self.held.clone();
    }

    /// Whether there is something that the head version does not show.
    pub fn pending(&self, versions: &[Version]) -> bool {
        self.role.publishes && self.shown(versions).is_none_or(|shown| !shown.same(&self.held.content))
    }

    fn shown<'a>(&self, versions: &'a [Version]) -> Option<&'a Bits> {
        self.held.head.map(|head| &versions[head].content)
    }

    /// As the engine publishes: nothing where the head version shows the same.
    pub fn publish(&mut self, own: usize, versions: &mut Vec<Version>) -> Option<usize> {
        if !self.pending(versions) && !self.held.heads.is_empty() {
            return None;
        }
        let made = versions.len();
        let vector = above(&self.held.heads, versions);
        self.numbered += 1;
        let stamp = stamp(made, self.numbered);
        versions.push(Version {
            content: self.held.content.clone(),
            stamp,
            vector,
            author: own,
            valid: true,
        });
        self.held.heads = vec![made];
        self.held.head = Some(made);
        self.held.kept.insert(made);
        self.save();
        Some(made)
    }

    /// As the engine takes a version that is here.
    pub fn take(&mut self, own: usize, arrived: usize, versions: &[Version]) -> Fetched {
        let theirs = &versions[arrived];
        if !theirs.valid {
            return Fetched::Broken;
        }
        let heads = self.held.heads.clone();
        let keep = |device: &mut Device| {
            device.held.kept.insert(arrived);
            device.save();
        };
        if heads.contains(&arrived) {
            keep(self);
            return Fetched::Current;
        }
        if heads.iter().any(|head| versions[*head].covers(theirs)) {
            keep(self);
            return Fetched::Behind;
        }
        if !self.role.publishes {
            self.held.content = theirs.content.clone();
            self.held.heads = vec![arrived];
            self.held.head = Some(arrived);
            keep(self);
            return Fetched::Current;
        }
        let covered = heads.iter().all(|head| theirs.covers(&versions[*head]));
        let mine = heads.iter().any(|head| versions[*head].author == own);
        let dirty = self.pending(versions) && !(heads.is_empty() && self.held.content.list().is_empty());
        if !covered && !mine && !dirty {
            let times = self.postponed.entry(arrived).or_insert(0);
            *times += 1;
            if *times <= POSTPONEMENTS_MAX {
                return Fetched::Later;
            }
        }
        if covered && !dirty {
            self.held.content = theirs.content.clone();
        } else {
            self.held.content.extend(&theirs.content);
        }
        self.held.heads = vec![arrived];
        if !covered {
            self.held.heads.extend(heads);
        }
        self.held.head = Some(arrived);
        let same = self.held.content.same(&theirs.content);
        keep(self);
        if same { Fetched::Current } else { Fetched::Merged }
    }

    /// Remembers a record if it is the highest so far.
    pub fn accept(&mut self, item: &Item) {
        if self.held.accepted.as_ref().is_none_or(|known| item.seq > known.seq) {
            self.held.accepted = Some(item.clone());
        }
    }

    /// Whether a value is seen for the first time.
    pub fn is_new(&mut self, digest: Id) -> bool {
        let new = !self.told.contains(&digest);
        if new {
            self.told.push_back(digest);
            if self.told.len() > 64 {
                self.told.pop_front();
            }
        }
        new
    }
}
