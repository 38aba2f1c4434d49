//! Who can be reached, the DHT and neighbours: said when it changes, not at every look.

use super::drive::{Driver, Net};
use crate::net::gossip::NeighbourId;

/// One lookup may fail for many reasons, and the first ones of a node fail while it does not know anybody.
const SILENCES_MIN: u32 = 2;

/// What the last lookups and puts came to.
#[derive(Default)]
pub(super) struct Contact {
    silences: u32,
    answers: Option<bool>,
}

impl Contact {
    /// Whether the DHT answers; none while that is not known.
    pub fn answers(&self) -> Option<bool> {
        self.answers
    }

    /// Takes the outcome of one operation; tells what is the case from now on if that is news.
    fn note(&mut self, answered: bool) -> Option<bool> {
        self.silences = if answered { 0 } else { self.silences.saturating_add(1) };
        let settled = answered || self.silences >= SILENCES_MIN;
        if !settled || self.answers == Some(answered) {
            return None;
        }
        self.answers = Some(answered);
        Some(answered)
    }
}

impl Driver {
    /// An operation over the DHT was answered, or was not.
    pub(super) fn note_dht(&self, answered: bool) {
        let news = self.facts.lock().dht.note(answered);
        match news {
            Some(true) => tracing::info!("the DHT answers"),
            Some(false) => tracing::warn!(
                "no DHT node answers; changes are kept, and told to neighbours, until one does"
            ),
            None => {}
        }
    }

    /// A neighbour is connected.
    pub(super) fn note_neighbour(&self, net: &Net, id: NeighbourId) {
        let neighbours = net.gossip.neighbours();
        let Some(one) = neighbours.iter().find(|neighbour| neighbour.id == id) else { return };
        let address = one.gossip.to_string();
        tracing::info!("neighbour {address} is connected, {} in all", neighbours.len());
        self.facts.lock().met.insert(id, address);
    }

    /// A neighbour is gone.
    pub(super) fn note_parting(&self, id: NeighbourId) {
        let mut facts = self.facts.lock();
        let Some(address) = facts.met.remove(&id) else { return };
        tracing::info!("neighbour {address} is gone, {} left", facts.met.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_news() {
        let mut contact = Contact::default();
        let told = [false, false, false, true, true, false, true, false, false]
            .map(|answered| contact.note(answered));
        let news = [None, Some(false), None, Some(true), None, None, None, None, Some(false)];
        assert_eq!(told, news);
    }
}
