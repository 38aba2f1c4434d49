//! Where this device can be reached in either family: what a neighbour that came over one of them cannot see.

use super::message::OWN_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// An address for documentation (RFC 5737): nothing is sent to it, it is only asked from where that would be.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// What a dual-stack socket calls an IPv4 address, as that address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Whether an address means something at another device. One of a link does not: its interface has another number there.
pub(super) fn is_of_use(address: &SocketAddr) -> bool {
    let nowhere = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast();
    let of_link = matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    address.port() != 0 && !nowhere(address.ip()) && !of_link
}

/// Whether whoever dials `address` here reaches `listen`, as far as the address tells; or nobody.
pub(super) fn is_own(listen: SocketAddr, address: &SocketAddr) -> bool {
    let own = listen.ip();
    let here = address.ip() == own || own.is_unspecified() && address.ip().is_loopback();
    address.port() == 0 || here && address.port() == listen.port()
}

/// The addresses of this device at which somebody who is not on it reaches `listen`.
pub(super) fn own_addresses(listen: SocketAddr) -> Vec<SocketAddr> {
    let ips = match listen.ip() {
        ip if ip.is_loopback() => Vec::new(),
        IpAddr::V4(ip) if ip.is_unspecified() => source_v4().into_iter().map(IpAddr::V4).collect(),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
            let v6 = global_v6(&table).into_iter().map(IpAddr::V6);
            source_v4().into_iter().map(IpAddr::V4).chain(v6).collect()
        }
        ip => vec![ip],
    };
    let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, listen.port()));
    addresses.filter(is_of_use).take(OWN_MAX).collect()
}

/// From which address this device speaks to others over IPv4.
fn source_v4() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

/// The addresses of global scope in the kernel's table: address, index, prefix, scope, flags, name, in hexadecimal.
fn global_v6(table: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let ip = u128::from_str_radix(words.next()?, 16).ok()?;
        let scope = words.nth(2)?;
        (scope == "00").then(|| Ipv6Addr::from(ip)).filter(|ip| !ip.is_loopback())
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_addresses_of_global_scope_are_told() {
        let table = "fd000000000000000000000000000002 04 40 00 82     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe8000000000000000fc00fffe000001 04 40 20 80     eth0\nnonsense\n";
        assert_eq!(global_v6(table), ["fd00::2".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn addresses_that_lead_nowhere_elsewhere_are_not_told() {
        let use_of = |text: &str| is_of_use(&text.parse().unwrap());
        assert!(use_of("192.0.2.7:1") && use_of("[fd00::2]:1") && use_of("127.0.0.1:5"));
        for none in ["0.0.0.0:1", "[::]:1", "[fe80::1]:1", "224.0.0.1:1", "192.0.2.7:0"] {
            assert!(!use_of(none), "{none}");
        }
        assert!(own_addresses("127.0.0.1:5".parse().unwrap()).is_empty());
        assert_eq!(own_addresses("192.0.2.7:5".parse().unwrap()), ["192.0.2.7:5".parse().unwrap()]);
        assert_eq!(canonical("[::ffff:192.0.2.7]:5".parse().unwrap()), "192.0.2.7:5".parse().unwrap());
    }
}
