//! Fetching ahead of readers: who reads on will soon want what follows, in the file as it goes on, wherever in the image
//! that lies; and files that were written together lie together.

use super::demand::blocking;
use super::drive::Driver;
use super::flight::Haste;
use crate::base::{InfoHash, Inode, PieceIndex, Place};
use crate::fuse::Reading;
use crate::image::Incoming;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are fetched ahead of a reader: as many as it has read in a row, within these.
const AHEAD_BYTES_MIN: u64 = 512 << 10;
const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// Readers that are followed at a time.
const READERS_MAX: usize = 16;

/// What the last readers have read in a row.
#[derive(Default)]
pub(super) struct Rows(Vec<Row>);

/// Bytes of a file, or of the image where it is not known of which file they are.
struct Row {
    file: Option<Inode>,
    begin: u64,
    /// Where its reader will go on.
    next: u64,
}

impl Rows {
    /// How much to fetch beyond what is being read: more for who reads on where it left off.
    fn ahead(&mut self, file: Option<Inode>, begin: u64, end: u64) -> u64 {
        let follows = |row: &Row| {
            let near = row.next.saturating_sub(AHEAD_BYTES_MIN)..=row.next + AHEAD_BYTES_MAX;
            row.file == file && near.contains(&begin)
        };
        let mut row = match self.0.iter().position(follows) {
            Some(index) => self.0.remove(index),
            None => Row { file, begin, next: end },
        };
        // What one reader wants may be asked for in several requests at once, in any order: they are no reason for more.
        (row.begin, row.next) = (row.begin.min(begin), row.next.max(end));
        let read = row.next - row.begin;
        self.0.insert(0, row);
        self.0.truncate(READERS_MAX);
        read.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX)
    }
}

impl Driver {
    /// Fetches what will probably be wanted after a place, or after what is being read there, without waiting for it.
    pub(super) fn fetch_ahead(
        self: &Arc<Self>,
        (infohash, supply): (InfoHash, &Arc<Incoming>),
        wanted: &[PieceIndex],
        reading: Option<Reading>,
        patience: Duration,
    ) {
        let hashes = supply.hashes();
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return };
        let begin = hashes.length.start_of(*first);
        let end = hashes.length.start_of(*last) + hashes.bytes_of(*last);
        let bytes = {
            let rows = &mut self.facts.lock().demand.rows;
            match reading {
                Some(reading) => rows.ahead(Some(reading.inode), reading.begin, reading.end),
                None => rows.ahead(None, begin, end),
            }
        };
        let (driver, supply) = (self.clone(), supply.clone());
        tokio::spawn(async move {
            let Some(net) = driver.net() else { return };
            let mut places = match reading {
                Some(reading) => driver.places_after(reading, bytes).await,
                None => Vec::new(),
            };
            let known: u64 = places.iter().map(|place| u64::from(place.length)).sum();
            // Where the file ends soon the next one may be wanted, of which only the neighbourhood says where it lies.
            let rest = if reading.is_some() { AHEAD_BYTES_MIN.saturating_sub(known) } else { bytes };
            places.push(Place { offset: end, length: u32::try_from(rest).unwrap_or(u32::MAX) });
            let mut seen = BTreeSet::new();
            let pieces: Vec<PieceIndex> = places
                .iter()
                .flat_map(|place| supply.missing_at(*place))
                .filter(|piece| seen.insert(*piece))
                .collect();
            let flight = driver.begin_flight(&supply, &pieces, Haste::Ahead);
            if !flight.pieces.is_empty() {
                driver.bring(net, infohash, &supply, &flight.pieces, patience).await;
            }
        });
    }

    /// Where a file's next bytes lie, as far as that can be told.
    async fn places_after(&self, reading: Reading, bytes: u64) -> Vec<Place> {
        let core = self.core.clone();
        let places = blocking(move || Ok(core.tree()?.places(reading.inode, reading.end, bytes)?));
        places.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_on_gets_more_ahead() {
        let mut rows = Rows::default();
        let (file, other) = (Some(Inode(7)), Some(Inode(8)));
        assert_eq!(rows.ahead(file, 0, 1000), AHEAD_BYTES_MIN);
        // Another reader elsewhere does not disturb the first one.
        assert_eq!(rows.ahead(other, 0, 100 << 20), AHEAD_BYTES_MAX);
        assert_eq!(rows.ahead(None, 1000, 2000), AHEAD_BYTES_MIN);
        assert_eq!(rows.ahead(file, 1 << 40, (1 << 40) + 1000), AHEAD_BYTES_MIN);
        // Many requests for the same bytes are no reason for more.
        for at in [6, 4, 5, 4, 6, 5] {
            assert_eq!(rows.ahead(file, at << 10, 7 << 10), AHEAD_BYTES_MIN);
        }
        assert_eq!(rows.ahead(file, 1 << 20, 2 << 20), 2 << 20);
        for round in 2..100 {
            rows.ahead(file, round << 20, (round + 1) << 20);
        }
        assert_eq!(rows.ahead(file, 100 << 20, 101 << 20), AHEAD_BYTES_MAX);
        for reader in 0..100u64 {
            rows.ahead(file, reader << 30, reader << 30);
        }
        assert_eq!(rows.0.len(), READERS_MAX);
    }
}
