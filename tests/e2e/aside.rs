//! What is set aside is whole, whatever there is of it, and is found.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::{PATIENCE, run_within, wait_until};
use std::fs;

const BLOCKS: usize = 80;

/// The blocks of which this device says that it set something aside.
pub fn blocks_aside(device: &Device) -> Vec<u64> {
    let status = device.status();
    let refused = status["refused"].as_array().unwrap().iter();
    let local = refused.filter(|refusal| refusal["kind"] == "local");
    let mut blocks: Vec<u64> = local.map(|refusal| refusal["block"].as_u64().unwrap()).collect();
    blocks.dedup();
    blocks
}

pub fn offline(device: &Device) {
    device.umount();
    device.mount_with(&["--offline"]);
}

pub fn online(device: &Device) {
    device.umount();
    device.mount();
}

#[test]
fn edits_in_eighty_blocks_are_set_aside_by_one_policy() {
    let world = World::new();
    let a = world.creator("a");
    let path = |index: usize| format!("rooms/{index:02}");
    let paths: Vec<String> = (0..BLOCKS).map(path).collect();
    let mut add = a.command(&["block", NAME, "add", "--from", "-"]);
    run_within(&mut add, paths.join("\n").as_bytes(), PATIENCE * 2).expect("80 blocks");
    for path in &paths {
        a.write(&format!("{path}/text"), b"agreed");
    }
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    offline(&b);
    let large = |index: usize| vec![index as u8; 20_000];
    for (index, path) in paths.iter().enumerate() {
        b.write(&format!("{path}/text"), format!("edited in {index}").as_bytes());
        b.write(&format!("{path}/new"), &large(index));
    }
    let own = a.status()["device"].as_str().unwrap().to_owned();
    a.json(&["member", NAME, "add", &own]);
    a.sync();
    online(&b);
    wait_until("b says what it set aside", || blocks_aside(&b).len() == BLOCKS);
    await_agreement(&[&a, &b]);
    // Nothing of it was in memory only.
    b.kill9();
    b.mount();
    let listed = fs::read_dir(b.path(".kilofs/refused")).unwrap().count();
    assert_eq!(listed, BLOCKS);
    for (index, path) in paths.iter().enumerate() {
        let aside = b.path(&format!(".kilofs/refused/{}", index + 1));
        assert_eq!(fs::read(aside.join("text")).unwrap(), format!("edited in {index}").as_bytes());
        assert_eq!(fs::read(aside.join("new")).unwrap(), large(index));
        assert_eq!(fs::read(b.path(&format!("{path}/text"))).unwrap(), b"agreed");
    }
    // What it goes on to write once it may is committed as ever, and copied from there like any file.
    a.json(&["member", NAME, "open"]);
    a.sync();
    wait_until("b may write again", || b.status()["blocks"][BLOCKS]["writable"] == true);
    let last = b.path(&format!(".kilofs/refused/{BLOCKS}/new"));
    fs::copy(last, b.path("rooms/79/new")).unwrap();
    a.awaits("rooms/79/new", &large(BLOCKS - 1));
    await_agreement(&[&a, &b]);
    assert_eq!(b.json(&["fsck", NAME])["findings"], serde_json::json!([]));
}

#[test]
fn older_edits_stay_beside_newer_ones_and_after_their_block() {
    let world = World::new();
    let a = world.creator("a");
    a.json(&["block", NAME, "add", "/docs"]);
    a.sync();
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    for round in 0..2 {
        offline(&b);
        b.write(&format!("docs/edit-{round}"), b"by b");
        a.json(&["policy", NAME, "set", "/docs", "ro"]);
        a.sync();
        online(&b);
        wait_until("it is set aside", || b.path(&format!(".kilofs/refused/1/edit-{round}")).exists());
        await_agreement(&[&a, &b]);
        assert_eq!(fs::read_dir(b.path("docs")).unwrap().count(), 0, "an empty block is shown empty");
        a.json(&["policy", NAME, "set", "/docs", "rw"]);
        a.sync();
        wait_until("b may write again", || b.status()["blocks"][1]["writable"] == true);
    }
    a.json(&["block", NAME, "remove", "/docs"]);
    assert_eq!(a.json(&["block", NAME, "add", "/other"])["number"], 1, "the number is another block's");
    a.sync();
    wait_until("b has it", || b.status()["blocks"][1]["path"] == "/other");
    for _ in 0..2 {
        assert_eq!(fs::read(b.path(".kilofs/refused/1.1/edit-0")).unwrap(), b"by b");
        assert_eq!(fs::read(b.path(".kilofs/refused/1/edit-1")).unwrap(), b"by b");
        online(&b);
    }
}
