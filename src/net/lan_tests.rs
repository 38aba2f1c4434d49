//! Announcements over the loopback interface, and what is not one.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::base::InfoHash;

const DEADLINE: Duration = Duration::from_secs(20);
const OURS: InfoHash = InfoHash([7; 20]);

/// A port that no other test uses: each has one UDP port of its own from the system.
fn own_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn options(port: u16, gossip_port: u16) -> LanOptions {
    LanOptions { gossip_port, torrent_port: gossip_port + 1, listen: Ipv4Addr::LOCALHOST.into(), port }
}

async fn ports_heard(found: &mut mpsc::Receiver<Nearby>, wanted: u16) -> Nearby {
    let heard = async {
        loop {
            let nearby = found.recv().await.unwrap();
            if nearby.gossip.port() == wanted {
                return nearby;
            }
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.expect("somebody is heard")
}

#[tokio::test]
async fn two_of_one_database_find_each_other_and_a_third_of_another_finds_nobody() {
    let port = own_port();
    let (one, mut heard_by_one) = Lan::start(options(port, 1001));
    one.announce(vec![OURS]);
    let (other, mut heard_by_other) = Lan::start(options(port, 3001));
    other.announce(vec![InfoHash([8; 20])]);
    let (two, mut heard_by_two) = Lan::start(options(port, 2001));
    two.announce(vec![InfoHash([9; 20]), OURS]);
    assert_eq!(ports_heard(&mut heard_by_one, 2001).await.torrents, (Ipv4Addr::LOCALHOST, 2002).into());
    assert_eq!(ports_heard(&mut heard_by_two, 1001).await.torrents, (Ipv4Addr::LOCALHOST, 1002).into());
    assert!(heard_by_other.try_recv().is_err());
}

#[tokio::test]
async fn what_is_no_announcement_is_nothing() {
    let speaker = Lan::start(options(own_port(), 1001)).0;
    let hearer = Lan::start(options(own_port(), 2001)).0;
    hearer.announce(vec![OURS]);
    let from: SocketAddr = "10.0.0.9:5".parse().unwrap();
    let good = speaker.inner.datagram(OURS);
    let nearby = hearer.inner.understand(&good, from).unwrap();
    assert_eq!(
        (nearby.gossip, nearby.torrents),
        ("10.0.0.9:1001".parse().unwrap(), "10.0.0.9:1002".parse().unwrap())
    );
    for length in 0..good.len() {
        assert_eq!(hearer.inner.understand(&good[..length], from), None, "{length} bytes");
    }
    assert_eq!(hearer.inner.understand(&[&good[..], &[0]].concat(), from), None);
    assert_eq!(hearer.inner.understand(&hearer.inner.datagram(OURS), from), None, "its own");
    for at in [0, 8, 17, 36] {
        let mut other = good.clone();
        other[at] ^= 1;
        assert_eq!(hearer.inner.understand(&other, from), None, "byte {at}");
    }
    let mut portless = good.clone();
    portless[37..39].fill(0);
    assert_eq!(hearer.inner.understand(&portless, from), None);
}
