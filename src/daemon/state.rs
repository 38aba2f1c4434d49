//! What a device knows besides the images: sealed, inside the store, replaced with every commit of the store.

use super::label::{get_root, put_root};
use super::status::{ConflictStatus, RefusalStatus};
use crate::base::{BlockNumber, Malformed, Reader, SessionId, Writer};
use crate::map::Root;
use crate::record::{Charter, Policy, RECORD_BYTES, SignedItem, VersionRef};
use crate::tree::Mark;
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u8 = 2;
/// The format before there was an intent log: without the mark.
const FORMAT_UNLOGGED: u8 = 1;
const BLOCKS_MAX: usize = 1 << 12;
const LIST_MAX: usize = 1 << 14;
const TEXT_BYTES_MAX: usize = 1 << 16;
const ITEM_BYTES_MAX: usize = RECORD_BYTES + 128;
const POLICY_BYTES_MAX: usize = 1 << 12;
const CHARTER_BYTES_MAX: usize = 1 << 20;

/// The device's own state of one database.
#[derive(Clone, Debug)]
pub struct State {
    /// This incarnation of the store, in version vectors.
    pub session: SessionId,
    /// Commit counters below this one are used or given up: reserved ahead, so that a power cut never reuses one.
    pub counter_reserved: u64,
    /// The highest Lamport counter seen.
    pub lamport: u64,
    /// The highest record accepted, as it was signed.
    pub accepted: Option<SignedItem>,
    /// The highest lifeline seen: the item under the admin key, with the policy in force.
    pub lifeline: Option<SignedItem>,
    /// The highest policy seen whose charter is known.
    pub policy: Policy,
    /// The charter that it names.
    pub charter: Charter,
    /// The version that the working head stands on.
    pub head: Option<VersionRef>,
    /// The roots of the working head.
    pub roots: BTreeMap<BlockNumber, Option<Root>>,
    /// The last change that the working head holds: the intent log goes on behind it.
    pub mark: Mark,
    /// The working head holds changes that no version names.
    pub pending: bool,
    /// Conflict copies seen.
    pub conflicts: BTreeSet<ConflictStatus>,
    /// Refusals seen.
    pub refusals: BTreeSet<RefusalStatus>,
}

impl State {
    /// The state's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).raw(&self.session.0).u64(self.counter_reserved).u64(self.lamport);
        for item in [&self.accepted, &self.lifeline] {
            writer.bytes(&item.as_ref().map_or(Vec::new(), SignedItem::encode));
        }
        writer.bytes(&self.policy.encode()).bytes(&self.charter.encode());
        match &self.head {
            None => _ = writer.u8(0),
            Some(head) => _ = writer.u8(1).raw(&head.infohash.0).locator(&head.commit),
        }
        writer.varint(self.roots.len() as u64);
        for (number, root) in &self.roots {
            writer.u16(number.0);
            put_root(&mut writer, root.as_ref());
        }
        writer.u64(self.mark.lineage).u64(self.mark.seq).u8(u8::from(self.pending));
        let list = |items: Vec<Vec<u8>>| {
            let mut writer = Writer::new();
            writer.varint(items.len() as u64);
            for item in items {
                writer.bytes(&item);
            }
            writer.0
        };
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("plain strings serialise");
        writer
            .raw(&list(self.conflicts.iter().take(LIST_MAX).map(|c| json(serde_json::to_vec(c))).collect()));
        writer.raw(&list(self.refusals.iter().take(LIST_MAX).map(|r| json(serde_json::to_vec(r))).collect()));
        writer.0
    }

    /// Reads a state's bytes.
    pub fn decode(bytes: &[u8]) -> Result<State, Malformed> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        if !matches!(format, FORMAT_UNLOGGED | FORMAT) {
            return Err(Malformed);
        }
        let session = SessionId(reader.array()?);
        let (counter_reserved, lamport) = (reader.u64()?, reader.u64()?);
        let accepted = read_item(&mut reader)?;
        let lifeline = read_item(&mut reader)?;
        let policy = Policy::decode(reader.bytes(POLICY_BYTES_MAX)?).map_err(|_| Malformed)?;
        let charter = Charter::decode(reader.bytes(CHARTER_BYTES_MAX)?).map_err(|_| Malformed)?;
        let head = match reader.u8()? {
            0 => None,
            _ => Some(VersionRef {
                infohash: crate::base::InfoHash(reader.array()?),
                commit: reader.locator()?,
            }),
        };
        let mut roots = BTreeMap::new();
        for _ in 0..reader.bounded(BLOCKS_MAX)? {
            let number = BlockNumber(reader.u16()?);
            roots.insert(number, get_root(&mut reader)?);
        }
        let mark = match format {
            FORMAT_UNLOGGED => Mark::default(),
            _ => Mark { lineage: reader.u64()?, seq: reader.u64()? },
        };
        let pending = reader.u8()? != 0;
        let conflicts = read_list(&mut reader)?;
        let refusals = read_list(&mut reader)?;
        reader.end()?;
        Ok(State {
            session,
            counter_reserved,
            lamport,
            accepted,
            lifeline,
            policy,
            charter,
            head,
            roots,
            mark,
            pending,
            conflicts,
            refusals,
        })
    }
}

fn read_item(reader: &mut Reader) -> Result<Option<SignedItem>, Malformed> {
    let bytes = reader.bytes(ITEM_BYTES_MAX)?;
    if bytes.is_empty() { Ok(None) } else { SignedItem::decode(bytes).map(Some) }
}

fn read_list<T: serde::de::DeserializeOwned + Ord>(reader: &mut Reader) -> Result<BTreeSet<T>, Malformed> {
    let count = reader.bounded(LIST_MAX)?;
    let item = |reader: &mut Reader| {
        let bytes = reader.bytes(TEXT_BYTES_MAX)?;
        serde_json::from_slice(bytes).map_err(|_| Malformed)
    };
    (0..count).map(|_| item(reader)).collect()
}
