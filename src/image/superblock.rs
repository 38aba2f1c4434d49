//! The two superblocks: 4 KiB each, written alternately, checksummed.

use super::slots::RunRef;
use crate::base::{DatabaseId, Reader, Writer};

/// Bytes of one superblock.
pub(super) const SUPERBLOCK_BYTES: usize = 4096;
/// Where the two lie: far apart, so that one bad spot of the disk does not take both.
pub(super) const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 512 << 10];
/// The format of superblock, manifest and tables of a store that has all its bytes.
pub(super) const STORE_FORMAT_WHOLE: u32 = 2;
/// The format of one that lacks some: its manifest says which. Older programs would read zeros there.
pub(super) const STORE_FORMAT_PARTIAL: u32 = 3;

const MAGIC: &[u8; 8] = b"kilofsdb";
const CHECKSUM_BYTES: usize = 32;
const BODY_BYTES: usize = SUPERBLOCK_BYTES - CHECKSUM_BYTES;

/// The root of everything in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Superblock {
    /// Whether the manifest lists absent bytes.
    pub(super) partial: bool,
    /// Grows by one with each commit; the higher of the two is current.
    pub(super) generation: u64,
    /// Whose store it is.
    pub(super) database: DatabaseId,
    /// Where the manifest lies.
    pub(super) manifest: RunRef,
}

/// Why 4 KiB are not a superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadSuperblock {
    #[error("it does not begin like one")]
    Magic,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its format is {0}")]
    Format(u32),
    #[error("it holds what no encoder writes")]
    Malformed,
}

impl Superblock {
    /// Its bytes: magic 8, format 4, generation 8, database 32, manifest (page 4, bytes 4, hash 32), zeros,
    /// BLAKE3 32.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let format = if self.partial { STORE_FORMAT_PARTIAL } else { STORE_FORMAT_WHOLE };
        writer.raw(MAGIC).u32(format).u64(self.generation).raw(self.database.as_bytes());
        write_run(&mut writer, Some(self.manifest));
        let mut bytes = writer.0;
        bytes.resize(BODY_BYTES, 0);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// Parses what [`Superblock::encode`] writes and nothing else.
    pub(super) fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Superblock, BadSuperblock> {
        let (body, checksum) = bytes.split_at(BODY_BYTES);
        if !body.starts_with(MAGIC) {
            return Err(BadSuperblock::Magic);
        }
        if blake3::hash(body).as_bytes() != checksum {
            return Err(BadSuperblock::Checksum);
        }
        let mut reader = Reader::new(&body[MAGIC.len()..]);
        let mut parse = || {
            let format = reader.u32()?;
            let generation = reader.u64()?;
            let database = DatabaseId(reader.array()?);
            Ok((format, generation, database, read_run(&mut reader)?))
        };
        let (format, generation, database, manifest) =
            parse().map_err(|_: crate::base::Malformed| BadSuperblock::Malformed)?;
        let partial = match format {
            STORE_FORMAT_WHOLE => false,
            STORE_FORMAT_PARTIAL => true,
            other => return Err(BadSuperblock::Format(other)),
        };
        let manifest = manifest.ok_or(BadSuperblock::Malformed)?;
        let superblock = Superblock { partial, generation, database, manifest };
        if superblock.encode() == bytes { Ok(superblock) } else { Err(BadSuperblock::Malformed) }
    }
}

/// Writes where a run lies; all zeros stand for none.
pub(super) fn write_run(writer: &mut Writer, run: Option<RunRef>) -> &mut Writer {
    let run = run.unwrap_or(RunRef { page: 0, bytes: 0, hash: [0; 32] });
    writer.u32(run.page).u32(run.bytes).raw(&run.hash)
}

/// Reads what [`write_run`] writes.
pub(super) fn read_run(reader: &mut Reader<'_>) -> Result<Option<RunRef>, crate::base::Malformed> {
    let run = RunRef { page: reader.u32()?, bytes: reader.u32()?, hash: reader.array()? };
    if run.page == 0 || run.bytes == 0 {
        return if run == (RunRef { page: 0, bytes: 0, hash: [0; 32] }) {
            Ok(None)
        } else {
            Err(crate::base::Malformed)
        };
    }
    Ok(Some(run))
}
