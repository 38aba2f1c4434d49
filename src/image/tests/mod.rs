//! Tests of the store as a whole.
#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod drafts;
mod full;
mod garbage;
mod incoming;
mod log;
mod partial;
mod pieces;
mod sharing;

use super::{Disk, Draft, Image, Kept, Label, MemoryDisk, Store, Stream};
use crate::base::{DatabaseId, Place};
use std::sync::Arc;

const DATABASE: DatabaseId = DatabaseId([7; 32]);

/// A small seeded generator: equal seeds give equal tests.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % bound
    }

    fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        dice.below(2);
        dice
    }
}

/// Bytes that look like a sealed object: no two seeds share any, and the last is not zero.
fn object(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new_derive_key("kilofs test object")
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    if let Some(last) = out.last_mut() {
        *last |= 1;
    }
    out
}

fn memory_store() -> (Arc<MemoryDisk>, Arc<Store>) {
    let disk = Arc::new(MemoryDisk::new());
    (disk.clone(), Store::create(disk, DATABASE).unwrap())
}

fn content(store: &Store, image: &Image) -> Vec<u8> {
    let mut bytes = vec![1; image.bytes() as usize];
    store.read(image, 0, &mut bytes).unwrap();
    bytes
}

fn digest(store: &Store, image: &Image) -> blake3::Hash {
    blake3::hash(&content(store, image))
}

fn kept(name: &str, image: &Image) -> Kept {
    Kept { label: Label(name.as_bytes().to_vec()), image: image.clone() }
}

fn append(draft: &Draft, seed: u64, bytes: usize) -> Place {
    draft.append(Stream::Fresh, &object(seed, bytes)).unwrap()
}

fn reopened(disk: &MemoryDisk) -> Arc<Store> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(disk).unwrap()
}
