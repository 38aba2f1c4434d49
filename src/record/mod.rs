//! Floor 2: what is signed. The record and its policy, the charter, the entries of the catalogue, the commits; their
//! one encoding each, and the rule that says whose entry counts.

mod admit;
mod announcement;
mod charter;
mod commit;
mod content;
mod entry;
mod error;
mod item;
mod lifeline;
mod policy;
mod private;
mod value;
mod vector;

pub use admit::{Refusal, admit, next_counter, next_floor, rank, still_counts};
pub use announcement::{ANNOUNCEMENT_BYTES_MAX, Announcement};
pub use charter::{
    BlockCharter, CHARTER_BYTES_MAX, Charter, Floor, MEMBERS_MAX, Members, PATH_BYTES_MAX,
    PATH_COMPONENT_BYTES_MAX, Quota, genesis_charter,
};
pub use commit::{COMMIT_BYTES_MAX, Commit};
pub use content::content_root;
pub use entry::{BlockEntry, ENTRY_BYTES_MAX, PARENTS_MAX, RootRef};
pub use error::RecordError;
pub use item::SignedItem;
pub use lifeline::{Lifeline, Moved, open_lifeline, sign_lifeline};
pub use policy::{Mode, Policy, UnknownMode};
pub use private::{LINKS_MAX, Private, READERS_MAX};
pub use value::{BLOCKS_MAX, RECORD_BYTES, Record, VERSIONS_MAX, VersionRef};
pub use vector::{Maker, Seen, Stamp, VECTOR_MAKERS_MAX, Vector};
