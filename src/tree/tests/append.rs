//! A block that only grows: what is whole is fixed, and what is not is in the head and in no version.

use super::super::whole::Whole;
use super::super::{RenameFlags, SetAttr, SetXattr, TreeError};
use super::*;
use std::time::{Duration, Instant};

const LATER: Duration = Duration::from_secs(2);

fn world() -> World {
    let block = BlockView { append: true, ..view_of(0, "", true) };
    World::with(vec![block], options())
}

/// Flushes as for a publication; checks that what is whole is a sound filesystem, and the counts of its image.
fn publish(world: &World, now: Instant) -> Whole {
    let mut held = world.tree.hold();
    let whole = held.flush_whole(now, false).unwrap().unwrap();
    let image = whole.counted(held.snapshot().unwrap());
    let (source, cache, keys) = (ImageSource::new(&world.store, &image), NodeCache::new(0), keys_of(0));
    let map = Map::new(&keys, &source, &cache);
    let version = Version { map: &map, root: whole.roots[&BlockNumber::ROOT], keys: &keys, source: &source };
    let report = check_block(BlockNumber::ROOT, &version, image.bytes(), true);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let live = live_delta(None, &version).unwrap();
    for (index, region) in image.iter() {
        let counted = live.regions().get(&index).copied().unwrap_or(0);
        assert_eq!(counted, i64::from(region.live), "{index:?}");
    }
    drop(held);
    world.check();
    whole
}

/// The names below the root of what is whole.
fn names_of(world: &World, whole: &Whole) -> Vec<String> {
    let head = Head { roots: whole.roots.clone(), ..whole.head.clone() };
    let image = world.tree.draft().snapshot().unwrap();
    names_in(&World::load(&world.store, &world.blocks, &Head { image, ..head }), ROOT)
}

#[test]
fn a_file_is_published_once_it_is_closed_and_has_rested_and_is_fixed_then() {
    let world = world();
    let tree = &world.tree;
    let (open, closed, directory) =
        (world.file(ROOT, "open"), world.file(ROOT, "closed"), world.dir(ROOT, "d"));
    tree.open(open, true, false).unwrap();
    tree.write(open, 0, &[5; 300_000]).unwrap();
    tree.write(closed, 0, b"whole").unwrap();
    tree.link(closed, directory, b"again").unwrap();
    let whole = publish(&world, Instant::now());
    assert_eq!((names_of(&world, &whole), whole.waits), (vec![], true));
    tree.write(closed, 0, b"still").unwrap();
    tree.rename(ROOT, b"d", ROOT, b"directory", RenameFlags::Replace).unwrap();
    let whole = publish(&world, Instant::now() + LATER);
    assert_eq!(names_of(&world, &whole), ["closed", "directory"]);
    assert_eq!(world.names(ROOT), ["closed", "directory", "open"]);

    let fixed = |what: &str, done: Result<(), TreeError>| {
        assert_eq!(kind(&done.expect_err(what)), "Fixed", "{what}");
    };
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    fixed("write", tree.write(closed, 0, b"x"));
    fixed("open", tree.open(closed, true, false));
    fixed("cut", tree.set_attr(closed, SetAttr { size: Some(0), ..SetAttr::default() }).map(drop));
    fixed("mode", tree.set_attr(directory, mode).map(drop));
    fixed("attribute", tree.set_xattr(closed, b"user.x", b"y", SetXattr::Any));
    fixed("link", tree.link(closed, ROOT, b"third").map(drop));
    fixed("remove", tree.unlink(directory, b"again"));
    fixed("rename", tree.rename(ROOT, b"closed", ROOT, b"new", RenameFlags::Replace));
    fixed("rename over", tree.rename(ROOT, b"open", ROOT, b"closed", RenameFlags::Replace));
    fixed("swap", tree.rename(ROOT, b"open", ROOT, b"closed", RenameFlags::Exchange));

    world.file(directory, "added");
    tree.write(open, 300_000, b"more").unwrap();
    tree.close_writer(open);
    tree.close(open);
    let whole = publish(&world, Instant::now() + LATER);
    assert_eq!((names_of(&world, &whole), whole.waits), (world.names(ROOT), false));
    assert_eq!(whole.roots, whole.head.roots);
    fixed("write", tree.write(open, 0, b"x"));
    fixed("remove a directory", tree.remove_dir(ROOT, b"directory"));
}

#[test]
fn what_lies_in_a_directory_that_is_not_whole_waits_for_it_but_not_for_what_is_merely_open() {
    let world = world();
    let (outer, now) = (world.dir(ROOT, "outer"), Instant::now());
    let inner = world.dir(outer, "inner");
    let log = world.file(inner, "log");
    world.tree.open(log, true, false).unwrap();
    world.file(outer, "beside");
    assert_eq!(names_of(&world, &publish(&world, now)), Vec::<String>::new());
    let whole = publish(&world, now + LATER);
    assert!(whole.waits && names_of(&world, &whole) == ["outer"]);
    world.tree.unlink(inner, b"log").unwrap();
    world.tree.write(log, 0, b"whoever has it open goes on").unwrap();
    assert!(!publish(&world, now + LATER).waits);
}
