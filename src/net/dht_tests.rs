#![allow(clippy::unwrap_used)]

use super::*;
use crate::crypt::DatabaseKey;
use crate::net::Testnet;

async fn client(testnet: &Testnet) -> Dht {
    let options = DhtOptions {
        bootstrap: testnet.bootstrap(),
        bind: Some(Ipv4Addr::LOCALHOST),
        request_timeout: Duration::from_millis(500),
        ..DhtOptions::default()
    };
    Dht::start(options).await.unwrap()
}

async fn testnet(count: u16) -> Testnet {
    Testnet::start(Ipv4Addr::LOCALHOST, 0, count).await.unwrap()
}

fn values(found: &Found) -> Vec<(i64, &[u8])> {
    found.items.iter().map(|item| (item.seq, &item.value[..])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_is_put_found_and_replaced_only_on_top_of_what_was_read() {
    let testnet = testnet(8).await;
    let (writer, reader) = (client(&testnet).await, client(&testnet).await);
    let key = DatabaseKey::generate();
    assert!(writer.get(&key.public(), None).await.unwrap().items.is_empty());

    let first = SignedItem::sign(&key, 1, b"one".to_vec());
    assert!(writer.put(&first, None).await.unwrap() > 0);
    assert_eq!(values(&reader.get(&key.public(), None).await.unwrap()), [(1, &b"one"[..])]);

    writer.put(&SignedItem::sign(&key, 2, b"two".to_vec()), Some(1)).await.unwrap();
    let late = reader.put(&SignedItem::sign(&key, 3, b"three".to_vec()), Some(1)).await;
    assert!(matches!(late, Err(NetError::Superseded)), "{late:?}");
    let older = reader.put(&first, None).await;
    assert!(matches!(older, Err(NetError::Superseded)), "{older:?}");

    let found = reader.get(&key.public(), None).await.unwrap();
    assert_eq!(values(&found), [(2, &b"two"[..])]);
    let nothing_newer = reader.get(&key.public(), Some(2)).await.unwrap();
    assert!(nothing_newer.items.is_empty() && nothing_newer.answered > 0);
    let too_large = writer.put(&SignedItem::sign(&key, 4, vec![0; 996]), None).await;
    assert!(matches!(too_large, Err(NetError::ItemTooLarge(996))), "{too_large:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_differ_under_one_seq_are_all_found() {
    let testnet = testnet(8).await;
    let reader = client(&testnet).await;
    let key = DatabaseKey::generate();
    let (left, right) =
        (SignedItem::sign(&key, 7, b"left".to_vec()), SignedItem::sign(&key, 7, b"right".to_vec()));
    reader.put(&left, None).await.unwrap();
    let target = MutableItem::target_from_key(&key.public().0, None);
    let nodes = reader.node().unwrap().get_closest_nodes(target).await;
    put_at_one(nodes[0].address().into(), &target, &right).await;
    assert_eq!(values(&reader.get(&key.public(), None).await.unwrap()), [(7, &b"right"[..]), (7, b"left")]);
}

/// Stores an item at one node alone, with packets written by hand (BEP 5, BEP 44; `mainline` wants a `target` in a put too).
async fn put_at_one(node: SocketAddr, target: &Id, item: &SignedItem) {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let ask = async |parts: &[&[u8]]| {
        socket.send_to(&parts.concat(), node).await.unwrap();
        let mut answer = vec![0; 2048];
        let length = timeout(Duration::from_secs(2), socket.recv(&mut answer)).await.unwrap().unwrap();
        answer.truncate(length);
        answer
    };
    let answer =
        ask(&[b"d1:ad2:id20:", &[1; 20], b"6:target20:", target.as_bytes(), b"e1:q3:get1:t4:aaaa1:y1:qe"])
            .await;
    let at = answer.windows(8).position(|w| w == b"5:token4").unwrap() + 9;
    let token = &answer[at..at + 4];
    let (seq, value) = (format!("3:seqi{}e", item.seq), format!("1:v{}:", item.value.len()));
    let answer = ask(&[
        &[b"d1:ad2:id20:", &[1; 20][..], b"1:k32:", &item.key.0, seq.as_bytes()].concat(),
        &[
            b"3:sig64:",
            &item.signature.0[..],
            b"6:target20:",
            target.as_bytes(),
            b"5:token4:",
            token,
            value.as_bytes(),
            &item.value,
        ]
        .concat(),
        b"e1:q3:put1:t4:aaab1:y1:qe",
    ])
    .await;
    assert!(answer.ends_with(b"1:y1:re"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_found_under_the_port_that_they_announced() {
    let testnet = testnet(8).await;
    let (a, b, c) = (client(&testnet).await, client(&testnet).await, client(&testnet).await);
    let (infohash, other) = (InfoHash([3; 20]), InfoHash([4; 20]));
    a.announce(infohash, 4001).await.unwrap();
    b.announce(infohash, 4002).await.unwrap();
    let expected: Vec<SocketAddr> = [4001, 4002].map(|port| (Ipv4Addr::LOCALHOST, port).into()).into();
    assert_eq!(c.peers(infohash, Duration::from_secs(5)).await, expected);
    assert_eq!(c.peers(other, Duration::from_secs(5)).await, []);
    // Lookup and announcement of one infohash at once: neither swallows the other's answers.
    let (announced, found) =
        tokio::join!(c.announce(infohash, 4003), c.peers(infohash, Duration::from_secs(5)));
    announced.unwrap();
    assert!(found.len() >= 2, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_outlives_a_testnet_that_comes_back_empty() {
    let port = free_ports(0);
    let testnet = Testnet::start(Ipv4Addr::LOCALHOST, port, 5).await.unwrap();
    let client = client(&testnet).await;
    let key = DatabaseKey::generate();
    let item = SignedItem::sign(&key, 1, b"one".to_vec());
    client.put(&item, None).await.unwrap();
    client.announce(InfoHash([9; 20]), 4001).await.unwrap();
    drop(testnet);
    let end = Instant::now() + Duration::from_secs(20);
    let silence = loop {
        match client.get(&key.public(), None).await {
            Err(silence) => break silence,
            // A node lives on for a moment after its last handle is dropped.
            Ok(_) => assert!(Instant::now() < end, "the dropped testnet still answers"),
        }
    };
    assert!(matches!(silence, NetError::Unreachable), "{silence:?}");
    assert!(client.put(&item, None).await.is_err());

    let _testnet = Testnet::start(Ipv4Addr::LOCALHOST, port, 5).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while client.put(&item, None).await.is_err() {
        assert!(Instant::now() < end, "the client does not find the new nodes");
    }
    assert_eq!(client.get(&key.public(), None).await.unwrap().items, [item]);
    client.announce(InfoHash([9; 20]), 4001).await.unwrap();
    assert_eq!(client.peers(InfoHash([9; 20]), Duration::from_secs(5)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_started_before_its_bootstrap_node_finds_it_later() {
    let port = free_ports(1);
    let options = DhtOptions {
        bootstrap: vec![format!("127.0.0.1:{port}")],
        bind: Some(Ipv4Addr::LOCALHOST),
        request_timeout: Duration::from_millis(300),
        ..DhtOptions::default()
    };
    let client = Dht::start(options).await.unwrap();
    let key = DatabaseKey::generate();
    assert!(client.get(&key.public(), None).await.is_err());
    let _testnet = Testnet::start(Ipv4Addr::LOCALHOST, port, 3).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while client.get(&key.public(), None).await.is_err() {
        assert!(Instant::now() < end, "the client does not find its bootstrap node");
    }
}

/// The first of five consecutive UDP ports that are free now, below those that the system hands out; `lane` keeps the
/// tests of this file apart.
fn free_ports(lane: u16) -> u16 {
    let start = 20_000 + lane * 2_000 + (std::process::id() % 300) as u16 * 5;
    (start..start + 500)
        .step_by(5)
        .find(|first| {
            (*first..*first + 5).all(|port| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .unwrap()
}
