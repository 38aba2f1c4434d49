//! Who takes part, as far as it is known here: from the charter, from commits, from what these stand on, and from entries.

use super::answers::MemberSeen;
use super::core::Core;
use crate::base::DeviceId;
use crate::record::Members;
use std::collections::{BTreeMap, BTreeSet};

/// The answer to `Members`: by what each made last, the newest first.
pub fn members(core: &Core) -> Vec<MemberSeen> {
    let mut seen: BTreeMap<DeviceId, Option<(i64, u64, String)>> = BTreeMap::new();
    let mut note = |device: DeviceId, made: Option<(i64, u64, String)>| {
        let known = seen.entry(device).or_default();
        let newer = made.as_ref().map(|made| made.1) > known.as_ref().map(|known| known.1);
        if newer {
            *known = made;
        }
    };
    for entry in core.cache.log() {
        if let Some(device) = DeviceId::from_hex(&entry.device) {
            note(device, Some((entry.time, entry.lamport, entry.commit)));
        }
    }
    let inner = core.inner();
    let kept = inner.versions.iter().filter_map(|version| Some((version.id(), version.commit.as_ref()?)));
    let heads = inner.heads.iter().map(|(id, commit)| (*id, commit));
    for (id, commit) in kept.chain(heads) {
        note(commit.device, Some((commit.time, commit.lamport, id.to_string())));
        // Of what came merged into somebody else's version nothing more may ever be here than that it was stood on.
        commit.vector.iter().for_each(|(maker, _)| note(maker.device, None));
    }
    let charter = &inner.state.charter;
    let (members, blocks) = (&charter.members, charter.blocks.values());
    let admin = core.keys.admin_public.0;
    // A floor counts whoever is named as its signer.
    let entries = inner.entries.values().map(|listed| &listed.entry);
    let signed = entries.filter(|entry| entry.signature_valid(&core.keys.database));
    signed.for_each(|entry| note(entry.signer, None));
    let wrote: BTreeSet<DeviceId> = seen.keys().copied().collect();
    let owners: BTreeSet<DeviceId> = blocks.clone().filter_map(|block| block.owner).collect();
    let own = core.keys.device.public();
    let mut note = |device: &DeviceId| _ = seen.entry(*device).or_default();
    owners.iter().chain([&own]).for_each(&mut note);
    blocks
        .filter_map(|block| block.private.as_ref())
        .flat_map(|private| private.readers.keys())
        .for_each(&mut note);
    if let Members::Listed(devices) = members {
        devices.iter().for_each(&mut note);
    }
    seen.retain(|device, _| device.0 != admin);
    let mut all: Vec<MemberSeen> = seen
        .into_iter()
        .map(|(device, made)| {
            let (time, commit) = made.map(|(time, _, commit)| (time, commit)).unzip();
            MemberSeen {
                device: device.to_string(),
                this: device == own,
                writes: members.include(&device) || owners.contains(&device),
                listed: matches!(members, Members::Listed(_)) && members.include(&device),
                wrote: wrote.contains(&device),
                owns: owners.contains(&device),
                time,
                commit,
            }
        })
        .collect();
    all.sort_by(|one, other| (other.time, &one.device).cmp(&(one.time, &other.device)));
    all
}
