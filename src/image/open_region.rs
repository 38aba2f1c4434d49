//! The region that a draft is filling, and bytes on their way to a slot.

use super::slots::{SlotPin, Tail};
use crate::base::{REGION_BYTES, RegionIndex};

/// What an object is appended for; each stream fills regions of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// New content.
    Fresh,
    /// Objects that the cleaner moves: they have lived long and will live on together.
    Cleaning,
}

impl Stream {
    /// Position in arrays of one value a stream.
    pub(super) fn index(self) -> usize {
        match self {
            Stream::Fresh => 0,
            Stream::Cleaning => 1,
        }
    }
}

/// A region being filled. Bytes below `start` are in the slot or in a segment of an earlier filling, the others in the
/// buffer.
pub(super) struct OpenRegion {
    pub(super) region: RegionIndex,
    pub(super) tail: Tail,
    pub(super) start: u32,
    pub(super) buffer: Vec<u8>,
    pub(super) live: u32,
}

impl OpenRegion {
    /// One past the last byte appended.
    pub(super) fn fill(&self) -> u32 {
        self.start + self.buffer.len() as u32
    }

    /// Appends an object if it fits: the offset in the region.
    pub(super) fn push(&mut self, sealed: &[u8]) -> Option<u32> {
        let at = self.fill();
        if u64::from(at) + sealed.len() as u64 > REGION_BYTES {
            return None;
        }
        self.buffer.extend_from_slice(sealed);
        self.live += sealed.len() as u32;
        Some(at)
    }

    /// Takes the buffer as a segment to be written, if there is anything in it; an empty one becomes the spare.
    pub(super) fn seal(&mut self, spare: &mut Vec<u8>) -> Option<Segment> {
        let bytes = std::mem::take(&mut self.buffer);
        if bytes.is_empty() {
            *spare = bytes;
            return None;
        }
        let start = self.start;
        self.start += bytes.len() as u32;
        Some(Segment { slot: self.tail.pin().clone(), start, bytes })
    }
}

/// Bytes that belong into a slot and may not be there yet; they hold the slot.
pub(super) struct Segment {
    pub(super) slot: SlotPin,
    pub(super) start: u32,
    pub(super) bytes: Vec<u8>,
}

/// Copies the part of `held`, which starts at `held_start`, that lies in `wanted`, which starts at `wanted_start`; says
/// whether that was all of it.
pub(super) fn overlay(held: &[u8], held_start: u32, wanted: &mut [u8], wanted_start: u32) -> bool {
    let (held_start, wanted_start) = (held_start as usize, wanted_start as usize);
    let from = held_start.max(wanted_start);
    let to = (held_start + held.len()).min(wanted_start + wanted.len());
    if from < to {
        wanted[from - wanted_start..to - wanted_start]
            .copy_from_slice(&held[from - held_start..to - held_start]);
    }
    from == wanted_start && to == wanted_start + wanted.len()
}
