//! Who was asked for what, and by which calls: runs become whole pieces here, and what nobody asked for is dropped.

use crate::base::{InfoHash, Malformed, PieceIndex};
use crate::net::gossip::{NeighbourId, Pieces, Run};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A neighbour that was asked and says nothing for so long is mute: others are asked rather.
const MUTE_AFTER: Duration = Duration::from_millis(1_500);
/// Versions of which it is remembered that a neighbour has them.
const HAS_MAX: usize = 32;
/// After so many pieces with a wrong hash a neighbour is parted from.
const LIES_MAX: u32 = 3;

/// What is asked of all neighbours; clones share it.
#[derive(Clone, Default)]
pub(super) struct Asking(Arc<Mutex<Table>>);

/// The same under its lock.
#[derive(Default)]
pub(super) struct Table {
    calls: BTreeMap<CallId, mpsc::UnboundedSender<Told>>,
    next: u64,
    asked: BTreeMap<(NeighbourId, InfoHash, PieceIndex), Asked>,
    known: BTreeMap<NeighbourId, Known>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(u64);

/// A piece that a neighbour was asked for.
struct Asked {
    size: usize,
    /// What has come of it, from its beginning.
    bytes: Vec<u8>,
    calls: Vec<CallId>,
    /// When it was asked for, or something of it came.
    at: Instant,
}

/// What is known of a neighbour.
#[derive(Default)]
struct Known {
    has: VecDeque<InfoHash>,
    /// How many pieces it was asked for, and since when nothing came of them.
    awaited: usize,
    since: Option<Instant>,
    /// It was silent when it was asked last.
    mute: bool,
    lies: u32,
    /// Bytes that it was asked for and has not sent.
    owes: u64,
}

/// How long something is waited for before it is asked for elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// With a neighbour that was asked and says nothing.
    pub silence: Duration,
    /// With a piece of which nothing comes, whatever else its neighbour says.
    pub piece: Duration,
}

impl Patience {
    /// Where somebody waits for it.
    pub(super) const SHORT: Patience = Patience { silence: MUTE_AFTER, piece: Duration::from_secs(6) };
    /// Where nobody does: what comes twice costs more than what comes late.
    pub(super) const LONG: Patience =
        Patience { silence: Duration::from_secs(6), piece: Duration::from_secs(60) };
}

/// What a call hears.
pub(super) enum Told {
    Whole(NeighbourId, PieceIndex, Vec<u8>),
    Lacks(NeighbourId, Vec<PieceIndex>),
    Left(NeighbourId),
    Met,
}

/// How well a neighbour serves to ask it for a piece of a version; the better first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Standing {
    /// It is known to have the version.
    Has,
    /// It may have it.
    May,
    /// It did not answer lately, perhaps because it does not know the question.
    Mute,
    /// It is asked already, and does not answer.
    Silent,
}

impl Asking {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }

    /// A part of a piece came. An error if it cannot be a part of it.
    pub(super) fn came(&self, from: NeighbourId, run: Run) -> Result<(), Malformed> {
        let mut table = self.lock();
        let key = (from, run.infohash, run.piece);
        table.heard(from);
        table.paid(from, run.bytes.len() as u64)?;
        let Some(asked) = table.asked.get_mut(&key) else { return Ok(()) };
        // What was sent for an earlier ask of the same piece may come in between.
        if run.offset as usize != asked.bytes.len() {
            return Ok(());
        }
        if asked.bytes.len() + run.bytes.len() > asked.size {
            return Err(Malformed);
        }
        if asked.bytes.is_empty() {
            asked.bytes = run.bytes;
        } else {
            asked.bytes.extend_from_slice(&run.bytes);
        }
        asked.at = Instant::now();
        let whole = asked.bytes.len() == asked.size;
        table.has(from, run.infohash);
        if whole && let Some(Asked { bytes, calls, .. }) = table.remove(&key) {
            let mut bytes = Some(bytes);
            for (left, call) in calls.iter().enumerate().rev() {
                // The last one gets the bytes themselves.
                let given = if left == 0 { bytes.take() } else { bytes.clone() };
                table.say(*call, Told::Whole(from, run.piece, given.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// A neighbour does not have what it was asked for.
    pub(super) fn lacks(&self, from: NeighbourId, lacking: &Pieces) {
        let mut table = self.lock();
        table.heard(from);
        let mut told: BTreeMap<CallId, Vec<PieceIndex>> = BTreeMap::new();
        for piece in &lacking.pieces {
            if let Some(asked) = table.remove(&(from, lacking.infohash, *piece)) {
                asked.calls.into_iter().for_each(|call| told.entry(call).or_default().push(*piece));
            }
        }
        for (call, pieces) in told {
            table.say(call, Told::Lacks(from, pieces));
        }
    }

    /// A neighbour has a version, as far as it says.
    pub(super) fn has(&self, from: NeighbourId, infohash: InfoHash) {
        self.lock().has(from, infohash);
    }

    /// From now on it can be asked.
    pub(super) fn met(&self, id: NeighbourId) {
        let mut table = self.lock();
        table.known.entry(id).or_default();
        table.calls.keys().for_each(|call| table.say(*call, Told::Met));
    }

    pub(super) fn left(&self, id: NeighbourId) {
        let mut table = self.lock();
        table.known.remove(&id);
        table.asked.retain(|(neighbour, ..), _| *neighbour != id);
        table.calls.keys().for_each(|call| table.say(*call, Told::Left(id)));
    }

    /// A call begins to ask.
    pub(super) fn begin(&self) -> (CallId, mpsc::UnboundedReceiver<Told>) {
        let mut table = self.lock();
        let call = CallId(table.next);
        table.next += 1;
        // As long as what it asked for and has not taken yet: that is bounded.
        let (sender, told) = mpsc::unbounded_channel();
        table.calls.insert(call, sender);
        (call, told)
    }

    /// A call has ended: what only it waited for is dropped when it comes.
    pub(super) fn end(&self, call: CallId) {
        let mut table = self.lock();
        table.calls.remove(&call);
        let waits = |asked: &Asked| asked.calls.contains(&call);
        let keys: Vec<_> =
            table.asked.iter().filter(|(_, asked)| waits(asked)).map(|(key, _)| *key).collect();
        keys.iter().for_each(|(from, infohash, piece)| table.forget(call, *from, *infohash, *piece));
    }

    /// Pieces that are asked for and bytes of them that are here.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let table = self.lock();
        (table.asked.len(), table.asked.values().map(|asked| asked.bytes.len()).sum())
    }

    /// A neighbour sent a piece with a wrong hash; says whether it has done so too often.
    pub(super) fn lied(&self, from: NeighbourId) -> bool {
        let mut table = self.lock();
        let Some(known) = table.known.get_mut(&from) else { return false };
        known.lies += 1;
        known.lies >= LIES_MAX
    }
}

impl Table {
    /// A call asks a neighbour for a piece; it may be asked for it already.
    pub(super) fn ask(
        &mut self,
        call: CallId,
        from: NeighbourId,
        infohash: InfoHash,
        piece: PieceIndex,
        size: usize,
    ) {
        let now = Instant::now();
        // It may have left since it was chosen: the call is about to hear of it.
        let Some(known) = self.known.get_mut(&from) else { return };
        known.owes += size as u64;
        let asked = self.asked.entry((from, infohash, piece)).or_insert_with(|| {
            known.awaited += 1;
            known.since.get_or_insert(now);
            Asked { size, bytes: Vec::new(), calls: Vec::new(), at: now }
        });
        asked.at = now;
        if !asked.calls.contains(&call) {
            asked.calls.push(call);
        }
    }

    /// Whether any neighbour is known to have a version.
    pub(super) fn is_had(&self, infohash: &InfoHash) -> bool {
        self.known.values().any(|known| known.has.contains(infohash))
    }

    /// A call waits for a piece from there no more.
    pub(super) fn forget(&mut self, call: CallId, from: NeighbourId, infohash: InfoHash, piece: PieceIndex) {
        let key = (from, infohash, piece);
        let Some(asked) = self.asked.get_mut(&key) else { return };
        asked.calls.retain(|known| *known != call);
        if asked.calls.is_empty() {
            self.remove(&key);
        }
    }

    /// Whether anybody has asked a neighbour for a piece.
    pub(super) fn is_asked(&self, from: NeighbourId, infohash: InfoHash, piece: PieceIndex) -> bool {
        self.asked.contains_key(&(from, infohash, piece))
    }

    /// Whether a piece may still come from where it was asked for.
    pub(super) fn is_coming(
        &mut self,
        from: NeighbourId,
        infohash: InfoHash,
        piece: PieceIndex,
        patience: Patience,
    ) -> bool {
        let fresh = |asked: &Asked| asked.at.elapsed() < patience.piece;
        self.asked.get(&(from, infohash, piece)).is_some_and(fresh)
            && self.standing(from, &infohash, patience).is_some_and(|standing| standing != Standing::Silent)
    }

    /// How well a neighbour serves; none if it is not connected, as far as is known.
    pub(super) fn standing(
        &mut self,
        from: NeighbourId,
        infohash: &InfoHash,
        patience: Patience,
    ) -> Option<Standing> {
        let known = self.known.get_mut(&from)?;
        let quiet = known.since.map_or(Duration::ZERO, |since| since.elapsed());
        known.mute |= quiet >= MUTE_AFTER;
        Some(match (known.mute, known.has.contains(infohash)) {
            (true, _) if known.awaited > 0 && quiet >= patience.silence => Standing::Silent,
            (true, _) => Standing::Mute,
            (false, true) => Standing::Has,
            (false, false) => Standing::May,
        })
    }

    fn heard(&mut self, from: NeighbourId) {
        let Some(known) = self.known.get_mut(&from) else { return };
        known.mute = false;
        known.since = (known.awaited > 0).then(Instant::now);
    }

    /// Something of what a neighbour was asked for came. An error if it was not asked for so much.
    fn paid(&mut self, from: NeighbourId, bytes: u64) -> Result<(), Malformed> {
        let Some(known) = self.known.get_mut(&from) else { return Ok(()) };
        known.owes = known.owes.checked_sub(bytes).ok_or(Malformed)?;
        Ok(())
    }

    fn has(&mut self, from: NeighbourId, infohash: InfoHash) {
        let Some(Known { has, .. }) = self.known.get_mut(&from) else { return };
        if has.contains(&infohash) {
            return;
        }
        has.push_back(infohash);
        if has.len() > HAS_MAX {
            has.pop_front();
        }
    }

    fn remove(&mut self, key: &(NeighbourId, InfoHash, PieceIndex)) -> Option<Asked> {
        let asked = self.asked.remove(key)?;
        if let Some(known) = self.known.get_mut(&key.0) {
            known.awaited -= 1;
            if known.awaited == 0 {
                known.since = None;
            }
        }
        Some(asked)
    }

    fn say(&self, call: CallId, told: Told) {
        if let Some(sender) = self.calls.get(&call) {
            // A call that has just ended hears nothing more.
            _ = sender.send(told);
        }
    }
}
