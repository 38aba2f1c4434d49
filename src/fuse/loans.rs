//! Inode numbers lent to the inodes of old trees, for as long as the kernel remembers them.

use crate::base::Inode;
use crate::tree::ReadTree;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// An inode of an old tree.
#[derive(Clone)]
pub(super) struct Loan {
    /// The tree; the loan keeps it alive.
    pub tree: Arc<dyn ReadTree>,
    /// The inode in that tree.
    pub inode: Inode,
    /// The shelf's number of the directory through which it was found first: where `..` leads.
    pub parent: Inode,
}

/// A tree's address and an inode in it: tells loans apart.
pub(super) type Source = (usize, Inode);

impl Loan {
    /// What tells it from other loans. Valid as long as the loan lives.
    pub fn source(&self) -> Source {
        (Arc::as_ptr(&self.tree).cast::<()>() as usize, self.inode)
    }
}

/// All loans of a mount.
pub(super) struct Loans {
    range: Range<u64>,
    inner: Mutex<Inner>,
}

struct Inner {
    by_number: HashMap<u64, (Loan, u64)>,
    by_source: HashMap<Source, u64>,
    next: u64,
}

impl Loans {
    /// Lends numbers of `range`, each once before any comes again.
    pub fn new(range: Range<u64>) -> Loans {
        let inner = Inner { by_number: HashMap::new(), by_source: HashMap::new(), next: range.start };
        Loans { range, inner: Mutex::new(inner) }
    }

    /// The number of a loan, new or known, remembered once more; `None` when all numbers are out.
    pub fn lend(&self, loan: Loan) -> Option<Inode> {
        let mut inner = self.inner.lock();
        let source = loan.source();
        if let Some(number) = inner.by_source.get(&source).copied() {
            if let Some((_, lookups)) = inner.by_number.get_mut(&number) {
                *lookups += 1;
            }
            return Some(Inode(number));
        }
        if inner.by_number.len() as u64 >= self.range.end - self.range.start {
            return None;
        }
        while inner.by_number.contains_key(&inner.next) {
            inner.next = self.after(inner.next);
        }
        let number = inner.next;
        inner.next = self.after(number);
        inner.by_source.insert(source, number);
        inner.by_number.insert(number, (loan, 1));
        Some(Inode(number))
    }

    /// What was lent under a number.
    pub fn get(&self, number: Inode) -> Option<Loan> {
        self.inner.lock().by_number.get(&number.0).map(|(loan, _)| loan.clone())
    }

    /// The number under which `source` is out now.
    pub fn number_of(&self, source: Source) -> Option<Inode> {
        self.inner.lock().by_source.get(&source).copied().map(Inode)
    }

    /// Gives back `lookups` of a number.
    pub fn forget(&self, number: Inode, lookups: u64) {
        let mut inner = self.inner.lock();
        match inner.by_number.get_mut(&number.0) {
            Some((_, count)) if *count > lookups => *count -= lookups,
            Some((loan, _)) => {
                let source = loan.source();
                inner.by_source.remove(&source);
                let ended = inner.by_number.remove(&number.0);
                // The last holder of a tree lets go of its store's slots: not under our lock.
                drop(inner);
                drop(ended);
            }
            None => {}
        }
    }

    fn after(&self, number: u64) -> u64 {
        if number + 1 < self.range.end { number + 1 } else { self.range.start }
    }
}
