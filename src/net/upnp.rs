//! Asks a router that speaks UPnP to let peers in. Nothing depends on it: who cannot be reached still reaches others.

use librqbit_upnp::{UpnpPortForwarder, UpnpPortForwarderOptions};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The router forgets a port that is not asked for again in this time; it is asked for twice as often.
const LEASE: Duration = Duration::from_secs(1_200);
/// Between two looks for routers: each is one datagram, which may be lost. And how long one may take to answer.
const DISCOVER_PERIOD: Duration = Duration::from_secs(60);
const DISCOVER_DEADLINE: Duration = Duration::from_secs(10);

/// Keeps TCP ports open at the router until it is dropped; there they have the same numbers.
pub struct Upnp(JoinHandle<()>);

impl Upnp {
    /// Starts asking. Must be called on a tokio runtime. None without ports.
    pub fn start(ports: Vec<u16>) -> Option<Upnp> {
        let options = UpnpPortForwarderOptions {
            lease_duration: LEASE,
            discover_interval: DISCOVER_PERIOD,
            discover_timeout: DISCOVER_DEADLINE,
        };
        let forwarder = UpnpPortForwarder::new(ports, Some(options), None).ok()?;
        Some(Upnp(tokio::spawn(async move { forwarder.run_forever().await })))
    }
}

impl Drop for Upnp {
    fn drop(&mut self) {
        self.0.abort();
    }
}
