//! What one policy changed against the one before it, item by item: so it can be found missing in a policy that another admin
//! device made at the same time, and be made again on top of that.

use super::control::{Failure, Listing};
use super::terms::Terms;
use crate::base::{Birth, BlockNumber, DeviceId};
use crate::record::{BLOCKS_MAX, BlockCharter, Charter, Floor, MEMBERS_MAX, Members, Mode, Policy, Quota};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A directory became a block.
    Block(Rules, Limits),
    /// A block became plain content of the block around it.
    Plain(Which),
    /// A block got a mode, or an owner.
    Rules(Rules),
    /// Who can open a block changed, or it was private from the start.
    Private {
        /// The block.
        which: Which,
        /// Names who can; none where everybody can who reads the database.
        who: Option<String>,
    },
    /// A block got a quota, or lost it.
    Quota(Which, Limits),
    /// Who may write was listed, or the list changed.
    Members {
        /// All that are on the list.
        all: Vec<String>,
        /// Who was added.
        added: Vec<String>,
        /// Who was taken off.
        removed: Vec<String>,
    },
    /// Everybody with a write link may write.
    Open,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Its path, hexadecimal bytes.
    pub path_hex: String,
    /// Tells it from others at that path.
    pub birth: String,
}

/// A block and who may write in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The block.
    pub which: Which,
    /// As the policy names it.
    pub mode: String,
    /// The owner's id.
    pub owner: Option<String>,
}

/// A quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Files.
    pub files: Option<u64>,
}

impl Which {
    fn of(block: &BlockCharter) -> Which {
        Which { path_hex: HEXLOWER.encode(&block.path), birth: HEXLOWER.encode(&block.birth.0) }
    }

    /// Its path.
    pub fn path(&self) -> Vec<u8> {
        HEXLOWER.decode(self.path_hex.as_bytes()).unwrap_or_default()
    }

    /// As a person sees it.
    pub fn shown(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.path()))
    }

    /// The same block, and no other at its path.
    fn alive(&self, charter: &Charter) -> Option<BlockNumber> {
        let same = |block: &BlockCharter| HEXLOWER.encode(&block.birth.0) == self.birth;
        charter.blocks.iter().find(|(_, block)| same(block)).map(|(number, _)| *number)
    }

    fn at_path(&self, charter: &Charter) -> Option<BlockNumber> {
        let path = self.path();
        charter.blocks.iter().find(|(_, block)| block.path == path).map(|(number, _)| *number)
    }

    fn find(&self, charter: &Charter) -> Option<BlockNumber> {
        self.alive(charter).or_else(|| self.at_path(charter))
    }

    fn found(&self, charter: &Charter) -> Result<BlockNumber, Failure> {
        self.find(charter).ok_or_else(|| Failure::failed(format!("{} is no block any more", self.shown())))
    }
}

impl Limits {
    fn of(quota: &Quota) -> Limits {
        Limits { bytes: quota.bytes, files: quota.files }
    }

    fn quota(self) -> Quota {
        Quota { bytes: self.bytes, files: self.files }
    }
}

impl Rules {
    fn of(policy: &Policy, number: BlockNumber, block: &BlockCharter) -> Rules {
        let owner = block.owner.map(|owner| owner.to_string());
        Rules { which: Which::of(block), mode: mode(policy, number).to_string(), owner }
    }

    fn mode(&self) -> Mode {
        // What this device wrote itself; the strictest where it is not understood.
        self.mode.parse().unwrap_or(Mode::ReadOnly)
    }

    fn owner(&self) -> Option<DeviceId> {
        self.owner.as_deref().and_then(DeviceId::from_hex)
    }

    fn hold(&self, policy: &Policy, charter: &Charter) -> bool {
        self.which.find(charter).is_some_and(|number| {
            let same = Rules::of(policy, number, &charter.blocks[&number]);
            (same.mode, same.owner) == (self.mode.clone(), self.owner.clone())
        })
    }

    fn in_words(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| format!(" {}", short(owner))).unwrap_or_default();
        format!("{}{owner}", self.mode)
    }
}

fn mode(policy: &Policy, number: BlockNumber) -> Mode {
    policy.modes.get(usize::from(number.0)).copied().unwrap_or(Mode::ReadWrite)
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn devices(ids: &[String]) -> BTreeSet<DeviceId> {
    ids.iter().filter_map(|id| DeviceId::from_hex(id)).collect()
}

fn ids(devices: impl IntoIterator<Item = DeviceId>) -> Vec<String> {
    devices.into_iter().map(|device| device.to_string()).collect()
}

/// What a policy changes. `listing` tells for whose sake a list was begun.
pub fn changes(
    (policy, charter): (&Policy, &Charter),
    (next_policy, next): (&Policy, &Charter),
    listing: &Listing,
) -> Vec<Item> {
    let mut items = Vec::new();
    for block in charter.blocks.values() {
        let which = Which::of(block);
        if which.alive(next).is_none() {
            items.push(Item::Plain(which));
        }
    }
    for (number, block) in &next.blocks {
        let rules = Rules::of(next_policy, *number, block);
        let limits = Limits::of(&block.quota);
        match rules.which.alive(charter) {
            // It is not made again as one that everybody opens.
            None if block.private.is_some() => {
                items.push(Item::Private { which: rules.which, who: who_opens(block) });
            }
            None => items.push(Item::Block(rules, limits)),
            Some(known) => {
                if Rules::of(policy, known, &charter.blocks[&known]) != rules {
                    items.push(Item::Rules(rules.clone()));
                }
                if who_opens(&charter.blocks[&known]) != who_opens(block) {
                    items.push(Item::Private { which: rules.which.clone(), who: who_opens(block) });
                }
                if charter.blocks[&known].quota != block.quota {
                    items.push(Item::Quota(rules.which, limits));
                }
            }
        }
    }
    match (&charter.members, &next.members) {
        (_, Members::Listed(list)) if charter.members != next.members => {
            let (mut added, mut removed) = (devices(&listing.added), devices(&listing.removed));
            if let Members::Listed(before) = &charter.members {
                added.extend(list.difference(before));
                removed.extend(before.difference(list));
            }
            items.push(Item::Members {
                all: ids(list.iter().copied()),
                added: ids(added),
                removed: ids(removed),
            });
        }
        (Members::Listed(_), Members::Open) => items.push(Item::Open),
        _ => {}
    }
    items
}

/// Adds what was changed later to what was changed before: of two changes of one thing the later one counts.
pub fn fold(items: &mut Vec<Item>, item: Item) {
    match &item {
        Item::Rules(later) => {
            for known in items.iter_mut() {
                if let Item::Block(rules, _) = known
                    && rules.which.birth == later.which.birth
                {
                    *rules = later.clone();
                    return;
                }
            }
            items.retain(|known| !matches!(known, Item::Rules(rules) if rules.which == later.which));
        }
        Item::Quota(which, limits) => {
            for known in items.iter_mut() {
                if let Item::Block(rules, known) = known
                    && rules.which.birth == which.birth
                {
                    *known = *limits;
                    return;
                }
            }
            items.retain(|known| !matches!(known, Item::Quota(known, _) if known == which));
        }
        Item::Private { which, .. } => {
            items.retain(|known| !matches!(known, Item::Private { which: one, .. } if one == which));
        }
        Item::Plain(which) => items.retain(|known| match known {
            Item::Private { which: known, .. } => known.birth != which.birth,
            Item::Block(rules, _) | Item::Rules(rules) => rules.which.birth != which.birth,
            Item::Quota(known, _) => known.birth != which.birth,
            _ => true,
        }),
        Item::Members { added, removed, .. } => {
            for known in items.iter_mut() {
                if let Item::Members { added: earlier, removed: gone, .. } = known {
                    earlier.retain(|device| !removed.contains(device));
                    gone.retain(|device| !added.contains(device));
                }
            }
            items.retain(|known| *known != Item::Open);
        }
        Item::Open => items.retain(|known| !matches!(known, Item::Members { .. } | Item::Open)),
        Item::Block(..) => {}
    }
    items.push(item);
}

impl Item {
    /// Whether a policy says the same.
    pub fn in_force(&self, policy: &Policy, charter: &Charter) -> bool {
        match self {
            Item::Block(rules, limits) => {
                let quota = rules.which.find(charter).map(|number| charter.blocks[&number].quota);
                rules.hold(policy, charter) && quota == Some(limits.quota())
            }
            Item::Private { which, who } => {
                which.alive(charter).is_some_and(|number| who_opens(&charter.blocks[&number]) == *who)
            }
            Item::Plain(which) => which.alive(charter).is_none(),
            Item::Rules(rules) => rules.hold(policy, charter),
            Item::Quota(which, limits) => {
                which.find(charter).is_some_and(|number| charter.blocks[&number].quota == limits.quota())
            }
            Item::Members { added, removed, .. } => match &charter.members {
                Members::Open => false,
                Members::Listed(list) => devices(added).is_subset(list) && devices(removed).is_disjoint(list),
            },
            Item::Open => charter.members == Members::Open,
        }
    }

    /// The directory that has to be there before it can be made again.
    pub fn directory(&self, charter: &Charter) -> Option<Vec<u8>> {
        match self {
            Item::Block(Rules { which, .. }, _) if which.find(charter).is_none() => Some(which.path()),
            Item::Plain(which) => which.alive(charter).map(|number| charter.blocks[&number].path.clone()),
            _ => None,
        }
    }

    /// Makes it again on top of other terms; an error where they do not leave room for it.
    pub fn apply(&self, terms: &mut Terms) -> Result<(), Failure> {
        match self {
            Item::Block(rules, limits) => {
                let number = match rules.which.find(&terms.charter) {
                    Some(number) => {
                        terms.set_rules(number, rules.mode(), rules.owner())?;
                        number
                    }
                    None => new_block(terms, rules)?,
                };
                set_quota(terms, number, *limits);
            }
            Item::Private { which, .. } => {
                return Err(Failure::failed(format!(
                    "who can open {} is said again by hand, with `kilofs block`",
                    which.shown()
                )));
            }
            Item::Plain(which) => {
                let Some(number) = which.alive(&terms.charter) else { return Ok(()) };
                let below = [terms.path(number), b"/"].concat();
                if let Some((inner, _)) =
                    terms.charter.blocks.iter().find(|(_, other)| other.path.starts_with(&below))
                {
                    return Err(Failure::failed(format!("block {inner} lies inside {}", which.shown())));
                }
                terms.remove(number);
            }
            Item::Rules(rules) => {
                let number = rules.which.found(&terms.charter)?;
                terms.set_rules(number, rules.mode(), rules.owner())?;
            }
            Item::Quota(which, limits) => {
                let number = which.found(&terms.charter)?;
                set_quota(terms, number, *limits);
            }
            Item::Members { all, added, removed } => {
                let mut list = match &terms.charter.members {
                    Members::Open => devices(all),
                    Members::Listed(list) => list | &devices(added),
                };
                devices(removed).iter().for_each(|device| _ = list.remove(device));
                if list.len() > MEMBERS_MAX {
                    return Err(Failure::failed(format!("a database has at most {MEMBERS_MAX} members")));
                }
                terms.set_members(Members::Listed(list))?;
                terms.listing = Listing { added: added.clone(), removed: removed.clone() };
            }
            Item::Open => terms.set_members(Members::Open)?,
        }
        Ok(())
    }

    /// What it says, for a person.
    pub fn in_words(&self) -> String {
        match self {
            Item::Block(rules, _) => format!("{} is a block, {}", rules.which.shown(), rules.in_words()),
            Item::Private { which, .. } => format!("{} is opened by whom it was said", which.shown()),
            Item::Plain(which) => format!("{} is no block", which.shown()),
            Item::Rules(rules) => format!("{} is {}", rules.which.shown(), rules.in_words()),
            Item::Quota(which, limits) => {
                let limit = |limit: Option<u64>| limit.map_or("any".into(), |limit| limit.to_string());
                format!(
                    "{} may hold {} bytes in {} files",
                    which.shown(),
                    limit(limits.bytes),
                    limit(limits.files)
                )
            }
            Item::Members { added, removed, all } => {
                let named = |ids: &[String]| ids.iter().map(|id| short(id)).collect::<Vec<_>>().join(", ");
                match (added.is_empty(), removed.is_empty()) {
                    (true, true) => format!("{} devices may write and no others", all.len()),
                    (false, true) => format!("{} may write", named(added)),
                    (true, false) => format!("{} may not write", named(removed)),
                    (false, false) => format!("{} may write, {} may not", named(added), named(removed)),
                }
            }
            Item::Open => "whoever has a write link may write".into(),
        }
    }
}

fn who_opens(block: &BlockCharter) -> Option<String> {
    block.private.as_ref().map(|private| blake3::hash(format!("{private:?}").as_bytes()).to_hex().to_string())
}

/// A block with a life of its own, at the lowest number that is free.
fn new_block(terms: &mut Terms, rules: &Rules) -> Result<BlockNumber, Failure> {
    let mut numbers = (1..BLOCKS_MAX).filter_map(|number| u16::try_from(number).ok().map(BlockNumber));
    let number = numbers.find(|number| !terms.charter.blocks.contains_key(number));
    let number =
        number.ok_or_else(|| Failure::failed(format!("a database has at most {BLOCKS_MAX} blocks")))?;
    let mut birth = [0; Birth::BYTES];
    getrandom::fill(&mut birth)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    let path = rules.which.path();
    terms.raise_around(std::iter::once(&path[..]))?;
    terms.set_mode(number, rules.mode());
    let block = BlockCharter {
        path,
        owner: rules.owner(),
        birth: Birth(birth),
        epoch: terms.epoch(),
        floor: Floor { counter: 0, root: None },
        quota: Quota::default(),
        private: None,
    };
    terms.charter.blocks.insert(number, block);
    Ok(number)
}

fn set_quota(terms: &mut Terms, number: BlockNumber, limits: Limits) {
    if let Some(block) = terms.charter.blocks.get_mut(&number) {
        block.quota = limits.quota();
    }
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
