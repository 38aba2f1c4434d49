//! A plain folder that is kept in step: what must not be lost, whatever happens to it, to its disk and to its engine.

use super::harness::{Device, Dice, NAME, World};
use super::process::{run, wait_until};
use super::share::{await_in_step, await_same, look, seen, shared_and_mounted};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{create_dir, read, remove_file, rename, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The contents below a directory, conflict copies included.
fn contents(root: &Path) -> Vec<Vec<u8>> {
    seen(root).into_values().map(|(_, content)| content).collect()
}

#[track_caller]
fn assert_holds(root: &Path, content: &[u8]) {
    let shown = String::from_utf8_lossy(content);
    assert!(contents(root).iter().any(|found| found == content), "{shown} is nowhere in {}", root.display());
}

#[test]
fn edits_on_both_sides_while_apart_are_both_kept() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    for name in ["edited", "removed here", "removed there", "same"] {
        a.write(name, b"before");
        b.awaits(name, b"before");
    }
    a.unshare();
    a.write("edited", b"by a");
    b.write("edited", b"by b");
    remove_file(a.path("removed here")).unwrap();
    b.write("removed here", b"edited by b");
    a.write("removed there", b"edited by a");
    remove_file(b.path("removed there")).unwrap();
    a.write("same", b"the same edit");
    b.write("same", b"the same edit");
    a.write("new", b"made by a");
    b.write("new", b"made by b");
    b.sync();
    a.share(&[]);
    wait_until("what was removed on one side and edited on the other is there", || {
        read(a.path("removed here")).is_ok_and(|found| found == b"edited by b")
            && read(b.path("removed there")).is_ok_and(|found| found == b"edited by a")
    });
    wait_until("both edits are on both sides", || {
        [&a, &b].iter().all(|device| {
            let all = contents(&device.mount);
            [&b"by a"[..], b"by b", b"made by a", b"made by b"]
                .iter()
                .all(|wanted| all.iter().any(|found| found == wanted))
        })
    });
    await_in_step(&a);
    await_same(&a, &b);
    let conflicts = contents(&a.mount).iter().filter(|found| *found == b"the same edit").count();
    assert_eq!(conflicts, 1, "an edit that both made is no conflict");
    wait_until("the conflict copies are listed", || a.status()["conflicts"].as_array().unwrap().len() == 2);
}

#[test]
fn what_changed_while_it_did_not_run_is_found() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    create_dir(a.path("directory")).unwrap();
    for index in 0..30 {
        a.write(&format!("directory/{index}"), format!("content {index}").as_bytes());
    }
    b.awaits("directory/29", b"content 29");
    await_in_step(&a);
    let inode = |device: &Device, path: &str| {
        std::os::unix::fs::MetadataExt::ino(&device.path(path).metadata().unwrap())
    };
    let numbers = [inode(&b, "directory/0"), inode(&b, "directory/1")];
    a.unshare();
    rename(a.path("directory/0"), a.path("renamed")).unwrap();
    remove_file(a.path("directory/2")).unwrap();
    a.write("directory/3", b"edited");
    a.write("made", b"new");
    rename(a.path("directory"), a.path("elsewhere")).unwrap();
    remove_file(b.path("directory/4")).unwrap();
    b.write("directory/5", b"edited there");
    b.sync();
    a.share(&[]);
    b.awaits("elsewhere/3", b"edited");
    await_in_step(&a);
    await_same(&a, &b);
    assert_eq!(numbers, [inode(&b, "renamed"), inode(&b, "elsewhere/1")], "a rename stays a rename");
    assert!(
        !a.path("elsewhere/2").exists() && !a.path("elsewhere/4").exists() && !a.path("directory").exists()
    );
    a.awaits("elsewhere/5", b"edited there");
}

#[test]
fn killed_at_any_time_it_catches_up() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    let mut dice = Dice::new(11);
    let mut large = Vec::new();
    for round in 0..6 {
        let (here, there) = (format!("here{round}"), format!("there{round}"));
        create_dir(a.path(&here)).unwrap();
        create_dir(b.path(&there)).unwrap();
        for index in 0..60 {
            let bytes = dice.below(60_000) as usize;
            a.write(&format!("{here}/{index}"), &dice.bytes(bytes));
            b.write(&format!("{there}/{index}"), &dice.bytes(bytes));
        }
        large = dice.bytes(12 << 20);
        a.write("large", &large);
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        a.kill9();
        a.write(&format!("{here}/after"), b"written while nobody looked");
        let base = a.home.join(format!("databases/{NAME}/share"));
        if round == 3 {
            // What can be rebuilt is rebuilt.
            _ = remove_file(base);
        }
        a.share(&[]);
    }
    b.awaits("here5/after", b"written while nobody looked");
    await_in_step(&a);
    await_same(&a, &b);
    assert!(contents(&b.mount).contains(&large), "what was written last is nowhere");
    for round in 0..6 {
        for index in 0..60 {
            assert!(a.path(&format!("there{round}/{index}")).exists(), "there{round}/{index}");
            assert!(b.path(&format!("here{round}/{index}")).exists(), "here{round}/{index}");
        }
    }
}

#[test]
fn an_empty_directory_in_the_folders_place_removes_nothing() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    for index in 0..40 {
        a.write(&format!("file{index}"), b"precious");
    }
    b.awaits("file39", b"precious");
    await_in_step(&a);
    // While it runs.
    let aside = a.mount.with_extension("aside");
    rename(&a.mount, &aside).unwrap();
    create_dir(&a.mount).unwrap();
    wait_until("it halts", || a.status()["share"]["halted"].is_string());
    b.write("meanwhile", b"waits");
    a.sync();
    assert!(
        std::fs::read_dir(&a.mount).unwrap().next().is_none(),
        "nothing is written to what is not the folder"
    );
    std::fs::remove_dir(&a.mount).unwrap();
    rename(&aside, &a.mount).unwrap();
    a.awaits("meanwhile", b"waits");
    a.unshare();
    // At the start.
    rename(&a.mount, &aside).unwrap();
    create_dir(&a.mount).unwrap();
    let directory = a.mount.to_str().unwrap();
    let refused = a.kilofs(&["share", NAME, directory]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("is its disk mounted?"), "{refused:?}");
    let inside = a.kilofs(&["share", NAME, a.home.parent().unwrap().to_str().unwrap()]);
    assert!(inside.code == Some(2) && inside.err.contains("share itself"), "{inside:?}");
    // Emptied, but for its marker.
    std::fs::remove_dir(&a.mount).unwrap();
    rename(&aside, &a.mount).unwrap();
    for index in 0..40 {
        remove_file(a.path(&format!("file{index}"))).unwrap();
    }
    let refused = a.kilofs(&["share", NAME, directory]);
    assert!(refused.err.contains("are missing"), "{refused:?}");
    for index in 0..40 {
        assert_eq!(read(b.path(&format!("file{index}"))).unwrap(), b"precious");
    }
    a.share(&["--afresh"]);
    a.awaits("file39", b"precious");
    await_in_step(&a);
    a.unshare();
    for index in 0..40 {
        remove_file(a.path(&format!("file{index}"))).unwrap();
    }
    a.share(&["--accept-removals"]);
    wait_until("they are removed there", || !b.path("file0").exists() && !b.path("file39").exists());
}

#[test]
fn nothing_is_written_through_a_link() {
    let world = World::new();
    let (a, b) = shared_and_mounted(&world);
    let outside = world.place("outside");
    create_dir(b.path("trap")).unwrap();
    b.write("trap/file", b"inside");
    a.awaits("trap/file", b"inside");
    // A directory becomes a link that leads out, here and, at another time, there.
    rename(a.path("trap"), a.path("was trap")).unwrap();
    symlink(&outside, a.path("trap")).unwrap();
    b.write("trap/file", b"edited");
    _ = create_dir(b.path("trap2"));
    b.write("trap2/file", b"inside");
    wait_until("both are in step again", || {
        let (ones, others) = (look(&a.mount), look(&b.mount));
        a.status()["share"]["in_step"] == true && ones.is_ok() && ones.ok() == others.ok()
    });
    std::fs::remove_dir_all(b.path("trap2")).unwrap();
    symlink(&outside, b.path("trap2")).unwrap();
    wait_until("the link arrives", || a.path("trap2").is_symlink());
    remove_file(b.path("trap2")).unwrap();
    create_dir(b.path("trap2")).unwrap();
    b.write("trap2/file", b"a directory again");
    a.awaits("trap2/file", b"a directory again");
    assert!(std::fs::read_dir(&outside).unwrap().next().is_none(), "something was written outside");
    assert_holds(&a.mount, b"edited");
}

#[test]
fn what_the_policy_forbids_is_set_aside() {
    let world = World::new();
    let a = world.creator("a");
    a.ok(&["block", NAME, "add", "/rules"]);
    a.write("rules/text", b"the rule");
    a.ok(&["policy", NAME, "set", "/rules", "ro"]);
    a.sync();
    let b = world.device("b");
    b.join(&a.link("write"));
    b.share(&[]);
    b.awaits("rules/text", b"the rule");
    await_in_step(&b);
    let text = b.path("rules/text");
    std::fs::set_permissions(&text, PermissionsExt::from_mode(0o644)).unwrap();
    write(&text, b"bent").unwrap();
    write(b.path("rules/more"), b"invented").unwrap();
    wait_until("the rule is as it was", || {
        read(&text).is_ok_and(|found| found == b"the rule") && !b.path("rules/more").exists()
    });
    remove_file(&text).unwrap();
    b.awaits("rules/text", b"the rule");
    await_in_step(&b);
    let refused = b.path(".kilofs-share/refused");
    let all = run("grep", &["-rh", "."], &refused);
    assert!(all.contains("bent") && all.contains("invented"), "{all}");
    assert!(b.status()["share"]["refused"].as_array().unwrap().len() >= 2);
    assert_eq!(read(a.path("rules/text")).unwrap(), b"the rule");
    // Whoever may only read shares too.
    let c = world.device("c");
    c.join(&a.link("read"));
    c.share(&[]);
    c.awaits("rules/text", b"the rule");
    c.write("own", b"not published");
    wait_until("it is set aside", || c.path(".kilofs-share/refused/own").exists());
    a.write("news", b"still arrive");
    c.awaits("news", b"still arrive");
}

/// A small file system of memory on a directory, for as long as it lives.
struct Small(PathBuf);

impl Small {
    fn on(directory: &Path) -> Small {
        mount("tmpfs", directory, "tmpfs", MountFlags::empty(), c"size=4m")
            .expect("tests of a full disk need root");
        Small(directory.to_path_buf())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_holds_up_only_what_does_not_fit() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.device("b");
    let _small = Small::on(&b.mount);
    b.join(&a.link("write"));
    b.share(&[]);
    a.write("too large", &vec![7; 6 << 20]);
    a.write("small", b"fits");
    b.awaits("small", b"fits");
    wait_until("it says what is wrong", || {
        let share = b.status()["share"].clone();
        share["failing"][0]["path"] == "too large" && share["in_step"] == false
    });
    b.write("mine", b"goes over all the same");
    a.awaits("mine", b"goes over all the same");
    assert_eq!(read(a.path("too large")).unwrap().len(), 6 << 20);
    a.write("too large", &vec![8; 1 << 20]);
    b.awaits("too large", &vec![8; 1 << 20]);
    await_in_step(&b);
}
