//! How a person names a device: by the id that `status` shows, by how it begins, or as this one.

use crate::base::DeviceId;
use crate::daemon::control::{Failure, FailureKind};
use std::collections::BTreeSet;
use std::str::FromStr;

/// Digits that stand for a whole id at least.
const DIGITS_MIN: usize = 8;
const DIGITS: usize = 2 * DeviceId::BYTES;

/// A device as it was named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceText {
    /// This one.
    Own,
    /// The digits with which its id begins, in lower case.
    Digits(String),
}

/// A text that names no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a device is named by the id that `kilofs status` shows, its first {DIGITS_MIN} digits or more, or `self`"
)]
pub struct NotADevice;

impl FromStr for DeviceText {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<DeviceText, NotADevice> {
        let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        match text {
            "self" => Ok(DeviceText::Own),
            _ if is_hex && (DIGITS_MIN..=DIGITS).contains(&text.len()) => {
                Ok(DeviceText::Digits(text.to_ascii_lowercase()))
            }
            _ => Err(NotADevice),
        }
    }
}

impl DeviceText {
    /// The device, where it takes no other ones to tell.
    pub fn exact(&self, own: DeviceId) -> Option<DeviceId> {
        match self {
            DeviceText::Own => Some(own),
            DeviceText::Digits(digits) => DeviceId::from_hex(digits),
        }
    }

    /// The one of some devices whose id begins so.
    pub fn among(&self, known: &BTreeSet<DeviceId>) -> Result<DeviceId, Failure> {
        let DeviceText::Digits(digits) = self else {
            return Err(Failure::new(FailureKind::Usage, NotADevice.to_string()));
        };
        let mut fitting = known.iter().filter(|device| device.to_string().starts_with(digits.as_str()));
        match (fitting.next(), fitting.next()) {
            (Some(device), None) => Ok(*device),
            (Some(_), Some(_)) => {
                Err(Failure::failed(format!("several devices begin with {digits}: give more digits")))
            }
            (None, _) => Err(Failure::failed(format!(
                "no device that has published here begins with {digits}: give its whole id, which `kilofs status` shows there"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OWN: DeviceId = DeviceId([7; 32]);

    fn named(text: &str, known: &[DeviceId]) -> Option<DeviceId> {
        let text = DeviceText::from_str(text).ok()?;
        text.exact(OWN).or_else(|| text.among(&known.iter().copied().collect()).ok())
    }

    #[test]
    fn a_device_is_itself_an_id_or_how_one_begins() {
        let (one, mut other) = (DeviceId([0xab; 32]), DeviceId([0xab; 32]));
        other.0[5] = 0;
        assert_eq!(named("self", &[]), Some(OWN));
        assert_eq!(named(&one.to_string(), &[]), Some(one), "a whole id need not be known");
        assert_eq!(named("ABABABAB", &[one]), Some(one));
        assert_eq!(named("abababab", &[one, other]), None, "two begin so");
        assert_eq!(named("abababababab", &[one, other]), Some(one));
        assert_eq!(named("abababababa00", &[one, other]), None);
        for text in ["", "ababab", "me", "0xababab", "ghghghgh", &format!("{one}0")] {
            assert_eq!(named(text, &[one]), None, "{text}");
        }
    }
}
