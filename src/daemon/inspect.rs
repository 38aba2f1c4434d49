//! Opens every object that the keys open: what `kilofs fsck` reports beyond the store's own structures.

use super::answers::{CheckFinding, Checked, REFUSED};
use super::aside::SetAside;
use super::core::{Core, Listed, now_timestamp};
use super::error::EngineError;
use super::versions::Version as KeptVersion;
use crate::base::{BlockNumber, Inode, PieceHashes, PieceIndex};
use crate::crypt::BlobKind;
use crate::image::{Counters, Image, StoreError, hash_piece, hash_pieces};
use crate::map::{Map, NodeCache, Root};
use crate::record::{BlockCharter, Charter};
use crate::tree::ImageSource;
use crate::tree::check::{Finding, check_block};
use crate::tree::repair::{Measure, Repair};
use crate::tree::veil::look_inside;
use crate::tree::version::Version;
use std::collections::BTreeMap;
use std::sync::Arc;

/// For the maps of private blocks, each checked alone.
const NODES_CACHE_BYTES: usize = 4 << 20;
/// What findings in the newest state go by.
pub(super) const HEAD: &str = "the working head";

/// Checks the working head, every kept version and all that is set aside, and says what a repair would do with what nobody has any more.
pub fn inspect(core: &Core, checked: &mut Checked) {
    if let Err(error) = core.persist() {
        let what = format!("what was changed last cannot be written down: {error}");
        checked.findings.push(CheckFinding { block: None, subject: HEAD.into(), what });
    }
    let inner = core.inner();
    let (image, roots) = (inner.image.clone(), inner.state.roots.clone());
    let versions: Vec<_> = inner.versions.iter().cloned().collect();
    let (charter, set_aside) = (inner.state.charter.clone(), inner.set_aside.clone());
    drop(inner);
    checked.closed = core.closed_blocks(&charter).iter().map(|block| block.0).collect();
    blocks(core, HEAD, (&image, &charter), &roots, checked);
    for (name, aside) in SetAside::names(&set_aside).iter().zip(&set_aside) {
        // The block may be gone since, or its number be another's.
        let charter = aside.charter().unwrap_or(&charter);
        let roots = BTreeMap::from([(aside.block, aside.root)]);
        blocks(core, &format!("{REFUSED}{name}"), (&aside.image, charter), &roots, checked);
    }
    for version in versions {
        let found = inspect_kept(core, &version);
        checked.objects += found.objects;
        checked.bytes += found.bytes;
        checked.findings.extend(found.findings);
    }
}

/// Checks one kept version.
pub(super) fn inspect_kept(core: &Core, version: &KeptVersion) -> Checked {
    let mut found = Checked::default();
    let closed = core.closed_blocks(&core.inner().state.charter);
    if core.tree.is_some() {
        kept(core, version, &mut found);
    }
    // What cannot be opened is held against its hashes.
    if core.tree.is_none() || !closed.is_empty() {
        hashed(core, version, &mut found);
    }
    // Somebody may have published what does not open; it was refused, and is kept only as it came.
    if !found.findings.is_empty() && core.tree.is_some() && as_published(core, version) {
        found.findings.clear();
    }
    found
}

/// Without keys only the pieces can be held against what they should be.
fn hashed(core: &Core, version: &KeptVersion, checked: &mut Checked) {
    let subject = format!("version {}", version.reference.infohash);
    checked.bytes += version.image.filled_bytes();
    match core.hashes_of(version).and_then(|known| damaged_pieces(core, &version.image, &known)) {
        Ok(bad) if bad.is_empty() => {}
        Ok(bad) => {
            let what = format!("{} pieces are not what they should be", bad.len());
            checked.findings.push(CheckFinding { block: None, subject, what });
        }
        Err(error) => checked.findings.push(CheckFinding { block: None, subject, what: error.to_string() }),
    }
}

/// The pieces of an image that have not got their hash.
pub(super) fn damaged_pieces(
    core: &Core,
    image: &Image,
    known: &PieceHashes,
) -> Result<Vec<PieceIndex>, EngineError> {
    let now = hashes_now(core, image, known)?;
    let pairs = now.hashes.iter().zip(&known.hashes).enumerate();
    Ok(pairs.filter(|(_, (now, known))| now != known).map(|(index, _)| PieceIndex(index as u32)).collect())
}

/// The hashes of an image's pieces as the disk has them; those that are not here are taken to be what is known.
pub(super) fn hashes_now(
    core: &Core,
    image: &Image,
    known: &PieceHashes,
) -> Result<PieceHashes, EngineError> {
    if core.store.is_whole(image) {
        return Ok(hash_pieces(&core.store, image, known.length, None, &Counters::default())?);
    }
    let mut now = known.clone();
    let mut bytes = Vec::new();
    for (index, _) in core.store.have(image, known.length).iter().enumerate().filter(|(_, here)| **here) {
        let piece = PieceIndex(index as u32);
        bytes.resize(known.bytes_of(piece) as usize, 0);
        match core.store.read(image, known.length.start_of(piece), &mut bytes) {
            // It has just been given up.
            Err(StoreError::NotHere { .. }) => continue,
            read => read?,
        }
        if let Some(hash) = now.hashes.get_mut(index) {
            *hash = hash_piece(&bytes);
        }
    }
    Ok(now)
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
            blocks(core, &what, (&version.image, &charter), &roots, checked);
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
    core.hashes_of(version)
        .and_then(|known| damaged_pieces(core, &version.image, &known))
        .is_ok_and(|bad| bad.is_empty())
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
    (image, charter): (&Image, &Charter),
    roots: &BTreeMap<BlockNumber, Option<Root>>,
    checked: &mut Checked,
) {
    for (number, root) in roots {
        let Some(block) = charter.blocks.get(number) else { continue };
        let Some(keys) = core.keys.block(*number, block) else { continue };
        let source = ImageSource::new(&core.store, image);
        let map = Map::new(&keys, &source, core.tree_nodes());
        let version = Version { map: &map, root: *root, keys: &keys, source: &source };
        let report = check_block(*number, &version, image.bytes(), true);
        checked.objects += report.nodes + report.chunks;
        checked.bytes += report.bytes;
        checked.absent += report.absent;
        if report.found == 0 {
            inside(core, what, (*number, block), (&version, &source), checked);
            continue;
        }
        let repair = Repair::plan(*number, &version, now_timestamp());
        let path = |inode| repair.path_of(inode).map(|path| in_tree(&block.path, &path));
        let finding = |what: String| CheckFinding { block: Some(number.0), subject: String::new(), what };
        for found in &report.findings {
            checked.findings.push(CheckFinding { subject: what.into(), ..finding(described(found, &path)) });
        }
        let more = report.found - report.findings.len() as u64;
        if more > 0 {
            let told = format!("{more} more of the kind");
            checked.findings.push(CheckFinding { subject: what.into(), ..finding(told) });
        }
        if what == HEAD {
            checked.planned.extend(measures(*number, &block.path, &repair.measures));
        }
    }
}

/// Checks what is inside a private block, where it can be opened here.
fn inside(
    core: &Core,
    what: &str,
    (number, block): (BlockNumber, &BlockCharter),
    (seen, source): (&Version<'_>, &ImageSource),
    checked: &mut Checked,
) {
    let Some(inner) = core.keys.private(number, block).filter(|_| seen.root.is_some()) else { return };
    let finding = |what: String| CheckFinding { block: Some(number.0), subject: String::new(), what };
    let nodes = Arc::new(NodeCache::new(NODES_CACHE_BYTES));
    let report = match look_inside(number, (seen.keys, seen.root), &inner, source, &nodes) {
        Ok(inside) => {
            let map = Map::new(&inner, &inside.source, &nodes);
            let version = Version { map: &map, root: inside.root, keys: &inner, source: &inside.source };
            check_block(number, &version, inside.bytes, true)
        }
        Err(error) => {
            let told = format!("what is inside does not open: {error}");
            return checked.findings.push(CheckFinding { subject: what.into(), ..finding(told) });
        }
    };
    checked.objects += report.nodes + report.chunks;
    let named = |found: &Finding| format!("inside, {}", described(found, &|_| None));
    let found = report.findings.iter().map(|found| finding(named(found)));
    checked.findings.extend(found.map(|finding| CheckFinding { subject: what.into(), ..finding }));
}

/// What a repair does, in the words of an answer.
pub(super) fn measures<'m>(
    number: BlockNumber,
    at: &'m [u8],
    measures: &'m [Measure],
) -> impl Iterator<Item = CheckFinding> + 'm {
    measures.iter().map(move |measure| CheckFinding {
        block: Some(number.0),
        subject: in_tree(at, &measure.path),
        what: measure.what.clone(),
    })
}

/// A path of a block as it is from the database's root.
fn in_tree(block: &[u8], path: &[u8]) -> String {
    let inside = path.starts_with(b"/");
    let at = if inside && !block.is_empty() { [b"/", block].concat() } else { Vec::new() };
    String::from_utf8_lossy(&[&at[..], path].concat()).into_owned()
}

fn described(finding: &Finding, path: &dyn Fn(Inode) -> Option<String>) -> String {
    let named = |inode: Inode| path(inode).unwrap_or_else(|| format!("inode {inode}"));
    match finding {
        Finding::Node { error, at, first, last } => {
            let whose = match last {
                Some(last) if first == last => format!("of {}", named(*last)),
                Some(last) => format!("from {} to {}", named(*first), named(*last)),
                None => format!("from {} on", named(*first)),
            };
            format!("{error} (level {}): what it holds {whose} is not to be had", at.level)
        }
        Finding::Misshapen(place) => format!("the map around the node at {} is cut wrongly", place.offset),
        Finding::Unjudged(error) => format!("it cannot be judged: {error}"),
        Finding::Chunk { inode, index, place, .. } => {
            format!(
                "{}: chunk {index}, at {} (+{}), does not open",
                named(*inode),
                place.offset,
                place.length
            )
        }
        Finding::Flaw(flaw) => format!("{}: {}", named(flaw.inode), flaw.defect),
    }
}
