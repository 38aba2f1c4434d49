//! The model of the DHT for one key: nodes that each hold a value, forget, and are reached or not.

use super::bits::Dice;
use kilofs::base::Id;
use kilofs::record::VersionRef;
use kilofs::sync::{Heard, Poll, PutOutcome};

/// A signed record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub seq: i64,
    pub digest: Id,
    pub versions: Vec<VersionRef>,
    pub sound: bool,
}

impl Item {
    pub fn heard(&self) -> Heard {
        Heard { seq: self.seq, digest: self.digest, versions: self.versions.clone(), sound: self.sound }
    }
}

pub struct Node {
    pub value: Option<Item>,
    pub group: u8,
}

pub struct Dht {
    pub nodes: Vec<Node>,
    /// Of a hundred requests or answers so many are lost.
    pub loss: u64,
}

impl Dht {
    /// Nodes that hold nothing above a number that is named send no value.
    pub fn get(&self, above: Option<i64>, group: u8, dice: &mut Dice) -> Poll {
        let reached: Vec<_> =
            self.nodes.iter().filter(|node| node.group == group && !dice.percent(self.loss)).collect();
        if reached.is_empty() {
            return Poll::Unreachable;
        }
        let values = reached.iter().filter_map(|node| node.value.as_ref());
        let sent: Vec<_> = values.filter(|item| above.is_none_or(|above| item.seq > above)).collect();
        let Some(highest) = sent.iter().map(|item| item.seq).max() else {
            return if above.is_some() { Poll::Unchanged } else { Poll::Nothing };
        };
        let mut found: Vec<Heard> = Vec::new();
        for item in sent.into_iter().filter(|item| item.seq == highest) {
            if found.iter().all(|known| known.digest != item.digest) {
                found.push(item.heard());
            }
        }
        Poll::Heard(found)
    }

    /// Half of the nodes that are reached may answer into nothing: the value stands all the same.
    pub fn put(&mut self, item: &Item, cas: Option<i64>, group: u8, dice: &mut Dice) -> PutOutcome {
        let (mut stored, mut refused) = (0, 0);
        for node in self.nodes.iter_mut().filter(|node| node.group == group) {
            if dice.percent(self.loss) {
                continue;
            }
            let newer = node.value.as_ref().is_some_and(|value| value.seq > item.seq);
            let changed = cas.is_some_and(|cas| node.value.as_ref().is_some_and(|value| value.seq != cas));
            let again = node.value.as_ref() == Some(item);
            if !again && (newer || changed) {
                refused += 1;
                continue;
            }
            node.value = Some(item.clone());
            if !dice.percent(self.loss) {
                stored += 1;
            }
        }
        match (stored, refused) {
            (0, 0) => PutOutcome::Unreachable,
            (stored, refused) if refused > stored => PutOutcome::Superseded,
            _ => PutOutcome::Done(item.heard()),
        }
    }
}
