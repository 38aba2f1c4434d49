//! What a link gives: one of five sets of keys, each of which contains the weaker ones.

use super::keys::{AdminKey, DatabaseKey, database_id, is_usable};
use super::one_block::OneBlock;
use super::record_key::RecordKey;
use super::secret::Secret;
use crate::base::{Birth, BlockNumber, DatabaseId, Malformed, PublicKey, Reader, Writer};
use std::cmp::Ordering;
use std::fmt;
use zeroize::Zeroizing;

/// What a capability allows; the weaker is the smaller. The numbers are those of the keyring.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Follow, keep and seed without being able to read.
    Mirror = 0,
    /// Read.
    Read = 1,
    /// Read and publish.
    Write = 2,
    /// Everything, the policy included.
    Admin = 3,
    /// Read one block.
    Block = 4,
}

impl Kind {
    /// All, the weakest first.
    pub const ALL: [Kind; 5] = [Kind::Mirror, Kind::Block, Kind::Read, Kind::Write, Kind::Admin];

    /// As links name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mirror => "mirror",
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Admin => "admin",
            Kind::Block => "block",
        }
    }

    /// The kind of a number in a keyring.
    pub fn of_code(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// Its place in [`Kind::ALL`].
    fn strength(self) -> Option<usize> {
        Kind::ALL.iter().position(|kind| *kind == self)
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Kind) -> Ordering {
        self.strength().cmp(&other.strength())
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Kind) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The keys of one database that one holder has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Verifies policies; names the database.
    pub admin_public: PublicKey,
    /// Where the record lies.
    pub database_public: PublicKey,
    /// Opens the record.
    pub record_key: RecordKey,
    /// Opens blocks.
    pub read_secret: Option<Secret>,
    /// Opens one block, where that is all that can be read.
    pub one_block: Option<OneBlock>,
    /// Signs the record.
    pub database_seed: Option<Secret>,
    /// Signs policies.
    pub admin_seed: Option<Secret>,
    /// No policy below this is accepted: the one in force when the link was made.
    pub policy_counter: u32,
    /// No record below this is accepted: the newest when the link was made.
    pub seq: i64,
    /// What came before the present keys, the first ones first: read secrets, or at a mirror record keys.
    pub older: Vec<Secret>,
}

/// Rotations that a capability can look back on.
pub const GENERATIONS_MAX: usize = 64;

impl Capability {
    /// All of a new database.
    pub fn create(admin: &AdminKey, database: &DatabaseKey, read_secret: Secret) -> Capability {
        Capability {
            admin_public: admin.public(),
            database_public: database.public(),
            record_key: RecordKey::of(&read_secret),
            read_secret: Some(read_secret),
            one_block: None,
            database_seed: Some(database.seed()),
            admin_seed: Some(admin.seed()),
            policy_counter: 0,
            seq: 0,
            older: Vec::new(),
        }
    }

    /// How many rotations the database has had.
    pub fn generation(&self) -> u32 {
        u32::try_from(self.older.len()).unwrap_or(u32::MAX)
    }

    /// The record keys of all generations, the first one first.
    pub fn record_keys(&self) -> Vec<RecordKey> {
        let of = |secret: &Secret| match self.read_secret {
            Some(_) => RecordKey::of(secret),
            None => RecordKey::new(secret.clone()),
        };
        self.older.iter().map(of).chain([self.record_key.clone()]).collect()
    }

    /// The read secrets of all generations, the first one first; none at a mirror.
    pub fn read_secrets(&self) -> Vec<Secret> {
        self.read_secret.iter().flat_map(|secret| self.older.iter().chain([secret])).cloned().collect()
    }

    /// The same database under new keys: what a rotation leads to. None without the read secret, or where there were too many.
    pub fn rotated(
        &self,
        database: &DatabaseKey,
        read_secret: Secret,
        policy_counter: u32,
    ) -> Option<Capability> {
        let older: Vec<Secret> = self.older.iter().chain([self.read_secret.as_ref()?]).cloned().collect();
        (older.len() <= GENERATIONS_MAX).then(|| Capability {
            admin_public: self.admin_public,
            database_public: database.public(),
            record_key: RecordKey::of(&read_secret),
            read_secret: Some(read_secret),
            one_block: None,
            database_seed: Some(database.seed()),
            admin_seed: self.admin_seed.clone(),
            policy_counter,
            seq: 0,
            older,
        })
    }

    /// What it allows.
    pub fn kind(&self) -> Kind {
        match (&self.read_secret, &self.database_seed, &self.admin_seed) {
            (Some(_), Some(_), Some(_)) => Kind::Admin,
            (Some(_), Some(_), None) => Kind::Write,
            (Some(_), None, _) => Kind::Read,
            (None, ..) if self.one_block.is_some() => Kind::Block,
            (None, ..) => Kind::Mirror,
        }
    }

    /// The part of it that gives `kind`; none if it gives less itself. What reads more than one block gives no
    /// [`Kind::Block`] of itself: see [`Capability::of_block`].
    pub fn weakened(&self, kind: Kind) -> Option<Capability> {
        if kind > self.kind() || kind == Kind::Block && self.one_block.is_none() {
            return None;
        }
        let mut weaker = self.clone();
        if kind < Kind::Admin {
            weaker.admin_seed = None;
        }
        if kind < Kind::Write {
            weaker.database_seed = None;
        }
        if kind < Kind::Read && weaker.read_secret.take().is_some() {
            weaker.older = weaker.older.iter().map(|secret| RecordKey::of(secret).secret().clone()).collect();
        }
        if kind < Kind::Block {
            weaker.one_block = None;
        }
        Some(weaker)
    }

    /// The part of it that reads one block in its present life and epoch, and what it holds from earlier ones; none if it
    /// does not read that one.
    pub fn of_block(&self, number: BlockNumber, birth: &Birth, epoch: u32) -> Option<Capability> {
        let database = self.database_id();
        let one_block = match (&self.read_secret, &self.one_block) {
            (Some(_), _) => OneBlock::of(&self.read_secrets(), database, number, birth, epoch)?,
            (None, Some(one)) => one.clone(),
            (None, None) => return None,
        };
        one_block.keys(database, number, birth, epoch)?;
        Some(Capability { one_block: Some(one_block), ..self.weakened(Kind::Mirror)? })
    }

    /// The database.
    pub fn database_id(&self) -> DatabaseId {
        database_id(&self.admin_public)
    }

    /// Signs the record, where this capability may.
    pub fn database_key(&self) -> Option<DatabaseKey> {
        self.database_seed.as_ref().map(|seed| DatabaseKey::from_seed(seed.expose()))
    }

    /// Signs policies, where this capability may.
    pub fn admin_key(&self) -> Option<AdminKey> {
        self.admin_seed.as_ref().map(|seed| AdminKey::from_seed(seed.expose()))
    }

    /// Its bytes without its kind. What can be derived is left out.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer(Vec::with_capacity(Self::BYTES_MAX));
        let kind = self.kind();
        if kind < Kind::Admin {
            writer.raw(&self.admin_public.0);
        }
        if kind < Kind::Write {
            writer.raw(&self.database_public.0);
        }
        match (&self.read_secret, &self.one_block) {
            (None, one_block) => {
                writer.raw(self.record_key.secret().expose());
                one_block.iter().for_each(|one_block| one_block.write(&mut writer));
            }
            (Some(secret), _) => {
                writer.raw(secret.expose());
                // An admin seed without the database's gives no more than reading.
                let seeds = [&self.database_seed, &self.admin_seed].into_iter().flatten();
                let count = if kind == Kind::Read { 0 } else { 2 };
                seeds.take(count).for_each(|seed| _ = writer.raw(seed.expose()));
            }
        }
        writer.varint(u64::from(self.policy_counter)).varint(u64::try_from(self.seq).unwrap_or(0));
        if !self.older.is_empty() {
            writer.varint(self.older.len() as u64);
            self.older.iter().for_each(|secret| _ = writer.raw(secret.expose()));
            self.one_block.iter().for_each(|one_block| one_block.write_older(&mut writer));
        }
        Zeroizing::new(writer.0)
    }

    /// Three keys of 32, the keys of a block, a varint of five, one of ten; a count and for each generation a key of 32 and
    /// those of a block.
    pub(super) const BYTES_MAX: usize =
        3 * 32 + OneBlock::BYTES + 5 + 10 + 1 + GENERATIONS_MAX * (32 + OneBlock::OLDER_BYTES);

    /// Reads what [`Capability::encode`] wrote for a capability of this kind.
    pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<Capability, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut public = |is_there: bool| is_there.then(|| reader.array().map(PublicKey)).transpose();
        let admin_public = public(kind < Kind::Admin)?;
        let database_public = public(kind < Kind::Write)?;
        let mut secret =
            |weakest: Kind| (kind >= weakest).then(|| reader.array().map(Secret::new)).transpose();
        let first = secret(Kind::Mirror)?.ok_or(Malformed)?;
        let database_seed = secret(Kind::Write)?;
        let admin_seed = secret(Kind::Admin)?;
        let mut one_block = (kind == Kind::Block).then(|| OneBlock::read(&mut reader)).transpose()?;
        let policy_counter = u32::try_from(reader.varint()?).map_err(|_| Malformed)?;
        let seq = i64::try_from(reader.varint()?).map_err(|_| Malformed)?;
        let generations = if reader.remaining() == 0 { None } else { Some(reader.bounded(GENERATIONS_MAX)?) };
        if generations == Some(0) {
            return Err(Malformed);
        }
        let older = (0..generations.unwrap_or(0)).map(|_| reader.array().map(Secret::new));
        let older = older.collect::<Result<Vec<_>, _>>()?;
        one_block.iter_mut().try_for_each(|one_block| one_block.read_older(&mut reader, older.len()))?;
        reader.end()?;
        let derived_admin = admin_seed.as_ref().map(|seed| AdminKey::from_seed(seed.expose()).public());
        let derived_database =
            database_seed.as_ref().map(|seed| DatabaseKey::from_seed(seed.expose()).public());
        let admin_public = admin_public.or(derived_admin).filter(is_usable).ok_or(Malformed)?;
        let database_public = database_public.or(derived_database).filter(is_usable).ok_or(Malformed)?;
        let (record_key, read_secret) = match kind {
            Kind::Mirror | Kind::Block => (RecordKey::new(first), None),
            _ => (RecordKey::of(&first), Some(first)),
        };
        Ok(Capability {
            admin_public,
            database_public,
            record_key,
            read_secret,
            one_block,
            database_seed,
            admin_seed,
            policy_counter,
            seq,
            older,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn full() -> Capability {
        let (admin, database) = (AdminKey::from_seed(&[1; 32]), DatabaseKey::from_seed(&[2; 32]));
        let capability = Capability::create(&admin, &database, Secret::new([3; 32]));
        Capability { policy_counter: 70_000, seq: 1 << 40, ..capability }
    }

    const BLOCK: (BlockNumber, Birth, u32) = (BlockNumber(3), Birth([4; 16]), 2);

    fn of_kind(kind: Kind) -> Capability {
        let (number, birth, epoch) = BLOCK;
        match kind {
            Kind::Block => full().of_block(number, &birth, epoch).unwrap(),
            kind => full().weakened(kind).unwrap(),
        }
    }

    #[test]
    fn one_block_is_what_is_left_of_a_link_for_it() {
        let (number, birth, epoch) = BLOCK;
        let one = of_kind(Kind::Block);
        for held in [Kind::Read, Kind::Write, Kind::Admin, Kind::Block] {
            assert_eq!(of_kind(held).of_block(number, &birth, epoch), Some(one.clone()), "{held}");
        }
        assert_eq!(of_kind(Kind::Mirror).of_block(number, &birth, epoch), None);
        assert_eq!(one.of_block(BlockNumber(4), &birth, epoch), None);
        assert_eq!(one.of_block(number, &birth, epoch + 1), None);
        assert!(one.read_secret.is_none() && one.database_seed.is_none() && one.admin_seed.is_none());
        let encoded = one.encode();
        assert!(!encoded.windows(32).any(|bytes| bytes == [3; 32]), "the read secret is not in it");
    }

    #[test]
    fn each_kind_survives_and_gives_the_weaker_ones() {
        for kind in Kind::ALL {
            let capability = of_kind(kind);
            assert_eq!(capability.kind(), kind);
            assert_eq!(Capability::decode(kind, &capability.encode()).as_ref(), Ok(&capability));
            assert_eq!(capability.database_id(), full().database_id());
            for other in Kind::ALL {
                let gives = other <= kind && (other != Kind::Block || kind == Kind::Block);
                assert_eq!(capability.weakened(other).is_some(), gives, "{kind} {other}");
                if other != kind {
                    let decoded = Capability::decode(other, &capability.encode());
                    assert_ne!(decoded.as_ref(), Ok(&capability), "{kind} as {other}");
                }
            }
        }
    }

    #[test]
    fn what_was_rotated_opens_what_was_before() {
        let (first, key) = (full(), DatabaseKey::from_seed(&[7; 32]));
        let second = first.rotated(&key, Secret::new([8; 32]), 9).unwrap();
        assert_eq!((second.kind(), second.generation(), second.policy_counter), (Kind::Admin, 1, 9));
        assert_eq!(second.database_id(), first.database_id());
        assert_eq!(second.read_secrets(), [Secret::new([3; 32]), Secret::new([8; 32])]);
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Block) {
            let weaker = second.weakened(kind).unwrap();
            assert_eq!(weaker.record_keys(), [first.record_key.clone(), second.record_key.clone()], "{kind}");
            assert_eq!(Capability::decode(kind, &weaker.encode()), Ok(weaker.clone()));
            let bytes = weaker.encode();
            for length in bytes.len() - 32..bytes.len() {
                assert!(Capability::decode(kind, &bytes[..length]).is_err(), "{kind} {length}");
            }
        }
        let (number, birth, _) = BLOCK;
        let one = second.of_block(number, &birth, 1).unwrap();
        assert_eq!(Capability::decode(Kind::Block, &one.encode()).as_ref(), Ok(&one));
        assert_eq!(one.record_keys(), second.record_keys());
        assert!(![3, 8].iter().any(|byte| one.encode().windows(32).any(|bytes| bytes == [*byte; 32])));
        assert_eq!(second.of_block(number, &birth, 2), None);
        assert_eq!(second.weakened(Kind::Mirror).unwrap().read_secrets(), []);
        assert_eq!(first.weakened(Kind::Mirror).unwrap().rotated(&key, Secret::random(), 1), None);
        assert_eq!(Capability::decode(Kind::Admin, &[&first.encode()[..], &[0]].concat()), Err(Malformed));
    }

    #[test]
    fn the_longest_fits_its_buffer() {
        let older = vec![Secret::new([9; 32]); GENERATIONS_MAX];
        let capability = Capability { policy_counter: u32::MAX, seq: i64::MAX, older, ..full() };
        assert_eq!(capability.rotated(&DatabaseKey::generate(), Secret::random(), 1), None);
        for kind in Kind::ALL {
            let capability = match kind {
                Kind::Block => capability.of_block(BLOCK.0, &BLOCK.1, GENERATIONS_MAX as u32),
                kind => capability.weakened(kind),
            };
            assert!(capability.unwrap().encode().len() <= Capability::BYTES_MAX, "{kind}");
        }
    }

    #[test]
    fn keys_under_which_anything_verifies_are_refused() {
        let mut capability = full().weakened(Kind::Mirror).unwrap();
        capability.admin_public = PublicKey([0; 32]);
        assert_eq!(Capability::decode(Kind::Mirror, &capability.encode()), Err(Malformed));
    }

    #[test]
    fn a_capability_does_not_show_its_secrets() {
        assert!(!format!("{:?}", full()).contains("3, 3, 3"));
        assert_eq!(format!("{:?}", full()).matches("Secret(…)").count(), 4);
    }
}
