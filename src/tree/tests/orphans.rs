//! Files without a name that are still open.

use super::super::{ReadTree, RenameFlags, SetAttr, SetXattr};
use super::{Dice, ROOT, World, kind};

#[test]
fn an_unlinked_open_file_goes_on_living() {
    let world = World::new();
    let file = world.file(ROOT, "f");
    let data = Dice(2).bytes(6 << 20);
    world.tree.write(file, 0, &data).unwrap();
    world.tree.set_xattr(file, b"user.a", b"1", SetXattr::Any).unwrap();
    world.tree.flush().unwrap();
    world.tree.open(file, true, false).unwrap();
    world.tree.open(file, false, false).unwrap();
    world.tree.unlink(ROOT, b"f").unwrap();
    assert_eq!(world.tree.attr(file).unwrap().nlink, 0);
    assert_eq!(kind(&world.tree.link(file, ROOT, b"back").unwrap_err()), "NotFound");
    assert!(world.check().image.live_bytes() < 3000, "its bytes are dead in what others see");
    // Regions are emptied and filled anew under it.
    let other = world.file(ROOT, "other");
    for round in 0..5 {
        world.tree.write(other, 0, &Dice(round).bytes(6 << 20)).unwrap();
        world.tree.flush().unwrap();
        assert!(world.content(file) == data);
    }
    let generation = world.tree.generation();
    world.tree.write(file, 1 << 20, &[5; 300_000]).unwrap();
    world.tree.set_attr(file, SetAttr { size: Some(2 << 20), ..SetAttr::default() }).unwrap();
    assert_eq!(world.tree.generation(), generation, "nothing that others could see");
    assert_eq!(world.tree.get_xattr(file, b"user.a").unwrap(), b"1");
    world.tree.flush().unwrap();
    let mut now = data[..2 << 20].to_vec();
    now[1 << 20..(1 << 20) + 300_000].fill(5);
    assert!(world.content(file) == now);
    world.tree.close(file);
    assert!(world.content(file) == now, "one handle is left");
    world.tree.close(file);
    assert_eq!(kind(&world.tree.attr(file).unwrap_err()), "NotFound");
    world.check();
}

#[test]
fn a_temporary_file_larger_than_memory_leaves_nothing() {
    let world = World::new();
    let file = world.file(ROOT, "tmp");
    world.tree.open(file, true, false).unwrap();
    world.tree.unlink(ROOT, b"tmp").unwrap();
    let data = Dice(3).bytes(1 << 20);
    for index in 0..40 {
        world.tree.write(file, index << 20, &data).unwrap();
    }
    assert!(world.tree.dirty_bytes() <= 9 << 20);
    world.check();
    for index in 0..40 {
        assert!(world.tree.read(file, index << 20, 1 << 20).unwrap() == data);
    }
    world.tree.close(file);
    assert_eq!(world.tree.dirty_bytes(), 0);
    let kept = world.file(ROOT, "kept");
    world.tree.write(kept, 0, b"x").unwrap();
    assert!(world.check().image.filled_bytes() <= 2 << 20, "its regions are given back");
}

#[test]
fn replacing_an_open_file_keeps_it_for_its_reader() {
    let world = World::new();
    let (old, new) = (world.file(ROOT, "doc"), world.file(ROOT, "doc.tmp"));
    world.tree.write(old, 0, &[1; 50_000]).unwrap();
    world.tree.write(new, 0, &[2; 50_000]).unwrap();
    world.tree.open(old, false, false).unwrap();
    world.tree.rename(ROOT, b"doc.tmp", ROOT, b"doc", RenameFlags::Replace).unwrap();
    world.tree.flush().unwrap();
    assert!(world.content(old) == [1; 50_000] && world.content(new) == [2; 50_000]);
    world.tree.close(old);
    world.check();
}
