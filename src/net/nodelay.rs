//! TCP_NODELAY for sockets that somebody else opened.
//!
//! `librqbit` writes small messages and never sets the option; Nagle's algorithm and delayed acknowledgement then cost
//! about 40 ms each time a peer waits for the other. Its sockets cannot be reached through its interface, so they are
//! looked for among the process's descriptors. `pidfd_getfd` on ourselves hands out an owned duplicate, so no
//! descriptor is ever borrowed from a number. Sockets of others in this process get the option too, which harms none.

use rustix::fd::OwnedFd;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

/// When to look after connections were asked for: the sockets appear within a millisecond, some later.
const BURST_MILLIS: [u64; 10] = [1, 1, 1, 1, 2, 4, 8, 16, 32, 64];
/// How often to look otherwise: for reconnections, and for peers that other peers named.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Looks for new sockets once a second, and at once when told; stops when dropped.
pub(super) struct Nodelay {
    opened: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Nodelay {
    /// Starts looking, beginning with the listening socket, from which accepted ones inherit the option.
    pub(super) fn start() -> Nodelay {
        let opened = Arc::new(Notify::new());
        opened.notify_one();
        let task = tokio::spawn(run(opened.clone()));
        Nodelay { opened, task }
    }

    /// Says that connections are being opened now.
    pub(super) fn opened(&self) {
        self.opened.notify_one();
    }
}

impl Drop for Nodelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(opened: Arc<Notify>) {
    let mut sockets = match Sockets::of_this_process() {
        Ok(sockets) => sockets,
        Err(error) => return warn!(%error, "cannot set TCP_NODELAY; small transfers will take 40 ms longer"),
    };
    // Where in the burst it is; past the end it idles.
    let mut step = BURST_MILLIS.len();
    loop {
        let pause = BURST_MILLIS.get(step).map_or(IDLE_PAUSE, |millis| Duration::from_millis(*millis));
        step = match timeout(pause, opened.notified()).await {
            Ok(()) => 0,
            Err(_) => (step + 1).min(BURST_MILLIS.len()),
        };
        sockets.sweep();
    }
}

struct Sockets {
    process: OwnedFd,
    /// Inode numbers of the sockets that were there at the last sweep.
    known: HashSet<u64>,
}

impl Sockets {
    fn of_this_process() -> io::Result<Sockets> {
        let process = pidfd_open(getpid(), PidfdFlags::empty())?;
        // Refused by some sandboxes: better known at the start.
        pidfd_getfd(&process, 0, PidfdGetfdFlags::empty()).map(drop).or_else(|error| match error {
            rustix::io::Errno::BADF => Ok(()),
            error => Err(error),
        })?;
        Ok(Sockets { process, known: HashSet::new() })
    }

    fn sweep(&mut self) {
        let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return };
        let mut seen = HashSet::new();
        for entry in descriptors.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Some(inode) = fs::read_link(entry.path()).ok().and_then(|link| socket_inode(link.to_str()?))
            else {
                continue;
            };
            if seen.insert(inode)
                && !self.known.contains(&inode)
                && let Ok(socket) = pidfd_getfd(&self.process, number, PidfdGetfdFlags::empty())
            {
                // Whatever is not TCP refuses.
                let _ = set_tcp_nodelay(&socket, true);
            }
        }
        self.known = seen;
    }
}

/// The inode number in `socket:[123]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sockets_of_every_kind_are_found_and_tcp_ones_set() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let mut sockets = Sockets::of_this_process().unwrap();
        sockets.sweep();
        let outgoing = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "inherited from the listener");
        assert!(!outgoing.nodelay().unwrap());
        sockets.sweep();
        assert!(outgoing.nodelay().unwrap());
        drop(udp);
    }

    #[test]
    fn only_socket_links_are_taken_for_sockets() {
        assert_eq!(socket_inode("socket:[42]"), Some(42));
        for other in ["pipe:[42]", "/dev/null", "socket:[]", "socket:[x]", "anon_inode:[eventpoll]"] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }
}
