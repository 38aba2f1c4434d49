//! What blocks with a quota hold, counted by what changes, against what is there.

use super::super::meter::{Usage, growth, usage};
use super::super::{Allocate, NodeKind, RenameFlags, SetAttr};
use super::{Dice, Head, OWNER, ROOT, World, kind, options, view_of};
use crate::base::{BlockNumber, Inode};
use crate::map::{Map, NodeCache};
use crate::record::Quota;
use crate::tree::source::ImageSource;
use crate::tree::version::Version;
use std::collections::BTreeMap;

const BLOCK: BlockNumber = BlockNumber(1);
const KIB: u64 = 1 << 10;

fn quota(bytes: u64, files: u64) -> BTreeMap<BlockNumber, Quota> {
    BTreeMap::from([(BLOCK, Quota { bytes: Some(bytes), files: Some(files) })])
}

/// Block 1 hangs at `limited`.
fn world() -> (World, Inode) {
    let world = World::with(vec![view_of(0, "", true), view_of(1, "limited", true)], options());
    (world, BLOCK.root_inode())
}

/// What a flushed state holds, by walking it.
fn walked(world: &World, head: &Head) -> Usage {
    let source = ImageSource::new(&world.store, &head.image);
    let cache = NodeCache::new(0);
    let block = world.views(head).remove(1);
    usage(BLOCK, &Map::new(&block.keys, &source, &cache), block.root.as_ref()).unwrap()
}

#[track_caller]
fn assert_counted(world: &World, when: &str) {
    let counted = world.tree.counted(BLOCK).expect(when);
    let head = world.tree.flush().unwrap();
    assert_eq!(counted, walked(world, &head), "{when}");
    assert_eq!(world.tree.counted(BLOCK), Some(counted), "{when}: a flush changes nothing");
}

#[test]
fn nothing_goes_in_beyond_the_quota_and_everything_goes_out() {
    let (world, limited) = world();
    let early = world.file(limited, "early");
    world.tree.write(early, 0, &[1; 3000]).unwrap();
    world.tree.set_quotas(&quota(100 * KIB, 4));
    let refused = |error: super::TreeError| assert_eq!(kind(&error), "QuotaExceeded");
    let file = world.file(limited, "file");
    world.tree.write(file, 0, &[2; 90 * KIB as usize]).unwrap();
    refused(world.tree.write(file, 90 * KIB, &[3; 8 * KIB as usize]).unwrap_err());
    refused(world.tree.write(file, 1 << 30, b"far behind a hole").unwrap_err());
    refused(world.tree.set_attr(file, SetAttr { size: Some(98 * KIB), ..SetAttr::default() }).unwrap_err());
    refused(world.tree.allocate(file, Allocate::Extend, 0, 98 * KIB).unwrap_err());
    refused(world.tree.allocate(file, Allocate::ZeroRange, 80 * KIB, 98 * KIB).unwrap_err());
    assert!(world.content(file) == [2; 90 * KIB as usize], "what was refused has changed nothing");
    world.tree.write(file, 5, b"in place").unwrap();
    world.dir(limited, "directory");
    world.tree.make_symlink(limited, b"link", b"file", OWNER).unwrap();
    refused(world.tree.make_node(limited, b"fifth", NodeKind::File, 0o644, OWNER).unwrap_err());
    refused(world.tree.make_dir(limited, b"fifth", 0o755, OWNER).unwrap_err());
    world.tree.link(file, limited, b"no inode more").unwrap();
    let elsewhere = world.file(ROOT, "elsewhere");
    world.tree.write(elsewhere, 0, &[4; 200 * KIB as usize]).unwrap();
    assert_counted(&world, "full");
    assert_eq!(world.tree.quota_of(file).unwrap().unwrap().1, Usage { bytes: 90 * 1024 + 3000, files: 4 });
    assert_eq!(world.tree.quota_of(elsewhere).unwrap(), None);
    // Less than what is there: it only shrinks from now on.
    world.tree.set_quotas(&quota(10 * KIB, 1));
    refused(world.tree.write(early, 3000, b"more").unwrap_err());
    world.tree.write(file, 0, b"in place").unwrap();
    world.tree.set_attr(file, SetAttr { size: Some(50 * KIB), ..SetAttr::default() }).unwrap();
    world.tree.unlink(limited, b"link").unwrap();
    world.tree.remove_dir(limited, b"directory").unwrap();
    assert_counted(&world, "shrunk");
    world.tree.unlink(limited, b"file").unwrap();
    world.tree.unlink(limited, b"no inode more").unwrap();
    world.tree.write(early, 3000, b"more").unwrap();
    assert_counted(&world, "emptied");
    world.check();
}

#[test]
fn a_file_without_a_name_is_not_counted_and_has_no_quota() {
    let (world, limited) = world();
    world.tree.set_quotas(&quota(10 * KIB, 9));
    let file = world.file(limited, "file");
    world.tree.write(file, 0, &[1; 9000]).unwrap();
    world.tree.open(file, true, false).unwrap();
    world.tree.unlink(limited, b"file").unwrap();
    assert_eq!(world.tree.counted(BLOCK), Some(Usage::default()));
    world.tree.write(file, 0, &[2; 60_000]).unwrap();
    assert_counted(&world, "written without a name");
    world.tree.close(file);
    assert_counted(&world, "closed");
}

/// Random changes of one block, by two trees that take each other's states over.
#[test]
fn what_is_counted_is_what_is_there_after_any_history() {
    for seed in 0..12 {
        let (world, limited) = world();
        let mut dice = Dice(seed);
        let mut directories = vec![limited];
        world.tree.set_quotas(&quota(1 << 40, 1 << 40));
        let first = world.file(limited, "counted from here on");
        let mut files = vec![first];
        for step in 0..150 {
            let pick = |dice: &mut Dice, from: &[Inode]| from[dice.below(from.len() as u64) as usize];
            let (directory, other) = (pick(&mut dice, &directories), pick(&mut dice, &directories));
            let name = [b'a' + dice.below(5) as u8];
            let new_name = [b'a' + dice.below(5) as u8];
            let file = pick(&mut dice, &files);
            // Most of what is refused is refused for other reasons, which is as good.
            match dice.below(12) {
                0 | 1 => files.extend(
                    world.tree.make_node(directory, &name, NodeKind::File, 0o644, OWNER).map(|a| a.inode),
                ),
                2 => directories
                    .extend(world.tree.make_dir(directory, &name, 0o755, OWNER).map(|attr| attr.inode)),
                3 | 4 => {
                    let (offset, count) = (dice.below(70_000), dice.below(30_000) as usize);
                    let data = dice.bytes(count);
                    _ = world.tree.write(file, offset, &data);
                }
                5 => {
                    let size = Some(dice.below(50_000));
                    _ = world.tree.set_attr(file, SetAttr { size, ..SetAttr::default() });
                }
                6 => _ = world.tree.unlink(directory, &name),
                7 => _ = world.tree.remove_dir(directory, &name),
                8 => {
                    let flags = [RenameFlags::Replace, RenameFlags::Exchange][dice.below(2) as usize];
                    _ = world.tree.rename(directory, &name, other, &new_name, flags);
                }
                9 => _ = world.tree.link(file, directory, &new_name),
                10 => {
                    if world.tree.open(file, true, false).is_ok() && dice.one_in(2) {
                        world.tree.close(file);
                    }
                }
                _ => _ = world.tree.flush().unwrap(),
            }
            if step % 25 == 24 {
                assert_counted(&world, &format!("seed {seed}, step {step}"));
            }
        }
        // Another tree goes on from here, and this one takes over what that has made.
        let before = world.tree.flush().unwrap();
        let theirs = World::load(&world.store, &world.blocks, &before);
        theirs.unlink(limited, b"a").ok();
        let new = theirs.make_node(limited, b"theirs", NodeKind::File, 0o644, OWNER).unwrap().inode;
        theirs.write(new, 0, &dice.bytes(20_000)).unwrap();
        let head = theirs.flush().unwrap();
        world.tree.adopt(before.generation, head.clone(), world.views(&head)).unwrap();
        assert_counted(&world, &format!("seed {seed}, taken over"));
        // The same by the difference of the two states alone.
        let sources = [&before, &head].map(|head| ImageSource::new(&world.store, &head.image));
        let cache = NodeCache::new(0);
        let views = [&before, &head].map(|head| world.views(head).remove(1));
        let maps = [0, 1].map(|at| Map::new(&views[at].keys, &sources[at], &cache));
        let [old, new] = [0, 1].map(|at| Version {
            map: &maps[at],
            root: views[at].root,
            keys: &views[at].keys,
            source: &sources[at],
        });
        let grown = growth(BLOCK, &old, &new).unwrap();
        assert_eq!(walked(&world, &before).plus(grown), walked(&world, &head), "seed {seed}");
    }
}

#[test]
fn counting_begins_in_the_middle() {
    let (world, limited) = world();
    let (kept, gone) = (world.file(limited, "kept"), world.file(limited, "gone"));
    world.tree.write(kept, 0, &[1; 40_000]).unwrap();
    world.tree.write(gone, 0, &[1; 50_000]).unwrap();
    world.tree.flush().unwrap();
    // In the layer above what was flushed: a file grown, one gone, one new, one new and gone.
    world.tree.write(kept, 0, &[2; 41_000]).unwrap();
    world.tree.unlink(limited, b"gone").unwrap();
    world.file(limited, "new");
    world.file(limited, "short");
    world.tree.unlink(limited, b"short").unwrap();
    world.tree.set_quotas(&quota(1 << 20, 100));
    assert_eq!(world.tree.counted(BLOCK), None, "nobody has asked yet");
    let (_, used) = world.tree.quota_of(kept).unwrap().unwrap();
    assert_eq!(used, Usage { bytes: 41_000, files: 2 });
    assert_counted(&world, "counted in the middle");
}
