//! Memory that is not swapped out, and a process that does not let others look into it.
//!
//! What is locked is a value where it stays. The compiler may leave copies behind where a value was moved from; types that
//! wipe themselves wipe the last place only.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::fmt;
use std::ops::Deref;
use std::sync::Once;

/// A page of memory. Larger pages exist; there a neighbour is locked along, and let go along.
#[repr(align(4096))]
struct Page<T>(Option<T>);

/// A value in pages of its own that the system keeps in memory (mlock(2)), as far as its limits allow.
pub struct Locked<T> {
    // Let go before the pages are freed, after the value was dropped.
    guard: Option<region::LockGuard>,
    page: Box<Page<T>>,
}

impl<T> Locked<T> {
    /// Moves a value to locked memory. Where the system refuses, the value lies in ordinary memory, and the log says so once.
    pub fn new(value: T) -> Locked<T> {
        let mut page = Box::new(Page(None));
        let guard = region::lock(&raw const *page, size_of::<Page<T>>());
        let guard = guard.inspect_err(tell_once).ok();
        page.0 = Some(value);
        Locked { guard, page }
    }

    /// Whether the system granted it.
    pub fn is_locked(&self) -> bool {
        self.guard.is_some()
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.page.0.as_ref().expect("the value is there until it is dropped")
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        self.page.0 = None;
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(…)")
    }
}

fn tell_once(error: &region::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::info!("keys may be swapped out: memory cannot be locked ({error}); see `ulimit -l`");
    });
}

/// Makes this process leave no core dump, keeps others of the same user from looking into its memory, and raises the limit
/// of what it may lock as far as it may. Returns what the system refused, a line each.
pub fn shut_process() -> Vec<String> {
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let memory = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: memory.maximum, maximum: memory.maximum };
    let steps = [
        ("core dumps cannot be turned off", setrlimit(Resource::Core, no_core)),
        ("other processes may look into this one", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        ("the limit of locked memory cannot be raised", setrlimit(Resource::Memlock, raised)),
    ];
    let refused = steps.into_iter().filter_map(|(what, done)| done.err().map(|error| (what, error)));
    refused.map(|(what, error)| format!("{what}: {error}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn a_value_has_pages_of_its_own() {
        let values: Vec<Locked<[u8; 5000]>> = (0..4).map(|n| Locked::new([n; 5000])).collect();
        let starts: Vec<usize> = values.iter().map(|value| (&raw const *value.page).addr()).collect();
        for (n, start) in starts.iter().enumerate() {
            assert_eq!(start % 4096, 0);
            assert!(starts.iter().enumerate().all(|(m, other)| m == n || start.abs_diff(*other) >= 8192));
            assert!(values[n].iter().all(|byte| usize::from(*byte) == n));
        }
        assert_eq!(format!("{:?}", values[0]), "Locked(…)");
    }

    #[test]
    fn the_value_is_dropped_once() {
        struct Counted(Rc<Cell<u32>>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let count = Rc::new(Cell::new(0));
        let locked = Locked::new(Counted(count.clone()));
        assert_eq!(count.get(), 0);
        drop(locked);
        assert_eq!(count.get(), 1);
    }
}
