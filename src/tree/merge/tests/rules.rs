//! What each rule comes to, by example.

use super::model::Fs;
use super::stored::{Authors, merge, merge_crossed};
use crate::tree::inode::Timestamp;
use crate::tree::merge::Merged;

const A_WINS: Authors = Authors { lamport: [2, 1], sound: true };
const B_WINS: Authors = Authors { lamport: [1, 2], sound: true };

pub(super) fn base() -> Fs {
    let mut fs = Fs::new();
    fs.mkdir("d").unwrap();
    fs.mkdir("e").unwrap();
    fs.create("d/f.txt", b"old").unwrap();
    fs.create("d/g", b"old g").unwrap();
    fs
}

type Change = fn(&mut Fs) -> Option<()>;

fn merged(a: Change, b: Change, authors: Authors) -> (Fs, Merged) {
    let base = base();
    let (mut one, mut two) = (base.on_device(1), base.on_device(2));
    a(&mut one).unwrap();
    b(&mut two).unwrap();
    merge(Some(&base), &one, &two, authors)
}

fn paths(a: Change, b: Change, authors: Authors) -> Vec<String> {
    let mut paths = merged(a, b, authors).0.paths();
    paths.sort();
    paths
}

#[test]
fn the_later_edit_keeps_the_name_and_the_other_becomes_a_copy() {
    for (authors, kept, copied, device) in [
        (A_WINS, b"by a", b"by b", "a1a1a1a1-20231114-221321"),
        (B_WINS, b"by b", b"by a", "a0a0a0a0-20231114-221320"),
    ] {
        let (fs, merged) =
            merged(|fs| fs.write("d/f.txt", b"by a"), |fs| fs.write("d/f.txt", b"by b"), authors);
        let copy = format!("d/f.conflict-{device}.txt");
        assert_eq!(fs.data("d/f.txt"), Some(&kept[..]));
        assert_eq!(fs.data(&copy), Some(&copied[..]));
        assert_eq!(merged.conflicts.len(), 1);
        assert_eq!(merged.conflicts[0].directory, fs.look("d").unwrap());
    }
}

#[test]
fn a_save_by_rename_against_an_edit_is_a_conflict_of_the_name() {
    let (fs, merged) = merged(|fs| fs.replace("d/f.txt", b"by a"), |fs| fs.write("d/f.txt", b"by b"), A_WINS);
    assert_eq!(fs.data("d/f.txt"), Some(&b"by a"[..]));
    assert_eq!(fs.data("d/f.conflict-a1a1a1a1-20231114-221321.txt"), Some(&b"by b"[..]));
    assert_eq!(merged.conflicts.len(), 1);
}

#[test]
fn equal_edits_are_no_conflict() {
    let equal: &[(Change, Change)] = &[
        (|fs| fs.write("d/f.txt", b"same"), |fs| fs.write("d/f.txt", b"same")),
        (|fs| fs.create("new", b"same"), |fs| fs.create("new", b"same")),
        (|fs| fs.replace("d/f.txt", b"same"), |fs| fs.replace("d/f.txt", b"same")),
        (|fs| fs.replace("d/f.txt", b"same"), |fs| fs.write("d/f.txt", b"same")),
        (|fs| fs.symlink("new", "d"), |fs| fs.symlink("new", "d")),
        (|fs| fs.mkdir("new"), |fs| fs.mkdir("new")),
        (|fs| fs.rename("d", "moved"), |fs| fs.rename("d", "moved")),
        (|fs| fs.remove_all("d"), |fs| fs.remove_all("d")),
        (|fs| fs.chmod("d/g", 0o600), |fs| fs.chmod("d/g", 0o600)),
    ];
    for (index, (a, b)) in equal.iter().enumerate() {
        let (fs, report) = merged(*a, *b, A_WINS);
        assert!(report.conflicts.is_empty(), "{index}");
        let mut one = base();
        a(&mut one).unwrap();
        let sorted = |fs: &Fs| std::collections::BTreeSet::from_iter(fs.paths());
        assert_eq!(sorted(&fs), sorted(&one), "{index}");
    }
}

#[test]
fn an_edit_beats_a_deletion() {
    let edits: &[Change] = &[
        |fs| fs.write("d/g", b"new"),
        |fs| fs.chmod("d/g", 0o600),
        |fs| fs.set_xattr("d/g", "user.a", Some("b")),
    ];
    for edit in edits {
        assert_eq!(paths(|fs| fs.remove("d/g"), *edit, A_WINS), ["d", "d/f.txt", "d/g", "e"]);
        assert_eq!(paths(|fs| fs.remove_all("d"), *edit, A_WINS), ["d", "d/g", "e"]);
    }
    assert_eq!(paths(|fs| fs.remove("d/g"), |fs| fs.rename("d/g", "g"), A_WINS), ["d", "d/f.txt", "e", "g"]);
}

#[test]
fn what_is_added_to_a_deleted_directory_stays_and_its_old_files_do_not() {
    for authors in [A_WINS, B_WINS] {
        assert_eq!(
            paths(|fs| fs.remove_all("d"), |fs| fs.create("d/new", b"new"), authors),
            ["d", "d/new", "e"]
        );
    }
}

#[test]
fn a_directory_that_was_moved_keeps_its_files_against_a_deletion() {
    let expected = ["e", "e/d", "e/d/f.txt", "e/d/g"];
    assert_eq!(paths(|fs| fs.remove_all("d"), |fs| fs.rename("d", "e/d"), A_WINS), expected);
}

#[test]
fn of_two_moves_the_later_holds() {
    assert_eq!(
        paths(|fs| fs.rename("d", "one"), |fs| fs.rename("d", "two"), A_WINS),
        ["e", "one", "one/f.txt", "one/g"]
    );
    assert_eq!(
        paths(|fs| fs.rename("d/g", "one"), |fs| fs.rename("d/g", "two"), B_WINS),
        ["d", "d/f.txt", "e", "two"]
    );
}

#[test]
fn directories_moved_into_each_other_stay_in_the_tree() {
    let cross = |authors| paths(|fs| fs.rename("d", "e/d"), |fs| fs.rename("e", "d/e"), authors);
    assert_eq!(cross(A_WINS), ["e", "e/d", "e/d/f.txt", "e/d/g"]);
    assert_eq!(cross(B_WINS), ["d", "d/e", "d/f.txt", "d/g"]);
}

#[test]
fn new_directories_of_one_name_become_one() {
    let make = |fs: &mut Fs, name: &str| {
        fs.mkdir("new")?;
        fs.mkdir("new/deep")?;
        fs.create(&format!("new/deep/{name}"), name.as_bytes())?;
        fs.create("new/both", name.as_bytes())
    };
    let base = base();
    let (mut one, mut two) = (base.on_device(1), base.on_device(2));
    make(&mut one, "a").unwrap();
    make(&mut two, "b").unwrap();
    let (fs, report) = merge(Some(&base), &one, &two, A_WINS);
    for path in ["new/deep/a", "new/deep/b", "new/both", "new/both.conflict-a1a1a1a1-20231114-221321"] {
        assert!(fs.look(path).is_some(), "{path}");
    }
    assert_eq!(report.conflicts.len(), 1);
}

#[test]
fn a_directory_keeps_its_name_against_a_file() {
    for authors in [A_WINS, B_WINS] {
        let (fs, _) = merged(
            |fs| fs.create("new", b"file"),
            |fs| fs.mkdir("new").and_then(|()| fs.create("new/f", b"f")),
            authors,
        );
        assert_eq!(fs.data("new/f"), Some(&b"f"[..]));
        assert_eq!(fs.data("new.conflict-a0a0a0a0-20231114-221320"), Some(&b"file"[..]));
    }
}

#[test]
fn attributes_are_merged_one_by_one() {
    let (fs, report) = merged(|fs| fs.chmod("d/g", 0o600), |fs| fs.write("d/g", b"new"), A_WINS);
    let node = &fs.nodes[&fs.look("d/g").unwrap()];
    assert_eq!((node.record.mode, &node.data[..]), (0o600, &b"new"[..]));
    assert!(report.conflicts.is_empty());
    let (fs, _) = merged(|fs| fs.chmod("d/g", 0o600), |fs| fs.chmod("d/g", 0o640), B_WINS);
    assert_eq!(fs.nodes[&fs.look("d/g").unwrap()].record.mode, 0o640);
}

#[test]
fn one_number_for_two_things_is_told_apart() {
    // Both devices draw the same numbers, as if they had drawn one prefix.
    let base = base();
    let (mut one, mut two) = (base.on_device(1), base.on_device(1));
    one.mkdir("a").unwrap();
    one.create("a/inside", b"inside a").unwrap();
    two.chmod("d", 0o711).unwrap();
    two.create("b", &b"file b ".repeat(3000)).unwrap();
    two.mkdir("c").unwrap();
    two.create("c/inside", b"inside c").unwrap();
    for authors in [A_WINS, B_WINS] {
        let (fs, report) = merge(Some(&base), &one, &two, authors);
        assert_eq!(fs.data("a/inside"), Some(&b"inside a"[..]));
        assert_eq!(fs.data("b"), Some(&b"file b ".repeat(3000)[..]));
        assert_eq!(fs.data("c/inside"), Some(&b"inside c"[..]));
        assert!(report.conflicts.is_empty());
    }
}

#[test]
fn a_file_of_which_both_removed_another_name_stays() {
    let mut base = base();
    base.link("d/g", "e/g").unwrap();
    let (mut one, mut two) = (base.on_device(1), base.on_device(2));
    one.remove("d/g").unwrap();
    two.remove("e/g").unwrap();
    let (fs, report) = merge(Some(&base), &one, &two, A_WINS);
    assert_eq!((fs.data("d/g"), fs.data("e/g")), (None, Some(&b"old g"[..])));
    assert!(report.conflicts.is_empty());
}

#[test]
fn a_new_directory_joins_the_older_one_of_its_name() {
    for authors in [A_WINS, B_WINS] {
        let make: Change = |fs| fs.mkdir("new").and_then(|()| fs.create("new/x", b"x"));
        let (fs, report) = merged(make, |fs| fs.rename("d", "new"), authors);
        assert_eq!(fs.look("new"), base().look("d"));
        assert_eq!(fs.data("new/x").and(fs.data("new/g")), Some(&b"old g"[..]));
        assert!(report.conflicts.is_empty());
    }
}

#[test]
fn without_a_base_nothing_counts_as_deleted() {
    let base = base();
    let (mut one, mut two) = (base.on_device(1), base.on_device(2));
    one.remove_all("d").unwrap();
    two.create("new", b"new").unwrap();
    let (fs, report) = merge(None, &one, &two, A_WINS);
    for path in ["d/f.txt", "d/g", "e", "new"] {
        assert!(fs.look(path).is_some(), "{path}");
    }
    assert!(report.conflicts.is_empty());
}

#[test]
fn conflict_copies_share_the_chunks_that_nobody_changed() {
    let mut base = base();
    let long: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_le_bytes()).collect();
    base.create("long", &long).unwrap();
    let edited = |device, at: usize| {
        let mut fs = base.on_device(device);
        let mut data = long.clone();
        data[at] ^= 1;
        fs.write("long", &data).unwrap();
        fs
    };
    let (one, two) = (edited(1, 0), edited(2, 500_000));
    let (fs, merged) = merge(Some(&base), &one, &two, A_WINS);
    assert_eq!(
        fs.look("long.conflict-a1a1a1a1-20231114-221321").map(|inode| fs.nodes[&inode].record.size),
        Some(800_000)
    );
    let from_a = |edit: &&crate::tree::merge::MergeEdit| {
        edit.change.as_ref().is_some_and(|(_, source)| {
            source.is_some_and(|source| source.which == crate::tree::merge::Which::A)
        })
    };
    assert_eq!(merged.edits_on_b.iter().filter(from_a).count(), 2, "the two chunks that differ");
}

/// Both sides took in what two devices made apart from each other, of which one is the base, and one side went on.
#[test]
fn what_crossed_the_base_was_made_by_neither_side() {
    let changes: &[(Change, Change)] = &[
        (|fs| fs.create("new", b""), |fs| fs.write("new", b"filled")),
        (|fs| fs.create("new", b""), |fs| fs.replace("new", b"saved")),
        (|fs| fs.create("new", b""), |fs| fs.rename("new", "d/moved")),
        (|fs| fs.create("new", b""), |fs| fs.remove("new")),
        (|fs| fs.write("d/g", b"once"), |fs| fs.write("d/g", b"twice")),
        (|fs| fs.replace("d/g", b"once"), |fs| fs.replace("d/g", b"twice")),
        (|fs| fs.rename("d", "moved"), |fs| fs.rename("moved", "e/again")),
        (|fs| fs.chmod("d/g", 0o600), |fs| fs.chmod("d/g", 0o640)),
    ];
    for (index, (before, after)) in changes.iter().enumerate() {
        let below = base();
        let (mut base, mut crossed) = (below.on_device(1), below.on_device(2));
        base.create("e/apart", b"by the base").unwrap();
        before(&mut crossed).unwrap();
        let (both, _) = merge(Some(&below), &base, &crossed, A_WINS);
        let (mut here, mut there) = (both.on_device(3), both.on_device(4));
        here.write("e/apart", b"elsewhere").unwrap();
        after(&mut there).unwrap();
        let wanted = merge(Some(&both), &here, &there, A_WINS);
        for authors in [A_WINS, B_WINS] {
            for bases in [(&base, &crossed), (&crossed, &base)] {
                let found = merge_crossed(Some(bases.0), Some([bases.1, &below]), &here, &there, authors);
                assert!(found.1.conflicts.is_empty(), "{index}: {:?}", found.1.conflicts);
                assert_eq!(found.0.paths(), wanted.0.paths(), "{index}");
                assert_eq!(found.0.data("d/g"), wanted.0.data("d/g"), "{index}");
                assert_eq!(found.0.data("new"), wanted.0.data("new"), "{index}");
            }
        }
    }
}

/// The version that both stand on was let go, and an older one stands in for it.
#[test]
fn a_rename_holds_although_the_base_is_too_old_to_know_the_file() {
    let base = base();
    let mut made = base.on_device(1);
    made.create("d/.new.tmp", b"text").unwrap();
    let (mut moved, mut beside) = (made.clone(), made.on_device(2));
    moved.rename("d/.new.tmp", "d/new").unwrap();
    beside.create("e/beside", b"x").unwrap();
    for authors in [A_WINS, B_WINS] {
        let (fs, report) = merge(Some(&base), &moved, &beside, authors);
        assert!(fs.look("d/new").is_some() && fs.look("d/.new.tmp").is_none(), "{:?}", fs.paths());
        assert!(fs.look("e/beside").is_some() && report.conflicts.is_empty());
    }
}

/// As above: a former state of the directory is no change of its time, though that time is the greater one.
#[test]
fn the_time_given_to_a_directory_holds_although_the_base_is_too_old_to_know_it() {
    let base = base();
    let mut made = base.on_device(1);
    made.mkdir("n").unwrap();
    let (mut given, mut beside) = (made.clone(), made.on_device(2));
    let long_ago = Timestamp { seconds: 1, nanos: 0 };
    given.create("n/file", b"text").unwrap();
    given.set_mtime("n", long_ago).unwrap();
    beside.create("e/beside", b"x").unwrap();
    for authors in [A_WINS, B_WINS] {
        assert_eq!(merge(Some(&base), &given, &beside, authors).0.mtime("n"), Some(long_ago));
        assert_eq!(merge(None, &given, &beside, authors).0.mtime("n"), Some(long_ago));
    }
}
