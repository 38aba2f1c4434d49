//! Keys of a block's map: inode (u64, big-endian) ‖ kind (u8) ‖ sub, so that all of an inode lies together.

use crate::base::{Inode, Malformed};

/// Longest name of a directory entry or of an extended attribute, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// First bytes of every key: the inode, big-endian.
pub const INODE_PREFIX_BYTES: usize = 8;

const INODE: u8 = 1;
const ENTRY: u8 = 2;
const CHUNK: u8 = 3;
const XATTR: u8 = 4;
const LINK: u8 = 5;

/// A decoded key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key<'a> {
    /// The inode record.
    Inode(Inode),
    /// A directory's entry of this name.
    Entry(Inode, &'a [u8]),
    /// A file's chunk of this index.
    Chunk(Inode, u64),
    /// An extended attribute of this name.
    Xattr(Inode, &'a [u8]),
    /// A symbolic link's target.
    Link(Inode),
}

impl<'a> Key<'a> {
    /// The key as the map has it.
    pub fn encode(&self) -> Box<[u8]> {
        match *self {
            Key::Inode(inode) => join(inode, INODE, &[]),
            Key::Entry(inode, name) => join(inode, ENTRY, name),
            Key::Chunk(inode, index) => join(inode, CHUNK, &index.to_be_bytes()),
            Key::Xattr(inode, name) => join(inode, XATTR, name),
            Key::Link(inode) => join(inode, LINK, &[]),
        }
    }

    /// Takes a key of the map apart. Names that no device would write are refused.
    pub fn decode(bytes: &'a [u8]) -> Result<Key<'a>, Malformed> {
        let (inode, rest) = bytes.split_first_chunk::<INODE_PREFIX_BYTES>().ok_or(Malformed)?;
        let inode = Inode(u64::from_be_bytes(*inode));
        match rest.split_first().ok_or(Malformed)? {
            (&INODE, []) => Ok(Key::Inode(inode)),
            (&ENTRY, name) if is_legal_name(name) => Ok(Key::Entry(inode, name)),
            (&CHUNK, index) => {
                let index = <[u8; 8]>::try_from(index).map_err(|_| Malformed)?;
                Ok(Key::Chunk(inode, u64::from_be_bytes(index)))
            }
            (&XATTR, name) if is_legal_xattr_name(name) => Ok(Key::Xattr(inode, name)),
            (&LINK, []) => Ok(Key::Link(inode)),
            _ => Err(Malformed),
        }
    }

    /// Whose key it is.
    pub fn inode(&self) -> Inode {
        match *self {
            Key::Inode(inode)
            | Key::Entry(inode, _)
            | Key::Chunk(inode, _)
            | Key::Xattr(inode, _)
            | Key::Link(inode) => inode,
        }
    }
}

fn join(inode: Inode, kind: u8, sub: &[u8]) -> Box<[u8]> {
    let mut key = Vec::with_capacity(INODE_PREFIX_BYTES + 1 + sub.len());
    key.extend_from_slice(&inode.0.to_be_bytes());
    key.push(kind);
    key.extend_from_slice(sub);
    key.into_boxed_slice()
}

/// Below every key of `inode`: where a walk over all that belongs to it starts.
pub fn start_of(inode: Inode) -> Box<[u8]> {
    inode.0.to_be_bytes().into()
}

/// Below every directory entry of `inode`.
pub fn entries_start(inode: Inode) -> Box<[u8]> {
    join(inode, ENTRY, &[])
}

/// Below every extended attribute of `inode`.
pub fn xattrs_start(inode: Inode) -> Box<[u8]> {
    join(inode, XATTR, &[])
}

/// Whether a directory entry may have this name: 1 to 255 bytes, neither `.` nor `..`, no `/`, no NUL.
pub fn is_legal_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// Whether an extended attribute may have this name: 1 to 255 bytes without NUL.
pub fn is_legal_xattr_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_and_keep_their_order() {
        let (one, two) = (Inode(1), Inode(1 << 40));
        let keys = [
            Key::Inode(one),
            Key::Entry(one, b"a"),
            Key::Entry(one, b"ab"),
            Key::Chunk(one, 0),
            Key::Chunk(one, 256),
            Key::Xattr(one, b"user.x"),
            Key::Link(one),
            Key::Inode(two),
        ];
        for pair in keys.windows(2) {
            assert!(pair[0].encode() < pair[1].encode(), "{pair:?}");
        }
        for key in keys {
            assert_eq!(Key::decode(&key.encode()), Ok(key));
        }
    }

    #[test]
    fn what_no_device_writes_is_refused() {
        let with = |kind: u8, sub: &[u8]| join(Inode(7), kind, sub);
        let mut hostile = vec![
            Box::from(&b"short"[..]),
            start_of(Inode(7)),
            with(0, b""),
            with(6, b""),
            with(INODE, b"x"),
            with(LINK, b"x"),
            with(CHUNK, b"seven.."),
            with(XATTR, b""),
            with(XATTR, b"a\0b"),
            with(ENTRY, &[b'n'; 256]),
        ];
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            hostile.push(with(ENTRY, name));
        }
        for key in hostile {
            assert_eq!(Key::decode(&key), Err(Malformed), "{key:?}");
        }
    }
}
