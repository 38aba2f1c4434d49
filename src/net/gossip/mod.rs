//! News between neighbours: about eight kept connections over which peers of one database tell each other what is new,
//! with the bytes of small changes. Only who holds the record key gets in. Nothing here knows what a record says.

mod candidates;
mod coming;
mod doubt;
mod link;
mod message;
mod neighbours;
mod options;
mod own;
mod pace;
mod queue;
#[cfg(test)]
mod tests;

pub use message::{
    ASKED_MAX, Delta, Message, Move, NEWS_BYTES_MAX, News, PIECES_MAX, Pieces, RUN_BYTES_MAX, Run,
};
pub use neighbours::{Event, Gossip, NeighbourId};
pub use options::{GossipOptions, Neighbour};
