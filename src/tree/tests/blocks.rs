//! Several blocks: mountpoints, what may not be done to them, and blocks in which this device may not write.

use super::super::{FileType, NodeKind, ReadTree, RenameFlags, SetAttr, SetXattr};
use super::{OWNER, ROOT, World, kind, names_in, options, view_of};
use crate::base::{BlockNumber, Inode};

const REPLACE: RenameFlags = RenameFlags::Replace;

fn three() -> World {
    World::with(
        vec![view_of(0, "", true), view_of(3, "team/notes", true), view_of(4, "team/notes/old", false)],
        options(),
    )
}

#[test]
fn blocks_hang_at_their_paths_and_stay_there() {
    let world = three();
    let tree = &world.tree;
    let team = tree.lookup(ROOT, b"team").unwrap();
    let notes = tree.resolve(b"/team/notes").unwrap();
    assert_eq!((team.file_type, team.mode), (FileType::Directory, 0o555));
    assert_eq!(notes.inode, BlockNumber(3).root_inode());
    assert_eq!(tree.resolve(b"/team/notes/old").unwrap().inode, Inode(5));
    assert_eq!(tree.path_of(Inode(5)).unwrap(), b"/team/notes/old");
    assert_eq!(names_in(tree, ROOT), ["team"]);
    assert_eq!(names_in(tree, team.inode), ["notes"]);
    let error = |result: Result<(), _>| kind(&result.unwrap_err());
    assert_eq!(error(tree.remove_dir(team.inode, b"notes")), "Busy");
    assert_eq!(error(tree.rename(ROOT, b"team", ROOT, b"x", REPLACE)), "Busy");
    let directory = world.dir(ROOT, "d");
    assert_eq!(error(tree.rename(ROOT, b"d", ROOT, b"team", REPLACE)), "Busy");
    assert_eq!(error(tree.make_dir(ROOT, b"team", 0o755, OWNER).map(|_| ())), "Exists");
    assert_eq!(error(tree.make_dir(team.inode, b"x", 0o755, OWNER).map(|_| ())), "ReadOnlyBlock");
    let file = world.file(notes.inode, "f");
    assert_eq!(error(tree.rename(notes.inode, b"f", directory, b"f", REPLACE)), "CrossBlock");
    assert_eq!(error(tree.link(file, directory, b"f").map(|_| ())), "CrossBlock");
    assert_eq!(tree.block_of(file), Some(BlockNumber(3)));
    let head = world.check();
    assert!(head.roots[&BlockNumber(3)].is_some() && head.roots[&BlockNumber(4)].is_none());
    let world = world.reopen();
    assert_eq!(world.tree.attr(file).unwrap().inode, file, "found without its name");
    assert_eq!(world.names(notes.inode), ["f", "old"]);
}

#[test]
fn a_real_directory_is_taken_for_the_way() {
    let world = World::new();
    let team = world.dir(ROOT, "team");
    world.file(team, "beside");
    let mut world = world;
    world.blocks.push(view_of(3, "team/notes", true));
    let head = world.tree.flush().unwrap();
    let mut views = vec![view_of(0, "", true), view_of(3, "team/notes", true)];
    views[0].root = head.roots[&BlockNumber(0)];
    let changes = world.tree.adopt(head.generation, head, views).unwrap();
    assert_eq!(changes.entries, [(team, b"notes".to_vec())]);
    assert_eq!(world.names(team), ["beside", "notes"]);
    world.file(team, "more");
    let error = |result: Result<(), _>| kind(&result.unwrap_err());
    assert_eq!(error(world.tree.rename(ROOT, b"team", ROOT, b"x", REPLACE)), "Busy");
    assert_eq!(error(world.tree.remove_dir(ROOT, b"team")), "Busy");
}

#[test]
fn nothing_is_changed_where_the_policy_forbids_it() {
    let mut blocks = vec![view_of(0, "", true), view_of(3, "ro", true)];
    let world = World::with(blocks.clone(), options());
    let tree = &world.tree;
    let ro = tree.lookup(ROOT, b"ro").unwrap().inode;
    let file = world.file(ro, "f");
    let directory = world.dir(ro, "d");
    tree.open(file, true, false).unwrap();
    assert!(tree.set_writable(&[(BlockNumber(3), false)]).too_many);
    assert!(tree.set_writable(&[(BlockNumber(3), false)]).is_empty());
    let refused = |result: Result<(), _>| assert_eq!(kind(&result.unwrap_err()), "ReadOnlyBlock");
    refused(tree.write(file, 0, b"x"));
    refused(tree.set_attr(file, SetAttr { mode: Some(0o600), ..SetAttr::default() }).map(|_| ()));
    refused(tree.set_attr(file, SetAttr { size: Some(0), ..SetAttr::default() }).map(|_| ()));
    refused(tree.open(file, true, false));
    refused(tree.unlink(ro, b"f"));
    refused(tree.remove_dir(ro, b"d"));
    refused(tree.make_node(ro, b"x", NodeKind::File, 0o644, OWNER).map(|_| ()));
    refused(tree.link(file, directory, b"x").map(|_| ()));
    refused(tree.rename(ro, b"f", directory, b"f", REPLACE));
    refused(tree.set_xattr(file, b"user.a", b"", SetXattr::Any));
    refused(tree.allocate(file, super::super::Allocate::Extend, 0, 10));
    tree.open(file, false, false).unwrap();
    assert_eq!(tree.attr(file).unwrap().mode, 0o444);
    assert_eq!(tree.attr(directory).unwrap().mode, 0o555);
    world.file(ROOT, "elsewhere");
    world.check();
    // What was changed before the policy did is flushed all the same.
    blocks[1].root = tree.flush().unwrap().roots[&BlockNumber(3)];
    assert!(blocks[1].root.is_some());
}
