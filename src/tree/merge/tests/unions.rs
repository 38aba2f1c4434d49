//! Joins of append blocks: unions that are the same in any order, and what nobody may do.

use super::model::Fs;
use super::rules::base;
use super::stored::join;
use crate::base::Inode;
use crate::tree::merge::Joined;
use std::collections::BTreeSet;

/// Joins with nothing own and all of `here` accepted.
fn joined(here: &Fs, there: &Fs) -> (Fs, Joined) {
    join(here, there, true, &BTreeSet::new(), Some(here))
}

fn is_honest(joined: &Joined) -> bool {
    !joined.lacks && !joined.differs
}

/// Three devices that added apart from each other, in each other's way.
fn three() -> [Fs; 3] {
    let base = base();
    let mut three = [1, 2, 3].map(|device| base.on_device(device));
    for (at, fs) in three.iter_mut().enumerate() {
        fs.create("d/same", format!("by {at}").as_bytes()).unwrap();
        fs.create(&format!("of {at}"), &vec![at as u8; 50_000]).unwrap();
        fs.mkdir("new").unwrap();
        fs.mkdir("new/below").unwrap();
        fs.create("new/below/same", format!("deep {at}").as_bytes()).unwrap();
        fs.create(&format!("new/below/of {at}"), b"own").unwrap();
    }
    three[1].create("kind", b"a file here").unwrap();
    three[2].mkdir("kind").unwrap();
    three[2].create("kind/inside", b"a directory there").unwrap();
    three
}

#[test]
fn a_union_is_the_same_in_any_order_and_holds_all() {
    let [a, b, c] = three();
    let (ab, first) = joined(&a, &b);
    assert_eq!(first.conflicts.len(), 2, "{:?}", first.conflicts);
    let (bc, _) = joined(&c, &b);
    let (ca, _) = joined(&c, &a);
    let (all, _) = joined(&ab, &c);
    for (one, other) in [(&a, &bc), (&bc, &a), (&b, &ca), (&ab, &bc), (&ca, &ab)] {
        assert_eq!(joined(one, other).0, all);
    }
    for data in ["by 0", "by 1", "by 2", "deep 0", "deep 1", "deep 2", "a file here", "a directory there"] {
        assert_eq!(all.nodes.values().filter(|node| node.data == data.as_bytes()).count(), 1, "{data}");
    }
    assert_eq!(all.data("d/same"), Some(&b"by 0"[..]), "what was made first keeps its name");
    assert!(all.look("kind/inside").is_some(), "a directory keeps its name");
}

#[test]
fn who_has_a_part_finds_nothing_wrong_in_the_whole_and_nothing_is_left_to_do() {
    let [a, b, c] = three();
    let all = joined(&joined(&a, &b).0, &c).0;
    for part in [&a, &b, &c, &joined(&b, &c).0, &all, &base()] {
        let (union, joined) = joined(part, &all);
        assert!(joined.edits.is_empty() && is_honest(&joined), "{:?}", joined.edits.len());
        assert_eq!(union, all);
    }
}

#[test]
fn what_was_accepted_stays_whatever_a_thief_does_to_it() {
    let here = base();
    type Misdeed = fn(&mut Fs);
    let misdeeds: [Misdeed; 9] = [
        |fs| fs.remove("d/g").unwrap(),
        |fs| fs.write("d/f.txt", b"overwritten").unwrap(),
        |fs| fs.write("d/f.txt", b"").unwrap(),
        |fs| fs.chmod("d/g", 0o600).unwrap(),
        |fs| fs.chmod("d", 0o700).unwrap(),
        |fs| fs.rename("d/g", "moved").unwrap(),
        |fs| fs.rename("d", "e/moved").unwrap(),
        |fs| fs.link("d/f.txt", "second name").unwrap(),
        |fs| fs.remove_all("d").unwrap(),
    ];
    for (at, misdeed) in misdeeds.iter().enumerate() {
        let mut there = here.on_device(2);
        misdeed(&mut there);
        there.create("added", b"beside").unwrap();
        let (union, joined) = joined(&here, &there);
        assert!(!is_honest(&joined), "{at}");
        assert_eq!(union.data("added"), Some(&b"beside"[..]), "{at}");
        for (path, node) in [("d/f.txt", "old"), ("d/g", "old g")] {
            assert_eq!(union.data(path), Some(node.as_bytes()), "{at}: {path}");
        }
        assert_eq!(
            (union.look("moved"), union.look("second name"), union.look("e/moved")),
            (None, None, None)
        );
        // Who heard of both is at peace with it, and so is who made it good.
        assert!(super::unions::joined(&here, &union).1.edits.is_empty(), "{at}");
    }
}

#[test]
fn what_is_not_whole_yields_to_what_has_come() {
    let base = base();
    let (mut here, mut there) = (base.on_device(1), base.on_device(2));
    here.create("report", b"half of it").unwrap();
    there.create("report", b"whole").unwrap();
    let own: BTreeSet<Inode> = here.look("report").into_iter().collect();
    let (union, joined) = join(&here, &there, true, &own, Some(&base));
    assert_eq!(union.data("report"), Some(&b"whole"[..]));
    assert_eq!((joined.conflicts.len(), is_honest(&joined)), (1, true));
    assert!(union.nodes.values().any(|node| node.data == b"half of it"));
}

#[test]
fn where_the_other_side_stands_changes_give_way_and_additions_come() {
    let base = base();
    let mut here = base.on_device(1);
    here.write("d/g", b"edited while that was allowed").unwrap();
    here.remove("d/f.txt").unwrap();
    here.create("added", b"new").unwrap();
    let (union, joined) = join(&here, &base, false, &BTreeSet::new(), None);
    assert_eq!((union.data("d/g"), union.data("d/f.txt")), (Some(&b"old g"[..]), Some(&b"old"[..])));
    assert_eq!(union.data("added"), Some(&b"new"[..]));
    assert!(joined.differs);
}
