//! The `.kilofs` directory: state of the database and old trees, to be read as files. Not listed, but openable.
//!
//! ```text
//! .kilofs/status          JSON, made anew at every open
//! .kilofs/conflicts       the same
//! .kilofs/versions/N/     the tree of the Nth newest version
//! .kilofs/refused/BLOCK/  edits that the policy forbade
//! ```
//!
//! Old trees have inode numbers of their own there, lent out for as long as the kernel remembers them.

use super::host::Host;
use super::init::CACHE_FOR;
use super::loans::{Loan, Loans, Source};
use crate::base::{BlockNumber, Inode};
use crate::tree::{Attr, FileType, Timestamp, TreeError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The name under the root.
pub(super) const NAME: &[u8] = b".kilofs";
/// How long the kernel may keep what changes without notice.
pub(super) const CACHE_BRIEFLY: Duration = Duration::from_millis(500);
/// The inodes of the shelf and of what lies on it.
const RANGE: Range<u64> = 0x4000_0000..1 << 32;
const SHELF: Inode = Inode(RANGE.start);
const VERSIONS: Inode = Inode(RANGE.start + 1);
const REFUSED: Inode = Inode(RANGE.start + 2);
const STATUS: Inode = Inode(RANGE.start + 3);
const CONFLICTS: Inode = Inode(RANGE.start + 4);
/// The first number that is lent to an inode of an old tree.
const FIRST_LENT: u64 = RANGE.start + 0x100;
/// The shelf's own entries.
const FIXED: [(&[u8], Inode); 4] =
    [(b"conflicts", CONFLICTS), (b"refused", REFUSED), (b"status", STATUS), (b"versions", VERSIONS)];
/// Texts that may be held open at a time.
const OPEN_TEXTS_MAX: usize = 4096;
/// Cookies of `.` and `..`; the shelf's own entries follow.
const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;

/// Whether `inode` lies on the shelf.
pub(super) fn holds(inode: Inode) -> bool {
    RANGE.contains(&inode.0)
}

/// Whether a directory's entries come and go without the kernel being told.
pub(super) fn changes_unnoticed(inode: Inode) -> bool {
    [VERSIONS, REFUSED].contains(&inode)
}

/// Takes one entry of a listing: name, cookie, attributes; true if there is no room for it.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], u64, &Attr) -> bool;

/// Who will look at a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Takes names and numbers only.
    Names,
    /// Remembers each inode that it takes, until it is forgotten.
    Inodes,
}

/// Texts that were made at an open, by handle.
#[derive(Default)]
struct Texts {
    last: u64,
    open: HashMap<u64, Arc<[u8]>>,
}

/// The virtual directory.
pub(super) struct Shelf {
    host: Arc<dyn Host>,
    loans: Loans,
    texts: Mutex<Texts>,
    /// Which tree the kernel was shown under a name.
    shown: Mutex<BTreeMap<(Inode, Vec<u8>), Source>>,
    made: Timestamp,
    owner: (u32, u32),
}

impl Shelf {
    /// A shelf as of `made`, belonging to user and group `owner`.
    pub fn new(host: Arc<dyn Host>, made: Timestamp, owner: (u32, u32)) -> Shelf {
        let loans = Loans::new(FIRST_LENT..RANGE.end);
        Shelf { host, loans, texts: Mutex::default(), shown: Mutex::default(), made, owner }
    }

    /// The shelf itself, and for how long to believe it.
    pub fn itself(&self) -> (Attr, Duration) {
        (self.fixed(SHELF), CACHE_FOR)
    }

    /// What bears `name`, and for how long to believe that. The kernel remembers it until [`Shelf::forget`].
    pub fn lookup(&self, parent: Inode, name: &[u8]) -> Result<(Attr, Duration), TreeError> {
        match parent {
            SHELF => {
                let found = FIXED.iter().find(|(fixed, _)| *fixed == name).ok_or(TreeError::NotFound)?;
                Ok((self.fixed(found.1), CACHE_FOR))
            }
            VERSIONS | REFUSED => {
                let found = self.trees(parent).into_iter().find(|(listed, _)| listed == name);
                let (_, loan) = found.ok_or(TreeError::NotFound)?;
                self.shown.lock().insert((parent, name.to_vec()), loan.source());
                Ok((self.lend(loan)?, CACHE_BRIEFLY))
            }
            STATUS | CONFLICTS => Err(TreeError::NotDirectory),
            lent => {
                let loan = self.lent(lent)?;
                let inode = loan.tree.lookup(loan.inode, name)?.inode;
                Ok((self.lend(Loan { inode, parent, tree: loan.tree })?, CACHE_FOR))
            }
        }
    }

    /// The attributes of an inode, and for how long to believe them.
    pub fn attr(&self, inode: Inode) -> Result<(Attr, Duration), TreeError> {
        match inode {
            SHELF | VERSIONS | REFUSED | STATUS | CONFLICTS => Ok((self.fixed(inode), CACHE_BRIEFLY)),
            lent => {
                let loan = self.lent(lent)?;
                Ok((read_only(loan.tree.attr(loan.inode)?, lent), CACHE_FOR))
            }
        }
    }

    /// Visits the entries after `cookie`.
    pub fn read_dir(
        &self,
        inode: Inode,
        cookie: u64,
        audience: Audience,
        visit: Visit<'_>,
    ) -> Result<(), TreeError> {
        let listed = match inode {
            SHELF => FIXED.iter().map(|(name, number)| (name.to_vec(), None, *number)).collect(),
            VERSIONS | REFUSED => {
                self.trees(inode).into_iter().map(|(name, loan)| (name, Some(loan), inode)).collect()
            }
            STATUS | CONFLICTS => return Err(TreeError::NotDirectory),
            lent => return self.read_lent_dir(lent, cookie, audience, visit),
        };
        let above = if inode == SHELF { BlockNumber::ROOT.root_inode() } else { SHELF };
        let mut above_attr = self.fixed(SHELF);
        above_attr.inode = above;
        let dots =
            [(b".".to_vec(), COOKIE_SELF, self.fixed(inode)), (b"..".to_vec(), COOKIE_PARENT, above_attr)];
        for (name, own, attr) in dots.into_iter().filter(|(_, own, _)| *own > cookie) {
            if visit(&name, own, &attr) {
                return Ok(());
            }
        }
        let listed: Vec<(Vec<u8>, Option<Loan>, Inode)> = listed;
        for ((name, loan, number), own) in
            listed.into_iter().zip(COOKIE_PARENT + 1..).filter(|(_, own)| *own > cookie)
        {
            let full = match loan {
                Some(loan) => self.show(loan, &name, own, audience, visit)?,
                None => visit(&name, own, &self.fixed(number)),
            };
            if full {
                break;
            }
        }
        Ok(())
    }

    fn read_lent_dir(
        &self,
        number: Inode,
        cookie: u64,
        audience: Audience,
        visit: Visit<'_>,
    ) -> Result<(), TreeError> {
        let loan = self.lent(number)?;
        for item in loan.tree.read_dir(loan.inode, cookie)? {
            let full = match &item.name[..] {
                b"." => visit(b".", item.cookie, &read_only(item.attr, number)),
                b".." => visit(b"..", item.cookie, &read_only(item.attr, loan.parent)),
                name => {
                    let child = Loan { tree: loan.tree.clone(), inode: item.inode, parent: number };
                    self.show(child, name, item.cookie, audience, visit)?
                }
            };
            if full {
                break;
            }
        }
        Ok(())
    }

    /// Visits one entry of an old tree; lends it a number if the visitor will remember it.
    fn show(
        &self,
        loan: Loan,
        name: &[u8],
        cookie: u64,
        audience: Audience,
        visit: Visit<'_>,
    ) -> Result<bool, TreeError> {
        if audience == Audience::Names {
            let number = self.loans.number_of(loan.source()).unwrap_or(loan.inode);
            return Ok(visit(name, cookie, &read_only(loan.tree.attr(loan.inode)?, number)));
        }
        if changes_unnoticed(loan.parent) {
            self.shown.lock().insert((loan.parent, name.to_vec()), loan.source());
        }
        let attr = self.lend(loan)?;
        let full = visit(name, cookie, &attr);
        if full {
            self.loans.forget(attr.inode, 1);
        }
        Ok(full)
    }

    /// The kernel gave back `lookups` of an inode.
    pub fn forget(&self, inode: Inode, lookups: u64) {
        self.loans.forget(inode, lookups);
    }

    /// Opens a file: the handle of a text that was made now, or `None` for a file of an old tree.
    pub fn open(&self, inode: Inode) -> Result<Option<u64>, TreeError> {
        let text = match inode {
            STATUS => self.host.status(),
            CONFLICTS => self.host.conflicts(),
            SHELF | VERSIONS | REFUSED => return Err(TreeError::IsDirectory),
            lent => return self.lent(lent).map(|_| None),
        };
        let mut texts = self.texts.lock();
        if texts.open.len() >= OPEN_TEXTS_MAX {
            return Err(TreeError::Busy);
        }
        texts.last += 1;
        let handle = texts.last;
        texts.open.insert(handle, text.into_bytes().into());
        Ok(Some(handle))
    }

    /// Closes what [`Shelf::open`] opened.
    pub fn close(&self, inode: Inode, handle: u64) {
        if [STATUS, CONFLICTS].contains(&inode) {
            self.texts.lock().open.remove(&handle);
        }
    }

    /// Bytes of a file.
    pub fn read(&self, inode: Inode, handle: u64, offset: u64, bytes: u32) -> Result<Vec<u8>, TreeError> {
        match inode {
            STATUS | CONFLICTS => {
                let text = self.texts.lock().open.get(&handle).cloned().unwrap_or_default();
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let end = start.saturating_add(bytes as usize).min(text.len());
                Ok(text[start..end].to_vec())
            }
            SHELF | VERSIONS | REFUSED => Err(TreeError::IsDirectory),
            lent => self.lent(lent).and_then(|loan| loan.tree.read(loan.inode, offset, bytes as usize)),
        }
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>, TreeError> {
        self.lent(inode).and_then(|loan| loan.tree.read_link(loan.inode))
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        match self.loans.get(inode) {
            Some(loan) => loan.tree.get_xattr(loan.inode, name),
            None => Err(TreeError::NoData),
        }
    }

    /// The names of the extended attributes.
    pub fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>, TreeError> {
        match self.loans.get(inode) {
            Some(loan) => loan.tree.list_xattr(loan.inode),
            None => Ok(Vec::new()),
        }
    }

    /// Names that the kernel still has and that lead elsewhere by now: it should drop them, and what they pin.
    pub fn retired(&self) -> Vec<(Inode, Vec<u8>)> {
        let mut shown = self.shown.lock();
        if shown.is_empty() {
            return Vec::new();
        }
        let mut current = BTreeMap::new();
        for directory in [VERSIONS, REFUSED] {
            let trees = self.trees(directory).into_iter();
            current.extend(trees.map(|(name, loan)| ((directory, name), loan.source())));
        }
        let (kept, gone) = std::mem::take(&mut *shown)
            .into_iter()
            .partition(|(name, source)| current.get(name) == Some(source));
        *shown = kept;
        let gone: BTreeMap<(Inode, Vec<u8>), Source> = gone;
        gone.into_keys().collect()
    }

    /// The old trees that a directory of the shelf holds now.
    fn trees(&self, directory: Inode) -> Vec<(Vec<u8>, Loan)> {
        let root = BlockNumber::ROOT.root_inode();
        let name = |number: &dyn ToString| number.to_string().into_bytes();
        let versions = || {
            self.host.versions().into_iter().filter_map(|version| {
                let loan = Loan { tree: version.tree?, inode: root, parent: VERSIONS };
                Some((name(&version.index), loan))
            })
        };
        let refused = || {
            self.host.refused().into_iter().map(|entry| {
                (entry.name.into_bytes(), Loan { tree: entry.tree, inode: entry.root, parent: REFUSED })
            })
        };
        if directory == VERSIONS { versions().collect() } else { refused().collect() }
    }

    fn lent(&self, number: Inode) -> Result<Loan, TreeError> {
        self.loans.get(number).ok_or(TreeError::NotFound)
    }

    fn lend(&self, loan: Loan) -> Result<Attr, TreeError> {
        let attr = loan.tree.attr(loan.inode)?;
        let number = self.loans.lend(loan).ok_or(TreeError::Busy)?;
        Ok(read_only(attr, number))
    }

    fn fixed(&self, inode: Inode) -> Attr {
        let directory = [SHELF, VERSIONS, REFUSED].contains(&inode);
        let (file_type, mode) =
            if directory { (FileType::Directory, 0o555) } else { (FileType::File, 0o444) };
        Attr {
            inode,
            file_type,
            mode,
            uid: self.owner.0,
            gid: self.owner.1,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            size: 0,
            blocks: 0,
            nlink: if inode == SHELF {
                4
            } else if directory {
                2
            } else {
                1
            },
            rdev: 0,
        }
    }
}

/// `attr` under the shelf's number, with nothing that could be written to.
fn read_only(attr: Attr, number: Inode) -> Attr {
    Attr { inode: number, mode: attr.mode & !0o222, ..attr }
}
