//! Sealed objects open where they belong, whole, and nowhere else.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn keys(block: u16, epoch: u32) -> SealKeys {
    SealKeys::for_block(
        &Secret::new([1; 32]),
        DatabaseId([2; 32]),
        BlockNumber(block),
        &Birth([3; 16]),
        epoch,
    )
}

fn every_damage(sealed: &[u8], refused: impl Fn(&[u8]) -> bool) {
    for bit in 0..sealed.len() * 8 {
        let mut damaged = sealed.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&damaged), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(refused(&sealed[..length]), "length {length}");
    }
    assert!(refused(&[sealed, &[0]].concat()), "one byte more");
}

proptest! {
    #[test]
    fn chunks_survive(plain in prop::collection::vec(any::<u8>(), 0..5000), before in prop::collection::vec(any::<u8>(), 0..50)) {
        let keys = keys(0, 0);
        let mut out = before.clone();
        let id = keys.seal_chunk(7, 8, &plain, &mut out);
        prop_assert_eq!(&out[..before.len()], &before[..]);
        prop_assert_eq!(out.len(), before.len() + plain.len());
        prop_assert_eq!(id, keys.chunk_id(7, 8, &plain));
        prop_assert_eq!(keys.open_chunk(7, 8, &id, &out[before.len()..]).unwrap(), plain);
    }

    #[test]
    fn nodes_survive(logical in prop::collection::vec(any::<u8>(), 0..3000), placements in prop::collection::vec(any::<u8>(), 0..600)) {
        let keys = keys(0, 0);
        let mut out = Vec::new();
        let id = keys.seal_node(2, &logical, &placements, &mut out);
        prop_assert_eq!(out.len(), logical.len() + placements.len() + NODE_OVERHEAD);
        prop_assert_eq!(id, keys.node_id(2, &logical));
        prop_assert_eq!(keys.open_node(2, &id, &out).unwrap(), OpenNode { logical, placements });
    }
}

#[test]
fn damage_never_opens() {
    let keys = keys(0, 0);
    let mut sealed = Vec::new();
    let id = keys.seal_chunk(7, 8, b"some content of a file", &mut sealed);
    every_damage(&sealed, |damaged| keys.open_chunk(7, 8, &id, damaged).is_err());
    sealed.clear();
    let id = keys.seal_node(1, b"keys and values", b"places", &mut sealed);
    every_damage(&sealed, |damaged| keys.open_node(1, &id, damaged).is_err());
    sealed.clear();
    let id = keys.seal_blob(BlobKind::Commit, b"a commit", &mut sealed);
    every_damage(&sealed, |damaged| keys.open_blob(BlobKind::Commit, &id, damaged).is_err());
}

#[test]
fn an_object_opens_only_where_it_belongs() {
    let keys_here = keys(4, 5);
    let mut sealed = Vec::new();
    let id = keys_here.seal_chunk(7, 8, b"content", &mut sealed);
    assert!(keys_here.open_chunk(7, 8, &id, &sealed).is_ok());
    assert_eq!(keys_here.open_chunk(6, 8, &id, &sealed), Err(Tampered), "another file");
    assert_eq!(keys_here.open_chunk(7, 9, &id, &sealed), Err(Tampered), "another index");
    assert_eq!(keys(3, 5).open_chunk(7, 8, &id, &sealed), Err(Tampered), "another block");
    assert_eq!(keys(4, 6).open_chunk(7, 8, &id, &sealed), Err(Tampered), "another epoch");
    let scope =
        |database, block, epoch| Scope { database: DatabaseId(database), block: BlockNumber(block), epoch };
    let one = SealKeys::new(&Secret::new([9; 32]), scope([1; 32], 1, 1));
    sealed.clear();
    let id = one.seal_node(1, b"logical", b"", &mut sealed);
    assert_eq!(one.open_node(0, &id, &sealed), Err(Tampered), "another level");
    for other in [scope([2; 32], 1, 1), scope([1; 32], 2, 1), scope([1; 32], 1, 2)] {
        // The same key: the scope alone makes the difference.
        let other = SealKeys::new(&Secret::new([9; 32]), other);
        assert_eq!(other.open_node(1, &id, &sealed), Err(Tampered));
        assert_ne!(other.node_id(1, b"logical"), id);
        assert_ne!(other.commitment(), one.commitment());
    }
    sealed.clear();
    let id = one.seal_blob(BlobKind::Commit, b"blob", &mut sealed);
    assert_eq!(one.open_blob(BlobKind::Charter, &id, &sealed), Err(Tampered), "another kind");
    assert_ne!(one.blob_id(BlobKind::Charter, b"blob"), id);
}

#[test]
fn sealing_is_deterministic_and_nonces_follow_all_that_goes_in() {
    let keys = keys(0, 0);
    let seal = |level, logical: &[u8], placements: &[u8]| {
        let mut out = Vec::new();
        let id = keys.seal_node(level, logical, placements, &mut out);
        (id, out)
    };
    let (id, sealed) = seal(1, b"abc", b"de");
    assert_eq!(seal(1, b"abc", b"de"), (id, sealed.clone()));
    let (moved_id, moved) = seal(1, b"abc", b"df");
    assert_eq!(moved_id, id, "placements are outside the id");
    for (other_id, other) in [seal(1, b"ab", b"cde"), seal(2, b"abc", b"de")] {
        assert_ne!(other_id, id);
        assert_ne!(other[..NONCE_BYTES], sealed[..NONCE_BYTES]);
    }
    assert_ne!(moved[..NONCE_BYTES], sealed[..NONCE_BYTES]);
}

#[test]
fn equal_chunks_in_different_places_differ() {
    let keys = keys(0, 0);
    let mut outs = [Vec::new(), Vec::new(), Vec::new()];
    keys.seal_chunk(1, 0, &[0xaa; 64], &mut outs[0]);
    keys.seal_chunk(1, 1, &[0xaa; 64], &mut outs[1]);
    keys.seal_chunk(2, 0, &[0xaa; 64], &mut outs[2]);
    assert!(outs[0] != outs[1] && outs[0] != outs[2] && outs[1] != outs[2]);
}

#[test]
fn a_tag_without_the_id_is_not_enough() {
    let keys = keys(0, 0);
    let mut sealed = Vec::new();
    keys.seal_node(1, b"old", b"", &mut sealed);
    assert_eq!(keys.open_node(1, &keys.node_id(1, b"new"), &sealed), Err(Tampered));
}

#[test]
fn a_nonce_of_other_content_is_refused_though_the_tag_is_right() {
    let keys = keys(0, 0);
    let id = keys.node_id(1, b"logical");
    let header = keys.header(NODE, 1, [0, 0], 7);
    let seal = |nonce: &Nonce, plain: &[&[u8]]| {
        let mut sealed = Vec::new();
        keys.0.cipher.seal_with_nonce(nonce, header.associated(), plain, &mut sealed);
        sealed
    };
    let nonce = keys.nonce(&header, &[b"logical", b"here"]);
    let length = 7u32.to_le_bytes();
    assert!(keys.open_node(1, &id, &seal(&nonce, &[&length, b"logical", b"here"])).is_ok());
    assert_eq!(keys.open_node(1, &id, &seal(&nonce, &[&length, b"logical", b"away"])), Err(Tampered));
    assert_eq!(
        keys.open_node(1, &id, &seal(&nonce, &[&8u32.to_le_bytes(), b"logical", b"here"])),
        Err(Tampered)
    );
    let beyond = seal(&nonce, &[&u32::MAX.to_le_bytes(), b"logical", b"here"]);
    assert_eq!(keys.open_node(1, &id, &beyond), Err(Tampered));
    assert_eq!(keys.open_node(1, &id, &seal(&nonce, &[b"abc"])), Err(Tampered), "no room for a length");
}

#[test]
fn what_was_sealed_before_a_rotation_opens_and_what_comes_after_is_new() {
    let secrets = [Secret::new([1; 32]), Secret::new([2; 32]), Secret::new([3; 32])];
    let (database, block, birth) = (DatabaseId([4; 32]), BlockNumber(5), Birth([6; 16]));
    let of = |count: usize| SealKeys::of_generations(&secrets[..count], database, block, &birth).unwrap();
    let first = SealKeys::for_block(&secrets[0], database, block, &birth, 0);
    assert_eq!(of(1).commitment(), first.commitment());
    assert_eq!(of(1).node_id(0, b"node"), first.node_id(0, b"node"));
    assert!(SealKeys::of_generations(&[], database, block, &birth).is_none());
    for old in 1..3 {
        let (before, now) = (of(old), of(3));
        assert_eq!(before.boundary_key(), now.boundary_key());
        assert_ne!(before.commitment(), now.commitment());
        let mut sealed = Vec::new();
        let id = before.seal_chunk(7, 8, b"chunk", &mut sealed);
        assert_eq!(now.open_chunk(7, 8, &id, &sealed).unwrap(), b"chunk");
        assert_eq!(now.open_chunk(7, 9, &id, &sealed), Err(Tampered));
        let mut new = Vec::new();
        let new_id = now.seal_chunk(7, 8, b"chunk", &mut new);
        assert_ne!(new_id, id, "nothing new is sealed under an old key");
        assert_eq!(before.open_chunk(7, 8, &new_id, &new), Err(Tampered), "and old keys do not open it");
        let mut sealed = Vec::new();
        let id = before.seal_node(2, b"logical", b"places", &mut sealed);
        assert_eq!(now.open_node(2, &id, &sealed).unwrap().logical, b"logical");
        let mut moved = Vec::new();
        assert_eq!(now.reseal_node(&id, 2, b"logical", b"other places", &mut moved), id, "it is only moved");
        assert_eq!(now.open_node(2, &id, &moved).unwrap().placements, b"other places");
        let mut sealed = Vec::new();
        let id = before.seal_blob(BlobKind::Charter, b"charter", &mut sealed);
        assert_eq!(now.open_blob(BlobKind::Charter, &id, &sealed).unwrap(), b"charter");
        assert_eq!(now.open_blob(BlobKind::Commit, &id, &sealed), Err(Tampered));
    }
}
