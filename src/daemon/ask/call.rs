//! One call: which neighbour is asked for which piece, and what follows from what they say.

use super::Accept;
use super::asking::{Asking, CallId, Standing, Table, Told};
use crate::base::{InfoHash, PieceHashes, PieceIndex};
use crate::image::hash_piece;
use crate::net::gossip::{ASKED_MAX, Gossip, Message, NeighbourId, Pieces};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

/// What a call waits for from one neighbour at a time, in bytes.
const WINDOW_BYTES: u64 = 4 << 20;
/// How often it is looked whether what was asked for still comes.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How long until a neighbour is asked again for what it lacked, or could not be asked for.
const LACK_PAUSE: Duration = Duration::from_secs(2);
const SAY_PAUSE: Duration = Duration::from_millis(300);
/// How long until a piece that nobody can be asked for is looked at again.
const SHELF_PAUSE: Duration = Duration::from_millis(500);
/// Pieces that may stand back behind others whose neighbours have room.
const BEHIND_MAX: usize = 64;
/// Nobody waits longer.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A call under way.
pub(super) struct Call<'a> {
    gossip: &'a Gossip,
    asking: &'a Asking,
    infohash: InfoHash,
    hashes: &'a PieceHashes,
    id: CallId,
    told: mpsc::UnboundedReceiver<Told>,
    /// What nobody has brought. Each is in the queue, or shelved, or under way, or under way and to be asked for again.
    wanted: BTreeSet<PieceIndex>,
    /// What was brought and could not be taken here.
    unfit: BTreeSet<PieceIndex>,
    /// What is to be asked for next, in the order of the caller's wishes; some of it may have come meanwhile.
    queue: VecDeque<PieceIndex>,
    /// Those for which nobody can be asked now.
    shelved: Vec<PieceIndex>,
    shelved_at: Instant,
    /// Who is asked for which.
    under_way: BTreeMap<PieceIndex, Vec<NeighbourId>>,
    /// Which of these are in the queue or shelved all the same.
    again: BTreeSet<PieceIndex>,
    /// Bytes that are asked of each neighbour.
    load: BTreeMap<NeighbourId, u64>,
    liars: BTreeSet<NeighbourId>,
    /// Who is not to be asked for a piece before when.
    lacking: BTreeMap<(PieceIndex, NeighbourId), Instant>,
}

struct Candidate {
    id: NeighbourId,
    standing: Standing,
    /// Whether it may be asked for more. Not before half of the window is through: so a few asks name many pieces.
    open: bool,
}

enum Choice {
    Ask(NeighbourId),
    /// Who can be asked is busy.
    Later,
    Nobody,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.asking.end(self.id);
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(
        gossip: &'a Gossip,
        asking: &'a Asking,
        infohash: InfoHash,
        hashes: &'a PieceHashes,
        pieces: &[PieceIndex],
    ) -> Call<'a> {
        let (id, told) = asking.begin();
        let wanted: BTreeSet<PieceIndex> = pieces.iter().copied().collect();
        let mut seen = BTreeSet::new();
        let there = |piece: &PieceIndex| hashes.hash_of(*piece).is_some() && seen.insert(*piece);
        Call {
            gossip,
            asking,
            infohash,
            hashes,
            id,
            told,
            wanted,
            unfit: BTreeSet::new(),
            queue: pieces.iter().copied().filter(there).collect(),
            shelved: Vec::new(),
            shelved_at: Instant::now(),
            under_way: BTreeMap::new(),
            again: BTreeSet::new(),
            load: BTreeMap::new(),
            liars: BTreeSet::new(),
            lacking: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, deadline: Duration, accept: Accept<'_>) -> Vec<PieceIndex> {
        let end = tokio::time::Instant::now() + deadline.min(DEADLINE_MAX);
        let mut look = tokio::time::interval(LOOK_PERIOD);
        while !self.wanted.is_empty() {
            self.fill();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => break,
                _ = look.tick() => self.look(),
                told = self.told.recv() => {
                    let Some(told) = told else { break };
                    self.hear(told, accept);
                    while let Ok(told) = self.told.try_recv() {
                        self.hear(told, accept);
                    }
                }
            }
        }
        self.wanted.union(&self.unfit).copied().collect()
    }

    fn size_of(&self, piece: PieceIndex) -> u64 {
        self.hashes.bytes_of(piece)
    }

    fn hear(&mut self, told: Told, accept: Accept<'_>) {
        match told {
            Told::Whole(from, piece, bytes) => self.take(from, piece, bytes, accept),
            Told::Lacks(from, pieces) => {
                for piece in pieces {
                    self.lacking.insert((piece, from), Instant::now() + LACK_PAUSE);
                    self.release(piece, from);
                }
            }
            Told::Left(id) => self.release_all(id),
            Told::Met => self.unshelve(),
        }
    }

    fn take(&mut self, from: NeighbourId, piece: PieceIndex, bytes: Vec<u8>, accept: Accept<'_>) {
        let wanted = self.wanted.contains(&piece);
        // Looked at beforehand: a piece may be refused here for another reason than its bytes, a full disk for one.
        let honest = |bytes: &[u8]| self.hashes.hash_of(piece) == Some(&hash_piece(bytes));
        if !wanted {
            self.release(piece, from);
        } else if in_place(|| accept(piece, bytes.clone())) {
            self.ask_no_more(piece);
        } else if in_place(|| honest(&bytes)) {
            self.unfit.insert(piece);
            self.ask_no_more(piece);
        } else {
            tracing::debug!(version = %self.infohash, piece = piece.0, "a neighbour sent a piece that has not its hash");
            self.liars.insert(from);
            self.release_all(from);
            if self.asking.lied(from) {
                self.gossip.part(from);
            }
        }
    }

    /// A piece does not come from there.
    fn release(&mut self, piece: PieceIndex, from: NeighbourId) {
        let Some(asked) = self.under_way.get_mut(&piece) else { return };
        let before = asked.len();
        asked.retain(|id| *id != from);
        if asked.len() == before {
            return;
        }
        let alone = asked.is_empty();
        if alone {
            self.under_way.remove(&piece);
        }
        let size = self.size_of(piece);
        self.load.entry(from).and_modify(|load| *load = load.saturating_sub(size));
        self.asking.lock().forget(self.id, from, self.infohash, piece);
        if alone && !self.again.remove(&piece) && self.wanted.contains(&piece) {
            self.queue.push_front(piece);
        }
    }

    fn release_all(&mut self, from: NeighbourId) {
        let asked = self.under_way.iter().filter(|(_, asked)| asked.contains(&from));
        let pieces: Vec<PieceIndex> = asked.map(|(piece, _)| *piece).collect();
        pieces.into_iter().rev().for_each(|piece| self.release(piece, from));
        self.load.remove(&from);
    }

    fn ask_no_more(&mut self, piece: PieceIndex) {
        self.wanted.remove(&piece);
        for from in self.under_way.get(&piece).cloned().unwrap_or_default() {
            self.release(piece, from);
        }
    }

    fn unshelve(&mut self) {
        self.shelved_at = Instant::now();
        for piece in std::mem::take(&mut self.shelved).into_iter().rev() {
            self.queue.push_front(piece);
        }
    }

    /// What may not come from where it was asked for is asked for elsewhere.
    fn look(&mut self) {
        if self.shelved_at.elapsed() >= SHELF_PAUSE {
            self.unshelve();
        }
        let now = Instant::now();
        self.lacking.retain(|_, until| *until > now);
        let mut table = self.asking.lock();
        let infohash = self.infohash;
        let mut lost = |piece: PieceIndex, asked: &[NeighbourId]| {
            !self.again.contains(&piece) && !asked.iter().any(|from| table.is_coming(*from, infohash, piece))
        };
        let again: Vec<PieceIndex> = self
            .under_way
            .iter()
            .filter(|(piece, asked)| lost(**piece, asked))
            .map(|(piece, _)| *piece)
            .collect();
        drop(table);
        for piece in again.into_iter().rev() {
            self.again.insert(piece);
            self.queue.push_front(piece);
        }
    }

    /// Asks for as much as may be under way.
    fn fill(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let mut asks: BTreeMap<NeighbourId, Vec<PieceIndex>> = BTreeMap::new();
        let neighbours = self.gossip.neighbours();
        let mut table = self.asking.lock();
        let candidates: Vec<Candidate> = neighbours
            .iter()
            .filter(|one| !self.liars.contains(&one.id))
            .filter_map(|one| {
                let standing = table.standing(one.id, &self.infohash)?;
                Some(Candidate { id: one.id, standing, open: self.load_of(one.id) <= WINDOW_BYTES / 2 })
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let mut behind = Vec::new();
        while let Some(piece) = self.queue.pop_front() {
            if !self.wanted.contains(&piece) || self.comes_again(piece, &mut table) {
                self.again.remove(&piece);
                continue;
            }
            match self.choose(piece, &candidates, &table) {
                Choice::Ask(from) => {
                    let size = self.size_of(piece);
                    table.ask(self.id, from, self.infohash, piece, size as usize);
                    self.again.remove(&piece);
                    let asked = self.under_way.entry(piece).or_default();
                    if !asked.contains(&from) {
                        asked.push(from);
                        *self.load.entry(from).or_default() += size;
                    }
                    asks.entry(from).or_default().push(piece);
                }
                Choice::Later => {
                    behind.push(piece);
                    if behind.len() >= BEHIND_MAX {
                        break;
                    }
                }
                Choice::Nobody => self.shelved.push(piece),
            }
        }
        drop(table);
        behind.into_iter().rev().for_each(|piece| self.queue.push_front(piece));
        for (from, mut pieces) in asks {
            pieces.sort_unstable();
            for pieces in pieces.chunks(ASKED_MAX) {
                self.say(from, pieces);
            }
        }
    }

    fn say(&mut self, from: NeighbourId, pieces: &[PieceIndex]) {
        let ask = Pieces { infohash: self.infohash, pieces: pieces.to_vec() };
        if self.gossip.say(from, &Message::Ask(ask)) {
            return;
        }
        for piece in pieces.iter().rev() {
            self.lacking.insert((*piece, from), Instant::now() + SAY_PAUSE);
            self.release(*piece, from);
        }
    }

    /// Whether a piece that seemed to be lost comes after all.
    fn comes_again(&self, piece: PieceIndex, table: &mut Table) -> bool {
        let mut asked = self.under_way.get(&piece).into_iter().flatten();
        asked.any(|from| table.is_coming(*from, self.infohash, piece))
    }

    fn load_of(&self, id: NeighbourId) -> u64 {
        self.load.get(&id).copied().unwrap_or(0)
    }

    /// Whom to ask for a piece: of those that serve best who is asked for it already by another call, else who is asked
    /// for least. Somebody else than before, if there is somebody else.
    fn choose(&self, piece: PieceIndex, candidates: &[Candidate], table: &Table) -> Choice {
        let before = self.under_way.get(&piece).map_or(&[][..], Vec::as_slice);
        let usable = |one: &&Candidate| {
            one.standing != Standing::Silent && !self.lacking.contains_key(&(piece, one.id))
        };
        let best = |again: bool| {
            let able = candidates.iter().filter(usable).filter(move |one| before.contains(&one.id) == again);
            able.clone()
                .map(|one| one.standing)
                .min()
                .map(|best| able.filter(move |one| one.standing == best))
        };
        let Some(best) = best(false) else {
            // Nobody else: who is not silent is asked once more.
            return best(true)
                .and_then(|mut able| able.next())
                .map_or(Choice::Nobody, |one| Choice::Ask(one.id));
        };
        if let Some(one) = best.clone().find(|one| table.is_asked(one.id, self.infohash, piece)) {
            return Choice::Ask(one.id);
        }
        let size = self.size_of(piece);
        let has_room = |one: &&Candidate| {
            let load = self.load_of(one.id);
            load == 0 || one.open && load + size <= WINDOW_BYTES
        };
        let idlest = best.filter(has_room).min_by_key(|one| self.load_of(one.id));
        idlest.map_or(Choice::Later, |one| Choice::Ask(one.id))
    }
}

/// Lets other tasks go on elsewhere meanwhile, where there is an elsewhere.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
