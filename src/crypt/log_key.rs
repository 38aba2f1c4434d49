//! Seals what a device's intent log holds: names and data, readable to nobody without the read secret.

use super::cipher::Cipher;
use super::seal::Tampered;
use super::secret::{Context, Secret, random};

const ASSOCIATED: &[u8] = b"kilofs intent log 1";

/// The key of the intent log.
#[derive(Clone)]
pub struct LogKey(Secret);

impl LogKey {
    /// The log key of all who hold the read secret.
    pub fn of(read_secret: &Secret) -> LogKey {
        LogKey(read_secret.derive(Context::IntentLog, &[]))
    }

    /// Seals a batch under a random nonce.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        Cipher::new(&self.0).seal_with_nonce(&random(), ASSOCIATED, &[plain], &mut sealed);
        sealed
    }

    /// Opens what [`LogKey::seal`] sealed.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        Cipher::new(&self.0).open_with_nonce(ASSOCIATED, sealed).ok_or(Tampered)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_batch_opens_under_its_own_key_only() {
        let (one, other) = (LogKey::of(&Secret::new([1; 32])), LogKey::of(&Secret::new([2; 32])));
        let mut sealed = one.seal(b"changes");
        assert_eq!(one.open(&sealed).unwrap(), b"changes");
        assert_ne!(one.seal(b"changes"), sealed, "the nonce is random");
        assert_eq!(other.open(&sealed), Err(Tampered));
        sealed[30] ^= 1;
        assert_eq!(one.open(&sealed), Err(Tampered));
        assert_eq!(one.open(&[]), Err(Tampered));
    }
}
