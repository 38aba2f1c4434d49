//! Reading: layers of changes on top of the map, for one inode at a time.

use super::attr::Attr;
use super::block::{Base, Shared};
use super::error::TreeError;
use super::inode::{FileType, InodeRecord, Timestamp};
use super::key::{self, Key};
use super::layer::{Layer, Node, Pointer, Slot};
use super::source::ImageSource;
use super::value::{self, DirEntry};
use crate::base::{BlockNumber, Inode};
use crate::crypt::SealKeys;
use crate::image::Draft;
use crate::map::{Cursor, Entry, Map, Root};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An inode without a name that is still open, and where its content is.
pub(super) struct Orphan {
    /// What was changed, with the record.
    pub(super) node: Node,
    /// Opens its chunks.
    pub(super) keys: SealKeys,
    /// The map that has the rest of it, in an image that stays.
    pub(super) below: Option<(Root, ImageSource)>,
}

/// A consistent state to read from.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The newest first.
    pub(super) layers: [Option<&'a Layer>; 2],
    pub(super) orphans: Option<&'a HashMap<Inode, Orphan>>,
    pub(super) base: &'a Base,
    /// Where chunks lie that were sealed since the last flush.
    pub(super) draft: Option<&'a Arc<Draft>>,
    /// Change times that are later than the records'.
    pub(super) restamped: Option<&'a HashMap<Inode, Timestamp>>,
    pub(super) shared: &'a Shared,
}

/// Where the sealed bytes of a chunk are read from.
#[derive(Clone)]
pub(super) enum Origin {
    Image(ImageSource),
    Draft(Arc<Draft>),
}

/// A chunk as it stands.
pub(super) enum Chunk {
    Hole,
    Dirty(Arc<Vec<u8>>),
    Sealed(Pointer, Origin),
}

/// All that is known of one inode: changes on top of changes on top of a map.
pub(super) struct Stack<'a> {
    pub(super) inode: Inode,
    pub(super) block: BlockNumber,
    pub(super) keys: &'a SealKeys,
    nodes: [Option<&'a Node>; 2],
    ground: Option<(Root, &'a ImageSource)>,
    view: View<'a>,
}

impl<'a> View<'a> {
    /// The block in which an inode lies.
    pub(super) fn block_of(&self, inode: Inode) -> Result<BlockNumber, TreeError> {
        if let Some(orphan) = self.orphans.and_then(|orphans| orphans.get(&inode)) {
            return Ok(orphan.node.block);
        }
        if let Some(node) = self.layers.iter().flatten().find_map(|layer| layer.get(&inode)) {
            return Ok(node.block);
        }
        if let Some(pin) = self.base.pins.at(inode) {
            return Ok(pin.block);
        }
        if self.base.blocks.len() == 1 && self.base.blocks.contains_key(&BlockNumber::ROOT) {
            return Ok(BlockNumber::ROOT);
        }
        if let Some(block) = self.shared.homes.get(inode) {
            return Ok(block);
        }
        for block in self.base.blocks.values() {
            let map = self.base.map(block, self.shared);
            let found = map.get(block.root.as_ref(), &Key::Inode(inode).encode());
            if found.map_err(|error| TreeError::in_block(block.number, error))?.is_some() {
                self.shared.homes.claim(inode, block.number)?;
                return Ok(block.number);
            }
        }
        Err(TreeError::NotFound)
    }

    /// All that is known of an inode.
    pub(super) fn stack(&self, inode: Inode) -> Result<Stack<'a>, TreeError> {
        if let Some(orphan) = self.orphans.and_then(|orphans| orphans.get(&inode)) {
            let ground = orphan.below.as_ref().map(|(root, source)| (*root, source));
            let (block, keys) = (orphan.node.block, &orphan.keys);
            return Ok(Stack { inode, block, keys, nodes: [Some(&orphan.node), None], ground, view: *self });
        }
        let block = self.base.block(self.block_of(inode)?)?;
        let mut nodes = [None, None];
        let mut grounded = true;
        for (slot, layer) in nodes.iter_mut().zip(self.layers) {
            let Some(node) = layer.and_then(|layer| layer.get(&inode)) else { continue };
            if node.removed {
                return Err(TreeError::NotFound);
            }
            *slot = Some(node);
            if node.fresh {
                grounded = false;
                break;
            }
        }
        let source = self.base.source_of(block.number);
        let ground = if grounded { block.root.map(|root| (root, source)) } else { None };
        Ok(Stack { inode, block: block.number, keys: &block.keys, nodes, ground, view: *self })
    }

    /// An inode's record.
    pub(super) fn record(&self, inode: Inode) -> Result<InodeRecord, TreeError> {
        if let Some(record) = self.base.pins.synthetic_record(inode) {
            return Ok(record);
        }
        self.stack(inode)?.record()
    }

    /// An inode's record, if it is a directory.
    pub(super) fn directory(&self, inode: Inode) -> Result<InodeRecord, TreeError> {
        let record = self.record(inode)?;
        if record.is_directory() { Ok(record) } else { Err(TreeError::NotDirectory) }
    }

    /// The attributes of an inode.
    pub(super) fn attr(&self, inode: Inode) -> Result<Attr, TreeError> {
        let record = self.record(inode)?;
        Ok(self.attr_of(inode, self.block_of(inode)?, &record))
    }

    /// The attributes that a record gives an inode of `block`.
    pub(super) fn attr_of(&self, inode: Inode, block: BlockNumber, record: &InodeRecord) -> Attr {
        let writable = self.base.block(block).is_ok_and(|block| block.writable);
        let mut attr = Attr::new(inode, record, writable);
        if let Some(later) = self.restamped.and_then(|restamped| restamped.get(&inode)) {
            attr.ctime = attr.ctime.max(*later);
        }
        attr
    }

    /// Refuses the root of a block whose key is not here, unless it is on the way to one that opens.
    pub(super) fn enter(&self, directory: Inode) -> Result<(), TreeError> {
        match self.base.pins.at(directory) {
            Some(pin) if pin.closed => Err(TreeError::Closed(pin.block)),
            _ => Ok(()),
        }
    }

    /// What a name leads to: first what is pinned there, then what the directory says.
    pub(super) fn child(&self, directory: Inode, name: &[u8]) -> Result<Option<DirEntry>, TreeError> {
        self.enter(directory)?;
        if let Some(pin) = self.base.pins.child(directory, name) {
            return Ok(Some(DirEntry { inode: pin.inode, file_type: FileType::Directory }));
        }
        if self.base.pins.at(directory).is_some_and(|pin| pin.synthetic) {
            return Ok(None);
        }
        let stack = self.stack(directory)?;
        let entry = stack.entry(name)?;
        if let Some(entry) = &entry {
            self.claim(entry.inode, stack.block)?;
        }
        Ok(entry)
    }

    /// Notes in which block an inode lies, where there is a choice.
    pub(super) fn claim(&self, inode: Inode, block: BlockNumber) -> Result<(), TreeError> {
        if self.base.blocks.len() > 1 { self.shared.homes.claim(inode, block) } else { Ok(()) }
    }

    /// What a name leads to, with its attributes.
    pub(super) fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Attr, TreeError> {
        if name.len() > key::NAME_BYTES_MAX {
            return Err(TreeError::NameTooLong);
        }
        match self.child(directory, name)? {
            Some(entry) => self.attr(entry.inode),
            None => Err(self.directory(directory).err().unwrap_or(TreeError::NotFound)),
        }
    }

    /// The directory in which an inode lies: exact for directories, a hint for files. The root lies in itself.
    pub(super) fn parent(&self, inode: Inode) -> Result<Inode, TreeError> {
        if let Some((above, _)) = self.base.pins.above(inode) {
            return Ok(above);
        }
        let record = self.record(inode)?;
        Ok(if record.parent.0 == 0 { inode } else { record.parent })
    }
}

impl<'a> Stack<'a> {
    fn map(&self) -> Option<(Root, Map<'a>)> {
        let (root, source) = self.ground?;
        Some((root, Map::new(self.keys, source, &self.view.shared.nodes)))
    }

    fn below(&self, key: Key<'_>) -> Result<Option<Entry>, TreeError> {
        let Some((root, map)) = self.map() else { return Ok(None) };
        map.get(Some(&root), &key.encode()).map_err(|error| TreeError::in_block(self.block, error))
    }

    /// A cursor over the map's keys from `from` on, if there is a map below.
    pub(super) fn cursor(&self, from: &[u8]) -> Option<Cursor<'a>> {
        self.map().map(|(root, map)| map.range(Some(&root), from))
    }

    fn nodes(&self) -> impl Iterator<Item = &'a Node> {
        self.nodes.into_iter().flatten()
    }

    /// The inode's record.
    pub(super) fn record(&self) -> Result<InodeRecord, TreeError> {
        if let Some(record) = self.nodes().find_map(|node| node.record.as_ref()) {
            return Ok(record.clone());
        }
        if let Some(entry) = self.below(Key::Inode(self.inode))? {
            return InodeRecord::decode(&entry.value).map_err(TreeError::malformed(self.block, self.inode));
        }
        if self.inode != self.block.root_inode() {
            return Err(TreeError::NotFound);
        }
        let owner = self.view.shared.owner;
        Ok(InodeRecord { uid: owner.uid, gid: owner.gid, ..InodeRecord::genesis() })
    }

    /// What the directory has under a name.
    pub(super) fn entry(&self, name: &[u8]) -> Result<Option<DirEntry>, TreeError> {
        if let Some(entry) = self.nodes().find_map(|node| node.names.get(name)) {
            return Ok(*entry);
        }
        if !key::is_legal_name(name) {
            return Ok(None);
        }
        let Some(entry) = self.below(Key::Entry(self.inode, name))? else { return Ok(None) };
        DirEntry::decode(&entry.value).map(Some).map_err(TreeError::malformed(self.block, self.inode))
    }

    /// Visits the directory's entries in no particular order, until the visitor says false.
    pub(super) fn each_entry(&self, mut visit: impl FnMut(&[u8], DirEntry) -> bool) -> Result<(), TreeError> {
        let mut changed: BTreeMap<&[u8], Option<DirEntry>> = BTreeMap::new();
        for node in self.nodes.into_iter().rev().flatten() {
            changed.extend(node.names.iter().map(|(name, entry)| (name.as_ref(), *entry)));
        }
        for (name, entry) in changed.iter().filter_map(|(name, entry)| Some((name, (*entry)?))) {
            if !visit(name, entry) {
                return Ok(());
            }
        }
        let Some(mut cursor) = self.cursor(&key::entries_start(self.inode)) else { return Ok(()) };
        while let Some(found) = cursor.next().map_err(|error| TreeError::in_block(self.block, error))? {
            let malformed = TreeError::malformed(self.block, self.inode);
            match Key::decode(&found.key).map_err(&malformed)? {
                Key::Entry(inode, name) if inode == self.inode => {
                    let entry = DirEntry::decode(&found.value).map_err(&malformed)?;
                    if !changed.contains_key(name) && !visit(name, entry) {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the directory has no entry.
    pub(super) fn is_empty(&self) -> Result<bool, TreeError> {
        let mut empty = true;
        self.each_entry(|_, _| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// One chunk of the file.
    pub(super) fn chunk(&self, index: u64) -> Result<Chunk, TreeError> {
        match self.nodes().find_map(|node| node.slot(index)) {
            Some(Slot::Hole) => Ok(Chunk::Hole),
            Some(Slot::Dirty(bytes)) => Ok(Chunk::Dirty(bytes)),
            Some(Slot::Sealed(pointer)) => match self.view.draft {
                Some(draft) => Ok(Chunk::Sealed(pointer, Origin::Draft(draft.clone()))),
                None => Err(TreeError::Absent(pointer.place)),
            },
            Some(Slot::Kept(pointer, image)) => {
                let source = ImageSource::new(&self.view.shared.store, &image);
                Ok(Chunk::Sealed(pointer, Origin::Image(source)))
            }
            None => match self.below(Key::Chunk(self.inode, index))? {
                Some(entry) => self.pointed(&entry),
                None => Ok(Chunk::Hole),
            },
        }
    }

    fn pointed(&self, entry: &Entry) -> Result<Chunk, TreeError> {
        let pointer =
            pointer_of(entry).ok_or(TreeError::Malformed { block: self.block, inode: self.inode })?;
        let (_, source) = self.ground.ok_or(TreeError::Absent(pointer.place))?;
        Ok(Chunk::Sealed(pointer, Origin::Image(source.clone())))
    }

    /// The first index from `from` on of a chunk that is not a hole.
    pub(super) fn next_chunk(&self, from: u64) -> Result<Option<u64>, TreeError> {
        let solid = |slot: &Slot| !matches!(slot, Slot::Hole);
        let mut nearest: Option<u64> = None;
        let mut cut = u64::MAX;
        for node in self.nodes() {
            // What an older layer has may be covered by a newer one.
            let shows = |(index, slot): &(&u64, &Slot)| solid(slot) && !self.is_hole_above(node, **index);
            let next = node.chunks.range(from..cut.max(from)).find(shows);
            nearest = nearest.into_iter().chain(next.map(|(index, _)| *index)).min();
            cut = cut.min(node.cut.unwrap_or(u64::MAX));
        }
        let Some(mut cursor) = self.cursor(&Key::Chunk(self.inode, from).encode()) else {
            return Ok(nearest);
        };
        while let Some(entry) = cursor.next().map_err(|error| TreeError::in_block(self.block, error))? {
            match Key::decode(&entry.key) {
                Ok(Key::Chunk(inode, index)) if inode == self.inode && index < nearest.unwrap_or(cut) => {
                    let covered = self.nodes().find_map(|node| node.slot(index));
                    if covered.as_ref().is_none_or(solid) {
                        return Ok(Some(index));
                    }
                }
                _ => break,
            }
        }
        Ok(nearest)
    }

    fn is_hole_above(&self, node: &Node, index: u64) -> bool {
        let newer = self.nodes().take_while(|other| !std::ptr::eq(*other, node));
        matches!(newer.filter_map(|other| other.slot(index)).next(), Some(Slot::Hole))
    }

    /// The value of an extended attribute.
    pub(super) fn xattr(&self, name: &[u8]) -> Result<Option<Box<[u8]>>, TreeError> {
        if let Some(value) = self.nodes().find_map(|node| node.xattrs.get(name)) {
            return Ok(value.clone());
        }
        Ok(self.below(Key::Xattr(self.inode, name))?.map(|entry| entry.value))
    }

    /// The names of all extended attributes, in order.
    pub(super) fn xattr_names(&self) -> Result<Vec<Vec<u8>>, TreeError> {
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        if let Some(mut cursor) = self.cursor(&key::xattrs_start(self.inode)) {
            while let Some(entry) = cursor.next().map_err(|error| TreeError::in_block(self.block, error))? {
                match Key::decode(&entry.key) {
                    Ok(Key::Xattr(inode, name)) if inode == self.inode => names.insert(name.to_vec(), true),
                    _ => break,
                };
            }
        }
        for node in self.nodes.into_iter().rev().flatten() {
            names.extend(node.xattrs.iter().map(|(name, value)| (name.to_vec(), value.is_some())));
        }
        Ok(names.into_iter().filter_map(|(name, there)| there.then_some(name)).collect())
    }

    /// The target of a symbolic link.
    pub(super) fn link_target(&self) -> Result<Vec<u8>, TreeError> {
        if let Some(target) = self.nodes().find_map(|node| node.link.as_ref()) {
            return Ok(target.to_vec());
        }
        let entry = self.below(Key::Link(self.inode))?;
        entry.map(|entry| entry.value.into_vec()).ok_or(TreeError::Invalid)
    }
}

/// The chunk that a map entry points to; `None` for what no device writes.
pub(super) fn pointer_of(entry: &Entry) -> Option<Pointer> {
    Some(Pointer { id: value::chunk_id(&entry.value).ok()?, place: entry.place? })
}
