//! The rule that says whose entry counts. It costs one signature, needs no history, and gives everybody one answer.

use super::charter::{BlockCharter, Members};
use super::entry::BlockEntry;
use super::policy::Mode;
use crate::base::{DatabaseId, PublicKey};

/// Why an entry does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature is not the signer's.
    #[error("its signature is not the signer's")]
    BadSignature,
    /// The members are listed, and the signer is none.
    #[error("its signer is not a member")]
    NotMember,
    /// Nobody but the admin writes here.
    #[error("the block is read-only")]
    ReadOnly,
    /// Nobody but the owner and the admin writes here.
    #[error("its signer is not the block's owner")]
    NotOwner,
    /// Older than the state that the policy was signed over, or another state of the same counter.
    #[error("it is older than the state that the policy fixed")]
    BelowFloor,
    /// Further above the floor than any honest state.
    #[error("its counter is beyond that of any honest state")]
    Absurd,
    /// Of an earlier block with this number.
    #[error("it belongs to an earlier block of this number")]
    WrongBirth,
    /// Under another key than the block's present one.
    #[error("it belongs to another epoch of the block's key")]
    WrongEpoch,
    /// The charter has no block of this number.
    #[error("the charter has no such block")]
    UnknownBlock,
    /// The signer used another key than the block's.
    #[error("it was sealed with another key than the block's")]
    WrongCommitment,
}

/// Counters above a floor that count, or one entry with the highest number there is would end a block for ever.
pub const COUNTERS_MAX: u64 = 1 << 48;

/// The counter of the state after `known`. Where somebody has gone to the end of what counts it begins again behind
/// the floor: where any member writes, ancestry tells what is newer.
pub fn next_counter(known: u64, floor: u64) -> u64 {
    let above = known.max(floor) - floor;
    floor.saturating_add(if above >= COUNTERS_MAX { 1 } else { above + 1 })
}

/// How far above a block's state the floor lies that a change of its mode or owner sets. Whoever was away while it was
/// changed has signed states of its own above the one that the admin saw; none of them comes as high.
const FLOOR_GAP: u64 = 1 << 32;

/// The counter of the floor over a state with this one; none where there can be no more.
pub fn next_floor(counter: u64) -> Option<u64> {
    // Above it there must be room for all that counts.
    counter.checked_add(FLOOR_GAP).filter(|floor| floor.checked_add(COUNTERS_MAX).is_some())
}

/// Which of two states of a block that only some may write holds: the higher counter, or, where the one who writes did so
/// in two places at once, the larger root.
pub fn rank(entry: &BlockEntry) -> (u64, Option<[u8; 32]>) {
    (entry.counter, entry.root.map(|root| root.id.0))
}

/// Whether an entry counts under a mode. `charter` is that of the entry's number; whoever looks it up says
/// [`Refusal::UnknownBlock`], and whoever holds the block's keys compares the commitment.
///
/// An entry that *is* the floor counts whoever signed it: the admin vouched for that state. Nothing below it does.
pub fn admit(
    entry: &BlockEntry,
    database: &DatabaseId,
    mode: Mode,
    charter: &BlockCharter,
    members: &Members,
    admin: &PublicKey,
) -> Result<(), Refusal> {
    if is_floor(entry, charter)? {
        return Ok(());
    }
    if !entry.signature_valid(database) {
        return Err(Refusal::BadSignature);
    }
    may_sign(entry, mode, charter, members, admin)
}

/// Whether an entry whose signature was verified when it came still counts after a change of policy.
pub fn still_counts(
    entry: &BlockEntry,
    mode: Mode,
    charter: &BlockCharter,
    members: &Members,
    admin: &PublicKey,
) -> bool {
    match is_floor(entry, charter) {
        Ok(is_floor) => is_floor || may_sign(entry, mode, charter, members, admin).is_ok(),
        Err(_) => false,
    }
}

/// Whether an entry is the floor. An error where it is of another life or key, or too far below or above.
fn is_floor(entry: &BlockEntry, charter: &BlockCharter) -> Result<bool, Refusal> {
    if entry.birth != charter.birth {
        return Err(Refusal::WrongBirth);
    }
    if entry.epoch != charter.epoch {
        return Err(Refusal::WrongEpoch);
    }
    let floor = &charter.floor;
    if entry.counter == floor.counter && entry.root.map(|root| root.id) == floor.root {
        return Ok(true);
    }
    if entry.counter <= floor.counter {
        return Err(Refusal::BelowFloor);
    }
    if entry.counter - floor.counter > COUNTERS_MAX {
        return Err(Refusal::Absurd);
    }
    Ok(false)
}

fn may_sign(
    entry: &BlockEntry,
    mode: Mode,
    charter: &BlockCharter,
    members: &Members,
    admin: &PublicKey,
) -> Result<(), Refusal> {
    if entry.is_by(admin) {
        return Ok(());
    }
    match mode {
        Mode::ReadOnly => Err(Refusal::ReadOnly),
        Mode::Owner if charter.owner == Some(entry.signer) => Ok(()),
        Mode::Owner => Err(Refusal::NotOwner),
        Mode::ReadWrite | Mode::Append if members.include(&entry.signer) => Ok(()),
        Mode::ReadWrite | Mode::Append => Err(Refusal::NotMember),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Birth, BlockNumber, DeviceId, Id, Signature};
    use crate::crypt::{AdminKey, DeviceKey};
    use crate::record::{Floor, RootRef};
    use std::collections::BTreeSet;

    const DATABASE: DatabaseId = DatabaseId([9; 32]);
    const MODES: [Mode; 4] = [Mode::ReadWrite, Mode::ReadOnly, Mode::Owner, Mode::Append];

    struct World {
        admin: AdminKey,
        owner: DeviceKey,
        member: DeviceKey,
        stranger: DeviceKey,
        charter: BlockCharter,
    }

    fn world() -> World {
        let owner = DeviceKey::from_seed(&[2; 32]);
        let charter = BlockCharter {
            path: b"block".to_vec(),
            owner: Some(owner.public()),
            birth: Birth([1; 16]),
            epoch: 5,
            floor: Floor { counter: 10, root: Some(Id([7; 32])) },
            quota: Default::default(),
            private: None,
        };
        let (member, stranger) = (DeviceKey::from_seed(&[3; 32]), DeviceKey::from_seed(&[4; 32]));
        World { admin: AdminKey::from_seed(&[1; 32]), owner, member, stranger, charter }
    }

    fn entry(counter: u64, root: u8) -> BlockEntry {
        BlockEntry {
            number: BlockNumber(1),
            birth: Birth([1; 16]),
            epoch: 5,
            counter,
            parents: Vec::new(),
            root: Some(RootRef { level: 0, id: Id([root; 32]) }),
            commitment: Id([0; 32]),
            inode_prefix: 1,
            signer: DeviceId([0; 32]),
            signature: Signature([0; 64]),
        }
    }

    impl World {
        fn listed(&self) -> Members {
            Members::Listed(BTreeSet::from([self.member.public()]))
        }

        fn admit(&self, entry: &BlockEntry, mode: Mode, members: &Members) -> Result<(), Refusal> {
            admit(entry, &DATABASE, mode, &self.charter, members, &self.admin.public())
        }
    }

    #[test]
    fn each_mode_allows_its_signers_and_no_others() {
        let world = world();
        let by = |device: &DeviceKey| entry(11, 1).signed(&DATABASE, device);
        let admins = entry(11, 1).signed_by_admin(&DATABASE, &world.admin);
        use Refusal::{NotMember, NotOwner};
        let expected = [
            (Mode::ReadWrite, Ok(()), Err(NotMember), Err(NotMember)),
            (Mode::ReadOnly, Err(Refusal::ReadOnly), Err(Refusal::ReadOnly), Err(Refusal::ReadOnly)),
            (Mode::Owner, Err(NotOwner), Ok(()), Err(NotOwner)),
            (Mode::Append, Ok(()), Err(NotMember), Err(NotMember)),
        ];
        for (mode, member, owner, stranger) in expected {
            let listed = world.listed();
            assert_eq!(world.admit(&by(&world.member), mode, &listed), member, "{mode}");
            assert_eq!(world.admit(&by(&world.owner), mode, &listed), owner, "{mode}");
            assert_eq!(world.admit(&by(&world.stranger), mode, &listed), stranger, "{mode}");
            assert_eq!(world.admit(&admins, mode, &listed), Ok(()), "{mode}");
        }
        for mode in [Mode::ReadWrite, Mode::Append] {
            assert_eq!(world.admit(&by(&world.stranger), mode, &Members::Open), Ok(()), "{mode}");
        }
    }

    #[test]
    fn the_floor_counts_whoever_signed_it_and_nothing_below_does() {
        let world = world();
        let floor = entry(10, 7);
        let below = [
            entry(10, 8).signed(&DATABASE, &world.member),
            entry(9, 7).signed(&DATABASE, &world.member),
            entry(9, 8).signed_by_admin(&DATABASE, &world.admin),
            BlockEntry { root: None, ..entry(10, 7) }.signed(&DATABASE, &world.owner),
        ];
        for mode in MODES {
            assert_eq!(world.admit(&floor, mode, &world.listed()), Ok(()), "{mode}");
            for entry in &below {
                assert_eq!(world.admit(entry, mode, &Members::Open), Err(Refusal::BelowFloor), "{mode}");
            }
        }
    }

    #[test]
    fn no_counter_ends_a_block() {
        let world = world();
        let admit = |counter| {
            world.admit(&entry(counter, 1).signed(&DATABASE, &world.member), Mode::ReadWrite, &Members::Open)
        };
        let last = 10 + COUNTERS_MAX;
        assert_eq!(admit(last), Ok(()));
        assert_eq!(admit(last + 1), Err(Refusal::Absurd));
        assert_eq!(admit(u64::MAX), Err(Refusal::Absurd));
        assert_eq!((next_counter(0, 10), next_counter(10, 10), next_counter(40, 10)), (11, 11, 41));
        assert_eq!(admit(next_counter(last - 1, 10)), Ok(()));
        assert_eq!(next_counter(last, 10), 11);
    }

    #[test]
    fn a_former_owner_signs_nothing_above_the_floor_of_the_next_one() {
        let mut world = world();
        let away = entry(11 + 70_000, 1).signed(&DATABASE, &world.owner);
        assert_eq!(world.admit(&away, Mode::Owner, &Members::Open), Ok(()));
        world.charter.owner = Some(world.member.public());
        world.charter.floor = Floor { counter: next_floor(10).unwrap_or(0), root: Some(Id([7; 32])) };
        let high = entry(world.charter.floor.counter + 5, 1).signed(&DATABASE, &world.owner);
        let floor = entry(world.charter.floor.counter, 7);
        for (entry, expected) in
            [(&away, Err(Refusal::BelowFloor)), (&high, Err(Refusal::NotOwner)), (&floor, Ok(()))]
        {
            assert_eq!(world.admit(entry, Mode::Owner, &Members::Open), expected);
            let (charter, admin) = (&world.charter, world.admin.public());
            let still = still_counts(entry, Mode::Owner, charter, &Members::Open, &admin);
            assert_eq!(still, expected.is_ok());
        }
        // The first owner again: what was signed before the second one still does not count.
        world.charter.owner = Some(world.owner.public());
        assert_eq!(world.admit(&away, Mode::Owner, &Members::Open), Err(Refusal::BelowFloor));
    }

    #[test]
    fn there_is_room_above_every_floor() {
        let mut counter = 0;
        while let Some(floor) = next_floor(counter) {
            assert!(floor > counter && floor.checked_add(COUNTERS_MAX).is_some());
            counter = floor + COUNTERS_MAX;
        }
        assert!(counter > u64::MAX / 2);
    }

    #[test]
    fn of_two_states_of_an_owner_one_holds() {
        let (low, high) = (entry(12, 1), entry(12, 2));
        let empty = BlockEntry { root: None, ..entry(12, 0) };
        assert!(rank(&high) > rank(&low) && rank(&low) > rank(&empty) && rank(&entry(13, 0)) > rank(&high));
    }

    #[test]
    fn an_empty_floor_is_a_floor() {
        let mut world = world();
        world.charter.floor = Floor { counter: 0, root: None };
        let empty = BlockEntry { root: None, ..entry(0, 0) };
        assert_eq!(world.admit(&empty, Mode::ReadOnly, &world.listed()), Ok(()));
        assert_eq!(world.admit(&entry(0, 1), Mode::ReadWrite, &Members::Open), Err(Refusal::BelowFloor));
    }

    #[test]
    fn another_life_another_key_and_a_forged_signature_are_refused() {
        let world = world();
        let refused = |entry: BlockEntry| world.admit(&entry, Mode::ReadWrite, &Members::Open);
        let sign = |entry: BlockEntry| entry.signed(&DATABASE, &world.member);
        assert_eq!(
            refused(sign(BlockEntry { birth: Birth([2; 16]), ..entry(11, 1) })),
            Err(Refusal::WrongBirth)
        );
        assert_eq!(refused(sign(BlockEntry { epoch: 4, ..entry(11, 1) })), Err(Refusal::WrongEpoch));
        assert_eq!(refused(BlockEntry { birth: Birth([2; 16]), ..entry(10, 7) }), Err(Refusal::WrongBirth));
        let mut forged = sign(entry(11, 1));
        forged.counter = 12;
        assert_eq!(refused(forged), Err(Refusal::BadSignature));
        let mut forged = sign(entry(11, 1));
        forged.signer = DeviceId(world.admin.public().0);
        assert_eq!(
            refused(forged),
            Err(Refusal::BadSignature),
            "the admin's name is not the admin's signature"
        );
        let elsewhere = entry(11, 1).signed(&DatabaseId([8; 32]), &world.member);
        assert_eq!(refused(elsewhere), Err(Refusal::BadSignature));
    }
}
