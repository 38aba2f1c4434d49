//! Blocks that only grow: drop boxes, logs, ledgers.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::{run, wait_until};
use super::trees::assert_equal;
use std::fs::{
    File, OpenOptions, create_dir, create_dir_all, hard_link, remove_dir, remove_file, rename,
    set_permissions,
};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const EPERM: Option<i32> = Some(1);

fn drop_box(world: &World, mode: &str) -> Device {
    let a = world.creator("a");
    let added = a.json(&["block", NAME, "add", "/box", "--mode", mode]);
    assert_eq!(added["mode"], mode);
    a.write("elsewhere", b"anybody may change this");
    a.sync();
    a
}

/// Nothing of what is whole in `box` can be changed: a file `text`, a directory `sub` and a link `link`.
#[track_caller]
fn assert_fixed(device: &Device) {
    let inside = |name: &str| device.path(&format!("box/{name}"));
    let refused = |what: &str, done: std::io::Result<()>| {
        assert_eq!(done.expect_err(what).raw_os_error(), EPERM, "{what}");
    };
    let open = |options: &mut OpenOptions| options.open(inside("text")).map(drop);
    refused("overwrite", open(OpenOptions::new().write(true)));
    refused("truncate", open(OpenOptions::new().write(true).truncate(true)));
    refused("append", open(OpenOptions::new().append(true)));
    refused("read and write", open(OpenOptions::new().read(true).write(true)));
    refused("remove", remove_file(inside("text")));
    refused("remove a link", remove_file(inside("link")));
    refused("rename", rename(inside("text"), inside("other")));
    refused("rename a directory", rename(inside("sub"), inside("other")));
    refused("remove a directory", remove_dir(inside("sub")));
    refused("another name", hard_link(inside("text"), inside("other")));
    refused("chmod", set_permissions(inside("text"), PermissionsExt::from_mode(0o600)));
    refused("chmod of a directory", set_permissions(inside("sub"), PermissionsExt::from_mode(0o700)));
    let times = std::fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    refused("utimens", File::open(inside("text")).and_then(|file| file.set_times(times)));
    let flags = rustix::fs::XattrFlags::empty();
    refused("setxattr", rustix::fs::setxattr(inside("text"), "user.x", b"y", flags).map_err(Into::into));
    let beside = inside(".beside");
    std::fs::write(&beside, b"saved").unwrap();
    refused("save by rename", rename(&beside, inside("text")));
    remove_file(&beside).unwrap();
}

#[test]
fn what_is_whole_stays_and_anybody_adds() {
    let world = World::new();
    let a = drop_box(&world, "append");
    let b = world.joined("b", &a, "write");
    wait_until("b has the block", || b.status()["blocks"][1]["writable"] == true);
    // Until it is whole, a file is its writer's own.
    b.write("box/.text.tmp", b"half");
    b.write("box/.text.tmp", b"written by b");
    rename(b.path("box/.text.tmp"), b.path("box/text")).unwrap();
    set_permissions(b.path("box/text"), PermissionsExt::from_mode(0o640)).unwrap();
    create_dir(b.path("box/sub")).unwrap();
    symlink("text", b.path("box/link")).unwrap();
    a.awaits("box/text", b"written by b");
    for device in [&a, &b] {
        wait_until("it is whole", || device.path("box/sub").is_dir() && device.path("box/link").is_symlink());
        device.sync();
        assert_fixed(device);
    }
    let blocks = a.json(&["block", NAME, "list"]);
    assert_eq!((blocks[1]["mode"].as_str(), blocks[1]["writable"].as_bool()), (Some("append"), Some(true)));
    a.write("box/sub/by a", b"added by a");
    b.awaits("box/sub/by a", b"added by a");
    b.write("elsewhere", b"changed by b");
    a.awaits("elsewhere", b"changed by b");
    let c = world.joined("c", &a, "read");
    c.awaits("box/sub/by a", b"added by a");
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert_eq!(device.status()["refused"], serde_json::json!([]));
        device.umount();
        device.ok(&["fsck", NAME]);
    }
    b.mount();
    assert_fixed(&b);
}

/// Directories in directories, files of all sizes, links, attributes, old times.
fn small_tree(root: &Path) {
    let old = std::fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    for directory in ["", "one", "one/deep", "two"] {
        create_dir_all(root.join(directory)).unwrap();
        for (at, bytes) in [0, 10, 5_000, 200_000].into_iter().enumerate() {
            let path = root.join(directory).join(format!("file {at}"));
            std::fs::write(&path, vec![at as u8; bytes]).unwrap();
            set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
            File::options().write(true).open(&path).unwrap().set_times(old).unwrap();
        }
        symlink("file 1", root.join(directory).join("link")).unwrap();
        hard_link(root.join(directory).join("file 2"), root.join(directory).join("again")).unwrap();
    }
    for directory in ["one/deep", "two", "one"] {
        set_permissions(root.join(directory), PermissionsExt::from_mode(0o750)).unwrap();
        File::open(root.join(directory)).unwrap().set_times(old).unwrap();
    }
}

/// What people put into a drop box: a tree by three programs, and a file that is saved again and again.
fn submit(device: &Device, who: &str, source: &Path) {
    let to = |name: &str| device.path(&format!("box/{name}-{who}")).to_str().unwrap().to_owned();
    let from = source.to_str().unwrap();
    run("cp", &["-a", from, &to("copied")], source);
    run("rsync", &["-aHX", "--modify-window=-1", &format!("{from}/"), &to("synced")], source);
    create_dir(to("unpacked")).unwrap();
    let archive = source.parent().unwrap().join(format!("{who}.tar"));
    run("tar", &["--format=posix", "-cf", archive.to_str().unwrap(), "-C", from, "."], source);
    run("tar", &["-xpf", archive.to_str().unwrap(), "-C", &to("unpacked")], source);
    device.write("box/report", format!("the report of {who}").as_bytes());
    for round in 0..5 {
        device.write(&format!("box/.{who}.swp"), format!("round {round} of {who}").as_bytes());
        rename(device.path(&format!("box/.{who}.swp")), device.path(&format!("box/saved-{who}"))).unwrap();
    }
}

fn reports(device: &Device) -> Vec<Vec<u8>> {
    let found = std::fs::read_dir(device.path("box")).unwrap().map(|entry| entry.unwrap().path());
    let is_report = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("report");
    let mut reports: Vec<_> = found.filter(is_report).map(|path| std::fs::read(path).unwrap()).collect();
    reports.sort();
    reports
}

#[test]
fn three_devices_fill_a_drop_box_at_once_and_one_of_them_is_away() {
    let world = World::new();
    let a = drop_box(&world, "append");
    let b = world.joined("b", &a, "write");
    let c = world.joined("c", &a, "write");
    wait_until("c has the block", || c.status()["blocks"][1]["writable"] == true);
    await_agreement(&[&a, &b, &c]);
    c.umount();
    c.mount_with(&["--offline"]);
    let source = world.place("source");
    small_tree(&source);
    let devices = [("a", &a), ("b", &b), ("c", &c)];
    std::thread::scope(|scope| {
        for (who, device) in devices {
            let source = &source;
            scope.spawn(move || submit(device, who, source));
        }
    });
    await_agreement(&[&a, &b]);
    c.umount();
    c.mount();
    await_agreement(&[&a, &b, &c]);
    let all: Vec<Vec<u8>> =
        devices.iter().map(|(who, _)| format!("the report of {who}").into_bytes()).collect();
    for (_, device) in devices {
        assert_eq!(reports(device), all, "each report is kept");
        for (who, _) in devices {
            for how in ["copied", "synced", "unpacked"] {
                assert_equal(&source, &device.path(&format!("box/{how}-{who}")));
            }
            let saved = std::fs::read(device.path(&format!("box/saved-{who}"))).unwrap();
            assert_eq!(saved, format!("round 4 of {who}").as_bytes());
        }
        assert_eq!(device.status()["refused"], serde_json::json!([]), "nobody did anything wrong");
    }
    let seq = a.status()["seq"].clone();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(a.status()["seq"], seq, "nothing goes to and fro");
    for (_, device) in devices {
        device.umount();
        device.ok(&["fsck", NAME]);
    }
}

#[test]
fn a_file_that_stays_open_holds_back_itself_alone_and_outlives_a_kill() {
    let world = World::new();
    let a = drop_box(&world, "append");
    let b = world.joined("b", &a, "write");
    create_dir(a.path("box/day")).unwrap();
    let mut log = File::create(a.path("box/day/log")).unwrap();
    log.write_all(&[b'x'; 3_000_000]).unwrap();
    log.sync_all().unwrap();
    for round in 0..5 {
        a.write(&format!("box/day/beside-{round}"), b"whole");
        b.awaits(&format!("box/day/beside-{round}"), b"whole");
        log.write_all(format!("line {round}\n").as_bytes()).unwrap();
        b.write(&format!("box/day/from-b-{round}"), b"added meanwhile");
        a.awaits(&format!("box/day/from-b-{round}"), b"added meanwhile");
    }
    log.seek(SeekFrom::Start(0)).unwrap();
    log.write_all(b"head").unwrap();
    log.sync_all().unwrap();
    assert!(!b.path("box/day/log").exists(), "it is not whole");
    let c = world.joined("c", &a, "read");
    c.awaits("box/day/from-b-4", b"added meanwhile");
    assert!(!c.path("box/day/log").exists());
    let content = std::fs::read(a.path("box/day/log")).unwrap();
    a.kill9();
    drop(log);
    a.mount();
    a.awaits("box/day/log", &content);
    for other in [&b, &c] {
        other.awaits("box/day/log", &content);
    }
    await_agreement(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        device.umount();
        device.ok(&["fsck", NAME]);
    }
}

#[test]
fn what_was_changed_before_the_block_only_grew_is_set_aside_and_what_was_added_comes() {
    let world = World::new();
    let a = drop_box(&world, "rw");
    a.write("box/text", b"agreed");
    a.write("box/other", b"agreed, too");
    a.sync();
    let b = world.joined("b", &a, "write");
    b.awaits("box/other", b"agreed, too");
    await_agreement(&[&a, &b]);
    b.umount();
    b.mount_with(&["--offline"]);
    b.write("box/text", b"edited by b, away");
    remove_file(b.path("box/other")).unwrap();
    b.write("box/added", b"added by b, away");
    a.json(&["policy", NAME, "set", "/box", "append"]);
    a.sync();
    b.umount();
    b.mount();
    b.awaits("box/text", b"agreed");
    b.awaits("box/other", b"agreed, too");
    a.awaits("box/added", b"added by b, away");
    await_agreement(&[&a, &b]);
    assert_eq!(std::fs::read(b.path(".kilofs/refused/1/text")).unwrap(), b"edited by b, away");
    a.json(&["policy", NAME, "set", "/box", "rw"]);
    a.sync();
    wait_until("b may write again", || std::fs::write(b.path("box/text"), b"changed by b").is_ok());
    a.awaits("box/text", b"changed by b");
    a.json(&["policy", NAME, "set", "/box", "ro"]);
    a.json(&["policy", NAME, "set", "/box", "append"]);
    b.awaits("box/text", b"changed by b");
    wait_until("b may add again", || std::fs::write(b.path("box/more"), b"more").is_ok());
    a.awaits("box/more", b"more");
    await_agreement(&[&a, &b]);
}

#[test]
fn changes_in_a_shared_folder_are_refused_and_the_folder_comes_back_in_step() {
    let world = World::new();
    let a = drop_box(&world, "append");
    a.write("box/text", b"whole");
    a.sync();
    let b = world.device("b");
    b.join(&a.link("write"));
    b.share(&[]);
    b.awaits("box/text", b"whole");
    b.write("box/added", b"added in the folder");
    a.awaits("box/added", b"added in the folder");
    b.sync();
    std::thread::sleep(Duration::from_secs(2));
    b.write("box/text", b"changed in the folder");
    b.awaits("box/text", b"whole");
    remove_file(b.path("box/added")).unwrap();
    b.awaits("box/added", b"added in the folder");
    a.awaits("box/text", b"whole");
    b.unshare();
}
