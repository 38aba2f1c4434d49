//! Capabilities as text: `kilofs:KIND:…`; `kilofs:KIND-locked:…` under a passphrase; `kilofs:KIND-invite:…` under one made of
//! words, until a time; `kilofs:recovery:…` for the root of all keys.
//!
//! Behind the last colon stands base32 (RFC 4648 without padding, lower case): format 1, payload, checksum 4. A locked
//! payload is salt 16 and XChaCha20-Poly1305 of the plain one under Argon2id of the passphrase. An invitation's has in front
//! of that when it ends, 8, which is associated data.

pub use super::capability::{Capability, Kind};
use super::cipher::{Cipher, TAG_BYTES};
use super::passphrase::{Argon2Cost, SALT_BYTES};
use super::recovery::{RecoveryRoot, plain_words};
use super::secret::{Secret, random};
use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// The longest text that is looked at, in bytes; white space counts.
pub const LINK_BYTES_MAX: usize = 16 << 10;

const SCHEME: &str = "kilofs:";
const LOCKED: &str = "-locked";
const INVITE: &str = "-invite";
const RECOVERY: &str = "recovery";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const EXPIRY_BYTES: usize = 8;
const LOCK_CONTEXT: &[u8] = b"kilofs locked link 1";
const INVITE_CONTEXT: &[u8] = b"kilofs invite 1";
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
    /// An invitation that was good until this time, in seconds since 1970.
    #[error("the invitation has expired: ask for a new one")]
    Expired(u64),
}

/// The link of a capability.
pub fn print(capability: &Capability) -> String {
    text(capability.kind().name(), &capability.encode())
}

/// The link of a capability under a passphrase.
pub fn print_locked(capability: &Capability, passphrase: &str) -> String {
    let kind = capability.kind();
    let sealed = lock(capability, passphrase, &associated(LOCK_CONTEXT, kind));
    text(&format!("{kind}{LOCKED}"), &sealed)
}

/// The invitation to a capability, under a passphrase of words, until a time in seconds since 1970. Whoever joins after that is
/// refused by this program; nothing hinders another program.
pub fn print_invite(capability: &Capability, words: &str, expires: u64) -> String {
    let kind = capability.kind();
    let expiry = expires.to_le_bytes();
    let sealed = lock(capability, &plain_words(words), &invite_associated(kind, &expiry));
    text(&format!("{kind}{INVITE}"), &[&expiry[..], &sealed].concat())
}

/// The link of a root.
pub fn print_recovery(root: &RecoveryRoot) -> String {
    text(RECOVERY, root.expose())
}

/// Reads a link, whatever the time. `passphrase` is asked for only if the link is locked and not mistyped. White space anywhere
/// and upper case do no harm: links come from paper, mail and QR codes.
pub fn parse(
    text: &str,
    passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
) -> Result<Capability, LinkError> {
    parse_at(text, 0, passphrase)
}

/// The same at a time, in seconds since 1970: an invitation that has expired is refused before anything is asked.
pub fn parse_at(
    text: &str,
    now: u64,
    passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
) -> Result<Capability, LinkError> {
    if text.len() > LINK_BYTES_MAX {
        return Err(LinkError::NotALink);
    }
    let mut clean = Zeroizing::new(String::with_capacity(text.len()));
    clean.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()));
    let (name, body) =
        clean.strip_prefix(SCHEME).and_then(|rest| rest.split_once(':')).ok_or(LinkError::NotALink)?;
    let form = Form::named(name).ok_or(LinkError::UnknownKind)?;
    let bytes = Zeroizing::new(BASE32.decode(body.as_bytes()).map_err(|_| LinkError::Mistyped)?);
    let (covered, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(LinkError::Mistyped)?;
    if checksum(name, covered) != *sum {
        return Err(LinkError::Mistyped);
    }
    let (format, payload) = covered.split_first().ok_or(LinkError::Malformed)?;
    if *format != FORMAT {
        return Err(LinkError::UnknownFormat);
    }
    match form {
        Form::Plain(kind) => Capability::decode(kind, payload).map_err(|_| LinkError::Malformed),
        Form::Recovery => {
            let root = payload.try_into().map_err(|_| LinkError::Malformed)?;
            Ok(RecoveryRoot::new(Secret::new(root)).recover())
        }
        Form::Locked(kind) => unlock(kind, payload, &associated(LOCK_CONTEXT, kind), passphrase),
        Form::Invite(kind) => {
            let (expiry, sealed) = payload.split_first_chunk::<EXPIRY_BYTES>().ok_or(LinkError::Malformed)?;
            let expires = u64::from_le_bytes(*expiry);
            if now >= expires {
                return Err(LinkError::Expired(expires));
            }
            let words = || passphrase().map(|words| plain_words(&words));
            unlock(kind, sealed, &invite_associated(kind, expiry), words)
        }
    }
}

/// What stands behind the name in a link.
enum Form {
    Plain(Kind),
    Locked(Kind),
    Invite(Kind),
    Recovery,
}

impl Form {
    fn named(name: &str) -> Option<Form> {
        let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        match (name.strip_suffix(LOCKED), name.strip_suffix(INVITE)) {
            (Some(name), _) => kind(name).map(Form::Locked),
            (_, Some(name)) => kind(name).map(Form::Invite),
            _ if name == RECOVERY => Some(Form::Recovery),
            _ => kind(name).map(Form::Plain),
        }
    }
}

/// Salt ‖ ciphertext ‖ tag of a capability under a passphrase.
fn lock(capability: &Capability, passphrase: &str, associated: &[u8]) -> Vec<u8> {
    let salt: [u8; SALT_BYTES] = random();
    let mut sealed = salt.to_vec();
    // Sized ahead: a vector that grows would leave a copy of the secrets behind.
    let plain = capability.encode();
    sealed.reserve_exact(plain.len() + TAG_BYTES);
    sealed.extend_from_slice(&plain);
    cipher(passphrase, &salt).seal_tail(&LOCK_NONCE, associated, &mut sealed, SALT_BYTES);
    sealed
}

fn unlock(
    kind: Kind,
    sealed: &[u8],
    associated: &[u8],
    passphrase: impl FnOnce() -> Option<Zeroizing<String>>,
) -> Result<Capability, LinkError> {
    let (salt, sealed) = sealed.split_first_chunk().ok_or(LinkError::Malformed)?;
    let passphrase = passphrase().ok_or(LinkError::Locked)?;
    let opened = cipher(&passphrase, salt).open(&LOCK_NONCE, associated, sealed);
    let plain = Zeroizing::new(opened.ok_or(LinkError::WrongPassphrase)?);
    Capability::decode(kind, &plain).map_err(|_| LinkError::Malformed)
}

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols")
});

fn text(name: &str, payload: &[u8]) -> String {
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + payload.len() + CHECKSUM_BYTES));
    bytes.push(FORMAT);
    bytes.extend_from_slice(payload);
    let sum = checksum(name, &bytes);
    bytes.extend_from_slice(&sum);
    // Sized ahead: a string that grows would leave a copy of the secrets behind.
    let mut text = String::with_capacity(64 + BASE32.encode_len(bytes.len()));
    text.extend([SCHEME, name, ":"]);
    BASE32.encode_append(&bytes, &mut text);
    text
}

/// Covers the name too, so that a link does not turn into another one by a changed word.
fn checksum(name: &str, covered: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 link checksum");
    hasher.update(name.as_bytes()).update(b":").update(covered);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a checksum")
}

fn cipher(passphrase: &str, salt: &[u8; SALT_BYTES]) -> Cipher {
    let key = LOCK_COST.stretch(passphrase.as_bytes(), salt);
    Cipher::new(&key.expect("a device that runs this has 64 MiB"))
}

fn associated(context: &[u8], kind: Kind) -> Vec<u8> {
    [context, kind.name().as_bytes()].concat()
}

fn invite_associated(kind: Kind, expiry: &[u8; EXPIRY_BYTES]) -> Vec<u8> {
    [&associated(INVITE_CONTEXT, kind), &expiry[..]].concat()
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
