//! The check of a whole block: every node and chunk opens, and what they say is a filesystem.

use super::inode::InodeRecord;
use super::key::Key;
use super::structure::{Flaw, Stopped, check_structure};
use super::value::chunk_id;
use super::version::Version;
use crate::base::{BlockNumber, Id, Inode, Place};
use crate::crypt::SealKeys;
use crate::map::{Fetch, FetchError, Map, MapError, Remains, Root};

/// More findings than a person reads; the check goes on and counts.
const FINDINGS_MAX: usize = 1000;

/// Something that is wrong with a block.
#[derive(Debug)]
pub enum Finding {
    /// A node does not open; what lies behind it cannot be checked.
    Node {
        /// Why, and where it lies.
        error: MapError,
        /// The node.
        at: Root,
        /// The first inode of which it may have held something.
        first: Inode,
        /// The last one; none where it is the last node, or the only one.
        last: Option<Inode>,
    },
    /// A node opens, but does not end where it must: no device of ours cuts a map so.
    Misshapen(Place),
    /// The structure could not be judged.
    Unjudged(MapError),
    /// A chunk of a file does not open, or its bytes cannot be read.
    Chunk {
        /// The file.
        inode: Inode,
        /// The chunk's index.
        index: u64,
        /// Where it should lie.
        place: Place,
        /// What it is sealed under.
        data_id: u64,
        /// Its id.
        id: Id,
    },
    /// What the block says is no filesystem.
    Flaw(Flaw),
}

/// A chunk that does not open.
#[derive(Clone, Copy, Debug)]
pub struct LostChunk {
    /// The file.
    pub inode: Inode,
    /// The chunk's index.
    pub index: u64,
    /// Where it should lie.
    pub place: Place,
    data_id: u64,
    id: Id,
}

impl Finding {
    /// The chunk that is damaged, if that is what was found.
    pub fn chunk(&self) -> Option<LostChunk> {
        match *self {
            Finding::Chunk { inode, index, place, data_id, id } => {
                Some(LostChunk { inode, index, place, data_id, id })
            }
            _ => None,
        }
    }
}

impl LostChunk {
    /// Its sealed bytes in another version of the block, if that has the same chunk.
    pub fn find_in(
        &self,
        map: &Map<'_>,
        root: &Root,
        source: &dyn Fetch,
        keys: &SealKeys,
    ) -> Option<Vec<u8>> {
        let entry = map.get(Some(root), &Key::Chunk(self.inode, self.index).encode()).ok()??;
        let place = entry.place.filter(|place| place.length == self.place.length)?;
        if chunk_id(&entry.value).ok()? != self.id {
            return None;
        }
        let sealed = source.fetch(place).ok()?;
        keys.open_chunk(self.data_id, self.index, &self.id, &sealed).ok().map(|_| sealed)
    }
}

/// What a check comes to.
#[derive(Debug, Default)]
pub struct Report {
    /// The first findings, in the order of keys.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub found: u64,
    /// Nodes that were opened.
    pub nodes: u64,
    /// Chunks that were opened.
    pub chunks: u64,
    /// Sealed bytes that were opened.
    pub bytes: u64,
    /// Chunks that are not here.
    pub absent: u64,
}

impl Report {
    fn add(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Opens every node and, if `with_chunks`, every chunk of a block, and checks its structure; what does not open is passed
/// over. Nothing is changed.
pub fn check_block(block: BlockNumber, version: &Version<'_>, image_bytes: u64, with_chunks: bool) -> Report {
    let mut report = Report::default();
    // All of an inode lies together, its record first.
    let (mut inode_known, mut data_id, mut whole) = (None, 0, true);
    version.map.remains(version.root.as_ref(), &mut |remains| match remains {
        Remains::Node(place) => {
            report.nodes += 1;
            report.bytes += u64::from(place.length);
        }
        Remains::Misshapen(place) => report.add(Finding::Misshapen(place)),
        Remains::Lost { error, at, after, last } => {
            whole = false;
            let last = last.map(inode_in);
            report.add(Finding::Node { error, at, first: inode_in(after), last });
        }
        Remains::Entry(entry) => match Key::decode(&entry.key) {
            Ok(Key::Inode(inode)) => {
                inode_known = Some(inode);
                data_id = InodeRecord::decode(&entry.value).map_or(0, |record| record.data_id)
            }
            Ok(Key::Chunk(inode, index)) if with_chunks => {
                if let (Some(place), Ok(id)) = (entry.place, chunk_id(&entry.value)) {
                    // Without its record a file's data goes by its number, unless it was copied.
                    let data_id = if inode_known == Some(inode) { data_id } else { inode.0 };
                    let sealed = version.source.fetch(place);
                    let opens = sealed
                        .as_ref()
                        .is_ok_and(|sealed| version.keys.open_chunk(data_id, index, &id, sealed).is_ok());
                    match sealed {
                        // That is no damage: whoever reads it fetches it.
                        Err(FetchError::Absent(_)) => report.absent += 1,
                        _ => {
                            report.chunks += 1;
                            report.bytes += u64::from(place.length);
                            if !opens {
                                report.add(Finding::Chunk { inode, index, place, data_id, id });
                            }
                        }
                    }
                }
            }
            _ => {}
        },
    });
    // Where nodes are lost, what hung on them would show as flaws of what is left.
    if whole {
        let judged = check_structure(block, None, version, image_bytes, &mut |flaw| {
            report.add(Finding::Flaw(flaw));
            Ok(())
        });
        if let Err(Stopped::Map(error)) = judged {
            report.add(Finding::Unjudged(error));
        }
    }
    report
}

/// The inode at the start of a key.
fn inode_in(key: &[u8]) -> Inode {
    key.first_chunk().map_or(Inode(0), |bytes| Inode(u64::from_be_bytes(*bytes)))
}
