//! Neighbours over loopback.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::InfoHash;
use crate::crypt::Secret;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

async fn start(secret: u8) -> (Gossip, mpsc::Receiver<Event>) {
    start_at(Ipv4Addr::LOCALHOST.into(), secret).await
}

async fn start_at(ip: IpAddr, secret: u8) -> (Gossip, mpsc::Receiver<Event>) {
    let options = GossipOptions {
        meets: true,
        listen: SocketAddr::from((ip, 0)),
        torrent_port: 4_000 + u16::from(secret),
        secret: Secret::new([secret; 32]),
        limit_up: None,
        limit_down: None,
    };
    Gossip::start(options).await.unwrap()
}

fn address(gossip: &Gossip) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, gossip.port()))
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap()
}

async fn met(events: &mut mpsc::Receiver<Event>) -> NeighbourId {
    match next(events).await {
        Event::Met(id) => id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_hear_what_is_told() {
    let ((a, mut at_a), (b, mut at_b)) = (start(1).await, start(1).await);
    a.candidates([address(&b)], false);
    met(&mut at_a).await;
    met(&mut at_b).await;
    assert_eq!(a.neighbours()[0].torrents.port(), 4_001);
    assert_eq!(a.tell(&Message::Have(InfoHash([3; 20])), None), 1);
    let Event::Said(from, message) = next(&mut at_b).await else { panic!() };
    assert_eq!(message, Message::Have(InfoHash([3; 20])));
    assert!(b.say(from, &Message::Kept(9)));
    assert!(matches!(next(&mut at_a).await, Event::Said(_, Message::Kept(9))));
    let (fetched, sent) = a.traffic();
    assert!(fetched > 0 && sent > 0);
    drop(b);
    assert!(matches!(next(&mut at_a).await, Event::Left(_)));
    assert!(a.neighbours().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_dial_each_other_keep_one_connection() {
    let ((a, _at_a), (b, _at_b)) = (start(1).await, start(1).await);
    a.candidates([address(&b)], true);
    b.candidates([address(&a)], true);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if a.neighbours().len() == 1 && b.neighbours().len() == 1 {
            break;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((a.neighbours().len(), b.neighbours().len()), (1, 1));
    assert_eq!(a.tell(&Message::Ping, None), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_is_found_through_the_second() {
    let ((a, mut at_a), (b, _at_b), (c, mut at_c)) = (start(1).await, start(1).await, start(1).await);
    a.candidates([address(&b)], false);
    met(&mut at_a).await;
    c.candidates([address(&b)], false);
    met(&mut at_c).await;
    // Both may dial: until one of the two connections is chosen the other may come and go.
    let both = async {
        while a.neighbours().len() != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), both).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_let_in_nor_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ((a, mut at_a), (b, _at_b)) = (start(1).await, start(2).await);
    b.candidates([address(&a)], false);
    let mut stream = tokio::net::TcpStream::connect(address(&a)).await.unwrap();
    stream.write_all(&[7; 64]).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(read.is_err() || answer.is_empty(), "an outsider learns nothing");
    assert!(a.neighbours().is_empty() && b.neighbours().is_empty());
    assert!(at_a.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_does_not_become_its_own_neighbour() {
    let (a, mut at_a) = start(1).await;
    let (b, mut at_b) = start(1).await;
    a.candidates([address(&a)], true);
    a.candidates([address(&b)], true);
    met(&mut at_a).await;
    met(&mut at_b).await;
    assert_eq!(a.neighbours().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_with_addresses_of_both_families_is_one_neighbour() {
    let (a, mut at_a) = start_at(Ipv6Addr::UNSPECIFIED.into(), 1).await;
    let (b, mut at_b) = start_at(Ipv6Addr::LOCALHOST.into(), 1).await;
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, a.port()));
    b.candidates([six], true);
    met(&mut at_b).await;
    met(&mut at_a).await;
    assert!(a.neighbours()[0].gossip.is_ipv6());
    // The other address is found later, as by a lookup, and again by hand.
    b.candidates([SocketAddr::from((Ipv4Addr::LOCALHOST, a.port()))], true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(b.neighbours()[0].gossip, six, "the first connection stays");
    assert!(at_a.try_recv().is_err() && at_b.try_recv().is_err(), "nobody came or went meanwhile");
    // Over IPv4 it is found all the same where that is the only way, and under its plain address.
    let (c, mut at_c) = start(1).await;
    c.candidates([SocketAddr::from((Ipv4Addr::LOCALHOST, a.port()))], true);
    met(&mut at_c).await;
    let seen = async {
        while !a.neighbours().iter().any(|one| one.gossip == address(&c)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_neighbour_says_of_its_own_addresses_is_told_to_others() {
    let ((a, mut at_a), (b, mut at_b)) = (start(1).await, start(1).await);
    let (elsewhere, mut there) = start_at(Ipv6Addr::LOCALHOST.into(), 1).await;
    b.candidates([address(&a)], false);
    met(&mut at_b).await;
    met(&mut at_a).await;
    let at_six = SocketAddr::from((Ipv6Addr::LOCALHOST, elsewhere.port()));
    let of_link = "[fe80::1]:7".parse().unwrap();
    assert_eq!(b.tell(&Message::Own(vec![of_link, at_six]), None), 1);
    // The one that was told dials it, and a newcomer hears of it.
    met(&mut there).await;
    drop((a, at_a));
    assert!(b.neighbours().len() <= 2);
}

/// Passes bytes both ways between whoever connects and `to`; connections that exist when `freeze` is called are dead from
/// then on, and neither end hears of it.
struct Line {
    address: SocketAddr,
    frozen: tokio::sync::watch::Sender<u64>,
}

impl Line {
    async fn to(to: SocketAddr) -> Line {
        use tokio::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, generation) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut generation = generation.clone();
                generation.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = generation.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Line { address, frozen }
    }

    fn freeze(&self) {
        self.frozen.send_modify(|generation| *generation += 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_network_lost_is_replaced_whoever_notices() {
    let ((a, mut at_a), (b, mut at_b)) = (start(1).await, start(1).await);
    let line = Line::to(address(&b)).await;
    a.candidates([line.address], true);
    met(&mut at_a).await;
    met(&mut at_b).await;
    // Only the side that dials is told: the other sees that the old connection is dead when the new one comes.
    line.freeze();
    a.network_changed();
    for events in [&mut at_a, &mut at_b] {
        let (mut left, mut met) = (false, false);
        while !(left && met) {
            match next(events).await {
                Event::Left(_) => left = true,
                Event::Met(_) => met = true,
                Event::Said(..) | Event::Heard(_) => {}
            }
        }
    }
    assert_eq!(a.tell(&Message::Have(InfoHash([3; 20])), None), 1);
    let Event::Said(_, message) = next(&mut at_b).await else { panic!() };
    assert_eq!(message, Message::Have(InfoHash([3; 20])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_lives_stays_when_the_network_changes() {
    let ((a, mut at_a), (b, mut at_b)) = (start(1).await, start(1).await);
    a.candidates([address(&b)], true);
    let (one, other) = (met(&mut at_a).await, met(&mut at_b).await);
    for gossip in [&a, &b] {
        gossip.network_changed();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let connected = |gossip: &Gossip| gossip.neighbours().iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!((connected(&a).len(), connected(&b).len()), (1, 1));
    // A ping may be slower than a connection on a machine that is busy; then a new one has taken the old one's place.
    let replaced = matches!(at_a.try_recv(), Ok(Event::Left(_) | Event::Met(_)));
    assert!(replaced || (connected(&a), connected(&b)) == (vec![one], vec![other]));
}
