//! The queue of events, and what each does.

use super::bits::{Bits, Dice};
use super::device::{Device, THIEF, Version, number, reference};
use super::dht::{Dht, Item, Node};
use kilofs::base::Id;
use kilofs::record::VersionRef;
use kilofs::sync::{Effect, Fetched, Input, Millis, Poll, PutOutcome, Role};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is done to a world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub devices: usize,
    pub readers: usize,
    pub changes: usize,
    /// Changes and faults happen until then; afterwards everybody is there and everything arrives.
    pub trouble: Millis,
    pub quiet: Millis,
    pub poll: Millis,
    /// Of a hundred messages so many are lost, while there is trouble.
    pub loss: u64,
    pub faults: usize,
}

impl Plan {
    pub fn short(seed: u64) -> Plan {
        let mut dice = Dice(seed ^ 0x5eed);
        let devices = 2 + dice.below(4) as usize;
        Plan {
            seed,
            devices,
            readers: dice.below(2) as usize,
            changes: 4 + dice.below(12) as usize,
            trouble: 15_000,
            quiet: 150_000,
            poll: 1_000,
            loss: dice.below(30),
            faults: dice.below(14) as usize,
        }
    }

    pub fn calm(seed: u64) -> Plan {
        Plan { loss: 0, faults: 0, readers: 0, ..Plan::short(seed) }
    }
}

/// What happens to a device; a number of its life goes with what must not reach a later one.
pub enum Event {
    Tick(usize, u32),
    Tell(usize, u32, Input),
    Poll(usize, u32, Option<i64>),
    Put(usize, u32, Item, Option<i64>),
    Fetch(usize, u32, VersionRef, u32),
    Publish(usize, u32),
    News { to: usize, life: u32, from: usize, item: Item, carries: Option<usize> },
    Change(usize),
    Fault(super::faults::Fault),
    Quiet,
}

pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u64, usize)>>,
    events: Vec<Option<Event>>,
    pub devices: Vec<Device>,
    pub versions: Vec<Version>,
    pub dht: Dht,
    /// Changes that were acknowledged and must be there at the end.
    pub acknowledged: Bits,
    pub changes: usize,
    pub published: usize,
    pub forged: u64,
    pub loss: u64,
    last_published: Millis,
    pub news_sent: u64,
    /// Tells everything that every machine is told.
    pub trace: bool,
}

/// More events than that in a short world: something goes round.
const EVENTS_A_DEVICE_MAX: usize = 60_000;

impl World {
    pub fn run(plan: Plan) -> Result<(), String> {
        let mut world = World::new(plan);
        world.live()?;
        world.judge()
    }

    pub fn new(plan: Plan) -> World {
        let count = plan.devices + plan.readers;
        let role = |at| Role { publishes: at < plan.devices, keeps_all: false };
        let nodes = (0..6).map(|_| Node { value: None, group: 0 }).collect();
        let mut world = World {
            dice: Dice(plan.seed),
            now: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            devices: (0..count).map(|at| Device::new(role(at))).collect(),
            versions: Vec::new(),
            dht: Dht { nodes, loss: plan.loss },
            acknowledged: Bits::default(),
            changes: 0,
            published: 0,
            forged: 0,
            loss: plan.loss,
            last_published: 0,
            news_sent: 0,
            trace: std::env::var_os("KILOFS_SIMULATE_TRACE").is_some(),
            plan,
        };
        for device in 0..count {
            world.boot(device);
        }
        for _ in 0..world.plan.changes {
            let (at, who) =
                (world.dice.below(world.plan.trouble), world.dice.below(world.plan.devices as u64));
            world.after(at, Event::Change(who as usize));
        }
        world.plan_faults();
        world.after(world.plan.trouble, Event::Quiet);
        world
    }

    pub fn after(&mut self, pause: Millis, event: Event) {
        self.events.push(Some(event));
        self.queue.push(Reverse((self.now + pause, self.events.len() as u64, self.events.len() - 1)));
    }

    fn live(&mut self) -> Result<(), String> {
        self.until(self.plan.trouble + self.plan.quiet)
    }

    /// Lets everything happen that happens by then.
    pub fn until(&mut self, end: Millis) -> Result<(), String> {
        let limit = EVENTS_A_DEVICE_MAX * self.devices.len();
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, index))) = self.queue.pop() else { break };
            if self.events.len() > limit {
                let state = |device: &Device| {
                    format!("{:#?}", device.machine.as_ref().map(|machine| machine.outline()))
                };
                let states: Vec<_> = self.devices.iter().map(state).collect();
                return Err(format!("{limit} events by {} ms: {}", self.now, states.join("; ")));
            }
            self.now = at;
            let event = self.events[index].take().expect("an event happens once");
            self.happen(event);
        }
        self.now = end;
        Ok(())
    }

    fn alive(&self, device: usize, life: u32) -> bool {
        self.devices[device].machine.is_some() && self.devices[device].life == life
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(device, life) if self.alive(device, life) => {
                self.devices[device].tick = Millis::MAX;
                self.handle(device, Input::Tick);
            }
            Event::Tell(device, life, input) if self.alive(device, life) => self.handle(device, input),
            Event::Poll(device, life, above) if self.alive(device, life) => self.look(device, life, above),
            Event::Put(device, life, item, cas) if self.alive(device, life) => {
                let outcome = self.dht.put(&item, cas, self.devices[device].group, &mut self.dice);
                if matches!(outcome, PutOutcome::Done(_)) {
                    self.devices[device].accept(&item);
                    self.devices[device].save();
                }
                self.answer(device, life, Input::Put(outcome));
            }
            Event::Fetch(device, life, version, tries) if self.alive(device, life) => {
                self.fetch(device, life, version, tries);
            }
            Event::Publish(device, life) if self.alive(device, life) => {
                let made = self.devices[device].publish(device, &mut self.versions);
                if made.is_some() {
                    self.published += 1;
                    self.last_published = self.now;
                }
                self.answer(device, life, Input::Published(Ok(made.map(reference))));
            }
            Event::News { to, life, from, item, carries } if self.alive(to, life) => {
                self.news(to, from, item, carries);
            }
            Event::Change(device) => self.change(device),
            Event::Fault(fault) => self.strike(fault),
            Event::Quiet => self.calm_down(),
            _ => {}
        }
    }

    fn look(&mut self, device: usize, life: u32, above: Option<i64>) {
        let poll = self.dht.get(above, self.devices[device].group, &mut self.dice);
        if let Poll::Heard(all) = &poll {
            let before = self.devices[device].held.accepted.as_ref().map(|item| item.seq);
            for heard in all {
                let (seq, digest) = (heard.seq, heard.digest);
                let item = Item { seq, digest, versions: heard.versions.clone(), sound: heard.sound };
                self.devices[device].accept(&item);
                if item.sound && before < Some(seq) {
                    self.tell_found(device, item);
                }
            }
            let accepted = self.devices[device].held.accepted.clone();
            self.devices[device].durable.accepted = accepted;
        }
        self.answer(device, life, Input::Polled(poll));
    }

    /// Neighbours leave some looks to each other.
    fn tell_found(&mut self, device: usize, item: Item) {
        let Some(newest) = item.versions.first().map(number) else { return };
        if !self.devices[device].is_new(item.digest) {
            return;
        }
        if self.devices[device].held.kept.contains(&newest) {
            self.spread(device, &item, None, None);
        } else {
            self.devices[device].waiting.push((newest, None, item));
        }
    }

    /// An answer takes a while, and may come after other things that happened later.
    fn answer(&mut self, device: usize, life: u32, input: Input) {
        let pause = 1 + self.dice.below(40);
        self.after(pause, Event::Tell(device, life, input));
    }

    pub fn handle(&mut self, device: usize, input: Input) {
        let dice = self.dice.next();
        let now = self.now - self.devices[device].booted;
        let Some(machine) = self.devices[device].machine.as_mut() else { return };
        let traced = self.trace.then(|| format!("{input:?}"));
        let effects = machine.handle(input, now, dice);
        if let Some(input) = traced.filter(|input| input != "Tick" || !effects.is_empty()) {
            println!("{} device {device}: {input} -> {effects:?}", self.now);
        }
        let deadline = machine.deadline();
        let life = self.devices[device].life;
        for effect in effects {
            self.perform(device, life, effect);
        }
        let at = self.devices[device].booted.saturating_add(deadline).max(self.now + 1);
        if at < self.devices[device].tick {
            self.devices[device].tick = at;
            self.after(at - self.now, Event::Tick(device, life));
        }
    }

    fn perform(&mut self, device: usize, life: u32, effect: Effect) {
        let pause = 1 + self.dice.below(60);
        match effect {
            Effect::Poll => self.after(pause, Event::Poll(device, life, None)),
            Effect::Glance(above) => self.after(pause, Event::Poll(device, life, Some(above))),
            Effect::Fetch(version) => self.after(pause, Event::Fetch(device, life, version, 0)),
            Effect::Publish => self.after(pause / 4, Event::Publish(device, life)),
            Effect::Tell { versions, seq } => {
                let item = self.sign(versions, seq);
                self.devices[device].is_new(item.digest);
                self.devices[device].held.accepted = Some(item.clone());
                let newest = number(&item.versions[0]);
                let heard = item.heard();
                self.spread(device, &item, Some(newest), None);
                self.after(1, Event::Tell(device, life, Input::Told(Some(heard))));
            }
            Effect::PutTold { cas } => {
                if let Some(item) = self.devices[device].held.accepted.clone() {
                    self.after(pause, Event::Put(device, life, item, cas));
                }
            }
            Effect::Put { versions, seq, cas } => {
                let item = self.sign(versions, seq);
                self.after(pause, Event::Put(device, life, item, cas));
            }
            Effect::Reput => {
                if let Some(item) = self.devices[device].held.accepted.clone() {
                    let group = self.devices[device].group;
                    self.dht.put(&item, None, group, &mut self.dice);
                }
            }
            Effect::Announce => {}
        }
    }

    /// Every signature has a value of its own, as the random nonce gives it.
    pub fn sign(&mut self, versions: Vec<VersionRef>, seq: i64) -> Item {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.dice.next().to_le_bytes());
        Item { seq, digest: Id(digest), versions, sound: true }
    }

    /// Sends news to all neighbours but one.
    fn spread(&mut self, from: usize, item: &Item, carries: Option<usize>, except: Option<usize>) {
        let others: Vec<usize> = self.devices[from].neighbours.iter().copied().collect();
        for to in others.into_iter().filter(|to| Some(*to) != except) {
            self.say(from, to, item.clone(), carries);
        }
    }

    pub fn say(&mut self, from: usize, to: usize, item: Item, carries: Option<usize>) {
        self.news_sent += 1;
        let apart = self.devices[from].group != self.devices[to].group;
        if apart || self.dice.percent(self.loss / 2) {
            return;
        }
        let life = self.devices[to].life;
        // News that are large, or to a base that the other lacks, come without their bytes.
        let carries = carries.filter(|_| !self.dice.percent(25));
        let pause = 1 + self.dice.below(30);
        let event = |item| Event::News { to, life, from, item, carries };
        if self.dice.percent(self.loss / 3) {
            self.after(pause + 50, event(item.clone()));
        }
        self.after(pause, event(item));
    }

    fn news(&mut self, to: usize, from: usize, item: Item, carries: Option<usize>) {
        let known = self.devices[to].held.accepted.clone();
        if let Some(known) = known.filter(|known| known.seq > item.seq) {
            self.say(to, from, known, None);
            return;
        }
        self.devices[to].accept(&item);
        let new = self.devices[to].is_new(item.digest);
        let newest = item.versions.first().map(number);
        let here = newest.is_some_and(|newest| self.devices[to].held.kept.contains(&newest));
        let complete = newest.is_some() && carries == newest;
        if complete && !here {
            self.devices[to].arrived.extend(newest);
        }
        if new && (here || complete) {
            self.spread(to, &item, carries, Some(from));
        } else if new && let Some(newest) = newest {
            self.devices[to].waiting.push((newest, Some(from), item.clone()));
        }
        self.handle(to, Input::Heard(item.heard()));
    }

    fn fetch(&mut self, device: usize, life: u32, version: VersionRef, tries: u32) {
        let wanted = number(&version);
        let here =
            self.devices[device].held.kept.contains(&wanted) || self.devices[device].arrived.remove(&wanted);
        let group = self.devices[device].group;
        let served = self.devices.iter().any(|other| {
            other.machine.is_some() && other.group == group && other.held.kept.contains(&wanted)
        });
        let forged = self.versions.get(wanted).is_some_and(|version| version.author == THIEF);
        if !here && !forged && (!served || self.dice.percent(self.loss)) {
            // Nobody has it now; a fetch waits before it gives up.
            if tries < 10 {
                self.after(300, Event::Fetch(device, life, version, tries + 1));
            } else {
                self.answer(device, life, Input::Fetched(version.infohash, Fetched::NoSource));
            }
            return;
        }
        if !here && tries < 100 {
            // Some sources are slow.
            let pause = if self.loss > 0 && self.dice.percent(10) { 2_000 } else { 1 + self.dice.below(200) };
            self.after(pause, Event::Fetch(device, life, version, 100));
            return;
        }
        let outcome = self.devices[device].take(device, wanted, &self.versions);
        self.answer(device, life, Input::Fetched(version.infohash, outcome));
        let waiting = std::mem::take(&mut self.devices[device].waiting);
        let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(waits, ..)| *waits == wanted);
        self.devices[device].waiting = rest;
        for (_, from, item) in ready {
            self.spread(device, &item, Some(wanted), from);
        }
    }

    fn change(&mut self, device: usize) {
        if self.devices[device].machine.is_none() {
            return;
        }
        let change = self.changes;
        self.changes += 1;
        self.devices[device].held.content.insert(change);
        if self.dice.percent(70) {
            self.devices[device].durable.content.insert(change);
            self.acknowledged.insert(change);
        }
        self.handle(device, Input::Changed);
    }

    pub fn boot(&mut self, device: usize) {
        let poll = self.plan.poll;
        self.devices[device].boot(self.now, poll, &self.versions);
        self.handle(device, Input::Tick);
        let count = self.devices.len();
        for other in 0..count {
            // Small worlds know each other; in large ones everybody has about eight neighbours.
            let wanted = count <= 8 || self.dice.below(count as u64) < 4;
            if other != device && wanted && self.devices[other].machine.is_some() && self.dice.percent(80) {
                self.meet(device, other);
            }
        }
    }

    /// After quiet: everybody shows the same, nothing acknowledged is gone, and nobody publishes any more.
    fn judge(&self) -> Result<(), String> {
        let all = |device: &Device| device.held.content.list();
        let first = &self.devices[0];
        for (at, device) in self.devices.iter().enumerate() {
            if !device.held.content.same(&first.held.content) {
                return Err(format!("device {at} shows {:?}, device 0 {:?}", all(device), all(first)));
            }
            if device.held.kept.iter().any(|version| !self.versions[*version].valid) {
                return Err(format!("device {at} took a forged version"));
            }
        }
        if !first.held.content.includes(&self.acknowledged) {
            return Err(format!("of {:?} only {:?} is left", self.acknowledged.list(), all(first)));
        }
        let calm = self.plan.trouble + self.plan.quiet * 3 / 4;
        if self.last_published > calm {
            return Err(format!("somebody still publishes at {} ms", self.last_published));
        }
        // Each device opens with a version of its own; a change is one more, and its merge with what others did meanwhile.
        let bound = if self.plan.faults == 0 && self.plan.loss == 0 {
            2 * self.changes + self.plan.devices
        } else {
            4 * (self.changes + self.plan.faults + 1) * self.devices.len()
        };
        if self.published > bound {
            return Err(format!("{} publications for {} changes", self.published, self.changes));
        }
        let unfinished = self.devices.iter().position(|device| {
            device.role.publishes && device.machine.as_ref().is_some_and(|machine| !machine.published_all())
        });
        if let Some(at) = unfinished {
            let outline = self.devices[at].machine.as_ref().map(|machine| machine.outline());
            let nodes: Vec<_> =
                self.dht.nodes.iter().map(|node| node.value.as_ref().map(|item| item.seq)).collect();
            return Err(format!(
                "device {at} still has something to put: {outline:?}; the DHT has {nodes:?}"
            ));
        }
        Ok(())
    }
}
