//! Opens every object that the keys open: what `kilofs fsck` reports beyond the store's own structures.

use super::answers::{CheckFinding, Checked};
use super::core::{Core, Listed};
use super::error::EngineError;
use super::versions::Version as KeptVersion;
use crate::base::BlockNumber;
use crate::crypt::BlobKind;
use crate::image::{Counters, Image, hash_pieces};
use crate::map::{Map, Root};
use crate::tree::ImageSource;
use crate::tree::check::{Finding, check_block};
use crate::tree::version::Version;
use std::collections::BTreeMap;

/// Checks the working head and every kept version.
pub fn inspect(core: &Core, checked: &mut Checked) -> Result<(), EngineError> {
    core.persist()?;
    let inner = core.inner();
    let (image, roots) = (inner.image.clone(), inner.state.roots.clone());
    let versions: Vec<_> = inner.versions.iter().cloned().collect();
    drop(inner);
    blocks(core, "the working head", &image, &roots, checked);
    for version in versions {
        let mut found = Checked::default();
        kept(core, &version, &mut found);
        checked.objects += found.objects;
        checked.bytes += found.bytes;
        // Somebody may have published what does not open; it was refused, and is kept only as it came.
        if found.findings.is_empty() || !as_published(core, &version) {
            checked.findings.extend(found.findings);
        }
    }
    Ok(())
}

fn kept(core: &Core, version: &KeptVersion, checked: &mut Checked) {
    let what = format!("version {}", version.reference.infohash);
    let opened = core.open_commit(&version.image, &version.reference).and_then(|commit| {
        open_charter(core, &version.image, &commit)?;
        core.open_catalogue(&version.image, &commit)
    });
    match opened {
        Ok((_, entries)) => {
            let charter = core.inner().state.charter.clone();
            let lives = |number: &BlockNumber, listed: &Listed| {
                charter.blocks.get(number).is_some_and(|block| block.birth == listed.entry.birth)
            };
            let entries = entries.iter().filter(|(number, listed)| lives(number, listed));
            let roots = entries.map(|(number, listed)| (*number, listed.root())).collect();
            blocks(core, &what, &version.image, &roots, checked);
        }
        Err(error) => {
            checked.findings.push(CheckFinding { block: None, subject: what, what: error.to_string() });
        }
    }
}

/// Whether another device's version still has the bytes that its infohash names: then what does not open never did.
fn as_published(core: &Core, version: &KeptVersion) -> bool {
    let own = core.keys.device.public();
    if version.commit.as_ref().is_none_or(|commit| commit.device == own) {
        return false;
    }
    core.hashes_of(version).is_ok_and(|known| {
        let counters = Counters::default();
        hash_pieces(&core.store, &version.image, known.length, None, &counters).is_ok_and(|now| now == known)
    })
}

fn open_charter(core: &Core, image: &Image, commit: &crate::record::Commit) -> Result<(), EngineError> {
    let keys = core.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
    let sealed = ImageSource::new(&core.store, image).bytes(commit.charter.place)?;
    let opened = keys.open_blob(BlobKind::Charter, &commit.charter.id, &sealed);
    opened.map(|_| ()).map_err(|_| EngineError::Other("its charter does not open".into()))
}

fn blocks(
    core: &Core,
    what: &str,
    image: &Image,
    roots: &BTreeMap<BlockNumber, Option<Root>>,
    checked: &mut Checked,
) {
    let charter = core.inner().state.charter.clone();
    for (number, root) in roots {
        let Some(keys) = charter.blocks.get(number).and_then(|block| core.keys.block(*number, block)) else {
            continue;
        };
        let source = ImageSource::new(&core.store, image);
        let map = Map::new(&keys, &source, core.tree_nodes());
        let version = Version { map: &map, root: *root, keys: &keys, source: &source };
        let report = check_block(*number, &version, image.bytes(), true);
        checked.objects += report.nodes + report.chunks;
        checked.bytes += report.bytes;
        checked.findings.extend(report.findings.iter().map(|finding| CheckFinding {
            block: Some(number.0),
            subject: what.into(),
            what: described(finding),
        }));
    }
}

fn described(finding: &Finding) -> String {
    match finding {
        Finding::Node(error) => format!(
            "a node does not open: {error}; what lies below it is lost here, and is fetched again from peers that have it"
        ),
        Finding::Chunk { inode, index, place } => {
            format!("chunk {index} of inode {inode}, at {} (+{}), does not open", place.offset, place.length)
        }
        Finding::Absent { inode, index } => format!("chunk {index} of inode {inode} is not here yet"),
        Finding::Flaw(flaw) => flaw.to_string(),
    }
}
