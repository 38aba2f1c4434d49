//! However a tree is used, little of what is written is dead once a few flushes have gone by, and the store's file
//! becomes shorter with it. The full sizes run on demand: `cargo test --release --lib dead_space -- --ignored`.

use super::super::ReadTree;
use super::{Dice, ROOT, World};
use crate::base::Inode;
use crate::image::{Kept, Label};

/// Flushes that are enough to give back what is dead.
const FLUSHES_MAX: usize = 200;
/// What may be dead besides 30 %: an image is looked at after so much has died, in bytes.
const UNSEEN_BYTES: u64 = 4 << 20;

/// Flushes and commits as an engine does that is left alone, and holds the outcome against the bound.
fn settle(world: &World) -> u64 {
    let commit = || {
        let image = world.tree.flush().unwrap().image;
        world.store.commit(&[Kept { label: Label(b"head".to_vec()), image }], b"").unwrap();
    };
    commit();
    let again = (0..FLUSHES_MAX).take_while(|_| world.tree.is_untidy()).map(|_| commit()).count();
    assert!(again < FLUSHES_MAX, "cleaning comes to an end");
    // The commit before the last one keeps what it shows.
    commit();
    let image = world.tree.flush().unwrap().image;
    let (filled, live) = (image.filled_bytes(), image.live_bytes());
    let dead = filled - live;
    assert!(dead * 10 <= filled * 3 + 10 * UNSEEN_BYTES, "{dead} of {filled} bytes are dead");
    // Free slots between used ones are holes in the file: what counts is what is used.
    let statistics = world.store.statistics().unwrap();
    let used = u64::from(statistics.slots_used) << 20;
    assert!(used <= filled + filled / 4 + (8 << 20), "{used} bytes of slots for {filled}");
    statistics.file_bytes
}

fn page(dice: &mut Dice, bytes: u64) -> (u64, Vec<u8>) {
    (dice.below(bytes / 4096) * 4096, dice.bytes(4096))
}

fn rewrites(file_bytes: u64, pages: u64) {
    let world = World::new();
    let file = world.file(ROOT, "f");
    let mut dice = Dice(3);
    for offset in (0..file_bytes).step_by(1 << 20) {
        world.tree.write(file, offset, &dice.bytes(1 << 20)).unwrap();
    }
    for number in 0..pages {
        let (offset, bytes) = page(&mut dice, file_bytes);
        world.tree.write(file, offset, &bytes).unwrap();
        assert_eq!(world.tree.read(file, offset, 4096).unwrap(), bytes);
        if number % 500 == 499 {
            settle(&world);
        }
    }
    settle(&world);
    world.check();
}

fn fill_and_delete(file_bytes: usize, files: usize, cycles: usize) {
    let world = World::new();
    let mut dice = Dice(4);
    let data = dice.bytes(file_bytes);
    let mut longest = 0;
    for cycle in 0..cycles {
        for number in 0..files {
            let file = world.file(ROOT, &format!("{cycle}.{number}"));
            world.tree.write(file, 0, &data).unwrap();
        }
        longest = longest.max(settle(&world));
        // A fifth stays, so that regions are mixed.
        for number in (0..files).filter(|number| number % 5 != 0) {
            world.tree.unlink(ROOT, format!("{cycle}.{number}").as_bytes()).unwrap();
        }
        settle(&world);
    }
    for name in world.names(ROOT) {
        world.tree.unlink(ROOT, name.as_bytes()).unwrap();
    }
    let emptied = settle(&world);
    // Which slot the last region lies in, and so how long the file must stay, depends on which thread took one first;
    // how much is used does not.
    let statistics = world.store.statistics().unwrap();
    assert!(statistics.slots_used + statistics.slots_of_tables <= 4, "{statistics:?}");
    assert!(longest > 4 * emptied && emptied <= 16 << 20, "the store had {longest} bytes and has {emptied}");
    world.check();
}

/// A database with a rollback journal: pages go to the journal, are changed in place, and the journal goes.
fn journal(database_bytes: u64, transactions: u64) {
    let world = World::new();
    let file = world.file(ROOT, "db");
    let mut dice = Dice(5);
    let write_pages = |file: Inode, dice: &mut Dice, at: Option<u64>| {
        let (offset, bytes) = page(dice, database_bytes);
        world.tree.write(file, at.unwrap_or(offset), &bytes).unwrap();
    };
    for offset in (0..database_bytes).step_by(4096) {
        write_pages(file, &mut dice, Some(offset));
    }
    for number in 0..transactions {
        let journal = world.file(ROOT, "db-journal");
        for index in 0..5 {
            write_pages(journal, &mut dice, Some(index * 4096));
            write_pages(file, &mut dice, None);
        }
        world.tree.flush().unwrap();
        world.tree.unlink(ROOT, b"db-journal").unwrap();
        if number % 200 == 199 {
            settle(&world);
        }
    }
    settle(&world);
    world.check();
}

#[test]
fn pages_rewritten_here_and_there() {
    rewrites(32 << 20, 1500);
}

#[test]
fn filling_and_deleting() {
    fill_and_delete(1 << 20, 40, 4);
    fill_and_delete(3000, 4000, 3);
}

#[test]
fn a_rollback_journal() {
    journal(8 << 20, 300);
}

#[test]
#[ignore = "takes minutes"]
fn all_at_full_size() {
    rewrites(256 << 20, 10_000);
    fill_and_delete(8 << 20, 64, 6);
    fill_and_delete(3000, 100_000, 3);
    journal(64 << 20, 10_000);
}
