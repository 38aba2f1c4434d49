//! Many at once: writers, readers, listers, and flushes in between.

use super::super::{ReadTree, RenameFlags};
use super::{Dice, OWNER, ROOT, World, options};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn writers_go_on_while_others_flush() {
    let mut options = options();
    options.dirty_bytes_max = 2 << 20;
    let world = World::with(vec![super::view_of(0, "", true)], options);
    let done = AtomicBool::new(false);
    let tree = &world.tree;
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let head = tree.flush().unwrap();
                assert!(head.generation >= last);
                last = head.generation;
            }
        });
        let writers: Vec<_> = (0..4u64).map(|number| scope.spawn(move || work(tree, number))).collect();
        let lister = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                super::names_in(tree, ROOT);
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        flusher.join().unwrap();
        lister.join().unwrap();
    });
    world.check();
    let world = world.reopen();
    for number in 0..4 {
        verify(&world.tree, number);
    }
}

/// Writes, overwrites, renames, deletes; reads back what it wrote.
fn work(tree: &super::Tree, number: u64) {
    let mut dice = Dice(number);
    let home = tree.make_dir(ROOT, format!("home-{number}").as_bytes(), 0o755, OWNER).unwrap().inode;
    let big = tree.make_node(home, b"big", super::NodeKind::File, 0o644, OWNER).unwrap().inode;
    let mut model = vec![0u8; 8 << 20];
    for round in 0..300 {
        let offset = dice.below((8 << 20) - 200_000) as usize;
        let count = dice.below(200_000) as usize;
        let piece = dice.bytes(count);
        tree.write(big, offset as u64, &piece).unwrap();
        model[offset..offset + count].copy_from_slice(&piece);
        let at = dice.below(8 << 20) as usize;
        let size = tree.attr(big).unwrap().size as usize;
        let read = tree.read(big, at as u64, 100_000).unwrap();
        assert!(read == model[at.min(size)..(at + 100_000).min(size)], "round {round}");
        let name = format!("small-{round}");
        let small = tree.make_node(home, name.as_bytes(), super::NodeKind::File, 0o644, OWNER).unwrap().inode;
        tree.write(small, 0, name.as_bytes()).unwrap();
        match round % 3 {
            0 => tree.unlink(home, name.as_bytes()).unwrap(),
            1 => tree.rename(home, name.as_bytes(), home, b"last", RenameFlags::Replace).unwrap(),
            _ => {}
        }
    }
    tree.set_attr(big, super::super::SetAttr { size: Some(8 << 20), ..Default::default() }).unwrap();
    tree.write(tree.lookup(home, b"last").unwrap().inode, 0, blake3::hash(&model).as_bytes()).unwrap();
}

fn verify(tree: &super::Tree, number: u64) {
    let home = tree.lookup(ROOT, format!("home-{number}").as_bytes()).unwrap().inode;
    let big = tree.lookup(home, b"big").unwrap();
    let content = tree.read(big.inode, 0, big.size as usize).unwrap();
    let last = tree.lookup(home, b"last").unwrap();
    assert!(tree.read(last.inode, 0, 32).unwrap() == blake3::hash(&content).as_bytes());
    assert_eq!(super::names_in(tree, home).len(), 102);
    assert_eq!(tree.lookup(home, b"small-2").unwrap().size, 7);
}
