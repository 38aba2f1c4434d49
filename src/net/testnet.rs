//! A private DHT in one process, for tests and trials without the public one.

use super::NetError;
use futures_util::future::join_all;
use mainline::{Dht, ServerSettings, async_dht::AsyncDht};
use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a port may stay taken, so that a testnet can be restarted on the ports of one that just ended.
const REBIND_DEADLINE: Duration = Duration::from_secs(5);
const REBIND_PAUSE: Duration = Duration::from_millis(50);
/// How long the nodes may take to find each other.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a node waits for another: on one machine, and lost at the start when the other is not bound yet.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);
/// Mutable items that each node keeps: enough for a thousand databases.
const ITEMS_A_NODE_MAX: usize = 10_000;

/// Server nodes on consecutive UDP ports; the first is everybody's bootstrap node. Ends when dropped.
pub struct Testnet {
    addresses: Vec<SocketAddr>,
    nodes: Vec<AsyncDht>,
}

impl Testnet {
    /// Starts `count` nodes on ports `first_port`, `first_port + 1`, … of `address` and waits until they know each
    /// other. With port 0 each takes any port.
    pub async fn start(address: Ipv4Addr, first_port: u16, count: u16) -> Result<Testnet, NetError> {
        let addresses = choose(address, first_port, count.max(1))
            .map_err(|source| NetError::Bind { address: (address, first_port).into(), source })?;
        let mut nodes = Vec::new();
        for own in &addresses {
            // A `mainline` node without a bootstrap list takes whoever asks it into its table, clients too, which
            // answer nobody: then every lookup waits for them. So even the first has a list.
            let others: Vec<String> =
                addresses.iter().filter(|other| *other != own).map(|a| a.to_string()).collect();
            let bootstrap = if others.is_empty() { vec![own.to_string()] } else { others };
            nodes.push(
                bind(*own, &bootstrap).await.map_err(|source| NetError::Bind { address: *own, source })?,
            );
        }
        // A single node has nobody to wait for.
        let joined = join_all(nodes.iter().filter(|_| nodes.len() > 1).map(join));
        timeout(READY_DEADLINE, joined).await.map_err(|_| NetError::Unreachable)?;
        Ok(Testnet { addresses, nodes })
    }

    /// What to give to [`super::DhtOptions::bootstrap`]: the first node's address.
    pub fn bootstrap(&self) -> Vec<String> {
        vec![self.addresses[0].to_string()]
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }
}

/// Returns when the node knows another; the first try may have asked those that were not there yet.
async fn join(node: &AsyncDht) {
    while !node.bootstrapped().await {
        sleep(REBIND_PAUSE).await;
    }
}

/// The nodes' addresses; with port 0 some that are free at this moment.
fn choose(ip: Ipv4Addr, first_port: u16, count: u16) -> Result<Vec<SocketAddr>, Error> {
    if first_port != 0 {
        let last = first_port.checked_add(count - 1).ok_or(ErrorKind::InvalidInput)?;
        return Ok((first_port..=last).map(|port| (ip, port).into()).collect());
    }
    let sockets: Result<Vec<UdpSocket>, Error> = (0..count).map(|_| UdpSocket::bind((ip, 0))).collect();
    sockets?.iter().map(UdpSocket::local_addr).collect()
}

async fn bind(address: SocketAddr, bootstrap: &[String]) -> Result<AsyncDht, Error> {
    let SocketAddr::V4(address) = address else { return Err(ErrorKind::Unsupported.into()) };
    let mut builder = Dht::builder();
    builder.server_mode().bind_address(*address.ip()).port(address.port()).bootstrap(bootstrap);
    builder.request_timeout(REQUEST_TIMEOUT);
    builder.server_settings(ServerSettings {
        max_mutable_values: ITEMS_A_NODE_MAX,
        ..ServerSettings::default()
    });
    let end = Instant::now() + REBIND_DEADLINE;
    loop {
        // A node that finds its port taken may end before it can say so: asked beforehand, the system says it.
        match UdpSocket::bind(address).map(drop).and_then(|()| builder.build()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                sleep(REBIND_PAUSE).await
            }
            other => return other.map(Dht::as_async),
        }
    }
}
