//! Sealed objects as whoever opens them meets them: right ones, and those of somebody who holds the keys and cheats.

use crate::format::{Builder, Lines, array, bytes, get, number};
use crate::independent;
use crate::make::{Made, READ_SECRET, bad, database, good};
use kilofs::base::{Birth, BlockNumber, DatabaseId, Id};
use kilofs::crypt::{BlobKind, SealKeys, Secret, Tampered};

const BIRTH: [u8; 16] = [9; 16];
const EPOCH: u32 = 3;
const BLOCK: u16 = 4;

/// An object: as what and where it is opened, its id, its bytes.
fn inputs(kind: &str, place: [u64; 3], id: &[u8; 32], sealed: &[u8]) -> Builder {
    Builder::default()
        .hex("read secret", &READ_SECRET)
        .hex("database", &database().0)
        .text("block", BLOCK)
        .hex("birth", &BIRTH)
        .text("epoch", EPOCH)
        .text("kind", kind)
        .text("level", place[0])
        .text("data id", place[1])
        .text("index", place[2])
        .hex("id", id)
        .hex("sealed", sealed)
}

pub fn all() -> Vec<Made> {
    let keys = independent::Block::new(&READ_SECRET, &database().0, BLOCK, &BIRTH, EPOCH);
    let other = independent::Block::new(&READ_SECRET, &database().0, BLOCK, &BIRTH, EPOCH + 1);
    let flip = |bytes: &[u8], at: usize| [&bytes[..at], &[bytes[at] ^ 1], &bytes[at + 1..]].concat();
    let chunk = |name, note, index, (id, sealed): &([u8; 32], Vec<u8>)| {
        let inputs = inputs("chunk", [0, 7, index], id, sealed);
        if name == "chunk" { good("open", name, note, inputs) } else { bad("open", name, note, inputs) }
    };
    let node = |name, note, level, id: &[u8; 32], sealed: &[u8]| {
        let inputs = inputs("node", [level, 0, 0], id, sealed);
        if name == "node" { good("open", name, note, inputs) } else { bad("open", name, note, inputs) }
    };
    let (right, sealed_node) = (keys.chunk(7, 9, b"what a file holds"), keys.node(2, b"keys", b"places"));
    let (node_id, node_bytes) = &sealed_node;
    let reused = keys.under(node_bytes.first_chunk().unwrap(), 2, b"\x04\0\0\0keysothers");
    let overlong = keys.under(&independent::NONCE, 2, b"\x09\0\0\0keys");
    let (commit_id, commit_bytes) = keys.blob(3, b"a commit");
    let (_, nonce_of_another) = keys.blob(3, b"another");
    let blob = keys.under(nonce_of_another.first_chunk().unwrap(), 3, b"a commit");
    vec![
        chunk("chunk", "as it was sealed", 9, &right),
        chunk("chunk-moved", "of another index of the file", 8, &right),
        chunk("chunk-damaged", "a bit of it", 9, &(right.0, flip(&right.1, 3))),
        chunk("chunk-short", "one byte less", 9, &(right.0, right.1[..16].to_vec())),
        chunk("chunk-epoch", "under the key of another epoch", 9, &other.chunk(7, 9, b"what a file holds")),
        node("node", "as it was sealed", 2, node_id, node_bytes),
        node("node-level", "of another level", 1, node_id, node_bytes),
        node("node-id", "under the id of another", 2, &keys.node(2, b"kex", b"places").0, node_bytes),
        node("node-damaged", "a bit of the tag", 2, node_id, &flip(node_bytes, node_bytes.len() - 1)),
        node("node-nonce", "other places under the nonce of the first", 2, node_id, &reused),
        node("node-length", "a logical section that is longer than all", 2, node_id, &overlong),
        good("open", "commit", "as it was sealed", inputs("commit", [0; 3], &commit_id, &commit_bytes)),
        bad(
            "open",
            "commit-as-charter",
            "another kind",
            inputs("charter", [0; 3], &commit_id, &commit_bytes),
        ),
        bad("open", "commit-nonce", "the nonce of another", inputs("commit", [0; 3], &commit_id, &blob)),
        bad("open", "empty", "nothing", inputs("commit", [0; 3], &commit_id, b"")),
    ]
}

pub fn observe(inputs: &Lines) -> Builder {
    let secret = Secret::new(array(inputs, "read secret"));
    let (database, birth) = (DatabaseId(array(inputs, "database")), Birth(array(inputs, "birth")));
    let block = BlockNumber(number(inputs, "block"));
    let epoch = number(inputs, "epoch");
    let keys = match crate::rotated::secrets(inputs, epoch) {
        None => SealKeys::for_block(&secret, database, block, &birth, epoch),
        Some(secrets) => SealKeys::of_generations(&secrets, database, block, &birth).unwrap(),
    };
    let (id, sealed) = (Id(array(inputs, "id")), bytes(inputs, "sealed"));
    let opened: Result<Vec<(&str, Vec<u8>)>, Tampered> = match get(inputs, "kind") {
        "chunk" => keys
            .open_chunk(number(inputs, "data id"), number(inputs, "index"), &id, &sealed)
            .map(|plain| vec![("plain", plain)]),
        "node" => keys
            .open_node(number(inputs, "level"), &id, &sealed)
            .map(|node| vec![("plain", node.logical), ("placements", node.placements)]),
        "commit" => keys.open_blob(BlobKind::Commit, &id, &sealed).map(|plain| vec![("plain", plain)]),
        _ => keys.open_blob(BlobKind::Charter, &id, &sealed).map(|plain| vec![("plain", plain)]),
    };
    match opened {
        Ok(parts) => parts
            .iter()
            .fold(Builder::default().text("expect", "accepted"), |out, (name, bytes)| out.hex(name, bytes)),
        Err(error) => Builder::default().text("expect", format!("refused {error:?}")),
    }
}
