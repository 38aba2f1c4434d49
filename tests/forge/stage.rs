//! Where the thief performs: A is the admin, B may write, M mirrors; `docs` is a read-only block.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::{PATIENCE, wait_until};
use super::thief::Thief;
use kilofs::base::InfoHash;
use kilofs::record::Policy;
use rustix::fs::{Advice, fadvise};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(3);
/// So many files each device writes while a forgery arrives.
const RACES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Honest devices, a mirror, and the thief.
pub struct Stage {
    pub thief: Thief,
    pub a: Device,
    pub b: Device,
    pub mirror: Device,
    /// What is protected.
    docs: BTreeMap<String, Vec<u8>>,
    /// A link from before the policy.
    pub old_link: String,
    /// The policy in force.
    pub policy: Policy,
    /// The policy before.
    pub old_policy: Policy,
    joined: Cell<u32>,
    world: World,
}

/// What a forgery put into the DHT.
pub struct Told {
    /// Under which number.
    pub seq: i64,
    /// Versions that must not stay first.
    pub forged: Vec<InfoHash>,
    /// Whether it has to be replaced.
    pub heals: bool,
    /// Whether somebody who sees it refuses the block by name.
    pub refused: bool,
    /// Whether it leaves whoever joins without a record until somebody heals it.
    pub blinds: bool,
}

fn docs() -> BTreeMap<String, Vec<u8>> {
    let mut dice = super::harness::Dice::new(3);
    let mut docs = BTreeMap::from([
        ("text".to_owned(), b"what the admin wrote".to_vec()),
        ("empty".to_owned(), Vec::new()),
        ("large".to_owned(), dice.bytes(700_000)),
    ]);
    docs.extend((0..120).map(|index| (format!("many/file-{index}"), dice.bytes(900 + index * 20))));
    docs
}

impl Stage {
    /// A database of two blocks that everybody agrees on, one of them read-only.
    pub fn new() -> Stage {
        Stage::under(|a, _| _ = a.json(&["policy", NAME, "set", "/docs", "ro"]))
    }

    /// A database of two blocks that everybody agrees on. `enact` protects one of them.
    pub fn under(enact: impl FnOnce(&Device, &Thief)) -> Stage {
        let world = World::new();
        let a = world.creator("a");
        a.json(&["block", NAME, "add", "/docs"]);
        let docs = docs();
        std::fs::create_dir(a.path("docs/many")).unwrap();
        for (path, bytes) in &docs {
            a.write(&format!("docs/{path}"), bytes);
        }
        a.write("open", b"anybody may change this");
        a.sync();
        let old_link = a.link("read");
        let b = world.joined("b", &a, "write");
        b.awaits("docs/text", &docs["text"]);
        await_agreement(&[&a, &b]);
        let thief = Thief::join(&world, &a);
        let old_policy = thief.ground().policy;
        enact(&a, &thief);
        a.sync();
        let mirror = world.device("m");
        mirror.join(&a.link("mirror"));
        mirror.mirror();
        let policy = thief.record().policy;
        assert!(policy.supersedes(&old_policy));
        let stage =
            Stage { thief, a, b, mirror, docs, old_link, policy, old_policy, joined: Cell::new(0), world };
        stage.write("b-was-here");
        stage.b.sync();
        stage.mirror_has_all();
        stage.thief.catch_up();
        stage
    }

    /// Writes at B what A must see: the database is alive.
    pub fn write(&self, name: &str) {
        self.b.write(name, name.as_bytes());
        self.a.awaits(name, name.as_bytes());
        self.a.write(&format!("{name}-a"), name.as_bytes());
        self.b.awaits(&format!("{name}-a"), name.as_bytes());
    }

    /// Lets both devices write apart from each other while they come upon what was told, if they run; nothing of it is
    /// lost.
    pub fn race(&self, told: Told) -> Told {
        if self.a.status()["pid"].is_null() {
            return told;
        }
        let name = |round, who| format!("raced-{}-{round}-{who}", told.seq);
        for round in 0..RACES {
            for (who, device) in [("a", &self.a), ("b", &self.b)] {
                device.write(&name(round, who), name(round, who).as_bytes());
            }
            std::thread::sleep(PAUSE);
        }
        for round in 0..RACES {
            for who in ["a", "b"] {
                for device in [&self.a, &self.b] {
                    device.awaits(&name(round, who), name(round, who).as_bytes());
                }
            }
        }
        told
    }

    /// Waits until the mirror holds every honest version that the record names.
    fn mirror_has_all(&self) {
        wait_until("the mirror has the newest version", || {
            let status = self.mirror.status();
            let newest = self.thief.record().versions[0].infohash.to_string();
            let versions = status["versions"].as_array().unwrap();
            versions.iter().any(|version| version["infohash"] == newest && version["complete"] == true)
        });
    }

    /// The protected files as `device` shows them, past the kernel's cache.
    #[track_caller]
    pub fn assert_intact(&self, device: &Device, when: &str) {
        for (path, bytes) in &self.docs {
            let path = device.path(&format!("docs/{path}"));
            let found = read_uncached(&path);
            let found = found.unwrap_or_else(|error| panic!("{when}: {}: {error}", path.display()));
            assert!(found == *bytes, "{when}: {} changed", path.display());
        }
        assert_eq!(names(&device.path("docs")), ["empty", "large", "many", "text"], "{when}");
        assert_eq!(names(&device.path("docs/many")).len(), 120, "{when}");
        let open = std::fs::read(device.path("open")).unwrap();
        assert_eq!(open, b"anybody may change this", "{when}");
    }

    /// The protected files.
    pub fn protected(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.docs
    }

    fn awaits_intact(&self, device: &Device, when: &str) {
        let large = device.path("docs/large");
        wait_until(&format!("{when}: {} is there", large.display()), || {
            read_uncached(&large).is_ok_and(|found| found == self.docs["large"])
                && device.path("open").exists()
        });
        self.assert_intact(device, when);
    }

    /// Plays one forgery, with everybody there and with nobody but the thief and a mirror there.
    pub fn outlives(&self, mut forge: impl FnMut(&Stage) -> Told) {
        let told = forge(self);
        self.heard(&self.a, &told);
        self.heard(&self.b, &told);
        self.healed(&told);
        for device in [&self.a, &self.b] {
            self.assert_intact(device, "right after");
        }
        if told.refused {
            // Who is first heals the record; the other may never see the forgery.
            assert_refused(&[&self.a, &self.b]);
        }
        self.write(&format!("alive-{}", told.seq));
        let c = self.join("read");
        self.awaits_intact(&c, "joined after");
        c.awaits(&format!("alive-{}", told.seq), format!("alive-{}", told.seq).as_bytes());
        drop(c);

        await_agreement(&[&self.a, &self.b]);
        self.mirror_has_all();
        self.thief.catch_up();
        self.a.umount();
        self.b.umount();
        let told = forge(self);
        let lonely = self.join("read");
        if !told.blinds {
            self.awaits_intact(&lonely, "joined alone with the thief");
            if told.refused {
                assert_refused(&[&lonely]);
            }
        }
        let naive = self.world.device("naive");
        naive.join(&self.old_link);
        naive.mount();
        self.a.mount();
        self.b.mount();
        self.healed(&told);
        for device in [&self.a, &self.b, &lonely] {
            self.awaits_intact(device, "after a restart");
        }
        self.write(&format!("alive-{}", told.seq));
        let alive = format!("alive-{}", told.seq);
        for device in [&lonely, &naive] {
            device.awaits(&alive, alive.as_bytes());
            self.awaits_intact(device, "healed");
        }
        await_agreement(&[&self.a, &self.b, &lonely, &naive]);
        for device in [&self.a, &self.b] {
            device.umount();
            device.ok(&["fsck", NAME]);
        }
    }

    /// One more device.
    pub fn join(&self, kind: &str) -> Device {
        self.joined.set(self.joined.get() + 1);
        self.world.joined(&format!("c{}", self.joined.get()), &self.a, kind)
    }

    fn heard(&self, device: &Device, told: &Told) {
        wait_until("the forged record was heard", || {
            device.status()["seq"].as_i64().unwrap() >= told.seq || self.thief.heard().unwrap().0 > told.seq
        });
    }

    /// Waits until the newest record is honest, and stays so.
    fn healed(&self, told: &Told) {
        if !told.heals {
            return;
        }
        let is_healed = || {
            let Some((seq, Some(record))) = self.thief.heard() else { return false };
            let first = record.versions.first();
            seq > told.seq
                && record.policy == self.policy
                && first.is_some_and(|first| !told.forged.contains(&first.infohash))
        };
        wait_until("the record heals", is_healed);
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            assert!(is_healed(), "the record was spoilt again");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(PATIENCE > QUIET);
    }
}

/// Waits until `status` says that somebody's version of the block was refused.
#[track_caller]
fn assert_refused(devices: &[&Device]) {
    let names_it = |refusal: &serde_json::Value| {
        refusal["block"] == 1 && refusal["path"] == "/docs" && refusal["kind"] == "remote"
    };
    wait_until("status names the refused block", || {
        devices.iter().any(|device| device.status()["refused"].as_array().unwrap().iter().any(names_it))
    });
}

/// A file's bytes, past the kernel's cache.
pub fn read_uncached(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
