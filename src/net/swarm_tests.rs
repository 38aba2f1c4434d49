#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::{DatabaseId, PieceHashes, PieceLength, REGION_BYTES};
use crate::image::{Counters, Incoming, MemoryDisk, Stream, hash_pieces};
use std::net::Ipv4Addr;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);
const LENGTH: PieceLength = PieceLength::BULK;
/// So much of a region that no other such object fits into it.
const OBJECT_BYTES: usize = REGION_BYTES as usize - 4096;

/// A device: a swarm, a store, and what is to be seeded or fetched.
struct Device {
    swarm: Swarm,
    store: Arc<Store>,
    _folder: TempDir,
}

impl Device {
    async fn new() -> Device {
        let folder = TempDir::new().unwrap();
        let options = SwarmOptions::new((Ipv4Addr::LOCALHOST, 0).into(), folder.path().join("swarm"));
        let store = Store::create(Arc::new(MemoryDisk::new()), DatabaseId([1; 32])).unwrap();
        Device { swarm: Swarm::start(options).await.unwrap(), store, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.swarm.port()).into()
    }

    /// An image whose regions are filled with noise from these seeds, one a region.
    fn image(&self, base: &Image, seeds: &[u64]) -> Image {
        let draft = self.store.draft(base).unwrap();
        for seed in seeds {
            draft.append(Stream::Fresh, &noise(*seed, OBJECT_BYTES)).unwrap();
        }
        draft.snapshot().unwrap()
    }

    fn metainfo(&self, image: &Image) -> Metainfo {
        Metainfo { hashes: hash_pieces(&self.store, image, LENGTH, None, &Counters::default()).unwrap() }
    }

    fn incoming(&self, hashes: &PieceHashes, bases: &[(Image, PieceHashes)]) -> Arc<Incoming> {
        Arc::new(self.store.incoming(hashes.clone(), bases).unwrap())
    }

    /// A version of which some pieces are here, of those that `other` has.
    fn with_some(&self, other: &Device, image: &Image, some: impl Fn(u32) -> bool) -> Arc<Incoming> {
        let whole = other.read(image);
        let incoming = self.incoming(&other.metainfo(image).hashes, &[]);
        for piece in incoming.missing().into_iter().filter(|piece| some(piece.0)) {
            let start = LENGTH.start_of(piece) as usize;
            let bytes = incoming.hashes().bytes_of(piece) as usize;
            incoming.accept(piece, &whole[start..start + bytes]).unwrap();
        }
        incoming
    }

    /// Serves what is here of an image that is here in part.
    async fn seed_part(&self, metainfo: &Metainfo, incoming: &Incoming) {
        let part = incoming.finish_partial().unwrap();
        self.swarm.seed(metainfo, &self.store, &part).await.unwrap();
    }

    fn read(&self, image: &Image) -> Vec<u8> {
        let mut bytes = vec![0; image.bytes() as usize];
        self.store.read(image, 0, &mut bytes).unwrap();
        bytes
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_mebibytes_travel_with_nothing_known_but_the_infohash() {
    let (a, b, c) = (Device::new().await, Device::new().await, Device::new().await);
    let image = a.image(&Image::empty(&a.store), &[1, 2, 3, 4, 5, 6, 7, 8]);
    let metainfo = a.metainfo(&image);
    a.swarm.seed(&metainfo, &a.store, &image).await.unwrap();

    let infohash = metainfo.infohash();
    let info = b.swarm.metainfo(infohash, &[a.address()], PATIENCE).await.unwrap();
    assert_eq!(info, metainfo.info_bytes());
    let incoming = b.incoming(&metainfo.hashes, &[]);
    b.swarm.fetch(&metainfo, &incoming, &[a.address()], PATIENCE).await.unwrap();
    let fetched = incoming.finish().unwrap();
    assert_eq!(b.read(&fetched), a.read(&image));
    let bytes = image.bytes();
    let traffic = b.swarm.traffic();
    assert_eq!((traffic.payload_fetched, traffic.metainfo_fetched), (bytes, info.len() as u64));
    assert_eq!(a.swarm.traffic().payload_sent, bytes);

    // What was fetched is served on, before and after the image takes over.
    b.swarm.seed(&metainfo, &b.store, &fetched).await.unwrap();
    a.swarm.stop().await;
    let incoming = c.incoming(&metainfo.hashes, &[]);
    c.swarm.fetch(&metainfo, &incoming, &[a.address(), b.address()], PATIENCE).await.unwrap();
    assert_eq!(c.read(&incoming.finish().unwrap()), a.read(&image));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_changed_pieces_are_fetched() {
    let (a, b) = (Device::new().await, Device::new().await);
    let old = a.image(&Image::empty(&a.store), &[1, 2, 3, 4]);
    let old_b = b.image(&Image::empty(&b.store), &[1, 2, 3, 4]);
    let (before, before_b) = (a.metainfo(&old), b.metainfo(&old_b));
    assert_eq!(before, before_b);
    let new = a.image(&old, &[5]);
    let after = a.metainfo(&new);
    a.swarm.seed(&after, &a.store, &new).await.unwrap();

    let incoming = b.incoming(&after.hashes, &[(old_b, before_b.hashes)]);
    let missing = incoming.have().iter().filter(|have| !**have).count() as u64;
    assert_eq!(missing * LENGTH.bytes(), REGION_BYTES);
    b.swarm.fetch(&after, &incoming, &[a.address()], PATIENCE).await.unwrap();
    assert_eq!(b.read(&incoming.finish().unwrap()), a.read(&new));
    assert_eq!(b.swarm.traffic().payload_fetched, REGION_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_without_a_seeder_ends_in_time_and_can_be_taken_up_again() {
    let (a, b) = (Device::new().await, Device::new().await);
    let image = a.image(&Image::empty(&a.store), &[1, 2]);
    let metainfo = a.metainfo(&image);
    let gone = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let incoming = b.incoming(&metainfo.hashes, &[]);
    let begun = Instant::now();
    for peers in [&[][..], &[gone], &[a.address()]] {
        let fetched = b.swarm.fetch(&metainfo, &incoming, peers, Duration::from_secs(1)).await;
        assert!(matches!(fetched, Err(NetError::NoSource(_))), "{fetched:?}");
        let found = b.swarm.metainfo(metainfo.infohash(), peers, Duration::from_millis(500)).await;
        assert!(matches!(found, Err(NetError::NoSource(_))), "{found:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));

    // A peer that refused at first is asked again well before its back-off of 10 s.
    let seeding = async {
        sleep(Duration::from_millis(700)).await;
        a.swarm.seed(&metainfo, &a.store, &image).await.unwrap();
        Instant::now()
    };
    let peers = [a.address()];
    let (fetched, seeded) = tokio::join!(b.swarm.fetch(&metainfo, &incoming, &peers, PATIENCE), seeding);
    fetched.unwrap();
    assert!(seeded.elapsed() < Duration::from_secs(5), "{:?}", seeded.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_named_later_are_asked_at_once() {
    let (a, b) = (Device::new().await, Device::new().await);
    let image = a.image(&Image::empty(&a.store), &[1, 2]);
    let metainfo = a.metainfo(&image);
    a.swarm.seed(&metainfo, &a.store, &image).await.unwrap();
    let incoming = b.incoming(&metainfo.hashes, &[]);
    let naming = async {
        sleep(Duration::from_millis(300)).await;
        let busy = b.swarm.fetch(&metainfo, &incoming, &[], PATIENCE).await;
        assert!(matches!(busy, Err(NetError::Busy(_))), "{busy:?}");
        b.swarm.add_peers(metainfo.infohash(), &[a.address()]);
        Instant::now()
    };
    let (fetched, named) = tokio::join!(b.swarm.fetch(&metainfo, &incoming, &[], PATIENCE), naming);
    fetched.unwrap();
    assert!(named.elapsed() < Duration::from_secs(3), "{:?}", named.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_piece_is_never_accepted() {
    let (good, bad, b) = (Device::new().await, Device::new().await, Device::new().await);
    let image = good.image(&Image::empty(&good.store), &[1, 2, 3]);
    let metainfo = good.metainfo(&image);
    // The same torrent over other bytes: uploads are not checked.
    let poison = bad.image(&Image::empty(&bad.store), &[1, 66, 3]);
    bad.swarm.seed(&metainfo, &bad.store, &poison).await.unwrap();

    let incoming = b.incoming(&metainfo.hashes, &[]);
    let alone = b.swarm.fetch(&metainfo, &incoming, &[bad.address()], Duration::from_secs(2)).await;
    assert!(matches!(alone, Err(NetError::NoSource(_))), "{alone:?}");
    assert!(!incoming.complete());

    good.swarm.seed(&metainfo, &good.store, &image).await.unwrap();
    let both = [bad.address(), good.address()];
    b.swarm.fetch(&metainfo, &incoming, &both, PATIENCE).await.unwrap();
    assert_eq!(b.read(&incoming.finish().unwrap()), good.read(&image));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_fetch_leaves_nothing_behind_and_a_restarted_session_starts_empty() {
    let b = Device::new().await;
    let image = b.image(&Image::empty(&b.store), &[1]);
    let metainfo = b.metainfo(&image);
    let other = Device::new().await;
    let incoming = other.incoming(&metainfo.hashes, &[]);
    let peers = [b.address()];
    let fetch = other.swarm.fetch(&metainfo, &incoming, &peers, PATIENCE);
    assert!(timeout(Duration::from_millis(300), fetch).await.is_err());
    let end = Instant::now() + PATIENCE;
    while !other.swarm.torrents().is_empty() {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(10)).await;
    }

    let folder = TempDir::new().unwrap();
    let port = {
        let options = SwarmOptions::new((Ipv4Addr::LOCALHOST, 0).into(), folder.path().into());
        let swarm = Swarm::start(options).await.unwrap();
        swarm.seed(&metainfo, &b.store, &image).await.unwrap();
        let taken = Swarm::start(SwarmOptions::new(swarm.0.listen, folder.path().join("other"))).await;
        assert!(matches!(taken, Err(NetError::Bind { .. })));
        assert!(folder.path().join("session.json").exists());
        swarm.port()
    };
    let options = SwarmOptions::new((Ipv4Addr::LOCALHOST, port).into(), folder.path().into());
    let swarm = loop {
        match Swarm::start(options.clone()).await {
            Err(NetError::Bind { .. }) => sleep(Duration::from_millis(50)).await,
            started => break started.unwrap(),
        }
        assert!(Instant::now() < end + PATIENCE, "the port of a dropped swarm stays taken");
    };
    assert!(swarm.0.session.with_torrents(|torrents| torrents.next().is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_part_serves_that_part() {
    let (a, b, c, d) = (Device::new().await, Device::new().await, Device::new().await, Device::new().await);
    let image = a.image(&Image::empty(&a.store), &[1, 2, 3, 4]);
    let metainfo = a.metainfo(&image);
    b.seed_part(&metainfo, &b.with_some(&a, &image, |piece| piece % 2 == 0)).await;
    let incoming = d.incoming(&metainfo.hashes, &[]);
    let half = image.bytes() / 2;
    let alone = d.swarm.fetch(&metainfo, &incoming, &[b.address()], Duration::from_secs(3)).await;
    assert!(matches!(alone, Err(NetError::NoSource(_))), "{alone:?}");
    assert_eq!(incoming.missing().len() as u64 * LENGTH.bytes(), half, "all that b has, and nothing else");
    c.seed_part(&metainfo, &c.with_some(&a, &image, |piece| piece % 2 == 1)).await;
    d.swarm.fetch(&metainfo, &incoming, &[b.address(), c.address()], PATIENCE).await.unwrap();
    assert_eq!(d.read(&incoming.finish().unwrap()), a.read(&image));
    assert_eq!((b.swarm.traffic().payload_sent, c.swarm.traffic().payload_sent), (half, half));
}

#[test]
fn info_is_found_in_a_torrent_file_only_if_it_hashes_to_its_name() {
    let torrent = b"d8:announce0:13:announce-listllee4:infod6:lengthi1eee";
    let info = b"d6:lengthi1ee";
    let infohash = InfoHash(Sha1::digest(info).into());
    assert_eq!(info_of(torrent, infohash), Some(&info[..]));
    assert_eq!(info_of(torrent, InfoHash([0; 20])), None);
    for broken in [&b""[..], b"4:info", b"d4:infoe"] {
        assert_eq!(info_of(broken, infohash), None);
    }
}
