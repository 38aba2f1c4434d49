//! What a change of the maps appends to a draft and what dies by it, until it is known whether it succeeds.

use super::source::{emit_error, fetch_error};
use crate::base::Place;
use crate::image::{Draft, Stream};
use crate::map::{Emit, EmitError, MapError, Relocate};
use std::sync::Arc;

/// Appends at once, frees at the end.
pub(super) struct Ledger {
    draft: Arc<Draft>,
    stream: Stream,
    appended: Vec<Place>,
    dead: Vec<Place>,
}

impl Ledger {
    /// An empty one over `draft`.
    pub(super) fn new(draft: Arc<Draft>, stream: Stream) -> Ledger {
        Ledger { draft, stream, appended: Vec::new(), dead: Vec::new() }
    }

    /// Something was appended on the ledger's account.
    pub(super) fn appended(&mut self, place: Place) {
        self.appended.push(place);
    }

    /// Something is needed no more, if the change succeeds.
    pub(super) fn dead(&mut self, place: Place) {
        self.dead.push(place);
    }

    /// The change succeeded: how many bytes died by it.
    pub(super) fn settle(self) -> u64 {
        self.dead.iter().for_each(|place| self.draft.free(*place));
        self.dead.iter().map(|place| u64::from(place.length)).sum()
    }

    /// The change failed: what was appended for it is dead.
    pub(super) fn undo(self) {
        self.appended.iter().for_each(|place| self.draft.free(*place));
    }
}

impl Emit for Ledger {
    fn emit(&mut self, sealed: &[u8]) -> Result<Place, EmitError> {
        let place = self.draft.append(self.stream, sealed).map_err(emit_error)?;
        self.appended.push(place);
        Ok(place)
    }

    fn free(&mut self, place: Place) {
        self.dead.push(place);
    }
}

impl Relocate for Ledger {
    fn carry(&mut self, from: Place) -> Result<Place, MapError> {
        let sealed = self.draft.read(from).map_err(|error| fetch_error(from, error))?;
        let place = self.emit(&sealed)?;
        self.dead.push(from);
        Ok(place)
    }
}
