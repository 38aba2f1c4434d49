//! A filesystem in a few maps, to compare with.

use super::super::RenameFlags;
use super::super::inode::FileType;
use std::collections::BTreeMap;

pub(super) type Number = usize;
pub(super) type Failure = &'static str;

#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) file_type: FileType,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) data: Vec<u8>,
    pub(super) names: BTreeMap<Vec<u8>, Number>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) parent: Number,
    pub(super) open: u32,
}

/// Things by number; 0 is the root. What has neither name nor handle is gone.
#[derive(Clone, Debug)]
pub(super) struct Model(pub(super) BTreeMap<Number, Thing>, Number);

impl Model {
    pub(super) fn new() -> Model {
        let mut model = Model(BTreeMap::new(), 0);
        model.0.insert(0, thing(FileType::Directory, 0o755, 0));
        model
    }

    pub(super) fn of_type(&self, file_type: FileType) -> Vec<Number> {
        self.0.iter().filter(|(_, thing)| thing.file_type == file_type).map(|(number, _)| *number).collect()
    }

    fn names(&self, directory: Number) -> Result<&BTreeMap<Vec<u8>, Number>, Failure> {
        let thing = self.0.get(&directory).ok_or("NotFound")?;
        if thing.file_type == FileType::Directory { Ok(&thing.names) } else { Err("NotDirectory") }
    }

    fn at(&mut self, number: Number) -> &mut Thing {
        self.0.get_mut(&number).unwrap()
    }

    fn is_dir(&self, number: Number) -> bool {
        self.0[&number].file_type == FileType::Directory
    }

    fn count_dir(&mut self, number: Number, parent: Number, by: i32) {
        if self.is_dir(number) {
            let nlink = self.at(parent).nlink;
            self.at(parent).nlink = nlink.saturating_add_signed(by);
        }
    }

    pub(super) fn make(
        &mut self,
        parent: Number,
        name: &[u8],
        file_type: FileType,
        mode: u16,
    ) -> Result<Number, Failure> {
        if name.len() > 255 {
            return Err("NameTooLong");
        }
        if self.names(parent)?.contains_key(name) {
            return Err("Exists");
        }
        self.1 += 1;
        let number = self.1;
        self.0.insert(number, thing(file_type, mode, parent));
        self.at(parent).names.insert(name.to_vec(), number);
        self.count_dir(number, parent, 1);
        Ok(number)
    }

    pub(super) fn link(&mut self, number: Number, parent: Number, name: &[u8]) -> Result<(), Failure> {
        if self.is_dir(number) {
            return Err("NotPermitted");
        }
        if self.0[&number].nlink == 0 {
            return Err("NotFound");
        }
        if self.names(parent)?.contains_key(name) {
            return Err("Exists");
        }
        self.at(number).nlink += 1;
        self.at(parent).names.insert(name.to_vec(), number);
        Ok(())
    }

    pub(super) fn remove(&mut self, parent: Number, name: &[u8], directory: bool) -> Result<(), Failure> {
        let number = *self.names(parent)?.get(name).ok_or("NotFound")?;
        match (directory, self.is_dir(number)) {
            (true, false) => return Err("NotDirectory"),
            (false, true) => return Err("IsDirectory"),
            (true, true) if !self.0[&number].names.is_empty() => return Err("NotEmpty"),
            _ => {}
        }
        self.at(parent).names.remove(name);
        self.count_dir(number, parent, -1);
        self.drop_name(number);
        Ok(())
    }

    fn drop_name(&mut self, number: Number) {
        let is_dir = self.is_dir(number);
        let thing = self.at(number);
        thing.nlink = if is_dir { 0 } else { thing.nlink - 1 };
        if thing.nlink == 0 && thing.open == 0 {
            self.0.remove(&number);
        }
    }

    pub(super) fn close(&mut self, number: Number) {
        let thing = self.at(number);
        thing.open -= 1;
        if thing.nlink == 0 && thing.open == 0 {
            self.0.remove(&number);
        }
    }

    fn is_below(&self, mut at: Number, above: Number) -> bool {
        loop {
            if at == above {
                return true;
            }
            if at == 0 {
                return false;
            }
            at = self.0[&at].parent;
        }
    }

    pub(super) fn rename(
        &mut self,
        (parent, name): (Number, &[u8]),
        (to_parent, to_name): (Number, &[u8]),
        flags: RenameFlags,
    ) -> Result<(), Failure> {
        let from = *self.names(parent)?.get(name).ok_or("NotFound")?;
        let to = self.names(to_parent)?.get(to_name).copied();
        match (to, flags) {
            (Some(_), RenameFlags::NoReplace) => return Err("Exists"),
            (None, RenameFlags::Exchange) => return Err("NotFound"),
            (Some(to), _) if to == from => return Ok(()),
            _ => {}
        }
        if self.is_dir(from) && self.is_below(to_parent, from) {
            return Err("Invalid");
        }
        if let (Some(to), RenameFlags::Exchange) = (to, flags) {
            if self.is_dir(to) && self.is_below(parent, to) {
                return Err("Invalid");
            }
            self.place(from, parent, to_parent, to_name);
            self.place(to, to_parent, parent, name);
            return Ok(());
        }
        if let Some(to) = to {
            match (self.is_dir(from), self.is_dir(to)) {
                (true, false) => return Err("NotDirectory"),
                (false, true) => return Err("IsDirectory"),
                (true, true) if !self.0[&to].names.is_empty() => return Err("NotEmpty"),
                _ => {}
            }
            self.count_dir(to, to_parent, -1);
            self.at(to_parent).names.remove(to_name);
            self.drop_name(to);
        }
        self.at(parent).names.remove(name);
        self.place(from, parent, to_parent, to_name);
        Ok(())
    }

    fn place(&mut self, number: Number, old: Number, parent: Number, name: &[u8]) {
        self.count_dir(number, old, -1);
        self.count_dir(number, parent, 1);
        self.at(parent).names.insert(name.to_vec(), number);
        self.at(number).parent = parent;
    }

    pub(super) fn write(&mut self, number: Number, offset: usize, bytes: &[u8]) {
        let data = &mut self.at(number).data;
        if data.len() < offset + bytes.len() {
            data.resize(offset + bytes.len(), 0);
        }
        data[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn zero(&mut self, number: Number, offset: usize, bytes: usize, grow: bool) {
        let data = &mut self.at(number).data;
        if grow && data.len() < offset + bytes {
            data.resize(offset + bytes, 0);
        }
        let end = (offset + bytes).min(data.len());
        data[offset.min(end)..end].fill(0);
    }
}

fn thing(file_type: FileType, mode: u16, parent: Number) -> Thing {
    Thing {
        file_type,
        mode,
        nlink: if file_type == FileType::Directory { 2 } else { 1 },
        data: Vec::new(),
        names: BTreeMap::new(),
        xattrs: BTreeMap::new(),
        parent,
        open: 0,
    }
}
