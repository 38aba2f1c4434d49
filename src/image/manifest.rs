//! The manifest: which versions a commit keeps, and where their tables and the local state lie.

use super::slots::RunRef;
use super::superblock::{read_run, write_run};
use super::table::{LEAF_BYTES, LEAF_REGIONS};
use crate::base::{Malformed, Reader, Writer};

/// How many versions one store keeps at most.
pub(super) const KEPT_MAX: usize = 64;
/// Longest label of a kept version.
pub(super) const LABEL_BYTES_MAX: usize = 256;
/// Longest local state.
pub(super) const STATE_BYTES_MAX: usize = 1 << 20;

/// What a superblock leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    /// The local state; `None` if it is empty.
    pub(super) state: Option<RunRef>,
    /// The kept versions, in the order in which they were committed.
    pub(super) kept: Vec<KeptRef>,
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
    /// State run, count, then per version: label, regions, index run.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        write_run(&mut writer, self.state).varint(self.kept.len() as u64);
        for kept in &self.kept {
            writer.bytes(&kept.label).u32(kept.regions);
            write_run(&mut writer, kept.index);
        }
        writer.0
    }

    /// Parses what [`Manifest::encode`] writes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Malformed> {
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
        reader.end()?;
        Ok(Manifest { state, kept })
    }
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
        let manifest =
            Manifest { state: Some(run), kept: vec![kept(b"", 0, None), kept(b"head", 3, Some(run))] };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..cut]), Err(Malformed));
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(Manifest::decode(&long), Err(Malformed));
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x41;
            if let Ok(other) = Manifest::decode(&bent) {
                assert!(other != manifest && other.encode() == bent, "byte {at}");
            }
        }
    }

    #[test]
    fn the_largest_index_fits_a_run() {
        let bytes = (super::super::slots::SLOTS_MAX.div_ceil(LEAF_REGIONS) * 36) as usize;
        assert!(bytes <= 1 << 20);
        assert_eq!(decode_index(&[0; 36], 513), Err(Malformed));
    }
}
