//! What is fuzzed: every reader of bytes that somebody else chose, by name. Where such bytes come sealed or under a
//! checksum, these are made right first: a hostile member can do that too. Whatever is accepted must encode to the very
//! bytes that were read.
#![allow(clippy::unwrap_used)]

use kilofs::base::{BlockNumber, DatabaseId, Place, PublicKey, Writer};
use kilofs::crypt::envelope::{self, Letter};
use kilofs::crypt::successor::{open_successor, seal_terms};
use kilofs::crypt::{AdminKey, DatabaseKey, DeviceKey, Kind, database_id};
use kilofs::crypt::{KeyringError, RecordKey, Scope, SealKeys, Secret, keyring, link};
use kilofs::image::{Disk, Image, Kept, Label, MemoryDisk, Store, Stream};
use kilofs::map::{Fetch, FetchError, Map, NodeCache, Root};
use kilofs::net::gossip::Message;
use kilofs::record::{Announcement, BlockEntry, Charter, Commit, Policy, Record, SignedItem, open_lifeline};
use kilofs::torrent::{Limits, METAINFO_BYTES_MAX, Metainfo};
use kilofs::tree::{inode::InodeRecord, key::Key, value::DirEntry};
use std::sync::{Arc, OnceLock};

const DATABASE: DatabaseId = DatabaseId([7; 32]);
const IMAGE_BYTES_MAX: u64 = 1 << 40;
/// Of a lifeline that moved, behind the format: generation, infohash, digest.
const LIFELINE_HEAD_BYTES: usize = 4 + 20 + 32;

/// Reads `data` as what `target` names.
pub fn read(target: &str, data: &[u8]) {
    match target {
        "record" => record(data),
        "policy" => policy(data),
        "link" => link_text(data),
        "node" => node(data),
        "value" => value(data),
        "store" => store(data),
        "metainfo" => metainfo(data),
        "news" => news(data),
        "lifeline" => lifeline(data),
        "announcement" => announcement(data),
        "envelope" => envelope(data),
        other => panic!("nothing is called {other}"),
    }
}

fn record(plain: &[u8]) {
    let key = RecordKey::new(Secret::new([0x11; 32]));
    let sealed = key.seal(plain);
    if let Ok(record) = Record::decode(&key, &sealed) {
        let again = key.open(&record.encode_sealed(&key)).unwrap();
        assert_eq!(again, plain, "one encoding");
        assert!(!record.policy.verify(&DATABASE, &PublicKey([9; 32])));
    }
    assert!(Record::decode(&key, plain).is_err(), "nothing that was not sealed");
}

fn news(data: &[u8]) {
    if let Ok(Some(message)) = Message::decode(data) {
        assert_eq!(message.encode(), data, "one encoding");
    }
}

/// The inside of a lifeline behind the first byte, as it is where that is even; else the inside of one that moved: what comes
/// before the policy, and the policy under the last of the keys.
fn lifeline(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let admin = AdminKey::from_seed(&[1; 32]);
    let keys: [RecordKey; 3] = std::array::from_fn(|at| RecordKey::new(Secret::new([0x11 + at as u8; 32])));
    let plain = match how % 2 {
        0 => rest.to_vec(),
        _ => {
            let (head, inner) = rest.split_at(rest.len().min(LIFELINE_HEAD_BYTES));
            [&[2], head, &keys[2].seal(inner)].concat()
        }
    };
    let value = keys[0].seal(&plain);
    let signer = DatabaseKey::from_seed(&[1; 32]);
    for seq in [0, 1, 7] {
        let item = SignedItem::sign(&signer, seq, value.clone());
        let database = database_id(&admin.public());
        for known in 1..=keys.len() {
            if let Some(said) = open_lifeline(&item, &admin.public(), &keys[..known], &database) {
                assert!(said.policy.is_none_or(|policy| policy.verify(&database, &admin.public())));
                assert_eq!(said.moved.is_some(), plain[0] == 2);
            }
        }
    }
}

/// An announcement; or, where the first byte is odd, the terms in one.
fn announcement(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let secret = Secret::new([2; 32]);
    let bytes = match how % 2 {
        0 => rest.to_vec(),
        _ => {
            let mut writer = Writer::new();
            writer.u8(1).raw(&DATABASE.0).u32(1).varint(0).bytes(&seal_terms(&secret, rest));
            writer.0
        }
    };
    let Ok(announcement) = Announcement::decode(&bytes) else { return };
    assert_eq!(announcement.encode(), bytes, "one encoding");
    assert!(announcement.open(&DeviceKey::from_seed(&[4; 32]), None).is_none());
    if let Some((policy, charter)) = announcement.terms(&secret).filter(|_| how % 2 == 1) {
        let mut again = Writer::new();
        again.bytes(&policy.encode()).bytes(&charter.encode());
        assert_eq!(again.0, rest, "one encoding");
    }
}

/// What an envelope holds that somebody sealed to this device; and, as it is, an envelope.
fn envelope(data: &[u8]) {
    let (device, admin) = (DeviceKey::from_seed(&[3; 32]), AdminKey::from_seed(&[1; 32]));
    let database = database_id(&admin.public());
    for generation in [0u32, 1, 2] {
        // A seed is sealed to the device.
        _ = open_successor(&device, Some(&admin), &database, generation, data);
        assert!(open_successor(&DeviceKey::from_seed(&[4; 32]), None, &database, generation, data).is_none());
        let associated = [&database.0[..], &generation.to_le_bytes()].concat();
        let sealed = envelope::seal(&device.public(), Letter::Rotation, &associated, data).unwrap();
        if let Some(given) = open_successor(&device, None, &database, generation, &sealed) {
            assert_eq!((given.database_id(), given.generation()), (database, generation));
            assert!(given.admin_seed.is_none() && given.kind() <= Kind::Write);
        }
    }
}

fn policy(data: &[u8]) {
    if let Ok(policy) = Policy::decode(data) {
        assert_eq!(policy.encode(), data);
        assert!(!policy.supersedes(&policy));
    }
}

fn link_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(capability) = link::parse(text, || None) {
        let again = link::parse(&link::print(&capability), || None).unwrap();
        assert!(again == capability);
    }
}

/// A node alone in an image: level 1, length of the logical part 2, logical part, placements.
fn node(data: &[u8]) {
    let Some((level, rest)) = data.split_first() else { return };
    let Some((length, rest)) = rest.split_first_chunk() else { return };
    let Some((logical, placements)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
        return;
    };
    let keys =
        SealKeys::new(&Secret::new([2; 32]), Scope { database: DATABASE, block: BlockNumber(0), epoch: 0 });
    let mut sealed = Vec::new();
    let id = keys.seal_node(*level, logical, placements, &mut sealed);
    let place = Place { offset: 0, length: u32::try_from(sealed.len()).unwrap() };
    let image = Bytes(sealed);
    let cache = NodeCache::new(1 << 20);
    let map = Map::new(&keys, &image, &cache);
    let root = Root { level: *level, id, place };
    let _ = map.get(Some(&root), b"some key");
    let mut cursor = map.range(Some(&root), &[]);
    let mut last: Box<[u8]> = Box::default();
    while let Ok(Some(entry)) = cursor.next() {
        assert!(entry.key > last, "keys rise");
        last = entry.key;
    }
}

struct Bytes(Vec<u8>);

impl Fetch for Bytes {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, FetchError> {
        let start = usize::try_from(place.offset).map_err(|_| FetchError::OutOfRange(place))?;
        let end = start.checked_add(place.length as usize).ok_or(FetchError::OutOfRange(place))?;
        Ok(self.0.get(start..end).ok_or(FetchError::OutOfRange(place))?.to_vec())
    }
}

/// The first byte says what the rest is.
fn value(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let again = match kind % 8 {
        0 => InodeRecord::decode(bytes).ok().map(|record| record.encode().into_vec()),
        1 => DirEntry::decode(bytes).ok().map(|entry| entry.encode().into_vec()),
        2 => Key::decode(bytes).ok().map(|key| key.encode().into_vec()),
        3 => Charter::decode(bytes).ok().map(|charter| charter.encode()),
        4 => Commit::decode(bytes).ok().map(|commit| {
            assert!(!commit.verify(&DATABASE));
            commit.encode()
        }),
        5 => BlockEntry::decode(bytes).ok().map(|entry| {
            assert!(!entry.signature_valid(&DATABASE));
            entry.encode()
        }),
        6 => SignedItem::decode(bytes).ok().map(|item| item.encode()),
        _ => {
            // What is asked for before a passphrase is; opening would cost the time of Argon2.
            if let Err(error) = keyring::needs(bytes) {
                assert!(!matches!(error, KeyringError::WrongPassphrase));
            }
            None
        }
    };
    if let Some(again) = again {
        assert_eq!(again, bytes, "one encoding");
    }
}

fn metainfo(data: &[u8]) {
    let limits = Limits { metainfo_bytes_max: METAINFO_BYTES_MAX, image_bytes_max: IMAGE_BYTES_MAX };
    if let Ok(metainfo) = Metainfo::parse(data, &limits) {
        assert!(metainfo.hashes.image_bytes <= IMAGE_BYTES_MAX);
        assert!(Metainfo::parse(&metainfo.info_bytes(), &limits).is_ok_and(|again| again == metainfo));
    }
}

/// Patches to a sound store, four bytes each: which part, place 2, byte. Every hash that leads to what was changed is
/// made right afterwards.
fn store(data: &[u8]) {
    let template = template();
    let disk = Arc::new(template.disk.clone());
    for patch in data.chunks_exact(4).take(64) {
        let (offset, length) = template.parts[usize::from(patch[0]) % template.parts.len()];
        let at = u64::from(u16::from_le_bytes([patch[1], patch[2]])) % length;
        disk.write_at(offset + at, &[patch[3]]).unwrap();
    }
    template.make_right(&disk);
    let Ok(store) = Store::open(disk) else { return };
    let _ = store.check();
    let _ = store.log_batches();
    for Kept { image, .. } in store.kept() {
        let mut buffer = vec![0; 4096];
        let _ = store.read(&image, image.bytes().saturating_sub(4096), &mut buffer);
        let draft = store.draft(&image).unwrap();
        if draft.append(Stream::Fresh, b"goes on").is_ok() {
            let _ = draft.snapshot();
        }
    }
    let _ = store.commit(&store.kept(), b"next");
}

struct Template {
    disk: MemoryDisk,
    /// Offset and length of what may be patched: leaves first, then what names them, superblocks last.
    parts: Vec<(u64, u64)>,
}

const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 512 << 10];
const SUPERBLOCK_BYTES: u64 = 4096;
/// Magic, format, generation, database.
const MANIFEST_RUN_AT: usize = 8 + 4 + 8 + 32;

fn read_at(disk: &MemoryDisk, offset: u64, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; bytes as usize];
    disk.read_at(offset, &mut buffer).unwrap();
    buffer
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = Arc::new(MemoryDisk::new());
        let store = Store::create(disk.clone(), DATABASE).unwrap();
        let draft = store.draft(&Image::empty(&store)).unwrap();
        draft.append(Stream::Fresh, &[5; 5000]).unwrap();
        let image = draft.snapshot().unwrap();
        let kept = [Kept { label: Label(b"head".to_vec()), image }];
        store.commit_logged(&kept, b"some state", Some(0)).unwrap();
        store.log_append(b"a batch").unwrap();
        let superblock = read_at(&disk, SUPERBLOCK_OFFSETS[0], SUPERBLOCK_BYTES);
        let number = |at: usize| u64::from(u32::from_le_bytes(superblock[at..at + 4].try_into().unwrap()));
        let manifest = (number(MANIFEST_RUN_AT) * 4096, number(MANIFEST_RUN_AT + 4));
        // Whatever page hashes to something that the manifest, or what it names, says.
        let mut parts = vec![manifest];
        let mut at = 0;
        while at < parts.len() {
            let holder = read_at(&disk, parts[at].0, parts[at].1);
            for page in 256..disk.length().unwrap() / 4096 {
                for length in [4096, 36, 40, 10] {
                    let part = (page * 4096, length);
                    let hash = *blake3::hash(&read_at(&disk, part.0, part.1)).as_bytes();
                    if !parts.contains(&part) && holder.windows(32).any(|window| window == hash) {
                        parts.push(part);
                    }
                }
            }
            at += 1;
        }
        parts.reverse();
        parts.extend(SUPERBLOCK_OFFSETS.map(|offset| (offset, SUPERBLOCK_BYTES - 32)));
        Template { disk: (*disk).clone(), parts }
    })
}

impl Template {
    /// Recomputes every hash from the leaves up.
    fn make_right(&self, disk: &MemoryDisk) {
        let tables = &self.parts[..self.parts.len() - SUPERBLOCK_OFFSETS.len()];
        for (at, (offset, length)) in tables.iter().enumerate() {
            let was = *blake3::hash(&read_at(&self.disk, *offset, *length)).as_bytes();
            let is = *blake3::hash(&read_at(disk, *offset, *length)).as_bytes();
            for (holder, length) in &self.parts[at + 1..] {
                let original = read_at(&self.disk, *holder, *length);
                for (place, _) in original.windows(32).enumerate().filter(|(_, window)| *window == was) {
                    disk.write_at(holder + place as u64, &is).unwrap();
                }
            }
        }
        for offset in SUPERBLOCK_OFFSETS {
            let body = read_at(disk, offset, SUPERBLOCK_BYTES - 32);
            disk.write_at(offset + SUPERBLOCK_BYTES - 32, blake3::hash(&body).as_bytes()).unwrap();
        }
    }
}
