//! Vectors of databases that have moved to new keys: what announces it, the lifeline since, links with the keys of earlier
//! generations, and what is sealed in several epochs. The envelopes were sealed by another program, under ephemeral keys
//! that are not random.

use crate::format::{Builder, Lines, array, bytes, find};
use crate::independent;
use crate::make::{
    Made, READ_SECRET, RECORD_KEY, admin, bad, database, device, good, link_inputs, payload, policy,
};
use crate::observe::describe_capability;
use data_encoding::HEXLOWER;
use kilofs::base::{Id, InfoHash, Signature};
use kilofs::crypt::keys::DeviceKey;
use kilofs::crypt::link::{self, Capability, Kind};
use kilofs::crypt::{DatabaseKey, RecordKey, Secret};
use kilofs::record::{Announcement, Mode, Policy, SignedItem, genesis_charter, open_lifeline};

/// To device 1 for writing, 2 for reading, 3 for mirroring: generation 1, after [`READ_SECRET`].
const ENVELOPES: &str = include_str!("envelopes.txt");
const NEXT_SECRET: [u8; 32] = [0x23; 32];
const OLDER: [u8; 32] = [0x21; 32];
const NEXT_RECORD_KEY: [u8; 32] = [0x12; 32];

pub fn all() -> Vec<Made> {
    [announcements(), lifelines(), links(), epochs()].into_iter().flatten().collect()
}

fn announcement(generation: u32, envelopes: &[Vec<u8>], terms: &[u8]) -> Vec<u8> {
    let mut made = [&[1][..], &database().0, &generation.to_le_bytes(), &[envelopes.len() as u8]].concat();
    for part in envelopes.iter().map(Vec::as_slice).chain([terms]) {
        made.extend(varint(part.len()));
        made.extend(part);
    }
    made
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 127 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn announcements() -> Vec<Made> {
    let mut envelopes: Vec<Vec<u8>> =
        ENVELOPES.lines().map(|line| HEXLOWER.decode(line.as_bytes()).unwrap()).collect();
    let length = envelopes[0].len();
    envelopes.extend((1..6u8).map(|byte| vec![byte; length]));
    envelopes.sort();
    let charter = genesis_charter(&database()).encode();
    let policy = policy(8, &[Mode::ReadWrite]).encode();
    let plain = [&varint(policy.len())[..], &policy, &varint(charter.len()), &charter].concat();
    let key = independent::derive("kilofs 1 2026 terms", &NEXT_SECRET, &[]);
    let sealed = independent::encrypt(&key, &independent::NONCE, b"kilofs terms 1", &plain);
    let terms = [&independent::NONCE[..], &sealed].concat();
    let whole = announcement(1, &envelopes, &terms);
    let inputs = |bytes: &[u8], number: u8| {
        Builder::default().hex("bytes", bytes).hex("device", device(number).seed().expose())
    };
    let refused = |name, note, bytes: &[u8]| bad("announcement", name, note, inputs(bytes, 1));
    let mut damaged = envelopes.clone();
    damaged.iter_mut().for_each(|envelope| envelope[100] ^= 1);
    vec![
        good("announcement", "write", "to one who writes", inputs(&whole, 1)),
        good("announcement", "read", "to one who reads", inputs(&whole, 2)),
        good("announcement", "mirror", "to one who mirrors", inputs(&whole, 3)),
        bad("announcement", "left-out", "to one who was left out", inputs(&whole, 4)),
        refused(
            "generation",
            "the envelopes are of another generation",
            &announcement(2, &envelopes, &terms),
        ),
        refused("damaged", "a bit of each envelope", &announcement(1, &damaged, &terms)),
        refused("truncated", "a byte less", &whole[..whole.len() - 1]),
        refused("trailing", "a byte more", &[&whole[..], &[0]].concat()),
        refused("format", "another format", &[&[2], &whole[1..]].concat()),
        refused("empty", "nothing", b""),
    ]
}

/// What an announcement says to a device.
pub fn observe(inputs: &Lines) -> Builder {
    let refused = |reason: String| Builder::default().text("expect", format!("refused {reason}"));
    let bytes = bytes(inputs, "bytes");
    let announcement = match Announcement::decode(&bytes) {
        Ok(announcement) => announcement,
        Err(error) => return refused(format!("{error:?}")),
    };
    assert_eq!(announcement.encode(), bytes);
    let device = DeviceKey::from_seed(&array(inputs, "device"));
    let Some(keys) = announcement.open(&device, None) else { return refused("device".into()) };
    let out = Builder::default()
        .text("expect", "accepted")
        .text("generation", announcement.generation)
        .text("digest", Announcement::digest(&bytes));
    let out = describe_capability(out, &keys);
    match keys.read_secret.as_ref().and_then(|secret| announcement.terms(secret)) {
        None => out,
        Some((policy, charter)) => out.hex("policy", &policy.encode()).hex("charter", &charter.encode()),
    }
}

fn lifelines() -> Vec<Made> {
    let inner = |key: &[u8; 32], policy: &Policy, extra: u8| {
        let mut plain = policy.encode();
        plain.resize(858, 0);
        plain[857] = extra;
        independent::seal_record(key, &plain)
    };
    let value = |generation: u32, inner: &[u8]| {
        let head = [&[2][..], &generation.to_le_bytes(), &[4; 20], &[5; 32]].concat();
        independent::seal_record(&RECORD_KEY, &[&head[..], inner].concat())
    };
    let signed = |seq: i64, value: Vec<u8>, keys: &[[u8; 32]]| {
        let SignedItem { key, value, signature, .. } =
            SignedItem::sign(&DatabaseKey::from_seed(&[1; 32]), seq, value);
        let names = ["record key", "record key 2"];
        let named = names.iter().zip(keys).fold(Builder::default(), |out, (name, key)| out.hex(name, key));
        named
            .hex("admin", &admin().public().0)
            .text("key", key)
            .text("seq", seq)
            .hex("value", &value)
            .text("signature", signature)
    };
    let (both, first) = ([RECORD_KEY, NEXT_RECORD_KEY], [RECORD_KEY]);
    let eight = policy(8, &[Mode::ReadWrite, Mode::Owner]);
    let right = value(1, &inner(&NEXT_RECORD_KEY, &eight, 0));
    let padded = value(1, &inner(&NEXT_RECORD_KEY, &eight, 1));
    let foreign = Policy { signature: Signature([7; 64]), ..eight.clone() };
    let foreign = value(1, &inner(&NEXT_RECORD_KEY, &foreign, 0));
    let generation = |number| value(number, &inner(&NEXT_RECORD_KEY, &eight, 0));
    vec![
        good("lifeline", "moved", "after a rotation", signed(8, right.clone(), &both)),
        good(
            "lifeline",
            "moved-left-out",
            "to one who has not got the keys",
            signed(8, right.clone(), &first),
        ),
        bad("lifeline", "moved-seq", "its number is not the policy's", signed(9, right, &both)),
        bad("lifeline", "moved-padding", "something behind the policy", signed(8, padded, &both)),
        bad("lifeline", "moved-policy", "a policy that the admin did not sign", signed(8, foreign, &both)),
        bad("lifeline", "moved-nowhere", "generation 0", signed(8, generation(0), &both)),
        bad("lifeline", "moved-far", "generation 65", signed(8, generation(65), &both)),
    ]
}

/// What a lifeline says to one who has some of the record keys.
pub fn lifeline(inputs: &Lines, item: &SignedItem) -> Builder {
    let names = inputs.iter().filter(|(name, _)| name.starts_with("record key"));
    let keys: Vec<RecordKey> =
        names.map(|(name, _)| RecordKey::new(Secret::new(array(inputs, name)))).collect();
    let admin = kilofs::base::PublicKey(array(inputs, "admin"));
    let Some(said) = open_lifeline(item, &admin, &keys, &kilofs::crypt::database_id(&admin)) else {
        return Builder::default().text("expect", "refused lifeline");
    };
    let mut out = Builder::default().text("expect", "accepted");
    if let Some(policy) = &said.policy {
        out = out.hex("policy", &policy.encode());
    }
    if let Some(moved) = &said.moved {
        assert_eq!((moved.infohash, moved.digest), (InfoHash([4; 20]), Id([5; 32])));
        out = out
            .text("generation", moved.generation)
            .text("infohash", moved.infohash)
            .text("digest", moved.digest);
    }
    out
}

fn links() -> Vec<Made> {
    let behind =
        |kind: Kind, rest: &[u8]| independent::link(kind.name(), 1, &[&payload(kind)[..], rest].concat());
    let older = [&[1][..], &OLDER].concat();
    let rotated = |name, kind: Kind| {
        let text = behind(kind, &older);
        let capability = Capability { older: vec![Secret::new(OLDER)], ..crate::make::capability(kind) };
        assert_eq!(text, link::print(&capability));
        good("link", name, "of a database that has moved to new keys once", link_inputs(&text))
    };
    let refused = |name, note, rest: &[u8]| bad("link", name, note, link_inputs(&behind(Kind::Read, rest)));
    let many = [&[65][..], &[9; 32 * 65]].concat();
    vec![
        rotated("mirror-rotated", Kind::Mirror),
        rotated("read-rotated", Kind::Read),
        rotated("write-rotated", Kind::Write),
        rotated("admin-rotated", Kind::Admin),
        refused("rotated-never", "no earlier keys, said", &[0]),
        refused("rotated-short", "a byte of them is missing", &older[..32]),
        refused("rotated-often", "more rotations than there can be", &many),
    ]
}

/// Objects of two epochs before one who has the secrets of both.
fn epochs() -> Vec<Made> {
    const BLOCK: u16 = 4;
    const BIRTH: [u8; 16] = [9; 16];
    let keys =
        |secret: &[u8; 32], epoch| independent::Block::new(secret, &database().0, BLOCK, &BIRTH, epoch);
    let (first, second) = (keys(&OLDER, 0), keys(&READ_SECRET, 1));
    let chunk = |(id, sealed): ([u8; 32], Vec<u8>), epoch: u32| {
        Builder::default()
            .hex("read secret", &OLDER)
            .hex("read secret 2", &READ_SECRET)
            .hex("database", &database().0)
            .text("block", BLOCK)
            .hex("birth", &BIRTH)
            .text("epoch", epoch)
            .text("kind", "chunk")
            .text("level", 0)
            .text("data id", 7)
            .text("index", 9)
            .hex("id", &id)
            .hex("sealed", &sealed)
    };
    let older = || first.chunk(7, 9, b"from before");
    let newer = || second.chunk(7, 9, b"from after");
    let wrong = keys(&READ_SECRET, 0).chunk(7, 9, b"the last secret under the first epoch");
    vec![
        good("open", "epoch-present", "under the present key", chunk(newer(), 1)),
        good("open", "epoch-before", "from before the last rotation", chunk(older(), 1)),
        good("open", "epoch-still", "before the block had a second epoch", chunk(older(), 0)),
        bad("open", "epoch-after", "of an epoch that the block has not reached", chunk(newer(), 0)),
        bad("open", "epoch-mixed", "the secret of another epoch", chunk(wrong, 1)),
    ]
}

/// The secrets of all epochs up to a number, where there are several.
pub fn secrets(inputs: &Lines, epoch: u32) -> Option<Vec<Secret>> {
    find(inputs, "read secret 2")?;
    let secrets = ["read secret", "read secret 2"].map(|name| Secret::new(array(inputs, name)));
    Some(secrets.into_iter().take(epoch as usize + 1).collect())
}
