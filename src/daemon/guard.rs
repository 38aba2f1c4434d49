//! What is equal by id and place is skipped when versions are compared. That is only sound where both images show the
//! same bytes at that place: a forged version could keep an old root and put garbage below it.

use super::absent::Unfit;
use super::error::EngineError;
use crate::base::{BlockNumber, Inode, Place, RegionIndex};
use crate::image::{Image, Store, StoreError, UNIT_BYTES};
use crate::map::{Descend, Entry, FetchError, MapError, Visit, Which};
use crate::tree::inode::InodeRecord;
use crate::tree::key::Key;
use crate::tree::value::chunk_id;
use crate::tree::verify::open_changed;
use crate::tree::version::Version;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Regions in which an image does not go on from an older one, as far as that can be told.
#[derive(Default)]
pub struct Diverging {
    /// Where bytes that are here would be given up for others, or for none.
    pub known: BTreeSet<RegionIndex>,
    /// Where all that has opened here stays, and the older one has bytes that are not here, or zeros in which others were
    /// written: a region whose end is not here is taken for full.
    pub unseen: BTreeSet<RegionIndex>,
}

/// The regions in which `new` does not begin with the bytes that `old` shows there.
pub fn diverging(store: &Arc<Store>, old: &Image, new: &Image) -> Result<Diverging, EngineError> {
    let mut diverging = Diverging::default();
    for (index, region) in old.iter() {
        let other = if index.0 < new.regions() { Some(new.region(index)) } else { None };
        let likeness = match other {
            _ if region.live == 0 || region.fill == 0 => Likeness::Same,
            Some(other) if other.slot == region.slot && other.fill >= region.fill => Likeness::Same,
            Some(_) => likeness(store, old, new, index, region.fill)?,
            None => Likeness::Different,
        };
        match likeness {
            Likeness::Same => {}
            Likeness::Unseen => drop(diverging.unseen.insert(index)),
            Likeness::Different => drop(diverging.known.insert(index)),
        }
    }
    Ok(diverging)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Likeness {
    Same,
    /// All that is here and is not a tail of zeros is the same.
    Unseen,
    Different,
}

/// Compares what two images show of a region up to a fill, one unit of presence after the other.
fn likeness(
    store: &Arc<Store>,
    old: &Image,
    new: &Image,
    index: RegionIndex,
    fill: u32,
) -> Result<Likeness, EngineError> {
    let (mut one, mut other) = ([0; UNIT_BYTES as usize], [0; UNIT_BYTES as usize]);
    let (mut likeness, mut ended) = (Likeness::Same, false);
    for start in (0..fill).step_by(UNIT_BYTES as usize) {
        let count = (fill - start).min(UNIT_BYTES as u32);
        let (one, other) = (&mut one[..count as usize], &mut other[..count as usize]);
        let offset = index.start() + u64::from(start);
        match store.read(old, offset, one) {
            Err(StoreError::NotHere { .. }) => {
                likeness = Likeness::Unseen;
                continue;
            }
            read => read?,
        }
        match store.read(new, offset, other) {
            // What is here is not given up for what is not, unopened.
            Err(StoreError::NotHere { .. }) => return Ok(Likeness::Different),
            read => read?,
        }
        let differs_from = if ended { Some(0) } else { (0..one.len()).find(|at| one[*at] != other[*at]) };
        if let Some(from) = differs_from {
            if one[from..].iter().any(|byte| *byte != 0) {
                return Ok(Likeness::Different);
            }
            (likeness, ended) = (Likeness::Unseen, true);
        }
    }
    Ok(likeness)
}

/// Opens every node of a block's map, and every chunk that lies `where_to_look`. Chunks that are not here are `wanted`
/// first, or are left to who reads them.
pub fn open_all(
    block: BlockNumber,
    version: &Version<'_>,
    image_bytes: u64,
    where_to_look: &dyn Fn(Place) -> bool,
    wanted: bool,
) -> Result<(), Unfit> {
    open_changed(block, None, version, image_bytes).map_err(Unfit::stopped)?;
    let mut chunks = Chunks::of(version, wanted);
    let mut opened = Ok(());
    let walked = version.map.walk::<MapError>(version.root.as_ref(), &mut |visit| {
        if let Visit::Entry(entry) = visit
            && opened.is_ok()
        {
            opened = chunks.open(entry, where_to_look);
        }
        Ok(if opened.is_ok() { Descend::Yes } else { Descend::Skip })
    });
    walked.map_err(Unfit::unopened)?;
    opened
}

/// Opens every chunk that `new` has in a node of its own.
pub fn open_new_chunks(old: &Version<'_>, new: &Version<'_>) -> Result<(), Unfit> {
    let mut found = Vec::new();
    let (from, to) = (old.root.as_ref(), new.root.as_ref());
    let visited = old.map.nodes_changed_with::<MapError>(from, new.map, to, &mut |changed| {
        if changed.which == Which::New && changed.root.level == 0 {
            found.extend(changed.entries.iter().filter(|entry| entry.place.is_some()).cloned());
        }
        Ok(())
    });
    visited.map_err(Unfit::unopened)?;
    let mut chunks = Chunks::of(new, true);
    found.iter().try_for_each(|entry| chunks.open(entry, &|_| true))
}

/// Opens the chunks of one version.
struct Chunks<'v> {
    version: &'v Version<'v>,
    /// Under what the chunks of the last inode are sealed.
    last: Option<(Inode, u64)>,
    /// Whether one that is not here has to be fetched.
    wanted: bool,
}

impl<'v> Chunks<'v> {
    fn of(version: &'v Version<'v>, wanted: bool) -> Chunks<'v> {
        Chunks { version, last: None, wanted }
    }

    fn open(&mut self, entry: &Entry, where_to_look: &dyn Fn(Place) -> bool) -> Result<(), Unfit> {
        let Some(place) = entry.place.filter(|place| where_to_look(*place)) else { return Ok(()) };
        let Ok(Key::Chunk(inode, index)) = Key::decode(&entry.key) else { return Ok(()) };
        let bad = || Unfit::Refused(format!("it does not open: the chunk at {}", place.offset));
        let data_id = self.data_id(inode).ok_or_else(bad)?;
        let sealed = match self.version.source.fetch(place) {
            Err(FetchError::Absent(_)) if self.wanted => return Err(Unfit::Absent(place)),
            Err(FetchError::Absent(_)) => return Ok(()),
            sealed => sealed.map_err(|_| bad())?,
        };
        let id = chunk_id(&entry.value).map_err(|_| bad())?;
        self.version.keys.open_chunk(data_id, index, &id, &sealed).map(drop).map_err(|_| bad())
    }

    fn data_id(&mut self, inode: Inode) -> Option<u64> {
        if let Some((_, data_id)) = self.last.filter(|(last, _)| *last == inode) {
            return Some(data_id);
        }
        let key = Key::Inode(inode).encode();
        let entry = self.version.map.get(self.version.root.as_ref(), &key).ok()??;
        let data_id = InodeRecord::decode(&entry.value).ok()?.data_id;
        self.last = Some((inode, data_id));
        Some(data_id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{DatabaseId, PieceHashes, PieceIndex, PieceLength};
    use crate::image::{MemoryDisk, hash_piece};

    const LENGTH: PieceLength = PieceLength::MIN;
    /// Where the first version ends: in the middle of a piece.
    const ENDS: usize = 40 * 1024;

    fn first() -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes[..ENDS]);
        bytes
    }

    /// The first version with as much again written behind its end.
    fn second() -> Vec<u8> {
        let mut bytes = first();
        blake3::Hasher::new_derive_key("more").finalize_xof().fill(&mut bytes[ENDS..2 * ENDS]);
        bytes
    }

    /// A store that has some pieces of the first version, and gets all of another one.
    struct Receiver(Arc<Store>);

    impl Receiver {
        fn new() -> Receiver {
            Receiver(Store::create(Arc::new(MemoryDisk::new()), DatabaseId([7; 32])).unwrap())
        }

        fn hashes(whole: &[u8]) -> PieceHashes {
            let hashes = whole.chunks(LENGTH.bytes() as usize).map(hash_piece).collect();
            PieceHashes { length: LENGTH, image_bytes: whole.len() as u64, hashes }
        }

        /// The first version, of which these pieces are here when it is begun, and those come later.
        fn begun_with(&self, at_once: &[u32], later: &[u32]) -> Image {
            let whole = first();
            let incoming = self.0.incoming(Self::hashes(&whole), &[]).unwrap();
            let bring = |piece: &u32| {
                let bytes = whole.chunks(LENGTH.bytes() as usize).nth(*piece as usize).unwrap();
                incoming.accept(PieceIndex(*piece), bytes).unwrap();
            };
            at_once.iter().for_each(bring);
            let image = incoming.finish_partial().unwrap();
            later.iter().for_each(bring);
            image
        }

        fn gets(&self, old: &Image, whole: &[u8]) -> Diverging {
            let bases = [(old.clone(), Self::hashes(&first()))];
            let incoming = self.0.incoming(Self::hashes(whole), &bases).unwrap();
            for (number, bytes) in whole.chunks(LENGTH.bytes() as usize).enumerate() {
                incoming.accept(PieceIndex(number as u32), bytes).unwrap();
            }
            diverging(&self.0, old, &incoming.finish().unwrap()).unwrap()
        }
    }

    fn of(known: &[u32], unseen: &[u32]) -> [Vec<RegionIndex>; 2] {
        [known, unseen].map(|regions| regions.iter().copied().map(RegionIndex).collect())
    }

    fn told(diverging: Diverging) -> [Vec<RegionIndex>; 2] {
        [diverging.known, diverging.unseen].map(|regions| regions.into_iter().collect())
    }

    #[test]
    fn a_region_that_only_grows_does_not_diverge() {
        let receiver = Receiver::new();
        let old = receiver.begun_with(&[0, 1, 2], &[]);
        assert_eq!(told(receiver.gets(&old, &second())), of(&[], &[]));
    }

    #[test]
    fn what_was_never_here_and_what_grows_behind_an_end_that_was_not_is_not_given_up() {
        let receiver = Receiver::new();
        let old = receiver.begun_with(&[0, 1], &[]);
        assert_eq!(told(receiver.gets(&old, &second())), of(&[], &[0]));
        let receiver = Receiver::new();
        let old = receiver.begun_with(&[0, 1], &[2]);
        assert!(receiver.0.is_whole(&old) && old.region(RegionIndex(0)).fill > ENDS as u32);
        assert_eq!(told(receiver.gets(&old, &second())), of(&[], &[0]));
    }

    #[test]
    fn other_bytes_for_those_that_are_here_are_noticed_wherever_they_lie() {
        for (at_once, later) in [(&[0, 1, 2][..], &[][..]), (&[0, 1], &[2])] {
            for at in [0, 20_000, ENDS - 1] {
                let receiver = Receiver::new();
                let old = receiver.begun_with(at_once, later);
                let mut forged = second();
                forged[at] ^= 1;
                assert_eq!(told(receiver.gets(&old, &forged)), of(&[0], &[]), "{at}");
            }
        }
        // Nothing behind it either, so that the end is nearer.
        let receiver = Receiver::new();
        let old = receiver.begun_with(&[0, 1, 2], &[]);
        let mut shorter = first();
        shorter[ENDS - 1] ^= 1;
        assert_eq!(told(receiver.gets(&old, &shorter)), of(&[0], &[]));
    }
}
