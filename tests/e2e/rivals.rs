//! Two admins who move borders between blocks apart from each other: one policy holds, and no file goes by the other one's.

use super::aside::{offline, online};
use super::harness::{Device, NAME, World, await_agreement};

/// Two admins and a writer, with a block `docs` and a directory `sub`, in agreement.
fn rivals(world: &World) -> [Device; 3] {
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs"]);
    std::fs::create_dir(a.path("sub")).unwrap();
    for number in 0..3 {
        a.write(&format!("sub/agreed-{number}"), format!("agreed {number}").as_bytes());
    }
    a.sync();
    let (b, c) = (world.joined("b", &a, "admin"), world.joined("c", &a, "write"));
    await_agreement(&[&a, &b, &c]);
    [a, b, c]
}

/// The same, while b is away: a has made `sub` a block, and a and c have written there.
fn with_a_border_of_a(world: &World) -> [Device; 3] {
    let [a, b, c] = rivals(world);
    offline(&b);
    a.json(&["block", NAME, "add", "/sub"]);
    a.write("sub/in-the-block", b"inside, by a");
    a.write("outside", b"outside, by a");
    a.sync();
    c.awaits("sub/in-the-block", b"inside, by a");
    c.write("sub/by-c", b"inside, by c");
    a.awaits("sub/by-c", b"inside, by c");
    [a, b, c]
}

/// Whether a device shows a content, or has it among what is set aside.
fn has(device: &Device, content: &str) -> bool {
    let found = |root: std::path::PathBuf| {
        let files = super::trees::entries(&root).into_keys().map(|path| root.join(path));
        files.filter_map(|path| std::fs::read_to_string(path).ok()).any(|one| one == content)
    };
    found(device.mount.clone()) || found(device.path(".kilofs/refused"))
}

fn assert_whole(devices: &[&Device], made: &[(&Device, &str)]) {
    await_agreement(devices);
    for device in devices {
        for number in 0..3 {
            let content = std::fs::read(device.path(&format!("sub/agreed-{number}")));
            assert_eq!(content.unwrap(), format!("agreed {number}").as_bytes());
        }
        assert_eq!(device.json(&["fsck", NAME])["findings"], serde_json::json!([]));
    }
    for (device, content) in made {
        assert!(has(device, content), "{content} is neither there nor set aside");
    }
}

/// One admin makes a directory a block, writes inside and outside of it, and loses against two policies of the other.
#[test]
fn a_border_of_a_policy_that_lost_takes_nothing_away() {
    let world = World::new();
    let [a, b, c] = with_a_border_of_a(&world);
    c.write("also-outside", b"outside, by c");
    a.awaits("also-outside", b"outside, by c");
    await_agreement(&[&a, &c]);
    c.umount();
    b.json(&["policy", NAME, "set", "/docs", "ro"]);
    b.json(&["policy", NAME, "set", "/docs", "rw"]);
    b.write("sub/by-b", b"in the directory, by b");
    online(&b);
    a.awaits("sub/by-b", b"in the directory, by b");
    await_agreement(&[&a, &b]);
    c.mount();
    let made = [
        (&a, "inside, by a"),
        (&a, "outside, by a"),
        (&b, "in the directory, by b"),
        (&c, "inside, by c"),
        (&c, "outside, by c"),
    ];
    assert_whole(&[&a, &b, &c], &made);
}

/// Both make the same directory a block.
#[test]
fn one_directory_that_two_make_a_block_keeps_what_is_in_it() {
    let world = World::new();
    let [a, b, c] = with_a_border_of_a(&world);
    await_agreement(&[&a, &c]);
    c.umount();
    b.json(&["policy", NAME, "set", "/docs", "ro"]);
    b.json(&["block", NAME, "add", "/sub"]);
    b.write("sub/by-b", b"in the block, by b");
    b.write("outside-too", b"outside, by b");
    online(&b);
    a.awaits("sub/by-b", b"in the block, by b");
    a.awaits("outside-too", b"outside, by b");
    await_agreement(&[&a, &b]);
    c.mount();
    let made = [
        (&a, "inside, by a"),
        (&a, "outside, by a"),
        (&b, "in the block, by b"),
        (&b, "outside, by b"),
        (&c, "inside, by c"),
    ];
    assert_whole(&[&a, &b, &c], &made);
}
