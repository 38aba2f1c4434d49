//! Extended attributes.

use super::attr::SetXattr;
use super::error::TreeError;
use super::inode::Timestamp;
use super::intent::Intent;
use super::key;
use super::live::Tree;
use super::state::State;
use super::value::XATTR_VALUE_BYTES_MAX;
use crate::base::Inode;

impl Tree {
    /// Sets an extended attribute.
    pub fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], how: SetXattr) -> Result<(), TreeError> {
        if !key::is_legal_xattr_name(name) {
            return Err(TreeError::Invalid);
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(TreeError::ValueTooLarge);
        }
        let mut state = self.bench.state.write();
        let there = state.view(&self.bench.shared).stack(inode)?.xattr(name)?.is_some();
        match (how, there) {
            (SetXattr::Create, true) => Err(TreeError::Exists),
            (SetXattr::Replace, false) => Err(TreeError::NoData),
            _ => self.put_xattr(&mut state, inode, name, Some(value), self.now()),
        }
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), TreeError> {
        let mut state = self.bench.state.write();
        if state.view(&self.bench.shared).get_xattr(inode, name).is_err() {
            return Err(TreeError::NoData);
        }
        self.put_xattr(&mut state, inode, name, None, self.now())
    }

    pub(super) fn put_xattr(
        &self,
        state: &mut State,
        inode: Inode,
        name: &[u8],
        value: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<(), TreeError> {
        let view = state.view(&self.bench.shared);
        let (mut record, block) = (view.record(inode)?, view.block_of(inode)?);
        state.check_changeable(inode, block)?;
        if state.base.pins.at(inode).is_some_and(|pin| pin.synthetic) {
            return Err(TreeError::ReadOnlyBlock(block));
        }
        state.node_mut(inode, block).xattrs.insert(name.into(), value.map(Into::into));
        record.ctime = now;
        state.put_record(inode, block, record);
        state.note(inode, now, &Intent::SetXattr { inode, name, value });
        Ok(())
    }
}

impl super::view::View<'_> {
    /// The value of an extended attribute.
    pub(super) fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        self.record(inode)?;
        if !key::is_legal_xattr_name(name) || self.base.pins.at(inode).is_some_and(|pin| pin.synthetic) {
            return Err(TreeError::NoData);
        }
        self.stack(inode)?.xattr(name)?.map(Into::into).ok_or(TreeError::NoData)
    }

    /// The names of all extended attributes.
    pub(super) fn list_xattr(&self, inode: Inode) -> Result<Vec<Vec<u8>>, TreeError> {
        self.record(inode)?;
        if self.base.pins.at(inode).is_some_and(|pin| pin.synthetic) {
            return Ok(Vec::new());
        }
        self.stack(inode)?.xattr_names()
    }
}
