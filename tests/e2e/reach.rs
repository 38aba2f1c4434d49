//! Ways to each other: IPv6, peers named by hand, a router that speaks UPnP.

use super::harness::{BINARY, NAME, World, free_ports};
use super::process::{PATIENCE, run_within, wait_until};
use serde_json::Value;
use std::process::Command;

#[test]
fn two_devices_meet_over_ipv6_when_the_dht_is_gone() {
    let mut world = World::new();
    let nowhere = world.bootstrap();
    let [a, b] = ["a", "b"].map(|label| world.device(label));
    let common =
        ["--no-passphrase", "--bootstrap", &nowhere, "--listen", "[::1]:0", "--poll-interval", "0.5"];
    a.ok(&[&["create", NAME], &common[..]].concat());
    a.mount();
    a.write("text", b"over six");
    // It speaks IPv4 only, and is gone before the second looks.
    a.sync();
    world.stop_dht();
    let listen = a.status()["listen"].as_str().unwrap().to_owned();
    assert!(listen.starts_with("[::1]:"), "{listen}");
    let link = a.link("write");
    let mut join = b.command(&[&["join", NAME, "--peer", &listen], &common[..]].concat());
    run_within(&mut join, link.as_bytes(), PATIENCE).expect("join");
    b.mount();
    b.awaits("text", b"over six");
    b.write("back", b"the same way");
    a.awaits("back", b"the same way");
    let large = vec![7; 6 << 20];
    a.write("large", &large);
    b.awaits("large", &large);
    let connected = &b.status()["connected"][0]["address"];
    assert!(connected.as_str().unwrap().starts_with("[::1]:"), "{connected}");
}

/// In a network of its own: a router that notes which ports it is asked to open, a private DHT, and a mirror with the
/// default of listening everywhere. `$1` is the binary, `$2` a directory, `$3` the router, `$4` more flags.
const BEHIND_A_ROUTER: &str = r#"
set -e
ip link set lo up
ip link add d0 type veth peer name d1
ip addr add 10.9.0.1/24 dev d0
ip -6 addr add fd09::1/64 dev d0 nodad
ip link set d0 up
ip link set d1 up
ip route add default dev d0
export KILOFS_HOME="$2/home"
python3 "$3" 10.9.0.1 "$2/asked" "$2/listening" & router=$!
until [ -e "$2/listening" ]; do sleep 0.1; done
"$1" testnet --nodes 4 --bind 10.9.0.1 --port 7000 > "$2/dht" & dht=$!
until [ -s "$2/dht" ]; do sleep 0.1; done
"$1" create shared --no-passphrase --bootstrap 10.9.0.1:7000 $4
"$1" mirror shared > /dev/null
"$1" status shared --json > "$2/status"
for i in $(seq 900); do
  [ -s "$2/asked" ] && [ "$(wc -l < "$2/asked")" -ge 2 ] && break
  [ -n "$4" ] && [ "$i" -ge 30 ] && break
  sleep 0.1
done
"$1" umount shared
kill $router $dht
"#;

#[track_caller]
fn behind_a_router(flags: &str) -> (Value, Vec<String>) {
    let world = World::new();
    let place = world.place("router");
    let router = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/router.py");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", BEHIND_A_ROUTER, "sh", BINARY]).arg(&place).args([router, flags]);
    run_within(&mut command, b"", PATIENCE * 2).expect("behind a router");
    let status = std::fs::read_to_string(place.join("status")).unwrap();
    let asked = std::fs::read_to_string(place.join("asked")).unwrap_or_default();
    (serde_json::from_str(&status).unwrap(), asked.lines().map(String::from).collect())
}

#[test]
fn a_router_is_asked_for_both_ports_unless_told_not_to() {
    let (status, mut asked) = behind_a_router("");
    let listen = status["listen"].as_str().unwrap();
    let port: u16 = listen.strip_prefix("[::]:").expect("both families").parse().unwrap();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.contains(&format!("TCP {port} 10.9.0.1")), "{listen}: {asked:?}");
    let (_, asked) = behind_a_router("--no-upnp");
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn a_peer_named_by_hand_is_met_in_either_family() {
    // The DHT is gone before the others look.
    let mut world = World::new();
    let nowhere = world.bootstrap();
    let port = free_ports(3);
    let devices = ["a", "b", "c"].map(|label| world.device(label));
    let [a, b, c] = &devices;
    for (device, listen, peer) in [
        (a, format!("127.0.0.1:{port}"), None),
        (b, "127.0.0.1:0".to_owned(), Some(format!("127.0.0.1:{port}"))),
        (c, "[::1]:0".to_owned(), Some(format!("127.0.0.1:{port}"))),
    ] {
        let mut flags = vec!["--no-passphrase", "--bootstrap", &nowhere, "--listen", &listen];
        flags.extend(["--poll-interval", "0.5"]);
        flags.extend(peer.iter().flat_map(|peer| ["--peer", peer]));
        if std::ptr::eq(device, a) {
            device.ok(&[&["create", NAME], &flags[..]].concat());
        } else {
            let mut join = device.command(&[&["join", NAME], &flags[..]].concat());
            run_within(&mut join, a.link("write").as_bytes(), PATIENCE).expect("join");
        }
        device.mount();
        if std::ptr::eq(device, a) {
            a.sync();
            world.stop_dht();
        }
    }
    a.write("text", b"for both");
    b.awaits("text", b"for both");
    c.awaits("text", b"for both");
    wait_until("they stay connected", || a.status()["neighbours"] == 2);
}
