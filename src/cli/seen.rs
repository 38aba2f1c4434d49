//! What a live view knows of one database, and for how long.

use super::rates::Rate;
use crate::daemon::answers::LogEntry;
use crate::daemon::status::Status;
use std::collections::BTreeMap;
use std::time::Instant;

/// What came of asking an engine once.
#[derive(Clone, Debug)]
pub enum Look {
    /// It answered.
    Answered(Box<Status>),
    /// None runs; why nothing is known, if nothing is.
    NoEngine,
    /// It runs and did not answer properly.
    Failed(String),
}

/// One database as it was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What it is called on this device.
    pub name: String,
    /// What is known of it, from its engine or from its files.
    pub status: Option<Status>,
    /// The newest changes.
    pub log: Vec<LogEntry>,
    /// An engine answers.
    pub alive: bool,
    /// Since when it does, or does not.
    pub since: Option<Instant>,
    /// What went wrong at the last look.
    pub failure: Option<String>,
    /// Bytes fetched and sent.
    pub down: Rate,
    /// As above.
    pub up: Rate,
    /// Bytes of each version on its way.
    pub transfers: BTreeMap<String, Rate>,
}

impl Seen {
    /// Nothing but a name, and perhaps what its files said.
    pub fn new(name: &str, status: Option<Status>) -> Seen {
        Seen { name: name.into(), status, ..Seen::default() }
    }

    /// Takes a look in.
    pub fn take(&mut self, at: Instant, look: Look) {
        let alive = matches!(look, Look::Answered(_));
        if self.since.is_none() || alive != self.alive {
            self.since = Some(at);
        }
        self.alive = alive;
        self.failure = None;
        match look {
            Look::Answered(status) => {
                self.down.note(at, status.fetched_bytes);
                self.up.note(at, status.sent_bytes);
                self.transfers
                    .retain(|hash, _| status.transfers.iter().any(|transfer| transfer.infohash == *hash));
                for transfer in &status.transfers {
                    self.transfers
                        .entry(transfer.infohash.clone())
                        .or_default()
                        .note(at, transfer.done_bytes);
                }
                self.status = Some(*status);
            }
            Look::NoEngine => {
                (self.down, self.up) = (Rate::default(), Rate::default());
                self.transfers.clear();
            }
            Look::Failed(why) => self.failure = Some(why),
        }
    }

    /// The status of an engine that is gone, as far as it still holds.
    pub fn as_it_is(&self) -> Status {
        let mut status = self.status.clone().unwrap_or_default();
        status.name.clone_from(&self.name);
        if !self.alive {
            status.pid = None;
            status.socket = None;
            status.listen = None;
            status.mounted_at = None;
            status.dht_answers = None;
            status.confirmed_seconds_ago = None;
            (status.peers, status.neighbours) = (0, 0);
            status.connected.clear();
            status.transfers.clear();
            status.versions.iter_mut().for_each(|version| version.peers = 0);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_an_engine_that_is_gone_said_of_itself_is_not_shown() {
        let status = Status { pid: Some(7), peers: 3, seq: Some(9), ..Status::default() };
        let mut seen = Seen::new("n", None);
        let start = Instant::now();
        seen.take(start, Look::Answered(Box::new(status)));
        assert_eq!((seen.as_it_is().pid, seen.as_it_is().peers), (Some(7), 3));
        seen.take(start, Look::NoEngine);
        let gone = seen.as_it_is();
        assert_eq!((gone.pid, gone.peers, gone.seq), (None, 0, Some(9)));
        assert!(!seen.alive);
    }
}
