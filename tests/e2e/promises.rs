//! The promises of kilofs(7) that need several devices or a sudden end, each with a test of its number. The others are
//! kept in `tests/mount/promises.rs`.

use super::harness::{World, await_agreement};
use std::fs::File;
use std::io::Write;

#[test]
fn promise_02_what_fsync_returned_for_survives() {
    let world = World::new();
    let a = world.creator("a");
    std::fs::create_dir(a.path("dir")).unwrap();
    let mut file = File::create(a.path("dir/file")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    std::fs::rename(a.path("dir/file"), a.path("dir/renamed")).unwrap();
    File::open(a.path("dir")).unwrap().sync_all().unwrap();
    a.kill9();
    drop(file);
    a.mount();
    assert_eq!(std::fs::read(a.path("dir/renamed")).unwrap(), b"synced");
    assert!(!a.path("dir/file").exists());
    a.umount();
}

#[test]
fn promise_04_what_is_changed_here_is_seen_elsewhere_without_a_close() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    let mut open = File::create(a.path("open")).unwrap();
    open.write_all(b"first").unwrap();
    b.awaits("open", b"first");
    open.write_all(b" and second").unwrap();
    b.awaits("open", b"first and second");
    drop(open);
    await_agreement(&[&a, &b]);
    a.umount();
    b.umount();
}

#[test]
fn promise_17_what_two_devices_made_of_one_file_stays() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text.md", b"common");
    a.write("other", b"common");
    let b = world.joined("b", &a, "write");
    b.awaits("text.md", b"common");
    b.awaits("other", b"common");
    await_agreement(&[&a, &b]);
    // Both at work without each other.
    a.umount();
    b.write("text.md", b"by b");
    std::fs::remove_file(b.path("other")).unwrap();
    b.umount();
    a.mount_with(&["--offline"]);
    a.write("text.md", b"by a");
    a.write("other", b"edited by a");
    a.umount();
    a.mount();
    b.mount();
    await_agreement(&[&a, &b]);
    for device in [&a, &b] {
        let names: Vec<String> = std::fs::read_dir(&device.mount)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("text") && name.ends_with(".md"))
            .collect();
        let mut texts: Vec<Vec<u8>> =
            names.iter().map(|name| std::fs::read(device.path(name)).unwrap()).collect();
        texts.sort();
        assert_eq!(texts, [b"by a".to_vec(), b"by b".to_vec()], "{names:?}");
        assert_eq!(std::fs::read(device.path("other")).unwrap(), b"edited by a", "an edit beats a deletion");
    }
    a.umount();
    b.umount();
}
