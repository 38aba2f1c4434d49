//! A plain folder that is kept in step with a database: what is done on either side is seen on the other.

use super::harness::{Device, NAME, World};
use super::process::{PATIENCE, run, wait_until};
use super::push::{save_slowly, seen_empty};
use super::trees::source_tree;
use rustix::fs::XattrFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{create_dir, hard_link, read_link, remove_dir, remove_file, rename, set_permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A device that shares a folder, and one that mounts the same database.
pub fn shared_and_mounted(world: &World) -> (Device, Device) {
    let a = world.device("a");
    a.create();
    a.share(&[]);
    let b = world.joined("b", &a, "write");
    (a, b)
}

/// Every path with its kind and mode, and its content.
pub type Seen = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// What a person sees in a folder or a mount; none if it changed meanwhile. The share's own directory is left out.
pub fn look(root: &Path) -> io::Result<Seen> {
    let mut found = Seen::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let inside = path.strip_prefix(root).unwrap().to_path_buf();
            if inside == Path::new(".kilofs-share") {
                continue;
            }
            let meta = path.symlink_metadata()?;
            let content = if meta.is_dir() {
                open.push(path);
                Vec::new()
            } else if meta.is_symlink() {
                read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path)?
            };
            found.insert(inside, (meta.mode(), content));
        }
    }
    Ok(found)
}

/// The same, once it holds still.
#[track_caller]
pub fn seen(root: &Path) -> Seen {
    let mut found = look(root);
    wait_until("a directory can be read to the end", || {
        found = look(root);
        found.is_ok()
    });
    found.unwrap()
}

/// Waits until both show the same.
#[track_caller]
pub fn await_same(one: &Device, other: &Device) {
    let end = Instant::now() + PATIENCE;
    loop {
        let (ones, others) = (look(&one.mount), look(&other.mount));
        if ones.is_ok() && ones.as_ref().ok() == others.as_ref().ok() {
            return;
        }
        if Instant::now() > end {
            let (ones, others) = (ones.unwrap(), others.unwrap());
            let paths: BTreeSet<&PathBuf> = ones.keys().chain(others.keys()).collect();
            let shown =
                |seen: &Seen, path: &PathBuf| seen.get(path).map(|(mode, content)| (*mode, content.len()));
            let wrong: Vec<_> =
                paths.into_iter().filter(|path| ones.get(*path) != others.get(*path)).collect();
            let wrong = wrong.iter().take(10).map(|path| (path, shown(&ones, path), shown(&others, path)));
            panic!("they differ: {:?}; {}", wrong.collect::<Vec<_>>(), one.status()["share"]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until a share has nothing left to do.
#[track_caller]
pub fn await_in_step(device: &Device) {
    wait_until("the folder is in step", || device.status()["share"]["in_step"] == true);
}

#[track_caller]
fn await_gone(device: &Device, inside: &str) {
    wait_until(&format!("{inside} is gone"), || device.path(inside).symlink_metadata().is_err());
}

#[track_caller]
fn await_mode(device: &Device, inside: &str, mode: u32) {
    wait_until(&format!("{inside} has mode {mode:o}"), || {
        device.path(inside).symlink_metadata().is_ok_and(|meta| meta.mode() & 0o7777 == mode)
    });
}

/// Does every kind of change at one device and sees it at the other.
fn every_change_arrives(from: &Device, to: &Device, prefix: &str) {
    let name = |rest: &str| format!("{prefix}{rest}");
    let at = |rest: &str| from.path(&name(rest));
    from.write(&name("file"), b"first");
    to.awaits(&name("file"), b"first");
    from.write(&name("file"), b"second, longer");
    to.awaits(&name("file"), b"second, longer");
    from.write(&name("file"), b"short");
    to.awaits(&name("file"), b"short");
    // As editors save.
    from.write(&name("file.new"), b"replaced");
    rename(at("file.new"), at("file")).unwrap();
    to.awaits(&name("file"), b"replaced");
    await_gone(to, &name("file.new"));
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    std::fs::File::options().write(true).open(at("file")).unwrap().set_modified(old).unwrap();
    wait_until("the time has come over", || {
        to.path(&name("file")).metadata().is_ok_and(|meta| meta.modified().unwrap() == old)
    });
    set_permissions(at("file"), PermissionsExt::from_mode(0o600)).unwrap();
    await_mode(to, &name("file"), 0o600);
    rustix::fs::setxattr(at("file"), "user.colour", b"green", XattrFlags::empty()).unwrap();
    wait_until("the attribute has come over", || {
        let mut value = [0; 16];
        rustix::fs::getxattr(to.path(&name("file")), "user.colour", &mut value[..])
            .is_ok_and(|count| &value[..count] == b"green")
    });
    rename(at("file"), at("moved")).unwrap();
    to.awaits(&name("moved"), b"replaced");
    await_gone(to, &name("file"));
    create_dir(at("directory")).unwrap();
    create_dir(at("directory/empty")).unwrap();
    wait_until("the empty directory has come over", || to.path(&name("directory/empty")).is_dir());
    rename(at("moved"), at("directory/inside")).unwrap();
    to.awaits(&name("directory/inside"), b"replaced");
    rename(at("directory"), at("renamed")).unwrap();
    to.awaits(&name("renamed/inside"), b"replaced");
    await_gone(to, &name("directory"));
    set_permissions(at("renamed"), PermissionsExt::from_mode(0o750)).unwrap();
    await_mode(to, &name("renamed"), 0o750);
    symlink("renamed/inside", at("link")).unwrap();
    wait_until("the link has come over", || {
        read_link(to.path(&name("link"))).is_ok_and(|target| target == Path::new("renamed/inside"))
    });
    remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    wait_until("the other link has come over", || {
        read_link(to.path(&name("link"))).is_ok_and(|target| target == Path::new("elsewhere"))
    });
    remove_file(at("link")).unwrap();
    from.write(&name("link"), b"a file now");
    to.awaits(&name("link"), b"a file now");
    remove_file(at("link")).unwrap();
    await_gone(to, &name("link"));
    std::fs::remove_dir_all(at("renamed")).unwrap();
    await_gone(to, &name("renamed"));
}

#[test]
fn every_change_goes_over_both_ways() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    every_change_arrives(&a, &b, "from a ");
    every_change_arrives(&b, &a, "from b ");
    await_same(&a, &b);
    let status = a.status();
    assert_eq!(status["shared_at"], a.mount.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(status["conflicts"].as_array().unwrap().len(), 0, "{status}");
    assert_eq!(status["share"]["failing"].as_array().unwrap().len(), 0, "{status}");
    assert!(a.ok(&["status", NAME]).contains("shared with"));
    a.unshare();
}

#[test]
fn a_source_tree_and_a_clone_arrive_as_they_are() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    create_dir(a.path("tree")).unwrap();
    source_tree(&a.path("tree"));
    let origin = world.place("origin");
    for index in 0..40 {
        std::fs::write(origin.join(format!("file{index}")), format!("content {index}\n").repeat(index))
            .unwrap();
    }
    run("git", &["init", "-q", "."], &origin);
    run("git", &["add", "."], &origin);
    run("git", &["commit", "-q", "-m", "all"], &origin);
    run("git", &["clone", "-q", "--no-hardlinks", origin.to_str().unwrap(), "clone"], &a.mount);
    await_same(&a, &b);
    run("diff", &["-r", "--no-dereference", &format!("{}/clone", a.mount.display()), "clone"], &b.mount);
    run("git", &["-C", "clone", "fsck", "--strict"], &b.mount);
    // Times of files come over to the nanosecond.
    for (path, meta) in [("tree/dangling", false), ("clone/file7", true)] {
        let [one, other] = [&a, &b].map(|device| device.path(path).symlink_metadata().unwrap());
        assert!(!meta || one.mtime_nsec() == other.mtime_nsec() && one.mtime() == other.mtime(), "{path}");
    }
    await_in_step(&a);
}

#[test]
fn a_storm_goes_over_both_ways_and_two_shares_agree() {
    let world = World::new();
    let a = world.device("a");
    a.create();
    a.share(&[]);
    let b = world.device("b");
    b.join(&a.link("write"));
    b.share(&[]);
    for device in [&a, &b] {
        let label = if std::ptr::eq(device, &a) { "a" } else { "b" };
        create_dir(device.path(label)).unwrap();
        for index in 0..500 {
            device.write(&format!("{label}/{index}"), format!("{label} {index}").as_bytes());
        }
    }
    await_same(&a, &b);
    for index in 0..500 {
        match index % 3 {
            0 => remove_file(a.path(&format!("b/{index}"))).unwrap(),
            1 => rename(a.path(&format!("b/{index}")), a.path(&format!("a/moved {index}"))).unwrap(),
            _ => b.write(&format!("a/{index}"), b"edited by b"),
        }
    }
    wait_until("the edits arrive", || {
        a.path("a/2").metadata().is_ok_and(|meta| meta.len() == 11)
            && a.path("a/497").metadata().is_ok_and(|meta| meta.len() == 11)
            && b.path("a/moved 499").exists()
            && !b.path("b/498").exists()
    });
    await_same(&a, &b);
    assert_eq!(seen(&a.mount).len(), 2 + 500 + 500 - 167);
}

#[test]
fn hard_links_stay_one_file() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    a.write("one", b"together");
    b.awaits("one", b"together");
    hard_link(a.path("one"), a.path("two")).unwrap();
    b.awaits("two", b"together");
    wait_until("they are one file there", || {
        b.path("one").metadata().unwrap().ino() == b.path("two").metadata().unwrap().ino()
    });
    await_in_step(&a);
    b.write("two", b"changed together");
    a.awaits("one", b"changed together");
    a.awaits("two", b"changed together");
    wait_until("they are one file here", || {
        a.path("one").metadata().unwrap().ino() == a.path("two").metadata().unwrap().ino()
    });
}

#[test]
fn a_small_edit_of_a_large_file_stays_small() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    let mut content = super::harness::Dice::new(5).bytes(24 << 20);
    a.write("large", &content);
    b.awaits("large", &content);
    rename(a.path("large"), a.path("renamed")).unwrap();
    b.awaits("renamed", &content);
    a.sync();
    let before = a.status()["counters"]["bytes_hashed"].as_u64().unwrap();
    content[20 << 20] ^= 0xff;
    // In place: a file that is emptied and written anew may be seen, and told, half written.
    let edited = std::fs::OpenOptions::new().write(true).open(a.path("renamed")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&edited, &content[20 << 20..][..1], 20 << 20).unwrap();
    drop(edited);
    b.awaits("renamed", &content);
    rename(a.path("renamed"), a.path("again")).unwrap();
    b.awaits("again", &content);
    a.sync();
    let hashed = a.status()["counters"]["bytes_hashed"].as_u64().unwrap() - before;
    assert!(hashed < 4 << 20, "{hashed} bytes were made anew");
}

#[test]
fn what_is_ignored_stays_on_its_side() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    a.write(".kilofsignore", b"*.o\n/build/\n");
    b.awaits(".kilofsignore", b"*.o\n/build/\n");
    create_dir(a.path("build")).unwrap();
    a.write("build/output", b"not shared");
    a.write("object.o", b"not shared");
    create_dir(a.path("source")).unwrap();
    a.write("source/object.o", b"not shared");
    a.write("source/text", b"shared");
    b.awaits("source/text", b"shared");
    b.write("theirs.o", b"stays there");
    b.write("seen", b"last");
    a.awaits("seen", b"last");
    await_in_step(&a);
    assert!(!b.path("object.o").exists() && !b.path("build").exists() && !b.path("source/object.o").exists());
    assert!(!a.path("theirs.o").exists());
    // A directory that is removed elsewhere stays for what is ignored in it, and does not come back there.
    remove_file(b.path("source/text")).unwrap();
    remove_dir(b.path("source")).unwrap();
    await_gone(&a, "source/text");
    a.write("later", b"more");
    b.awaits("later", b"more");
    a.unshare();
    a.share(&["--gitignore"]);
    a.write(".gitignore", b"*.git-ignored\n");
    b.awaits(".gitignore", b"*.git-ignored\n");
    a.write("x.git-ignored", b"not shared");
    a.write("last", b"last");
    b.awaits("last", b"last");
    await_in_step(&a);
    assert!(!b.path("x.git-ignored").exists());
    assert_eq!(std::fs::read(a.path("source/object.o")).unwrap(), b"not shared");
    assert!(!b.path("source").exists());
    // Once it is ignored no more, it goes over.
    a.write(".kilofsignore", b"/build/\n");
    b.awaits("source/object.o", b"not shared");
    a.awaits("theirs.o", b"stays there");
}

#[test]
fn a_file_that_is_saved_in_the_folder_is_not_told_empty() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    a.write("text", b"the first");
    b.awaits("text", b"the first");
    let mut counted = 0;
    for round in 0.. {
        let content = format!("round {round}");
        let name = if round % 2 == 0 { "text" } else { &format!("new{round}") };
        let seen = seen_empty(&b, name, content.as_bytes(), || save_slowly(&a, name, content.as_bytes()));
        counted += usize::from(seen.is_some());
        assert_ne!(seen, Some(true), "round {round}: {name} was seen empty");
        if counted == 4 {
            break;
        }
    }
    // Closed, or empty for long, it is meant to be empty.
    a.write("closed", b"");
    let _open = std::fs::File::create(a.path("text")).unwrap();
    b.awaits("closed", b"");
    b.awaits("text", b"");
    await_same(&a, &b);
}
