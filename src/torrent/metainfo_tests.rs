//! The metainfo against vectors made by hand, and against everything that it must refuse.
#![allow(clippy::unwrap_used)]
use super::*;

const LIMITS: Limits = Limits { metainfo_bytes_max: METAINFO_BYTES_MAX, image_bytes_max: 1 << 40 };

/// 1 MiB of zeros in pieces of 16 KiB.
fn zeros() -> Metainfo {
    let zero: PieceHash = Sha1::digest([0; 16 << 10]).into();
    let length = PieceLength::from_log2(14).unwrap();
    Metainfo { hashes: PieceHashes { length, image_bytes: 1 << 20, hashes: vec![zero; 64] } }
}

fn info(length: &str, name: &str, piece_length: &str, pieces: usize) -> Vec<u8> {
    let head = format!("d6:length{length}4:name{name}12:piece length{piece_length}6:pieces{}:", pieces * 20);
    [head.as_bytes(), &vec![b'h'; pieces * 20], b"e"].concat()
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let metainfo = zeros();
    let mut expected = b"d6:lengthi1048576e4:name8:database12:piece lengthi16384e6:pieces1280:".to_vec();
    expected.extend(metainfo.hashes.hashes.iter().flatten());
    expected.push(b'e');
    assert_eq!(metainfo.info_bytes(), expected);
    assert_eq!(metainfo.torrent_bytes(), [b"d4:info", &expected[..], b"e"].concat());
    assert_eq!(metainfo.infohash(), InfoHash(Sha1::digest(&expected).into()));
    assert_eq!(metainfo.infohash().to_string(), "ad6ea1a322e06ca5f2a808043e243f985ce49160");
}

#[test]
fn what_is_built_is_parsed_with_or_without_a_torrent_around_it() {
    let metainfo = zeros();
    let info = metainfo.info_bytes();
    assert_eq!(Metainfo::parse(&info, &LIMITS), Ok(metainfo.clone()));
    assert_eq!(Metainfo::parse(&metainfo.torrent_bytes(), &LIMITS), Ok(metainfo.clone()));
    let decorated =
        [b"d8:announce3:abc13:announce-listll1:xee10:created byi-4e4:info", &info[..], b"5:otherd1:ai0eee"]
            .concat();
    assert_eq!(Metainfo::parse(&decorated, &LIMITS), Ok(metainfo));
}

#[test]
fn a_version_of_any_size_keeps_its_infohash_through_parsing() {
    for mib in [1, 2, 3, 63, 64, 65, 1000, 70_000] {
        let image_bytes = mib << 20;
        let length = PieceLength::for_image(image_bytes);
        let hashes =
            (0..length.count(image_bytes)).map(|piece| Sha1::digest(piece.to_le_bytes()).into()).collect();
        let metainfo = Metainfo { hashes: PieceHashes { length, image_bytes, hashes } };
        let parsed = Metainfo::parse(&metainfo.torrent_bytes(), &LIMITS).unwrap();
        assert_eq!((parsed.infohash(), &parsed), (metainfo.infohash(), &metainfo));
    }
}

#[test]
fn everything_else_is_refused() {
    let good = info("i1048576e", "8:database", "i16384e", 64);
    assert!(Metainfo::parse(&good, &LIMITS).is_ok());
    let not_ours = [
        Vec::new(),
        b"d".to_vec(),
        b"de".to_vec(),
        b"d4:infodee".to_vec(),
        info("i0e", "8:database", "i16384e", 0),
        info("i01048576e", "8:database", "i16384e", 64),
        info("i-1048576e", "8:database", "i16384e", 64),
        info("i1048577e", "8:database", "i16384e", 65),
        info("i18446744073709551616e", "8:database", "i16384e", 64),
        info("i1048576e", "8:Database", "i16384e", 64),
        info("i1048576e", "08:database", "i16384e", 64),
        info("i1048576e", "9:database2", "i16384e", 64),
        info("i1048576e", "8:database", "i16384e", 63),
        info("i1048576e", "8:database", "i16384e", 65),
        [&good[..good.len() - 1], b"7:privatei1ee"].concat(),
        [&good[..], b"e"].concat(),
        [b"d4:info", &good[..]].concat(),
        [b"d4:info", &good[..], b"4:info", &good[..], b"e"].concat(),
        [b"d5:infos", &good[..], b"e"].concat(),
        b"d6:lengthi1048576e4:name8:database12:piece lengthi16384e6:pieces3:abce".to_vec(),
        b"d6:lengthi1048576e4:name8:database12:piece lengthi16384e6:pieces99999999999:e".to_vec(),
        b"d5:filesld6:lengthi1048576e4:pathl1:aeee4:name8:database12:piece lengthi16384e6:pieces0:e".to_vec(),
    ];
    for bytes in not_ours {
        let outcome = Metainfo::parse(&bytes, &LIMITS);
        assert!(matches!(outcome, Err(MetainfoError::NotOurs(_))), "{}", bytes.escape_ascii());
    }
    for cut in 0..good.len() {
        assert!(Metainfo::parse(&good[..cut], &LIMITS).is_err(), "{cut}");
    }
}

#[test]
fn sizes_and_piece_lengths_are_limited() {
    let tight = Limits { metainfo_bytes_max: 2000, image_bytes_max: 1 << 20 };
    assert!(Metainfo::parse(&info("i1048576e", "8:database", "i16384e", 64), &tight).is_ok());
    let two = info("i2097152e", "8:database", "i32768e", 64);
    assert_eq!(
        Metainfo::parse(&two, &tight),
        Err(MetainfoError::ImageTooLarge { bytes: 2 << 20, max: 1 << 20 })
    );
    assert!(Metainfo::parse(&two, &LIMITS).is_ok(), "within a factor of two");
    let three = info("i3145728e", "8:database", "i16384e", 192);
    assert!(matches!(Metainfo::parse(&three, &tight), Err(MetainfoError::TooLarge { max: 2000, .. })));
    for (piece_bytes, pieces) in
        [("i65536e", 16), ("i8192e", 128), ("i20000e", 53), ("i0e", 0), ("i1048576e", 1)]
    {
        let outcome = Metainfo::parse(&info("i1048576e", "8:database", piece_bytes, pieces), &LIMITS);
        assert!(matches!(outcome, Err(MetainfoError::PieceLength { .. })), "{piece_bytes}");
    }
}
