//! Answers to the kernel, in the shapes that several requests share.

use super::attr::{nothing, to_kernel};
use super::errno::{Refusal, errno};
use super::owners::Owners;
use super::shared::Found;
use crate::tree::Attr;
use fuser::{Errno, Generation, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyXattr};
use std::time::Duration;

/// Inode numbers are never used twice, so that all inodes are of one generation.
pub(super) const GENERATION: Generation = Generation(0);

/// What a name leads to.
pub(super) fn entry(reply: ReplyEntry, owners: &Owners, result: Result<Found, Refusal>) {
    match result {
        Ok(Found { attr: Some(attr), lasting }) => {
            reply.entry(&lasting, &to_kernel(&owners.shown(attr)), GENERATION);
        }
        Ok(Found { attr: None, lasting }) => reply.entry(&lasting, &nothing(), GENERATION),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

/// Attributes, and how long they last.
pub(super) fn attr(reply: ReplyAttr, owners: &Owners, result: Result<(Attr, Duration), Refusal>) {
    match result {
        Ok((attr, lasting)) => reply.attr(&lasting, &to_kernel(&owners.shown(attr))),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

/// Done, or why not.
pub(super) fn empty(reply: ReplyEmpty, result: Result<(), Refusal>) {
    match result {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

/// Bytes.
pub(super) fn data(reply: ReplyData, result: Result<Vec<u8>, Refusal>) {
    match result {
        Ok(data) => reply.data(&data),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}

/// A value. A caller that gives no room asks how much it needs.
pub(super) fn xattr(reply: ReplyXattr, room: u32, result: Result<Vec<u8>, Refusal>) {
    match result {
        Ok(value) if room == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(refusal) => reply.error(errno(&refusal)),
    }
}
