//! Every pair of operations on the same things, with either side winning, with and without a base.

use super::model::Fs;
use super::stored::{Authors, merge};

type Operation = (&'static str, fn(&mut Fs, &str) -> Option<()>);

/// Text of more than one chunk, or of a few bytes.
fn text(word: &str, device: &str, long: bool) -> Vec<u8> {
    format!("{word} by {device}. ").repeat(if long { 1500 } else { 1 }).into_bytes()
}

const OPERATIONS: &[Operation] = &[
    ("nothing", |_, _| Some(())),
    ("create", |fs, me| fs.create("d/new", &text("created", me, false))),
    ("create long", |fs, me| fs.create("d/new", &text("created", me, true))),
    ("create same", |fs, _| fs.create("d/new", &text("created", "anyone", true))),
    ("create elsewhere", |fs, me| fs.create("e/new", &text("created", me, true))),
    ("create symlink", |fs, me| fs.symlink("d/new", me)),
    ("mkdir", |fs, me| fs.mkdir("d/new").and_then(|()| fs.create(&format!("d/new/{me}"), b"inside"))),
    ("mkdir same inside", |fs, me| {
        fs.mkdir("d/new").and_then(|()| fs.create("d/new/f", &text("deep", me, true)))
    }),
    ("mkdir deep", |fs, me| {
        fs.mkdir("d/new")?;
        fs.mkdir("d/new/s")?;
        fs.create("d/new/s/f", &text("deep", me, false))
    }),
    ("write", |fs, me| fs.write("d/f", &text("written", me, false))),
    ("write long", |fs, me| fs.write("d/g", &text("written", me, true))),
    ("write same", |fs, _| fs.write("d/g", &text("written", "anyone", true))),
    ("append", |fs, me| {
        let all = [fs.data("d/g")?, &text("appended", me, true)].concat();
        fs.write("d/g", &all)
    }),
    ("truncate", |fs, _| fs.write("d/g", b"")),
    ("truncate half", |fs, _| {
        let half = fs.data("d/g")?[..17_000].to_vec();
        fs.write("d/g", &half)
    }),
    ("rename", |fs, me| fs.rename("d/f", &format!("d/{me}"))),
    ("rename same", |fs, _| fs.rename("d/f", "d/renamed")),
    ("rename other to it", |fs, _| fs.rename("d/g", "d/renamed")),
    ("move out", |fs, _| fs.rename("d/g", "e/g")),
    ("rename over", |fs, _| fs.rename("d/g", "d/f")),
    ("rename to new", |fs, _| fs.rename("d/g", "d/new")),
    ("swap", |fs, _| {
        fs.rename("d/f", "x")?;
        fs.rename("d/g", "d/f")?;
        fs.rename("x", "d/g")
    }),
    ("rename directory", |fs, me| fs.rename("d", me)),
    ("rename directory same", |fs, _| fs.rename("d", "moved")),
    ("move directory in", |fs, _| fs.rename("d", "e/d")),
    ("move directory in crossed", |fs, _| fs.rename("e", "d/e")),
    ("move directory to new", |fs, _| fs.rename("e", "d/new")),
    ("move deep directory out", |fs, _| fs.rename("d/s", "s")),
    ("move above own child", |fs, _| {
        fs.rename("d/s", "s")?;
        fs.rename("d", "s/d")
    }),
    ("delete", |fs, _| fs.remove("d/f")),
    ("delete other", |fs, _| fs.remove("d/g")),
    ("delete directory", |fs, _| fs.remove_all("d")),
    ("delete other directory", |fs, _| fs.remove_all("e")),
    ("delete deep directory", |fs, _| fs.remove_all("d/s")),
    ("delete and make anew", |fs, me| {
        fs.remove_all("d")?;
        fs.mkdir("d")?;
        fs.create("d/f", &text("anew", me, true))
    }),
    ("directory becomes file", |fs, me| {
        fs.remove_all("d")?;
        fs.create("d", &text("file", me, true))
    }),
    ("file becomes directory", |fs, me| {
        fs.remove("d/f")?;
        fs.mkdir("d/f")?;
        fs.create("d/f/inside", &text("inside", me, false))
    }),
    ("chmod", |fs, me| fs.chmod("d/f", if me == "one" { 0o600 } else { 0o400 })),
    ("chmod directory", |fs, me| fs.chmod("d", if me == "one" { 0o700 } else { 0o500 })),
    ("chmod root", |fs, me| fs.chmod("", if me == "one" { 0o700 } else { 0o500 })),
    ("xattr", |fs, me| fs.set_xattr("d/f", "user.tag", Some(me))),
    ("xattr other", |fs, me| fs.set_xattr("d/f", &format!("user.{me}"), Some(me))),
    ("xattr gone", |fs, _| fs.set_xattr("d/f", "user.old", None)),
    ("link", |fs, me| fs.link("d/f", &format!("d/link-{me}"))),
    ("link same", |fs, _| fs.link("d/f", "d/link")),
    ("link elsewhere", |fs, _| fs.link("d/g", "e/link")),
    ("unlink one", |fs, _| fs.remove("d/h1")),
    ("unlink other", |fs, _| fs.remove("e/h2")),
    ("write linked", |fs, me| fs.write("d/h1", &text("linked", me, true))),
    ("replace", |fs, me| fs.replace("d/f", &text("replaced", me, false))),
    ("replace long", |fs, me| fs.replace("d/g", &text("replaced", me, true))),
    ("replace same", |fs, _| fs.replace("d/g", &text("replaced", "anyone", true))),
    ("replace linked", |fs, me| fs.replace("d/h1", &text("replaced", me, true))),
    ("backup and save", |fs, me| {
        fs.rename("d/g", "d/g~")?;
        fs.create("d/g", &text("saved", me, true))
    }),
];

fn base() -> Fs {
    let mut fs = Fs::new();
    for directory in ["d", "e", "d/s"] {
        fs.mkdir(directory).unwrap();
    }
    fs.create("d/f", b"few bytes").unwrap();
    fs.create("d/g", &b"many bytes. ".repeat(3000)).unwrap();
    fs.create("d/h1", &b"linked bytes. ".repeat(200)).unwrap();
    fs.link("d/h1", "e/h2").unwrap();
    fs.create("d/s/deep", b"deep bytes").unwrap();
    fs.create("e/x", b"x").unwrap();
    fs.set_xattr("d/f", "user.old", Some("old")).unwrap();
    fs
}

#[test]
fn every_pair_converges_and_keeps_what_was_written() {
    let base = base();
    for (name_a, do_a) in OPERATIONS {
        for (name_b, do_b) in OPERATIONS {
            let (mut a, mut b) = (base.on_device(1), base.on_device(2));
            do_a(&mut a, "one").expect(name_a);
            do_b(&mut b, "two").expect(name_b);
            for lamport in [[2, 1], [1, 2], [3, 3]] {
                for base in [Some(&base), None] {
                    let kind = if base.is_some() { "" } else { " without a base" };
                    let pair = format!("{name_a} against {name_b}, {lamport:?}{kind}");
                    let merged =
                        std::panic::catch_unwind(|| merge(base, &a, &b, Authors { lamport, sound: true }));
                    let (fs, merged) = merged.unwrap_or_else(|_| panic!("{pair}"));
                    let silent = *name_a == "nothing" || *name_b == "nothing";
                    if base.is_some() && silent {
                        let changed = if *name_a == "nothing" { &b } else { &a };
                        assert_eq!((&fs.nodes, &fs.entries), (&changed.nodes, &changed.entries), "{pair}");
                        assert!(merged.conflicts.is_empty(), "{pair}");
                    }
                }
            }
        }
    }
}

#[test]
fn three_devices_converge_in_any_order() {
    // a with b, then with c; the result stands on the same base, as when c was away all the time.
    let base = base();
    for (index, (name_a, do_a)) in OPERATIONS.iter().enumerate() {
        for (name_b, do_b) in OPERATIONS.iter().skip(index % 3).step_by(3) {
            let (mut a, mut b, mut c) = (base.on_device(1), base.on_device(2), base.on_device(3));
            do_a(&mut a, "one").unwrap();
            do_b(&mut b, "two").unwrap();
            OPERATIONS[(index * 7 + 5) % OPERATIONS.len()].1(&mut c, "three").unwrap();
            let check = || {
                let (ab, _) = merge(Some(&base), &a, &b, Authors { lamport: [1, 2], sound: true });
                merge(Some(&base), &ab, &c, Authors { lamport: [3, 2], sound: true });
                merge(Some(&a), &ab, &a, Authors { lamport: [3, 1], sound: true })
            };
            let (fs, _) = std::panic::catch_unwind(check).unwrap_or_else(|_| panic!("{name_a}, {name_b}"));
            fs.assert_sound();
        }
    }
}
