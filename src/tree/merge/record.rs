//! What is in an inode (rules 9–11).

use super::delta::{Group, Rank};
use crate::base::Inode;
use crate::tree::inode::{InodeRecord, RecordSize, Timestamp};

/// Numbers below belong to block roots and other inodes that are made without drawing.
const FIRST_DRAWN_INODE: Inode = Inode(1 << 32);

/// What of a record belongs to a file's data.
fn data_of(record: &InodeRecord) -> (u64, RecordSize, u64, Option<&[u8]>) {
    (record.size, record.record_size, record.data_id, record.inline.as_deref())
}

/// Whether a record shows that a person or program changed the inode: not what follows from its names alone.
pub(super) fn edited(old: &InodeRecord, new: &InodeRecord) -> bool {
    let attributes = |record: &InodeRecord| (record.mode, record.uid, record.gid, record.rdev);
    let content = |record: &InodeRecord| (record.mtime, record.size, record.inline.clone());
    attributes(old) != attributes(new) || (!new.is_directory() && content(old) != content(new))
}

impl Group {
    /// Whether a side changed a file's data.
    pub(super) fn data_changed(&self, rank: Rank) -> bool {
        let old = self.record.base.as_ref().map(data_of);
        let new = self.record.of(rank).as_ref().map(data_of);
        old != new || self.chunks.values().any(|chunk| chunk.changed(rank))
    }

    /// Whether both sides changed a file's data, and not alike.
    pub(super) fn data_contested(&self) -> bool {
        let (Some(winner), Some(loser)) = (&self.record.winner, &self.record.loser) else { return false };
        let alike = data_of(winner) == data_of(loser)
            && self.chunks.values().all(|chunk| chunk.winner == chunk.loser);
        winner.is_file() && !alike && self.data_changed(Rank::Winner) && self.data_changed(Rank::Loser)
    }

    /// The side from which the data is taken: the winner, unless the loser alone changed it or has it.
    pub(super) fn data_side(&self) -> Rank {
        match self.only_side() {
            Some(rank) => rank,
            None if self.data_changed(Rank::Winner) => Rank::Winner,
            None => Rank::Loser,
        }
    }

    /// Whether the two sides gave one number to different things.
    pub(super) fn unrelated(&self, inode: Inode) -> bool {
        let (Some(winner), Some(loser)) = (&self.record.winner, &self.record.loser) else { return false };
        let birth = |record: &InodeRecord| (record.file_type, record.crtime, record.data_id, record.rdev);
        let link_differs = self.link.as_ref().is_some_and(|link| link.winner != link.loser);
        inode >= FIRST_DRAWN_INODE
            && self.record.base.is_none()
            && (birth(winner) != birth(loser) || link_differs)
    }

    /// The record of the result, before its names are counted.
    pub(super) fn merged_record(&self) -> Option<InodeRecord> {
        let (Some(winner), Some(loser)) = (&self.record.winner, &self.record.loser) else {
            return self.leading_record().cloned();
        };
        let base = self.record.base.as_ref();
        let data = if self.data_side() == Rank::Winner { winner } else { loser };
        let mtime = if winner.is_directory() {
            directory_mtime(base, winner, loser)
        } else if self.data_changed(Rank::Winner) != self.data_changed(Rank::Loser) {
            data.mtime
        } else {
            three_way(base.map(|r| r.mtime), winner.mtime, loser.mtime)
        };
        Some(InodeRecord {
            mode: three_way(base.map(|r| r.mode), winner.mode, loser.mode),
            uid: three_way(base.map(|r| r.uid), winner.uid, loser.uid),
            gid: three_way(base.map(|r| r.gid), winner.gid, loser.gid),
            atime: three_way(base.map(|r| r.atime), winner.atime, loser.atime),
            ctime: later(base.map(|r| r.ctime), winner.ctime, loser.ctime),
            parent: three_way(base.map(|r| r.parent), winner.parent, loser.parent),
            mtime,
            ..data.clone()
        })
    }
}

/// Who changed it prevails; of two changes the winner's.
fn three_way<T: PartialEq>(base: Option<T>, winner: T, loser: T) -> T {
    if base.is_some_and(|base| base == winner) { loser } else { winner }
}

/// Who changed it prevails; of two changes the one made later: a program that gives a directory the time of another one does
/// so last, and a base that is too old to know the directory makes both sides look as if they had changed it.
fn directory_mtime(base: Option<&InodeRecord>, winner: &InodeRecord, loser: &InodeRecord) -> Timestamp {
    match base.map(|record| record.mtime) {
        Some(base) if base == winner.mtime => loser.mtime,
        Some(base) if base == loser.mtime => winner.mtime,
        _ => (winner.ctime, winner.mtime).max((loser.ctime, loser.mtime)).1,
    }
}

/// Who changed it prevails; of two changes the greater.
fn later<T: PartialEq + Ord>(base: Option<T>, winner: T, loser: T) -> T {
    match base {
        Some(base) if base == winner => loser,
        Some(base) if base == loser => winner,
        _ => winner.max(loser),
    }
}
