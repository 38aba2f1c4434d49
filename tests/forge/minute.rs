//! A minute with a thief: three devices that people work at, an admin among them who changes the policy, a mirror, and a thief
//! who tries one thing after another. `KILOFS_THIEF_SECONDS` makes it longer, `KILOFS_THIEF_SEED` the same again.

use super::forgeries::{above, vandalise};
use super::harness::{Device, Dice, NAME, await_agreement};
use super::process::wait_until;
use super::stage::{Stage, read_uncached};
use super::thief::rand;
use super::version::{DOCS, Forged, Ground};
use kilofs::base::{BlockNumber, InfoHash};
use kilofs::crypt::keys::DeviceKey;
use kilofs::net::gossip::{Gossip, Message, News};
use kilofs::record::{Mode, Policy, RECORD_BYTES, Record, SignedItem, VersionRef};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECONDS: u64 = 40;
const ROOT: BlockNumber = BlockNumber::ROOT;
/// The protected files that are looked at all the time; all of them now and then.
const WATCHED: [&str; 4] = ["text", "empty", "large", "many/file-7"];

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What is looked at all the time.
struct Watch {
    over: AtomicBool,
    looks: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// Of each device the versions that it was seen to hold in full.
    held: [Mutex<BTreeSet<String>>; 3],
}

impl Watch {
    /// Reads protected bytes past the caches until it is over.
    fn read(&self, root: PathBuf, docs: &BTreeMap<String, Vec<u8>>) {
        while !self.over.load(Ordering::SeqCst) {
            for name in WATCHED {
                let path = root.join("docs").join(name);
                let wrong = match read_uncached(&path) {
                    Ok(found) if found == docs[name] => continue,
                    Ok(found) => format!("{} holds {} other bytes", path.display(), found.len()),
                    Err(error) => format!("{}: {error}", path.display()),
                };
                self.wrong.lock().unwrap().push(wrong);
            }
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Notes which versions a device holds.
    fn hold(&self, at: usize, device: &Device) {
        while !self.over.load(Ordering::SeqCst) {
            let status = device.status();
            let versions = status["versions"].as_array().unwrap();
            let whole = versions.iter().filter(|version| version["complete"] == true);
            let names = whole.map(|version| version["infohash"].as_str().unwrap().to_owned());
            self.held[at].lock().unwrap().extend(names);
        }
    }
}

/// The thief at work.
struct Attempts<'s> {
    stage: &'s Stage,
    gossip: Gossip,
    ground: Ground,
    /// Versions that no honest device made.
    forged: BTreeSet<InfoHash>,
    /// Under which signer a version changed the protected block.
    signed: BTreeMap<InfoHash, String>,
    tried: BTreeMap<&'static str, u32>,
}

impl Attempts<'_> {
    /// Stands on the newest honest version, if it can be had.
    fn follow(&mut self) {
        let thief = &self.stage.thief;
        if let Some((_, Some(record))) = thief.heard()
            && let Some(newest) = record.versions.first()
            && !self.forged.contains(&newest.infohash)
            && thief.try_to_take(&record)
        {
            self.ground = thief.ground();
        }
    }

    /// The policy in force as the DHT has it, or else as the thief knows it.
    fn policy(&self) -> Policy {
        self.ground.policy.clone()
    }

    /// Puts and pushes a record: whoever is there hears of it at once.
    fn publish(&self, versions: Vec<VersionRef>, policy: Policy) {
        let thief = &self.stage.thief;
        let record = Record { time: kilofs::daemon::core::now_seconds(), flags: 0, versions, policy };
        self.publish_value(&record.encode_sealed(&thief.core.keys.record));
    }

    fn publish_value(&self, value: &[u8]) {
        let thief = &self.stage.thief;
        let seq = thief.put_value(value);
        let item = SignedItem::sign(thief.core.keys.database_key.as_ref().unwrap(), seq, value.to_vec());
        self.gossip.tell(&Message::News(Box::new(News { item, delta: None })), None);
    }

    fn tell(&mut self, forged: &Forged) {
        let thief = &self.stage.thief;
        thief.seed(&forged.metainfo, &forged.image);
        self.forged.insert(forged.reference.infohash);
        self.publish(above(self.stage, &[forged.reference]), self.policy());
    }

    fn faithful(&self) -> Forged {
        self.stage.thief.version(&self.ground, &self.ground.image, |_| {}, |_| {})
    }

    /// Changes the protected block, each time in another name: each has to be found among the refusals.
    fn vandal(&mut self) {
        let thief = &self.stage.thief;
        let head = thief.rewritten(&self.ground, vandalise);
        let mut listed = thief.entry(&self.ground, &head, DOCS, thief.next_counter(&self.ground, DOCS));
        let name = DeviceKey::from_seed(&rand());
        listed.entry = listed.entry.signed(&thief.core.keys.database, &name);
        let change = |entries: &mut BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
        let forged = thief.version(&self.ground, &head.image, change, |_| {});
        self.signed.insert(forged.reference.infohash, name.public().to_string());
        self.tell(&forged);
    }

    fn garbage_chunks(&mut self) {
        let honest = self.faithful();
        let root = honest.entries[&DOCS].root().unwrap();
        let places = self.stage.thief.places(&self.ground, &honest.image, DOCS, root);
        let forged = self.stage.thief.garbled(&honest, &places.chunks);
        self.tell(&forged);
    }

    fn garbage(&mut self) {
        let honest = self.faithful();
        let noise: Vec<u8> = (0..honest.image.bytes()).map(|at| (at * 7 + at / 251) as u8).collect();
        let forged = self.stage.thief.of_bytes(&honest, &noise);
        self.tell(&forged);
    }

    fn swapped(&mut self) {
        let (root, docs) = (self.ground.entries[&ROOT].clone(), self.ground.entries[&DOCS].clone());
        let swap = |entries: &mut BTreeMap<_, _>| {
            entries.insert(ROOT, docs);
            entries.insert(DOCS, root);
        };
        let forged = self.stage.thief.version(&self.ground, &self.ground.image, swap, |_| {});
        self.tell(&forged);
    }

    fn unserved(&mut self) {
        let commit = self.ground.reference.commit;
        let versions: Vec<_> = (0..4).map(|_| VersionRef { infohash: InfoHash(rand()), commit }).collect();
        self.forged.extend(versions.iter().map(|version| version.infohash));
        self.publish(above(self.stage, &versions), self.policy());
    }

    fn attempt(&mut self, dice: &mut Dice) {
        let what = match dice.below(9) {
            0..=2 => {
                self.vandal();
                "an entry of somebody who may not write"
            }
            3 => {
                self.garbage_chunks();
                "garbage below an honest entry"
            }
            4 => {
                self.garbage();
                "an image of garbage"
            }
            5 => {
                self.swapped();
                "entries swapped"
            }
            6 => {
                self.unserved();
                "versions that nobody serves"
            }
            7 => {
                let versions = self.stage.thief.record().versions;
                self.publish(versions, self.stage.old_policy.clone());
                "an older policy"
            }
            _ => {
                let own = Policy::sign(
                    &self.stage.thief.admin,
                    &self.stage.thief.core.keys.database,
                    self.policy().counter + 5,
                    self.policy().charter,
                    vec![Mode::ReadWrite; 3],
                );
                match dice.below(2) {
                    0 => self.publish(self.stage.thief.record().versions, own),
                    _ => self.publish_value(&rand::<RECORD_BYTES>()),
                }
                "a policy of nobody's, or a record that does not open"
            }
        };
        *self.tried.entry(what).or_default() += 1;
    }
}

/// The admin opens and closes a block; what is written in it meanwhile counts.
fn change_policy(stage: &Stage, round: u64) -> (String, Vec<u8>) {
    stage.a.json(&["policy", NAME, "set", "/notes", "rw"]);
    let path = format!("notes/{round}");
    wait_until("the block is open", || std::fs::write(stage.b.path(&path), path.as_bytes()).is_ok());
    stage.a.awaits(&path, path.as_bytes());
    stage.a.json(&["policy", NAME, "set", "/notes", "ro"]);
    wait_until("the block is closed", || std::fs::write(stage.b.path(&path), b"too late").is_err());
    (path.clone(), path.into_bytes())
}

#[test]
fn a_minute_with_a_thief() {
    let seconds = from_environment("KILOFS_THIEF_SECONDS").unwrap_or(SECONDS);
    let seed = from_environment("KILOFS_THIEF_SEED").unwrap_or_else(|| u64::from_le_bytes(rand()));
    _ = writeln!(std::io::stderr(), "KILOFS_THIEF_SEED={seed}");
    let mut dice = Dice::new(seed);
    let stage = Stage::new();
    stage.a.json(&["block", NAME, "add", "/notes", "--mode", "ro"]);
    stage.a.sync();
    let c = stage.join("write");
    let devices = [&stage.a, &stage.b, &c];
    for device in devices {
        wait_until("the block is there", || {
            device.path("notes").is_dir() && device.path("docs/large").exists()
        });
    }
    await_agreement(&devices);
    stage.thief.catch_up();
    let (gossip, _events) = stage.thief.gossip();
    let ground = stage.thief.ground();
    let (forged, signed, tried) = Default::default();
    let mut attempts = Attempts { stage: &stage, gossip, ground, forged, signed, tried };
    let watch = Watch {
        over: AtomicBool::new(false),
        looks: AtomicU64::new(0),
        wrong: Mutex::default(),
        held: Default::default(),
    };
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    std::thread::scope(|scope| {
        // Whichever way this ends, the watchers end with it.
        let _end = AtEnd(&watch.over);
        for (at, device) in devices.into_iter().enumerate() {
            let (watch, docs, root) = (&watch, stage.protected(), device.mount.clone());
            scope.spawn(move || watch.read(root, docs));
            scope.spawn(move || watch.hold(at, device));
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut round = 0;
        while Instant::now() < end {
            round += 1;
            match dice.below(10) {
                0..=4 => {
                    let who = dice.below(3) as usize;
                    let path = format!("of-{who}-{}", dice.below(6));
                    let count = 1 + dice.below(40_000) as usize;
                    let bytes = dice.bytes(count);
                    devices[who].write(&path, &bytes);
                    expected.insert(path, bytes);
                }
                5 => expected.extend([change_policy(&stage, round)]),
                _ => {
                    attempts.follow();
                    attempts.attempt(&mut dice);
                }
            }
            std::thread::sleep(Duration::from_millis(dice.below(300)));
        }
        for device in devices {
            for (path, bytes) in &expected {
                device.awaits(path, bytes);
            }
        }
        await_agreement(&devices);
    });
    for device in devices {
        stage.assert_intact(device, "after it all");
    }
    let wrong = watch.wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} times, first: {:?}", wrong.len(), wrong.first());
    // What reached a device and was refused stands in its status, and in its log.
    let mut reached = 0;
    for (device, held) in devices.into_iter().zip(watch.held) {
        let status = device.status();
        let refused: BTreeSet<&str> =
            status["refused"].as_array().unwrap().iter().filter_map(|one| one["signer"].as_str()).collect();
        let log = device.log();
        for infohash in held.into_inner().unwrap() {
            let signer = attempts.signed.iter().find(|(known, _)| known.to_string() == infohash);
            let Some((_, signer)) = signer else { continue };
            reached += 1;
            assert!(refused.contains(signer.as_str()), "{} does not name {signer}", device.home.display());
            assert!(log.contains(&format!("device {}", &signer[..8])), "the log does not name {signer}");
        }
    }
    let looks = watch.looks.into_inner();
    _ = writeln!(
        std::io::stderr(),
        "{seconds} s, {looks} looks, {} files, {reached} refusals met; tried: {:?}",
        expected.len(),
        attempts.tried
    );
    assert!(looks > 10 && !expected.is_empty() && !attempts.tried.is_empty());
    assert!(reached > 0 || attempts.signed.is_empty(), "nothing of the thief's reached anybody");
}

/// Says that it is over when it is dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
