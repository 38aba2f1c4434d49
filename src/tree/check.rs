//! The check of a whole block: every node and chunk opens, and what they say is a filesystem.

use super::inode::InodeRecord;
use super::key::Key;
use super::structure::{Flaw, Stopped, check_structure};
use super::value::chunk_id;
use super::version::Version;
use crate::base::{BlockNumber, Inode, Place};
use crate::map::{Descend, FetchError, MapError, Visit};

/// More findings than a person reads; the check goes on and counts.
const FINDINGS_MAX: usize = 1000;

/// Something that is wrong with a block.
#[derive(Debug)]
pub enum Finding {
    /// A node does not open; what lies behind it was not checked.
    Node(MapError),
    /// A chunk of a file does not open, or its bytes cannot be read.
    Chunk {
        /// The file.
        inode: Inode,
        /// The chunk's index.
        index: u64,
        /// Where it should lie.
        place: Place,
    },
    /// A chunk is not here yet: no damage.
    Absent {
        /// The file.
        inode: Inode,
        /// The chunk's index.
        index: u64,
    },
    /// What the block says is no filesystem.
    Flaw(Flaw),
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
}

impl Report {
    fn add(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Opens every node and, if `with_chunks`, every chunk of a block, and checks its structure. Nothing is changed.
pub fn check_block(block: BlockNumber, version: &Version<'_>, image_bytes: u64, with_chunks: bool) -> Report {
    let mut report = Report::default();
    // All of an inode lies together, its record first.
    let mut data_id = 0;
    let walked = version.map.walk(version.root.as_ref(), &mut |visit| {
        match visit {
            Visit::Node { place, .. } => {
                report.nodes += 1;
                report.bytes += u64::from(place.length);
            }
            Visit::Entry(entry) => match Key::decode(&entry.key) {
                Ok(Key::Inode(_)) => {
                    data_id = InodeRecord::decode(&entry.value).map_or(0, |record| record.data_id)
                }
                Ok(Key::Chunk(inode, index)) if with_chunks => {
                    if let (Some(place), Ok(id)) = (entry.place, chunk_id(&entry.value)) {
                        report.chunks += 1;
                        report.bytes += u64::from(place.length);
                        let sealed = version.source.fetch(place);
                        let opens = sealed
                            .as_ref()
                            .is_ok_and(|sealed| version.keys.open_chunk(data_id, index, &id, sealed).is_ok());
                        match sealed {
                            Err(FetchError::Absent(_)) => report.add(Finding::Absent { inode, index }),
                            _ if !opens => report.add(Finding::Chunk { inode, index, place }),
                            _ => {}
                        }
                    }
                }
                _ => {}
            },
        }
        Ok::<Descend, MapError>(Descend::Yes)
    });
    let judged = walked.map_err(Stopped::from).and_then(|()| {
        check_structure(block, None, version, image_bytes, &mut |flaw| {
            report.add(Finding::Flaw(flaw));
            Ok(())
        })
    });
    if let Err(Stopped::Map(error)) = judged {
        report.add(Finding::Node(error));
    }
    report
}
