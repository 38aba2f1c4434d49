//! What a record full of blocks costs, each block owned by another device: to build, to verify, and, for one who joins, to check
//! every entry. Prints a Markdown table; of each time the shortest of some rounds counts.

use kilofs::base::{Birth, BlockNumber, DatabaseId, DeviceId, Id, InfoHash, Locator, Place, Signature};
use kilofs::crypt::keys::{AdminKey, DatabaseKey, DeviceKey};
use kilofs::crypt::seal::{BlobKind, SealKeys};
use kilofs::crypt::{RecordKey, Secret};
use kilofs::record::{
    BLOCKS_MAX, BlockCharter, BlockEntry, Charter, Floor, Mode, Policy, Record, RootRef, SignedItem,
    VERSIONS_MAX, VersionRef, admit, genesis_charter,
};
use std::io::Write as _;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;

/// The shortest of some rounds.
fn best<T>(mut work: impl FnMut() -> T) -> (Duration, T) {
    let mut least = Duration::MAX;
    let mut last = None;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let made = work();
        least = least.min(began.elapsed());
        last = Some(made);
    }
    (least, last.expect("there is a round"))
}

fn owner(number: u16) -> DeviceKey {
    DeviceKey::from_seed(blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn charter(database: &DatabaseId) -> Charter {
    let mut charter = genesis_charter(database);
    for number in 1..BLOCKS_MAX as u16 {
        let block = BlockCharter {
            path: format!("users/{number}").into_bytes(),
            owner: Some(owner(number).public()),
            birth: Birth([1; 16]),
            epoch: 0,
            floor: Floor { counter: 1, root: Some(Id([2; 32])) },
            quota: Default::default(),
            private: None,
        };
        charter.blocks.insert(BlockNumber(number), block);
    }
    charter
}

fn entry(number: BlockNumber, database: &DatabaseId) -> BlockEntry {
    let entry = BlockEntry {
        number,
        birth: Birth([1; 16]),
        epoch: 0,
        counter: 2,
        parents: vec![Id([2; 32])],
        root: Some(RootRef { level: 0, id: Id([3; 32]) }),
        commitment: Id([4; 32]),
        inode_prefix: 5,
        signer: DeviceId([0; 32]),
        signature: Signature([0; 64]),
    };
    entry.signed(database, &owner(number.0))
}

fn main() -> anyhow::Result<()> {
    let (admin, key) = (AdminKey::generate(), DatabaseKey::generate());
    let database = kilofs::crypt::database_id(&admin.public());
    let secret = Secret::random();
    let (record_key, catalogue) = (RecordKey::of(&secret), SealKeys::catalogue(&secret, database));
    let charter = charter(&database);
    let bytes = charter.encode();
    let modes: Vec<Mode> =
        (0..BLOCKS_MAX).map(|number| if number == 0 { Mode::ReadWrite } else { Mode::Owner }).collect();
    let versions: Vec<VersionRef> = (0..VERSIONS_MAX as u8)
        .map(|n| VersionRef {
            infohash: InfoHash([n; 20]),
            commit: Locator { place: Place { offset: 1 << 30, length: 500 }, id: Id([n; 32]) },
        })
        .collect();
    let (signing, policy) = best(|| {
        let id = catalogue.blob_id(BlobKind::Charter, &charter.encode());
        Policy::sign(&admin, &database, 7, id, modes.clone())
    });
    let (building, item) = best(|| {
        let record = Record { time: 1, flags: 0, versions: versions.clone(), policy: policy.clone() };
        SignedItem::sign(&key, 1, record.encode_sealed(&record_key))
    });
    let (verifying, sound) = best(|| {
        let record = Record::decode(&record_key, &item.value);
        item.verify() && record.is_ok_and(|record| record.policy.verify(&database, &admin.public()))
    });
    anyhow::ensure!(sound, "the record does not verify");
    let (reading, read) = best(|| {
        let id = catalogue.blob_id(BlobKind::Charter, &bytes);
        Charter::decode(&bytes)
            .is_ok_and(|charter| id == policy.charter && charter.blocks.len() == BLOCKS_MAX)
    });
    anyhow::ensure!(read, "the charter does not read");
    let entries: Vec<BlockEntry> =
        charter.blocks.keys().skip(1).map(|number| entry(*number, &database)).collect();
    let (checking, counted) = best(|| {
        let counts = |entry: &&BlockEntry| {
            let block = &charter.blocks[&entry.number];
            admit(entry, &database, Mode::Owner, block, &charter.members, &admin.public()).is_ok()
        };
        entries.iter().filter(counts).count()
    });
    anyhow::ensure!(counted == BLOCKS_MAX - 1, "an entry of an owner does not count");
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{BLOCKS_MAX} blocks, a record of {} bytes, a charter of {}\n",
        item.value.len(),
        bytes.len()
    )?;
    writeln!(out, "| what | ms |\n|---|---:|")?;
    for (what, time) in [
        ("sign the policy", signing),
        ("build and sign the record", building),
        ("verify the record, policy included", verifying),
        ("read the charter and compare it with the policy", reading),
        ("check the entries of all owners", checking),
    ] {
        writeln!(out, "| {what} | {:.2} |", time.as_secs_f64() * 1e3)?;
    }
    Ok(())
}
