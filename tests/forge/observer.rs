//! What somebody without keys sees of two databases, measured: at a node of the DHT, as a peer in the swarm, and in the store
//! of a mirror. What has to be equal is asserted, the rest printed; kilofs(7) says the same.

use super::harness::{Device, Dice, NAME, World};
use super::process::wait_until;
use kilofs::base::{InfoHash, PublicKey};
use kilofs::crypt::link;
use kilofs::net::{Dht, DhtOptions, Swarm, SwarmOptions};
use kilofs::torrent::{Limits, Metainfo, difference};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::runtime::Runtime;

const STALL: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits { metainfo_bytes_max: 8 << 20, image_bytes_max: 1 << 32 };
const REGION_BYTES: u64 = 1 << 20;
const RECORD_BYTES: usize = 995;

/// Somebody who has a node of the DHT and a client for torrents, and no link.
struct Observer {
    runtime: Runtime,
    dht: Dht,
    swarm: Swarm,
}

/// What is seen of one database at a time.
#[derive(Debug, PartialEq)]
struct Seen {
    seq: i64,
    record_bytes: usize,
    lifeline_bytes: usize,
    lifeline_seq: i64,
    info_bytes: usize,
    image_bytes: u64,
    piece_bytes: u64,
    /// Pieces that are not all zeros: how far regions are filled.
    used_pieces: usize,
}

impl Observer {
    fn new(world: &World) -> Observer {
        let runtime = Runtime::new().unwrap();
        let (dht, swarm) = runtime.block_on(async {
            let options = DhtOptions {
                bootstrap: vec![world.bootstrap()],
                bind: Some(Ipv4Addr::LOCALHOST),
                ..DhtOptions::default()
            };
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let swarm = Swarm::start(SwarmOptions::new(listen, world.place("observer"))).await.unwrap();
            (Dht::start(options).await.unwrap(), swarm)
        });
        Observer { runtime, dht, swarm }
    }

    fn item(&self, key: &PublicKey) -> (i64, Vec<u8>) {
        let mut item = None;
        wait_until("the item is in the DHT", || {
            let found = self.runtime.block_on(self.dht.get(key, None));
            item = found.ok().and_then(|found| found.items.into_iter().next());
            item.is_some()
        });
        let item = item.unwrap();
        (item.seq, item.value)
    }

    /// Looks at the database of a device, and takes its metainfo as any peer may that has seen the infohash on the wire.
    fn look(&self, device: &Device) -> (Seen, Metainfo, Vec<u8>) {
        let keys = link::parse(device.link("mirror").trim(), || None).unwrap();
        let (seq, record) = self.item(&keys.database_public);
        let (lifeline_seq, lifeline) = self.item(&keys.admin_public);
        let status = device.status();
        let infohash = InfoHash::from_hex(status["versions"][0]["infohash"].as_str().unwrap()).unwrap();
        let peer = status["listen"].as_str().unwrap().parse().unwrap();
        let info = self.runtime.block_on(self.swarm.metainfo(infohash, &[peer], STALL)).unwrap();
        let metainfo = Metainfo::parse(&info, &LIMITS).unwrap();
        let length = metainfo.hashes.length;
        let zeros = kilofs::image::zero_piece_hash(length);
        let seen = Seen {
            seq,
            record_bytes: record.len(),
            lifeline_bytes: lifeline.len(),
            lifeline_seq,
            info_bytes: info.len(),
            image_bytes: metainfo.hashes.image_bytes,
            piece_bytes: length.bytes(),
            used_pieces: metainfo.hashes.hashes.iter().filter(|hash| **hash != zeros).count(),
        };
        (seen, metainfo, record)
    }
}

type Files = BTreeMap<String, Vec<u8>>;

/// A database that holds these files, each made in one go, and a mirror of it.
fn database(world: &World, label: &str, files: &Files) -> (Device, Device) {
    let device = world.creator(label);
    device.umount();
    device.mount_with(&["--offline"]);
    for (path, bytes) in files {
        let path = device.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    // One version of all of it.
    device.umount();
    device.mount();
    device.sync();
    device.json(&["block", NAME, "add", "/a-block"]);
    device.sync();
    let mirror = world.device(&format!("{label}-mirror"));
    mirror.join(&device.link("mirror"));
    mirror.mirror();
    wait_until("the mirror has all", || {
        let (held, made) = (mirror.status(), device.status());
        held["versions"][0]["complete"] == true
            && held["versions"][0]["infohash"] == made["versions"][0]["infohash"]
            && made["published"] == true
    });
    (device, mirror)
}

/// Letters: text that repeats itself, in names that tell what they are.
fn letters() -> Files {
    let text = "My dear friend, we meet at the usual place. ".repeat(800);
    (0..80)
        .map(|at| (format!("letters/to-my-friend-number-{at:03}.txt"), text.as_bytes()[..20_000].to_vec()))
        .collect()
}

/// As many files of the same size with other content, in other names of the same length.
fn noise() -> Files {
    let mut dice = Dice::new(7);
    (0..80).map(|at| (format!("records/of-the-laboratory-{at:04}.bin"), dice.bytes(20_000))).collect()
}

/// The same bytes in one file.
fn one_file() -> Files {
    Files::from([("all".to_owned(), Dice::new(8).bytes(80 * 20_000))])
}

fn tell(text: &str) {
    _ = writeln!(std::io::stderr(), "{text}");
}

fn store_bytes(mirror: &Device) -> u64 {
    let mut open = vec![mirror.home.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|name| name == "database") {
                return entry.metadata().unwrap().len();
            }
        }
    }
    panic!("the mirror has no store");
}

#[test]
fn content_names_and_kind_make_no_difference_to_an_observer() {
    let world = World::new();
    let observer = Observer::new(&world);
    let (one, one_mirror) = database(&world, "letters", &letters());
    let (other, other_mirror) = database(&world, "noise", &noise());
    let (seen_one, info_one, record_one) = observer.look(&one);
    let (seen_other, info_other, record_other) = observer.look(&other);
    tell(&format!("letters: {seen_one:?}\nnoise:   {seen_other:?}"));
    assert_eq!((seen_one.record_bytes, seen_one.lifeline_bytes), (RECORD_BYTES, RECORD_BYTES));
    // The sequence number counts what was published, however much it was. Where a fill ends may be a byte beyond a piece.
    let apart = |seen: &Seen| Seen { seq: 0, used_pieces: 0, ..*seen };
    assert_eq!(apart(&seen_one), apart(&seen_other));
    assert!(seen_one.used_pieces.abs_diff(seen_other.used_pieces) <= 1);
    assert_eq!(seen_one.image_bytes % REGION_BYTES, 0);
    // Nothing of one is found in the other: neither in the records nor among the pieces.
    let alike = record_one.iter().zip(&record_other).filter(|(one, other)| one == other).count();
    assert!(alike < 40, "{alike} of {RECORD_BYTES} bytes are equal; by chance some four are");
    let zeros = kilofs::image::zero_piece_hash(info_one.hashes.length);
    let shared = info_one
        .hashes
        .hashes
        .iter()
        .filter(|hash| **hash != zeros && info_other.hashes.hashes.contains(hash));
    assert_eq!(shared.count(), 0);
    // A mirror's store, which may be on a disk that somebody finds.
    assert_eq!(store_bytes(&one_mirror), store_bytes(&other_mirror));

    // One letter more, one record more.
    for (device, path, content) in
        [(&one, "letters/a-new-letter.txt", [b'x'; 300]), (&other, "records/a-new-record.bin", [0x9c; 300])]
    {
        device.write(path, &content);
        device.sync();
    }
    let changed = |before: &Metainfo, device: &Device| {
        let (seen, after, _) = observer.look(device);
        (seen.image_bytes, seen.info_bytes, difference(&before.hashes, &after.hashes).len())
    };
    let (of_one, of_other) = (changed(&info_one, &one), changed(&info_other, &other));
    tell(&format!("image bytes, info bytes, pieces changed by 300 bytes: {of_one:?} and {of_other:?}"));
    assert_eq!((of_one.0, of_one.1), (of_other.0, of_other.1));
    assert!(of_one.2.abs_diff(of_other.2) <= 1);
}

#[test]
fn what_an_observer_can_tell_apart() {
    let world = World::new();
    let observer = Observer::new(&world);
    let (many, many_mirror) = database(&world, "many", &noise());
    let (single, single_mirror) = database(&world, "single", &one_file());
    let (seen_many, ..) = observer.look(&many);
    let (seen_single, ..) = observer.look(&single);
    tell(&format!("80 files: {seen_many:?}\none file: {seen_single:?}"));
    // The number of files shows in nothing but what their names and times take.
    assert_eq!(seen_many.record_bytes, seen_single.record_bytes);
    assert_eq!(seen_many.lifeline_bytes, seen_single.lifeline_bytes);
    assert_eq!(seen_many.piece_bytes, seen_single.piece_bytes);
    assert_eq!(seen_many.image_bytes, seen_single.image_bytes);
    let apart = seen_many.used_pieces.abs_diff(seen_single.used_pieces) as u64 * seen_many.piece_bytes;
    assert!(apart <= 80 * 1024, "{apart} bytes for 79 files");
    tell(&format!("stores of mirrors: {} and {}", store_bytes(&many_mirror), store_bytes(&single_mirror)));
}
