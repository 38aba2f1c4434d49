//! Names: the matrix of renames, what is refused, times and counts.

use super::super::{Attr, FileType, NodeKind, Owner, ReadTree, RenameFlags, SetAttr, SetTime};
use super::{OWNER, ROOT, World, kind};
use crate::base::Inode;

const REPLACE: RenameFlags = RenameFlags::Replace;

/// Something of a kind under a name; `d` a directory, `D` one with an entry, `f` a file, `l` a link, `-` nothing.
fn put(world: &World, name: &str, what: char) -> Option<Inode> {
    match what {
        'd' => Some(world.dir(ROOT, name)),
        'D' => {
            let directory = world.dir(ROOT, name);
            world.file(directory, "inside");
            Some(directory)
        }
        'f' => Some(world.file(ROOT, name)),
        'l' => Some(world.tree.make_symlink(ROOT, name.as_bytes(), b"there", OWNER).unwrap().inode),
        _ => None,
    }
}

#[test]
fn the_matrix_of_renames() {
    let refused = [
        // From, to, and what replacing says.
        ('d', 'f', "NotDirectory"),
        ('d', 'l', "NotDirectory"),
        ('D', 'f', "NotDirectory"),
        ('D', 'l', "NotDirectory"),
        ('f', 'd', "IsDirectory"),
        ('f', 'D', "IsDirectory"),
        ('l', 'd', "IsDirectory"),
        ('l', 'D', "IsDirectory"),
        ('d', 'D', "NotEmpty"),
        ('D', 'D', "NotEmpty"),
    ];
    for from in ['d', 'D', 'f', 'l', '-'] {
        for to in ['d', 'D', 'f', 'l', '-'] {
            for flags in [REPLACE, RenameFlags::NoReplace, RenameFlags::Exchange] {
                let world = World::new();
                let (one, other) = (put(&world, "from", from), put(&world, "to", to));
                world.tree.flush().unwrap();
                let wanted = match flags {
                    _ if from == '-' => Err("NotFound"),
                    RenameFlags::NoReplace if to != '-' => Err("Exists"),
                    RenameFlags::Exchange if to == '-' => Err("NotFound"),
                    REPLACE => refused
                        .iter()
                        .find(|(f, t, _)| (*f, *t) == (from, to))
                        .map_or(Ok(()), |(_, _, error)| Err(*error)),
                    _ => Ok(()),
                };
                let real = world.tree.rename(ROOT, b"from", ROOT, b"to", flags);
                assert_eq!(
                    real.map_err(|error| kind(&error)),
                    wanted.map_err(str::to_owned),
                    "{from}{to} {flags:?}"
                );
                let found = |name: &[u8]| world.tree.lookup(ROOT, name).map(|attr| attr.inode).ok();
                let shown = (found(b"from"), found(b"to"));
                match (wanted, flags) {
                    (Err(_), _) => assert_eq!(shown, (one, other)),
                    (Ok(()), RenameFlags::Exchange) => assert_eq!(shown, (other, one)),
                    (Ok(()), _) => assert_eq!(shown, (None, one)),
                }
                world.check();
            }
        }
    }
}

#[test]
fn a_directory_does_not_move_below_itself() {
    let world = World::new();
    let a = world.dir(ROOT, "a");
    let b = world.dir(a, "b");
    let c = world.dir(b, "c");
    let error = |result: Result<(), _>| kind(&result.unwrap_err());
    assert_eq!(error(world.tree.rename(ROOT, b"a", c, b"x", REPLACE)), "Invalid");
    assert_eq!(error(world.tree.rename(ROOT, b"a", a, b"x", REPLACE)), "Invalid");
    assert_eq!(error(world.tree.rename(ROOT, b"a", b, b"c", RenameFlags::Exchange)), "Invalid");
    assert_eq!(error(world.tree.rename(b, b"c", ROOT, b"a", RenameFlags::Exchange)), "Invalid");
    assert_eq!(error(world.tree.rename(b, b"c", ROOT, b"a", REPLACE)), "NotEmpty");
    assert_eq!(error(world.tree.rename(ROOT, b"a", ROOT, b"..", REPLACE)), "Busy");
    world.tree.rename(b, b"c", ROOT, b"c", REPLACE).unwrap();
    assert_eq!(world.tree.attr(ROOT).unwrap().nlink, 4);
    assert_eq!(world.tree.attr(b).unwrap().nlink, 2);
    assert_eq!(world.tree.path_of(c).unwrap(), b"/c");
    assert_eq!(world.tree.resolve(b"/a//b").unwrap().inode, b);
    world.check();
}

#[test]
fn two_names_of_one_file_do_not_replace_each_other() {
    let world = World::new();
    let file = world.file(ROOT, "a");
    world.tree.link(file, ROOT, b"b").unwrap();
    world.tree.rename(ROOT, b"a", ROOT, b"b", REPLACE).unwrap();
    assert_eq!(world.names(ROOT), ["a", "b"]);
    assert_eq!(world.tree.attr(file).unwrap().nlink, 2);
    world.check();
}

#[test]
fn names_are_checked() {
    let world = World::new();
    let make = |name: &[u8]| world.tree.make_node(ROOT, name, NodeKind::File, 0o644, OWNER).map(|_| ());
    assert_eq!(kind(&make(&[b'x'; 256]).unwrap_err()), "NameTooLong");
    assert_eq!(kind(&make(b"a/b").unwrap_err()), "Invalid");
    assert_eq!(kind(&make(b"").unwrap_err()), "Invalid");
    assert_eq!(kind(&make(b"..").unwrap_err()), "Exists");
    make(&[b'x'; 255]).unwrap();
    assert_eq!(kind(&world.tree.lookup(ROOT, &[b'x'; 256]).unwrap_err()), "NameTooLong");
    assert_eq!(kind(&world.tree.lookup(Inode(99 << 32), b"x").unwrap_err()), "NotFound");
    world.check();
}

#[test]
fn times_modes_and_groups_follow_the_rules() {
    let world = World::new();
    let tree = &world.tree;
    assert_eq!((tree.attr(ROOT).unwrap().uid, tree.attr(ROOT).unwrap().gid), (OWNER.uid, OWNER.gid));
    let directory = world.dir(ROOT, "d");
    tree.set_attr(directory, SetAttr { mode: Some(0o2775), gid: Some(50), ..SetAttr::default() }).unwrap();
    assert_eq!(
        tree.attr(directory).unwrap().mode,
        0o2775,
        "a directory keeps set-group-id when its group changes"
    );
    let before = tree.attr(directory).unwrap();
    let other = Owner { uid: 5, gid: 6 };
    let child = tree.make_dir(directory, b"sub", 0o755, other).unwrap();
    let file = tree.make_node(directory, b"file", NodeKind::File, 0o4755, other).unwrap();
    assert_eq!((child.gid, child.mode), (50, 0o2755));
    assert_eq!((file.uid, file.gid, file.file_type), (5, 50, FileType::File));
    let after = tree.attr(directory).unwrap();
    assert!(after.mtime > before.mtime && after.ctime == after.mtime && after.crtime == before.crtime);
    tree.write(file.inode, 0, b"x").unwrap();
    assert_eq!(tree.attr(file.inode).unwrap().mode, 0o4755, "the kernel says when a write strips");
    tree.strip_privileges(file.inode).unwrap();
    assert_eq!(tree.attr(file.inode).unwrap().mode, 0o755);
    tree.set_attr(file.inode, SetAttr { mode: Some(0o6755), ..SetAttr::default() }).unwrap();
    let owned = tree.set_attr(file.inode, SetAttr { uid: Some(9), ..SetAttr::default() }).unwrap();
    assert_eq!((owned.mode, owned.uid), (0o755, 9));
    let written = tree.attr(file.inode).unwrap();
    tree.link(file.inode, ROOT, b"again").unwrap();
    let linked = tree.attr(file.inode).unwrap();
    assert!(linked.ctime > written.ctime && linked.mtime == written.mtime && linked.nlink == 2);
    world.check();
}

#[test]
fn devices_pipes_and_links_survive() {
    let world = World::new();
    let device = world.tree.make_node(ROOT, b"null", NodeKind::Char(0x103), 0o666, OWNER).unwrap();
    let socket = world.tree.make_node(ROOT, b"socket", NodeKind::Socket, 0o600, OWNER).unwrap();
    let link = world.tree.make_symlink(ROOT, b"link", &[b'x'; 4095], OWNER).unwrap();
    assert_eq!(
        kind(&world.tree.make_symlink(ROOT, b"long", &[b'x'; 4096], OWNER).unwrap_err()),
        "NameTooLong"
    );
    world.check();
    let world = world.reopen();
    for attr in [device, socket, link] {
        assert_eq!(world.tree.attr(attr.inode).unwrap(), attr);
    }
    assert_eq!(device.rdev, 0x103);
    assert_eq!(world.tree.read_link(link.inode).unwrap(), [b'x'; 4095]);
    assert_eq!(kind(&world.tree.read_link(device.inode).unwrap_err()), "Invalid");
}

#[test]
fn who_gives_what_is_there_already_changes_a_time_and_nothing_else() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    let (before, generation) = (world.tree.attr(file).unwrap(), world.tree.generation());
    let owner = SetAttr { uid: Some(before.uid), gid: Some(before.gid), ..SetAttr::default() };
    let mode = SetAttr { mode: Some(before.mode), ..SetAttr::default() };
    let time = SetAttr { mtime: Some(SetTime::At(before.mtime)), ..SetAttr::default() };
    let mut last = before;
    for set in [owner, mode, time] {
        let told = world.tree.set_attr(file, set).unwrap();
        assert!(told.ctime > last.ctime && told == world.tree.attr(file).unwrap());
        assert_eq!(Attr { ctime: before.ctime, ..told }, before);
        last = told;
    }
    assert_eq!(world.tree.generation(), generation, "there is nothing to publish");
    let nothing = world.tree.set_attr(file, SetAttr::default()).unwrap();
    assert_eq!(nothing, last);
    let changed =
        world.tree.set_attr(file, SetAttr { uid: Some(before.uid + 1), ..SetAttr::default() }).unwrap();
    assert!(changed.ctime > last.ctime && world.tree.generation() > generation);
    assert_eq!(world.reopen().tree.attr(file).unwrap(), changed);
}
