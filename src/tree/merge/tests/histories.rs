//! Long random histories on both sides, from seeds.

use super::model::Fs;
use super::stored::{Authors, Stored, merge, merge_stored};
use crate::map::Edit;
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;

/// SplitMix64: small, seeded, the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn path(&mut self, fs: &Fs) -> String {
        let paths = fs.paths();
        if paths.is_empty() { String::new() } else { paths[self.below(paths.len())].clone() }
    }

    /// A name that is likely to be taken by the other side too.
    fn new_path(&mut self, fs: &Fs) -> String {
        let parent = if self.below(3) == 0 { String::new() } else { self.path(fs) };
        let name = ["a", "b.txt", "c", "dir"][self.below(4)];
        if parent.is_empty() { name.into() } else { format!("{parent}/{name}") }
    }

    /// Content that nobody else writes, or that both may.
    fn content(&mut self) -> Vec<u8> {
        let word = if self.below(4) == 0 { self.below(3) } else { self.below(1 << 40) };
        let times = [1, 1, 1, 200, 3000][self.below(5)];
        format!("{word} ").repeat(times).into_bytes()
    }

    fn operate(&mut self, fs: &mut Fs) {
        let (path, new) = (self.path(fs), self.new_path(fs));
        let _ = match self.below(20) {
            0..4 => fs.create(&new, &self.content()),
            4..6 => fs.mkdir(&new),
            6..8 => fs.write(&path, &self.content()),
            8 => {
                let grown = [fs.data(&path).unwrap_or_default(), &self.content()].concat();
                fs.write(&path, &grown)
            }
            9..13 => fs.rename(&path, &new),
            13 => fs.remove(&path),
            14 => fs.remove_all(&path),
            15 => fs.chmod(&path, [0o600, 0o644, 0o755][self.below(3)]),
            16 => fs.set_xattr(
                &path,
                ["user.a", "user.b"][self.below(2)],
                [None, Some("x"), Some("y")][self.below(3)],
            ),
            17 => fs.link(&path, &new),
            18 => fs.replace(&path, &self.content()),
            _ => fs.symlink(&new, ["here", "there"][self.below(2)]),
        };
    }

    fn operate_often(&mut self, fs: &mut Fs, most: usize) {
        for _ in 0..self.below(most) {
            self.operate(fs);
        }
    }
}

/// Two sides from one base, and then again from what each made of it.
fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut base = Fs::new().on_device(9);
    dice.operate_often(&mut base, 30);
    let (mut a, mut b) = (base.on_device(1), base.on_device(2));
    let most = [3, 8, 40][dice.below(3)];
    dice.operate_often(&mut a, most);
    dice.operate_often(&mut b, most);
    a.assert_sound();
    let lamport = [dice.below(3) as u64, dice.below(3) as u64];
    let (merged, _) = merge(Some(&base), &a, &b, Authors { lamport, sound: true });
    merge(None, &a, &b, Authors { lamport, sound: true });
    // What one side alone did comes out as it is.
    let (same, report) = merge(Some(&base), &base, &b, Authors { lamport, sound: true });
    assert_eq!((&same.nodes, &same.entries), (&b.nodes, &b.entries));
    assert!(report.conflicts.is_empty());
    // One goes on from the result, the other has not seen it: a is the base of both.
    let (mut later, mut behind) = (merged.on_device(3), a.on_device(4));
    dice.operate_often(&mut later, most);
    dice.operate_often(&mut behind, most);
    merge(Some(&a), &later, &behind, Authors { lamport: [5, 4], sound: true });
    merge(Some(&a), &later, &behind, Authors { lamport: [4, 5], sound: true });
}

#[test]
fn random_histories_converge_and_keep_what_was_written() {
    for seed in 0..HISTORIES {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("seed {seed}");
        }
    }
}

/// Enough to meet every rule many times in a few seconds.
const HISTORIES: u64 = 2000;

/// Takes keys away, and gives keys the values of others of their kind.
fn forge(dice: &mut Dice, edits: &mut Vec<Edit>) {
    for _ in 0..1 + dice.below(4) {
        if edits.is_empty() {
            return;
        }
        let (at, from) = (dice.below(edits.len()), dice.below(edits.len()));
        let same_kind = edits[at].key[8] == edits[from].key[8];
        match dice.below(3) {
            0 => drop(edits.remove(at)),
            1 if same_kind => edits[at].change = edits[from].change.clone(),
            _ => {
                let Ok(Key::Inode(_)) = Key::decode(&edits[at].key) else { continue };
                let Some((value, _)) = &mut edits[at].change else { continue };
                let mut record = InodeRecord::decode(value).unwrap();
                record.nlink = [0, 1, 2, u32::MAX][dice.below(4)];
                *value = record.encode();
            }
        }
    }
}

#[test]
fn what_is_no_filesystem_is_merged_without_panic() {
    for seed in 0..HISTORIES {
        let mut dice = Dice(seed);
        let mut base = Fs::new().on_device(9);
        dice.operate_often(&mut base, 30);
        let (mut a, mut b) = (base.on_device(1), base.on_device(2));
        dice.operate_often(&mut a, 20);
        dice.operate_often(&mut b, 20);
        let base = Stored::forged(&base, 0, |edits| {
            if dice.below(2) == 0 {
                forge(&mut dice, edits)
            }
        });
        let a = Stored::forged(&a, 1000, |edits| forge(&mut dice, edits));
        let b = Stored::forged(&b, 77_777, |edits| forge(&mut dice, edits));
        let authors = Authors { lamport: [1, 2], sound: false };
        let _ = merge_stored(Some(&base), &a, &b, authors, [0, 1]);
        let _ = merge_stored(None, &a, &b, authors, [0, 1]);
    }
}
