//! Who takes part only to be in the way: neighbours that talk without end, squatters where others look for each other, and a
//! member that shows one thing to one and another to another.

use super::asks::connection_to;
use super::harness::{Device, World, await_agreement};
use super::process::{PATIENCE, wait_until};
use super::stage::Stage;
use super::thief::{Thief, rand};
use super::version::{Forged, NOBODY};
use kilofs::base::{BlockNumber, InfoHash, Inode, PieceIndex};
use kilofs::net::gossip::{ASKED_MAX, Gossip, Message, News, Pieces};
use kilofs::record::{Record, SignedItem};
use kilofs::tree::NodeKind;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const ROOT: BlockNumber = BlockNumber::ROOT;
const MESSAGES: usize = 4_000;
const SQUATTERS: usize = 24;
/// What a flood may make an engine hold more than before.
const GROWTH_KIB_MAX: u64 = 128 << 10;

/// Says everything there is to say that costs who hears it something.
fn flood(gossip: &Gossip, to: &Device, old: &SignedItem) {
    let to = connection_to(gossip, to);
    let infohash = || InfoHash(rand());
    let end = Instant::now() + PATIENCE;
    for round in 0..MESSAGES {
        let message = match round % 6 {
            0 => Message::Want { infohash: infohash(), bases: (0..8).map(|_| infohash()).collect() },
            1 => Message::Ask(Pieces {
                infohash: infohash(),
                pieces: (0..ASKED_MAX as u32).map(PieceIndex).collect(),
            }),
            2 => Message::Addresses(
                (0..32)
                    .map(|at| SocketAddr::from(([127, 0, 0, 1], 1 + (round * 32 + at) as u16 % 9_000)))
                    .collect(),
            ),
            3 => Message::Kept(i64::MAX),
            4 => Message::News(Box::new(News { item: old.clone(), delta: None })),
            _ => Message::Lack(Pieces { infohash: infohash(), pieces: vec![PieceIndex(u32::MAX)] }),
        };
        while !gossip.say(to, &message) {
            // Its queue is full, or it has parted: then it is over.
            if !gossip.neighbours().iter().any(|one| one.id == to) || Instant::now() > end {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn resident_kib(device: &Device) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", device.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_neighbour_that_talks_without_end() {
    let stage = Stage::new();
    let old = {
        let thief = &stage.thief;
        let record = thief.record().encode_sealed(&thief.core.keys.record);
        SignedItem::sign(thief.core.keys.database_key.as_ref().unwrap(), 1, record)
    };
    let (gossip, mut events) = stage.thief.gossip();
    let before = [&stage.a, &stage.b].map(resident_kib);
    std::thread::scope(|scope| {
        let floods = [&stage.a, &stage.b].map(|device| {
            let (gossip, old) = (gossip.clone(), &old);
            scope.spawn(move || flood(&gossip, device, old))
        });
        // What they answer is taken, so that they can go on answering.
        let answers = scope.spawn(|| {
            let mut count = 0u32;
            while stage
                .thief
                .block_on(async { tokio::time::timeout(Duration::from_secs(3), events.recv()).await })
                .is_ok()
            {
                count += 1;
            }
            count
        });
        let mut round = 0;
        while !floods.iter().all(|flood| flood.is_finished()) {
            stage.write(&format!("in-the-flood-{round}"));
            round += 1;
        }
        assert!(round > 0, "they write while it lasts");
        assert!(answers.join().unwrap() > 0, "they answer");
    });
    for (device, before) in [&stage.a, &stage.b].into_iter().zip(before) {
        let after = resident_kib(device);
        assert!(after < before + GROWTH_KIB_MAX, "{before} KiB before, {after} KiB after");
        stage.assert_intact(device, "after the flood");
    }
    stage.write("after-the-flood");
}

/// A port at which connections are taken and nothing is said.
fn silent_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's process.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
        }
    });
    port
}

#[test]
fn squatters_where_peers_are_looked_for() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"behind them all");
    a.sync();
    let thief = Thief::join(&world, &a);
    let squatters = thief.squat(&world, (0..SQUATTERS).map(|_| silent_port()).collect());
    let b = world.joined("b", &a, "write");
    b.awaits("text", b"behind them all");
    b.write("back", b"and back");
    a.awaits("back", b"and back");
    wait_until("they are neighbours", || b.status()["neighbours"].as_u64() >= Some(1));
    drop(squatters);
}

/// A version with one more file in the open block.
fn with_file(stage: &Stage, name: &str, used: bool) -> Forged {
    let ground = stage.thief.ground();
    let head = stage.thief.rewritten(&ground, |tree| {
        if used {
            // The number that the other version's file has.
            tree.make_node(Inode(1), b"gone", NodeKind::File, 0o666, NOBODY).unwrap();
            tree.unlink(Inode(1), b"gone").unwrap();
        }
        let made = tree.make_node(Inode(1), name.as_bytes(), NodeKind::File, 0o666, NOBODY).unwrap();
        tree.write(made.inode, 0, name.as_bytes()).unwrap();
    });
    let listed = stage.thief.entry(&ground, &head, ROOT, stage.thief.next_counter(&ground, ROOT));
    let change = |entries: &mut BTreeMap<_, _>| _ = entries.insert(ROOT, listed);
    stage.thief.version(&ground, &head.image, change, |_| {})
}

#[test]
fn a_fork_shown_to_two_members() {
    let stage = Stage::new();
    let thief = &stage.thief;
    let (gossip, _events) = thief.gossip();
    let honest = thief.record();
    let (seq, _) = thief.heard().unwrap();
    // Two commits of one number, in two records of one number.
    let told = [("for-a", &stage.a), ("for-b", &stage.b)].map(|(name, device)| {
        let forged = with_file(&stage, name, name == "for-b");
        thief.seed(&forged.metainfo, &forged.image);
        let mut versions = vec![forged.reference];
        versions.extend(honest.versions.iter().take(4));
        let record = Record { versions, ..honest.clone() };
        let key = thief.core.keys.database_key.as_ref().unwrap();
        let item = SignedItem::sign(key, seq + 1, record.encode_sealed(&thief.core.keys.record));
        (connection_to(&gossip, device), Message::News(Box::new(News { item, delta: None })))
    });
    for (to, message) in &told {
        assert!(gossip.say(*to, message));
    }
    for device in [&stage.a, &stage.b] {
        for name in ["for-a", "for-b"] {
            device.awaits(name, name.as_bytes());
        }
    }
    let noticed = |device: &&Device| device.log().contains("two records of one number");
    assert!([&stage.a, &stage.b].iter().any(noticed), "it is noticed, and said");
    await_agreement(&[&stage.a, &stage.b]);
    stage.write("after-the-fork");
    for device in [&stage.a, &stage.b] {
        stage.assert_intact(device, "after the fork");
    }
}
