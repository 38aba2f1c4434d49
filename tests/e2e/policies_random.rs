//! Policies change at random while three devices write, two of them admins, some away or killed: afterwards all hold one
//! content, and whatever a device was told is durable is in it, or set aside at that device.

use super::aside::offline;
use super::harness::{Device, Dice, NAME, World, await_agreement};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

const STEPS: usize = 70;
/// Where is written: blocks, a directory that becomes one and none again, and the root.
const PLACES: [&str; 4] = ["one", "two", "sub", "."];
const FILES: u64 = 3;

struct Side {
    device: Device,
    label: &'static str,
    id: String,
    away: bool,
    /// What was acknowledged last of each file, which nobody else writes.
    held: BTreeMap<String, String>,
    open: Option<(String, File)>,
    written: u32,
}

impl Side {
    fn content(&mut self, dice: &mut Dice) -> String {
        self.written += 1;
        format!("<{} {}>{}", self.label, self.written, "x".repeat(dice.below(9_000) as usize))
    }

    fn write(&mut self, dice: &mut Dice) {
        let place = PLACES[dice.below(PLACES.len() as u64) as usize];
        let path = format!("{place}/{}-{}", self.label, dice.below(FILES));
        let content = self.content(dice);
        // A new file takes the place of the old one, as editors do: what was acknowledged stays until the next is.
        let draft = self.device.path(&format!("{place}/.{}-draft", self.label));
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, self.device.path(&path))?;
            File::open(self.device.path(place))?.sync_all()
        });
        if written.is_ok() {
            self.held.insert(path, content);
        } else {
            // It may have come as far as the rename.
            self.held.remove(&path);
        }
    }

    /// Begins a file and keeps it open, whatever becomes of its block.
    fn hold(&mut self, dice: &mut Dice) {
        let path = format!("sub/{}-open-{}", self.label, self.written);
        let made = File::create(self.device.path(&path));
        let content = self.content(dice);
        if let Ok(mut file) = made
            && file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).is_ok()
        {
            self.held.insert(path.clone(), content);
            self.open = Some((path, file));
        }
    }

    fn write_to_open(&mut self) {
        let Some((path, file)) = self.open.take() else { return };
        let content = self.held.get(&path).cloned().unwrap_or_default().replace('x', "y");
        let done = file.write_all_at(content.as_bytes(), 0).and_then(|()| file.sync_all());
        if done.is_ok() {
            self.held.insert(path, content);
        } else {
            // Bytes may have come in before the sync failed.
            self.held.remove(&path);
        }
    }

    fn kill(&mut self) {
        self.open = None;
        self.device.kill9();
        self.mount();
    }

    fn leave_or_return(&mut self) {
        self.open = None;
        if self.away {
            self.device.umount();
            self.device.mount();
        } else {
            offline(&self.device);
        }
        self.away = !self.away;
    }

    fn mount(&self) {
        if self.away { self.device.mount_with(&["--offline"]) } else { self.device.mount() }
    }
}

fn change_policy(dice: &mut Dice, sides: &[Side]) {
    // The first two are admins; the first alone moves borders, as kilofs(7) asks of them.
    let admin = dice.below(2) as usize;
    let block = ["/one", "/two"][dice.below(2) as usize];
    let owner = sides[dice.below(3) as usize].id.clone();
    let size = (dice.below(60_000) + 1_000).to_string();
    let kind = dice.below(9);
    let admin = &sides[if matches!(kind, 5 | 6) { 0 } else { admin }].device;
    let arguments: Vec<&str> = match kind {
        0 | 1 => vec!["policy", NAME, "set", block, "ro"],
        2 | 3 => vec!["policy", NAME, "set", block, "rw"],
        4 => vec!["policy", NAME, "set", block, "owner", "--owner", &owner],
        5 => vec!["block", NAME, "add", "/sub"],
        6 => vec!["block", NAME, "remove", "/sub", "--keep"],
        7 => vec!["block", NAME, "quota", block, "--bytes", &size],
        _ => vec!["block", NAME, "quota", block, "--bytes", "none"],
    };
    // What is refused is refused: a quota that is too small, a block that is there already.
    let done = admin.kilofs(&arguments);
    assert!(matches!(done.code, Some(0 | 1)), "{arguments:?}: {done:?}");
}

/// All contents below a directory.
fn contents(root: &std::path::Path) -> Vec<String> {
    let files = super::trees::entries(root).into_keys().map(|path| root.join(path));
    files.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn run(seed: u64) {
    let world = World::new();
    let a = world.creator("a");
    for place in ["one", "two"] {
        a.json(&["block", NAME, "add", place]);
    }
    fs::create_dir(a.path("sub")).unwrap();
    a.sync();
    let b = world.joined("b", &a, "admin");
    let c = world.joined("c", &a, "write");
    await_agreement(&[&a, &b, &c]);
    let side = |(device, label): (Device, &'static str)| Side {
        id: device.status()["device"].as_str().unwrap().to_owned(),
        device,
        label,
        away: false,
        held: BTreeMap::new(),
        open: None,
        written: 0,
    };
    let mut sides: Vec<Side> = [(a, "a"), (b, "b"), (c, "c")].map(side).into();
    let mut dice = Dice::new(seed);
    for _ in 0..STEPS {
        let which = dice.below(3) as usize;
        match dice.below(20) {
            0..12 => sides[which].write(&mut dice),
            12..17 => change_policy(&mut dice, &sides),
            17 => sides[which].kill(),
            18 => sides[which].leave_or_return(),
            _ if sides[which].open.is_none() => sides[which].hold(&mut dice),
            _ => sides[which].write_to_open(),
        }
    }
    for side in &mut sides {
        side.write_to_open();
        if side.away {
            side.leave_or_return();
        }
    }
    let all: Vec<&Device> = sides.iter().map(|side| &side.device).collect();
    await_agreement(&all);
    let visible = contents(&sides[0].device.mount);
    for side in &sides {
        let aside = contents(&side.device.path(".kilofs/refused"));
        for (path, content) in &side.held {
            assert!(
                visible.contains(content) || aside.contains(content),
                "seed {seed}: {} wrote {path}, {} of {} bytes, which is neither there nor set aside",
                side.label,
                &content[..content.find('>').unwrap_or(0)],
                content.len()
            );
        }
        let checked = side.device.json(&["fsck", NAME]);
        assert_eq!(checked["findings"], serde_json::json!([]), "seed {seed}, {}", side.label);
    }
}

/// Where machine and network are slow about one run in twenty still loses a file of an admin whose policy lost. It is to run always
/// once that is cured.
#[test]
#[ignore = "two admins who change policies at one time: a known loss, not yet cured"]
fn policies_that_change_while_three_write_cost_nobody_anything() {
    run(1);
}
