//! What the machine hears and what it asks for.

use crate::base::{Id, InfoHash};
use crate::record::VersionRef;

/// What a device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// It holds the database key.
    pub publishes: bool,
    /// It keeps every version of the record, not only the newest.
    pub keeps_all: bool,
}

/// A record that was heard; the database key's signature is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// BEP 44 sequence number.
    pub seq: i64,
    /// Hash of the signed value: tells two values of one `seq` apart.
    pub digest: Id,
    /// Newest first; none where the record does not open or its policy is not the admin's.
    pub versions: Vec<VersionRef>,
    /// It opens and carries the policy in force. One that is not sound is to be replaced.
    pub sound: bool,
}

/// What a poll brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// No node answered.
    Unreachable,
    /// Nodes answered, none has the record.
    Nothing,
    /// All distinct values with the highest `seq` that was seen.
    Heard(Vec<Heard>),
    /// Nodes answered a glance: none has anything newer.
    Unchanged,
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is here, and the head covers it: it was adopted as it is, or was known already.
    Current,
    /// The head stands above it: the head ought to be in the record.
    Behind,
    /// It was merged with changes of this device; the result waits to be published.
    Merged,
    /// Parts of it were refused; the rest was taken. An honest version ought to follow.
    Refused,
    /// It is here, but not ready to be merged by this device yet: ask again.
    Later,
    /// There is no room for it here: ask again.
    NoRoom,
    /// Nobody served it.
    NoSource,
    /// It is not a version of this database, or does not open.
    Broken,
}

/// How a put ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// Stored by at least one node.
    Done(Heard),
    /// Somebody else was first.
    Superseded,
    /// No node answered.
    Unreachable,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// Something was changed locally.
    Changed,
    /// A poll ended.
    Polled(Poll),
    /// A neighbour told this.
    Heard(Heard),
    /// So many neighbours are connected.
    Neighbours(usize),
    /// A neighbour put the record of this number back into the DHT.
    Kept(i64),
    /// The record that was asked for was signed and told, or there is nothing to sign it with.
    Told(Option<Heard>),
    /// A fetch, and what followed from it, ended.
    Fetched(InfoHash, Fetched),
    /// A publication ended: the version that stands for the head, none if there was nothing to publish, or the
    /// failure to make one.
    Published(Result<Option<VersionRef>, ()>),
    /// Nothing was published: a file is empty that is about to be written. To be tried again soon.
    Withheld,
    /// The record in force was signed long ago, by its own word.
    Aged,
    /// A put ended.
    Put(PutOutcome),
    /// A person asked: poll and publish now.
    Hurry,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the DHT for the record.
    Poll,
    /// Ask the DHT whether it has a record above this number: nodes that have not, or have forgotten it, send no value.
    Glance(i64),
    /// Fetch a version, verify it, adopt or merge it.
    Fetch(VersionRef),
    /// Freeze the head, seal, hash, seed.
    Publish,
    /// Sign these versions under `seq` and tell the neighbours.
    Tell {
        /// Newest first.
        versions: Vec<VersionRef>,
        /// The number to sign.
        seq: i64,
    },
    /// Put the record that was told last, expecting `cas` to be the newest that the DHT has.
    PutTold {
        /// The number that must be the newest, if any was seen.
        cas: Option<i64>,
    },
    /// Sign these versions under `seq` and put them, expecting `cas` to be the newest.
    Put {
        /// Newest first.
        versions: Vec<VersionRef>,
        /// The number to sign.
        seq: i64,
        /// The number that must be the newest, if any was seen.
        cas: Option<i64>,
    },
    /// Put the signed item of the highest accepted record as it is.
    Reput,
    /// Announce under the rendezvous.
    Announce,
}
