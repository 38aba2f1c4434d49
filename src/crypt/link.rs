//! Capabilities as text: `kilofs:KIND:…`, or `kilofs:KIND-locked:…` under a passphrase.
//!
//! Behind the last colon stands base32 (RFC 4648 without padding, lower case): format 1, payload, checksum 4. A locked
//! payload is salt 16 and XChaCha20-Poly1305 of the plain one under Argon2id of the passphrase.

pub use super::capability::{Capability, Kind};
use super::cipher::Cipher;
use super::passphrase::{Argon2Cost, SALT_BYTES};
use super::secret::random;
use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// The longest text that is looked at, in bytes; white space counts.
pub const LINK_BYTES_MAX: usize = 16 << 10;

const SCHEME: &str = "kilofs:";
const LOCKED: &str = "-locked";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const LOCK_CONTEXT: &[u8] = b"kilofs locked link 1";
/// What a guess at the passphrase of a locked link costs. It belongs to the format: a link does not carry it.
const LOCK_COST: Argon2Cost = Argon2Cost::STANDARD;
/// A fresh salt makes each key, so no key sees two messages.
const LOCK_NONCE: [u8; 24] = [0; 24];

/// Why a text gave no capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Something else altogether.
    #[error("this is not a kilofs link: one begins with `kilofs:read:`, `kilofs:write:` or the like")]
    NotALink,
    /// A kind that this program does not know.
    #[error("this kind of link is not known here: check how it begins, or update kilofs")]
    UnknownKind,
    /// A format that this program does not know.
    #[error("this link was made by a newer kilofs: update, then join again")]
    UnknownFormat,
    /// Some characters are wrong or missing.
    #[error("the link is mistyped or incomplete: copy all of it again")]
    Mistyped,
    /// The checksum is right, and what it covers is no capability.
    #[error("the link is malformed: ask for a new one")]
    Malformed,
    /// No passphrase was given.
    #[error("the link is locked: its passphrase is needed")]
    Locked,
    /// Another passphrase locked it.
    #[error("that is not the passphrase of the link")]
    WrongPassphrase,
}

/// The link of a capability.
pub fn print(capability: &Capability) -> String {
    text(capability.kind(), "", &capability.encode())
}

/// The link of a capability under a passphrase.
pub fn print_locked(capability: &Capability, passphrase: &str) -> String {
    let kind = capability.kind();
    let salt: [u8; SALT_BYTES] = random();
    let mut payload = salt.to_vec();
    payload.extend_from_slice(&capability.encode());
    lock(passphrase, &salt).seal_tail(&LOCK_NONCE, &lock_associated(kind), &mut payload, SALT_BYTES);
    text(kind, LOCKED, &payload)
}

/// Reads a link. `passphrase` is asked for only if the link is locked and not mistyped. White space anywhere and upper
/// case do no harm: links come from paper, mail and QR codes.
pub fn parse(
    text: &str,
    passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
) -> Result<Capability, LinkError> {
    if text.len() > LINK_BYTES_MAX {
        return Err(LinkError::NotALink);
    }
    let mut clean = Zeroizing::new(String::with_capacity(text.len()));
    clean.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()));
    let (name, body) =
        clean.strip_prefix(SCHEME).and_then(|rest| rest.split_once(':')).ok_or(LinkError::NotALink)?;
    let (name, locked) = match name.strip_suffix(LOCKED) {
        Some(name) => (name, LOCKED),
        None => (name, ""),
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(LinkError::UnknownKind)?;
    let bytes = Zeroizing::new(BASE32.decode(body.as_bytes()).map_err(|_| LinkError::Mistyped)?);
    let (covered, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(LinkError::Mistyped)?;
    if checksum(kind, locked, covered) != *sum {
        return Err(LinkError::Mistyped);
    }
    let (format, payload) = covered.split_first().ok_or(LinkError::Malformed)?;
    if *format != FORMAT {
        return Err(LinkError::UnknownFormat);
    }
    if locked.is_empty() {
        return Capability::decode(kind, payload).map_err(|_| LinkError::Malformed);
    }
    let (salt, sealed) = payload.split_first_chunk().ok_or(LinkError::Malformed)?;
    let passphrase = passphrase().ok_or(LinkError::Locked)?;
    let opened = lock(&passphrase, salt).open(&LOCK_NONCE, &lock_associated(kind), sealed);
    let plain = Zeroizing::new(opened.ok_or(LinkError::WrongPassphrase)?);
    Capability::decode(kind, &plain).map_err(|_| LinkError::Malformed)
}

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols")
});

fn text(kind: Kind, locked: &str, payload: &[u8]) -> String {
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + payload.len() + CHECKSUM_BYTES));
    bytes.push(FORMAT);
    bytes.extend_from_slice(payload);
    let sum = checksum(kind, locked, &bytes);
    bytes.extend_from_slice(&sum);
    // Sized ahead: a string that grows would leave a copy of the secrets behind.
    let mut text = String::with_capacity(64 + BASE32.encode_len(bytes.len()));
    text.extend([SCHEME, kind.name(), locked, ":"]);
    BASE32.encode_append(&bytes, &mut text);
    text
}

/// Covers the kind too, so that a link does not turn into another one by a changed word.
fn checksum(kind: Kind, locked: &str, covered: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 link checksum");
    hasher.update(kind.name().as_bytes()).update(locked.as_bytes()).update(b":").update(covered);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a checksum")
}

fn lock(passphrase: &str, salt: &[u8; SALT_BYTES]) -> Cipher {
    let key = LOCK_COST.stretch(passphrase.as_bytes(), salt);
    Cipher::new(&key.expect("a device that runs this has 64 MiB"))
}

fn lock_associated(kind: Kind) -> Vec<u8> {
    [LOCK_CONTEXT, kind.name().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::{AdminKey, DatabaseKey, Secret};

    fn capability(kind: Kind) -> Capability {
        let (admin, database) = (AdminKey::from_seed(&[1; 32]), DatabaseKey::from_seed(&[2; 32]));
        let capability = Capability::create(&admin, &database, Secret::new([3; 32]));
        Capability { policy_counter: 7, seq: 900, ..capability }.weakened(kind).unwrap()
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
        for (from, to) in
            [("write", "read"), ("write", "admin"), ("write", "write-locked"), ("write", "mirror")]
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
        for text in ["kilofs::abc", "kilofs:own:abc", "kilofs:-locked:abc", "kilofs:locked-write:abc"] {
            assert_eq!(open(text), Err(LinkError::UnknownKind), "{text:?}");
        }
        for text in ["kilofs:write:", "kilofs:write:a", "kilofs:write:aaaaaaa", "kilofs:write:aaaaaaaa"] {
            assert_eq!(open(text), Err(LinkError::Mistyped), "{text:?}");
        }
    }

    #[test]
    fn what_the_checksum_covers_is_still_checked() {
        let payload = capability(Kind::Read).encode();
        assert_eq!(open(&text(Kind::Admin, "", &payload[..64])), Err(LinkError::Malformed));
        assert_eq!(open(&text(Kind::Read, "", &[&payload[..], &[0]].concat())), Err(LinkError::Malformed));
        assert_eq!(open(&text(Kind::Read, "", &payload[..payload.len() - 1])), Err(LinkError::Malformed));
        assert_eq!(open(&text(Kind::Read, LOCKED, &[0; 15])), Err(LinkError::Malformed));
    }
}
