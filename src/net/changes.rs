//! Tells when the network of this host has changed: an interface came up or went down, an address came or went
//! (rtnetlink(7)).

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::time::Duration;
use tokio::net::UnixDatagram;
use tokio::time::sleep;

/// The groups that are listened to, from linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// A change comes as several messages.
const BURST: Duration = Duration::from_millis(30);
const MESSAGE_BYTES: usize = 32 << 10;

/// Where the kernel tells of changes. Of a datagram socket only waiting and recv(2) are used, which are the same here.
pub struct Changes(UnixDatagram);

impl Changes {
    /// Begins to listen; what was before is not told. Needs a runtime.
    pub fn watch() -> io::Result<Changes> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is the protocol of number 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        UnixDatagram::from_std(StdDatagram::from(socket)).map(Changes)
    }

    /// Waits for the next change, and until it is over.
    pub async fn next(&self) -> io::Result<()> {
        // What the messages say does not matter. One that was lost for want of room counts as one.
        let mut message = vec![0; MESSAGE_BYTES];
        match self.0.recv(&mut message).await {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(error),
            _ => sleep(BURST).await,
        }
        while self.0.try_recv(&mut message).is_ok() {}
        Ok(())
    }
}
