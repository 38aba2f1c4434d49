//! What a kept image is: the store treats labels as opaque bytes.

use crate::base::{BlockNumber, InfoHash, Locator, Malformed, Reader, Writer};
use crate::map::Root;
use crate::record::VersionRef;

/// The meaning of one kept image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    /// The working head: what is durable here, published or not.
    Head,
    /// A version that was published or adopted.
    Version {
        /// Its torrent and commit.
        reference: VersionRef,
        /// When it was published or adopted here, in seconds since 1970.
        time: u32,
    },
    /// Local edits of a block that a newer policy forbids.
    SetAside {
        /// The block.
        block: BlockNumber,
        /// The root of its map with the edits.
        root: Option<Root>,
        /// When it was set aside, in seconds since 1970.
        time: u32,
    },
    /// Local edits of any number of blocks that do not come in: a list in the image tells which.
    SetAsideList {
        /// The last list.
        list: Locator,
    },
    /// A version of which a part is here, and which nothing shows yet.
    Begun(InfoHash),
}

const HEAD: u8 = 0;
const VERSION: u8 = 1;
const SET_ASIDE: u8 = 2;
const SET_ASIDE_LIST: u8 = 3;
const BEGUN: u8 = 4;

impl Label {
    /// The label's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Label::Head => _ = writer.u8(HEAD),
            Label::Version { reference, time } => {
                writer.u8(VERSION).raw(&reference.infohash.0).locator(&reference.commit).u32(*time);
            }
            Label::SetAside { block, root, time } => {
                writer.u8(SET_ASIDE).u16(block.0).u32(*time);
                put_root(&mut writer, root.as_ref());
            }
            Label::SetAsideList { list } => _ = writer.u8(SET_ASIDE_LIST).locator(list),
            Label::Begun(infohash) => _ = writer.u8(BEGUN).raw(&infohash.0),
        }
        writer.0
    }

    /// Reads a label's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Label, Malformed> {
        let mut reader = Reader::new(bytes);
        let label = match reader.u8()? {
            HEAD => Label::Head,
            VERSION => {
                let infohash = InfoHash(reader.array()?);
                let reference = VersionRef { infohash, commit: reader.locator()? };
                Label::Version { reference, time: reader.u32()? }
            }
            SET_ASIDE => {
                let block = BlockNumber(reader.u16()?);
                let time = reader.u32()?;
                Label::SetAside { block, root: get_root(&mut reader)?, time }
            }
            SET_ASIDE_LIST => Label::SetAsideList { list: reader.locator()? },
            BEGUN => Label::Begun(InfoHash(reader.array()?)),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(label)
    }
}

/// Appends a root that may be absent: a flag, then level and locator.
pub fn put_root(writer: &mut Writer, root: Option<&Root>) {
    match root {
        None => _ = writer.u8(0),
        Some(root) => {
            let locator = Locator { place: root.place, id: root.id };
            writer.u8(1).u8(root.level).locator(&locator);
        }
    }
}

/// Reads what [`put_root`] wrote.
pub fn get_root(reader: &mut Reader) -> Result<Option<Root>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        1 => {
            let level = reader.u8()?;
            let locator = reader.locator()?;
            Ok(Some(Root { level, id: locator.id, place: locator.place }))
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Id, Place};

    #[test]
    fn labels_survive() {
        let place = Place { offset: 5 << 20, length: 77 };
        let commit = Locator { place, id: Id([3; 32]) };
        let reference = VersionRef { infohash: InfoHash([1; 20]), commit };
        let root = Some(Root { level: 2, id: Id([9; 32]), place });
        for label in [
            Label::Head,
            Label::Version { reference, time: 7 },
            Label::SetAside { block: BlockNumber(3), root, time: 8 },
            Label::SetAside { block: BlockNumber(3), root: None, time: 8 },
            Label::SetAsideList { list: commit },
            Label::Begun(InfoHash([4; 20])),
        ] {
            assert_eq!(Label::decode(&label.encode()), Ok(label));
        }
        assert_eq!(Label::decode(&[9]), Err(Malformed));
        assert_eq!(Label::decode(&[HEAD, 0]), Err(Malformed));
    }
}
