//! Copies of what lost: their numbers, their names, and the copies of files that both edited (rules 4, 8, 9).

use super::delta::{self, Group, Location, Rank, Triple};
use super::state::{Standing, State};
use super::{MergeError, Version};
use crate::base::{DeviceId, Id, Inode};
use crate::tree::inode::InodeRecord;
use crate::tree::key::{self, Key, NAME_BYTES_MAX};

/// A longer tail behind a name's last dot is not taken for an extension.
const EXTENSION_BYTES_MAX: usize = 16;
/// The directory of the block's root for what has no place left.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Numbers below are drawn by nobody.
const FIRST_DRAWN_INODE: u64 = 1 << 32;

/// A number for what two sides want to be different things: from the losing commit and the number that it has there.
fn derived_inode(commit: &Id, inode: Inode, attempt: u64) -> Inode {
    let mut hasher = blake3::Hasher::new_derive_key("kilofs 1 2026 derived inode");
    hasher.update(commit.as_bytes()).update(&inode.0.to_le_bytes()).update(&attempt.to_le_bytes());
    let (mut bytes, digest) = ([0; 8], hasher.finalize());
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    // 63 bits: some programs keep inode numbers in signed integers.
    Inode((u64::from_le_bytes(bytes) >> 1).max(FIRST_DRAWN_INODE))
}

/// `name.conflict-<device>-<time>.ext`, with a count before the extension from the second attempt on, and the stem
/// cut so that the whole is a legal name.
pub fn conflict_name(name: &[u8], device: &DeviceId, time: i64, attempt: u32) -> Vec<u8> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0);
    let (stem, extension) = match dot {
        Some(dot) if name.len() - dot <= EXTENSION_BYTES_MAX => name.split_at(dot),
        _ => (name, &b""[..]),
    };
    let device = &device.to_string()[..8];
    let mut mark = format!(".conflict-{device}-{}", utc(time));
    if attempt > 0 {
        mark.push_str(&format!("-{}", attempt + 1));
    }
    let mut room = stem.len().min(NAME_BYTES_MAX - mark.len() - extension.len());
    // Not inside a character of UTF-8.
    while room > 0 && room < stem.len() && stem[room] & 0xc0 == 0x80 {
        room -= 1;
    }
    [&stem[..room], mark.as_bytes(), extension].concat()
}

/// YYYYMMDD-HHMMSS in UTC; years beyond four digits are clamped, since the time is somebody else's word.
fn utc(time: i64) -> String {
    const LAST_SECOND_OF_9999: i64 = 253_402_300_799;
    let time = time.clamp(0, LAST_SECOND_OF_9999);
    let (days, second) = (time / 86_400, time % 86_400);
    // Civil date from days since 1970-01-01, counted in years that begin in March (proleptic Gregorian calendar).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second % 3_600 / 60, second % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

impl State<'_> {
    /// Gives a new number to what the loser made under a number that the winner gave to something else.
    pub(super) fn renumber(&mut self) -> Result<(), MergeError> {
        let unrelated: Vec<Inode> = self
            .groups
            .iter()
            .filter(|(inode, group)| group.unrelated(**inode))
            .map(|(inode, _)| *inode)
            .collect();
        for old in unrelated {
            let new = self.unused_inode(old)?;
            let mut moved = self.whole_group(Rank::Loser, old)?;
            if let Some(group) = self.groups.get_mut(&old) {
                moved.record.loser = group.record.loser.take();
                let chunks = group.chunks.values_mut().map(|chunk| chunk.loser = None);
                let xattrs = group.xattrs.values_mut().map(|xattr| xattr.loser = None);
                let _ = (chunks.count(), xattrs.count());
                if let Some(link) = &mut group.link {
                    link.loser = None;
                }
            }
            self.groups.insert(new, moved);
            self.renumbered.insert(new, old);
            self.rename_in_loser(old, new)?;
        }
        Ok(())
    }

    /// Rewrites the loser's entries in and to `old`.
    fn rename_in_loser(&mut self, old: Inode, new: Inode) -> Result<(), MergeError> {
        let affected: Vec<Location> = self
            .entries
            .iter()
            .filter(|((parent, _), triple)| {
                triple.loser.as_ref().is_some_and(|entry| *parent == old || entry.inode == old)
            })
            .map(|(location, _)| location.clone())
            .collect();
        for location in affected {
            let Some(triple) = self.entries.get_mut(&location) else { continue };
            let Some(mut entry) = triple.loser.take() else { continue };
            let new_location = if location.0 == old { (new, location.1.clone()) } else { location };
            if entry.inode == old {
                entry.inode = new;
            }
            self.entries.entry(new_location).or_default().loser = Some(entry);
        }
        self.names = self.entries.iter().collect();
        Ok(())
    }

    /// A derived number that neither side uses.
    fn unused_inode(&self, old: Inode) -> Result<Inode, MergeError> {
        let mut attempt = 0;
        loop {
            let new = derived_inode(&self.loser.commit, old, attempt);
            let used = self.groups.contains_key(&new)
                || self.record_in(Rank::Winner, new)?.is_some()
                || self.record_in(Rank::Loser, new)?.is_some();
            if !used {
                return Ok(new);
            }
            attempt += 1;
        }
    }

    /// All keys of an inode in one side, as if it were new there.
    fn whole_group(&self, rank: Rank, inode: Inode) -> Result<Group, MergeError> {
        let mut group = Group { touched: true, ..Group::default() };
        let Version { map, root, .. } = &self.side(rank).version;
        let mut cursor = map.range(root.as_ref(), &key::start_of(inode));
        while let Some(entry) = cursor.next()? {
            match Key::decode(&entry.key).map_err(|_| MergeError::Malformed)? {
                key if key.inode() != inode => break,
                Key::Inode(_) => *group.record.of_mut(rank) = Some(delta::record_of(&entry)?),
                Key::Chunk(_, index) => {
                    *group.chunks.entry(index).or_default().of_mut(rank) = Some(delta::chunk_of(&entry)?)
                }
                Key::Xattr(_, name) => {
                    *group.xattrs.entry(name.to_vec()).or_default().of_mut(rank) =
                        Some(delta::bytes_of(&entry))
                }
                Key::Link(_) => {
                    *group.link.get_or_insert_default().of_mut(rank) = Some(delta::bytes_of(&entry))
                }
                Key::Entry(..) => {}
            }
        }
        Ok(group)
    }

    /// Puts the loser's version of each file that both edited beside the winner's.
    pub(super) fn copy_conflicting_data(&mut self) -> Result<(), MergeError> {
        let contested: Vec<Inode> = self
            .alive
            .iter()
            .copied()
            .filter(|inode| self.groups.get(inode).is_some_and(Group::data_contested))
            .collect();
        for inode in contested {
            let mut copy = self.whole_group(Rank::Loser, inode)?;
            let Some(record) = copy.record.loser.as_mut().filter(|record| record.size > 0) else { continue };
            // Names are counted from here on.
            record.nlink = 0;
            let number = self.unused_inode(inode)?;
            self.groups.insert(number, copy);
            self.copies.insert(number, inode);
            self.alive.insert(number);
            if let Some(location) = self.a_name_of(inode)? {
                self.give_conflict_name(number, &location, Standing::Loser)?;
            }
        }
        Ok(())
    }

    /// A name of a living file in the result: one that the merge gave, or else one that nobody touched, which is
    /// sought where its record points and then everywhere.
    fn a_name_of(&self, inode: Inode) -> Result<Option<Location>, MergeError> {
        if let Some(location) = self.first_place(inode) {
            return Ok(Some(location.clone()));
        }
        let Some(record) = self.groups.get(&inode).and_then(|group| group.record.winner.as_ref()) else {
            return Ok(None);
        };
        match self.find_name(inode, Some(record.parent))? {
            None => self.find_name(inode, None),
            found => Ok(found),
        }
    }

    /// The first untouched name of `inode` in a directory, or anywhere.
    fn find_name(&self, inode: Inode, directory: Option<Inode>) -> Result<Option<Location>, MergeError> {
        let version = &self.winner.version;
        let mut cursor =
            version.map.range(version.root.as_ref(), &key::start_of(directory.unwrap_or(Inode(0))));
        while let Some(entry) = cursor.next()? {
            let key = Key::decode(&entry.key).map_err(|_| MergeError::Malformed)?;
            if directory.is_some_and(|directory| key.inode() != directory) {
                break;
            }
            let Key::Entry(parent, name) = key else { continue };
            let location = (parent, name.to_vec());
            if delta::entry_of(&entry)?.inode == inode && !self.entries.contains_key(&location) {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// Places what lives and has no name left in `lost+found`.
    pub(super) fn house_orphans(&mut self) -> Result<(), MergeError> {
        let root = self.block.root_inode();
        let homeless = |state: &Self, inode: &Inode| {
            *inode != root && state.first_place(*inode).is_none() && state.untouched_names(*inode) == 0
        };
        let orphans: Vec<Inode> = self.alive.iter().copied().filter(|inode| homeless(self, inode)).collect();
        if orphans.is_empty() {
            return Ok(());
        }
        let shelter = self.lost_and_found()?;
        for orphan in orphans {
            let name = format!("inode-{orphan}").into_bytes();
            if self.draw_in_name(&(shelter, name.clone()))? {
                self.place(orphan, (shelter, name), Standing::Loser);
            } else {
                self.give_conflict_name(orphan, &(shelter, name), Standing::Loser)?;
            }
        }
        Ok(())
    }

    /// The directory `lost+found` of the block's root, made if there is none.
    fn lost_and_found(&mut self) -> Result<Inode, MergeError> {
        let mut location = (self.block.root_inode(), LOST_AND_FOUND.to_vec());
        while !self.draw_in_name(&location)? {
            let holder = self.claims.get(&location).and_then(|claimants| claimants.first().copied());
            match holder.filter(|holder| self.is_directory(*holder)) {
                Some(directory) => return Ok(directory),
                // A file of that name stays what it is.
                None => location.1.push(b'+'),
            }
        }
        let number = self.unused_inode(self.block.root_inode())?;
        let record = InodeRecord { mode: 0o700, parent: location.0, ..InodeRecord::genesis() };
        let record = Triple { winner: Some(record), ..Triple::default() };
        self.groups.insert(number, Group { record, touched: true, ..Group::default() });
        self.alive.insert(number);
        self.place(number, location, Standing::Winner);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DEVICE: DeviceId = DeviceId([0xab; 32]);

    fn named(name: &str, attempt: u32) -> String {
        String::from_utf8(conflict_name(name.as_bytes(), &DEVICE, 1_700_000_000, attempt)).unwrap()
    }

    #[test]
    fn copies_keep_their_extension() {
        assert_eq!(named("a.txt", 0), "a.conflict-abababab-20231114-221320.txt");
        assert_eq!(named("a", 1), "a.conflict-abababab-20231114-221320-2");
        assert_eq!(named(".profile", 0), ".profile.conflict-abababab-20231114-221320");
    }

    #[test]
    fn names_stay_legal() {
        for length in 200..=255 {
            for unit in ["x", "é", "€"] {
                let name = unit.repeat(length / unit.len()) + ".ext";
                let copy = conflict_name(name[..].as_bytes(), &DEVICE, i64::MAX, u32::MAX);
                assert!(copy.len() <= NAME_BYTES_MAX && std::str::from_utf8(&copy).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn time_is_the_civil_calendar() {
        assert_eq!(utc(0), "19700101-000000");
        assert_eq!(utc(951_782_400), "20000229-000000");
        assert_eq!(utc(-5), "19700101-000000");
        assert_eq!(utc(i64::MAX), "99991231-235959");
    }
}
