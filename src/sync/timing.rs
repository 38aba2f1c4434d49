//! The periods that the machine works with.

use super::Millis;

/// All in milliseconds.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two polls of the record.
    pub poll: Millis,
    /// So many looks in a row only ask for what is newer.
    pub glances_max: u32,
    /// With many neighbours at most so many polls lie between two looks of one device.
    pub share_max: Millis,
    /// Without a change for so long, a burst of changes is over.
    pub quiet: Millis,
    /// A burst that does not end is published after so long all the same.
    pub storm: Millis,
    /// At least so long between two publications.
    pub spacing: Millis,
    /// At least so long between two puts.
    pub put_spacing: Millis,
    /// Between two puts of an unchanged record: nodes drop an item after one to two hours.
    pub reput: Millis,
    /// A record that was signed long ago is signed anew within so long, by one of those who may.
    pub renew_spread: Millis,
    /// Between two announcements under the rendezvous.
    pub announce: Millis,
    /// How long a version may stay without a seeder before an older one is put first.
    pub patience: Millis,
    /// How long a version without a seeder is left alone before it is tried again.
    pub retry_dead: Millis,
    /// How long a version for which there is no room is left alone before it is tried again.
    pub retry_room: Millis,
    /// A fetch that takes longer no longer keeps what was changed here from being published.
    pub long_fetch: Millis,
    /// A record that a neighbour told may take so long to reach the DHT before others see to that.
    pub grace: Millis,
    /// First pause after a put that nobody answered; doubled up to `poll`.
    pub backoff: Millis,
}

impl Timing {
    /// Periods for a poll interval: those that a person waits for follow it, those that protect the DHT do not.
    pub fn for_poll(poll: Millis) -> Timing {
        Timing {
            poll,
            glances_max: 3,
            share_max: 4,
            quiet: 5,
            storm: 250,
            spacing: 20,
            put_spacing: poll.clamp(250, 3_000),
            reput: 30 * 60_000,
            renew_spread: (poll * 20).clamp(2_000, 10 * 60_000),
            // A DHT that lost its memory loses announcements without a sign: short polls are for small worlds.
            announce: (poll * 20).clamp(5_000, 15 * 60_000),
            patience: poll.clamp(1_000, 20_000),
            retry_dead: (poll * 4).clamp(4_000, 120_000),
            retry_room: (poll * 2).clamp(1_000, 60_000),
            long_fetch: 1_000,
            grace: poll.clamp(2_000, 10_000),
            backoff: 500,
        }
    }
}
