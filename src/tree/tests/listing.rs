//! Listings that are resumed by cookie while the directory changes.

use super::super::ReadTree;
use super::{ROOT, World, kind};
use std::collections::BTreeSet;

#[test]
fn a_large_directory_lists_every_stable_name_once_while_others_come_and_go() {
    const COUNT: usize = 200_000;
    let world = World::new();
    let big = world.dir(ROOT, "big");
    for index in 0..COUNT {
        world.file(big, &format!("file-{index}"));
    }
    world.tree.flush().unwrap();
    let mut seen = BTreeSet::new();
    let (mut cookie, mut round) = (0, 0);
    loop {
        let batch = world.tree.read_dir(big, cookie).unwrap();
        let Some(last) = batch.last() else { break };
        cookie = last.cookie;
        for item in batch {
            assert!(seen.insert(item.name.clone()), "{:?} twice", String::from_utf8_lossy(&item.name));
            assert_eq!(item.attr.inode, item.inode);
        }
        round += 1;
        if round % 10 == 0 {
            // Names ending in 7 go, new ones come.
            let name = format!("file-{}7", round);
            if world.tree.unlink(big, name.as_bytes()).is_ok() {
                world.file(big, &format!("new-{round}"));
            }
        }
        if round % 100 == 0 {
            world.tree.flush().unwrap();
        }
        if round == 500 {
            // What was remembered of the listing is lost.
            world.tree.listings.forget();
        }
    }
    for index in (0..COUNT).filter(|index| index % 10 != 7) {
        assert!(seen.contains(format!("file-{index}").as_bytes()), "{index}");
    }
    assert!(seen.contains(&b"."[..]) && seen.contains(&b".."[..]));
}

#[test]
fn a_listing_from_the_start_is_never_old() {
    let world = World::new();
    assert_eq!(world.names(ROOT), [""; 0]);
    world.file(ROOT, "a");
    assert_eq!(world.names(ROOT), ["a"]);
    world.tree.flush().unwrap();
    world.tree.rename(ROOT, b"a", ROOT, b"b", super::super::RenameFlags::Replace).unwrap();
    assert_eq!(world.names(ROOT), ["b"]);
    world.tree.unlink(ROOT, b"b").unwrap();
    assert_eq!(world.names(ROOT), [""; 0]);
    let file = world.file(ROOT, "c");
    assert_eq!(kind(&world.tree.read_dir(file, 0).unwrap_err()), "NotDirectory");
    let dots = world.tree.read_dir(world.dir(ROOT, "d"), 0).unwrap();
    assert_eq!((dots.len(), dots[0].cookie, dots[1].cookie, dots[1].inode), (2, 1, 2, ROOT));
}
