//! The keyring: what one device holds of one database, sealed in a file.
//!
//! magic 8, format 1, flags 1, Argon2 cost 12, salt 16, nonce 24, ciphertext, tag 16, checksum 16. All before
//! the nonce is associated data. The checksum tells damage from a wrong passphrase; it covers nothing that the file
//! does not show anyway. Format 1 opens with a passphrase or with nothing; format 2 with a key file too.

use super::capability::{Capability, Kind};
use super::cipher::{Cipher, NONCE_BYTES, TAG_BYTES};
use super::keys::{DeviceKey, verify};
pub use super::passphrase::Argon2Cost;
use super::passphrase::SALT_BYTES;
use super::secret::{Context, Secret, random};
use crate::base::{DatabaseId, Malformed, Reader, Signature, Writer};
use zeroize::Zeroizing;

/// The longest name of a database at a device, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest keyring file, in bytes.
pub const KEYRING_BYTES_MAX: usize = 4096;

const MAGIC: &[u8; 8] = b"kilofsKR";
const FORMAT: u8 = 1;
const FORMAT_WITH_KEY_FILE: u8 = 2;
const NEEDS_PASSPHRASE: u8 = 1;
const NEEDS_KEY_FILE: u8 = 2;
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 2 + Argon2Cost::BYTES + SALT_BYTES;

/// Why a keyring did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The file is whole, and the passphrase or the key file is another one.
    #[error("that is not what opens the keyring")]
    WrongPassphrase,
    /// A key file belongs to it, and none was given.
    #[error("the keyring opens with a key file")]
    NoKeyFile,
    /// The file is not what was written.
    #[error("the keyring is damaged: {0}")]
    Damaged(&'static str),
    /// Argon2 did not get the memory that the file asks for.
    #[error("there is not enough memory to open the keyring")]
    Memory,
}

/// What was made of a key file: a hash over all of its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFile(Secret);

impl KeyFile {
    /// Fewer bytes than this could be guessed.
    pub const BYTES_MIN: usize = 32;
    /// More than this is a file that was meant for something else.
    pub const BYTES_MAX: usize = 1 << 20;

    /// Takes the bytes of a key file; none where they are too few or too many.
    pub fn of(content: &[u8]) -> Option<KeyFile> {
        let length = Self::BYTES_MIN..=Self::BYTES_MAX;
        length
            .contains(&content.len())
            .then(|| KeyFile(Secret::new(blake3::derive_key("kilofs 1 2026 key file", content))))
    }
}

/// What opens a keyring: a passphrase, a key file, both, or nothing.
#[derive(Clone, Default)]
pub struct Factors {
    /// Empty for none.
    pub passphrase: Zeroizing<String>,
    /// The key file, where there is one.
    pub key_file: Option<KeyFile>,
}

impl Factors {
    /// Those of a passphrase alone, empty for none.
    pub fn of_passphrase(passphrase: &str) -> Factors {
        Factors { passphrase: Zeroizing::new(passphrase.to_owned()), key_file: None }
    }

    /// Which of them a keyring needs that is sealed with these.
    pub fn needs(&self) -> Needs {
        Needs { passphrase: !self.passphrase.is_empty(), key_file: self.key_file.is_some() }
    }

    /// What a guess should cost: nothing where there is nothing to guess.
    pub fn cost(&self) -> Argon2Cost {
        if self.needs().anything() { Argon2Cost::STANDARD } else { Argon2Cost::MINIMAL }
    }

    fn stretch(&self, cost: Argon2Cost, salt: &[u8; SALT_BYTES]) -> Option<Secret> {
        let key = cost.stretch(self.passphrase.as_bytes(), salt)?;
        Some(match &self.key_file {
            Some(file) => key.derive(Context::KeyringFile, &[file.0.expose()]),
            None => key,
        })
    }
}

/// What a keyring says that it opens with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    /// A passphrase.
    pub passphrase: bool,
    /// A key file.
    pub key_file: bool,
}

impl Needs {
    /// Whether it needs anything at all.
    pub fn anything(self) -> bool {
        self.passphrase || self.key_file
    }

    fn flags(self) -> u8 {
        (NEEDS_PASSPHRASE * u8::from(self.passphrase)) | (NEEDS_KEY_FILE * u8::from(self.key_file))
    }
}

/// The key of one sealed keyring: stands for passphrase and key file, and for no other keyring, nor for this one once it is
/// sealed anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingKey {
    salt: [u8; SALT_BYTES],
    key: Secret,
}

impl RingKey {
    /// Encoded length: salt 16, key 32.
    pub const BYTES: usize = SALT_BYTES + Secret::BYTES;

    /// Its bytes.
    pub fn encode(&self) -> Zeroizing<[u8; Self::BYTES]> {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        bytes[..SALT_BYTES].copy_from_slice(&self.salt);
        bytes[SALT_BYTES..].copy_from_slice(self.key.expose());
        bytes
    }

    /// Reads what [`RingKey::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<RingKey> {
        let (salt, key) = bytes.split_first_chunk()?;
        Some(RingKey { salt: *salt, key: Secret::new(key.try_into().ok()?) })
    }
}

/// What one device holds of one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyring {
    /// The keys of the database.
    pub capability: Capability,
    /// Signs what this device writes there.
    pub device: DeviceKey,
    /// Opens what is sealed to this device (X25519, RFC 7748).
    pub x25519: Secret,
    /// The device key's, over the X25519 public key and the database id.
    pub certificate: Signature,
    /// What the database is called here.
    pub name: String,
}

impl Keyring {
    /// A keyring with a fresh device.
    pub fn new(capability: Capability, name: &str) -> Keyring {
        let (device, x25519) = (DeviceKey::generate(), Secret::random());
        let certificate = device.sign(&certified(&capability.database_id(), &x25519_public(&x25519)));
        Keyring { capability, device, x25519, certificate, name: name.to_owned() }
    }

    /// The public half of the X25519 key.
    pub fn x25519_public(&self) -> [u8; 32] {
        x25519_public(&self.x25519)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        assert!(self.name.len() <= NAME_BYTES_MAX, "names of databases are short");
        // Sized ahead: a vector that grows would leave a copy of the secrets behind.
        let mut writer = Writer(Vec::with_capacity(KEYRING_BYTES_MAX));
        writer.u8(self.capability.kind() as u8).bytes(&self.capability.encode());
        writer.raw(self.device.seed().expose()).raw(self.x25519.expose()).raw(&self.certificate.0);
        writer.bytes(self.name.as_bytes());
        Zeroizing::new(writer.0)
    }

    fn decode(bytes: &[u8]) -> Result<Keyring, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = Kind::of_code(reader.u8()?).ok_or(Malformed)?;
        let capability = Capability::decode(kind, reader.bytes(Capability::BYTES_MAX)?)?;
        let device = DeviceKey::from_seed(Secret::new(reader.array()?).expose());
        let x25519 = Secret::new(reader.array()?);
        let certificate = Signature(reader.array()?);
        let name = String::from_utf8(reader.bytes(NAME_BYTES_MAX)?.to_vec()).map_err(|_| Malformed)?;
        reader.end()?;
        let message = certified(&capability.database_id(), &x25519_public(&x25519));
        if !verify(&device.public().0, &message, &certificate) {
            return Err(Malformed);
        }
        Ok(Keyring { capability, device, x25519, certificate, name })
    }
}

fn x25519_public(secret: &Secret) -> [u8; 32] {
    let secret = x25519_dalek::StaticSecret::from(*secret.expose());
    x25519_dalek::PublicKey::from(&secret).to_bytes()
}

fn certified(database: &DatabaseId, public: &[u8; 32]) -> Vec<u8> {
    [b"kilofs x25519 1", &database.0[..], public].concat()
}

/// Seals a keyring, at [`Factors::cost`].
pub fn seal(keyring: &Keyring, factors: &Factors) -> Vec<u8> {
    seal_at(keyring, factors, factors.cost())
}

/// Seals a keyring at a cost.
pub fn seal_at(keyring: &Keyring, factors: &Factors, cost: Argon2Cost) -> Vec<u8> {
    let salt: [u8; SALT_BYTES] = random();
    let needs = factors.needs();
    let mut writer = Writer::new();
    writer.raw(MAGIC).u8(format(needs)).u8(needs.flags());
    cost.write(&mut writer);
    writer.raw(&salt);
    let mut sealed = writer.0;
    let header = sealed.clone();
    let key = factors.stretch(cost, &salt).expect("a device that runs this has 64 MiB");
    Cipher::new(&key).seal_with_nonce(&random(), &header, &[&keyring.encode()], &mut sealed);
    let sum = checksum(&sealed);
    sealed.extend_from_slice(&sum);
    sealed
}

/// Opens a keyring.
pub fn open(bytes: &[u8], factors: &Factors) -> Result<Keyring, KeyringError> {
    unlock(bytes, factors).map(|(keyring, _)| keyring)
}

/// Opens a keyring, and tells the key that does so without the effort.
pub fn unlock(bytes: &[u8], factors: &Factors) -> Result<(Keyring, RingKey), KeyringError> {
    let file = File::read(bytes)?;
    if file.needs.key_file && factors.key_file.is_none() {
        return Err(KeyringError::NoKeyFile);
    }
    // A key file that is not needed does no harm: one may be configured for several databases.
    let key_file = factors.key_file.clone().filter(|_| file.needs.key_file);
    let factors = Factors { key_file, passphrase: factors.passphrase.clone() };
    let key = factors.stretch(file.cost, file.salt).ok_or(KeyringError::Memory)?;
    let key = RingKey { salt: *file.salt, key };
    file.open(&key).map(|keyring| (keyring, key))
}

/// Opens a keyring with a key that [`unlock`] told.
pub fn open_with(bytes: &[u8], key: &RingKey) -> Result<Keyring, KeyringError> {
    File::read(bytes)?.open(key)
}

/// What opens a keyring.
pub fn needs(bytes: &[u8]) -> Result<Needs, KeyringError> {
    File::read(bytes).map(|file| file.needs)
}

fn format(needs: Needs) -> u8 {
    if needs.key_file { FORMAT_WITH_KEY_FILE } else { FORMAT }
}

/// A keyring file whose checksum is right.
struct File<'a> {
    header: &'a [u8],
    needs: Needs,
    cost: Argon2Cost,
    salt: &'a [u8; SALT_BYTES],
    sealed: &'a [u8],
}

impl File<'_> {
    fn read(bytes: &[u8]) -> Result<File<'_>, KeyringError> {
        use KeyringError::Damaged;
        if !bytes.starts_with(MAGIC) {
            return Err(Damaged("this is no keyring"));
        }
        let known = [FORMAT, FORMAT_WITH_KEY_FILE];
        if bytes.get(MAGIC.len()).is_some_and(|format| !known.contains(format)) {
            return Err(Damaged("its format is not known here"));
        }
        let least = HEADER_BYTES + NONCE_BYTES + TAG_BYTES + CHECKSUM_BYTES;
        if !(least..=KEYRING_BYTES_MAX).contains(&bytes.len()) {
            return Err(Damaged("its length is wrong"));
        }
        let (covered, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damaged("its length is wrong"))?;
        if checksum(covered) != *sum {
            return Err(Damaged("its checksum is wrong"));
        }
        let (header, sealed) = covered.split_at(HEADER_BYTES);
        let malformed = |_| Damaged("its header is malformed");
        let mut reader = Reader::new(&header[MAGIC.len() + 1..]);
        let flags = reader.u8().map_err(malformed)?;
        let needs =
            Needs { passphrase: flags & NEEDS_PASSPHRASE != 0, key_file: flags & NEEDS_KEY_FILE != 0 };
        if needs.flags() != flags || format(needs) != header[MAGIC.len()] {
            return Err(Damaged("its header is malformed"));
        }
        let cost = Argon2Cost::read(&mut reader).map_err(malformed)?;
        let salt = header.last_chunk().ok_or(Damaged("its header is malformed"))?;
        Ok(File { header, needs, cost, salt, sealed })
    }

    fn open(&self, key: &RingKey) -> Result<Keyring, KeyringError> {
        if key.salt != *self.salt {
            return Err(KeyringError::WrongPassphrase);
        }
        let plain = Cipher::new(&key.key).open_with_nonce(self.header, self.sealed);
        let plain = Zeroizing::new(plain.ok_or(KeyringError::WrongPassphrase)?);
        Keyring::decode(&plain).map_err(|_| KeyringError::Damaged("its content is malformed"))
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("kilofs 1 2026 keyring checksum", bytes);
    *hash.first_chunk().expect("a hash is longer than a checksum")
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
