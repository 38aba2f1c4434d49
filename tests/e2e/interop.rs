//! Another implementation of BitTorrent, libtorrent, reads what we publish and carries what we need.

use super::harness::{Device, NAME, World, await_agreement, free_ports};
use super::process::{PATIENCE, Service, run_within};
use serde_json::Value;
use std::process::Command;

const HELPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/interop.py");

/// The helper in a Python that has libtorrent: that of `KILOFS_TEST_PYTHON`, as `scripts/test` sets it.
fn helper(arguments: &[&str]) -> Command {
    let python = std::env::var_os("KILOFS_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(HELPER).args(arguments);
    command
}

pub fn ask(arguments: &[&str]) -> Value {
    let answer = run_within(&mut helper(arguments), b"", PATIENCE * 2);
    let text = answer.expect("the helper needs libtorrent's Python wheel: scripts/test installs it");
    serde_json::from_str(&text).unwrap()
}

/// A world whose DHT is made of libtorrent nodes.
fn foreign_world() -> World {
    World::on(|port| Service::start(&mut helper(&["nodes", &port.to_string(), "8"])))
}

#[test]
fn a_database_lives_on_a_dht_of_libtorrent_nodes() {
    let world = foreign_world();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    a.write("text", b"over foreign nodes");
    b.awaits("text", b"over foreign nodes");
    b.write("answer", b"and back");
    a.awaits("answer", b"and back");
    await_agreement(&[&a, &b]);
}

fn newest(device: &Device) -> String {
    device.status()["versions"][0]["infohash"].as_str().unwrap().to_owned()
}

#[test]
fn libtorrent_verifies_the_record_and_downloads_the_version() {
    let world = foreign_world();
    let a = world.creator("a");
    a.write("text", &b"something to carry".repeat(40_000));
    a.sync();
    let status = a.status();

    let item = ask(&["get", &world.bootstrap(), status["key"].as_str().unwrap()]);
    assert_eq!(item["seq"], status["seq"], "{item}");
    let value = item["value"].as_str().unwrap();
    assert_eq!(value.len(), 2 * 995, "the record has one length");
    assert_eq!(item["verified"], true);

    let directory = world.place("download");
    let listen = status["listen"].as_str().unwrap().to_owned();
    let torrent = ask(&["download", &newest(&a), &listen, directory.to_str().unwrap()]);
    assert_eq!(torrent["name"], "database", "{torrent}");
    assert_eq!(torrent["files"], 1);
    assert_eq!(torrent["size"], status["image_bytes"]);
    assert_eq!(torrent["complete"], true, "libtorrent checks every piece again after the download");
    let length = std::fs::metadata(directory.join("database")).unwrap().len();
    assert_eq!(status["image_bytes"].as_u64(), Some(length));

    // What libtorrent downloaded it also serves: a new device gets it from there alone.
    let reader = world.device("reader");
    reader.join(&a.link("read"));
    let seeding = Service::start(&mut helper(&["seed", &newest(&a), &listen, directory.to_str().unwrap()]));
    a.kill9();
    reader.mount_with(&["--peer", &seeding.line]);
    reader.awaits("text", &b"something to carry".repeat(40_000));
    reader.ok(&["fsck", NAME]);
}

/// A device that knows a node of each of these.
fn device_among(world: &World, label: &str, nodes: &[String], link: Option<&str>) -> Device {
    let device = world.device(label);
    let mut arguments = vec![if link.is_some() { "join" } else { "create" }, NAME, "--no-passphrase"];
    nodes.iter().for_each(|node| arguments.extend(["--bootstrap", node]));
    arguments.extend(["--listen", "127.0.0.1:0", "--poll-interval", "0.5"]);
    let input = link.unwrap_or_default().as_bytes();
    run_within(&mut device.command(&arguments), input, PATIENCE).expect(arguments[0]);
    device.mount();
    device
}

#[test]
fn a_database_lives_on_a_mixed_dht_of_which_a_third_dies() {
    let world = World::new();
    let foreign = |count: &str| {
        let port = free_ports(8);
        Service::start(&mut helper(&["nodes", &port.to_string(), count]))
    };
    let (lasting, dying) = (foreign("8"), foreign("8"));
    let nodes = [world.bootstrap(), lasting.line.clone(), dying.line.clone()];
    let a = device_among(&world, "a", &nodes, None);
    a.write("text", b"over nodes of two kinds");
    a.sync();
    drop(dying);
    a.write("later", b"a third of them is gone");
    a.sync();
    let b = device_among(&world, "b", &nodes, Some(&a.link("write")));
    b.awaits("text", b"over nodes of two kinds");
    b.awaits("later", b"a third of them is gone");
    b.write("answer", b"and back");
    a.awaits("answer", b"and back");
    await_agreement(&[&a, &b]);
}
