//! What a device knows besides the images: sealed, inside the store, replaced with every commit of the store.

use super::label::{get_root, put_root};
use super::status::{ConflictStatus, RefusalStatus};
use crate::base::{BlockNumber, Id, Malformed, Reader, SessionId, Writer};
use crate::map::Root;
use crate::record::{Charter, Policy, RECORD_BYTES, SignedItem, VersionRef};
use crate::tree::Mark;
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u8 = 3;
/// The format without the commits.
const FORMAT_HEADLESS: u8 = 2;
/// The format before there was an intent log: without the mark, too.
const FORMAT_UNLOGGED: u8 = 1;
const BLOCKS_MAX: usize = 1 << 12;
const LIST_MAX: usize = 1 << 14;
const TEXT_BYTES_MAX: usize = 1 << 16;
const VARINT_BYTES_MAX: usize = 10;
const ITEM_BYTES_MAX: usize = RECORD_BYTES + 128;
const POLICY_BYTES_MAX: usize = 1 << 12;
const CHARTER_BYTES_MAX: usize = 1 << 20;
/// The store takes a state of 1 MiB, seal included.
const BYTES_MAX: usize = (1 << 20) - 1024;
/// So many refusals are remembered, and beyond them one for each block. Who holds a write link signs in as many names as it
/// likes.
const REFUSALS_MAX: usize = 1000;

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
    /// The version that arrived or was published last: all of it that counts is in the working head.
    pub head: Option<VersionRef>,
    /// The commits that the working head stood on when this was saved. Not always that version's alone: what was left out of
    /// one is not stood upon, and what a merge brought together that is not published yet stands on both sides.
    pub heads: Vec<Id>,
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
    /// The state's bytes, with the commits that the working head stands on now.
    pub fn encode(&self, heads: &[Id]) -> Vec<u8> {
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
        writer.varint(heads.len() as u64);
        heads.iter().for_each(|head| _ = writer.raw(&head.0));
        // What has no room is found again where it still is so: copies in the tree, refusals when the version is met.
        let room = BYTES_MAX.saturating_sub(writer.0.len());
        let refusals = list(self.refusals.iter(), room / 2);
        let conflicts = list(self.conflicts.iter(), room - refusals.len());
        writer.raw(&conflicts).raw(&refusals);
        writer.0
    }

    /// Remembers a refusal; says whether it was not known.
    pub fn refuse(&mut self, refusal: RefusalStatus) -> bool {
        let full = self.refusals.len() >= REFUSALS_MAX;
        if full && self.refusals.iter().any(|known| known.block == refusal.block) {
            return false;
        }
        self.refusals.insert(refusal)
    }

    /// Reads a state's bytes.
    pub fn decode(bytes: &[u8]) -> Result<State, Malformed> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        if !matches!(format, FORMAT_UNLOGGED | FORMAT_HEADLESS | FORMAT) {
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
        let count = if format == FORMAT { reader.bounded(LIST_MAX)? } else { 0 };
        let heads = (0..count).map(|_| Ok(Id(reader.array()?))).collect::<Result<_, Malformed>>()?;
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
            heads,
            roots,
            mark,
            pending,
            conflicts,
            refusals,
        })
    }
}

/// As many items as have room.
fn list<T: serde::Serialize>(items: impl Iterator<Item = T>, room: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut count = 0;
    for item in items.take(LIST_MAX) {
        let json = serde_json::to_vec(&item).expect("plain strings serialise");
        if writer.0.len() + json.len() + 2 * VARINT_BYTES_MAX > room {
            break;
        }
        writer.bytes(&json);
        count += 1;
    }
    let mut counted = Writer::new();
    counted.varint(count).raw(&writer.0);
    counted.0
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::{BlockNumber, DatabaseId, Signature};
    use crate::record::{BLOCKS_MAX, BlockCharter, CHARTER_BYTES_MAX, Mode, genesis_charter};

    /// As many blocks as there can be, with paths as long as there is room for, refusals in as many names as a thief
    /// cares to make, and conflicts: the store takes it, and nothing but the end of the lists is left out.
    #[test]
    fn the_largest_state_still_fits_its_place() {
        let mut charter = genesis_charter(&DatabaseId([1; 32]));
        let root = charter.blocks[&BlockNumber::ROOT].clone();
        for number in 1..BLOCKS_MAX as u16 {
            let path = format!("{number:05}/{}", "p".repeat(240)).into_bytes();
            let owner = Some(crate::base::DeviceId([2; 32]));
            let floor = crate::record::Floor { counter: 1, root: Some(crate::base::Id([3; 32])) };
            charter.blocks.insert(BlockNumber(number), BlockCharter { path, owner, floor, ..root.clone() });
        }
        assert!(charter.check().is_ok() && charter.encode().len() > CHARTER_BYTES_MAX * 9 / 10);
        let modes = vec![Mode::ReadOnly; BLOCKS_MAX];
        let policy =
            Policy { counter: 1, charter: crate::base::Id([4; 32]), signature: Signature([0; 64]), modes };
        let place = crate::base::Place { offset: 1 << 40, length: 9_000 };
        let some = Some(Root { level: 3, id: crate::base::Id([5; 32]), place });
        let mut state = State {
            session: SessionId([0; 16]),
            counter_reserved: 0,
            lamport: 0,
            accepted: None,
            lifeline: None,
            policy,
            head: None,
            heads: Vec::new(),
            roots: charter.blocks.keys().map(|number| (*number, some)).collect(),
            charter,
            mark: Mark::default(),
            pending: false,
            conflicts: (0..9_000)
                .map(|n| ConflictStatus { path: format!("conflict-{n}"), device: "d".into() })
                .collect(),
            refusals: BTreeSet::new(),
        };
        let refusal = |block: u16, signer: u32| RefusalStatus {
            block,
            path: format!("/{block}"),
            kind: "remote".into(),
            signer: Some(format!("{signer:064x}")),
            reason: "the block is read-only".into(),
        };
        assert!((0..40_000).filter(|signer| state.refuse(refusal(7, *signer))).count() <= REFUSALS_MAX);
        for block in 0..BLOCKS_MAX as u16 {
            state.refuse(refusal(block, 1));
        }
        assert!(state.refusals.len() <= REFUSALS_MAX + BLOCKS_MAX);
        assert!(state.refusals.iter().any(|one| one.block == BLOCKS_MAX as u16 - 1), "each block is named");
        let heads = [crate::base::Id([6; 32]), crate::base::Id([7; 32])];
        let bytes = state.encode(&heads);
        assert!(bytes.len() <= BYTES_MAX, "{}", bytes.len());
        let again = State::decode(&bytes).unwrap();
        assert_eq!(again.heads, heads);
        assert_eq!((again.charter, again.roots), (state.charter, state.roots));
        assert!(!again.conflicts.is_empty() && !again.refusals.is_empty());
    }
}
