//! Neighbours on the local network: found without the DHT, so that two devices on one cable need nothing else. And the
//! network itself, which may become another one while an engine runs.

use super::config::Settings;
use super::core::now_seconds;
use super::drive::Driver;
use super::exchange::days;
use crate::crypt::Purpose;
use crate::net::gossip::Gossip;
use crate::net::{Changes, LAN_PORT, Lan, LanOptions, Nearby, Upnp};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How often to look whether the day, and with it the rendezvous, has changed.
const DAY_PERIOD: Duration = Duration::from_secs(60);

/// An interface that comes and goes is not followed more often than this.
const CHANGE_PAUSE: Duration = Duration::from_millis(500);

impl Driver {
    /// Looks for neighbours on the local network for as long as this engine lives, where that is wanted, and at the network
    /// itself.
    pub(super) fn look_around(self: &Arc<Self>) {
        self.watch_network();
        let Some(net) = self.net().filter(|_| self.core.settings.lan) else { return };
        let (lan, found) = Lan::start(LanOptions {
            gossip_port: net.gossip.port(),
            torrent_port: net.listen.port(),
            listen: net.listen.ip(),
            port: LAN_PORT,
        });
        tokio::spawn(meet(Arc::downgrade(self), lan, found));
    }

    /// Takes notice when the network changes, for as long as this engine lives: a laptop that wakes up elsewhere has its
    /// neighbours back at once.
    fn watch_network(self: &Arc<Self>) {
        match Changes::watch() {
            Ok(changes) => _ = tokio::spawn(follow(Arc::downgrade(self), changes)),
            Err(error) => tracing::debug!(%error, "changes of the network are not seen"),
        }
    }

    fn meet(&self, nearby: Nearby) {
        let Some(net) = self.net() else { return };
        tracing::debug!(gossip = %nearby.gossip, "on the local network");
        self.facts.lock().peers.insert(nearby.torrents, Instant::now());
        net.gossip.candidates([nearby.gossip], false);
    }
}

/// Says where others are awaited, and asks the router to let them in where that is wanted.
pub(super) fn await_others(settings: &Settings, listen: SocketAddr, gossip: &Gossip) -> Option<Upnp> {
    let news_port = settings.neighbours.then(|| gossip.port());
    match news_port {
        Some(port) => tracing::info!("peers are awaited at {listen}, neighbours at port {port}"),
        None => tracing::info!("peers are awaited at {listen}, no neighbours"),
    }
    let ports = [Some(listen.port()), news_port].into_iter().flatten().collect();
    let reached = settings.upnp && !listen.ip().is_loopback();
    reached.then(|| Upnp::start(ports)).flatten()
}

async fn follow(engine: Weak<Driver>, changes: Changes) {
    loop {
        match timeout(DAY_PERIOD, changes.next()).await {
            Err(_) if engine.strong_count() > 0 => continue,
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        let Some(driver) = engine.upgrade() else { return };
        if let Some(net) = driver.net() {
            tracing::debug!("the network has changed");
            net.gossip.network_changed();
        }
        drop(driver);
        sleep(CHANGE_PAUSE).await;
    }
}

async fn meet(engine: Weak<Driver>, lan: Lan, mut found: mpsc::Receiver<Nearby>) {
    let mut announced = Vec::new();
    let mut nearby = None;
    // Held only between two waits, so that an engine may end.
    while let Some(driver) = engine.upgrade() {
        if let Some(nearby) = nearby.take() {
            driver.meet(nearby);
        }
        let key = &driver.core.keys.record;
        let days = days(now_seconds());
        let today: Vec<_> = days.iter().map(|day| key.rendezvous(*day, Purpose::Gossip)).collect();
        if today != announced {
            lan.announce(today.clone());
            announced = today;
        }
        drop(driver);
        nearby = timeout(DAY_PERIOD, found.recv()).await.ok().flatten();
    }
}
