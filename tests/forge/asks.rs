//! Asks: whoever holds the record key may ask neighbours for pieces, and gets those that are there and nothing else.

use super::harness::Device;
use super::process::{PATIENCE, wait_until};
use super::stage::Stage;
use kilofs::base::{InfoHash, PieceHashes, PieceIndex};
use kilofs::image::hash_piece;
use kilofs::net::gossip::{Event, Gossip, Message, NeighbourId, Pieces};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The connection to a device.
pub fn connection_to(gossip: &Gossip, device: &Device) -> NeighbourId {
    let status = device.status();
    let listen: std::net::SocketAddr = status["listen"].as_str().unwrap().parse().unwrap();
    let mut found = None;
    wait_until("the device is a neighbour", || {
        let all = gossip.neighbours();
        found = all.iter().find(|one| one.torrents.port() == listen.port()).map(|one| one.id);
        found.is_some()
    });
    found.unwrap()
}

/// What a neighbour answers to an ask: pieces, and those that it lacks.
async fn answer(
    (gossip, events): (&Gossip, &mut mpsc::Receiver<Event>),
    of: NeighbourId,
    asked: &Pieces,
    hashes: &PieceHashes,
) -> (BTreeMap<PieceIndex, Vec<u8>>, Vec<PieceIndex>) {
    let (mut brought, mut lacking) = (BTreeMap::<PieceIndex, Vec<u8>>::new(), Vec::new());
    assert!(gossip.say(of, &Message::Ask(asked.clone())));
    let whole = |(piece, bytes): (&PieceIndex, &Vec<u8>)| bytes.len() as u64 == hashes.bytes_of(*piece);
    while lacking.len() + brought.iter().filter(|one| whole(*one)).count() < asked.pieces.len() {
        match timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            Event::Said(from, Message::Piece(run)) if from == of => {
                assert!(run.infohash == asked.infohash && asked.pieces.contains(&run.piece));
                let bytes = brought.entry(run.piece).or_default();
                assert_eq!(run.offset as usize, bytes.len());
                bytes.extend(run.bytes);
            }
            Event::Said(from, Message::Lack(lack)) if from == of => {
                assert_eq!(lack.infohash, asked.infohash);
                lacking.extend(lack.pieces);
            }
            Event::Left(id) => assert_ne!(id, of, "it parts"),
            _ => {}
        }
    }
    (brought, lacking)
}

#[test]
fn what_is_asked_for_is_answered_by_who_has_it() {
    let stage = Stage::new();
    let core = &stage.thief.core;
    let listed = stage.thief.record().versions;
    let has = |infohash: InfoHash| core.inner().versions.get(&infohash).cloned();
    let version = listed.iter().find_map(|version| has(version.infohash)).expect("the thief has one of them");
    let newest = version.reference.infohash;
    let hashes = core.hashes_of(&version).unwrap();
    let (gossip, mut events) = stage.thief.gossip();
    let count = hashes.hashes.len() as u32;
    let pieces = (0..count).take(250).chain([count, u32::MAX]).map(PieceIndex).collect();
    let asked = Pieces { infohash: newest, pieces };
    let stranger = Pieces { infohash: InfoHash([9; 20]), ..asked.clone() };
    for device in [&stage.a, &stage.mirror] {
        let of = connection_to(&gossip, device);
        let (brought, lacking) = stage.thief.block_on(answer((&gossip, &mut events), of, &asked, &hashes));
        assert_eq!(lacking, [PieceIndex(count), PieceIndex(u32::MAX)]);
        assert!(brought.len() + 2 == asked.pieces.len() && !brought.is_empty());
        for (piece, bytes) in brought {
            assert_eq!(hashes.hash_of(piece), Some(&hash_piece(&bytes)), "piece {}", piece.0);
        }
        let (brought, lacking) = stage.thief.block_on(answer((&gossip, &mut events), of, &stranger, &hashes));
        assert!(brought.is_empty());
        assert_eq!(lacking, stranger.pieces);
    }
    stage.assert_intact(&stage.a, "after the asks");
}
