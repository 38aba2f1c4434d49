//! Links survive paper; what is mistyped, exchanged or over is told apart.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::base::{Birth, BlockNumber};
use crate::crypt::{AdminKey, DatabaseKey};

fn capability(kind: Kind) -> Capability {
    let (admin, database) = (AdminKey::from_seed(&[1; 32]), DatabaseKey::from_seed(&[2; 32]));
    let capability = Capability::create(&admin, &database, Secret::new([3; 32]));
    let capability = Capability { policy_counter: 7, seq: 900, ..capability };
    match kind {
        Kind::Block => capability.of_block(BlockNumber(2), &Birth([5; 16]), 1).unwrap(),
        kind => capability.weakened(kind).unwrap(),
    }
}

fn open(text: &str) -> Result<Capability, LinkError> {
    parse(text, || panic!("asked for a passphrase"))
}

#[test]
fn links_survive_paper_mail_and_codes() {
    for kind in Kind::ALL {
        let link = print(&capability(kind));
        assert!(link.starts_with(&format!("kilofs:{kind}:")), "{link}");
        assert_eq!(open(&link), Ok(capability(kind)));
        assert_eq!(open(&link.to_uppercase()), Ok(capability(kind)));
        let (head, tail) = link.split_at(60);
        assert_eq!(open(&format!("\u{a0} {head}\r\n  {tail}\n")), Ok(capability(kind)));
    }
}

#[test]
fn any_wrong_character_is_noticed() {
    let link = print(&capability(Kind::Write));
    let begin = "kilofs:write:".len();
    for at in begin..link.len() {
        for wrong in ["a", "7", "", "1", "é"] {
            if &link[at..=at] != wrong {
                let mistyped = format!("{}{wrong}{}", &link[..at], &link[at + 1..]);
                assert_eq!(open(&mistyped), Err(LinkError::Mistyped), "{at} {wrong:?}");
            }
        }
    }
    for length in begin..link.len() {
        assert_eq!(open(&link[..length]), Err(LinkError::Mistyped), "{length}");
    }
}

#[test]
fn a_kind_is_not_exchanged_for_another() {
    for (from, to) in [("write", "read"), ("write", "admin"), ("write", "write-locked"), ("write", "mirror")]
    {
        let link = print(&capability(Kind::Write)).replacen(from, to, 1);
        assert_eq!(parse(&link, || None), Err(LinkError::Mistyped), "{to}");
    }
}

#[test]
fn a_locked_link_opens_with_its_passphrase_only() {
    let link = print_locked(&capability(Kind::Read), "correct horse");
    assert!(link.starts_with("kilofs:read-locked:"));
    let with = |text: &str| parse(&link, || Some(Zeroizing::new(text.to_owned())));
    assert_eq!(with("correct horse"), Ok(capability(Kind::Read)));
    assert_eq!(with("wrong horse"), Err(LinkError::WrongPassphrase));
    assert_eq!(parse(&link, || None), Err(LinkError::Locked));
    assert_eq!(open(&link[..link.len() - 1]), Err(LinkError::Mistyped), "mistyped: not asked for");
    assert_ne!(print_locked(&capability(Kind::Read), "correct horse"), link, "the salt is random");
}

#[test]
fn other_texts_are_no_links() {
    for text in [
        "",
        "kilofs",
        "kilofs:",
        "kilofs:write",
        "https://kilofs:write:abc",
        "magnet:?xt=urn:btih:00",
        "\u{130}",
    ] {
        assert_eq!(open(text), Err(LinkError::NotALink), "{text:?}");
    }
    assert_eq!(open(&format!("kilofs:write:{}", "a".repeat(LINK_BYTES_MAX))), Err(LinkError::NotALink));
    for text in [
        "kilofs::abc",
        "kilofs:own:abc",
        "kilofs:-invite:abc",
        "kilofs:recovery-locked:abc",
        "kilofs:-locked:abc",
        "kilofs:locked-write:abc",
    ] {
        assert_eq!(open(text), Err(LinkError::UnknownKind), "{text:?}");
    }
    for text in ["kilofs:write:", "kilofs:write:a", "kilofs:write:aaaaaaa", "kilofs:write:aaaaaaaa"] {
        assert_eq!(open(text), Err(LinkError::Mistyped), "{text:?}");
    }
}

#[test]
fn what_the_checksum_covers_is_still_checked() {
    let payload = capability(Kind::Read).encode();
    assert_eq!(open(&text("admin", &payload[..64])), Err(LinkError::Malformed));
    assert_eq!(open(&text("read", &[&payload[..], &[0]].concat())), Err(LinkError::Malformed));
    assert_eq!(open(&text("read", &payload[..payload.len() - 1])), Err(LinkError::Malformed));
    assert_eq!(open(&text("read-locked", &[0; 15])), Err(LinkError::Malformed));
}

const WORDS: &str = "zoo abandon legal winner thank year";
const EXPIRES: u64 = 1_800_000_000;

fn invited(text: &str, now: u64, words: &str) -> Result<Capability, LinkError> {
    parse_at(text, now, || Some(Zeroizing::new(words.to_owned())))
}

#[test]
fn an_invitation_opens_with_its_words_until_it_expires() {
    let link = print_invite(&capability(Kind::Write), WORDS, EXPIRES);
    assert!(link.starts_with("kilofs:write-invite:"));
    for words in [
        WORDS,
        "  Zoo-Abandon\nLEGAL, winner thank  year.",
        "1. zoo 2. abandon 3. legal 4. winner thank year",
    ] {
        assert_eq!(invited(&link, EXPIRES - 1, words), Ok(capability(Kind::Write)), "{words:?}");
    }
    for words in ["", "zoo abandon legal winner thank", "zooabandonlegalwinnerthankyear"] {
        assert_eq!(invited(&link, 0, words), Err(LinkError::WrongPassphrase), "{words:?}");
    }
    for now in [EXPIRES, u64::MAX] {
        let refused = parse_at(&link, now, || panic!("asked for a passphrase"));
        assert_eq!(refused, Err(LinkError::Expired(EXPIRES)));
    }
}

#[test]
fn the_end_of_an_invitation_cannot_be_moved() {
    let link = print_invite(&capability(Kind::Read), WORDS, EXPIRES);
    let body = link.strip_prefix("kilofs:read-invite:").unwrap();
    let bytes = BASE32.decode(body.as_bytes()).unwrap();
    let payload = &bytes[1..bytes.len() - CHECKSUM_BYTES];
    let later = [&(EXPIRES + 1).to_le_bytes()[..], &payload[EXPIRY_BYTES..]].concat();
    assert_eq!(invited(&text("read-invite", &later), 0, WORDS), Err(LinkError::WrongPassphrase));
    // Nor is it a locked link with something in front.
    assert_eq!(
        invited(&text("read-locked", &payload[EXPIRY_BYTES..]), 0, WORDS),
        Err(LinkError::WrongPassphrase)
    );
    assert_eq!(invited(&text("read-invite", &payload[..7]), 0, WORDS), Err(LinkError::Malformed));
    assert_eq!(invited(&text("read-invite", &payload[..8 + 15]), 0, WORDS), Err(LinkError::Malformed));
}

#[test]
fn a_root_is_a_link_too() {
    let root = RecoveryRoot::new(Secret::new([9; 32]));
    let link = print_recovery(&root);
    assert!(link.starts_with("kilofs:recovery:"));
    assert_eq!(open(&link), Ok(root.recover()));
    for payload in [&[9; 31][..], &[9; 33]] {
        assert_eq!(open(&text(RECOVERY, payload)), Err(LinkError::Malformed));
    }
    assert_eq!(open(&link.replace("recovery", "admin")), Err(LinkError::Mistyped));
}
