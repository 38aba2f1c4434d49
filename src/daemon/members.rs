//! Who takes part, as far as it is known here: from the charter, from commits, and from what these stand on.

use super::answers::MemberSeen;
use super::core::Core;
use crate::base::DeviceId;
use crate::record::Members;
use std::collections::BTreeMap;

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
    note(core.keys.device.public(), None);
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
        commit.vector.iter().for_each(|(maker, _)| note(maker.device, None));
    }
    let members = &inner.state.charter.members;
    if let Members::Listed(devices) = members {
        devices.iter().for_each(|device| note(*device, None));
    }
    let own = core.keys.device.public();
    let mut all: Vec<MemberSeen> = seen
        .into_iter()
        .map(|(device, made)| {
            let (time, commit) = made.map(|(time, _, commit)| (time, commit)).unzip();
            MemberSeen {
                device: device.to_string(),
                this: device == own,
                writes: members.include(&device),
                listed: matches!(members, Members::Listed(_)) && members.include(&device),
                time,
                commit,
            }
        })
        .collect();
    all.sort_by(|one, other| (other.time, &one.device).cmp(&(one.time, &other.device)));
    all
}
