//! Answers: one piece after the other to each neighbour, at the pace at which its connection takes them.

use crate::base::{InfoHash, PieceHashes, PieceIndex};
use crate::net::gossip::{ASKED_MAX, Gossip, Message, NeighbourId, Pieces, Run};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Asks of one neighbour that wait; what comes on top is lacked.
const ASKS_MAX: usize = 64;
/// Versions whose hashes are at hand: mostly one is asked for.
const HASHES_MAX: usize = 2;

/// From where pieces are read.
pub(super) struct Shelf {
    /// Reads one, with time for it.
    pub read: Box<dyn Fn(InfoHash, PieceIndex) -> Option<Vec<u8>> + Send + Sync>,
    /// How much of one goes into a message.
    pub run_bytes: usize,
}

/// What neighbours have asked for and wait for; clones share it.
#[derive(Clone, Default)]
pub(super) struct Serving(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The asks of each neighbour that is being answered.
    lines: BTreeMap<NeighbourId, VecDeque<Pieces>>,
    hashes: VecDeque<(InfoHash, Arc<PieceHashes>)>,
}

impl Serving {
    /// Answers an ask, after those that the neighbour waits for already.
    pub(super) fn serve(&self, gossip: &Gossip, from: NeighbourId, asked: Pieces, shelf: &Arc<Shelf>) {
        let mut state = self.0.lock();
        let Some(line) = state.lines.get_mut(&from) else {
            state.lines.insert(from, VecDeque::from([asked]));
            let (serving, gossip, shelf) = (self.clone(), gossip.clone(), shelf.clone());
            tokio::spawn(async move { serving.answer(&gossip, from, &shelf).await });
            return;
        };
        if line.len() >= ASKS_MAX {
            drop(state);
            gossip.say(from, &Message::Lack(asked));
            return;
        }
        enqueue(line, asked);
    }

    /// Nobody waits there any more.
    pub(super) fn left(&self, from: NeighbourId) {
        self.0.lock().lines.remove(&from);
    }

    /// The hashes of a version: those at hand, or those that `find` finds.
    pub(super) fn hashes(
        &self,
        infohash: InfoHash,
        find: impl FnOnce() -> Option<PieceHashes>,
    ) -> Option<Arc<PieceHashes>> {
        let known = |state: &State| {
            state.hashes.iter().find(|(known, _)| *known == infohash).map(|(_, hashes)| hashes.clone())
        };
        if let Some(hashes) = known(&self.0.lock()) {
            return Some(hashes);
        }
        let hashes = Arc::new(find()?);
        let mut state = self.0.lock();
        state.hashes.push_back((infohash, hashes.clone()));
        if state.hashes.len() > HASHES_MAX {
            state.hashes.pop_front();
        }
        Some(hashes)
    }

    /// Answers until nothing waits or the neighbour is gone.
    async fn answer(&self, gossip: &Gossip, to: NeighbourId, shelf: &Arc<Shelf>) {
        let mut lacking: Option<Pieces> = None;
        while let Some((infohash, piece)) = self.next(to) {
            let shelf_there = shelf.clone();
            let read = tokio::task::spawn_blocking(move || (shelf_there.read)(infohash, piece));
            let Some(bytes) = read.await.ok().flatten() else {
                match &mut lacking {
                    Some(known) if known.infohash == infohash && known.pieces.len() < ASKED_MAX => {
                        known.pieces.push(piece);
                    }
                    _ => {
                        say_lacking(gossip, to, lacking.take()).await;
                        lacking = Some(Pieces { infohash, pieces: vec![piece] });
                    }
                }
                continue;
            };
            say_lacking(gossip, to, lacking.take()).await;
            let mut offset = 0;
            for bytes in bytes.chunks(shelf.run_bytes) {
                let run = Run { infohash, piece, offset, bytes: bytes.to_vec() };
                if !gossip.pass(to, &Message::Piece(run)).await {
                    self.left(to);
                    return;
                }
                offset += bytes.len() as u32;
            }
        }
        say_lacking(gossip, to, lacking).await;
    }

    /// The next piece for a neighbour: one of each ask in turn, so that who waits for one piece does not wait for all
    /// that was asked for before.
    fn next(&self, to: NeighbourId) -> Option<(InfoHash, PieceIndex)> {
        let mut state = self.0.lock();
        let line = state.lines.get_mut(&to)?;
        while let Some(mut ask) = line.pop_front() {
            if ask.pieces.is_empty() {
                continue;
            }
            let next = (ask.infohash, ask.pieces.remove(0));
            line.push_back(ask);
            return Some(next);
        }
        state.lines.remove(&to);
        None
    }
}

/// Adds an ask. A piece that waits already waits once: in the smaller of both asks, where it comes sooner.
fn enqueue(line: &mut VecDeque<Pieces>, mut asked: Pieces) {
    for waiting in line.iter_mut().filter(|waiting| waiting.infohash == asked.infohash) {
        if waiting.pieces.len() > asked.pieces.len() {
            waiting.pieces.retain(|piece| asked.pieces.binary_search(piece).is_err());
        } else {
            asked.pieces.retain(|piece| waiting.pieces.binary_search(piece).is_err());
        }
    }
    line.retain(|waiting| !waiting.pieces.is_empty());
    if !asked.pieces.is_empty() {
        line.push_back(asked);
    }
}

async fn say_lacking(gossip: &Gossip, to: NeighbourId, lacking: Option<Pieces>) {
    if let Some(mut lacking) = lacking {
        lacking.pieces.sort_unstable();
        lacking.pieces.dedup();
        gossip.pass(to, &Message::Lack(lacking)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(version: u8, pieces: &[u32]) -> Pieces {
        let pieces = pieces.iter().copied().map(PieceIndex).collect();
        Pieces { infohash: InfoHash([version; 20]), pieces }
    }

    #[test]
    fn a_piece_that_waits_already_waits_once_in_the_smaller_ask() {
        let mut line = VecDeque::from([ask(1, &[1, 2, 3, 4])]);
        enqueue(&mut line, ask(1, &[3]));
        assert_eq!(line, [ask(1, &[1, 2, 4]), ask(1, &[3])]);
        enqueue(&mut line, ask(1, &[2, 3, 4, 5]));
        assert_eq!(line, [ask(1, &[1, 2, 4]), ask(1, &[3]), ask(1, &[5])]);
        enqueue(&mut line, ask(2, &[3]));
        enqueue(&mut line, ask(1, &[3]));
        assert_eq!(line.back(), Some(&ask(2, &[3])));
        assert_eq!(line.len(), 4);
    }
}
