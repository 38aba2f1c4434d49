//! Everything that fuzzing ever found worth keeping, and the seeds that it starts from: `tests/fuzz/corpus/TARGET/`.
//! `scripts/fuzz` goes on from there.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "fuzz/harness.rs"]
mod harness;

use kilofs::base::{Id, InfoHash, Inode, PieceHashes, PieceIndex, PieceLength, PublicKey, Signature, Writer};
use kilofs::crypt::envelope::{self, Letter};
use kilofs::crypt::successor::seal_successor;
use kilofs::crypt::{AdminKey, Capability, DatabaseKey, DeviceKey, Kind, RecordKey, Secret, database_id};
use kilofs::net::gossip::{Delta, Message, News, Pieces, Run};
use kilofs::record::{Announcement, Mode, Moved, Policy, SignedItem, genesis_charter, sign_lifeline};
use kilofs::torrent::Metainfo;
use kilofs::tree::inode::{FileType, InodeRecord};
use kilofs::tree::key::Key;
use kilofs::tree::{Timestamp, value::DirEntry};
use std::path::{Path, PathBuf};

const TARGETS: [&str; 11] = [
    "record",
    "policy",
    "link",
    "node",
    "value",
    "store",
    "metainfo",
    "news",
    "lifeline",
    "announcement",
    "envelope",
];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

#[test]
fn the_corpus_is_read_without_a_finding() {
    for target in TARGETS {
        let files: Vec<_> = std::fs::read_dir(tests().join("fuzz/corpus").join(target)).unwrap().collect();
        assert!(files.len() >= 3, "{target} has {} files", files.len());
        for file in files {
            harness::read(target, &std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// Seeds from the golden and hostile vectors, and from what this program writes.
#[test]
#[ignore = "writes files; run it after the vectors have changed"]
fn write_seeds() {
    let links = ["link", "invite", "recovery"].map(|kind| (kind, "text", "link", None));
    let kinds = [("policy", "bytes", "policy", None)].into_iter().chain(links);
    let values = ["charter", "commit", "entry", "item", "keyring"];
    let values = (3u8..).zip(values).map(|(tag, kind)| (kind, "bytes", "value", Some(tag)));
    for (kind, field, target, tag) in kinds.chain(values) {
        for (name, mut bytes) in vectors(kind, field) {
            tag.iter().for_each(|tag| bytes.insert(0, *tag));
            put(target, &format!("{kind}-{name}"), &bytes);
        }
    }
    let key = RecordKey::new(Secret::new([0x11; 32]));
    for (name, sealed) in vectors("record", "sealed") {
        key.open(&sealed).iter().for_each(|plain| put("record", &name, plain));
    }
    let file = InodeRecord::new(FileType::File, 0o644, Inode(1), Timestamp { seconds: 5, nanos: 6 });
    let entry = DirEntry { inode: Inode(1 << 40), file_type: FileType::File };
    put("value", "inode", &[&[0], &file.encode()[..]].concat());
    put("value", "dir-entry", &[&[1], &entry.encode()[..]].concat());
    for (name, key) in [
        ("inode", Key::Inode(Inode(9))),
        ("entry", Key::Entry(Inode(1), b"name")),
        ("chunk", Key::Chunk(Inode(7 << 32), 300)),
        ("xattr", Key::Xattr(Inode(9), b"user.x")),
    ] {
        put("value", &format!("key-{name}"), &[&[2], &key.encode()[..]].concat());
    }
    for (pieces, length) in [(1u64, PieceLength::for_image(1 << 20)), (3, PieceLength::for_image(3 << 20))] {
        let image_bytes = pieces << 20;
        let hashes = vec![[7; 20]; image_bytes.div_ceil(length.bytes()) as usize];
        let metainfo = Metainfo { hashes: PieceHashes { length, image_bytes, hashes } };
        put("metainfo", &format!("info-{pieces}"), &metainfo.info_bytes());
        put("metainfo", &format!("torrent-{pieces}"), &metainfo.torrent_bytes());
    }
    put("node", "empty", &[0, 0, 0]);
    // One key "a" with the value "v", without and with a place.
    put("node", "leaf", &[&[0, 5, 0][..], &[0, 1, b'a', 2, b'v']].concat());
    put("node", "placed", &[&[0, 5, 0][..], &[0, 1, b'a', 3, b'v'], &[0, 0, 0, 0, 0, 0, 9, 0, 0]].concat());
    let child = [&[0, 1, b'a'][..], &[5; 32]].concat();
    put("node", "parent", &[&[1, 35, 0][..], &child, &[0, 0, 0, 0, 0, 0, 9, 0, 0]].concat());
    for (name, message) in news() {
        put("news", name, &message.encode());
    }
    rotations();
    put("store", "untouched", &[]);
    put("store", "each-part", &(0..16u8).flat_map(|part| [part, part * 9, 0, 0xff]).collect::<Vec<_>>());
    put("store", "generation", &[5, 12, 0, 9, 6, 12, 0, 9]);
}

/// What a rotation writes, sealed under the keys of the harness.
fn rotations() {
    let admin = AdminKey::from_seed(&[1; 32]);
    let database = database_id(&admin.public());
    let first = Capability::create(&admin, &DatabaseKey::from_seed(&[4; 32]), Secret::new([5; 32]));
    let next = first.rotated(&DatabaseKey::from_seed(&[6; 32]), Secret::new([2; 32]), 7).unwrap();
    let charter = genesis_charter(&database);
    let modes = vec![Mode::ReadWrite, Mode::ReadOnly];
    let policy = Policy::sign(&admin, &database, 7, Id([3; 32]), modes);
    let keys: Vec<_> = (0x11..0x14).map(|byte| RecordKey::new(Secret::new([byte; 32]))).collect();
    let moved = Moved { generation: 2, infohash: InfoHash([4; 20]), digest: Id([5; 32]) };
    for (name, moved) in [("policy", None), ("moved", Some(&moved))] {
        let value = sign_lifeline(&admin, &keys, moved, &policy, 1).value;
        let plain = keys[0].open(&value).unwrap();
        put("lifeline", name, &[&[0], &plain[..]].concat());
        if moved.is_some() {
            let inner = keys[2].open(&plain[57..]).unwrap();
            put("lifeline", "moved-open", &[&[1], &plain[1..57], &inner].concat());
        }
    }
    let to = [(DeviceKey::from_seed(&[3; 32]).public(), Kind::Write)];
    let made = Announcement::new(&next, &to, &policy, &charter).unwrap().encode();
    put("announcement", "whole", &[&[0], &made[..]].concat());
    put("announcement", "cut", &[&[0], &made[..made.len() / 2]].concat());
    let mut terms = Writer::new();
    terms.bytes(&policy.encode()).bytes(&charter.encode());
    put("announcement", "terms", &[&[1], &terms.0[..]].concat());
    for kind in [Kind::Mirror, Kind::Read, Kind::Write] {
        let sealed = seal_successor(&to[0].0, kind, &next).unwrap();
        let associated = [&database.0[..], &1u32.to_le_bytes()].concat();
        let device = DeviceKey::from_seed(&[3; 32]);
        let plain = envelope::open(&device, Letter::Rotation, &associated, &sealed).unwrap();
        put("envelope", kind.name(), &plain);
    }
    put("envelope", "sealed", &seal_successor(&to[0].0, Kind::Write, &next).unwrap());
}

/// Every message of neighbours, once.
fn news() -> Vec<(&'static str, Message)> {
    let item =
        SignedItem { key: PublicKey([1; 32]), seq: 7, value: vec![2; 20], signature: Signature([3; 64]) };
    let delta = Delta {
        base: InfoHash([4; 20]),
        infohash: InfoHash([5; 20]),
        image_bytes: 1 << 20,
        length: PieceLength::for_image(1 << 20),
        pieces: vec![(PieceIndex(1), [6; 20]), (PieceIndex(5), [7; 20])],
        spans: vec![(20_000, vec![8; 9]), (90_000, vec![9; 3])],
    };
    let address = "127.0.0.1:5".parse().unwrap();
    let infohash = InfoHash([4; 20]);
    let pieces = Pieces { infohash, pieces: vec![PieceIndex(1), PieceIndex(5)] };
    let run = Run { infohash, piece: PieceIndex(5), offset: 16, bytes: vec![9; 5] };
    vec![
        ("record", Message::News(Box::new(News { item: item.clone(), delta: None }))),
        ("difference", Message::News(Box::new(News { item, delta: Some(delta) }))),
        ("have", Message::Have(InfoHash([4; 20]))),
        ("addresses", Message::Addresses(vec![address, "[::1]:6".parse().unwrap()])),
        ("want", Message::Want { infohash: InfoHash([4; 20]), bases: vec![InfoHash([5; 20])] }),
        ("kept", Message::Kept(-1)),
        ("ping", Message::Ping),
        ("ask", Message::Ask(pieces.clone())),
        ("lack", Message::Lack(pieces)),
        ("piece", Message::Piece(run)),
    ]
}

/// A field of every vector of a kind.
fn vectors(kind: &str, field: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(tests().join("vectors").join(kind)).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Some(line) = line.filter(|line| line.len() < 10_000) else { continue };
        let decode = || data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap();
        found.push((name, if field == "text" { line.as_bytes().to_vec() } else { decode() }));
    }
    found
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = tests().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}
