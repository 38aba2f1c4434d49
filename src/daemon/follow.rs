//! How a device hears that the database moved to new keys, and what its network half does then: from the lifeline, which it
//! reads at its start and with every announcement, or from a neighbour.

use super::drive::{Driver, Net, error_chain};
use super::moves::{Announced, Followed};
use crate::net::gossip::{Message, Move};
use crate::torrent::{CARRIER_FILE, infohash_of, torrent_of};
use crate::tree::Changes;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const PEERS_DEADLINE: Duration = Duration::from_secs(4);
const METAINFO_DEADLINE: Duration = Duration::from_secs(8);
/// How long neighbours may take to hear where to, before they are left.
const FAREWELL: Duration = Duration::from_millis(400);
/// How long it is looked whether somebody else has moved the database, before it is moved here.
const LOOK_BEFORE: Duration = Duration::from_secs(10);

impl Driver {
    /// Reads the lifeline, follows it, and puts back the highest that is known where the DHT has an older one or none.
    pub(super) async fn keep_lifeline(self: &Arc<Self>, net: &Net) {
        let found = net.dht.get(&self.core.keys.admin_public, None).await;
        let items = found.map_or(Vec::new(), |found| found.items);
        let theirs = items.iter().map(|item| item.seq).max();
        let answered = !items.is_empty();
        for item in items {
            if self.core.is_rival(&item) {
                self.life.meet_rival();
            }
            match self.core.note_lifeline(item) {
                Ok(Some(said)) if said.policy.is_some() => {
                    tracing::info!("a newer policy is announced by its admin");
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "the store does not take the lifeline"),
            }
        }
        self.catch_up(net).await;
        self.life.look_is_over();
        let ours = self.core.inner().state.lifeline.clone();
        if let Some(item) = ours.filter(|item| theirs.is_none_or(|seq| seq < item.seq))
            && (answered || self.dht_answers() != Some(false))
            && let Err(error) = net.dht.put(&item, theirs).await
        {
            tracing::debug!(error = %error_chain(&error), "the lifeline was not put");
        }
    }

    /// Fetches what the lifeline names, if it is of keys that this device has not got.
    async fn catch_up(self: &Arc<Self>, net: &Net) {
        let ahead = self.core.lifeline().and_then(|lifeline| lifeline.moved);
        let Some(moved) = ahead.filter(|moved| moved.generation > self.core.keys.generation()) else {
            return;
        };
        if self.core.left_out() == Some(moved.generation) {
            return;
        }
        let Some(item) = self.core.inner().state.lifeline.clone() else { return };
        let mut peers: BTreeSet<SocketAddr> = self.core.settings.peers.iter().copied().collect();
        peers.extend(net.dht.peers(moved.infohash, PEERS_DEADLINE).await);
        peers.extend(self.neighbouring_peers(net));
        peers.retain(|peer| !self.is_self(net, peer));
        let peers: Vec<SocketAddr> = peers.into_iter().collect();
        match net.swarm.metainfo(moved.infohash, &peers, METAINFO_DEADLINE).await {
            Ok(info) => self.follow(net, Announced { item, info }).await,
            Err(error) => {
                tracing::warn!(peers = peers.len(), error = %error_chain(&error), "the database moved to new keys, and nobody was found yet who passes them on");
            }
        }
    }

    /// Looks whether the database has moved already, before it is moved here: two moves of one number would be two databases.
    /// What is found changes the ground on which a move is made. Not for a thread that serves others.
    pub fn look_before_moving(self: &Arc<Self>) {
        let Some(net) = self.net() else { return };
        let look = async { tokio::time::timeout(LOOK_BEFORE, self.keep_lifeline(net)).await };
        if tokio::runtime::Handle::current().block_on(look).is_err() {
            tracing::warn!(
                "it is not known whether the database has moved already: the DHT has not answered"
            );
        }
    }

    /// A neighbour says that the database moved.
    pub(super) async fn hear_of_move(self: &Arc<Self>, net: &Net, moved: Move) {
        let Move { item, info } = moved;
        self.follow(net, Announced { item, info }).await;
    }

    async fn follow(self: &Arc<Self>, net: &Net, announced: Announced) {
        let (core, told) = (self.core.clone(), announced.clone());
        let followed = tokio::task::spawn_blocking(move || core.follow(&told)).await;
        match followed {
            Ok(Ok(Followed::Turned(changes))) => self.turned(net, announced, changes).await,
            Ok(Ok(Followed::LeftOut(changes))) => {
                tracing::warn!("{}", super::report::LEFT_OUT);
                self.notify(changes);
            }
            Ok(Ok(Followed::Nothing)) => {
                tracing::debug!("an announcement that is not newer, or not the admin's")
            }
            Ok(Err(error)) => {
                tracing::error!(error = %error_chain(&error), "the new keys were not taken; tried again")
            }
            Err(error) => tracing::error!(%error, "following ended abnormally"),
        }
    }

    /// This device has new keys: it says so to those who may not know, and meets the others under them.
    async fn turned(self: &Arc<Self>, net: &Net, announced: Announced, changes: Changes) {
        let moved = Move { item: announced.item.clone(), info: announced.info.clone() };
        net.gossip.tell(&Message::Moved(Box::new(moved)), None);
        self.notify(changes);
        {
            let mut facts = self.facts.lock();
            facts.policies.clear();
            facts.fresh = Default::default();
            facts.exchanged = Default::default();
            facts.demand.keepers.clear();
        }
        self.renew_machine();
        self.carry(net, &announced).await;
        let driver = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            let Some(net) = driver.net() else { return };
            net.gossip.rekey(driver.core.keys.record.gossip_secret());
            tokio::join!(driver.announce(net), driver.seek_neighbours(net), driver.keep_lifeline_put(net));
        });
    }

    /// The same for a rotation that was made here.
    pub fn turned_here(self: &Arc<Self>, announced: Announced, changes: Changes) {
        let driver = self.clone();
        tokio::runtime::Handle::current().spawn(async move {
            match driver.net() {
                Some(net) => driver.turned(net, announced, changes).await,
                None => driver.notify(changes),
            }
        });
    }

    /// Puts the lifeline, whatever the DHT has: it is what those who are away look for.
    async fn keep_lifeline_put(&self, net: &Net) {
        let item = self.core.inner().state.lifeline.clone();
        if let Some(item) = item
            && let Err(error) = net.dht.put(&item, None).await
        {
            tracing::debug!(error = %error_chain(&error), "the lifeline was not put");
        }
    }

    /// Passes the last announcement on to whoever asks.
    async fn carry(&self, net: &Net, announced: &Announced) {
        let infohash = infohash_of(&announced.info);
        let carried = net.swarm.carry(infohash, torrent_of(&announced.info), &CARRIER_FILE).await;
        if let Err(error) = carried {
            tracing::warn!(error = %error_chain(&error), "the announcement of a rotation is not passed on");
        }
    }

    /// Says in the DHT that this device passes the last announcement on.
    pub(super) async fn announce_move(&self, net: &Net) {
        let Some(announced) = Announced::read(&self.core.paths) else { return };
        self.carry(net, &announced).await;
        if let Err(error) = net.dht.announce(infohash_of(&announced.info), net.listen.port()).await {
            tracing::debug!(error = %error_chain(&error), "the announcement of a rotation is not announced");
        }
    }
}
