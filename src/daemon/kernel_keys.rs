//! Keys that the kernel keeps for a while, so that no passphrase is asked for (keyrings(7)).
//!
//! They lie in the keyring of this user, under a name made from the path of the sealed file. What is kept is the key of that
//! file as it is now, not the passphrase: a changed passphrase makes it worthless.

use crate::crypt::keyring::RingKey;
use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// Why the kernel does not keep a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KernelKeysError {
    /// Built without it, or closed to this process, as in many containers.
    #[error("this system does not let programs keep keys in the kernel ({0})")]
    Closed(KeyError),
    /// It would be more than one user may keep.
    #[error("this user keeps as many keys in the kernel as there may be; see /proc/key-users")]
    Full,
    /// Anything else.
    #[error("the kernel does not keep the key: {0}")]
    Other(KeyError),
}

impl From<KeyError> for KernelKeysError {
    fn from(error: KeyError) -> KernelKeysError {
        match error {
            KeyError::QuotaExceeded => KernelKeysError::Full,
            KeyError::OperationNotSupported
            | KeyError::PermissionDenied
            | KeyError::AccessDenied
            | KeyError::Unknown(_) => KernelKeysError::Closed(error),
            other => KernelKeysError::Other(other),
        }
    }
}

/// Keeps the key of a sealed file until the time is over, the machine starts anew, or [`forget`].
pub fn keep(file: &Path, key: &RingKey, time: Duration) -> Result<(), KernelKeysError> {
    let ring = own()?;
    let seconds = usize::try_from(time.as_secs()).unwrap_or(usize::MAX).max(1);
    let kept = ring.add_key(&name(file), key.encode().as_slice())?;
    // A key that would stay for ever is not what was asked for.
    kept.set_timeout(seconds).inspect_err(|_| _ = kept.invalidate())?;
    Ok(())
}

/// The key that is kept for a sealed file.
pub fn recall(file: &Path) -> Option<RingKey> {
    let key = find(file).ok()??;
    let mut bytes = Zeroizing::new([0; RingKey::BYTES]);
    let length = key.read(&mut *bytes).ok()?;
    RingKey::decode(bytes.get(..length)?)
}

/// Lets the key of a sealed file go. Tells whether there was one.
pub fn forget(file: &Path) -> Result<bool, KernelKeysError> {
    match find(file)? {
        Some(key) => Ok(key.invalidate().map(|()| true)?),
        None => Ok(false),
    }
}

fn find(file: &Path) -> Result<Option<Key>, KernelKeysError> {
    match own()?.search(&name(file)) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The keyring of this user, in possession of this process: not every session has it.
fn own() -> Result<KeyRing, KernelKeysError> {
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, true)?;
    let process = KeyRing::from_special_id(KeyRingIdentifier::Process, true)?;
    process.link_keyring(user)?;
    Ok(user)
}

fn name(file: &Path) -> String {
    let file = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let hash = blake3::derive_key("kilofs 1 2026 kernel key name", file.as_os_str().as_bytes());
    format!("kilofs:{}", data_encoding::HEXLOWER.encode(&hash[..16]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(fill: u8) -> RingKey {
        RingKey::decode(&[fill; RingKey::BYTES]).unwrap()
    }

    #[test]
    fn a_key_is_kept_replaced_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("keyring"), directory.path().join("other"));
        match keep(&file, &key(1), Duration::from_secs(600)) {
            // Nothing to test on a system that keeps none.
            Err(KernelKeysError::Closed(_)) => return,
            done => done.unwrap(),
        }
        assert_eq!((recall(&file), recall(&other)), (Some(key(1)), None));
        keep(&file, &key(2), Duration::from_secs(600)).unwrap();
        assert_eq!(recall(&file), Some(key(2)));
        assert_eq!((forget(&file), forget(&file)), (Ok(true), Ok(false)));
        assert_eq!(recall(&file), None);
    }
}
