//! Opens every object that the keys open: what `kilofs fsck` reports beyond the store's own structures.

use super::answers::{CheckFinding, Checked};
use super::core::{Core, Listed};
use super::error::EngineError;
use crate::base::BlockNumber;
use crate::crypt::BlobKind;
use crate::image::Image;
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
        let what = format!("version {}", version.reference.infohash);
        let opened = core.open_commit(&version.image, &version.reference).and_then(|commit| {
            // Others may name a charter that is not there; such a version is kept as evidence.
            if commit.device == core.keys.device.public() {
                open_charter(core, &version.image, &commit)?;
            }
            core.open_catalogue(&version.image, &commit)
        });
        match opened {
            Ok((_, entries)) => {
                let in_force = core.inner().entries.clone();
                let roots = entries
                    .iter()
                    // What was refused when the version came is not shown, and need not open.
                    .filter(|(number, listed)| {
                        in_force.get(number).is_none_or(|known| known.entry.birth == listed.entry.birth)
                    })
                    .map(|(number, listed)| (*number, listed.root()))
                    .collect();
                if !refused(core, &entries) {
                    blocks(core, &what, &version.image, &roots, checked);
                }
            }
            Err(error) => {
                checked.findings.push(CheckFinding { block: None, subject: what, what: error.to_string() });
            }
        }
    }
    Ok(())
}

/// Whether parts of a version were refused: then it is kept as evidence and for others' sake only.
fn refused(core: &Core, entries: &BTreeMap<BlockNumber, Listed>) -> bool {
    let inner = core.inner();
    let remote = inner.state.refusals.iter().filter(|refusal| refusal.kind == "remote");
    let mut blocks = remote.map(|refusal| BlockNumber(refusal.block));
    blocks
        .any(|number| entries.get(&number).map(|l| &l.entry) != inner.entries.get(&number).map(|l| &l.entry))
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
