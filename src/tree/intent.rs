//! What a change of the tree was asked to do, in a form that can be kept and done again: the entries of the intent log.

use super::attr::{Allocate, Owner, RenameFlags, SetAttr, SetTime};
use super::inode::{FileType, Timestamp};
use crate::base::{Inode, Malformed, Reader, Writer};

/// Longest name, value or run of data that is read back, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// How something new begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Birth<'a> {
    pub(super) file_type: FileType,
    pub(super) mode: u16,
    pub(super) owner: Owner,
    /// Number of a device.
    pub(super) rdev: u32,
    /// What a symbolic link says.
    pub(super) target: &'a [u8],
}

/// One change that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intent<'a> {
    Make { parent: Inode, name: &'a [u8], inode: Inode, birth: Birth<'a> },
    Link { inode: Inode, parent: Inode, name: &'a [u8] },
    Remove { parent: Inode, name: &'a [u8], directory: bool },
    Rename { from: (Inode, &'a [u8]), to: (Inode, &'a [u8]), flags: RenameFlags },
    Write { inode: Inode, offset: u64, data: &'a [u8] },
    Allocate { inode: Inode, how: Allocate, offset: u64, bytes: u64 },
    SetAttr { inode: Inode, set: SetAttr },
    SetXattr { inode: Inode, name: &'a [u8], value: Option<&'a [u8]> },
    Strip { inode: Inode },
}

impl<'a> Intent<'a> {
    /// Bytes of names, values and data: what the encoding has besides some dozen bytes.
    pub(super) fn payload(&self) -> usize {
        match self {
            Intent::Make { name, birth, .. } => name.len() + birth.target.len(),
            Intent::Link { name, .. } | Intent::Remove { name, .. } => name.len(),
            Intent::Rename { from, to, .. } => from.1.len() + to.1.len(),
            Intent::Write { data, .. } => data.len(),
            Intent::SetXattr { name, value, .. } => name.len() + value.map_or(0, <[u8]>::len),
            Intent::Allocate { .. } | Intent::SetAttr { .. } | Intent::Strip { .. } => 0,
        }
    }

    /// Kind 1, time 12, then the fields.
    pub(super) fn encode(&self, at: Timestamp, writer: &mut Writer) {
        let head = |writer: &mut Writer, kind: u8, inode: Inode| {
            put_time(writer.u8(kind), at);
            writer.u64(inode.0);
        };
        match *self {
            Intent::Make { parent, name, inode, birth } => {
                head(writer, 1, parent);
                writer.bytes(name).u64(inode.0).u8(birth.file_type.code()).u16(birth.mode);
                writer.u32(birth.owner.uid).u32(birth.owner.gid).u32(birth.rdev).bytes(birth.target);
            }
            Intent::Link { inode, parent, name } => {
                head(writer, 2, inode);
                writer.u64(parent.0).bytes(name);
            }
            Intent::Remove { parent, name, directory } => {
                head(writer, 3, parent);
                writer.bytes(name).u8(u8::from(directory));
            }
            Intent::Rename { from, to, flags } => {
                head(writer, 4, from.0);
                writer.bytes(from.1).u64(to.0.0).bytes(to.1).u8(flags as u8);
            }
            Intent::Write { inode, offset, data } => {
                head(writer, 5, inode);
                writer.varint(offset).bytes(data);
            }
            Intent::Allocate { inode, how, offset, bytes } => {
                head(writer, 6, inode);
                writer.u8(how as u8).varint(offset).varint(bytes);
            }
            Intent::SetAttr { inode, set } => {
                head(writer, 7, inode);
                put_attr(writer, &set, at);
            }
            Intent::SetXattr { inode, name, value } => {
                head(writer, 8, inode);
                writer.bytes(name).u8(u8::from(value.is_some())).bytes(value.unwrap_or_default());
            }
            Intent::Strip { inode } => head(writer, 9, inode),
        }
    }

    /// Reads what [`Intent::encode`] writes.
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<(Timestamp, Intent<'a>), Malformed> {
        let kind = reader.u8()?;
        let at = get_time(reader)?;
        let inode = Inode(reader.u64()?);
        let intent = match kind {
            1 => Intent::Make {
                parent: inode,
                name: reader.bytes(BYTES_MAX)?,
                inode: Inode(reader.u64()?),
                birth: Birth {
                    file_type: FileType::from_code(reader.u8()?).ok_or(Malformed)?,
                    mode: reader.u16()?,
                    owner: Owner { uid: reader.u32()?, gid: reader.u32()? },
                    rdev: reader.u32()?,
                    target: reader.bytes(BYTES_MAX)?,
                },
            },
            2 => Intent::Link { inode, parent: Inode(reader.u64()?), name: reader.bytes(BYTES_MAX)? },
            3 => Intent::Remove { parent: inode, name: reader.bytes(BYTES_MAX)?, directory: flag(reader)? },
            4 => Intent::Rename {
                from: (inode, reader.bytes(BYTES_MAX)?),
                to: (Inode(reader.u64()?), reader.bytes(BYTES_MAX)?),
                flags: one_of(
                    reader,
                    &[RenameFlags::Replace, RenameFlags::NoReplace, RenameFlags::Exchange],
                )?,
            },
            5 => Intent::Write { inode, offset: reader.varint()?, data: reader.bytes(BYTES_MAX)? },
            6 => {
                use Allocate::*;
                let how = one_of(reader, &[Extend, KeepSize, PunchHole, ZeroRange, ZeroRangeKeepSize])?;
                Intent::Allocate { inode, how, offset: reader.varint()?, bytes: reader.varint()? }
            }
            7 => Intent::SetAttr { inode, set: get_attr(reader)? },
            8 => {
                let (name, is_set) = (reader.bytes(BYTES_MAX)?, flag(reader)?);
                let value = reader.bytes(BYTES_MAX)?;
                Intent::SetXattr { inode, name, value: is_set.then_some(value) }
            }
            9 => Intent::Strip { inode },
            _ => return Err(Malformed),
        };
        Ok((at, intent))
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    one_of(reader, &[false, true])
}

fn one_of<T: Copy>(reader: &mut Reader<'_>, all: &[T]) -> Result<T, Malformed> {
    all.get(usize::from(reader.u8()?)).copied().ok_or(Malformed)
}

fn put_time(writer: &mut Writer, time: Timestamp) {
    writer.u64(time.seconds as u64).u32(time.nanos);
}

fn get_time(reader: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    Ok(Timestamp { seconds: reader.u64()? as i64, nanos: reader.u32()? })
}

/// A bit for each field that is set, then these; "now" becomes the time of the change.
fn put_attr(writer: &mut Writer, set: &SetAttr, now: Timestamp) {
    let SetAttr { mode, uid, gid, size, atime, mtime } = set;
    let present =
        [mode.is_some(), uid.is_some(), gid.is_some(), size.is_some(), atime.is_some(), mtime.is_some()];
    writer.u8((0..).zip(present).map(|(bit, present)| u8::from(present) << bit).sum());
    mode.iter().for_each(|mode| _ = writer.u16(*mode));
    uid.iter().chain(gid).for_each(|id| _ = writer.u32(*id));
    size.iter().for_each(|size| _ = writer.varint(*size));
    for time in atime.iter().chain(mtime) {
        match time {
            SetTime::Now => put_time(writer, now),
            SetTime::At(time) => put_time(writer, *time),
        }
    }
}

fn get_attr(reader: &mut Reader<'_>) -> Result<SetAttr, Malformed> {
    let present = reader.u8()?;
    if present >> 6 != 0 {
        return Err(Malformed);
    }
    let has = |bit: u8| present >> bit & 1 == 1;
    let mut set = SetAttr::default();
    if has(0) {
        set.mode = Some(reader.u16()?);
    }
    if has(1) {
        set.uid = Some(reader.u32()?);
    }
    if has(2) {
        set.gid = Some(reader.u32()?);
    }
    if has(3) {
        set.size = Some(reader.varint()?);
    }
    if has(4) {
        set.atime = Some(SetTime::At(get_time(reader)?));
    }
    if has(5) {
        set.mtime = Some(SetTime::At(get_time(reader)?));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_reads_back_and_no_cut_does() {
        let at = Timestamp { seconds: -5, nanos: 999_999_999 };
        let owner = Owner { uid: 1, gid: u32::MAX };
        let birth =
            Birth { file_type: FileType::Symlink, mode: 0o7777, owner, rdev: 9, target: b"over/there" };
        let set = SetAttr {
            mode: Some(0o600),
            uid: None,
            gid: Some(3),
            size: Some(1 << 40),
            atime: None,
            mtime: Some(SetTime::At(at)),
        };
        let all = [
            Intent::Make { parent: Inode(1), name: b"a", inode: Inode(7 << 32), birth },
            Intent::Link { inode: Inode(2), parent: Inode(1), name: b"b" },
            Intent::Remove { parent: Inode(1), name: b"b", directory: true },
            Intent::Rename {
                from: (Inode(1), b"a"),
                to: (Inode(3), b"\xff\xfe"),
                flags: RenameFlags::Exchange,
            },
            Intent::Write { inode: Inode(2), offset: u64::MAX >> 1, data: &[7; 300] },
            Intent::Allocate { inode: Inode(2), how: Allocate::ZeroRangeKeepSize, offset: 0, bytes: 1 },
            Intent::SetAttr { inode: Inode(2), set },
            Intent::SetXattr { inode: Inode(2), name: b"user.x", value: Some(b"") },
            Intent::SetXattr { inode: Inode(2), name: b"user.x", value: None },
            Intent::Strip { inode: Inode(2) },
        ];
        for intent in all {
            let mut writer = Writer::new();
            intent.encode(at, &mut writer);
            let mut reader = Reader::new(&writer.0);
            assert_eq!(Intent::decode(&mut reader), Ok((at, intent)));
            assert_eq!(reader.remaining(), 0);
            for cut in 0..writer.0.len() {
                assert_eq!(
                    Intent::decode(&mut Reader::new(&writer.0[..cut])),
                    Err(Malformed),
                    "{intent:?} cut at {cut}"
                );
            }
        }
        let mut writer = Writer::new();
        let now = SetAttr { atime: Some(SetTime::Now), ..SetAttr::default() };
        Intent::SetAttr { inode: Inode(1), set: now }.encode(at, &mut writer);
        let (_, told) = Intent::decode(&mut Reader::new(&writer.0)).unwrap();
        let then = SetAttr { atime: Some(SetTime::At(at)), ..SetAttr::default() };
        assert_eq!(told, Intent::SetAttr { inode: Inode(1), set: then }, "now is when it was done");
    }
}
