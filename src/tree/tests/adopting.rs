//! Taking over what others made, and old states beside the present one.

use super::super::{BlockView, Head, Mark, ReadTree, Stale};
use super::{Dice, ROOT, World, kind, names_in};
use crate::base::BlockNumber;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A second tree on the same store goes on from the first one's head.
fn fork(world: &World) -> World {
    let head = world.tree.flush().unwrap();
    let blocks = world.views(&head);
    let tree = super::super::Tree::load(world.store.clone(), head.image, blocks, super::options()).unwrap();
    World { store: world.store.clone(), blocks: world.blocks.clone(), tree }
}

#[test]
fn what_another_made_is_taken_over_and_its_changes_are_told() {
    let world = World::new();
    let (kept, gone) = (world.file(ROOT, "kept"), world.file(ROOT, "gone"));
    let data = Dice(1).bytes(300_000);
    world.tree.write(gone, 0, &data).unwrap();
    world.tree.write(kept, 0, &data).unwrap();
    let other = fork(&world);
    other.tree.write(kept, 10, b"changed").unwrap();
    other.tree.unlink(ROOT, b"gone").unwrap();
    let new = other.file(ROOT, "new");
    let theirs = other.check();
    world.tree.open(gone, true, false).unwrap();
    world.tree.open(kept, true, false).unwrap();
    let mine = world.tree.flush().unwrap();
    let changes = world.tree.adopt(mine.generation, theirs.clone(), other.views(&theirs)).unwrap();
    assert_eq!(changes.directories, [ROOT]);
    assert_eq!(changes.entries, [(ROOT, b"gone".to_vec()), (ROOT, b"new".to_vec())]);
    let mut inodes = vec![ROOT, kept, gone, new];
    inodes.sort();
    assert_eq!(changes.inodes, inodes);
    assert!(world.tree.generation() > mine.generation);
    assert_eq!(world.names(ROOT), ["kept", "new"]);
    assert!(world.content(kept)[10..17] == *b"changed");
    assert!(world.content(gone) == data, "open, so it stays for who has it");
    world.tree.write(gone, 5, b"still").unwrap();
    assert_eq!(&world.content(gone)[5..10], b"still");
    world.tree.close(gone);
    assert_eq!(kind(&world.tree.attr(gone).unwrap_err()), "NotFound");
    world.file(ROOT, "after");
    world.check();
    assert!(world.names(ROOT) == ["after", "kept", "new"]);
}

#[test]
fn orphans_of_before_survive_it() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    world.tree.open(file, true, false).unwrap();
    world.tree.unlink(ROOT, b"f").unwrap();
    let data = Dice(8).bytes(20 << 20);
    for (index, piece) in data.chunks(1 << 20).enumerate() {
        world.tree.write(file, (index as u64) << 20, piece).unwrap();
    }
    let other = World::new();
    other.file(ROOT, "x");
    let other = fork(&world);
    other.file(ROOT, "y");
    let theirs = other.check();
    let mine = world.tree.flush().unwrap();
    world.tree.adopt(mine.generation, theirs.clone(), other.views(&theirs)).unwrap();
    assert!(world.content(file) == data);
    world.tree.write(file, 3, b"abc").unwrap();
    world.tree.close(file);
    world.check();
    assert_eq!(world.names(ROOT), ["y"]);
}

#[test]
fn a_tree_that_has_changed_is_not_replaced() {
    let world = World::new();
    world.file(ROOT, "a");
    let head = world.tree.flush().unwrap();
    assert_eq!(head.changed.iter().copied().collect::<Vec<_>>(), [BlockNumber::ROOT]);
    world.file(ROOT, "b");
    let views = |head| -> Vec<BlockView> { world.views(head) };
    assert_eq!(world.tree.adopt(head.generation, head.clone(), views(&head)), Err(Stale));
    let now = world.tree.flush().unwrap();
    assert_eq!(world.tree.adopt(head.generation, head.clone(), views(&head)), Err(Stale));
    assert!(world.tree.adopt(now.generation, head.clone(), views(&head)).is_ok());
    assert_eq!(world.names(ROOT), ["a"]);
    assert_eq!(world.tree.flush().unwrap().generation, world.tree.generation());
}

#[test]
fn an_old_state_stays_what_it_was() {
    let world = World::new();
    let file = world.file(ROOT, "a");
    world.tree.write(file, 0, &[1; 100_000]).unwrap();
    let directory = world.dir(ROOT, "d");
    let head = world.tree.flush().unwrap();
    let old = world.tree.snapshot(&head.image, world.views(&head)).unwrap();
    for round in 0..10 {
        world.tree.write(file, 0, &Dice(round).bytes(100_000)).unwrap();
        world.tree.flush().unwrap();
    }
    world.tree.unlink(ROOT, b"a").unwrap();
    world.tree.remove_dir(ROOT, b"d").unwrap();
    world.check();
    assert!(old.read(file, 0, 200_000).unwrap() == [1; 100_000]);
    assert_eq!(names_in(&*old, ROOT), ["a", "d"]);
    assert_eq!(old.attr(directory).unwrap().mode, 0o555);
    assert_eq!(kind(&old.get_xattr(file, b"user.x").unwrap_err()), "NoData");
    assert_eq!(world.names(ROOT), [""; 0]);
}

#[test]
fn a_version_made_while_others_want_to_flush_holds_its_head() {
    let world = World::new();
    let file = world.file(ROOT, "a");
    for round in 0..20 {
        let data = Dice(round).bytes(3 << 20);
        world.tree.write(file, 0, &data).unwrap();
        let mut held = world.tree.hold();
        let head = held.flush().unwrap();
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| {
                world.tree.write(file, 0, &Dice(99).bytes(3 << 20)).unwrap();
                world.tree.flush().unwrap()
            });
            let place = held.draft().append(crate::image::Stream::Fresh, b"a commit").unwrap();
            let image = held.snapshot().unwrap();
            drop(held);
            flushing.join().unwrap();
            let version = world.tree.snapshot(&image, world.views(&head)).unwrap();
            assert!(version.read(file, 0, 4 << 20).unwrap() == data);
            assert_eq!(
                super::super::ImageSource::new(&world.store, &image).bytes(place).unwrap(),
                b"a commit"
            );
            world.tree.draft().free(place);
        });
    }
    world.file(ROOT, "end");
    world.check();
}

#[test]
fn who_has_a_file_open_that_comes_back_writes_to_what_everybody_sees() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    world.tree.write(file, 0, b"before").unwrap();
    let with = world.tree.flush().unwrap();
    world.tree.open(file, true, false).unwrap();
    world.tree.unlink(ROOT, b"f").unwrap();
    let without = world.tree.flush().unwrap();
    assert_eq!(world.content(file), b"before", "it is open");
    // An edit elsewhere beats the deletion here.
    world
        .tree
        .adopt(without.generation, Head { mark: Mark::default(), ..with.clone() }, world.views(&with))
        .unwrap();
    let mark = world.tree.mark();
    world.tree.write(file, 0, b"after!").unwrap();
    assert_eq!(world.tree.mark().seq, mark.seq + 1, "it counts as a change");
    world.tree.close(file);
    assert_eq!(world.content(world.tree.lookup(ROOT, b"f").unwrap().inode), b"after!");
    world.check();
}

#[test]
fn no_version_is_made_while_a_file_is_empty_that_is_being_saved() {
    const SAVES: u64 = 300;
    let world = World::new();
    let (file, tree) = (world.file(ROOT, "a"), &world.tree);
    // A time to come: only a write ends the wait.
    let far = Instant::now() + Duration::from_secs(3_600);
    let save = |round: u64| {
        let emptying = tree.unwritten().begin();
        tree.open(file, true, true).unwrap();
        emptying.done(file, far);
        // Durable it is made all the same.
        assert_eq!(tree.flush().unwrap().generation, tree.generation());
        assert!(tree.hold().flush_written(Instant::now()).unwrap().is_none());
        tree.write(file, 0, &round.to_le_bytes()).unwrap();
        tree.unwritten().settle(file);
        tree.close(file);
    };
    save(0);
    let (done, mut made) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..SAVES).for_each(save);
            done.store(true, Ordering::SeqCst);
        });
        loop {
            let last = done.load(Ordering::SeqCst);
            let mut held = tree.hold();
            if let Some(head) = held.flush_written(Instant::now()).unwrap() {
                let image = held.snapshot().unwrap();
                drop(held);
                let version = tree.snapshot(&image, world.views(&head)).unwrap();
                assert_eq!(version.read(file, 0, 100).unwrap().len(), 8, "version {made}");
                made += 1;
            }
            if last {
                break;
            }
        }
    });
    assert!(made > 0);
    assert_eq!(world.content(file), (SAVES - 1).to_le_bytes());
}
