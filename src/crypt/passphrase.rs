//! From a passphrase to a key: Argon2id (RFC 9106).

use super::secret::Secret;
use crate::base::{Malformed, Reader, Writer};
use argon2::{Algorithm, Argon2, Params, Version};

/// Bytes of a salt.
pub(super) const SALT_BYTES: usize = 16;

const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

/// What guessing a passphrase costs, a try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// RFC 9106's second recommended choice: 64 MiB, three passes, four lanes.
    pub const STANDARD: Argon2Cost = Argon2Cost { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// For the empty passphrase, which protects nothing.
    pub const MINIMAL: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };
    /// Encoded length: memory 4, passes 4, lanes 4.
    pub(super) const BYTES: usize = 12;

    pub(super) fn write(self, writer: &mut Writer) {
        writer.u32(self.memory_kib).u32(self.passes).u32(self.lanes);
    }

    /// Reads a cost that somebody else chose: it stays below what any device can bear.
    pub(super) fn read(reader: &mut Reader) -> Result<Argon2Cost, Malformed> {
        let cost = Argon2Cost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        let bearable =
            cost.memory_kib <= MEMORY_KIB_MAX && cost.passes <= PASSES_MAX && cost.lanes <= LANES_MAX;
        if bearable && cost.params().is_some() { Ok(cost) } else { Err(Malformed) }
    }

    /// The key of a passphrase; none where there is not the memory for it.
    pub(super) fn stretch(self, passphrase: &[u8], salt: &[u8; SALT_BYTES]) -> Option<Secret> {
        let mut key = Secret::new([0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params()?);
        argon2.hash_password_into(passphrase, salt, key.expose_mut()).ok()?;
        Some(key)
    }

    fn params(self) -> Option<Params> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(Secret::BYTES)).ok()
    }
}

const _: () =
    assert!(Argon2Cost::STANDARD.memory_kib <= MEMORY_KIB_MAX && Argon2Cost::MINIMAL.memory_kib >= 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearable_costs_are_read() {
        let read = |memory_kib, passes, lanes| {
            let mut writer = Writer::new();
            Argon2Cost { memory_kib, passes, lanes }.write(&mut writer);
            assert_eq!(writer.0.len(), Argon2Cost::BYTES);
            Argon2Cost::read(&mut Reader::new(&writer.0))
        };
        assert!(read(64 << 10, 3, 4).is_ok() && read(8, 1, 1).is_ok());
        for (memory_kib, passes, lanes) in
            [(u32::MAX, 1, 1), (8, u32::MAX, 1), (8, 1, u32::MAX), (0, 1, 1), (8, 0, 1), (8, 1, 0), (8, 1, 2)]
        {
            assert_eq!(read(memory_kib, passes, lanes), Err(Malformed), "{memory_kib} {passes} {lanes}");
        }
    }

    #[test]
    fn passphrase_and_salt_make_the_key() {
        let stretch = |passphrase: &[u8], salt| Argon2Cost::MINIMAL.stretch(passphrase, &[salt; SALT_BYTES]);
        let key = |passphrase: &[u8], salt| stretch(passphrase, salt).expect("eight KiB");
        assert_eq!(key(b"a", 1), key(b"a", 1));
        assert!(key(b"a", 1) != key(b"b", 1) && key(b"a", 1) != key(b"a", 2) && key(b"", 1) != key(b"a", 1));
    }
}
