//! All nodes of the DHT that a device reaches are somebody's who goes on answering with a record that was the newest once
//! (BEP 5, BEP 44), and takes what is put without keeping it.

use super::harness::{NAME, World};
use super::process::wait_until;
use super::thief::{Thief, rand};
use kilofs::record::SignedItem;
use sha1::{Digest, Sha1};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// As many as the DHT of the tests has, on consecutive ports.
const NODES: u16 = 8;
const LOOK: Duration = Duration::from_millis(100);
const DATAGRAM_BYTES_MAX: usize = 2_000;

/// Nodes that end when dropped.
struct Eclipse {
    over: Arc<AtomicBool>,
    nodes: Vec<JoinHandle<()>>,
}

impl Eclipse {
    /// Takes the ports of a DHT that has ended.
    fn start(ports: std::ops::Range<u16>, frozen: &SignedItem) -> Eclipse {
        let over = Arc::new(AtomicBool::new(false));
        let node = |port| {
            let mut socket = None;
            wait_until("the port is free", || {
                socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok();
                socket.is_some()
            });
            let (socket, over, frozen) = (socket.unwrap(), over.clone(), frozen.clone());
            std::thread::spawn(move || answer(&socket, &over, &frozen))
        };
        Eclipse { nodes: ports.map(node).collect(), over }
    }
}

impl Drop for Eclipse {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for node in self.nodes.drain(..) {
            _ = node.join();
        }
    }
}

fn answer(socket: &UdpSocket, over: &AtomicBool, frozen: &SignedItem) {
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let id: [u8; 20] = rand();
    let target: [u8; 20] = Sha1::digest(frozen.key.0).into();
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    while !over.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let SocketAddr::V4(_) = from else { continue };
        let query = &buffer[..length];
        let (Some(transaction), Some(asked)) = (string_after(query, b"1:t"), string_after(query, b"1:q"))
        else {
            continue;
        };
        let mut body = [b"2:id20:", &id[..]].concat();
        let about_it = string_after(query, b"6:target") == Some(&target[..]);
        match asked {
            b"get" if about_it && number_after(query, b"3:seq").is_some_and(|known| known >= frozen.seq) => {
                body.extend_from_slice(b"5:nodes0:");
                body.extend_from_slice(format!("3:seqi{}e5:token4:took", frozen.seq).as_bytes());
            }
            b"get" if about_it => {
                body.extend([b"1:k32:", &frozen.key.0[..]].concat());
                body.extend_from_slice(format!("5:nodes0:3:seqi{}e3:sig64:", frozen.seq).as_bytes());
                body.extend_from_slice(&frozen.signature.0);
                body.extend_from_slice(format!("5:token4:took1:v{}:", frozen.value.len()).as_bytes());
                body.extend_from_slice(&frozen.value);
            }
            b"get" | b"get_peers" => body.extend_from_slice(b"5:nodes0:5:token4:took"),
            b"find_node" => body.extend_from_slice(b"5:nodes0:"),
            _ => {}
        }
        let length = transaction.len().to_string();
        let reply = [b"d1:rd", &body[..], b"e1:t", length.as_bytes(), b":", transaction, b"1:y1:re"].concat();
        _ = socket.send_to(&reply, from);
    }
}

fn string_after<'q>(query: &'q [u8], key: &[u8]) -> Option<&'q [u8]> {
    let start = query.windows(key.len()).position(|window| window == key)? + key.len();
    let colon = start + query[start..].iter().position(|byte| *byte == b':')?;
    let length: usize = str::from_utf8(&query[start..colon]).ok()?.parse().ok()?;
    query.get(colon + 1..colon + 1 + length)
}

fn number_after(query: &[u8], key: &[u8]) -> Option<i64> {
    let key = [key, b"i"].concat();
    let start = query.windows(key.len()).position(|window| window == key)? + key.len();
    let end = start + query[start..].iter().position(|byte| *byte == b'e')?;
    str::from_utf8(&query[start..end]).ok()?.parse().ok()
}

#[test]
fn nobody_goes_back_behind_an_eclipse() {
    let mut world = World::new();
    let a = world.creator("a");
    a.write("text", b"first");
    a.sync();
    let thief = Thief::join(&world, &a);
    let reader = world.joined("reader", &a, "read");
    reader.awaits("text", b"first");
    let old = thief.item();
    a.write("text", b"second");
    a.sync();
    reader.awaits("text", b"second");
    let (seq, link) = (reader.status()["seq"].as_i64(), a.link("read"));
    assert!(seq > Some(old.seq));
    a.umount();
    world.stop_dht();
    let first: u16 = world.bootstrap().rsplit(':').next().unwrap().parse().unwrap();
    let eclipse = Eclipse::start(first..first + NODES, &old);
    wait_until("the old record is what is to be had", || {
        thief.heard().is_some_and(|(seq, _)| seq == old.seq)
    });
    // Who has seen more goes on showing it. That somebody answers is no confirmation.
    wait_until("nothing confirms what the reader has", || {
        reader.status()["confirmed_seconds_ago"].as_f64() > Some(6.0)
    });
    let status = reader.status();
    assert_eq!((status["seq"].as_i64(), &status["dht_answers"]), (seq, &true.into()), "{status}");
    reader.awaits("text", b"second");
    // Who joins knows from the link that this cannot be the newest, and shows nothing rather than that.
    let joined = world.device("joined");
    joined.join(&link);
    joined.mount();
    wait_until("the nodes answer", || joined.status()["dht_answers"] == true);
    std::thread::sleep(Duration::from_secs(4));
    let status = joined.status();
    assert_eq!((&status["seq"], &status["versions"]), (&serde_json::Value::Null, &serde_json::json!([])));
    assert!(!joined.path("text").exists());
    for device in [&reader, &joined] {
        device.ok(&["fsck", NAME]);
    }
    drop(eclipse);
}
