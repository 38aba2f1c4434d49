//! The manifest: which versions a commit keeps, and where their tables and the local state lie.

use super::log::{POSITION_MAX, RING_SLOTS, SECTOR_BYTES};
use super::slots::RunRef;
use super::superblock::{read_run, write_run};
use super::table::{LEAF_BYTES, LEAF_REGIONS};
use crate::base::{Malformed, Reader, SlotIndex, Writer};

/// How many versions one store keeps at most.
pub(super) const KEPT_MAX: usize = 64;
/// Longest label of a kept version.
pub(super) const LABEL_BYTES_MAX: usize = 256;
/// Lists of absent units: more than the slots of a store can need.
pub(super) const ABSENT_RUNS_MAX: usize = 128;
/// Longest local state.
pub(super) const STATE_BYTES_MAX: usize = 1 << 20;

/// What a superblock leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    /// The local state; `None` if it is empty.
    pub(super) state: Option<RunRef>,
    /// The kept versions, in the order in which they were committed.
    pub(super) kept: Vec<KeptRef>,
    /// The intent log, if there is one.
    pub(super) log: Option<LogRef>,
    /// The lists of absent units; none where all is here.
    pub(super) absent: Vec<RunRef>,
}

/// Where the intent log lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogRef {
    /// Position of the first batch that the commit does not hold.
    pub(super) start: u64,
    /// The ring's slots, in order.
    pub(super) slots: Vec<SlotIndex>,
}

/// One kept version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeptRef {
    /// The caller's name for it.
    pub(super) label: Vec<u8>,
    /// Regions of its image.
    pub(super) regions: u32,
    /// The list of its table's leaves; `None` for an image without regions.
    pub(super) index: Option<RunRef>,
}

impl Manifest {
    /// State run, count, then per version: label, regions, index run; then, if there is a log: start 8, slots 4 each.
    /// With absent units there is 0 or 1 before that, and a count and runs behind it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        write_run(&mut writer, self.state).varint(self.kept.len() as u64);
        for kept in &self.kept {
            writer.bytes(&kept.label).u32(kept.regions);
            write_run(&mut writer, kept.index);
        }
        if self.is_partial() {
            writer.u8(u8::from(self.log.is_some()));
        }
        if let Some(log) = &self.log {
            writer.u64(log.start);
            log.slots.iter().for_each(|slot| _ = writer.u32(slot.0));
        }
        if self.is_partial() {
            writer.varint(self.absent.len() as u64);
            self.absent.iter().for_each(|run| _ = write_run(&mut writer, Some(*run)));
        }
        writer.0
    }

    /// Whether it lists absent units: the superblock says so too.
    pub(super) fn is_partial(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Parses what [`Manifest::encode`] writes.
    pub(super) fn decode(bytes: &[u8], partial: bool) -> Result<Manifest, Malformed> {
        let mut reader = Reader::new(bytes);
        let state = read_run(&mut reader)?;
        let count = reader.bounded(KEPT_MAX)?;
        let mut kept = Vec::with_capacity(count);
        for _ in 0..count {
            let label = reader.bytes(LABEL_BYTES_MAX)?.to_vec();
            let (regions, index) = (reader.u32()?, read_run(&mut reader)?);
            if (regions == 0) != index.is_none() {
                return Err(Malformed);
            }
            kept.push(KeptRef { label, regions, index });
        }
        let logged = if partial { reader.u8()? } else { u8::from(reader.remaining() > 0) };
        let log = match logged {
            0 => None,
            1 => Some(read_log(&mut reader)?),
            _ => return Err(Malformed),
        };
        let mut absent = Vec::new();
        if partial {
            let count = reader.bounded(ABSENT_RUNS_MAX)?;
            for _ in 0..count {
                absent.push(read_run(&mut reader)?.ok_or(Malformed)?);
            }
            if absent.is_empty() {
                return Err(Malformed);
            }
        }
        reader.end()?;
        Ok(Manifest { state, kept, log, absent })
    }
}

fn read_log(reader: &mut Reader<'_>) -> Result<LogRef, Malformed> {
    let start = reader.u64()?;
    if start > POSITION_MAX || start % SECTOR_BYTES != 0 {
        return Err(Malformed);
    }
    let slots = (0..RING_SLOTS).map(|_| Ok(SlotIndex(reader.u32()?))).collect::<Result<_, Malformed>>()?;
    Ok(LogRef { start, slots })
}

/// The list of a table's leaves: page 4, hash 32 each.
pub(super) fn encode_index(leaves: impl Iterator<Item = RunRef>) -> Vec<u8> {
    let mut writer = Writer::new();
    for leaf in leaves {
        writer.u32(leaf.page).raw(&leaf.hash);
    }
    writer.0
}

/// Parses what [`encode_index`] writes for an image of `regions`.
pub(super) fn decode_index(bytes: &[u8], regions: u32) -> Result<Vec<RunRef>, Malformed> {
    let count = regions.div_ceil(LEAF_REGIONS) as usize;
    if bytes.len() != count * (4 + 32) {
        return Err(Malformed);
    }
    let mut reader = Reader::new(bytes);
    (0..count).map(|_| Ok(RunRef { page: reader.u32()?, bytes: LEAF_BYTES, hash: reader.array()? })).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_manifest_has_one_encoding() {
        let run = RunRef { page: 300, bytes: 77, hash: [5; 32] };
        let kept = |label: &[u8], regions, index| KeptRef { label: label.to_vec(), regions, index };
        let log = LogRef { start: 1 << 40, slots: (9..).take(RING_SLOTS).map(SlotIndex).collect() };
        let kept = vec![kept(b"", 0, None), kept(b"head", 3, Some(run))];
        let without = Manifest { state: Some(run), kept: kept.clone(), log: None, absent: Vec::new() };
        assert_eq!(Manifest::decode(&without.encode(), false), Ok(without.clone()));
        let manifest = Manifest { state: Some(run), kept, log: Some(log), absent: Vec::new() };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes, false), Ok(manifest.clone()));
        for cut in 0..bytes.len() {
            let shorter = Manifest::decode(&bytes[..cut], false);
            assert!(shorter == Err(Malformed) || shorter.as_ref() == Ok(&without), "cut at {cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(Manifest::decode(&long, false), Err(Malformed));
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x41;
            if let Ok(other) = Manifest::decode(&bent, false) {
                assert!(other != manifest && other.encode() == bent, "byte {at}");
            }
        }
    }

    #[test]
    fn absent_units_are_listed_behind_the_rest() {
        let run = |page| RunRef { page, bytes: 77, hash: [5; 32] };
        let slots = (9..).take(RING_SLOTS).map(SlotIndex).collect();
        for log in [None, Some(LogRef { start: 1 << 40, slots })] {
            let absent = vec![run(300), run(301)];
            let manifest = Manifest { state: None, kept: Vec::new(), log, absent };
            let bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes, true), Ok(manifest.clone()));
            assert_ne!(Manifest::decode(&bytes, false), Ok(manifest));
            for cut in 0..bytes.len() {
                assert_eq!(Manifest::decode(&bytes[..cut], true), Err(Malformed), "cut at {cut}");
            }
        }
        let whole = Manifest { state: None, kept: Vec::new(), log: None, absent: Vec::new() }.encode();
        assert_eq!(Manifest::decode(&[&whole[..], &[0, 0]].concat(), true), Err(Malformed));
        assert!(super::super::slots::SLOTS_MAX as usize * 18 / ABSENT_RUNS_MAX <= 1 << 20);
    }

    #[test]
    fn the_largest_index_fits_a_run() {
        let bytes = (super::super::slots::SLOTS_MAX.div_ceil(LEAF_REGIONS) * 36) as usize;
        assert!(bytes <= 1 << 20);
        assert_eq!(decode_index(&[0; 36], 513), Err(Malformed));
    }
}
