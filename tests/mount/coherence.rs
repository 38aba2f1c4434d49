//! What was changed elsewhere is seen here at once, whatever the kernel has cached.

use super::mapping::Mapping;
use super::world::{SOON, World, find, make, overwrite};
use kilofs::tree::{Changes, Owner, RenameFlags, SetAttr};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn whole(file: &File) -> Vec<u8> {
    let mut data = vec![0; 1 << 16];
    let bytes = file.read_at(&mut data, 0).unwrap();
    data.truncate(bytes);
    data
}

#[test]
fn grown_shrunk_and_same_size() {
    let Some(world) = World::new() else { return };
    let old = vec![b'a'; 4096];
    for (name, bytes) in
        [("same", 4096), ("grown", 6000), ("shrunk", 1000), ("emptied", 0), ("large", 70_000)]
    {
        let path = world.path(name);
        fs::write(&path, &old).unwrap();
        let held = File::open(&path).unwrap();
        assert_eq!(whole(&held), old);
        let before = fs::metadata(&path).unwrap();
        let new = vec![b'b'; bytes];
        world.remote(|tree| overwrite(tree, name, &new));
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.size(), bytes as u64, "{name}");
        assert_ne!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()), "{name}");
        assert_eq!(after.ino(), before.ino());
        assert_eq!(whole(&held), new[..bytes.min(1 << 16)], "{name}, held");
        assert_eq!(held.metadata().unwrap().size(), bytes as u64, "{name}, held");
        assert_eq!(fs::read(&path).unwrap(), new, "{name}");
    }
}

#[test]
fn a_reader_that_holds_the_file_reads_on() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("log"), "one\n").unwrap();
    let mut tail = File::open(world.path("log")).unwrap();
    let mut text = String::new();
    tail.read_to_string(&mut text).unwrap();
    world.remote(|tree| overwrite(tree, "log", b"one\ntwo\n"));
    tail.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn who_appends_appends_at_the_real_end() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("log"), "here 1\n").unwrap();
    let mut log = OpenOptions::new().append(true).open(world.path("log")).unwrap();
    world.remote(|tree| overwrite(tree, "log", b"here 1\nelsewhere\n"));
    log.write_all(b"here 2\n").unwrap();
    assert!(world.mounted().settle(SOON));
    assert_eq!(world.stored("log"), b"here 1\nelsewhere\nhere 2\n");
    assert_eq!(fs::read(world.path("log")).unwrap(), b"here 1\nelsewhere\nhere 2\n");
    world.remote(|tree| overwrite(tree, "log", b"-\n"));
    log.write_all(b"here 3\n").unwrap();
    assert!(world.mounted().settle(SOON));
    assert_eq!(fs::read(world.path("log")).unwrap(), b"-\nhere 3\n");
    log.write_all(b"here 4\n").unwrap();
    assert_eq!(fs::read(world.path("log")).unwrap(), b"-\nhere 3\nhere 4\n");
}

#[test]
fn names_that_came_went_and_moved() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.path("dir/deep")).unwrap();
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("dir/old"), "old").unwrap();
    fs::write(world.path("dir/moved"), "moved").unwrap();
    let dir = world.path("dir");
    for _ in 0..2 {
        assert_eq!(listing(&dir), ["deep", "moved", "old"]);
        assert!(!world.path("dir/new").exists(), "the kernel notes that it is absent");
        assert!(!world.path("other/moved").exists());
    }
    let held = File::open(world.path("dir/old")).unwrap();
    world.remote(|tree| {
        make(tree, "dir", "new", b"new");
        tree.unlink(find(tree, "dir"), b"old").unwrap();
        tree.rename(find(tree, "dir"), b"moved", find(tree, "other"), b"moved", RenameFlags::Replace)
            .unwrap();
        tree.rename(find(tree, "dir"), b"deep", find(tree, ""), b"risen", RenameFlags::Replace).unwrap();
    });
    assert_eq!(listing(&dir), ["new"]);
    assert_eq!(fs::read(world.path("dir/new")).unwrap(), b"new");
    assert!(
        !world.path("dir/old").exists()
            && !world.path("dir/moved").exists()
            && !world.path("dir/deep").exists()
    );
    assert_eq!(fs::read(world.path("other/moved")).unwrap(), b"moved");
    assert_eq!(listing(&world.path("other")), ["moved"]);
    assert_eq!(listing(&world.path("")), ["dir", "other", "risen"]);
    assert_eq!(fs::metadata(&dir).unwrap().nlink(), 2);
    assert_eq!(whole(&held), b"old", "who holds a file keeps it");
}

#[test]
fn a_directory_that_is_held_lists_what_is_there() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("dir")).unwrap();
    fs::write(world.path("dir/a"), "").unwrap();
    let dir = File::open(world.path("dir")).unwrap();
    let list = || {
        let mut entries = rustix::fs::Dir::read_from(&dir).unwrap();
        entries.rewind();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    };
    assert_eq!(list(), ["a"]);
    assert_eq!(list(), ["a"]);
    world.remote(|tree| make(tree, "dir", "b", b""));
    assert_eq!(list(), ["a", "b"]);
    world.remote(|tree| tree.unlink(find(tree, "dir"), b"a").unwrap());
    assert_eq!(list(), ["b"]);
}

#[test]
fn who_works_in_a_directory_stays_there() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.path("dir/below")).unwrap();
    let there = world.path("dir/below");
    // A shell whose working directory is in the mount, asked again after each change elsewhere.
    let mut shell = std::process::Command::new("sh")
        .current_dir(&there)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
    let mut ask = || {
        writeln!(input, "readlink /proc/self/cwd; ls | tr '\\n' ' '; echo").unwrap();
        let (mut path, mut listed) = (String::new(), String::new());
        output.read_line(&mut path).unwrap();
        output.read_line(&mut listed).unwrap();
        (path.trim().to_owned(), listed.trim().to_owned())
    };
    let path = there.canonicalize().unwrap().to_str().unwrap().to_owned();
    assert_eq!(ask(), (path.clone(), String::new()));
    world.remote(|tree| {
        make(tree, "dir/below", "file", b"");
        make(tree, "dir", "other", b"");
        let change = SetAttr { mode: Some(0o700), ..SetAttr::default() };
        tree.set_attr(find(tree, "dir"), change).unwrap();
        tree.set_attr(find(tree, "dir/below"), change).unwrap();
    });
    assert_eq!(ask(), (path.clone(), "file".into()));
    world.edited(|tree| make(tree, "dir/below", "second", b""));
    world.mounted().notify(Changes { too_many: true, ..Changes::default() });
    assert!(world.mounted().settle(SOON));
    assert_eq!(ask(), (path, "file second".into()));
    drop(input);
    shell.wait().unwrap();
}

#[test]
fn saved_by_an_editor_elsewhere() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("text"), "version 1").unwrap();
    fs::hard_link(world.path("text"), world.path("hard")).unwrap();
    symlink("text", world.path("soft")).unwrap();
    let old = fs::metadata(world.path("text")).unwrap().ino();
    assert_eq!(fs::read(world.path("soft")).unwrap(), b"version 1");
    world.remote(|tree| {
        make(tree, "", "text.tmp", b"version 2");
        tree.rename(find(tree, ""), b"text.tmp", find(tree, ""), b"text", RenameFlags::Replace).unwrap();
        tree.unlink(find(tree, ""), b"soft").unwrap();
        tree.make_symlink(find(tree, ""), b"soft", b"hard", Owner::default()).unwrap();
    });
    assert_eq!(fs::read(world.path("text")).unwrap(), b"version 2");
    assert_ne!(fs::metadata(world.path("text")).unwrap().ino(), old);
    assert_eq!(fs::read(world.path("soft")).unwrap(), b"version 1");
    let hard = fs::metadata(world.path("hard")).unwrap();
    assert_eq!((hard.ino(), hard.nlink()), (old, 1));
}

#[test]
fn modes_and_owners() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("file"), "x").unwrap();
    fs::create_dir(world.path("dir")).unwrap();
    assert_eq!(fs::metadata(world.path("dir")).unwrap().mode() & 0o777, 0o755);
    world.remote(|tree| {
        let change = SetAttr { mode: Some(0o600), uid: Some(7), ..SetAttr::default() };
        tree.set_attr(find(tree, "file"), change).unwrap();
        tree.set_attr(find(tree, "dir"), change).unwrap();
    });
    for name in ["file", "dir"] {
        let meta = fs::metadata(world.path(name)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid()), (0o600, 7), "{name}");
    }
}

#[test]
fn mappings_show_what_came_and_give_what_was_changed() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("mapped"), vec![b'a'; 8192]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(world.path("mapped")).unwrap();
    let mapping = Mapping::new(&file, 8192);
    assert_eq!(mapping.get(4096), b'a');
    world.remote(|tree| tree.write(find(tree, "mapped"), 4096, b"b").unwrap());
    assert_eq!(mapping.get(4096), b'b');
    // A page that was changed through the mapping reaches the tree before an adoption when it is pulled.
    mapping.set(10, b'!');
    assert_eq!(world.stored("mapped")[10], b'a');
    assert!(world.mounted().pull_mapped_pages(SOON));
    assert_eq!(world.stored("mapped")[10], b'!');
    mapping.set(11, b'?');
    assert!(world.mounted().pull_mapped_pages(SOON));
    assert_eq!(&world.stored("mapped")[10..13], b"!?a");
    assert_eq!(mapping.get(10), b'!');
}

#[test]
fn when_too_much_changed_everything_is_looked_up_anew() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.path("a/b")).unwrap();
    fs::write(world.path("a/b/file"), "old").unwrap();
    fs::write(world.path("a/b/gone"), "gone").unwrap();
    let held = File::open(world.path("a/b/file")).unwrap();
    assert_eq!(listing(&world.path("a/b")), ["file", "gone"]);
    assert!(!world.path("a/b/new").exists() && !world.path("top").exists());
    world.edited(|tree| {
        overwrite(tree, "a/b/file", b"newer");
        make(tree, "a/b", "new", b"new");
        make(tree, "", "top", b"top");
        tree.unlink(find(tree, "a/b"), b"gone").unwrap();
    });
    world.mounted().notify(Changes { too_many: true, ..Changes::default() });
    assert!(world.mounted().settle(SOON));
    assert_eq!(listing(&world.path("a/b")), ["file", "new"]);
    assert_eq!(fs::read(world.path("a/b/file")).unwrap(), b"newer");
    assert_eq!(whole(&held), b"newer");
    assert!(!world.path("a/b/gone").exists());
    assert_eq!(fs::read(world.path("a/b/new")).unwrap(), b"new");
    assert_eq!(fs::read(world.path("top")).unwrap(), b"top");
}

#[test]
fn a_policy_takes_effect_without_a_new_mount() {
    let Some(world) = World::with("allow_other") else { return };
    let path = world.path("file");
    fs::write(&path, "x").unwrap();
    let mut held = OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    world.set_writable(false);
    let refused =
        |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444, "write bits are masked");
    assert_eq!(fs::metadata(world.path("")).unwrap().mode() & 0o777, 0o555);
    refused(held.write_all(b"y"));
    refused(fs::write(&path, "y"));
    refused(fs::write(world.path("new"), "y"));
    refused(fs::create_dir(world.path("dir")));
    refused(fs::remove_file(&path));
    refused(fs::rename(&path, world.path("other")));
    refused(fs::hard_link(&path, world.path("other")));
    refused(symlink("file", world.path("other")));
    refused(OpenOptions::new().write(true).open(&path).map(drop));
    refused(OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&path).map(drop));
    refused(held.set_len(0));
    refused(std::os::unix::fs::chown(&path, Some(1), None));
    let set = rustix::fs::setxattr(&path, "user.x", b"", rustix::fs::XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    assert!(!world.as_nobody("printf x >> \"$FILE\"", &path));
    assert_eq!(fs::read(&path).unwrap(), b"x");
    world.set_writable(true);
    held.write_all(b"y").unwrap();
    fs::write(world.path("new"), "y").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"xy");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
}

/// Ends the readers, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_adopted_is_seen_at_once_also_under_load() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("file"), "0").unwrap();
    let stopped = AtomicBool::new(false);
    let read_on = || {
        let mut held = File::open(world.path("file")).unwrap();
        while !stopped.load(Ordering::Relaxed) {
            fs::metadata(world.path("file")).unwrap();
            fs::read(world.path("file")).unwrap();
            let _ = fs::metadata(world.path("absent"));
            held.rewind().unwrap();
            held.read_to_end(&mut Vec::new()).unwrap();
            listing(&world.path(""));
        }
    };
    std::thread::scope(|scope| {
        let _stop = Stop(&stopped);
        scope.spawn(read_on);
        scope.spawn(read_on);
        for round in 1..200u32 {
            let text = "x".repeat(round as usize * 31 % 5000 + 1);
            let name = format!("name-{round}");
            world.remote(|tree| {
                overwrite(tree, "file", text.as_bytes());
                make(tree, "", &name, b"");
            });
            // While the answer to another thread is taken in, the kernel calls the size valid an instant before it is.
            let size = || fs::metadata(world.path("file")).unwrap().size();
            assert!((0..2).any(|_| size() == text.len() as u64), "round {round}");
            assert_eq!(fs::read(world.path("file")).unwrap(), text.as_bytes(), "round {round}");
            assert!(listing(&world.path("")).contains(&name), "round {round}");
        }
    });
}
