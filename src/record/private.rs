//! Who can open a private block: its present key, sealed to each of these devices and to the admin.

use crate::base::{DeviceId, Malformed, Reader, Writer};
use crate::crypt::{KeyEnvelope, KeyLink};
use std::collections::BTreeMap;

/// Devices that can open a private block, at most.
pub const READERS_MAX: usize = 1 << 10;
/// Epochs of a private block's key after the first, at most.
pub const LINKS_MAX: usize = 1 << 10;

/// The keys of a private block, sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Private {
    /// Each earlier key under the one that followed it; so many epochs there were before this one.
    pub links: Vec<KeyLink>,
    /// The present key for the admin.
    pub admin: KeyEnvelope,
    /// The same for each device that may read, the owner among them.
    pub readers: BTreeMap<DeviceId, KeyEnvelope>,
}

impl Private {
    /// The number of the present key.
    pub fn epoch(&self) -> u32 {
        u32::try_from(self.links.len()).unwrap_or(u32::MAX)
    }

    /// Links behind their count, the admin's envelope, then readers behind theirs, each with its envelope.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.varint(self.links.len() as u64);
        for link in &self.links {
            writer.raw(link);
        }
        writer.raw(&self.admin).varint(self.readers.len() as u64);
        for (device, envelope) in &self.readers {
            writer.raw(&device.0).raw(envelope);
        }
    }

    /// Reads what [`Private::write`] wrote.
    pub(super) fn read(reader: &mut Reader) -> Result<Private, Malformed> {
        let mut links = Vec::new();
        for _ in 0..reader.bounded(LINKS_MAX)? {
            links.push(reader.array()?);
        }
        let admin = reader.array()?;
        let mut readers: BTreeMap<DeviceId, KeyEnvelope> = BTreeMap::new();
        for _ in 0..reader.bounded(READERS_MAX)? {
            let device = DeviceId(reader.array()?);
            if readers.last_key_value().is_some_and(|(last, _)| *last >= device) {
                return Err(Malformed);
            }
            readers.insert(device, reader.array()?);
        }
        Ok(Private { links, admin, readers })
    }
}
