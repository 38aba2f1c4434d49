//! Addresses at which neighbours may be found, and when to try each again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

const CANDIDATES_MAX: usize = 256;
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A candidate that failed so often in a row is forgotten, unless it was named by hand.
const FAILURES_MAX: u32 = 8;

/// Another port of the host that an address names; a link-local one keeps its interface.
pub(super) fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// All of them.
#[derive(Default)]
pub(super) struct Candidates(HashMap<SocketAddr, Candidate>);

struct Candidate {
    by_hand: bool,
    failures: u32,
    next: Instant,
    dialling: bool,
    /// It turned out to be this device.
    own: bool,
    /// The neighbour that was found there, while it was connected over another address.
    leads_to: Option<[u8; 16]>,
}

impl Candidates {
    /// Takes an address in; tells whether it is new.
    pub(super) fn add(&mut self, address: SocketAddr, by_hand: bool) -> bool {
        if self.0.contains_key(&address) || self.0.len() >= CANDIDATES_MAX && !by_hand {
            return false;
        }
        let candidate = Candidate {
            by_hand,
            failures: 0,
            next: Instant::now(),
            dialling: false,
            own: false,
            leads_to: None,
        };
        self.0.insert(address, candidate);
        true
    }

    /// Whom to dial now so that there are `wanted` connections; who was named by hand is dialled in any case.
    pub(super) fn due(&mut self, connected: &[(SocketAddr, [u8; 16])], wanted: usize) -> Vec<SocketAddr> {
        let dialling = self.0.values().filter(|candidate| candidate.dialling).count();
        let mut room = wanted.saturating_sub(connected.len() + dialling);
        let now = Instant::now();
        let mut due = Vec::new();
        for (address, candidate) in &mut self.0 {
            let idle = !candidate.dialling && !candidate.own && candidate.next <= now;
            let there = connected
                .iter()
                .any(|(known, neighbour)| known == address || candidate.leads_to == Some(*neighbour));
            if idle && (room > 0 || candidate.by_hand) && !there {
                candidate.dialling = true;
                room = room.saturating_sub(1);
                due.push(*address);
            }
        }
        due
    }

    /// The network has changed: what failed may work now.
    pub(super) fn try_anew(&mut self) {
        for candidate in self.0.values_mut() {
            candidate.failures = 0;
            candidate.next = Instant::now();
            // What is being dialled, or was, may never hear that it failed.
            candidate.dialling = false;
            // Addresses of other devices may be this one's now, and the other way about.
            candidate.own = false;
            candidate.leads_to = None;
        }
    }

    /// A connection that was dialled failed, or ended after so long.
    pub(super) fn ended(&mut self, address: &SocketAddr, lasted: Duration) {
        let Some(candidate) = self.0.get_mut(address) else { return };
        candidate.dialling = false;
        // One that was connected for a while is as good as new.
        candidate.failures = if lasted > PAUSE_MAX { 1 } else { candidate.failures + 1 };
        let pause = PAUSE_MIN * 2u32.pow(candidate.failures.min(FAILURES_MAX) - 1);
        candidate.next = Instant::now() + pause.min(PAUSE_MAX);
        if candidate.failures > FAILURES_MAX && !candidate.by_hand {
            self.0.remove(address);
        }
    }

    /// All are as good as new: what they failed of is over.
    pub(super) fn afresh(&mut self) {
        for candidate in self.0.values_mut() {
            (candidate.failures, candidate.next) = (0, Instant::now() + PAUSE_MIN);
            candidate.leads_to = None;
        }
    }

    /// At an address there is a neighbour that is connected over another one.
    pub(super) fn leads_to(&mut self, address: &SocketAddr, neighbour: [u8; 16]) {
        if let Some(candidate) = self.0.get_mut(address) {
            candidate.leads_to = Some(neighbour);
        }
    }

    /// An address turned out to be this device's own.
    pub(super) fn is_self(&mut self, address: &SocketAddr) {
        if let Some(candidate) = self.0.get_mut(address) {
            candidate.own = true;
        }
    }
}
