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

/// What looking for a piece that is not here counts for.
const LACK_BYTES: usize = 4 << 10;

/// A piece, with its bytes where they are here.
type Answer = (InfoHash, PieceIndex, Option<Vec<u8>>);

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
        loop {
            let (serving, there, stride) = (self.clone(), shelf.clone(), gossip.stride(to));
            let read = tokio::task::spawn_blocking(move || serving.read(to, &there, stride));
            let read = read.await.unwrap_or_default();
            if read.is_empty() {
                break;
            }
            for (infohash, piece, bytes) in read {
                let Some(bytes) = bytes else {
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
                if !pass_piece(gossip, to, (infohash, piece), bytes, shelf.run_bytes).await {
                    self.left(to);
                    return;
                }
            }
        }
        say_lacking(gossip, to, lacking).await;
    }

    /// Reads what is to be sent next: about so many bytes, one piece at least; nothing where nothing waits.
    fn read(&self, to: NeighbourId, shelf: &Shelf, stride: usize) -> Vec<Answer> {
        let (mut read, mut bytes) = (Vec::new(), 0);
        while read.is_empty() || bytes < stride {
            let Some((infohash, piece)) = self.next(to, read.is_empty()) else { break };
            let there = (shelf.read)(infohash, piece);
            bytes += there.as_ref().map_or(LACK_BYTES, Vec::len);
            read.push((infohash, piece, there));
        }
        read
    }

    /// The next piece for a neighbour: one of each ask in turn, so that who waits for one piece does not wait for all
    /// that was asked for before. Where there is none, and nothing else is to be sent either, its line ends.
    fn next(&self, to: NeighbourId, ends: bool) -> Option<(InfoHash, PieceIndex)> {
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
        if ends {
            state.lines.remove(&to);
        }
        None
    }
}

/// Sends a piece in runs; whether the neighbour is still there.
async fn pass_piece(
    gossip: &Gossip,
    to: NeighbourId,
    (infohash, piece): (InfoHash, PieceIndex),
    mut rest: Vec<u8>,
    run_bytes: usize,
) -> bool {
    let mut offset = 0;
    while !rest.is_empty() {
        let behind = rest.split_off(rest.len().min(run_bytes));
        let bytes = std::mem::replace(&mut rest, behind);
        let next = offset + bytes.len() as u32;
        if !gossip.pass(to, &Message::Piece(Run { infohash, piece, offset, bytes })).await {
            return false;
        }
        offset = next;
    }
    true
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
