//! The keyring: what one device holds of one database, sealed in a file.
//!
//! magic 8, format 1, passphrase flag 1, Argon2 cost 12, salt 16, nonce 24, ciphertext, tag 16, checksum 16. All before
//! the nonce is associated data. The checksum tells damage from a wrong passphrase; it covers nothing that the file
//! does not show anyway.

use super::capability::{Capability, Kind};
use super::cipher::{Cipher, NONCE_BYTES, TAG_BYTES};
use super::keys::{DeviceKey, verify};
pub use super::passphrase::Argon2Cost;
use super::passphrase::SALT_BYTES;
use super::secret::{Secret, random};
use crate::base::{DatabaseId, Malformed, Reader, Signature, Writer};
use zeroize::Zeroizing;

/// The longest name of a database at a device, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest keyring file, in bytes.
pub const KEYRING_BYTES_MAX: usize = 4096;

const MAGIC: &[u8; 8] = b"kilofsKR";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 2 + Argon2Cost::BYTES + SALT_BYTES;
const CAPABILITY_BYTES_MAX: usize = 256;

/// Why a keyring did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The file is whole, and the passphrase is another one.
    #[error("that is not the passphrase of the keyring")]
    WrongPassphrase,
    /// The file is not what was written.
    #[error("the keyring is damaged: {0}")]
    Damaged(&'static str),
    /// Argon2 did not get the memory that the file asks for.
    #[error("there is not enough memory to open the keyring")]
    Memory,
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
        let kind = *Kind::ALL.get(usize::from(reader.u8()?)).ok_or(Malformed)?;
        let capability = Capability::decode(kind, reader.bytes(CAPABILITY_BYTES_MAX)?)?;
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

/// Seals a keyring. The empty passphrase stands for none.
pub fn seal(keyring: &Keyring, passphrase: &[u8], cost: Argon2Cost) -> Vec<u8> {
    let salt: [u8; SALT_BYTES] = random();
    let mut writer = Writer::new();
    writer.raw(MAGIC).u8(FORMAT).u8(u8::from(!passphrase.is_empty()));
    cost.write(&mut writer);
    writer.raw(&salt);
    let mut sealed = writer.0;
    let header = sealed.clone();
    let key = cost.stretch(passphrase, &salt).expect("a device that runs this has 64 MiB");
    Cipher::new(&key).seal_with_nonce(&random(), &header, &[&keyring.encode()], &mut sealed);
    let sum = checksum(&sealed);
    sealed.extend_from_slice(&sum);
    sealed
}

/// Opens a keyring.
pub fn open(bytes: &[u8], passphrase: &[u8]) -> Result<Keyring, KeyringError> {
    let file = File::read(bytes)?;
    let key = file.cost.stretch(passphrase, file.salt).ok_or(KeyringError::Memory)?;
    let plain =
        Cipher::new(&key).open_with_nonce(file.header, file.sealed).ok_or(KeyringError::WrongPassphrase)?;
    Keyring::decode(&Zeroizing::new(plain)).map_err(|_| KeyringError::Damaged("its content is malformed"))
}

/// Whether a passphrase was set when the keyring was sealed.
pub fn needs_passphrase(bytes: &[u8]) -> Result<bool, KeyringError> {
    File::read(bytes).map(|file| file.has_passphrase)
}

/// A keyring file whose checksum is right.
struct File<'a> {
    header: &'a [u8],
    has_passphrase: bool,
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
        if bytes.get(MAGIC.len()).is_some_and(|format| *format != FORMAT) {
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
        let has_passphrase = match reader.u8().map_err(malformed)? {
            0 => false,
            1 => true,
            _ => return Err(Damaged("its header is malformed")),
        };
        let cost = Argon2Cost::read(&mut reader).map_err(malformed)?;
        let salt = header.last_chunk().ok_or(Damaged("its header is malformed"))?;
        Ok(File { header, has_passphrase, cost, salt, sealed })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("kilofs 1 2026 keyring checksum", bytes);
    *hash.first_chunk().expect("a hash is longer than a checksum")
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
