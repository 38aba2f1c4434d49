//! The charter: what the admin fixed about blocks and members. The policy names it, so the admin's signature covers it.

use super::error::RecordError;
use super::private::Private;
use super::value::BLOCKS_MAX;
use crate::base::{Birth, BlockNumber, DatabaseId, DeviceId, Id, Malformed, Reader, Writer};
use std::collections::{BTreeMap, BTreeSet};

/// The longest charter, in bytes.
pub const CHARTER_BYTES_MAX: usize = 3 << 18;
/// Members that a list can name.
pub const MEMBERS_MAX: usize = 1 << 14;
/// The longest path of a block, in bytes.
pub const PATH_BYTES_MAX: usize = 4095;
/// The longest component of a block's path, in bytes.
pub const PATH_COMPONENT_BYTES_MAX: usize = 255;

/// Without quotas.
const FORMAT: u8 = 1;
/// With those of each block behind its floor. A charter without any is written in the first format, so that its id
/// stays what it was.
const FORMAT_QUOTAS: u8 = 2;
/// With the keys of private blocks behind these. A charter without any is written in one of the others.
const FORMAT_PRIVATE: u8 = 3;
const OPEN: u8 = 0;
const LISTED: u8 = 1;
/// Where the mount shows what is not of the tree.
const RESERVED: &[u8] = b".kilofs";

/// Blocks and members of a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charter {
    /// The blocks by number; block 0 always.
    pub blocks: BTreeMap<BlockNumber, BlockCharter>,
    /// Whose entries count.
    pub members: Members,
}

/// What is fixed about one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockCharter {
    /// Its full path without a leading slash; empty for block 0 only.
    pub path: Vec<u8>,
    /// Who may change it in mode `owner`.
    pub owner: Option<DeviceId>,
    /// Tells this block from an earlier one of its number.
    pub birth: Birth,
    /// The incarnation of its key.
    pub epoch: u32,
    /// Where it stood when its mode or owner last changed.
    pub floor: Floor,
    /// What it may hold.
    pub quota: Quota,
    /// Who can open it, where not everybody can who reads the database.
    pub private: Option<Private>,
}

/// What a block may hold; none where there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// Sizes of its files, in bytes.
    pub bytes: Option<u64>,
    /// Its files, directories and all else that has an inode, without its root.
    pub files: Option<u64>,
}

impl Quota {
    /// Whether there is no limit at all.
    pub fn is_none(&self) -> bool {
        *self == Quota::default()
    }
}

/// The state below which no entry of a block counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    /// The entry's counter.
    pub counter: u64,
    /// The root of its map; none for an empty one.
    pub root: Option<Id>,
}

/// Whose entries count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Members {
    /// Whoever holds the write link.
    Open,
    /// These devices.
    Listed(BTreeSet<DeviceId>),
}

impl Members {
    /// Whether a device is one.
    pub fn include(&self, device: &DeviceId) -> bool {
        match self {
            Members::Open => true,
            Members::Listed(devices) => devices.contains(device),
        }
    }
}

/// The charter of a database that nobody has changed yet: early writers share it without having met.
pub fn genesis_charter(database: &DatabaseId) -> Charter {
    let derived = blake3::derive_key("kilofs 1 2026 genesis birth", &database.0);
    let birth = Birth(*derived.first_chunk().expect("a key is longer than a birth"));
    let floor = Floor { counter: 0, root: None };
    let quota = Quota::default();
    let root = BlockCharter { path: Vec::new(), owner: None, birth, epoch: 0, floor, quota, private: None };
    Charter { blocks: BTreeMap::from([(BlockNumber::ROOT, root)]), members: Members::Open }
}

impl Charter {
    /// Whether others will take it: limits, numbers, paths. Who changes a charter asks before signing.
    pub fn check(&self) -> Result<(), RecordError> {
        too_many("blocks", self.blocks.len(), BLOCKS_MAX)?;
        if let Members::Listed(devices) = &self.members {
            too_many("members", devices.len(), MEMBERS_MAX)?;
        }
        let mut paths = BTreeSet::new();
        for (number, block) in &self.blocks {
            too_many("blocks", usize::from(number.0) + 1, BLOCKS_MAX)?;
            let is_root = *number == BlockNumber::ROOT;
            if is_root != block.path.is_empty()
                || !is_root && !is_usable(&block.path)
                || !paths.insert(&block.path)
            {
                return Err(RecordError::Path);
            }
        }
        if !self.blocks.contains_key(&BlockNumber::ROOT) {
            return Err(RecordError::Malformed("charter"));
        }
        too_many("bytes of the charter", self.encode().len(), CHARTER_BYTES_MAX)
    }

    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let private = self.blocks.values().any(|block| block.private.is_some());
        let quotas = private || self.blocks.values().any(|block| !block.quota.is_none());
        writer.u8(match (private, quotas) {
            (true, _) => FORMAT_PRIVATE,
            (false, true) => FORMAT_QUOTAS,
            (false, false) => FORMAT,
        });
        match &self.members {
            Members::Open => _ = writer.u8(OPEN),
            Members::Listed(devices) => {
                writer.u8(LISTED).varint(devices.len() as u64);
                for device in devices {
                    writer.raw(&device.0);
                }
            }
        }
        writer.varint(self.blocks.len() as u64);
        for (number, block) in &self.blocks {
            writer.u16(number.0).bytes(&block.path);
            put_option(&mut writer, block.owner.as_ref().map(DeviceId::as_bytes));
            writer.raw(&block.birth.0).u32(block.epoch).u64(block.floor.counter);
            put_option(&mut writer, block.floor.root.as_ref().map(Id::as_bytes));
            for limit in [block.quota.bytes, block.quota.files].into_iter().filter(|_| quotas) {
                put_limit(&mut writer, limit);
            }
            match &block.private {
                _ if !private => {}
                None => _ = writer.u8(0),
                Some(private) => private.write(writer.u8(1)),
            }
        }
        writer.0
    }

    /// Reads what [`Charter::encode`] wrote and [`Charter::check`] allows.
    pub fn decode(bytes: &[u8]) -> Result<Charter, RecordError> {
        too_many("bytes of the charter", bytes.len(), CHARTER_BYTES_MAX)?;
        let mut reader = Reader::new(bytes);
        let malformed = RecordError::in_a("charter");
        let format = reader.u8().map_err(&malformed)?;
        if !matches!(format, FORMAT | FORMAT_QUOTAS | FORMAT_PRIVATE) {
            return Err(RecordError::Format(format));
        }
        let charter = read(&mut reader, format).map_err(&malformed)?;
        reader.end().map_err(&malformed)?;
        charter.check()?;
        Ok(charter)
    }
}

fn read(reader: &mut Reader, format: u8) -> Result<Charter, Malformed> {
    let quotas = format != FORMAT;
    let members = match reader.u8()? {
        OPEN => Members::Open,
        LISTED => {
            let mut devices = BTreeSet::new();
            for _ in 0..reader.bounded(MEMBERS_MAX)? {
                let device = DeviceId(reader.array()?);
                if devices.last().is_some_and(|last| *last >= device) {
                    return Err(Malformed);
                }
                devices.insert(device);
            }
            Members::Listed(devices)
        }
        _ => return Err(Malformed),
    };
    let mut blocks: BTreeMap<BlockNumber, BlockCharter> = BTreeMap::new();
    for _ in 0..reader.bounded(BLOCKS_MAX)? {
        let number = BlockNumber(reader.u16()?);
        if blocks.last_key_value().is_some_and(|(last, _)| *last >= number) {
            return Err(Malformed);
        }
        let path = reader.bytes(PATH_BYTES_MAX)?.to_vec();
        let owner = get_option(reader)?.map(DeviceId);
        let (birth, epoch) = (Birth(reader.array()?), reader.u32()?);
        let floor = Floor { counter: reader.u64()?, root: get_option(reader)?.map(Id) };
        let quota = match quotas {
            true => Quota { bytes: get_limit(reader)?, files: get_limit(reader)? },
            false => Quota::default(),
        };
        let private = match format {
            FORMAT_PRIVATE => match reader.u8()? {
                0 => None,
                1 => Some(Private::read(reader)?),
                _ => return Err(Malformed),
            },
            _ => None,
        };
        blocks.insert(number, BlockCharter { path, owner, birth, epoch, floor, quota, private });
    }
    // Without any it has another form.
    let needed = match format {
        FORMAT => true,
        FORMAT_QUOTAS => blocks.values().any(|block| !block.quota.is_none()),
        _ => blocks.values().any(|block| block.private.is_some()),
    };
    if !needed {
        return Err(Malformed);
    }
    Ok(Charter { blocks, members })
}

fn put_option(writer: &mut Writer, value: Option<&[u8; 32]>) {
    match value {
        None => _ = writer.u8(0),
        Some(bytes) => _ = writer.u8(1).raw(bytes),
    }
}

fn get_option(reader: &mut Reader) -> Result<Option<[u8; 32]>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        1 => reader.array().map(Some),
        _ => Err(Malformed),
    }
}

fn put_limit(writer: &mut Writer, limit: Option<u64>) {
    match limit {
        None => _ = writer.u8(0),
        Some(limit) => _ = writer.u8(1).u64(limit),
    }
}

fn get_limit(reader: &mut Reader) -> Result<Option<u64>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        1 => reader.u64().map(Some),
        _ => Err(Malformed),
    }
}

fn is_usable(path: &[u8]) -> bool {
    let component = |name: &[u8]| {
        let length = (1..=PATH_COMPONENT_BYTES_MAX).contains(&name.len());
        length && name != b"." && name != b".." && !name.contains(&0)
    };
    path.len() <= PATH_BYTES_MAX
        && path.split(|byte| *byte == b'/').all(component)
        && path.split(|byte| *byte == b'/').next() != Some(RESERVED)
}

fn too_many(what: &'static str, count: usize, max: usize) -> Result<(), RecordError> {
    if count > max { Err(RecordError::TooMany { what, count, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn charter() -> Charter {
        let mut charter = genesis_charter(&DatabaseId([1; 32]));
        let block = |path: &[u8]| BlockCharter {
            path: path.to_vec(),
            owner: Some(DeviceId([2; 32])),
            birth: Birth([3; 16]),
            epoch: 4,
            floor: Floor { counter: 5, root: Some(Id([6; 32])) },
            quota: Quota::default(),
            private: None,
        };
        charter.blocks.insert(BlockNumber(1), block(b"letters/\xff"));
        charter.blocks.insert(BlockNumber(7), block(b"letters"));
        charter.members = Members::Listed(BTreeSet::from([DeviceId([2; 32]), DeviceId([9; 32])]));
        charter
    }

    #[test]
    fn charters_survive_and_have_one_form() {
        let mut limited = charter();
        let limits = [(Some(1 << 40), None), (Some(0), Some(7))];
        for (number, (bytes, files)) in [1, 7].into_iter().zip(limits) {
            limited.blocks.get_mut(&BlockNumber(number)).unwrap().quota = Quota { bytes, files };
        }
        let mut hidden = charter();
        let readers = BTreeMap::from([(DeviceId([4; 32]), [5; 80]), (DeviceId([7; 32]), [8; 80])]);
        let private = Private { links: vec![[6; 48]], admin: [9; 80], readers };
        hidden.blocks.get_mut(&BlockNumber(7)).unwrap().private = Some(private);
        for charter in [charter(), limited, hidden, genesis_charter(&DatabaseId([1; 32]))] {
            let bytes = charter.encode();
            assert_eq!(Charter::decode(&bytes).as_ref(), Ok(&charter));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(decoded) = Charter::decode(&changed) {
                    assert_eq!(decoded.encode(), changed, "bit {bit}");
                    assert_ne!(decoded, charter, "bit {bit}");
                }
            }
            for length in 0..bytes.len() {
                assert!(Charter::decode(&bytes[..length]).is_err(), "length {length}");
            }
        }
    }

    #[test]
    fn a_charter_without_quotas_is_of_the_first_format_and_of_no_other() {
        let mut charter = charter();
        assert_eq!(charter.encode()[0], FORMAT);
        charter.blocks.get_mut(&BlockNumber(7)).unwrap().quota.files = Some(1);
        let bytes = charter.encode();
        assert_eq!(bytes[0], FORMAT_QUOTAS);
        // The last block's quota: no limit of bytes, one of files, which is taken away.
        let without = [&bytes[..bytes.len() - 9], &[0][..]].concat();
        assert!(Charter::decode(&without).is_err(), "no quota in the format of quotas");
    }

    #[test]
    fn paths_that_a_tree_cannot_show_are_refused() {
        let mut charter = charter();
        for path in
            [&b""[..], b"/a", b"a/", b"a//b", b".", b"a/..", b"a\0", &[b'a'; 256], b".kilofs/x", b"letters"]
        {
            charter.blocks.get_mut(&BlockNumber(1)).unwrap().path = path.to_vec();
            assert_eq!(charter.check(), Err(RecordError::Path), "{path:?}");
            assert!(Charter::decode(&charter.encode()).is_err(), "{path:?}");
        }
        charter.blocks.get_mut(&BlockNumber(1)).unwrap().path = b"a/.kilofs".to_vec();
        assert_eq!(charter.check(), Ok(()));
        charter.blocks.remove(&BlockNumber::ROOT);
        assert!(charter.check().is_err(), "there is always block 0");
    }

    #[test]
    fn numbers_beyond_the_record_are_refused() {
        let mut charter = charter();
        let block = BlockCharter { path: b"far".to_vec(), ..charter.blocks[&BlockNumber(1)].clone() };
        charter.blocks.insert(BlockNumber(BLOCKS_MAX as u16 - 1), block.clone());
        assert_eq!(charter.check(), Ok(()));
        charter
            .blocks
            .insert(BlockNumber(BLOCKS_MAX as u16), BlockCharter { path: b"farther".to_vec(), ..block });
        assert!(matches!(charter.check(), Err(RecordError::TooMany { .. })));
    }
}
