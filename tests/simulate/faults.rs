//! What goes wrong, and how it ends.

use super::bits::Bits;
use super::device::{THIEF, Version, above, maker, reference, stamp};
use super::world::{Event, World};
use kilofs::base::Id;
use kilofs::record::{Maker, Stamp, Vector};
use kilofs::sync::Input;

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A device loses its power, or is killed, and comes back.
    Cut(usize),
    Back(usize),
    /// A part of the devices and nodes cannot reach the rest.
    Split,
    Heal,
    /// A node of the DHT forgets, or is replaced by one that knows nothing.
    Forget(usize),
    /// A node of the DHT answers with an old record.
    Stale(usize),
    /// Who stole the database key puts a record of its own.
    Forge,
    /// The same with a version that opens and lies about what it stands on.
    Claim,
    /// Two neighbours lose their connection.
    Part(usize, usize),
}

impl World {
    pub fn plan_faults(&mut self) {
        let (count, nodes) = (self.devices.len() as u64, self.dht.nodes.len() as u64);
        for _ in 0..self.plan.faults {
            let at = self.dice.below(self.plan.trouble);
            let device = self.dice.below(count) as usize;
            let (fault, end) = match self.dice.below(9) {
                0..=2 => (Fault::Cut(device), Some(Fault::Back(device))),
                3 => (Fault::Split, Some(Fault::Heal)),
                4 => (Fault::Forget(self.dice.below(nodes) as usize), None),
                5 => (Fault::Stale(self.dice.below(nodes) as usize), None),
                6 => (Fault::Forge, None),
                7 => (Fault::Claim, None),
                _ => (Fault::Part(device, self.dice.below(count) as usize), None),
            };
            self.after(at, Event::Fault(fault));
            if let Some(end) = end {
                let pause = 50 + self.dice.below(5_000);
                self.after(at + pause, Event::Fault(end));
            }
        }
    }

    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(device) => self.cut(device),
            Fault::Back(device) => {
                if self.devices[device].machine.is_none() {
                    self.boot(device);
                }
            }
            Fault::Split => {
                for at in 0..self.devices.len() {
                    self.devices[at].group = self.dice.below(2) as u8;
                }
                for node in &mut self.dht.nodes {
                    node.group = self.dice.below(2) as u8;
                }
                for one in 0..self.devices.len() {
                    for other in 0..one {
                        if self.devices[one].group != self.devices[other].group {
                            self.part(one, other);
                        }
                    }
                }
            }
            Fault::Heal => self.heal(),
            Fault::Forget(node) => self.dht.nodes[node].value = None,
            Fault::Stale(node) => {
                // The oldest record that anybody remembers.
                let old = self.devices.iter().filter_map(|device| device.durable.accepted.clone());
                if let Some(item) = old.min_by_key(|item| item.seq) {
                    self.dht.nodes[node].value = Some(item);
                }
            }
            Fault::Forge => self.forge(),
            Fault::Claim => self.claim(),
            Fault::Part(one, other) => self.part(one, other),
        }
    }

    pub fn meet(&mut self, one: usize, other: usize) {
        if self.devices[one].group != self.devices[other].group {
            return;
        }
        for (here, there) in [(one, other), (other, one)] {
            if self.devices[here].neighbours.insert(there) {
                let count = self.devices[here].neighbours.len();
                self.handle(here, Input::Neighbours(count));
                if let Some(item) = self.devices[here].held.accepted.clone() {
                    self.say(here, there, item, None);
                }
            }
        }
    }

    pub fn part(&mut self, one: usize, other: usize) {
        for (here, there) in [(one, other), (other, one)] {
            if self.devices[here].neighbours.remove(&there) {
                let count = self.devices[here].neighbours.len();
                self.handle(here, Input::Neighbours(count));
            }
        }
    }

    fn cut(&mut self, device: usize) {
        let others: Vec<usize> = self.devices[device].neighbours.iter().copied().collect();
        self.devices[device].cut();
        for other in others {
            self.part(other, device);
        }
    }

    fn heal(&mut self) {
        self.devices.iter_mut().for_each(|device| device.group = 0);
        self.dht.nodes.iter_mut().for_each(|node| node.group = 0);
    }

    /// A record above all others that names what does not open, or that does not carry the policy in force.
    fn forge(&mut self) {
        let made = self.versions.len();
        let sound = self.dice.percent(50);
        let (content, vector) = (Bits::default(), Vector::default());
        self.tell_all(Version { content, stamp: stamp(made, 1), vector, author: THIEF, valid: false }, sound);
    }

    /// A version that shows what an honest one shows. It takes any number, an old one too, and says that it stands on
    /// more than there is, on less than it shows, or on nothing.
    fn claim(&mut self) {
        let honest: Vec<usize> = (0..self.versions.len()).filter(|at| self.versions[*at].valid).collect();
        if honest.is_empty() {
            return;
        }
        let ground = honest[self.dice.below(honest.len() as u64) as usize];
        let known = above(&[ground], &self.versions);
        let (lie, counter) = (self.dice.below(4), 1 + self.dice.below(6));
        let mut vector = Vector::default();
        for (of, stamp) in known.iter().filter(|(of, _)| **of != maker(THIEF)) {
            match lie {
                0 => vector.insert(*of, Stamp { counter: stamp.counter + 1 + self.dice.below(9), ..*stamp }),
                1 if self.dice.percent(50) => {}
                2 => {}
                _ => vector.insert(*of, *stamp),
            }
        }
        // Nobody has another's key: a stamp that no version has is not signed.
        let is_signed = |(of, stamp): (&Maker, &Stamp)| {
            self.versions.iter().any(|version| version.maker() == *of && version.stamp == *stamp)
        };
        let valid = vector.iter().all(is_signed);
        let (content, stamp) = (self.versions[ground].content.clone(), stamp(self.versions.len(), counter));
        self.tell_all(Version { content, stamp, vector, author: THIEF, valid }, true);
    }

    /// Puts a record above all others that names one version.
    fn tell_all(&mut self, version: Version, sound: bool) {
        self.forged += 1;
        let highest = self.dht.nodes.iter().filter_map(|node| node.value.as_ref()).map(|item| item.seq).max();
        let forged = self.versions.len();
        self.versions.push(version);
        let mut item = self.sign(vec![reference(forged)], highest.unwrap_or(0) + 1);
        item.digest = Id([self.forged as u8 ^ 0xa5; 32]);
        item.sound = sound;
        for node in &mut self.dht.nodes {
            node.value = Some(item.clone());
        }
    }

    /// Nothing goes wrong from now on; who is gone comes back.
    pub fn calm_down(&mut self) {
        self.loss = 0;
        self.dht.loss = 0;
        self.heal();
        for device in 0..self.devices.len() {
            if self.devices[device].machine.is_none() {
                self.boot(device);
            }
        }
        for one in 0..self.devices.len() {
            for other in 0..one {
                let wanted = self.devices.len() <= 8 || self.dice.below(self.devices.len() as u64) < 8;
                if wanted {
                    self.meet(one, other);
                }
            }
        }
    }
}
