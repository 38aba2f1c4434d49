//! What a link of one block gives beside what a mirror has: the key of that block in its present life and epoch, and the
//! key of catalogue, charter and commits, without which no version can be judged. Both are derived from the read secret,
//! and lead neither back to it nor to the key of another block. Where the database has moved to new keys there are those of
//! each epoch, since what the block holds from before stays sealed as it was.

use super::seal::{Scope, SealKeys, block_key};
use super::secret::Secret;
use crate::base::{Birth, BlockNumber, DatabaseId, Malformed, Reader, Writer};

/// The keys of one block for one who reads nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OneBlock {
    /// The block.
    pub number: BlockNumber,
    /// Which life of that number.
    pub birth: Birth,
    /// Which incarnation of its key.
    pub epoch: u32,
    key: Secret,
    catalogue: Secret,
    /// Of earlier epochs the keys of catalogue and block, the first one first.
    older: Vec<(Secret, Secret)>,
}

impl OneBlock {
    /// Encoded length: catalogue key 32, number 2, birth 16, epoch 4, block key 32.
    pub(super) const BYTES: usize = Secret::BYTES + 2 + Birth::BYTES + 4 + Secret::BYTES;

    /// Encoded length of what is known of an earlier epoch.
    pub(super) const OLDER_BYTES: usize = 2 * Secret::BYTES;

    /// The part of the read secrets of all generations, the first one first, that opens one block. None without any, and
    /// where there are several and the block is not under the last.
    pub fn of(
        read_secrets: &[Secret],
        database: DatabaseId,
        number: BlockNumber,
        birth: &Birth,
        epoch: u32,
    ) -> Option<OneBlock> {
        let (last, before) = read_secrets.split_last()?;
        let generation = u32::try_from(before.len()).ok()?;
        if generation > 0 && epoch != generation {
            return None;
        }
        let pair = |secret: &Secret, epoch: u32, generation: u32| {
            let catalogue = block_key(secret, database, BlockNumber::CATALOGUE, &Birth([0; 16]), generation);
            (catalogue, block_key(secret, database, number, birth, epoch))
        };
        let (catalogue, key) = pair(last, epoch, generation);
        let older = (0..).zip(before).map(|(epoch, secret)| pair(secret, epoch, epoch)).collect();
        Some(OneBlock { number, birth: *birth, epoch, key, catalogue, older })
    }

    /// Keys of the block, if it is still the one that the link was made for.
    pub fn keys(
        &self,
        database: DatabaseId,
        number: BlockNumber,
        birth: &Birth,
        epoch: u32,
    ) -> Option<SealKeys> {
        let same = (self.number, self.birth, self.epoch) == (number, *birth, epoch);
        if !same || self.older.is_empty() {
            return same.then(|| SealKeys::new(&self.key, Scope { database, block: number, epoch }));
        }
        let keys: Vec<Secret> = self.older.iter().map(|(_, key)| key).chain([&self.key]).cloned().collect();
        SealKeys::of_epochs(&keys, database, number)
    }

    /// Keys of catalogue, charter and commits.
    pub fn catalogue(&self, database: DatabaseId) -> SealKeys {
        let older = self.older.iter().map(|(catalogue, _)| catalogue);
        let keys: Vec<Secret> = older.chain([&self.catalogue]).cloned().collect();
        SealKeys::of_epochs(&keys, database, BlockNumber::CATALOGUE).expect("there is one at least")
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.raw(self.catalogue.expose()).u16(self.number.0).raw(&self.birth.0).u32(self.epoch);
        writer.raw(self.key.expose());
    }

    pub(super) fn write_older(&self, writer: &mut Writer) {
        for (catalogue, key) in &self.older {
            writer.raw(catalogue.expose()).raw(key.expose());
        }
    }

    /// Reads what [`OneBlock::write_older`] wrote of so many epochs; the block is under the one after them.
    pub(super) fn read_older(&mut self, reader: &mut Reader, epochs: usize) -> Result<(), Malformed> {
        let one = |_| Ok((Secret::new(reader.array()?), Secret::new(reader.array()?)));
        self.older = (0..epochs).map(one).collect::<Result<_, Malformed>>()?;
        let fits = epochs == 0 || usize::try_from(self.epoch) == Ok(epochs);
        if fits { Ok(()) } else { Err(Malformed) }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<OneBlock, Malformed> {
        let catalogue = Secret::new(reader.array()?);
        let number = Some(BlockNumber(reader.u16()?)).filter(|number| *number != BlockNumber::CATALOGUE);
        let number = number.ok_or(Malformed)?;
        let (birth, epoch) = (Birth(reader.array()?), reader.u32()?);
        Ok(OneBlock { number, birth, epoch, key: Secret::new(reader.array()?), catalogue, older: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::{BlobKind, Tampered};

    const DATABASE: DatabaseId = DatabaseId([9; 32]);
    const BIRTH: Birth = Birth([4; 16]);
    const NUMBER: BlockNumber = BlockNumber(3);

    fn secret() -> Secret {
        Secret::new([7; 32])
    }

    fn one() -> OneBlock {
        OneBlock::of(&[secret()], DATABASE, NUMBER, &BIRTH, 2).unwrap()
    }

    fn whole(number: BlockNumber, birth: Birth, epoch: u32) -> SealKeys {
        SealKeys::for_block(&secret(), DATABASE, number, &birth, epoch)
    }

    #[test]
    fn it_opens_its_block_and_what_names_it() {
        let keys = one().keys(DATABASE, NUMBER, &BIRTH, 2).unwrap();
        let mut sealed = Vec::new();
        let id = whole(NUMBER, BIRTH, 2).seal_chunk(1, 0, b"content", &mut sealed);
        assert_eq!(keys.open_chunk(1, 0, &id, &sealed), Ok(b"content".to_vec()));
        assert_eq!(keys.commitment(), whole(NUMBER, BIRTH, 2).commitment());
        let mut sealed = Vec::new();
        let catalogue = SealKeys::catalogue(&secret(), DATABASE);
        let id = catalogue.seal_blob(BlobKind::Charter, b"charter", &mut sealed);
        let opened = one().catalogue(DATABASE).open_blob(BlobKind::Charter, &id, &sealed);
        assert_eq!(opened, Ok(b"charter".to_vec()));
    }

    #[test]
    fn it_opens_no_other_block_life_or_epoch() {
        for (number, birth, epoch) in [
            (BlockNumber(0), BIRTH, 2),
            (BlockNumber(4), BIRTH, 2),
            (NUMBER, Birth([5; 16]), 2),
            (NUMBER, BIRTH, 3),
        ] {
            assert!(one().keys(DATABASE, number, &birth, epoch).is_none());
            let other = whole(number, birth, epoch);
            let mut node = Vec::new();
            let id = other.seal_node(0, b"names", b"places", &mut node);
            let mut chunk = Vec::new();
            let chunk_id = other.seal_chunk(1, 0, b"content", &mut chunk);
            // Neither its keys nor, were one of its secrets taken for the read secret, what is derived from that.
            let derived = [&one().key, &one().catalogue]
                .map(|secret| SealKeys::for_block(secret, DATABASE, number, &birth, epoch));
            let named = [&one().key, &one().catalogue]
                .map(|secret| SealKeys::new(secret, Scope { database: DATABASE, block: number, epoch }));
            let own = [one().keys(DATABASE, NUMBER, &BIRTH, 2).unwrap(), one().catalogue(DATABASE)];
            for keys in derived.iter().chain(&named).chain(&own) {
                assert_eq!(keys.open_node(0, &id, &node), Err(Tampered));
                assert_eq!(keys.open_chunk(1, 0, &chunk_id, &chunk), Err(Tampered));
                assert_ne!(keys.commitment(), other.commitment());
            }
        }
    }

    #[test]
    fn its_bytes_survive_and_show_no_read_secret() {
        let mut writer = Writer::new();
        one().write(&mut writer);
        assert_eq!(writer.0.len(), OneBlock::BYTES);
        assert!(!writer.0.windows(32).any(|bytes| bytes == secret().expose()));
        let mut reader = Reader::new(&writer.0);
        assert_eq!(OneBlock::read(&mut reader), Ok(one()));
        reader.end().unwrap();
    }

    #[test]
    fn after_rotations_it_opens_what_the_block_holds_of_each_epoch() {
        let secrets: Vec<Secret> = (1..4).map(|byte| Secret::new([byte; 32])).collect();
        let all =
            |number, birth: &Birth| SealKeys::of_generations(&secrets, DATABASE, number, birth).unwrap();
        assert_eq!(OneBlock::of(&secrets, DATABASE, NUMBER, &BIRTH, 1), None, "a block is under the last");
        let one = OneBlock::of(&secrets, DATABASE, NUMBER, &BIRTH, 2).unwrap();
        let mut writer = Writer::new();
        one.write(&mut writer);
        one.write_older(&mut writer);
        assert_eq!(writer.0.len(), OneBlock::BYTES + 2 * OneBlock::OLDER_BYTES);
        for secret in &secrets {
            assert!(!writer.0.windows(32).any(|bytes| bytes == secret.expose()));
        }
        let mut reader = Reader::new(&writer.0);
        let mut again = OneBlock::read(&mut reader).unwrap();
        assert_eq!(again.clone().read_older(&mut Reader::new(&[0; 64]), 1), Err(Malformed));
        again.read_older(&mut reader, 2).unwrap();
        reader.end().unwrap();
        assert_eq!(again, one);
        let (keys, catalogue) = (one.keys(DATABASE, NUMBER, &BIRTH, 2).unwrap(), one.catalogue(DATABASE));
        assert_eq!(keys.boundary_key(), all(NUMBER, &BIRTH).boundary_key());
        assert_eq!(keys.commitment(), all(NUMBER, &BIRTH).commitment());
        let named = all(BlockNumber::CATALOGUE, &Birth([0; 16]));
        assert_eq!(catalogue.boundary_key(), named.boundary_key());
        for (epoch, secret) in (0..).zip(&secrets) {
            let mut sealed = Vec::new();
            let then = SealKeys::for_block(secret, DATABASE, NUMBER, &BIRTH, epoch);
            let id = then.seal_chunk(1, 0, b"of its time", &mut sealed);
            assert_eq!(keys.open_chunk(1, 0, &id, &sealed).unwrap(), b"of its time");
            let mut sealed = Vec::new();
            let other = SealKeys::for_block(secret, DATABASE, BlockNumber(4), &BIRTH, epoch);
            let id = other.seal_chunk(1, 0, b"of another block", &mut sealed);
            assert_eq!(keys.open_chunk(1, 0, &id, &sealed), Err(Tampered));
            let mut sealed = Vec::new();
            let then = SealKeys::for_block(secret, DATABASE, BlockNumber::CATALOGUE, &Birth([0; 16]), epoch);
            let id = then.seal_blob(BlobKind::Commit, b"commit", &mut sealed);
            assert_eq!(catalogue.open_blob(BlobKind::Commit, &id, &sealed).unwrap(), b"commit");
        }
        assert!(one.keys(DATABASE, NUMBER, &BIRTH, 3).is_none(), "nothing of what comes");
    }
}
