//! Neighbours over loopback that have, lack, lie about and keep silent about pieces.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::PieceLength;
use crate::crypt::Secret;
use crate::net::gossip::{GossipOptions, Pieces, Run};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

const VERSION: InfoHash = InfoHash([5; 20]);
const PIECES: u32 = 21;
const LONG: Duration = Duration::from_secs(120);

type Read = fn(InfoHash, PieceIndex) -> Option<Vec<u8>>;
type Taken = Mutex<BTreeMap<PieceIndex, Vec<u8>>>;

/// One that takes part.
struct Device {
    gossip: Gossip,
    asks: Asks,
}

/// Pieces of three runs, but for the last: more than is under way at a time.
fn content(piece: PieceIndex) -> Vec<u8> {
    let bytes = if piece.0 + 1 == PIECES { 100_000 } else { 512 << 10 };
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&piece.0.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

fn hashes() -> PieceHashes {
    let length = PieceLength::from_log2(19).unwrap();
    let all: Vec<PieceIndex> = all();
    let image_bytes = all.iter().map(|piece| content(*piece).len() as u64).sum();
    PieceHashes {
        length,
        image_bytes,
        hashes: all.iter().map(|piece| hash_piece(&content(*piece))).collect(),
    }
}

fn all() -> Vec<PieceIndex> {
    (0..PIECES).map(PieceIndex).collect()
}

fn honest(infohash: InfoHash, piece: PieceIndex) -> Option<Vec<u8>> {
    (infohash == VERSION && piece.0 < PIECES).then(|| content(piece))
}

fn half(infohash: InfoHash, piece: PieceIndex) -> Option<Vec<u8>> {
    honest(infohash, piece).filter(|_| piece.0.is_multiple_of(2))
}

fn lying(infohash: InfoHash, piece: PieceIndex) -> Option<Vec<u8>> {
    let mut bytes = honest(infohash, piece)?;
    *bytes.last_mut()? ^= 1;
    Some(bytes)
}

async fn gossip() -> (Gossip, mpsc::Receiver<Event>) {
    let options = GossipOptions {
        meets: true,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        torrent_port: 1,
        secret: Secret::new([7; 32]),
        limit_up: None,
        limit_down: None,
    };
    Gossip::start(options).await.unwrap()
}

async fn device(read: Read) -> Device {
    let (gossip, mut events) = gossip().await;
    let asks = Asks::default();
    let shelf = Arc::new(Shelf { read: Box::new(read), run_bytes: RUN_BYTES_MAX });
    let (hearing, ear) = (asks.clone(), gossip.clone());
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            hearing.hear(&ear, event, &shelf);
        }
    });
    Device { gossip, asks }
}

/// A neighbour of a kilofs that does not know the question: it listens and says nothing.
async fn mute() -> Gossip {
    let (gossip, mut events) = gossip().await;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    gossip
}

async fn connect(one: &Device, other: &Gossip) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
    one.gossip.candidates([address], true);
    until(|| one.gossip.neighbours().iter().any(|known| known.gossip == address)).await;
}

/// Waits until no connection is replaced any more by one that the other side dialled.
async fn settle(device: &Device) {
    let ids = || device.gossip.neighbours().iter().map(|one| one.id).collect::<Vec<_>>();
    let mut before = Vec::new();
    while before.is_empty() || before != ids() {
        before = ids();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn until(done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap();
}

async fn ask(device: &Device, pieces: &[PieceIndex], deadline: Duration, taken: &Taken) -> Vec<PieceIndex> {
    let hashes = hashes();
    let accept = |piece: PieceIndex, bytes: &[u8]| take(&hashes, taken, piece, bytes);
    let asking = &device.asks.asking;
    Call::new(&device.gossip, asking, VERSION, &hashes, pieces).run(deadline, &accept).await
}

fn take(hashes: &PieceHashes, taken: &Taken, piece: PieceIndex, bytes: &[u8]) -> bool {
    let sound = hashes.hash_of(piece) == Some(&hash_piece(bytes));
    if sound {
        taken.lock().insert(piece, bytes.to_vec());
    }
    sound
}

/// Asks for all pieces as the rest of a version is asked for.
async fn draw(device: &Device, taken: &Taken) -> Vec<PieceIndex> {
    let (hashes, ahead) = (hashes(), Mutex::new(all().into_iter()));
    let accept = |piece: PieceIndex, bytes: &[u8]| take(&hashes, taken, piece, bytes);
    let drawing = |bytes: u64| {
        let count = bytes.div_ceil(hashes.length.bytes()) as usize;
        ahead.lock().by_ref().take(count).collect()
    };
    let asking = &device.asks.asking;
    let call = Call::drawing(&device.gossip, asking, VERSION, &hashes, &drawing, Duration::ZERO);
    call.run(LONG, &accept).await
}

async fn brings_all(device: &Device) {
    let taken = Taken::default();
    assert_eq!(ask(device, &all(), LONG, &taken).await, []);
    let taken = taken.into_inner();
    assert_eq!(taken.keys().copied().collect::<Vec<_>>(), all());
    assert!(taken.iter().all(|(piece, bytes)| *bytes == content(*piece)));
    assert_eq!(device.asks.asking.kept(), (0, 0), "nothing is kept of a call that has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_neighbours_bring_a_version_between_them() {
    static READ: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    fn counted<const WHO: usize>(infohash: InfoHash, piece: PieceIndex) -> Option<Vec<u8>> {
        READ[WHO].fetch_add(1, Ordering::SeqCst);
        honest(infohash, piece)
    }
    let (a, b, c) = (device(honest).await, device(counted::<0>).await, device(counted::<1>).await);
    connect(&a, &b.gossip).await;
    connect(&a, &c.gossip).await;
    brings_all(&a).await;
    assert!(READ.iter().all(|read| read.load(Ordering::SeqCst) > 0), "both were asked");
    let (fetched, _) = a.gossip.traffic();
    assert!(fetched > hashes().image_bytes, "it is counted like all that neighbours say");
    until(|| b.gossip.traffic().1 + c.gossip.traffic().1 > hashes().image_bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_lacks_another_brings() {
    let (a, b, c) = (device(half).await, device(half).await, device(honest).await);
    connect(&a, &b.gossip).await;
    let odd: Vec<PieceIndex> = all().into_iter().filter(|piece| piece.0 % 2 == 1).collect();
    let (taken, short) = (Taken::default(), Duration::from_secs(6));
    assert_eq!(ask(&a, &all(), short, &taken).await, odd);
    assert_eq!(taken.into_inner().len(), all().len() - odd.len());
    connect(&a, &c.gossip).await;
    brings_all(&a).await;
    let beyond = [PieceIndex(PIECES)];
    assert_eq!(ask(&a, &beyond, short, &Taken::default()).await, beyond, "there is no such piece");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_refused_and_another_brings_the_pieces() {
    let (a, liar, b) = (device(honest).await, device(lying).await, device(honest).await);
    connect(&a, &liar.gossip).await;
    let id = a.gossip.neighbours()[0].id;
    let taken = Taken::default();
    // It is parted from after the third lie, and may come back to lie again.
    for _ in 0..3 {
        assert_eq!(ask(&a, &[PieceIndex(0)], Duration::from_secs(1), &taken).await, [PieceIndex(0)]);
    }
    assert!(taken.into_inner().is_empty());
    until(|| a.gossip.neighbours().iter().all(|one| one.id != id)).await;
    connect(&a, &b.gossip).await;
    connect(&a, &liar.gossip).await;
    brings_all(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_leads_to_the_next_and_to_the_deadline() {
    let (a, silent, b) = (device(honest).await, mute().await, device(honest).await);
    connect(&a, &silent).await;
    let taken = Taken::default();
    assert_eq!(ask(&a, &all(), Duration::from_secs(2), &taken).await, all());
    connect(&a, &b.gossip).await;
    brings_all(&a).await;
    // Both unknown again: what the silent one was asked for is asked of the other.
    let c = device(honest).await;
    connect(&c, &silent).await;
    connect(&c, &b.gossip).await;
    brings_all(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_meanwhile_is_asked_and_who_leaves_is_made_up_for() {
    let (a, b, c) = (device(honest).await, device(half).await, device(honest).await);
    let coming = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        connect(&a, &b.gossip).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        for one in a.gossip.neighbours() {
            a.gossip.part(one.id);
        }
        connect(&a, &c.gossip).await;
    };
    tokio::join!(brings_all(&a), coming);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_the_same_pieces_share_what_comes() {
    let (a, b) = (device(honest).await, device(honest).await);
    connect(&a, &b.gossip).await;
    let (one, two) = (Taken::default(), Taken::default());
    let first = [PieceIndex(3), PieceIndex(4)];
    let all = all();
    let (left, left_too) = tokio::join!(ask(&a, &all, LONG, &one), ask(&a, &first, LONG, &two));
    assert_eq!((left, left_too), (vec![], vec![]));
    assert_eq!(one.into_inner().len(), all.len());
    assert_eq!(two.into_inner().into_keys().collect::<Vec<_>>(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_and_what_is_too_long_ends_the_talk() {
    let a = device(honest).await;
    let (raw, mut events) = gossip().await;
    connect(&a, &raw).await;
    let run = |piece, offset, bytes| Run { infohash: VERSION, piece: PieceIndex(piece), offset, bytes };
    let id = a.gossip.neighbours()[0].id;
    assert_eq!(raw.tell(&Message::Piece(run(0, 0, vec![1; 99])), None), 1);
    until(|| a.gossip.neighbours().iter().all(|one| one.id != id)).await;
    assert_eq!(a.asks.asking.kept(), (0, 0));
    while !matches!(events.recv().await.unwrap(), Event::Left(_)) {}
    connect(&a, &raw).await;
    let last = PieceIndex(PIECES - 1);
    let asked = [last];
    let taken = Taken::default();
    let answering = async {
        let mut parted = false;
        while !parted {
            match events.recv().await.unwrap() {
                Event::Said(from, Message::Ask(asked)) => {
                    assert_eq!(asked, Pieces { infohash: VERSION, pieces: vec![last] });
                    assert_eq!(a.asks.asking.kept(), (1, 0));
                    // A part from the middle is passed over, one beyond the end is too much.
                    raw.say(from, &Message::Piece(run(last.0, 7, vec![1; 9])));
                    raw.say(from, &Message::Piece(run(last.0, 0, vec![1; 99_999])));
                    raw.say(from, &Message::Piece(run(last.0, 99_999, vec![1; 2])));
                }
                Event::Left(_) => parted = true,
                _ => {}
            }
        }
    };
    let (left, ()) = tokio::join!(ask(&a, &asked, Duration::from_secs(2), &taken), answering);
    assert_eq!(left, asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_version_comes_once_from_whoever_has_it() {
    let (a, b, c, poor) =
        (device(honest).await, device(honest).await, device(half).await, device(|_, _| None).await);
    for one in [&b, &c, &poor] {
        connect(&a, &one.gossip).await;
    }
    settle(&a).await;
    let taken = Taken::default();
    assert_eq!(draw(&a, &taken).await, []);
    assert_eq!(taken.into_inner().len(), all().len());
    let (fetched, _) = a.gossip.traffic();
    assert!(fetched < hashes().image_bytes + (64 << 10), "{fetched} bytes for {}", hashes().image_bytes);
    assert_eq!(a.asks.asking.kept(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_has_more_it_ends_without_waiting() {
    let (a, b, c) = (device(honest).await, device(half).await, device(|_, _| None).await);
    connect(&a, &b.gossip).await;
    connect(&a, &c.gossip).await;
    let (begun, taken) = (std::time::Instant::now(), Taken::default());
    let odd: Vec<PieceIndex> = all().into_iter().filter(|piece| piece.0 % 2 == 1).collect();
    assert_eq!(draw(&a, &taken).await, odd);
    assert_eq!(taken.into_inner().len(), all().len() - odd.len());
    assert!(begun.elapsed() < LONG / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_and_a_silent_one_do_not_keep_all_from_coming() {
    let (a, liar, silent, b) =
        (device(honest).await, device(lying).await, mute().await, device(honest).await);
    connect(&a, &liar.gossip).await;
    connect(&a, &silent).await;
    connect(&a, &b.gossip).await;
    let taken = Taken::default();
    assert_eq!(draw(&a, &taken).await, []);
    let taken = taken.into_inner();
    assert!(taken.len() == all().len() && taken.iter().all(|(piece, bytes)| *bytes == content(*piece)));
}
