//! One call: which neighbour is asked for which piece, and what follows from what they say.

use super::asking::{Asking, CallId, Patience, Standing, Table, Told};
use super::pace::{Pace, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use super::{Accept, Draw, in_place};
use crate::base::{InfoHash, PieceHashes, PieceIndex};
use crate::image::hash_piece;
use crate::net::gossip::{ASKED_MAX, Gossip, Message, NeighbourId, Pieces};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Where all of a version is asked for, nothing may come from anybody for so long.
const STALL_MAX: Duration = Duration::from_secs(12);
/// Who is not known to have the version and has lacked so many pieces in a row is not asked for others for a while.
const LACKS_MAX: usize = 64;
/// No more is drawn while so many wait for somebody who has them.
const SHELVED_MAX: usize = 256;
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
    /// How fast each has been.
    paces: BTreeMap<NeighbourId, Pace>,
    liars: BTreeSet<NeighbourId>,
    /// From where there is more to ask for.
    draw: Option<Draw<'a>>,
    /// It is about all that there is of a version, not about what somebody waits for.
    bulk: bool,
    patience: Patience,
    /// There is nobody to ask.
    alone: bool,
    /// When something came, or still was to come.
    alive: Instant,
    /// What each has lacked since it brought something, and until when that counts.
    lacks: BTreeMap<NeighbourId, (usize, Instant)>,
    /// Who is not to be asked for a piece before when.
    lacking: BTreeMap<(PieceIndex, NeighbourId), Instant>,
}

struct Candidate {
    id: NeighbourId,
    standing: Standing,
    /// What may be under way from there, in bytes.
    window: u64,
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
            paces: BTreeMap::new(),
            liars: BTreeSet::new(),
            draw: None,
            bulk: false,
            patience: Patience::SHORT,
            alone: false,
            alive: Instant::now(),
            lacks: BTreeMap::new(),
            lacking: BTreeMap::new(),
        }
    }

    /// A call for all that `draw` gives. Neighbours may be silent for `slack` longer than else.
    pub(super) fn drawing(
        gossip: &'a Gossip,
        asking: &'a Asking,
        infohash: InfoHash,
        hashes: &'a PieceHashes,
        draw: Draw<'a>,
        slack: Duration,
    ) -> Call<'a> {
        let mut call = Call::new(gossip, asking, infohash, hashes, &[]);
        (call.draw, call.bulk) = (Some(draw), true);
        call.patience = Patience { silence: Patience::LONG.silence + slack, ..Patience::LONG };
        call
    }

    pub(super) async fn run(mut self, deadline: Duration, accept: Accept<'_>) -> Vec<PieceIndex> {
        let end = tokio::time::Instant::now() + deadline.min(DEADLINE_MAX);
        let mut look = tokio::time::interval(LOOK_PERIOD);
        loop {
            self.fill();
            if self.is_over() {
                break;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => break,
                _ = look.tick() => in_place(|| self.look(accept)),
                told = self.told.recv() => in_place(|| {
                    let Some(told) = told else { return };
                    self.hear(told, accept);
                    self.hear_rest(accept);
                }),
            }
        }
        self.wanted.union(&self.unfit).copied().collect()
    }

    fn is_over(&self) -> bool {
        if !self.bulk || self.wanted.is_empty() && self.draw.is_none() {
            return self.wanted.is_empty();
        }
        let dry = self.draw.is_none() || self.shelved.len() >= SHELVED_MAX;
        // Who has just connected may be listed before it is known.
        let nobody = self.alone && self.alive.elapsed() >= SHELF_PAUSE || dry && self.queue.is_empty();
        nobody && self.under_way.is_empty() || self.alive.elapsed() >= STALL_MAX
    }

    fn hear_rest(&mut self, accept: Accept<'_>) {
        while let Ok(told) = self.told.try_recv() {
            self.hear(told, accept);
        }
    }

    fn size_of(&self, piece: PieceIndex) -> u64 {
        self.hashes.bytes_of(piece)
    }

    fn hear(&mut self, told: Told, accept: Accept<'_>) {
        match told {
            Told::Whole(from, piece, bytes) => self.take(from, piece, bytes, accept),
            Told::Lacks(from, pieces) => {
                let (count, until) = self.lacks.entry(from).or_insert((0, Instant::now()));
                (*count, *until) = (*count + pieces.len(), Instant::now() + LACK_PAUSE);
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
        self.alive = Instant::now();
        self.lacks.remove(&from);
        self.paces.entry(from).and_modify(|pace| pace.note(bytes.len() as u64));
        if !wanted {
            self.release(piece, from);
        } else if accept(piece, &bytes) {
            self.ask_no_more(piece);
        } else if honest(&bytes) {
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
        self.paces.remove(&from);
        self.lacks.remove(&from);
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
    fn look(&mut self, accept: Accept<'_>) {
        self.hear_rest(accept);
        if self.shelved_at.elapsed() >= SHELF_PAUSE {
            self.unshelve();
        }
        let now = Instant::now();
        self.lacking.retain(|_, until| *until > now);
        self.lacks.retain(|_, (_, until)| *until > now);
        let mut table = self.asking.lock();
        // What has come whole is asked for no more, and may not have been heard of here.
        if !self.told.is_empty() {
            return;
        }
        let (infohash, patience) = (self.infohash, self.patience);
        let mut lost = |piece: PieceIndex, asked: &[NeighbourId]| {
            let coming = asked.iter().any(|from| table.is_coming(*from, infohash, piece, patience));
            if coming {
                self.alive = now;
            }
            !self.again.contains(&piece) && !coming
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
        if self.queue.is_empty() && (self.draw.is_none() || self.shelved.len() >= SHELVED_MAX) {
            return;
        }
        let candidates = self.candidates();
        self.alone = candidates.is_empty();
        if self.alone {
            return;
        }
        self.draw_more(&candidates);
        let mut asks: BTreeMap<NeighbourId, Vec<PieceIndex>> = BTreeMap::new();
        let mut table = self.asking.lock();
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
                        self.paces.entry(from).or_insert_with(Pace::start);
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
        asked.any(|from| table.is_coming(*from, self.infohash, piece, self.patience))
    }

    /// Who may be asked for anything.
    fn candidates(&self) -> Vec<Candidate> {
        let neighbours = self.gossip.neighbours();
        let mut table = self.asking.lock();
        let candidate = |id: NeighbourId| {
            let standing = table.standing(id, &self.infohash, self.patience)?;
            let lacks = self.lacks.get(&id).is_some_and(|(count, _)| *count >= LACKS_MAX);
            if self.bulk && lacks && standing != Standing::Has {
                return None;
            }
            let window = match self.bulk {
                true => self.paces.get(&id).map_or(WINDOW_BYTES_MIN, Pace::window),
                false => WINDOW_BYTES_MAX,
            };
            Some(Candidate { id, standing, window, open: self.load_of(id) <= window / 2 })
        };
        let honest = neighbours.iter().map(|one| one.id).filter(|id| !self.liars.contains(id));
        honest.filter_map(candidate).collect()
    }

    /// Queues as much more as may be asked for now.
    fn draw_more(&mut self, candidates: &[Candidate]) {
        let open = candidates.iter().filter(|one| one.open && one.standing != Standing::Silent);
        let room: u64 = open.map(|one| one.window.saturating_sub(self.load_of(one.id))).sum();
        let Some(draw) = self.draw.filter(|_| self.queue.is_empty() && room > 0) else { return };
        let drawn = draw(room);
        if drawn.is_empty() {
            self.draw = None;
        }
        self.wanted.extend(&drawn);
        self.queue.extend(drawn);
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
            load == 0 || one.open && load + size <= one.window
        };
        let idlest = best.filter(has_room).min_by_key(|one| self.load_of(one.id));
        if self.bulk && idlest.is_none() {
            // Those who know most are busy: others may have a part by now.
            let others = candidates.iter().filter(usable).filter(|one| !before.contains(&one.id));
            let other = others.filter(has_room).min_by_key(|one| self.load_of(one.id));
            return other.map_or(Choice::Later, |one| Choice::Ask(one.id));
        }
        idlest.map_or(Choice::Later, |one| Choice::Ask(one.id))
    }
}
