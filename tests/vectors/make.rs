//! What the vectors are made from: the good ones here, the others in `hostile.rs`. Nothing in it is random.

use crate::format::{Builder, Lines};
use crate::{hostile, independent, neighbours, opened, rotated, secrets};
use kilofs::base::{
    Birth, BlockNumber, DatabaseId, DeviceId, Id, InfoHash, Locator, Place, SessionId, Signature,
};
use kilofs::crypt::link::{self, Capability, Kind};
use kilofs::crypt::{AdminKey, DatabaseKey, DeviceKey, RecordKey, Secret};
use kilofs::record::{
    BLOCKS_MAX, BlockCharter, BlockEntry, Charter, Commit, Floor, Maker, Members, Mode, Policy, Private,
    Quota, Record, RootRef, SignedItem, Stamp, Vector, VersionRef, genesis_charter,
};
use std::collections::BTreeSet;

pub const RECORD_KEY: [u8; 32] = [0x11; 32];
pub const READ_SECRET: [u8; 32] = [0x22; 32];
pub const SALT: [u8; 16] = [0x33; 16];

/// A vector whose outputs are yet to be observed.
pub struct Made {
    pub kind: &'static str,
    pub name: &'static str,
    pub note: &'static str,
    pub good: bool,
    pub inputs: Lines,
}

pub fn good(kind: &'static str, name: &'static str, note: &'static str, inputs: Builder) -> Made {
    Made { kind, name, note, good: true, inputs: inputs.0 }
}

pub fn bad(kind: &'static str, name: &'static str, note: &'static str, inputs: Builder) -> Made {
    Made { kind, name, note, good: false, inputs: inputs.0 }
}

pub fn all() -> Vec<Made> {
    let parts =
        [records(), policies(), items(), charters(), entries(), commits(), links(), keyrings(), sealed()];
    let others = [hostile::all(), secrets::all(), neighbours::all(), opened::all(), rotated::all()];
    parts.into_iter().chain(others).flatten().collect()
}

pub fn admin() -> AdminKey {
    AdminKey::from_seed(&[1; 32])
}

pub fn database() -> DatabaseId {
    kilofs::crypt::database_id(&admin().public())
}

pub fn device(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[0x40 + n; 32])
}

fn version(n: u8) -> VersionRef {
    let place = Place { offset: u64::from(n) << 20 | 0x1234, length: 600 + u32::from(n) };
    VersionRef { infohash: InfoHash([n; 20]), commit: Locator { place, id: Id([0xc0 + n; 32]) } }
}

pub fn policy(counter: u32, modes: &[Mode]) -> Policy {
    Policy::sign(&admin(), &database(), counter, Id([0x55; 32]), modes.to_vec())
}

/// The plaintext of a record.
pub fn plain_record(versions: u8, policy: Policy) -> Vec<u8> {
    let record = Record {
        time: 1_790_000_000,
        flags: 0,
        versions: (1..=versions).rev().map(version).collect(),
        policy,
    };
    let sealed = record.encode_sealed(&RecordKey::new(Secret::new(RECORD_KEY)));
    independent::open_record(&RECORD_KEY, &sealed).unwrap()
}

pub fn record_inputs(sealed: &[u8]) -> Builder {
    Builder::default().hex("record key", &RECORD_KEY).hex("admin", &admin().public().0).hex("sealed", sealed)
}

fn records() -> Vec<Made> {
    let record = |name, note, versions, policy| {
        let sealed = independent::seal_record(&RECORD_KEY, &plain_record(versions, policy));
        good("record", name, note, record_inputs(&sealed))
    };
    let modes = [Mode::ReadWrite, Mode::ReadOnly, Mode::Owner, Mode::Append, Mode::ReadOnly];
    let full: Vec<Mode> = modes.iter().copied().cycle().take(BLOCKS_MAX).collect();
    let foreign = Policy { signature: Signature([7; 64]), ..policy(3, &modes) };
    vec![
        record(
            "first",
            "the first record of a database: one block, one version",
            1,
            policy(1, &[Mode::ReadWrite]),
        ),
        record("no-version", "a policy alone", 0, policy(2, &modes)),
        record("five-versions", "as many versions as fit", 5, policy(2, &modes)),
        record("full", "as many versions and blocks as fit", 5, policy(u32::MAX, &full)),
        record(
            "foreign-policy",
            "opens, and its policy is not signed by the admin: for the reader to see",
            2,
            foreign,
        ),
    ]
}

pub fn policy_inputs(bytes: &[u8]) -> Builder {
    Builder::default().hex("admin", &admin().public().0).hex("bytes", bytes)
}

fn policies() -> Vec<Made> {
    let one = policy(7, &[Mode::ReadWrite, Mode::ReadOnly, Mode::Owner, Mode::Append, Mode::Append]);
    let rival = policy(7, &[Mode::ReadOnly]);
    let later = policy(8, &[Mode::ReadWrite]);
    let foreign =
        Policy::sign(&AdminKey::from_seed(&[2; 32]), &database(), 7, Id([0x55; 32]), one.modes.clone());
    let elsewhere = Policy::sign(&admin(), &DatabaseId([9; 32]), 7, Id([0x55; 32]), one.modes.clone());
    let against =
        |policy: &Policy, other: &Policy| policy_inputs(&policy.encode()).hex("other", &other.encode());
    vec![
        good("policy", "five-blocks", "each mode", policy_inputs(&one.encode())),
        good(
            "policy",
            "rivals",
            "two policies with one counter: the smaller hash holds",
            against(&one, &rival),
        ),
        good("policy", "later", "the higher counter holds", against(&later, &one)),
        good("policy", "same", "no policy replaces itself", against(&one, &one)),
        good("policy", "foreign-admin", "signed by another key", policy_inputs(&foreign.encode())),
        good(
            "policy",
            "foreign-database",
            "signed by the admin for another database",
            policy_inputs(&elsewhere.encode()),
        ),
    ]
}

pub fn item_inputs(item: &SignedItem) -> Builder {
    let SignedItem { key, seq, value, signature } = item;
    Builder::default().text("key", key).text("seq", seq).hex("value", value).text("signature", signature)
}

pub fn item() -> SignedItem {
    SignedItem::sign(&DatabaseKey::from_seed(&[5; 32]), 1 << 40, vec![0xab; 995])
}

fn items() -> Vec<Made> {
    let published = Builder::default()
        .text("key", "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
        .text("seq", 1)
        .hex("value", b"Hello World!")
        .text(
            "signature",
            concat!(
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff",
                "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
            ),
        );
    vec![
        good("item", "bep-44", "test vector 1 of BEP 44", published),
        good("item", "record", "a value of a record's length", item_inputs(&item())),
    ]
}

pub fn charter() -> Charter {
    let mut charter = genesis_charter(&database());
    let block = |n: u8, path: &[u8]| BlockCharter {
        path: path.to_vec(),
        owner: (n == 2).then(|| device(2).public()),
        birth: Birth([n; 16]),
        epoch: u32::from(n),
        floor: Floor { counter: 10, root: Some(Id([0x70 + n; 32])) },
        quota: Quota::default(),
        private: None,
    };
    charter.blocks.insert(BlockNumber(1), block(1, b"letters"));
    charter.blocks.insert(BlockNumber(2), block(2, b"letters/caf\xe9"));
    charter.blocks.insert(BlockNumber(5), block(5, b"a b/.c"));
    charter.members = Members::Listed(BTreeSet::from([device(1).public(), device(2).public()]));
    charter
}

pub fn private() -> Private {
    let readers = [1, 2].map(|n| (device(n).public(), [n; 80]));
    Private { links: vec![[0x51; 48]], admin: [0x52; 80], readers: readers.into() }
}

fn charters() -> Vec<Made> {
    let inputs =
        |charter: &Charter| Builder::default().hex("database", &database().0).hex("bytes", &charter.encode());
    let mut limited = charter();
    for (number, bytes, files) in [(1, Some(10 << 30), Some(1000)), (2, None, Some(0))] {
        limited.blocks.get_mut(&BlockNumber(number)).unwrap().quota = Quota { bytes, files };
    }
    let mut hidden = charter();
    hidden.blocks.get_mut(&BlockNumber(2)).unwrap().private = Some(private());
    let nobody = Charter { members: Members::Listed(BTreeSet::new()), ..charter() };
    vec![
        good(
            "charter",
            "genesis",
            "what every device assumes of a database id",
            inputs(&genesis_charter(&database())),
        ),
        good("charter", "blocks", "nested blocks, an owner, floors, members", inputs(&charter())),
        good("charter", "quotas", "format 2: limits of bytes and files of two blocks", inputs(&limited)),
        good(
            "charter",
            "private",
            "format 3: a private block with two readers, in its second epoch",
            inputs(&hidden),
        ),
        good("charter", "nobody", "an empty list of members: only the admin writes", inputs(&nobody)),
        good(
            "content",
            "two-blocks",
            "counters and signatures are no content; the order of listing does not matter",
            Builder::default().text("block", format!("7 {}", Id([7; 32]))).text("block", "0 empty"),
        ),
    ]
}

pub fn entry(counter: u64) -> BlockEntry {
    BlockEntry {
        number: BlockNumber(2),
        birth: Birth([2; 16]),
        epoch: 2,
        counter,
        parents: vec![Id([0x72; 32]), Id([0x73; 32])],
        root: Some(RootRef { level: 1, id: Id([0x74; 32]) }),
        commitment: Id([0x75; 32]),
        inode_prefix: 0xdead_beef,
        signer: DeviceId([0; 32]),
        signature: Signature([0; 64]),
    }
}

pub fn entry_inputs(mode: Mode, bytes: &[u8]) -> Builder {
    let inputs = Builder::default().hex("admin", &admin().public().0).text("mode", mode);
    inputs.hex("charter", &charter().encode()).hex("bytes", bytes)
}

pub fn floor_entry() -> BlockEntry {
    BlockEntry { root: Some(RootRef { level: 1, id: Id([0x72; 32]) }), ..entry(10) }
}

fn entries() -> Vec<Made> {
    let by = |n: u8| entry(11).signed(&database(), &device(n)).encode();
    let empty = BlockEntry { root: None, parents: Vec::new(), ..entry(12) };
    let admins = entry(11).signed_by_admin(&database(), &admin()).encode();
    vec![
        good(
            "entry",
            "member",
            "a member, in a block that members write",
            entry_inputs(Mode::ReadWrite, &by(1)),
        ),
        good(
            "entry",
            "member-append",
            "a member, in a block that members add to",
            entry_inputs(Mode::Append, &by(1)),
        ),
        good("entry", "owner", "the owner", entry_inputs(Mode::Owner, &by(2))),
        good("entry", "admin", "the admin, in a read-only block", entry_inputs(Mode::ReadOnly, &admins)),
        good(
            "entry",
            "floor",
            "the floor, whoever signed it",
            entry_inputs(Mode::ReadOnly, &floor_entry().encode()),
        ),
        good(
            "entry",
            "emptied",
            "an empty map without parents",
            entry_inputs(Mode::ReadWrite, &empty.signed(&database(), &device(1)).encode()),
        ),
    ]
}

/// The stamp of a device's commit.
pub fn stamp(n: u8, counter: u64, digest: u8) -> (Maker, Stamp) {
    let (session, digest) = (SessionId([n + 1; 16]), [digest; 32]);
    let message =
        [b"kilofs commit 2", &database().0[..], &session.0, &counter.to_le_bytes(), &digest].concat();
    let (device, signature) = (device(n).public(), device(n).sign(&message));
    (Maker { device, session }, Stamp { counter, digest: Id(digest), signature })
}

pub fn vector(stamps: &[(u8, u64, u8)]) -> Vector {
    let mut vector = Vector::default();
    for (n, counter, digest) in stamps {
        let (maker, stamp) = stamp(*n, *counter, *digest);
        vector.insert(maker, stamp);
    }
    vector
}

pub fn commit() -> Commit {
    Commit {
        catalogue: Some((RootRef { level: 0, id: Id([0x81; 32]) }, Place { offset: 5 << 20, length: 900 })),
        charter: Locator { place: Place { offset: 1 << 47, length: 1 << 23 }, id: Id([0x82; 32]) },
        policy_counter: 7,
        parents: vec![Id([0x83; 32]), Id([0x84; 32])],
        vector: vector(&[(2, 7, 0x83), (1, 9, 0x84)]),
        lamport: 10,
        time: 1_790_000_000,
        device: DeviceId([0; 32]),
        session: SessionId([2; 16]),
        counter: 12,
        signature: Signature([0; 64]),
    }
}

pub fn commit_inputs(bytes: &[u8]) -> Builder {
    Builder::default().hex("admin", &admin().public().0).hex("bytes", bytes)
}

fn commits() -> Vec<Made> {
    let first =
        Commit { catalogue: None, parents: Vec::new(), vector: Vector::default(), time: -1, ..commit() };
    let sign = |commit: Commit| commit_inputs(&commit.signed(&database(), &device(1)).encode());
    vec![
        good("commit", "merge", "two parents and what they knew", sign(commit())),
        good("commit", "first", "nothing before it, nothing in it, before 1970", sign(first)),
    ]
}

pub fn capability(kind: Kind) -> Capability {
    let capability =
        Capability::create(&admin(), &DatabaseKey::from_seed(&[2; 32]), Secret::new(READ_SECRET));
    let capability = Capability { policy_counter: 300, seq: 70_000, ..capability };
    match kind {
        Kind::Block => capability.of_block(BlockNumber(2), &Birth([9; 16]), 3).unwrap(),
        kind => capability.weakened(kind).unwrap(),
    }
}

/// What a link of this kind carries.
pub fn payload(kind: Kind) -> Vec<u8> {
    let record_key = independent::derive("kilofs 1 2026 record", &READ_SECRET, &[]);
    let (admin, database_key) = (admin(), DatabaseKey::from_seed(&[2; 32]));
    let (admin_public, database_public) = (admin.public().0, database_key.public().0);
    let keys: Vec<[u8; 32]> = match kind {
        Kind::Mirror => vec![admin_public, database_public, record_key],
        Kind::Read => vec![admin_public, database_public, READ_SECRET],
        Kind::Write => vec![admin_public, READ_SECRET, [2; 32]],
        Kind::Admin => vec![READ_SECRET, [2; 32], [1; 32]],
        Kind::Block => vec![admin_public, database_public, record_key],
    };
    // The block 2 of birth 9, epoch 3, behind the key of what names it.
    let one_block = || {
        let key = |number: u16, birth: [u8; 16], epoch: u32| {
            let parts = [&database().0[..], &number.to_le_bytes(), &birth, &epoch.to_le_bytes()];
            independent::derive("kilofs 1 2026 block", &READ_SECRET, &parts)
        };
        let place = [&[2, 0][..], &[9; 16], &[3, 0, 0, 0]].concat();
        [&key(u16::MAX, [0; 16], 0)[..], &place, &key(2, [9; 16], 3)].concat()
    };
    let one_block = if kind == Kind::Block { one_block() } else { Vec::new() };
    // 300 and 70,000 as varints.
    [&keys.concat()[..], &one_block, &[0xac, 0x02, 0xf0, 0xa2, 0x04]].concat()
}

pub fn link_inputs(text: &str) -> Builder {
    Builder::default().text("text", text)
}

fn links() -> Vec<Made> {
    let plain = |name, kind: Kind| {
        let text = independent::link(kind.name(), 1, &payload(kind));
        assert_eq!(text, link::print(&capability(kind)));
        good("link", name, "as it is printed", link_inputs(&text))
    };
    let code = independent::link("write", 1, &payload(Kind::Write)).to_uppercase();
    let (head, tail) = code.split_at(40);
    let folded = format!("  {head}\\n\\t{}\\n", tail.to_lowercase());
    let locked = independent::lock("write", "correct horse", &SALT, &payload(Kind::Write));
    let locked = independent::link("write-locked", 1, &locked);
    let secret = Builder::default().hex("read secret", &READ_SECRET).text("day", 20_717);
    vec![
        plain("mirror", Kind::Mirror),
        plain("block", Kind::Block),
        plain("read", Kind::Read),
        plain("write", Kind::Write),
        plain("admin", Kind::Admin),
        good("link", "code", "upper case, from a QR code", link_inputs(&code)),
        good("link", "folded", "broken into lines by a mail program", link_inputs(&folded)),
        good(
            "link",
            "locked",
            "with its passphrase",
            link_inputs(&locked).text("passphrase", "correct horse"),
        ),
        good("derive", "from-read-secret", "what a reader derives", secret),
    ]
}

/// The sealed content of a keyring.
pub fn keyring_plain(kind: Kind) -> Vec<u8> {
    let x25519 = [6; 32];
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(x25519)).to_bytes();
    let certificate = device(1).sign(&[b"kilofs x25519 1", &database().0[..], &public].concat());
    let payload = payload(kind);
    let head = [&[kind as u8, payload.len() as u8], &payload[..]].concat();
    [&head[..], device(1).seed().expose(), &x25519, &certificate.0, &[5], b"notes"].concat()
}

pub fn keyring_inputs(file: &[u8]) -> Builder {
    Builder::default().hex("file", file)
}

fn keyrings() -> Vec<Made> {
    let open = independent::keyring(b"", &SALT, &keyring_plain(Kind::Admin));
    let locked = independent::keyring(b"correct horse", &SALT, &keyring_plain(Kind::Mirror));
    vec![
        good("keyring", "open", "without a passphrase", keyring_inputs(&open)),
        good(
            "keyring",
            "locked",
            "with a passphrase",
            keyring_inputs(&locked).text("passphrase", "correct horse"),
        ),
    ]
}

fn sealed() -> Vec<Made> {
    let inputs = |kind: &str, block: u16| {
        let keys = Builder::default().hex("read secret", &READ_SECRET).hex("database", &database().0);
        let place = if block == u16::MAX { ([0; 16], 0) } else { ([9; 16], 3) };
        keys.text("block", block).hex("birth", &place.0).text("epoch", place.1).text("kind", kind)
    };
    let chunk = |bytes: &[u8]| {
        inputs("chunk", 4).text("data id", 0x7_0000_0005u64).text("index", 9).hex("plain", bytes)
    };
    let pattern: Vec<u8> = (0..3000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    let node =
        inputs("node", 4).text("level", 2).hex("plain", b"keys and values").hex("placements", b"places");
    vec![
        good("seal", "chunk", "a chunk that BLAKE3 hashes as a tree", chunk(&pattern)),
        good("seal", "empty-chunk", "a chunk without bytes", chunk(b"")),
        good("seal", "node", "a node", node),
        good("seal", "commit", "a commit", inputs("commit", u16::MAX).hex("plain", b"a commit")),
        good("seal", "charter", "a charter", inputs("charter", u16::MAX).hex("plain", b"a charter")),
    ]
}
