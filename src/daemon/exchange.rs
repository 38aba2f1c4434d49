//! What goes over the DHT: the record, heard and put, and the rendezvous of peers.

use super::core::{Core, now_seconds};
use super::drive::{Driver, Net, error_chain};
use crate::base::Id;
use crate::crypt::Purpose;
use crate::net::NetError;
use crate::net::gossip::Message;
use crate::record::{Record, SignedItem, VersionRef};
use crate::sync::{Heard, Poll, PutOutcome};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const PEERS_DEADLINE: Duration = Duration::from_secs(4);
/// A peer that was not heard of for so long is forgotten.
const PEER_LIFE: Duration = Duration::from_secs(1_800);
const SECONDS_A_DAY: u32 = 86_400;
/// Around midnight, clocks disagree on the day.
const MIDNIGHT_SECONDS: u32 = 3_600;

impl Driver {
    pub(super) async fn poll(&self, net: &Net, above: Option<i64>) -> Poll {
        let key = self.core.keys.database_public;
        let found = match net.dht.get(&key, above).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "poll");
                self.note_dht(false);
                return Poll::Unreachable;
            }
        };
        self.note_dht(found.answered > 0 || !found.items.is_empty());
        let accepted = self.core.inner().state.accepted.as_ref().map(|item| item.seq);
        let highest = found.items.iter().map(|item| item.seq).max();
        let Some(highest) = highest else {
            return match above {
                _ if found.answered == 0 => Poll::Unreachable,
                None => Poll::Nothing,
                Some(_) => {
                    self.facts.lock().fresh.confirmed = Some(Instant::now());
                    Poll::Unchanged
                }
            };
        };
        if Some(highest) >= accepted {
            self.facts.lock().fresh.confirmed = Some(Instant::now());
        }
        let mut heard = Vec::new();
        for item in &found.items {
            let Some(one) = self.hear(item) else { continue };
            if one.sound && accepted < Some(one.seq) {
                self.tell_found(net, item, &one);
            }
            heard.push(one);
        }
        match above {
            _ if !heard.is_empty() => Poll::Heard(heard),
            None => Poll::Nothing,
            Some(_) => Poll::Unchanged,
        }
    }

    /// Checks an item and remembers it if it is the highest so far. One that does not open, or whose policy is not
    /// signed by the admin, names no versions: it only says how high `seq` has been driven.
    pub(super) fn hear(&self, item: &SignedItem) -> Option<Heard> {
        self.hear_and(item, true)
    }

    /// The same; whether it is made durable at once is for the caller to say.
    pub(super) fn hear_and(&self, item: &SignedItem, durably: bool) -> Option<Heard> {
        if item.key != self.core.keys.database_public || !item.verify() {
            return None;
        }
        let digest = Id(*blake3::hash(&item.value).as_bytes());
        let keys = &self.core.keys;
        let record = Record::decode(&keys.record, &item.value)
            .ok()
            .filter(|record| record.policy.verify(&keys.database, &keys.admin_public));
        let Some(record) = record else {
            tracing::warn!(
                seq = item.seq,
                "a record of this database does not open or carries a policy that its admin did not sign: ignored"
            );
            return Some(Heard { seq: item.seq, digest, versions: Vec::new(), sound: false });
        };
        let below_link = item.seq < keys.floor.1 || record.policy.counter < keys.floor.0;
        let mut inner = self.core.inner();
        let current = item.key == keys.database_public;
        if current && inner.state.accepted.as_ref().is_none_or(|known| item.seq > known.seq) && !below_link {
            inner.state.accepted = Some(item.clone());
            if durably && let Err(error) = self.core.save(&inner) {
                tracing::error!(%error, "the store does not take the record");
            }
        }
        let sound = !inner.state.policy.supersedes(&record.policy);
        let known = inner.state.accepted.as_ref();
        let forked = known.is_some_and(|known| known.seq == item.seq && known.value != item.value);
        drop(inner);
        if forked {
            self.note_fork(item.seq);
        }
        let mut facts = self.facts.lock();
        for version in &record.versions {
            facts.policies.insert(version.infohash, record.policy.clone());
        }
        let versions = if below_link { Vec::new() } else { record.versions };
        Some(Heard { seq: item.seq, digest, versions, sound: sound && !below_link })
    }

    pub(super) async fn put(
        &self,
        net: &Net,
        versions: Vec<VersionRef>,
        seq: i64,
        cas: Option<i64>,
    ) -> PutOutcome {
        match self.sign(&versions, seq) {
            Some(item) => self.put_item(net, item, cas).await,
            None => PutOutcome::Unreachable,
        }
    }

    /// Puts the record that was told last.
    pub(super) async fn put_told(&self, net: &Net, cas: Option<i64>) -> PutOutcome {
        let item = self.core.inner().state.accepted.clone();
        match item {
            Some(item) => self.put_item(net, item, cas).await,
            None => PutOutcome::Unreachable,
        }
    }

    async fn put_item(&self, net: &Net, item: SignedItem, cas: Option<i64>) -> PutOutcome {
        let seq = item.seq;
        // A lost answer must not lead to a second value under this number: the item is remembered before it is sent.
        match net.dht.put(&item, cas).await {
            Ok(stored) => {
                tracing::info!(seq, "record put into the DHT, at {stored} nodes");
                self.note_dht(true);
                Core::count(&self.core.done.puts);
                let mut inner = self.core.inner();
                let current = item.key == self.core.keys.database_public;
                if current && inner.state.accepted.as_ref().is_none_or(|known| item.seq >= known.seq) {
                    inner.state.accepted = Some(item.clone());
                }
                if let Err(error) = self.core.save(&inner) {
                    tracing::error!(%error, "the store does not take the record");
                }
                drop(inner);
                self.facts.lock().fresh.confirmed = Some(Instant::now());
                PutOutcome::Done(self.heard_of(&item))
            }
            Err(NetError::Superseded) => PutOutcome::Superseded,
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "the record was not put");
                self.note_dht(false);
                PutOutcome::Unreachable
            }
        }
    }

    /// What the machine wants to know of an item that was made or checked here.
    pub(super) fn heard_of(&self, item: &SignedItem) -> Heard {
        let versions = Record::decode(&self.core.keys.record, &item.value).map_or(Vec::new(), |r| r.versions);
        let digest = Id(*blake3::hash(&item.value).as_bytes());
        Heard { seq: item.seq, digest, versions, sound: true }
    }

    pub(super) fn sign(&self, versions: &[VersionRef], seq: i64) -> Option<SignedItem> {
        let key = self.core.keys.database_key.as_ref()?;
        let policy = self.core.inner().state.policy.clone();
        if policy.counter == 0 {
            return None;
        }
        let record = Record { time: now_seconds(), flags: 0, versions: versions.to_vec(), policy };
        Some(SignedItem::sign(key, seq, record.encode_sealed(&self.core.keys.record)))
    }

    pub(super) async fn reput(&self, net: &Net) {
        let item = self.core.inner().state.accepted.clone();
        if let Some(item) = item {
            match net.dht.put(&item, None).await {
                Ok(stored) => {
                    tracing::info!(seq = item.seq, "record put back into the DHT, at {stored} nodes");
                    Core::count(&self.core.done.reputs);
                    net.gossip.tell(&Message::Kept(item.seq), None);
                }
                Err(error) => tracing::debug!(error = %error_chain(&error), "the record was not put back"),
            }
        }
        self.reput_lifeline(net).await;
    }

    pub(super) async fn announce(&self, net: &Net) {
        // The DHT tells of IPv4 addresses only.
        if matches!(net.listen.ip(), IpAddr::V6(ip) if !ip.is_unspecified()) {
            return;
        }
        for day in days(now_seconds()) {
            let infohash = self.core.keys.record.rendezvous(day, Purpose::Torrent);
            if let Err(error) = net.dht.announce(infohash, net.listen.port()).await {
                tracing::debug!(error = %error_chain(&error), "not announced");
            }
            if !self.core.settings.neighbours {
                continue;
            }
            let infohash = self.core.keys.record.rendezvous(day, Purpose::Gossip);
            if let Err(error) = net.dht.announce(infohash, net.gossip.port()).await {
                tracing::debug!(error = %error_chain(&error), "not announced to neighbours");
            }
        }
        self.announce_move(net).await;
    }

    /// Nodes forget the lifeline as they forget the record: it is put back with it, as it was signed.
    async fn reput_lifeline(&self, net: &Net) {
        let item = self.core.inner().state.lifeline.clone();
        let Some(item) = item else { return };
        match net.dht.put(&item, None).await {
            Ok(stored) => {
                tracing::debug!(counter = item.seq, stored, "lifeline put back");
                Core::count(&self.core.done.reputs);
            }
            Err(error) => tracing::debug!(error = %error_chain(&error), "the lifeline was not put back"),
        }
    }

    pub(super) async fn find_peers(&self, net: &Net) -> Vec<SocketAddr> {
        let mut found: BTreeSet<SocketAddr> = self.core.settings.peers.iter().copied().collect();
        for day in days(now_seconds()) {
            let infohash = self.core.keys.record.rendezvous(day, Purpose::Torrent);
            found.extend(net.dht.peers(infohash, PEERS_DEADLINE).await);
        }
        found.extend(self.neighbouring_peers(net));
        found.retain(|peer| !self.is_self(net, peer));
        let mut facts = self.facts.lock();
        let now = Instant::now();
        facts.peers.extend(found.into_iter().map(|peer| (peer, now)));
        facts.peers.retain(|_, seen| now.duration_since(*seen) < PEER_LIFE);
        facts.peers.keys().copied().collect()
    }

    /// Whether an announced peer is this engine itself: announcements come back to who made them.
    pub(super) fn is_self(&self, net: &Net, peer: &SocketAddr) -> bool {
        let own = net.listen.ip();
        let same_host = peer.ip() == own || own.is_unspecified() && peer.ip().is_loopback();
        same_host && peer.port() == net.listen.port()
    }
}

/// The days under whose rendezvous peers meet at a time: one, or around midnight two.
pub(super) fn days(seconds: u32) -> Vec<u32> {
    let day = seconds / SECONDS_A_DAY;
    let into = seconds % SECONDS_A_DAY;
    if into < MIDNIGHT_SECONDS {
        vec![day, day - 1]
    } else if into > SECONDS_A_DAY - MIDNIGHT_SECONDS {
        vec![day, day + 1]
    } else {
        vec![day]
    }
}
