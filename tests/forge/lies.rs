//! Metainfo that lies: it is refused before anything is fetched for it.

use super::forgeries::above;
use super::liar;
use super::stage::{Stage, Told};
use kilofs::base::{InfoHash, PieceHashes, PieceLength};
use kilofs::record::VersionRef;
use kilofs::torrent::Metainfo;

/// Puts a version that nobody but a liar serves.
fn tell_lie(stage: &Stage, infohash: InfoHash) -> Told {
    let commit = stage.thief.ground().reference.commit;
    let seq = stage.thief.put(above(stage, &[VersionRef { infohash, commit }]), stage.policy.clone());
    Told { seq, forged: vec![infohash], heals: true, refused: false, blinds: false }
}

fn info(length: &str, name: &str, piece: &str, pieces: usize) -> Vec<u8> {
    let head = format!(
        "d6:lengthi{length}e4:name{}:{name}12:piece lengthi{piece}e6:pieces{}:",
        name.len(),
        pieces * 20
    );
    [head.as_bytes(), &vec![7; pieces * 20], b"e"].concat()
}

#[test]
fn metainfo_that_lies_about_name_and_length() {
    let lies = [
        info("1048576", "../../etc/passwd", "16384", 64),
        info("9223372036854775807", "database", "16384", 64),
    ];
    let mut lies = lies.into_iter();
    Stage::new().outlives(|stage| {
        let lie = lies.next().unwrap();
        let claimed = lie.len();
        tell_lie(stage, liar::serve(&stage.thief, lie, claimed))
    });
}

#[test]
fn metainfo_of_absurd_size() {
    let mut claims = [usize::MAX >> 1, 1 << 31].into_iter();
    Stage::new().outlives(|stage| {
        let lie = info("1048576", "database", "16384", 64 + 1000 * (2 - claims.len()));
        tell_lie(stage, liar::serve(&stage.thief, lie, claims.next().unwrap()))
    });
}

#[test]
fn a_torrent_of_zeros_larger_than_any_disk() {
    Stage::new().outlives(|stage| {
        let length = PieceLength::MAX;
        let image_bytes = 1u64 << 42;
        let count = length.count(image_bytes) as usize;
        let hashes =
            PieceHashes { length, image_bytes, hashes: vec![kilofs::image::zero_piece_hash(length); count] };
        let lie = Metainfo { hashes }.info_bytes();
        let claimed = lie.len();
        tell_lie(stage, liar::serve(&stage.thief, lie, claimed))
    });
}
